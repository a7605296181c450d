"""Every sentence of an answer is supported by a passage it cites, or it does not leave.

A quote is checked by position: the words must stand in the passage. A sentence a policy wrote
itself is checked twice, and both checks must agree. Its numbers and names must all stand in the
cited passage (`assistant.figures`), and the trained heads (`assistant.support`) must find that the
passage says so; the citation then shows the sentence that does. Where there are no heads, words are
compared in their place: most content words (by how much they say) must stand in a sentence of the
passage or two neighbouring ones, which must deny where the sentence does; where the two are in
different languages only numbers and names can be compared, and the sentence counts as unchecked.
A citation that names no passage is dropped.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Literal

from assistant.checking import SUPPORT, Checked, Rarity, Support, check
from assistant.schema import Citation, Delta
from assistant.support import Supporter
from retrieval.evidence import disagrees
from retrieval.schema import Chunk, Passage
from retrieval.text import sentences

__all__ = ["SUPPORT", "Grounded", "Grounder", "SentenceStream", "marks_removed", "support"]

_NUMBERS = r"\d{1,3}(?:\s*[,，、]\s*\d{1,3})*"
_MARK = re.compile(rf"\s*[\[【]({_NUMBERS})[\]】]")
#: Marks at the head of what follows a full stop, and one that may still be coming.
_MARKS = re.compile(rf"(?:\s*[\[【]{_NUMBERS}[\]】][。.]?)+")
_MARK_BEGUN = re.compile(r"\s*(?:[\[【][\d\s,，、]*)?")
_TAG = re.compile(r"(?<!`)(?:</?[A-Za-z][^<>\n]{0,200}>)+(?!`)")


@dataclass(frozen=True, slots=True)
class Grounded:
    """A sentence that may be shown: its text with final `[n]` marks, and how it is supported.

    `against` is the place that contradicts an unsupported one, where the heads found any: number of
    the passage, [start, end) in its text.
    """

    text: str
    support: Support
    against: tuple[int, int, int] | None = field(default=None, compare=False)


class Grounder:
    """Checks one answer sentence by sentence and numbers its citations as they appear."""

    def __init__(
        self,
        passages: Sequence[Passage],
        rarity: Rarity,
        unsupported: Literal["drop", "flag"] = "drop",
        supporter: Supporter | None = None,
    ) -> None:
        self._passages = passages
        self._rarity, self._supporter = rarity, supporter
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
        tried = cited or [*range(1, len(self._passages) + 1)]
        bodies = [self._passages[n - 1].chunk.text for n in tried]
        around = [_around(self._passages[n - 1]) for n in tried]
        found = check(bare, bodies, self._rarity, self._supporter, around)
        best: tuple[Checked, int] | None = None
        marks = []
        for number, each in zip(tried, found, strict=True):
            if each.support == "unsupported" or (each.support == "unchecked" and not cited):
                continue
            if cited:
                passage = self._passages[number - 1]
                marks.append(self._cite(passage, each.start, each.end, each.support == "quote"))
            if best is None or each.score > best[0].score:
                best = each, number
        if best is None:
            self.dropped += 1
            against = [(n, e.start, e.end) for n, e in zip(tried, found, strict=True) if e.against]
            place = against[0] if against else None
            return Grounded(bare, "unsupported", place) if self._flag else None
        each, number = best
        if not marks:
            passage = self._passages[number - 1]
            marks = [self._cite(passage, each.start, each.end, each.support == "quote")]
        shown = f"{bare} " + "".join(f"[{m}]" for m in dict.fromkeys(marks))
        return Grounded(shown, each.support)

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


def support(
    text: str,
    passages: Sequence[Passage],
    rarity: Rarity = lambda terms: [1.0] * len(terms),
    supporter: Supporter | None = None,
) -> float:
    """How far passages support a text, 0 to 1: the support of its least supported sentence.

    A sentence that stands in a passage word for word has 1; one whose numbers or names stand in
    none has 0, and so has, where no `supporter` reads it, one that is in another language than all
    of them. From `SUPPORT` on an answer may hold it. A text without words, or no passages at all,
    gives 0.
    """
    bare = marks_removed(text)
    said = [bare[a:b].strip() for a, b in sentences(bare)]
    bodies, around = [p.chunk.text for p in passages], [_around(p) for p in passages]
    shares = [
        max((c.score for c in check(s, bodies, rarity, supporter, around)), default=0.0)
        for s in said
        if any(c.isalnum() for c in s)
    ]
    return min(shares, default=0.0)


def _around(passage: Passage) -> str:
    return "\n".join((passage.title, *passage.chunk.headings))


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
