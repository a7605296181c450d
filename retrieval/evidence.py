"""Passages held against each other: same text twice, and one text in two versions.

Pure functions. *Duplicates* are passages of two documents that say the same in the same words:
one is shown and names the other's source. *Versions* are two states of one document: their names
differ in nothing but a version mark (`guide-2023.md`, `guide-2025.md`; `policy_v1`, `policy_v2`;
`old/`, `new/`), or title and headings are equal and the texts differ in numbers and denials only.
Names with a month or a day are a series (minutes, monthly reports): they need such equal texts too.
The newer one answers; the older one is kept beside it, so that a disagreement can be told.

Likeness is the Jaccard index of shingles of three tokens (Broder 1997), exact, over the few dozen
best candidates. Chinese is folded to simplified characters, a character a token.
"""

from __future__ import annotations

import functools
import itertools
import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from retrieval.schema import Older, Passage
from retrieval.text import query_terms, sentences, simplified, terms

#: Likeness from which two texts with the same numbers are the same text.
SAME = 0.9
#: Likeness from which passages of two documents with sibling names are versions of one another.
VERSIONED = 0.25
#: The same where the names say less: only title and headings agree, or they are of a series.
RESTATED = 0.9

_HAN = "\u3400-\u4dbf\u4e00-\u9fff"
_TOKEN = re.compile(rf"[{_HAN}]|[^\W_{_HAN}]+")
_NUMBER = re.compile(
    r"\d+(?:[.,:/-]\d+)*%?|[一二三四五六七八九十百千万两]+(?=[天日周月年元个次倍])"
)
_DENIAL = re.compile(
    r"\b(?:not|no|never|none|nor|neither|cannot|without)\b|n['’]t\b|"
    r"不(?![但仅同断久过管论少])|没|未(?!来)|无(?![锡线论])|禁止|并非"
)
#: What may tell two versions of a name apart. Dates come first: 2024-03 is one mark, not two.
_MARK = re.compile(
    r"(?P<date>(?<!\d)(?:19|20)\d\d(?:[-_.]?(?:0[1-9]|1[0-2])(?:[-_.]?(?:[0-2]\d|3[01]))?)?(?!\d))"
    r"年?版?|(?<![a-z])(?:v|ver|version|rev|revision|第)[-_. ]?(?P<number>\d+(?:\.\d+)*)版?"
    r"(?![a-z])|(?<![a-z])(?P<word>old|new|previous|current|latest|draft|final|archived?|deprecated|"
    rf"legacy)(?![a-z])|(?P<han>旧版?|新版?|草案|定稿|修订版|存档)(?![{_HAN}])"
)
_WORDS = {
    **dict.fromkeys("old previous draft archive archived deprecated legacy".split(), 0),
    **dict.fromkeys("旧 旧版 草案 存档".split(), 0),
    **dict.fromkeys("new current latest final 新 新版 定稿 修订版".split(), 1),
}
_JOINTS = re.compile(r"[\s_.,()（）\[\]-]+")

_WORDED, _DATED, _NUMBERED = range(3)


@dataclass(frozen=True, slots=True)
class Name:
    """A source's name without its version marks, and the marks: (kind, numbers), in order."""

    bare: str
    marks: tuple[tuple[int, ...], ...]


def settle(passages: Sequence[Passage], query: str, k: int) -> list[Passage]:
    """Collapse duplicates and versions; at most `k` passages, best first.

    A group stands where its best member stood and has that one's score. Versions are left alone
    where the question names one by its mark ("in v1", "2023").

    Args:
        passages: candidates, best first.
        query: the question.
        k: how many to return; candidates beyond them are looked at for members of their groups.
    """
    asked = _folded(query)
    alike = likeness([shingles(p.chunk.text) for p in passages])
    bare = [named(p.source).bare for p in passages]
    groups: list[list[int]] = []
    for row, passage in enumerate(passages):
        for group in groups:
            # most pairs share no words and no name: nothing more is asked of them
            near = (
                (n, alike.get((n, row), 0.0))
                for n in group
                if bare[n] == bare[row] or alike.get((n, row), 0.0) >= VERSIONED
            )
            if any(_relation(passage, passages[n], asked, value) for n, value in near):
                group.append(row)
                break
        else:
            groups.append([row])
    return [_head([passages[n] for n in group], asked) for group in groups[:k]]


def likeness(shingled: Sequence[frozenset[int]]) -> dict[tuple[int, int], float]:
    """Jaccard index of every pair (a < b) that shares a shingle; the others have 0."""
    sizes = [len(held) for held in shingled]
    every = np.fromiter(itertools.chain.from_iterable(shingled), np.int64, sum(sizes))
    names, column = np.unique(every, return_inverse=True)
    table = np.zeros((len(sizes), len(names)), dtype=np.float32)
    table[np.repeat(np.arange(len(sizes)), sizes), column] = 1
    shared = np.triu(table @ table.T, 1)
    return {
        (int(a), int(b)): float(shared[a, b] / (sizes[a] + sizes[b] - shared[a, b]))
        for a, b in np.argwhere(shared)
    }


def _head(group: list[Passage], asked: str) -> Passage:
    """The newest of a group in the place of its first, with what it stands for."""
    head = group[0]
    for other in group[1:]:
        if _relation(head, other, asked) == "version" and newer(other, head):
            head = other
    same: list[str] = []
    older: list[Older] = []
    for other in group:
        if other is head:
            continue
        if _relation(head, other, asked) == "same":
            same.append(other.source)
        else:
            older.append(
                Older(other.source, other.title, other.version, other.modified, other.chunk.text)
            )
    also = tuple(dict.fromkeys(s for s in same if s != head.source))
    return replace(head, score=group[0].score, also=also, older=tuple(older))


