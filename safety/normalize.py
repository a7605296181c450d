"""Undo obfuscation, keeping for every character where it came from.

Character tricks defeat moderation models almost always (arXiv 2504.11168), so texts are judged
raw and normalised, and encoded stretches are decoded and judged as well. The normalised text is
for matching only; it is never shown.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from safety import _ciphers, _encoded, _parts, _pinyin, _words
from safety._fold import FOLDS, ROUNDS
from safety._words import english

#: Letters that a leetspeak sign may stand for, the usual one first.
_LEET = {
    "0": "o", "1": "il", "2": "z", "3": "e", "4": "a", "5": "s", "6": "gb", "7": "tl", "8": "b",
    "9": "g", "@": "a", "$": "s", "!": "il", "|": "li", "€": "e", "£": "l", "¥": "y", "¡": "i",
}  # fmt: skip
#: Signs that are read so even where the word is unknown.
_USUAL = {sign: letters[0] for sign, letters in _LEET.items() if sign not in "269"}
_LEET_WORD = re.compile(
    r"(?<![a-z0-9@$!|€£¥¡])(?=[a-z0-9@$!|€£¥¡]{0,40}[a-z])"
    r"(?:[!|¡](?=[a-z0-9@$€£¥])|[a-z0-9@$€£¥])"
    r"(?:[a-z0-9@$€£¥]|[!|¡](?=[!|¡]{0,2}[a-z0-9@$])){1,40}(?![a-z0-9])"
)
_LEET_INSIDE = re.compile(r"(?<=[a-z])[013457@$](?=[a-z])")
_LEET_ALONE = re.compile(r"(?<![^\s(\"'])[0-9@$!|]{1,4}(?![^\s.,?!)\"'])")
_MIXED = re.compile(r"[0-9@$!|€£¥¡]")
#: Numbers before or after letters, as in mp3, 4th and covid19: no leetspeak unless a known word.
_NUMBERED = re.compile(r"[!|¡]?[0-9]*[a-z]+[0-9]*")
#: Readings of one word that are looked up.
_WAYS = 64
#: Four or more single letters, parted one from the next; a gap of three or more parts words.
_PICTURE = "\u2190-\u21ff\u2300-\u27bf\u2900-\u297f\u2b00-\u2bff\U0001f000-\U0001faff"
_SPACED = re.compile(
    rf"(?<![a-z0-9@$])[a-z0-9@$]"
    rf"(?:[ .\-_*·•~+,/\\|{_PICTURE}]{{1,5}}[a-z0-9@$](?![a-z0-9@$])){{3,2000}}"
)
#: Pictures inside a word, or between a word and its punctuation.
_PICTURES = re.compile(rf"(?<=[^\s{_PICTURE}])[{_PICTURE}]{{1,8}}(?=[^\s{_PICTURE}])")
_HAN = r"\u3400-\u4dbf\u4e00-\u9fff\U00020000-\U0002fa1f"
#: Blanks between Chinese characters, and signs that no Chinese text puts there.
_HAN_GAP = re.compile(rf"(?<=[{_HAN}])[ \t\u3000*_~·•^|+#=&%$@]{{1,4}}(?=[{_HAN}])")
#: Blanks around the punctuation of Chinese text.
_HAN_BLANK = re.compile(
    rf"(?<=[{_HAN}])[ \t]{{1,4}}(?=[,.!?;:、。])|(?<=[,!?;:、。])[ \t]{{1,4}}(?=[{_HAN}])"
)
#: Real punctuation only where it parts characters one by one.
_HAN_SPLIT = re.compile(
    rf"(?<![{_HAN}])[{_HAN}](?:[-/.,、，。;；:：!！?？'\"]{{1,2}}[{_HAN}](?![{_HAN}])){{2,200}}"
)
_HAN_PUNCTUATION = re.compile(r"[-/.,、，。;；:：!！?？'\"]+")


@dataclass(frozen=True, slots=True)
class Normalized:
    """A plain text and its way back.

    `offsets` has one more entry than `text` has characters and never decreases:
    `text[i]` came from `original[offsets[i]]`, and the last entry is the original's length.
    """

    text: str
    offsets: tuple[int, ...]

    def original(self, start: int, end: int) -> tuple[int, int]:
        """The stretch of the original text that [start, end) of this text came from."""
        return self.offsets[start], self.offsets[end] if end > start else self.offsets[start]


@dataclass(frozen=True, slots=True)
class View:
    """One reading of a text: `raw`, `normalised`, or `decoded.<how>`.

    Decoded text has no character-wise way back; all of it stands for `whole`, the encoded
    stretch [start, end) of the original.
    """

    kind: str
    text: str
    offsets: tuple[int, ...] = ()
    whole: tuple[int, int] | None = None

    def original(self, start: int, end: int) -> tuple[int, int]:
        """The stretch of the original text behind [start, end) of this view."""
        if self.whole is not None:
            return self.whole
        if not self.offsets:
            return start, end
        return Normalized(self.text, self.offsets).original(start, end)


Gaps = Callable[[str], Iterator[tuple[int, int]]]


class _Draft:
    """A text under repair with its offsets."""

    def __init__(self, text: str, offsets: list[int]) -> None:
        self.text = text
        self.offsets = offsets

    def cut(self, pattern: re.Pattern[str], gaps: Gaps) -> None:
        """Remove, from every match of `pattern`, the stretches that `gaps` names in it."""
        text, offsets, at = [], [], 0
        for match in pattern.finditer(self.text):
            for start, end in gaps(match.group()):
                start, end = start + match.start(), end + match.start()
                text.append(self.text[at:start])
                offsets += self.offsets[at:start]
                at = end
        if at:
            self.text = "".join([*text, self.text[at:]])
            self.offsets = offsets + self.offsets[at:]

    def swap(self, pattern: re.Pattern[str], change: Callable[[str], str]) -> None:
        """Replace every match by as many characters."""
        self.text = pattern.sub(lambda m: change(m.group()), self.text)


def _everything(found: str) -> Iterator[tuple[int, int]]:
    yield 0, len(found)


def _letter_gaps(found: str) -> Iterator[tuple[int, int]]:
    """Separators between single letters; of a gap that parts words one blank stays.

    That is a gap of three or more, or a blank where the letters of a word have another sign.
    """
    gaps = [m.span() for m in re.finditer(r"[^a-z0-9@$]+", found)]
    signs = any(" " not in found[start:end] for start, end in gaps)
    for start, end in gaps:
        blank = found.find(" ", start, end)
        if blank >= 0 and (signs or end - start > 2):
            yield start, blank
            start = blank + 1
        yield start, end


def _han_gaps(found: str) -> Iterator[tuple[int, int]]:
    for gap in _HAN_PUNCTUATION.finditer(found):
        yield gap.start(), gap.end()


def _unleet(word: str) -> str:
    """The word that leetspeak stands for: a known one where there is, else by the usual signs."""
    if not _MIXED.search(word):
        return word
    ways = [_LEET.get(c, c) for c in word]
    known = english()
    read = itertools.islice(itertools.product(*ways), _WAYS)
    best = max(("".join(w) for w in read), key=lambda w: known.get(w, -99.0))
    if best in known:
        return best
    if _NUMBERED.fullmatch(word):
        return word
    if all(piece in known or piece.isdigit() for piece in re.split(r"[!|¡]+", word)):
        return word
    if word[0] in "!|¡@$" and word[1:] in known:
        return word
    return _usual(word)


def _usual(word: str) -> str:
    return "".join(_USUAL.get(c, c) for c in word)


def _known_alone(found: str) -> str:
    """A number on its own that is a word of leetspeak: 70 is to, 4 is a."""
    word = _unleet(found)
    return word if word.isalpha() else found


def _once(text: str) -> tuple[str, list[int]]:
    pieces = [FOLDS[c] for c in text]
    if text.isascii() and "\r" not in text and not _CONTROL.search(text):
        offsets = list(range(len(text)))
    else:
        offsets = [i for i, piece in enumerate(pieces) for _ in piece]
    draft = _Draft("".join(pieces), [*offsets, len(text)])
    draft.cut(_PICTURES, _everything)
    draft.cut(_HAN_GAP, _everything)
    draft.cut(_HAN_BLANK, _everything)
    draft.cut(_HAN_SPLIT, _han_gaps)
    draft.cut(_SPACED, _letter_gaps)
    draft.swap(_LEET_WORD, _unleet)
    return draft.text, draft.offsets


_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")


def normalize(text: str) -> Normalized:
    """The plain text behind `text`: width, case, look-alikes, hidden characters, spacing, leet.

    Repeated until nothing changes, so that one trick cannot hide another.
    """
    offsets: list[int] | None = None
    for _ in range(ROUNDS):
        plain, steps = _once(text)
        offsets = steps if offsets is None else [offsets[s] for s in steps]
        if plain == text:
            break
        text = plain
    return Normalized(text, tuple(offsets or [0]))


def folded(text: str) -> str:
    """The text with each character in its plain form, words and spacing as they are."""
    return "".join([FOLDS[c] for c in text])


def warm_up() -> None:
    """Load the words and the table of traditional characters, which takes half a second."""
    _words.warm_up()
    normalize("國")


#: Codes within codes that are undone, and readings of one text at most.
_DEPTH, _READINGS = 3, 48
#: Characters of a longer text that are read as a cipher or backwards.
_MOST = 50_000
_HAN_ANY = re.compile(rf"[{_HAN}]")
#: An override and what it turns round, up to its end.
_OVERRIDE = re.compile("[\u202d\u202e]([^\u202a-\u202e\u2066-\u2069\n]*)[\u202c\u2069]?")
_LATIN_RUN = re.compile(r"[A-Za-z\u00c0-\u01dc\u0300-\u030c]{2}")


def views(text: str) -> Iterator[View]:
    """The readings of `text` to judge: raw, normalised where it differs, and what it hides.

    Plain text has the first two at most. No more than 50 readings are made of one text.
    """
    yield View("raw", text)
    plain = normalize(text)
    if plain.text != text:
        yield View("normalised", plain.text, plain.offsets)
        if len(_LEET_INSIDE.findall(text.lower())) >= 2:
            # Where words are written so, numbers alone are words too: `h0w 70 k1ll 4`.
            everywhere = _LEET_ALONE.sub(lambda m: _known_alone(m.group()), plain.text)
            if everywhere != plain.text:
                yield View("normalised", everywhere, plain.offsets)
    yield from itertools.islice(_hidden(text, plain, _DEPTH), _READINGS)


def _hidden(text: str, plain: Normalized, depth: int) -> Iterator[View]:
    """What `text`, whose plain form is `plain`, says in another writing."""
    everything = (0, min(len(text), _MOST))
    if "\u202e" in text[:_MOST]:
        turned = _OVERRIDE.sub(lambda m: m[1][::-1] if m[0][0] == "\u202e" else m[1], text[:_MOST])
        yield View("decoded.bidi", normalize(turned).text, whole=everything)
    for kind, inner, start, end in _encoded.decoded(text):
        again = normalize(inner)
        if not _encoded.is_code(inner):
            yield View(f"decoded.{kind}", inner, whole=(start, end))
            if again.text != inner:
                yield View(f"decoded.{kind}", again.text, whole=(start, end))
        if depth:
            for view in _hidden(inner, again, depth - 1):
                yield View(view.kind, view.text, whole=(start, end))
    for kind, turned in _ciphers.readings((text if text.isascii() else plain.text)[:_MOST]):
        yield View(f"decoded.{kind}", turned, whole=everything)
        again = normalize(turned)
        if again.text != turned.lower():
            yield View(f"decoded.{kind}", again.text, whole=everything)
    yield from _rewritten(text, plain)


def _rewritten(text: str, plain: Normalized) -> Iterator[View]:
    """Readings of the plain text that keep their way back, character by character."""
    if plain.text != text:
        apart = _ciphers.parted(plain.text, text.lower())
        if apart is not None:
            yield _from(plain, "normalised", *apart)
    if _LATIN_RUN.search(text) or _LATIN_RUN.search(plain.text):
        spoken = _pinyin.from_pinyin(text)
        if spoken is not None:
            again = normalize(spoken[0])
            yield View("decoded.pinyin", again.text, tuple(spoken[1][o] for o in again.offsets))
        elif plain.text != text.lower():
            spoken = _pinyin.from_pinyin(plain.text)
            if spoken is not None:
                yield _from(plain, "decoded.pinyin", *spoken)
    if _HAN_ANY.search(plain.text):
        whole = _parts.joined(plain.text)
        if whole is not None:
            yield _from(plain, "decoded.parts", *whole)


def _from(plain: Normalized, kind: str, text: str, offsets: list[int]) -> View:
    """A view of `text`, whose offsets lead into the plain text."""
    return View(kind, text, tuple(plain.offsets[o] for o in offsets))
