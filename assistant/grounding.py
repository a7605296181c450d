"""Every sentence of an answer is supported by a passage it cites, or it does not leave.

A quote is checked by position: the words must stand in the passage. A sentence a policy wrote
itself is checked by its words: its numbers must all stand in the cited passage, and most of its
content words (by how much they say) in a sentence of it or two neighbouring ones, and it must deny
where that does. Where sentence and passage are in different languages only numbers can be compared;
the sentence then counts as unchecked. A citation that names no passage is dropped.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Literal

from assistant.schema import Citation, Delta
from retrieval.evidence import disagrees
from retrieval.schema import Chunk, Passage
from retrieval.text import is_han, is_stop, language, sentences, terms

#: Share of a sentence's weighted content words that its passage must hold.
SUPPORT = 0.6

_NUMBERS = r"\d{1,3}(?:\s*[,，、]\s*\d{1,3})*"
_MARK = re.compile(rf"\s*[\[【]({_NUMBERS})[\]】]")
#: Marks at the head of what follows a full stop, and one that may still be coming.
_MARKS = re.compile(rf"(?:\s*[\[【]{_NUMBERS}[\]】][。.]?)+")
_MARK_BEGUN = re.compile(r"\s*(?:[\[【][\d\s,，、]*)?")
_TAG = re.compile(r"(?<!`)(?:</?[A-Za-z][^<>\n]{0,200}>)+(?!`)")
_NUMBER = re.compile(r"\d+(?:[.,]\d+)*")
_AUXILIARY = re.compile(r"\b\w+n['’]t\b", re.I)
_NEGATION = re.compile(
    r"\b(?:not|no|never|none|nor|neither|cannot|without|nobody|nothing)\b|n['’]t\b|"
    r"不(?![但仅同断久过管论少锈])|没|沒|未(?!来)|无(?![锡线论])|無(?![線論])|并非",
    re.I,
)

Support = Literal["quote", "supported", "unchecked", "unsupported"]


@dataclass(frozen=True, slots=True)
class Grounded:
    """A sentence that may be shown: its text with final `[n]` marks, and how it is supported."""

    text: str
    support: Support


@dataclass(frozen=True, slots=True)
class _Fact:
    """A sentence of a passage, or two: where it stands, its terms, whether it denies."""

    start: int
    end: int
    held: set[str]
    denies: bool


class Grounder:
    """Checks one answer sentence by sentence and numbers its citations as they appear."""

    def __init__(
        self,
        passages: Sequence[Passage],
        rarity: Callable[[list[str]], list[float]],
        unsupported: Literal["drop", "flag"] = "drop",
    ) -> None:
        self._passages = passages
        self._rarity = rarity
        self._flag = unsupported == "flag"
        self._citations: list[Citation] = []
        self.dropped = 0

    @property
    def citations(self) -> tuple[Citation, ...]:
        """Citations so far, in the order of their numbers."""
        return tuple(self._citations)

    def quote(self, delta: Delta) -> Grounded | None:
        """Accept a quote if it stands where the policy says it does."""
        number, start, end = delta.quote or (0, 0, 0)
        if not 1 <= number <= len(self._passages):
            self.dropped += 1
            return None
        passage = self._passages[number - 1]
        if not 0 <= start < end or passage.chunk.text[start:end] != delta.text:
            self.dropped += 1
            return None
        mark = self._cite(passage, start, end, verbatim=True)
        return Grounded(_displayed(passage.chunk, start, end, f" [{mark}]"), "quote")

    def sentence(self, text: str) -> Grounded | None:
        """Check a sentence the policy wrote; None where it must not be shown."""
        numbers = [int(n) for mark in _MARK.findall(text) for n in re.findall(r"\d+", mark)]
        bare = _MARK.sub("", text).strip()
        if not any(c.isalnum() for c in bare):
            return None
        cited = [n for n in dict.fromkeys(numbers) if 1 <= n <= len(self._passages)]
        tried = cited or range(1, len(self._passages) + 1)
        best: tuple[float, int, int, int, Support] | None = None
        marks = []
        for number in tried:
            score, start, end, support = self._check(bare, self._passages[number - 1])
            if support == "unsupported" or (support == "unchecked" and not cited):
                continue
            if cited:
                mark = self._cite(self._passages[number - 1], start, end, support == "quote")
                marks.append(mark)
            if best is None or score > best[0]:
                best = (score, number, start, end, support)
        if best is None:
            self.dropped += 1
            return Grounded(bare, "unsupported") if self._flag else None
        if not marks:
            passage = self._passages[best[1] - 1]
            marks = [self._cite(passage, best[2], best[3], best[4] == "quote")]
        return Grounded(f"{bare} " + "".join(f"[{m}]" for m in dict.fromkeys(marks)), best[4])

    def _check(self, text: str, passage: Passage) -> tuple[float, int, int, Support]:
        body = passage.chunk.text
        at = _find(text, body)
        if at >= 0:
            return 1.0, at, at + len(text), "quote"
        spans = sentences(body)
        if not spans or not _figures(text) <= _figures(body):
            return 0.0, 0, 0, "unsupported"
        if language(text) != language(body):
            return 0.0, spans[0][0], spans[-1][1], "unchecked"
        spoken = _AUXILIARY.sub(" ", text)
        wanted = list(dict.fromkeys(t for t in terms(spoken) if not is_stop(t) and "'" not in t))
        weights = [max(w, 0.05) for w in self._rarity(wanted)]
        whole = sum(weights) or 1.0

        def share(held: set[str]) -> float:
            return sum(w for t, w in zip(wanted, weights, strict=True) if t in held) / whole

        facts = [_Fact(a, b, set(terms(body[a:b])), _denies(body[a:b])) for a, b in spans]
        for one, two in pairwise(list(facts)):
            first = share(one.held) >= share(two.held)
            denies = one.denies if first else two.denies
            facts.append(_Fact(one.start, two.end, one.held | two.held, denies))
        best = (0.0, 0, 0)
        for fact in facts:
            if fact.denies == _denies(text):
                best = max(best, (share(fact.held), fact.start, fact.end), key=lambda b: b[0])
        return (*best, "supported" if best[0] >= SUPPORT else "unsupported")

    def _cite(self, passage: Passage, start: int, end: int, verbatim: bool) -> int:
        chunk = passage.chunk
        new = Citation(
            number=len(self._citations) + 1,
            chunk_id=chunk.id,
            document_id=chunk.document_id,
            source=passage.source,
            title=passage.title,
            headings=chunk.headings,
            quote=chunk.text[start:end],
            start=chunk.start + start,
            end=chunk.start + end,
            verbatim=verbatim,
            version=passage.version,
            modified=passage.modified,
            indexed=passage.indexed,
            score=passage.score,
            also=passage.also,
            older=tuple(o for o in passage.older if disagrees(chunk.text[start:end], o.text)),
        )
        for old in self._citations:
            if replace(new, number=old.number) == old:
                return old.number
        self._citations.append(new)
        return new.number


class SentenceStream:
    """Cuts streamed text into sentences; a sentence is out once the next one has begun.

    Waiting for the next sentence keeps `[n]` marks that follow the full stop with their sentence.
    However the text is cut into pieces, the sentences are the same.
    """

    #: Characters kept of what is out: what a full stop means depends on what stands before it.
    LOOK_BACK = 64

    def __init__(self) -> None:
        self._rest = ""
        self._out = ""

    def feed(self, text: str) -> list[str]:
        """Add a piece; returns the sentences that are complete now."""
        self._rest += text
        known = len(self._out)
        whole = self._out + self._rest
        ends = [known, *(end for end in _ends(whole) if end > known)]
        done = [whole[a:b] for a, b in pairwise(ends)]
        self._rest = whole[ends[-1] :]
        self._out = whole[max(0, ends[-1] - self.LOOK_BACK) : ends[-1]]
        return [s.strip() for s in done if s.strip()]

    def flush(self) -> list[str]:
        """The last sentence, once the stream has ended."""
        rest, self._rest = self._rest.strip(), ""
        return [rest] if rest else []


def _ends(text: str) -> list[int]:
    """Borders between sentences, marks kept with the sentence before them."""
    heads = [start for start, _ in sentences(text)[1:]]
    tight = [m.end() for m in re.finditer(r"[.!?](?=[\[【]\d)", text)]  # no space before the mark
    borders = []
    for start in heads + tight:
        mark = _MARKS.match(text, start)
        border = mark.end() if mark else start
        apart = start in heads or text[border : border + 1].isspace()
        if apart and not _MARK_BEGUN.fullmatch(text, border):
            borders.append(border)
    return sorted(set(borders))


def _denies(text: str) -> bool:
    return _NEGATION.search(text) is not None


def _find(text: str, body: str) -> int:
    """Where `text` stands in `body`, not inside a word or a number; -1 for nowhere."""
    at = body.find(text)
    while at >= 0:
        before, after = body[at - 1 : at], body[at + len(text) : at + len(text) + 1]
        if not (_joined(before, text[:1]) or _joined(text[-1:], after)):
            return at
        at = body.find(text, at + 1)
    return -1


def _joined(left: str, right: str) -> bool:
    return left.isalnum() and right.isalnum() and not is_han(left) and not is_han(right)


def _figures(text: str) -> set[str]:
    """The numbers of a text, 1,000 written as 1000 and full-width digits as narrow ones."""
    plain = re.sub(r"(?<=\d),(?=\d{3}(?!\d))", "", unicodedata.normalize("NFKC", text))
    return set(_NUMBER.findall(plain))


def _displayed(chunk: Chunk, start: int, end: int, mark: str) -> str:
    """A quote as Markdown: code in fences, tags in prose as code, so that both are read as text.

    The mark stands behind the first prose, before any fence.
    """
    parts, at = [], start
    for a, b in chunk.code:
        a, b = max(a, at), min(b, end)
        if a < b:
            prose = chunk.text[at:a].strip()
            parts += [_tagged(prose)] if prose else []
            parts.append("```\n" + chunk.text[a:b].strip("\n") + "\n```")
            at = b
    prose = chunk.text[at:end].strip() if parts else chunk.text[at:end]
    parts += [_tagged(prose)] if prose else []
    parts[0] += "\n\n" + mark.strip() if parts[0].endswith("```") else mark
    return "\n\n".join(parts)


def _tagged(prose: str) -> str:
    return _TAG.sub(r"`\g<0>`", prose)


def marks_removed(text: str) -> str:
    """The text of an answer without its `[n]` marks."""
    return _MARK.sub("", text)
