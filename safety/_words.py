"""Words and how common they are, for readings that need to know what language looks like.

The tables of safety/words are read on first use; `bench.words` makes them.
"""

from __future__ import annotations

import gzip
import math
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from pathlib import Path

_FOLDER = Path(__file__).parent / "words"
#: Log probability of what no table holds.
UNKNOWN = -18.0
#: Share of a pair's own count in its probability; the rest is the word's alone.
_PAIRED = 0.8
#: States kept at a place of the lattice.
_BEAM = 8
#: (end, word, extra log probability).
Edge = tuple[int, str, float]


def _rows(name: str) -> Iterator[list[str]]:
    with gzip.open(_FOLDER / name, "rt", encoding="utf-8") as lines:
        for line in lines:
            yield line.rstrip("\n").split("\t")


@lru_cache(maxsize=1)
def english() -> dict[str, float]:
    """English words, lower case, with their log probabilities."""
    return _logs({row[0]: int(row[1]) for row in _rows("en.tsv.gz")})


@lru_cache(maxsize=1)
def chinese() -> dict[str, float]:
    """Chinese words, simplified, with their log probabilities."""
    return _logs({row[0]: int(row[1]) for row in _rows("zh.tsv.gz")})


@lru_cache(maxsize=1)
def readings() -> dict[str, list[tuple[str, tuple[int, ...], tuple[int, ...]]]]:
    """Pinyin without tones or blanks -> (word, ends of its syllables, their tones)."""
    table: dict[str, list[tuple[str, tuple[int, ...], tuple[int, ...]]]] = {}
    for word, _, reading in _rows("zh.tsv.gz"):
        ends, tones, key = [], [], ""
        for syllable in reading.split(" "):
            key += syllable[:-1]
            ends.append(len(key))
            tones.append(ord(syllable[-1]) - 48)
        if key.isascii() and len(ends) == len(word):
            table.setdefault(key, []).append((word, tuple(ends), tuple(tones)))
    return table


@lru_cache(maxsize=1)
def parts() -> dict[str, str]:
    """Two or three characters -> the one character that they are the parts of."""
    known = chinese()
    table: dict[str, str] = {}
    for whole, written in _rows("parts.tsv.gz"):
        rival = table.get(written, "")
        if known.get(whole, UNKNOWN) > known.get(rival, UNKNOWN - 1):
            table[written] = whole
    return table


@lru_cache(maxsize=1)
def _pairs() -> dict[str, dict[str, float]]:
    """First word -> second word -> share of the first's followers."""
    table: dict[str, dict[str, float]] = {}
    for first, second, count in _rows("pairs.tsv.gz"):
        table.setdefault(first, {})[second] = float(count)
    for followers in table.values():
        total = sum(followers.values()) + 5
        for word in followers:
            followers[word] /= total
    return table


def warm_up() -> None:
    """Read all tables now."""
    for table in (english, chinese, readings, parts, _pairs):
        table()


def _logs(counts: dict[str, int]) -> dict[str, float]:
    total = math.log(sum(counts.values()))
    return {word: math.log(count) - total for word, count in counts.items()}


def best_words(length: int, edges: Callable[[int], Sequence[Edge]]) -> list[tuple[int, int, str]]:
    """The likeliest chain of Chinese words from 0 to `length` as (start, end, word).

    `edges(i)` are the words that may start at i; every place must have one, or the chain ends
    there and what was found so far is returned.
    """
    known, pairs = chinese(), _pairs()
    states: list[dict[str, tuple[float, int, str]]] = [{} for _ in range(length + 1)]
    states[0]["^"] = (0.0, -1, "")
    last = 0
    for at in range(length):
        if not states[at]:
            continue
        last = at
        before = sorted(states[at].items(), key=lambda item: -item[1][0])[:_BEAM]
        for end, word, extra in edges(at):
            alone = math.exp(known.get(word, UNKNOWN))
            score, origin = max(
                (
                    value[0]
                    + math.log(
                        _PAIRED * pairs.get(previous, {}).get(word, 0.0) + (1 - _PAIRED) * alone
                    ),
                    previous,
                )
                for previous, value in before
            )
            score += extra
            if word not in states[end] or score > states[end][word][0]:
                states[end][word] = (score, at, origin)
    end = length if states[length] else last
    chain = []
    word = max(states[end], key=lambda w: states[end][w][0])
    while end > 0:
        _, start, origin = states[end][word]
        chain.append((start, end, word))
        end, word = start, origin
    return chain[::-1]


def split_english(letters: str) -> list[int] | None:
    """Where words begin in `letters` run together; None where they are no English words."""
    known = english()
    best = [(0.0, 0)] + [(-math.inf, 0)] * len(letters)
    for end in range(1, len(letters) + 1):
        best[end] = max(
            (best[start][0] + known.get(letters[start:end], UNKNOWN - 4 * (end - start)), start)
            for start in range(max(0, end - 20), end)
        )
    if best[-1][0] < -4.5 * len(letters):
        return None
    starts, end = [], len(letters)
    while end > 0:
        end = best[end][1]
        starts.append(end)
    return starts[::-1]
