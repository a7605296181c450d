"""How well Markdown is read: `python -m bench.parsing --data FOLDER`.

Every Markdown file below the folder is parsed and held against its own source:

- leaks: markup that a reader would not see, in text outside code, by pattern;
- recall: content words of the source (Latin words, pairs of Chinese characters) that the text
  holds, each counted as often as it is written; markup, targets of links and comments apart;
- headings: those of the source (# and underlined) that the parser found at their level;
- rows: data rows of the source's tables whose text names its columns beside its cells;
- broken: files whose blocks overlap, leave text out, or whose chunks do not hold the text.
"""

from __future__ import annotations

import argparse
import re
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bench.common import report
from retrieval.chunk import chunk
from retrieval.config import ChunkSettings, ParseSettings
from retrieval.errors import ParseError
from retrieval.parse import markdown
from retrieval.schema import Parsed
from retrieval.text import count_tokens

LEAKS = {
    "emphasis": re.compile(r"\*\*|(?<![\w*])\*\w[^*\n]*\w\*(?![\w*])|(?<!\w)__\w[^_\n]*\w__(?!\w)"),
    "link": re.compile(r"\]\(|\]\[[^\]\n]*\]|^\[[^\]\n]+\]: \S+", re.M),
    "tag": re.compile(r"</?[A-Za-z][\w.-]*(?:\s+[\w:@-]+(?:=(?:\"[^\"]*\"|'[^']*'))?)*\s*/?>"),
    "comment": re.compile(r"<!--|-->|\{/\*|\*/\}"),
    "template": re.compile(r"\{\{[<%{]|[>%]\}\}|\{%|%\}|\}\}\}(?!\})"),
    "container": re.compile(r"^\s*(?::{3,}|!!!|\?\?\?)|\[![A-Za-z]+[^\]\n]*\]", re.M),
    "attributes": re.compile(r"\{:?\s*[#.][A-Za-z_][^{}\n]*\}"),
    "heading": re.compile(r"^\s{0,3}#{1,6} ", re.M),
    "table": re.compile(r"\|\s*:?-{3,}:?\s*\||^\|.*\|$", re.M),
    "fence": re.compile(r"```|~~~"),
    "footnote": re.compile(r"\[\^[^\]\n]+\]"),
    "entity": re.compile(r"&(?:[a-z]{2,8}|#\d{1,5}|#x[0-9a-f]{1,5});", re.I),
    "module": re.compile(r"^import .+ from ['\"]|^export (?:const|default) ", re.M),
}
FENCE = re.compile(r"^[ \t>]*(?:(?:[-*+]|\d+[.)])\s+)*(`{3,}|~{3,})")
SPAN = re.compile(r"(?<!`)(`+)(?!`)(.+?)(?<!`)\1(?!`)", re.S)
FRONT = re.compile(r"\A(---|\+\+\+)[ \t]*\n.*?^\1[ \t]*$", re.S | re.M)
#: What is no text in the source: in this order.
UNREAD = tuple(
    re.compile(pattern, re.M | re.I)
    for pattern in (
        r"^[ \t]*<(script|style)\b[\s\S]*?</\1\s*>",
        r"<!--[\s\S]*?-->|\{/\*[\s\S]*?\*/\}",
        r"\{\{.*?\}\}|\{%[^%{}]*%\}",
        r"</?[a-z][\w.-]*(?:\s[^<>]*)?/?>",
        r"\[!INCLUDE\s*-?\s*\[[^\]]*\]\s*\([^)]*\)\s*\]|\[!(?:div|video|code)\b[^\]\n]*\]",
        r"\]\([^)\s]*(?:\s+\"[^\"]*\")?\)|\]\[[^\]]*\]",
        r"^\s*\[[^\]^]+\]:.*$",
        r"^[ \t>]*(?:`{3,}|~{3,}).*$",
        r"^[ \t>]*(?::{3,}|!!!|\?\?\?\+?|===).*$",
        r"^\s*(?:import\s.+\sfrom\s.+|export\s.+)$",
        r"\[!\w+\]|&\w{1,8};|&#\d+;|\{:?\s*[#.][^{}\n]*\}",
        r"https?://\S+",
        r"^\[\[?toc\]\]?$",
    )
)
WORD = re.compile(r"[A-Za-z\u00c0-\u024f]{3,}|[\u4e00-\u9fff]+")
ATX = re.compile(r"^ {0,3}(#{1,6})[ \t]+(\S.*?)[ \t#]*$")
RULE = re.compile(r"^\s*\|?\s*:?-+:?\s*(?:\|\s*:?-+:?\s*)*\|?\s*$")
CELLS = re.compile(r"(?<!\\)\|")
LETTERS = re.compile(r"[^\w]+")


