"""Chinese written in Latin letters, back to characters."""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache

from safety._words import Edge, best_words, english, readings

#: Every syllable of Mandarin by its first letters; ü is written v.
_FINALS = {
    "": "a ai an ang ao e ei en eng er o ou",
    "b": "a ai an ang ao ei en eng i ian iao ie in ing o u",
    "p": "a ai an ang ao ei en eng i ian iao ie in ing o ou u",
    "m": "a ai an ang ao e ei en eng i ian iao ie in ing iu o ou u",
    "f": "a an ang ei en eng o ou u",
    "d": "a ai an ang ao e ei en eng i ian iao ie ing iu ong ou u uan ui un uo",
    "t": "a ai an ang ao e eng i ian iao ie ing ong ou u uan ui un uo",
    "n": "a ai an ang ao e ei en eng i ian iang iao ie in ing iu ong ou u uan uo v ve",
    "l": "a ai an ang ao e ei eng i ia ian iang iao ie in ing iu ong ou u uan un uo v ve",
    "g": "a ai an ang ao e ei en eng ong ou u ua uai uan uang ui un uo",
    "k": "a ai an ang ao e en eng ong ou u ua uai uan uang ui un uo",
    "h": "a ai an ang ao e ei en eng ong ou u ua uai uan uang ui un uo",
    "j": "i ia ian iang iao ie in ing iong iu u uan ue un",
    "q": "i ia ian iang iao ie in ing iong iu u uan ue un",
    "x": "i ia ian iang iao ie in ing iong iu u uan ue un",
    "zh": "a ai an ang ao e en eng i ong ou u ua uai uan uang ui un uo",
    "ch": "a ai an ang ao e en eng i ong ou u ua uai uan uang ui un uo",
    "sh": "a ai an ang ao e ei en eng i ou u ua uai uan uang ui un uo",
    "r": "an ang ao e en eng i ong ou u ua uan ui un uo",
    "z": "a ai an ang ao e ei en eng i ong ou u uan ui un uo",
    "c": "a ai an ang ao e en eng i ong ou u uan ui un uo",
    "s": "a ai an ang ao e en eng i ong ou u uan ui un uo",
    "y": "a an ang ao e i in ing o ong ou u uan ue un",
    "w": "a ai an ang ei en eng o u",
}
_SYLLABLES = sorted(
    (first + rest for first, rests in _FINALS.items() for rest in rests.split()), key=len
)[::-1]
_SYLLABLE = "(?:" + "|".join(_SYLLABLES) + ")"
_WHOLE = re.compile(rf"{_SYLLABLE}[1-5]?(?:'?{_SYLLABLE}[1-5]?)*")
_TOKEN = re.compile(r"[a-z']+(?:[1-5](?:[a-z']+)?)*")
_ONE = re.compile(rf"{_SYLLABLE}")
_LETTER = re.compile(r"[a-z]")
_HAN = re.compile(r"[\u3400-\u9fff]")
#: What may stand between two tokens of one run.
_GAP = re.compile(r"[\s\-_·.]{0,3}")
_TONES = {"\u0304": 1, "\u0301": 2, "\u030c": 3, "\u0300": 4}
#: Syllables a run needs: without tones, with tones or beside a Chinese character.
_FEW, _SURE = 4, 2
#: Letters read at most; a longer text is read up to here.
_LETTERS = 4000
#: A word this common in English is English (log probability).
_COMMON = -12.5


class _Read:
    """A text with its tones taken off: plain letters, their tones, and their places."""

    def __init__(self, text: str) -> None:
        letters: list[str] = []
        self.offsets: list[int] = []
        self.tones: dict[int, int] = {}
        for at, char in enumerate(text):
            for piece in unicodedata.normalize("NFD", char.lower()):
                if piece in _TONES:
                    self.tones[len(letters) - 1] = _TONES[piece]
                elif piece == "\u0308" and letters and letters[-1] == "u":
                    letters[-1] = "v"
                elif not unicodedata.combining(piece):
                    letters.append(piece)
                    self.offsets.append(at)
        self.text = "".join(letters)
        self.offsets.append(len(text))


