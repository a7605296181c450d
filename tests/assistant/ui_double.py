"""A small assistant that keeps everything in memory, for work on the page: same in, same out.

It answers with whole sentences of its documents, as the real one does, and it records what it was
told, so that a test can look.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from assistant.errors import ConversationNotFound, TurnNotFound
from assistant.schema import (
    Citation,
    Consent,
    Conversation,
    Event,
    Excerpt,
    Feedback,
    Health,
    PolicyCard,
    Reply,
    Step,
    Turn,
    Understanding,
)
from retrieval.schema import (
    Chunk,
    FileReport,
    Found,
    IndexStatus,
    IngestProgress,
    IngestSummary,
    Passage,
    RootStatus,
)
from safety.schema import Verdict

GUIDE = """# User guide

## Adding documents

To add documents, drop files under Documents or add a whole folder.
New files are searchable within seconds.

要添加文档，请把文件拖到“文档”区，或添加整个文件夹。新文件几秒内即可检索。

## Formats

Supported formats are Markdown, plain text, PDF, Word, PowerPoint, Excel and HTML.

支持的格式有 Markdown、纯文本、PDF、Word、PowerPoint、Excel 和 HTML。

## Feedback

Your feedback is used for training only if you allow it.

只有在您允许时，您的反馈才会用于训练。
"""

_SENTENCE = re.compile(r"[^\n。！？.!?]+[。！？.!?]?")
_WORD = re.compile(r"[a-z0-9]+|[\u4e00-\u9fff]")
_CHINESE = re.compile(r"[\u4e00-\u9fff]")
_COMMON = set(
    [
        "the",
        "a",
        "an",
        "of",
        "is",
        "are",
        "was",
        "to",
        "in",
        "for",
        "and",
        "or",
        "how",
        "what",
        "which",
        "do",
        "does",
        "i",
        "you",
        "my",
        "your",
        "的了是吗呢在有",
    ]
)
_CARD = PolicyCard(name="double", model="double", revision="1")


@dataclass
class Paper:
    """One document of the double."""

    id: int
    root: str
    name: str
    text: str
    title: str
    modified: float
    indexed: float


@dataclass
class Double:
    """An `AssistantLike` without a database. `delay` is the pause between pieces, seconds."""

    delay: float = 0.0
    papers: list[Paper] = field(default_factory=list)
    chats: dict[str, Conversation] = field(default_factory=dict)
    kept: dict[str, list[Turn]] = field(default_factory=dict)
    candidates: dict[str, Reply] = field(default_factory=dict)
    feedback: list[Feedback] = field(default_factory=list)
    consents: list[Consent] = field(default_factory=list)
    failures: dict[str, tuple[FileReport, ...]] = field(default_factory=dict)
    closed: int = 0
    fail_with: Callable[[], BaseException] | None = None
    _serial: int = 0

    @classmethod
    def with_guide(cls, delay: float = 0.0) -> Double:
        """A double that knows the user guide."""
        double = cls(delay=delay)
        double.learn("docs", "guide.md", GUIDE, 1_760_000_000.0)
        return double

    def learn(self, root: str, name: str, text: str, modified: float) -> None:
        """Take in one text; one of the same name under the same root is replaced."""
        self.papers = [p for p in self.papers if (p.root, p.name) != (root, name)]
        first = text.strip().splitlines()[0].lstrip("# ") if text.strip() else name
        self.papers.append(Paper(self._next(), root, name, text, first, modified, time.time()))

    def stream(
        self,
        text: str,
        *,
        conversation_id: str | None = None,
        user_id: str = "local",
        language: str = "auto",
        surface: str = "ui",
        consent: Consent = Consent(),
    ) -> Iterator[Event]:
        """Answer with the best sentence found, in pieces."""
        self.consents.append(consent)
        chat = conversation_id or f"chat{self._next()}"
        turn_id = f"turn{self._next()}"
        ended = False
        try:
            yield self._step("screen input", "allowed")
            yield self._step("understand", "question")
            if self.fail_with is not None:
                raise self.fail_with()
            reply = self._reply(text, chat, turn_id, 0)
            yield self._step("retrieve", f"{len(reply.passages)} passages")
            for piece in re.findall(r".{1,4}", reply.text, re.DOTALL):
                time.sleep(self.delay)
                yield Event("text", text=piece)
            self._keep(chat, user_id, Turn(turn_id, chat, text, reply, time.time()))
            ended = True
            yield Event("reply", reply=reply)
        finally:
            self.closed += not ended

    def alternative(
        self, turn_id: str, *, user_id: str = "local", consent: Consent = Consent()
    ) -> Iterator[Event]:
        """Answer once more, with the next best sentence."""
        self.consents.append(consent)
        turn = self._turn(turn_id)
        time.sleep(self.delay * 20)
        made = sum(1 for key in self.candidates if key.startswith(f"{turn_id}."))
        reply = self._reply(turn.user_text, turn.conversation_id, turn_id, made)
        yield Event("reply", reply=reply)

    def choose(self, turn_id: str, candidate_id: str, *, user_id: str = "local") -> Turn:
        """Show this candidate from now on."""
        turn = replace(self._turn(turn_id), reply=self.candidates[candidate_id])
        self._replace(turn)
        return turn

    def give_feedback(self, feedback: Feedback) -> None:
        """Remember it; a thumb becomes the turn's rating."""
        self.feedback.append(feedback)
        if feedback.kind == "thumb":
            self._replace(replace(self._turn(feedback.turn_id), rating=feedback.value))

    def conversations(self, user_id: str = "local") -> list[Conversation]:
        """All chats."""
        return list(self.chats.values())

    def turns(self, conversation_id: str, *, user_id: str = "local") -> list[Turn]:
        """The turns of one chat."""
        if conversation_id not in self.chats:
            raise ConversationNotFound(f"no conversation {conversation_id!r}")
        return list(self.kept[conversation_id])

    def rename(self, conversation_id: str, title: str, *, user_id: str) -> None:
        """Set the title."""
        self.chats[conversation_id] = replace(self.chats[conversation_id], title=title)

    def delete(self, conversation_id: str, *, user_id: str) -> None:
        """Forget a chat."""
        del self.chats[conversation_id], self.kept[conversation_id]

    def excerpt(self, citation: Citation) -> Excerpt:
        """The sentence with its neighbourhood."""
        paper = next((p for p in self.papers if p.id == citation.document_id), None)
        if paper is None:
            return Excerpt(citation, "", citation.quote, "", current=False)
        before = paper.text[max(0, citation.start - 80) : citation.start].lstrip()
        after = paper.text[citation.end : citation.end + 80].rstrip()
        return Excerpt(citation, before, citation.quote, after, current=True)

    def ingest(self, paths: Sequence[Path | str]) -> Iterator[IngestProgress | IngestSummary]:
        """Read the text files below `paths`; a URL has none."""
        tops = [p for p in paths if isinstance(p, Path)]
        files = [f for p in tops for f in ([p] if p.is_file() else sorted(p.rglob("*")))]
        named = [(f.name, f) for f in files if f.is_file()]
        yield from self._read(str(paths[0]), named)

    def upload(self, files: Sequence[tuple[str, Path]]) -> Iterator[IngestProgress | IngestSummary]:
        """Read the uploaded files."""
        yield from self._read("uploads", files)

    def forget(self, root: str) -> int:
        """Drop a root."""
        before = len(self.papers)
        self.papers = [p for p in self.papers if p.root != root]
        self.failures.pop(root, None)
        return before - len(self.papers)

    def index_status(self) -> IndexStatus:
        """One root per folder."""
        roots = tuple(
            RootStatus(
                root,
                sum(p.root == root for p in self.papers),
                sum(p.root == root for p in self.papers),
                max((p.indexed for p in self.papers if p.root == root), default=time.time()),
                0.0,
                self.failures.get(root, ()),
            )
            for root in sorted({p.root for p in self.papers} | set(self.failures))
        )
        number = len(self.papers)
        return IndexStatus(number, number, number, number, "double", roots)

    def health(self) -> Health:
        """Well."""
        number = len(self.papers)
        return Health(number, number, 0, "double", _CARD, ("rules",), "", len(self.chats), 0.1)

    def _read(
        self, root: str, files: Sequence[tuple[str, Path]]
    ) -> Iterator[IngestProgress | IngestSummary]:
        started, failed = time.monotonic(), []
        for done, (name, path) in enumerate(files, 1):
            time.sleep(self.delay * 10)
            try:
                text = path.read_bytes().decode("utf-8")
                self.learn(root, name, text, path.stat().st_mtime)
                report = FileReport(name, "added", 1, 1)
            except UnicodeDecodeError:
                detail, remedy = "not UTF-8", "Save the file as UTF-8."
                report = FileReport(name, "failed", 0, 0, "encoding", detail, remedy)
                failed.append(report)
            seconds = time.monotonic() - started
            yield IngestProgress(done, len(files), done, done, seconds, report)
        self.failures[root] = tuple(failed)
        added = len(files) - len(failed)
        yield IngestSummary(
            added, added, 0, 0, 0, added, added, time.monotonic() - started, tuple(failed)
        )

    def _reply(self, question: str, chat: str, turn_id: str, variant: int) -> Reply:
        found = self._search(question)
        language = "zh" if _CHINESE.search(question) else "en"
        candidate = f"{turn_id}.{variant}"
        citations: tuple[Citation, ...] = ()
        if variant < len(found):
            citations = (self._cite(1, *found[variant]),)
            text = citations[0].quote + "[1]"
        else:
            text = "文档里没有答案。" if language == "zh" else "The documents do not say."
        reply = Reply(
            turn_id=turn_id,
            candidate_id=candidate,
            conversation_id=chat,
            text=text,
            outcome="answered" if citations else "abstained",
            language=language,
            citations=citations,
            passages=tuple(self._passage(*hit) for hit in found),
            verdicts=(
                Verdict("allow", "none", 0.01, "input", "rules"),
                Verdict("annotate", "attack", 0.42, "passage", "rules", "attack.instruction"),
            ),
            steps=(
                Step("screen input", 0.002, "allowed"),
                Step("understand", 0.004, "question"),
                Step("retrieve", 0.031, f"{len(found)} passages"),
                Step("compose", 0.2, "one sentence"),
            ),
            understanding=Understanding("question", question, False, language, ""),
            policy=_CARD,
            confidence=0.82 if citations else None,
            seconds=0.24,
        )
        self.candidates[candidate] = reply
        return reply

    def _search(self, question: str) -> list[tuple[Paper, int, int, float]]:
        asked = _words(question)
        hits: list[tuple[Paper, int, int, float]] = []
        for paper in self.papers:
            for sentence in _SENTENCE.finditer(paper.text):
                text = sentence[0].strip()
                shared = len(asked & _words(text))
                if shared and not text.startswith("#"):
                    start = sentence.start() + sentence[0].index(text)
                    score = shared / max(1, len(asked))
                    hits.append((paper, start, start + len(text), score))
        hits.sort(key=lambda hit: (-hit[3], hit[0].id, hit[1]))
        return [hit for hit in hits if hit[3] >= 0.3][:4]

    def _cite(self, number: int, paper: Paper, start: int, end: int, score: float) -> Citation:
        return Citation(
            number=number,
            chunk_id=paper.id,
            document_id=paper.id,
            source=f"{paper.root}/{paper.name}",
            title=paper.title,
            headings=_headings(paper.text, start),
            quote=paper.text[start:end],
            start=start,
            end=end,
            verbatim=True,
            version="1",
            modified=paper.modified,
            indexed=paper.indexed,
            score=score,
        )

    def _passage(self, paper: Paper, start: int, end: int, score: float) -> Passage:
        chunk = Chunk(
            paper.id, paper.id, paper.text[start:end], start, end, _headings(paper.text, start), 0
        )
        by = (Found("dense", 1, score * 0.9), Found("lexical", 1, score * 7))
        return Passage(
            chunk, paper.name, paper.title, "en", "1", paper.modified, paper.indexed, score, by
        )

    def _keep(self, chat: str, user_id: str, turn: Turn) -> None:
        turns = self.kept.setdefault(chat, [])
        turns.append(turn)
        before = self.chats.get(chat)
        title = before.title if before else turn.user_text[:60]
        created = before.created if before else turn.created
        self.chats[chat] = Conversation(chat, user_id, title, created, turn.created, len(turns))

    def _turn(self, turn_id: str) -> Turn:
        for turns in self.kept.values():
            for turn in turns:
                if turn.id == turn_id:
                    return turn
        raise TurnNotFound(f"no turn {turn_id!r}")

    def _replace(self, turn: Turn) -> None:
        turns = self.kept[turn.conversation_id]
        turns[[t.id for t in turns].index(turn.id)] = turn

    def _step(self, name: str, detail: str) -> Event:
        time.sleep(self.delay * 5)
        return Event("step", step=Step(name, 0.001, detail))

    def _next(self) -> int:
        self._serial += 1
        return self._serial


def _words(text: str) -> set[str]:
    return {w.removesuffix("s") for w in _WORD.findall(text.lower())} - _COMMON


def _headings(text: str, position: int) -> tuple[str, ...]:
    path: list[str] = []
    for line in re.finditer(r"^(#+) (.*)$", text[:position], re.MULTILINE):
        del path[len(line[1]) - 1 :]
        path.append(line[2])
    return tuple(path)