@dataclass(slots=True)
class Tally:
    """Counts over all files."""

    files: int = 0
    empty: int = 0
    failed: list[tuple[str, str]] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)
    leaks: Counter[str] = field(default_factory=Counter)
    examples: dict[str, list[str]] = field(default_factory=dict)
    lost: Counter[str] = field(default_factory=Counter)
    words: int = 0
    held: int = 0
    headings: list[int] = field(default_factory=lambda: [0, 0])
    rows: list[int] = field(default_factory=lambda: [0, 0])
    milliseconds: list[float] = field(default_factory=list)


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse every Markdown file and report."""
    parser = argparse.ArgumentParser(description="how well Markdown is read")
    parser.add_argument("--data", required=True, type=Path, help="folder of Markdown files")
    parser.add_argument("--limit", type=int, default=0, help="files read at most; 0: all")
    parser.add_argument("--show", type=int, default=3, help="examples of each kind of leak")
    options = parser.parse_args(arguments)
    paths = sorted(p for s in ("*.md", "*.mdx") for p in options.data.rglob(s) if p.is_file())
    tally = Tally()
    for path in paths[: options.limit or None]:
        measure(path, tally, options.show)
    show(tally)


def measure(path: Path, tally: Tally, examples: int) -> None:
    """Parse one file and hold the result against its source."""
    tally.files += 1
    source = path.read_text(encoding="utf-8", errors="replace").replace("\r\n", "\n")
    began = time.perf_counter()
    try:
        parsed = markdown.parse(path, ParseSettings())
    except ParseError as error:
        if error.reason == "empty":
            tally.empty += 1
        else:
            tally.failed.append((str(path), f"{error.reason}: {error.detail}"))
        return
    tally.milliseconds.append((time.perf_counter() - began) * 1000)
    if not sound(parsed):
        tally.broken.append(str(path))
    source = FRONT.sub("", source, count=1)
    for kind, found in leaks(parsed, source):
        tally.leaks[kind] += 1
        if len(tally.examples.setdefault(kind, [])) < examples:
            tally.examples[kind].append(f"{path.name}: {found}")
    wanted, given = words(plain(source)), words(f"{parsed.title}\n{parsed.text}")
    missing = wanted - given
    tally.words += wanted.total()
    tally.held += wanted.total() - missing.total()
    tally.lost.update(missing)
    _add(tally.headings, headings(parsed, source))
    _add(tally.rows, rows(parsed, source))


def _add(total: list[int], part: tuple[int, int]) -> None:
    total[0] += part[0]
    total[1] += part[1]


def sound(parsed: Parsed) -> bool:
    """Whether blocks and chunks keep their promises (see `retrieval.schema.Parsed`)."""
    spans = sorted(
        [(b.start, b.end) for b in parsed.blocks]
        + [(h.start, h.start + len(h.text)) for h in parsed.headings]
    )
    end = 0
    for start, stop in spans:
        if start < end or parsed.text[end:start].strip():
            return False
        end = stop
    settings = ChunkSettings()
    held = 0
    for piece in chunk(parsed, settings):
        text = parsed.text[piece.start : piece.end]
        held += len("".join(text.split()))
        if count_tokens(text) > settings.max_tokens and len(text) > 1:
            return False
    heads = sum(len("".join(h.text.split())) for h in parsed.headings)
    return not parsed.text[end:].strip() and held + heads == len("".join(parsed.text.split()))


def leaks(parsed: Parsed, source: str) -> Iterator[tuple[str, str]]:
    """Yield (kind, where) of markup in text that is no code, unless the source shows it as code."""
    shown = [found.group(2) for found in SPAN.finditer(source)]
    texts = [parsed.text[b.start : b.end] for b in parsed.blocks if b.kind != "code"]
    for text in [*texts, *(h.text for h in parsed.headings), parsed.title]:
        for kind, pattern in LEAKS.items():
            for found in pattern.finditer(text):
                what = found.group().strip()
                if not any(what in span for span in shown):
                    near = text[max(0, found.start() - 30) : found.end() + 30]
                    yield kind, " ".join(near.split())


def plain(source: str) -> str:
    """Return the source without what is markup by any reading."""
    for pattern in UNREAD:
        source = pattern.sub(" ", source)
    return source


def words(text: str) -> Counter[str]:
    """Count Latin words of three letters and more, and pairs of neighbouring Chinese characters."""
    found: Counter[str] = Counter()
    for word in WORD.findall(text):
        if word[0] < "\u4e00":
            found[word.lower()] += 1
        else:
            found.update(word[i : i + 2] for i in range(len(word) - 1))
    return found


def outside_code(source: str) -> list[str]:
    """Return the source's lines, those inside fences empty."""
    lines, fence = [], ""
    for line in source.split("\n"):
        found = FENCE.match(line)
        if fence:
            closing = found is not None and found.group(1).startswith(fence)
            fence = "" if closing else fence
            lines.append("")
        elif found:
            fence = found.group(1)
            lines.append("")
        else:
            lines.append(line)
    return lines