def _runs(read: _Read) -> list[tuple[int, int]]:
    """Stretches that read as pinyin and not as English."""
    runs: list[list[tuple[int, int]]] = []
    for token in _TOKEN.finditer(read.text, 0, _LETTERS):
        if not _WHOLE.fullmatch(token.group()):
            runs.append([])
        elif runs and runs[-1] and _GAP.fullmatch(read.text, runs[-1][-1][1], token.start()):
            runs[-1].append(token.span())
        else:
            runs.append([token.span()])
    letters = sum(b - a for run in runs for a, b in run)
    if not letters:
        return []
    # One foreign name in a text of another language is no pinyin.
    mostly = 1.5 * letters >= len(_LETTER.findall(read.text, 0, _LETTERS))
    return [(run[0][0], run[-1][1]) for run in runs if run and _is_pinyin(read, run, mostly)]


def _is_pinyin(read: _Read, run: list[tuple[int, int]], mostly: bool) -> bool:
    start, end = run[0][0], run[-1][1]
    count = len(_ONE.findall(read.text, start, end))
    marked = sum(1 for at in read.tones if start <= at < end)
    marked += sum(read.text[at].isdigit() for at in range(start, end))
    around = read.text[:start].rstrip()[-1:] + read.text[end : end + 8].lstrip()[:1]
    if marked >= _SURE and 2 * marked >= count:
        return True
    few = _SURE if _HAN.search(around) or (mostly and len(run) > 1) else _FEW
    if count < few or not (mostly or _HAN.search(around)):
        return False
    known = english()
    words = [read.text[a:b] for a, b in run]
    plain = sum(len(w) for w in words if len(w) > 1 and known.get(w, -99.0) > _COMMON)
    return 2 * plain < sum(map(len, words))


@lru_cache(maxsize=1)
def _longest() -> int:
    return max(map(len, readings()))


def _converted(read: _Read, start: int, end: int) -> list[tuple[int, str]]:
    """(place, character) of the stretch [start, end); empty where it holds no words."""
    letters: list[str] = []
    places: list[int] = []
    cuts: set[int] = set()
    tones: dict[int, int] = {}
    for at in range(start, end):
        char = read.text[at]
        if char.isdigit():
            tones[len(letters)] = int(char)
            cuts.add(len(letters))
        elif char.isalpha():
            letters.append(char)
            places.append(at)
        else:
            cuts.add(len(letters))
    joined = "".join(letters)
    marks = {i: read.tones[at] for i, at in enumerate(places) if at in read.tones}

    def edges(at: int) -> list[Edge]:
        found: list[Edge] = []
        for stop in range(at + 1, min(len(joined), at + _longest()) + 1):
            for word, ends, tone in readings().get(joined[at:stop], ()):
                inside = {at + e for e in ends}
                if any(c not in inside for c in cuts if at < c < stop):
                    continue
                wrong, low = 0, at
                for high, expected in zip(ends, tone, strict=True):
                    said = tones.get(at + high)
                    said = said or next((marks[i] for i in range(low, at + high) if i in marks), 0)
                    wrong += bool(said) and expected not in (said, 5)
                    wrong += bool(marks) and not said and expected != 5
                    low = at + high
                found.append((stop, word, -5.0 * wrong))
        return found or [(at + 1, joined[at], 0.0)]

    out = []
    chain = best_words(len(joined), edges)
    if all(len(word) == 1 for *_, word in chain):
        return []
    for low, high, word in chain:
        step = (high - low) / len(word)
        out += [(places[low + int(i * step)], char) for i, char in enumerate(word)]
    return out


def from_pinyin(text: str) -> tuple[str, list[int]] | None:
    """`text` with its pinyin as characters, and the place of each in `text`; None without any."""
    read = _Read(text)
    runs = _runs(read)
    if not runs:
        return None
    out: list[str] = []
    offsets: list[int] = []
    at = 0
    for start, end in runs:
        converted = _converted(read, start, end)
        if not converted:
            continue
        out += read.text[at:start]
        offsets += read.offsets[at:start]
        for place, char in converted:
            out.append(char)
            offsets.append(read.offsets[place])
        at = end
    if not at:
        return None
    out += read.text[at:]
    offsets += read.offsets[at:]
    return "".join(out), offsets
