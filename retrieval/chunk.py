"""Cut a document into chunks along its headings and sentences.

Laws (tests/retrieval/test_chunk.py): `text[c.start:c.end] == c.text`; chunks are in order and do
not overlap; every character that is not white space or part of a heading line lies in exactly one
chunk; no chunk is longer than `max_tokens` unless one unbreakable word is; a table row is never
split unless it alone is too long; no chunk crosses a heading.

Order of work: sections (between headings) -> units (sentences, rows, code lines) -> pack units
until `target_tokens`. A short last piece joins its predecessor where the limit allows. A sentence
that announces a list, a table or code (it ends in a colon) goes with what it announces; where that
is too long for one piece, the sentence joins the path of the pieces that follow, so that an item
keeps what it is an item of. A heading belongs to the chunk's path, not to its text, so that it is
searched once and never quoted as an answer; a section with headings only gives no chunk.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from retrieval.config import ChunkSettings
from retrieval.schema import Block, Heading, Parsed
from retrieval.text import count_tokens, sentences

CHUNKER_VERSION = "chunk-3"
#: Tokens of heading path and text together that the encoder surely reads: 256 less its own two
#: and less what `count_tokens` may be short of.
READ = 240

_COLONS = ":："
#: A sentence that announces more than this is no caption; in characters.
_LEAD_LENGTH = 200
_ANNOUNCED = ("list_item", "table_row", "code")
_SERIES = ("list_item", "table_row")


@dataclass(frozen=True, slots=True)
class Piece:
    """A chunk before it is stored: offsets into the text and the headings above it.

    The last of `headings` is the sentence that announces the list, where the list began in an
    earlier piece.

    `code` are the stretches of program code in it, relative to `start`.
    """

    start: int
    end: int
    headings: tuple[str, ...]
    code: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True, slots=True)
class _Unit:
    """What is never cut; `announces` says that it must not be parted from what follows."""

    start: int
    end: int
    tokens: int
    announces: bool = False


def chunk(parsed: Parsed, settings: ChunkSettings) -> list[Piece]:
    """Cut `parsed` into pieces.

    Sizes are tokens as `count_tokens` counts them. Headings are the path above the piece, topmost
    first, the document's title left out where it repeats.
    """
    pieces: list[Piece] = []
    for path, blocks in _sections(parsed):
        headings = path[1:] if path and path[0] == parsed.title else path
        room = _room(settings, (parsed.title, *headings))
        units = [u for group in _announced(parsed, blocks, room.max_tokens) for u in group]
        code = [block for block in blocks if block.kind == "code"]
        leads = _leads(parsed.text, blocks)
        for a, b in _pack(units, room):
            lead = next((text for x, y, text in leads if x < a < y), "")
            under = (*headings, lead) if lead and lead not in headings else headings
            pieces.append(Piece(a, b, under, _code(code, a, b)))
    return pieces


def _room(settings: ChunkSettings, path: Sequence[str]) -> ChunkSettings:
    """The settings less what a long heading path takes of what the encoder reads."""
    left = max(READ - count_tokens(" › ".join(path)), 64)
    if left >= settings.max_tokens:
        return settings
    return settings.model_copy(update={"max_tokens": left})


def _announced(parsed: Parsed, blocks: Sequence[Block], limit: int) -> Iterator[list[_Unit]]:
    """Yield the units of each block; the last one is marked where it announces the next block."""
    for index, block in enumerate(blocks):
        units = list(_units(parsed.text, block, limit))
        after = blocks[index + 1].kind if index + 1 < len(blocks) else ""
        if units and after in _ANNOUNCED and _is_lead(parsed.text, block):
            units[-1] = replace(units[-1], announces=True)
        yield units


def _is_lead(text: str, block: Block) -> bool:
    return block.kind not in ("code", "table_row") and text[block.end - 1] in _COLONS


def _leads(text: str, blocks: Sequence[Block]) -> list[tuple[int, int, str]]:
    """Return (start, end, sentence) of every list or table that a sentence announces."""
    found: list[tuple[int, int, str]] = []
    for index, block in enumerate(blocks):
        last = index
        while last + 1 < len(blocks) and blocks[last + 1].kind in _SERIES:
            last += 1
        if last == index or block.kind in _SERIES or not _is_lead(text, block):
            continue
        sentence = text[block.start : block.end]
        a, b = sentences(sentence)[-1]
        if b - a <= _LEAD_LENGTH:
            found.append(
                (blocks[index + 1].start, blocks[last].end, " ".join(sentence[a:b].split()))
            )
    return found


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
            groups.append(_carried(groups, unit, settings.max_tokens))
            size = _size(groups[-1])
        groups[-1].append(unit)
        size += unit.tokens
    if len(groups) > 1 and _size(groups[-2]) + _size(groups[-1]) <= settings.max_tokens:
        groups[-2:] = [groups[-2] + groups[-1]]
    return [(group[0].start, group[-1].end) for group in groups]


def _carried(groups: list[list[_Unit]], unit: _Unit, limit: int) -> list[_Unit]:
    """Take the sentence that announces `unit` off the last group; [] where there is none."""
    last = groups[-1][-1] if groups and len(groups[-1]) > 1 else unit
    if last.announces and last is not unit and last.tokens + unit.tokens <= limit:
        return [groups[-1].pop()]
    return []


def _size(group: Sequence[_Unit]) -> int:
    return sum(unit.tokens for unit in group)
