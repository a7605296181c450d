"""Cut a document into chunks along its headings and sentences.

Laws (tests/retrieval/test_chunk.py): `text[c.start:c.end] == c.text`; chunks are in order and do
not overlap; every character that is not white space or part of a heading line lies in exactly one
chunk; no chunk is longer than `max_tokens` unless one unbreakable word is; a table row is never
split unless it alone is too long; no chunk crosses a heading.

Order of work: sections (between headings) -> units (sentences, rows, code lines) -> pack units
until `target_tokens`. A short last piece joins its predecessor where the limit allows. A heading
belongs to the chunk's path, not to its text, so that it is searched once and never quoted as an
answer; a section with headings only gives no chunk.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from retrieval.config import ChunkSettings
from retrieval.schema import Block, Heading, Parsed
from retrieval.text import count_tokens, sentences

CHUNKER_VERSION = "chunk-2"


@dataclass(frozen=True, slots=True)
class Piece:
    """A chunk before it is stored: offsets into the text and the headings above it.

    `code` are the stretches of program code in it, relative to `start`.
    """

    start: int
    end: int
    headings: tuple[str, ...]
    code: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True, slots=True)
class _Unit:
    start: int
    end: int
    tokens: int


def chunk(parsed: Parsed, settings: ChunkSettings) -> list[Piece]:
    """Cut `parsed` into pieces.

    Sizes are tokens as `count_tokens` counts them. Headings are the path above the piece, topmost
    first, the document's title left out where it repeats.
    """
    pieces: list[Piece] = []
    for path, blocks in _sections(parsed):
        units = [u for block in blocks for u in _units(parsed.text, block, settings.max_tokens)]
        headings = path[1:] if path and path[0] == parsed.title else path
        code = [block for block in blocks if block.kind == "code"]
        pieces.extend(Piece(a, b, headings, _code(code, a, b)) for a, b in _pack(units, settings))
    return pieces


def _code(blocks: Sequence[Block], start: int, end: int) -> tuple[tuple[int, int], ...]:
    return tuple(
        (max(b.start, start) - start, min(b.end, end) - start)
        for b in blocks
        if b.start < end and b.end > start
    )


def _sections(parsed: Parsed) -> Iterator[tuple[tuple[str, ...], list[Block]]]:
    marks: list[tuple[int, Heading | None]] = [(0, None)]
    marks += [(h.start, h) for h in parsed.headings]
    path: list[Heading] = []
    first = 0
    for i, (_, heading) in enumerate(marks):
        if heading is not None:
            path = [h for h in path if h.level < heading.level] + [heading]
        stop = marks[i + 1][0] if i + 1 < len(marks) else len(parsed.text)
        last = first
        while last < len(parsed.blocks) and parsed.blocks[last].start < stop:
            last += 1
        inside, first = list(parsed.blocks[first:last]), last
        if inside:
            yield tuple(h.text for h in path), inside


def _units(text: str, block: Block, limit: int) -> Iterator[_Unit]:
    if block.kind == "table_row":
        spans = [(block.start, block.end)]
    elif block.kind == "code":
        spans = _lines(text, block)
    else:
        found = sentences(text[block.start : block.end])
        spans = [(block.start + a, block.start + b) for a, b in found]
    for start, end in spans:
        tokens = count_tokens(text[start:end])
        if tokens <= limit:
            yield _Unit(start, end, tokens)
        else:
            yield from _split(text, start, end, limit)


def _lines(text: str, block: Block) -> list[tuple[int, int]]:
    spans, start = [], block.start
    for line in text[block.start : block.end].splitlines(keepends=True):
        if line.strip():
            spans.append((start, start + len(line.rstrip())))
        start += len(line)
    return spans


def _split(text: str, start: int, end: int, limit: int) -> Iterator[_Unit]:
    """Halve an over-long stretch at the best border near its middle until every part fits."""
    tokens = count_tokens(text[start:end])
    if tokens <= limit or end - start < 2:
        yield _Unit(start, end, tokens)
        return
    cut = _border(text, start, end)
    for left, right in ((start, cut), (cut, end)):
        while left < right and text[left].isspace():
            left += 1
        while right > left and text[right - 1].isspace():
            right -= 1
        if left < right:
            yield from _split(text, left, right, limit)


def _border(text: str, start: int, end: int) -> int:
    middle = (start + end) // 2
    for marks in ("\n", "；;", "，,、：:|", " \t"):
        near = [i + 1 for i in range(start, end - 1) if text[i] in marks]
        quarter = (end - start) // 4
        near = [i for i in near if start + quarter <= i <= end - quarter]
        if near:
            return min(near, key=lambda i: abs(i - middle))
    return middle


def _pack(units: Sequence[_Unit], settings: ChunkSettings) -> list[tuple[int, int]]:
    groups: list[list[_Unit]] = []
    size = 0
    for unit in units:
        full = size >= settings.target_tokens or size + unit.tokens > settings.max_tokens
        if not groups or full:
            groups.append([])
            size = 0
        groups[-1].append(unit)
        size += unit.tokens
    if len(groups) > 1 and _size(groups[-2]) + _size(groups[-1]) <= settings.max_tokens:
        groups[-2:] = [groups[-2] + groups[-1]]
    return [(group[0].start, group[-1].end) for group in groups]


def _size(group: Sequence[_Unit]) -> int:
    return sum(unit.tokens for unit in group)