def headings(parsed: Parsed, source: str) -> tuple[int, int]:
    """Return how many of the source's headings with words were found, and how many there are."""
    visible = re.sub(r"<!--.*?-->", "", "\n".join(outside_code(source)), flags=re.S)
    wanted = Counter(
        len(found.group(1))
        for line in visible.split("\n")
        if (found := ATX.match(line)) and WORD.search(plain(found.group(2)))
    )
    given = Counter(h.level for h in parsed.headings)
    return (wanted & given).total(), wanted.total()


def bare(text: str) -> str:
    """Return letters and digits only, lower case, markup gone."""
    return LETTERS.sub("", plain(text)).lower().replace("_", "")


def rows(parsed: Parsed, source: str) -> tuple[int, int]:
    """Return how many data rows of the source name their columns, and how many rows there are."""
    given = [bare(parsed.text[b.start : b.end]) for b in parsed.blocks if b.kind == "table_row"]
    held = total = 0
    for header, cells in tables(outside_code(source)):
        pairs = [(bare(h), bare(c)) for h, c in zip(header, cells, strict=False)]
        pairs = [(h, c) for h, c in pairs if h and c]
        if len(pairs) < 2:
            continue
        total += 1
        held += any(all(h in row and c in row for h, c in pairs) for row in given)
    return held, total


def tables(lines: Sequence[str]) -> Iterator[tuple[list[str], list[str]]]:
    """Yield (header cells, data cells) for every row of every table with pipes."""
    for index in range(1, len(lines)):
        if "|" not in lines[index - 1] or not RULE.match(lines[index]) or "|" not in lines[index]:
            continue
        header = _cells(lines[index - 1])
        for line in lines[index + 1 :]:
            if "|" not in line:
                break
            yield header, _cells(line)


def _cells(line: str) -> list[str]:
    return CELLS.split(line.strip().strip("|"))


def show(tally: Tally) -> None:
    """Print the table and the JSON line."""
    times = sorted(tally.milliseconds)
    p50, p95 = (times[int(len(times) * q)] if times else 0.0 for q in (0.5, 0.95))
    recall = tally.held / max(1, tally.words)
    lost = ", ".join(f"{word} {count}" for word, count in tally.lost.most_common(8))
    found = [part / max(1, whole) for part, whole in (tally.headings, tally.rows)]
    table = [
        ("files", str(tally.files), f"{tally.empty} without words, {len(tally.failed)} failed"),
        ("leaks", str(tally.leaks.total()), "markup in text outside code"),
        *(
            (f"  {kind}", str(count), "\n".join(tally.examples[kind]))
            for kind, count in tally.leaks.most_common()
        ),
        ("word recall", f"{recall:.5f}", f"of {tally.words}; lost: {lost}"),
        ("headings", f"{found[0]:.4f}", f"{tally.headings[0]} of {tally.headings[1]}"),
        ("rows with columns", f"{found[1]:.4f}", f"{tally.rows[0]} of {tally.rows[1]}"),
        ("ms per file", f"{p50:.1f} / {p95:.1f}", "p50 / p95"),
        *(("failed", path, why) for path, why in tally.failed[:10]),
        *(("broken", path, "") for path in tally.broken[:10]),
    ]
    values = {
        "files": tally.files,
        "empty": tally.empty,
        "failed": len(tally.failed),
        "broken": len(tally.broken),
        "leaks": tally.leaks.total(),
        "leaks_by_kind": dict(tally.leaks.most_common()),
        "word_recall": round(recall, 5),
        "headings": round(found[0], 4),
        "rows_with_columns": round(found[1], 4),
        "p50_ms": round(p50, 2),
        "p95_ms": round(p95, 2),
    }
    report("parsing", table, values)


if __name__ == "__main__":
    main()
