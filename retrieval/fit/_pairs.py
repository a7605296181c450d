"""Sentence pairs mined from documents that exist in Chinese and English.

Two documents with the same path (language folders and suffixes aside) are cut into paragraphs and
aligned monotonically: dynamic programming over lengths (Gale and Church 1993) and over what both
sides write alike, namely Latin words, code and numbers. A matched paragraph whose sentences match
again gives its sentences too.
"""

from __future__ import annotations

import gzip
import json
import math
import re
import tarfile
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from retrieval.config import ParseSettings
from retrieval.errors import ParseError
from retrieval.parse import markdown
from retrieval.text import sentences

TEXT = (
    "cncf_glossary d2l dolphinscheduler fastapi helm hf_course paddle_docs python_docs react_docs "
    "rust_book sofastack"
).split()
#: The vue documents are left out: they are what the product is tried on.
DOCS = "apisix tidb_operator intune".split()
#: Characters of English that one Chinese character stands for, on average over aligned text.
EXPANSION = 2.9
#: Cost of leaving a paragraph alone, and the highest cost of a match that is kept.
GAP, KEEP = 2.4, 1.6
BAND = 40

_HAN = re.compile(r"[\u3400-\u9fff]")
_ANCHOR = re.compile(r"[A-Za-z_][A-Za-z0-9_.\-]+|\d+")
_WORDY = re.compile(r"[A-Za-z]{2,}")
_FOLDER = re.compile(r"(?<=[/:])(?:en|zh|zh-cn|zh-CN|zh_CN|cn)(?=/)")
_SUFFIX = re.compile(r"_(?:en|cn)(?=\.\w+$)")
_HELM = re.compile(r"i18n/zh/docusaurus-plugin-content-(docs-community|docs|blog)/(?:current/)?")
_HELM_PART = {"docs-community": "community/", "docs": "", "blog": "blog/"}


@dataclass(frozen=True, slots=True)
class Pair:
    """The same thing said twice; `source` names the document, for batches of one subject."""

    en: str
    zh: str
    source: str


def mine(data: Path) -> Iterator[Pair]:
    """Every pair of `data` (folders text/ and docs/), each once."""
    seen: set[tuple[str, str]] = set()
    for pair in _all(data):
        key = (pair.en, pair.zh)
        if key not in seen and _usable(pair):
            seen.add(key)
            yield pair


def _all(data: Path) -> Iterator[Pair]:
    with gzip.open(data / "text" / "parallel-python_docs.jsonl.gz", "rt", encoding="utf-8") as file:
        for row in map(json.loads, file):
            yield Pair(row["en"], row["zh"], row["id"].rsplit(":", 1)[0])
    for name in TEXT:
        english, chinese = (
            _texts(data / "text" / f"{tongue}-{name}.txt.gz") for tongue in "en zh".split()
        )
        for key in sorted(english.keys() & chinese.keys()):
            yield from align(_paragraphs(english[key]), _paragraphs(chinese[key]), key)
    for name in DOCS:
        for age in ("old", "new"):
            left, right = (
                _archive(data / "docs" / name / age / f"{tongue}.tar.gz")
                for tongue in "en zh".split()
            )
            for key in sorted(left.keys() & right.keys()):
                yield from align(left[key], right[key], f"{name}:{key}")


def align(english: Sequence[str], chinese: Sequence[str], source: str) -> Iterator[Pair]:
    """Match two lists of paragraphs in order; then the sentences within matched ones."""
    for i, j in _match(english, chinese):
        left, right = english[i], chinese[j]
        yield Pair(left, right, source)
        a = [left[x:y].strip() for x, y in sentences(left)]
        b = [right[x:y].strip() for x, y in sentences(right)]
        if len(a) > 1 and len(b) > 1:
            for m, n in _match(a, b):
                yield Pair(a[m], b[n], source)


