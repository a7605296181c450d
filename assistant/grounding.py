"""Every sentence of an answer is supported by a passage it cites, or it does not leave.

A quote is checked by position: the words must stand in the passage. A sentence a policy wrote
itself is checked by its words: its numbers must all stand in the cited passage, and most of its
content words (by how much they say) in two neighbouring sentences of it. Where sentence and
passage are in different languages only numbers can be compared; the sentence then counts as
unchecked. A citation that names no passage is dropped.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from assistant.schema import Citation, Delta
from retrieval.schema import Passage
from retrieval.text import is_stop, language, sentences, terms

#: Share of a sentence's weighted content words that its passage must hold.
SUPPORT = 0.6

_MARK = re.compile(r"\s*[\[【](\d{1,3})[\]】]")
_NUMBER = re.compile(r"\d+(?:[.,]\d+)*")

Support = Literal["quote", "supported", "unchecked", "unsupported"]


@dataclass(frozen=True, slots=True)
class Grounded:
    """A sentence that may be shown: its text with final `[n]` marks, and how it is supported."""

    text: str
    support: Support


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
        if not delta.text or passage.chunk.text[start:end] != delta.text:
            self.dropped += 1
            return None
        mark = self._cite(passage, start, end, verbatim=True)
        return Grounded(f"{delta.text} [{mark}]", "quote")

    def sentence(self, text: str) -> Grounded | None:
        """Check a sentence the policy wrote; None where it must not be shown."""
        numbers = [int(n) for n in _MARK.findall(text)]
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
        at = body.find(text)
        if at >= 0:
            return 1.0, at, at + len(text), "quote"
        spans = sentences(body)
        if not spans or not set(_NUMBER.findall(text)) <= set(_NUMBER.findall(body)):
            return 0.0, 0, 0, "unsupported"
        if language(text) != language(body):
            return 0.0, spans[0][0], spans[-1][1], "unchecked"
        wanted = list(dict.fromkeys(t for t in terms(text) if not is_stop(t)))
        weights = [max(w, 0.05) for w in self._rarity(wanted)]
        whole = sum(weights) or 1.0
        best = (0.0, 0, 0)
        for i, (start, _) in enumerate(spans):
            end = spans[min(i + 1, len(spans) - 1)][1]
            held = set(terms(body[start:end]))
            share = sum(w for t, w in zip(wanted, weights, strict=True) if t in held) / whole
            best = max(best, (share, start, end), key=lambda b: b[0])
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
        )
        for old in self._citations:
            if replace(new, number=old.number) == old:
                return old.number
        self._citations.append(new)
        return new.number


class SentenceStream:
    """Cuts streamed text into sentences; a sentence is out once the next one has begun.

    Waiting for the next sentence keeps `[n]` marks that follow the full stop with their sentence.
    """

    def __init__(self) -> None:
        self._rest = ""

    def feed(self, text: str) -> list[str]:
        """Add a piece; returns the sentences that are complete now."""
        self._rest += text
        ends = _ends(self._rest)
        done = [self._rest[a:b] for a, b in zip([0, *ends], ends, strict=False)]
        if ends:
            self._rest = self._rest[ends[-1] :]
        return [s.strip() for s in done if s.strip()]

    def flush(self) -> list[str]:
        """The last sentence, once the stream has ended."""
        rest, self._rest = self._rest.strip(), ""
        return [rest] if rest else []


def _ends(text: str) -> list[int]:
    """Borders between sentences, marks kept with the sentence before them."""
    spans = sentences(text)
    starts = []
    for start, end in spans[1:]:
        mark = re.match(r"(?:\s*[\[【]\d{1,3}[\]】][。.]?)+", text[start:end])
        if mark is None:
            starts.append(start)
        elif mark.end() < end - start:
            starts.append(start + mark.end())
    return starts


def marks_removed(text: str) -> str:
    """The text of an answer without its `[n]` marks."""
    return _MARK.sub("", text)