def _relation(
    one: Passage, other: Passage, asked: str, alike: float | None = None
) -> Literal["same", "version", ""]:
    """What two passages are to one another; two of one document are nothing.

    `alike` is their likeness where it is known already.
    """
    if one.chunk.document_id == other.chunk.document_id or one.lang != other.lang:
        return ""
    names = named(one.source), named(other.source)
    kin = siblings(*names)
    marks = set(names[0].marks) ^ set(names[1].marks)
    # minutes and monthly reports are a series, not versions
    if kin and not any(kind == _DATED and len(rest) > 1 for kind, *rest in marks):
        if any(re.search(pattern, asked) for pattern in _asked_by(marks)):
            return ""
        return "version" if _restated(one, other) >= VERSIONED else ""
    if alike is None:
        alike = jaccard(shingles(one.chunk.text), shingles(other.chunk.text))
    if alike >= SAME and facts(one.chunk.text) == facts(other.chunk.text):
        return "same"
    # texts without a title are records, and records differ in their numbers
    titled = bool(one.title) and _place(one) == _place(other)
    if not (kin or (titled and one.modified != other.modified)) or alike < VERSIONED:
        return ""
    if _restated(one, other) < RESTATED or _told_apart(one, other, asked):
        return ""
    return "version"


def _place(passage: Passage) -> tuple[str, tuple[str, ...]]:
    return passage.title, passage.chunk.headings


def _restated(one: Passage, other: Passage) -> float:
    """Likeness with numbers and denials set aside."""
    return jaccard(shingles(_bare(one.chunk.text)), shingles(_bare(other.chunk.text)))


def _told_apart(one: Passage, other: Passage, asked: str) -> bool:
    """Whether the question holds a term that one of the two has and the other lacks."""
    held = [set(terms(f"{p.title} {p.source} {p.chunk.text}")) for p in (one, other)]
    return bool((held[0] ^ held[1]) & set(query_terms(asked)))


def _asked_by(marks: Iterable[tuple[int, ...]]) -> Iterator[str]:
    """How a question may name one of these versions, as patterns."""
    for kind, *numbers in marks:
        written = r"\.".join(map(str, numbers))
        if kind == _DATED:
            yield rf"(?<!\d){written}(?!\d)"
        elif kind == _NUMBERED:
            yield rf"(?<![a-z])(?:v|ver|version|rev|revision|release|第)[-_. ]?{written}(?![\d.])"


def newer(one: Passage, other: Passage) -> bool:
    """Whether `one` is a later version than `other`: by the marks of their names, else by date."""
    left, right = named(one.source), named(other.source)
    kinds = [[mark[0] for mark in name.marks] for name in (left, right)]
    if siblings(left, right) and kinds[0] == kinds[1]:
        return left.marks > right.marks
    return one.modified > other.modified


def siblings(one: Name, other: Name) -> bool:
    """Whether two names differ in their version marks and in nothing else."""
    return one.bare == other.bare and one.marks != other.marks


@functools.lru_cache(maxsize=4096)
def named(source: str) -> Name:
    """Take the version marks out of a path or an address."""
    folded = _folded(source)
    marks: list[tuple[int, ...]] = []
    for match in _MARK.finditer(folded):
        word = match["word"] or match["han"]
        digits = match["date"] or match["number"] or ""
        if word:
            marks.append((_WORDED, _WORDS[word]))
        elif match["number"]:
            marks.append((_NUMBERED, *map(int, digits.split("."))))
        else:
            figures = re.sub(r"\D", "", digits)
            parts = (figures[:4], figures[4:6], figures[6:8])
            marks.append((_DATED, *(int(part) for part in parts if part)))
    bare = _JOINTS.sub("-", _MARK.sub("", folded))
    return Name(re.sub(r"-*/-*", "/", bare).strip("-/"), tuple(marks))


@functools.lru_cache(maxsize=512)
def facts(text: str) -> tuple[tuple[str, ...], int]:
    """What two like sentences can disagree in: numbers, in order of size, and how often denied."""
    folded = _folded(text)
    return tuple(sorted(_NUMBER.findall(folded))), len(_DENIAL.findall(folded))


def disagrees(quote: str, older: str) -> bool:
    """Whether the sentence of `older` that matches `quote` best has other numbers or denials.

    Without a sentence that shares half of the quote's terms there is nothing to compare.
    """
    said = set(terms(_bare(quote)))
    if not said:
        return False
    best, nearest = 0.0, ""
    for start, end in sentences(older):
        held = set(terms(_bare(older[start:end])))
        share = len(said & held) / len(said | held)
        if share > best:
            best, nearest = share, older[start:end]
    return best >= 0.5 and facts(quote) != facts(nearest)


@functools.lru_cache(maxsize=512)
def shingles(text: str) -> frozenset[int]:
    """Hashes of all runs of three tokens; a shorter text is one shingle. Only for this process."""
    tokens = _TOKEN.findall(_folded(text))
    if len(tokens) < 3:
        return frozenset((hash(tuple(tokens)),))
    return frozenset(map(hash, zip(tokens, tokens[1:], tokens[2:], strict=False)))


def jaccard(one: frozenset[int], other: frozenset[int]) -> float:
    """Shared over all, 0 to 1."""
    shared = len(one & other)
    return shared / (len(one) + len(other) - shared)


def _bare(text: str) -> str:
    return _DENIAL.sub(" ", _NUMBER.sub(" ", _folded(text)))


@functools.lru_cache(maxsize=4096)
def _folded(text: str) -> str:
    return simplified(unicodedata.normalize("NFKC", text)).lower()