def _match(english: Sequence[str], chinese: Sequence[str]) -> list[tuple[int, int]]:
    """Indices matched one to one, by the cheapest monotone path within a band."""
    n, m = len(english), len(chinese)
    left = [(_width(t), frozenset(x.lower() for x in _ANCHOR.findall(t))) for t in english]
    right = [(_width(t), frozenset(x.lower() for x in _ANCHOR.findall(t))) for t in chinese]
    best: dict[tuple[int, int], tuple[float, tuple[int, int] | None]] = {(0, 0): (0.0, None)}
    for i in range(n + 1):
        middle = round(i * m / max(n, 1))
        for j in range(max(0, middle - BAND), min(m, middle + BAND) + 1):
            ways = [best[0, 0]] if i == j == 0 else []
            for a, b, cost in ((i - 1, j, GAP), (i, j - 1, GAP)):
                if (a, b) in best:
                    ways.append((best[a, b][0] + cost, (a, b)))
            if i and j and (i - 1, j - 1) in best:
                cost = _cost(left[i - 1], right[j - 1])
                ways.append((best[i - 1, j - 1][0] + cost, (i - 1, j - 1)))
            if ways:
                best[i, j] = min(ways, key=lambda way: way[0])
    found, place = [], (n, m)
    while place in best and best[place][1] is not None:
        before = best[place][1]
        assert before is not None
        if before == (place[0] - 1, place[1] - 1):
            cost = best[place][0] - best[before][0]
            if cost <= KEEP:
                found.append(before)
        place = before
    return found[::-1]


def _cost(left: tuple[float, frozenset[str]], right: tuple[float, frozenset[str]]) -> float:
    length = math.log((left[0] + 4) / (right[0] + 4))
    cost = length * length * 4
    if right[1]:
        cost += 3.0 * (1 - len(left[1] & right[1]) / len(right[1]))
    else:
        cost += 0.4
    return cost


def _width(text: str) -> float:
    """Length in English characters."""
    han = len(_HAN.findall(text))
    return han * EXPANSION + (len(text) - han)


def _usable(pair: Pair) -> bool:
    """English on one side, Chinese on the other, and neither a fragment nor a book."""
    han = len(_HAN.findall(pair.zh))
    words = len(_WORDY.findall(pair.en))
    return (
        han >= 2
        and words >= 1
        and han >= 0.15 * len(pair.zh)
        and not _HAN.search(pair.en)
        and 4 <= len(pair.en) <= 2000
        and 0.4 <= _width(pair.en) / max(_width(pair.zh), 1) <= 2.5
    )


def _texts(path: Path) -> dict[str, str]:
    with gzip.open(path, "rt", encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    return {_key(row["id"]): row["text"] for row in rows}


def _key(name: str) -> str:
    name = _HELM.sub(lambda m: _HELM_PART[m[1]], name)
    name = re.sub(r"version-\d/", "docs/", name)
    return _SUFFIX.sub("", _FOLDER.sub("*", name))


def _paragraphs(text: str) -> list[str]:
    return [line.strip() for line in text.splitlines() if line.strip()]


def _archive(path: Path) -> dict[str, list[str]]:
    """Path -> paragraphs and headings of every Markdown file, code left out."""
    found = {}
    with tempfile.TemporaryDirectory() as folder, tarfile.open(path) as archive:
        archive.extractall(folder, filter="data")
        for file in sorted(Path(folder).rglob("*.md")):
            try:
                parsed = markdown.parse(file, ParseSettings())
            except ParseError:
                continue
            spans = [(b.start, b.end) for b in parsed.blocks if b.kind != "code"]
            spans += [(h.start, h.start + len(h.text)) for h in parsed.headings]
            units = [" ".join(parsed.text[a:b].split()) for a, b in sorted(spans)]
            found[str(file.relative_to(folder))] = [u for u in units if u]
    return found


def merged(pairs: Iterable[Pair], most: int) -> Iterator[Pair]:
    """Up to `most` characters of consecutive pairs of one document as one long pair."""
    en: list[str] = []
    zh: list[str] = []
    source = ""
    for pair in pairs:
        if en and (pair.source != source or sum(map(len, en)) + len(pair.en) > most):
            if len(en) > 1:
                yield Pair(" ".join(en), "".join(zh), source)
            en, zh = [], []
        en.append(pair.en)
        zh.append(pair.zh)
        source = pair.source
    if len(en) > 1:
        yield Pair(" ".join(en), "".join(zh), source)
