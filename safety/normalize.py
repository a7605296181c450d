"""Undo obfuscation, keeping for every character where it came from.

Character tricks defeat moderation models almost always (arXiv 2504.11168), so texts are judged
raw and normalised, and encoded stretches are decoded and judged as well. The normalised text is
for matching only; it is never shown.
"""

from __future__ import annotations

import base64
import binascii
import codecs
import html
import re
import unicodedata
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache

#: Letters that look like Latin ones and that compatibility folding leaves alone.
_LOOKALIKES = {
    "абвгдеёкмнорстухіїјѕһԁԛԝъьԍɡӏҽҡмԺп": "a6brgeekmhopctyxiijshdqwbbggleкmзn",
    "αβγδεηικλμνοπρςστυχωϲϳ": "abydenikaμvonpcotuxwcj",
    "ᴀʙᴄᴅᴇꜰɢʜɪᴊᴋʟᴍɴᴏᴘʀꜱᴛᴜᴠᴡʏᴢ": "abcdefghijklmnoprstuvwyz",
    "ɑɐɓɕɖɗɘəɛɜɟɠɦɨɩɫɭɯɱɳɵɹɾʂʃʈʉʋʍʐʑʒ": "aabcddeeeejghiiilmmnorrsstuvwzzz",
    "øđħıłŧƀƃƈɍʝƙƥƭƴƶßæœ": "odhiltbbcrjkptyzsao",
    "օոհսցքաԛգտ": "onhugpaqqt",
    "’‘ʼ′‛“”„‟‐‒–—―−": "'" * 5 + '"' * 4 + "-" * 6,
}
#: Leetspeak, read only beside letters of the same word.
_LEET = str.maketrans({"0": "o", "1": "i", "3": "e", "4": "a", "5": "s", "7": "t", "8": "b"})
_LEET_SIGNS = {"@": "a", "$": "s", "!": "i", "|": "i", "€": "e", "£": "l", "¥": "y", "¡": "i"}
_LEET_WORD = re.compile(
    r"(?<![a-z0-9@$!|€£¥¡])(?=[a-z0-9@$!|€£¥¡]{0,40}[a-z])[a-z0-9@$€£¥]"
    r"(?:[a-z0-9@$€£¥]|[!|¡](?=[a-z0-9])){1,40}(?![a-z0-9])"
)
_LEET_DIGITS = re.compile(r"(?<=[a-z])[013457](?=[a-z])")
_MIXED = re.compile(r"[0-9@$!|€£¥¡]")
#: Four or more single letters, parted one from the next; a gap of three or more parts words.
_SPACED = re.compile(
    r"(?<![a-z0-9@$])[a-z0-9@$](?:[ .\-_*·•~+,/\\|]{1,5}[a-z0-9@$](?![a-z0-9@$])){3,2000}"
)
_HAN = r"\u3400-\u4dbf\u4e00-\u9fff\U00020000-\U0002fa1f"
#: Blanks between Chinese characters, and signs that no Chinese text puts there.
_HAN_GAP = re.compile(rf"(?<=[{_HAN}])[ \t\u3000*_~·•^|+#=&%$@]{{1,4}}(?=[{_HAN}])")
#: Real punctuation only where it parts characters one by one.
_HAN_SPLIT = re.compile(
    rf"(?<![{_HAN}])[{_HAN}](?:[-/.,、，。;；:：!！?？'\"]{{1,2}}[{_HAN}](?![{_HAN}])){{2,200}}"
)
_HAN_PUNCTUATION = re.compile(r"[-/.,、，。;；:：!！?？'\"]+")
_ROUNDS = 6


def _table() -> dict[str, str]:
    table = {}
    for strange, plain in _LOOKALIKES.items():
        for a, b in zip(strange, plain, strict=False):
            if b.isascii():
                table[a] = b
    for start in (0x1F130, 0x1F150, 0x1F170, 0x1F1E6):
        table.update({chr(start + i): chr(ord("a") + i) for i in range(26)})
    return table


_LATIN = _table()


@lru_cache(maxsize=1)
def _simplifier() -> Callable[[str], str]:
    import opencc  # on first use: an import of this package stays light

    convert: Callable[[str], str] = opencc.OpenCC("t2s").convert
    return convert


def _hidden(char: str) -> bool:
    """Characters without a mark of their own: format, control, tags, fillers, selectors."""
    if char in "\t\n":
        return False
    return (
        unicodedata.category(char) in ("Cf", "Cc", "Mn", "Me", "Cs")
        or char in "\u115f\u1160\u3164\uffa0\u2800\u034f"
        or 0xE0000 <= ord(char) <= 0xE0FFF
    )


def _fold_once(text: str) -> str:
    out = []
    for char in unicodedata.normalize("NFKD", text):
        if _hidden(char):
            continue
        if char in "\r\v\f\x85\u2028\u2029":
            out.append("\n")
        elif char.isspace() and char not in "\t\n":
            out.append(" ")
        elif "\u3400" <= char <= "\u9fff" or ord(char) >= 0x20000:
            plain = _simplifier()(char)
            out.append(plain if len(plain) == 1 else char)
        else:
            low = char.casefold()
            out.append("".join(_LATIN.get(c, c) for c in low))
    return unicodedata.normalize("NFC", "".join(out))


class _Folds(dict[str, str]):
    """Character -> its plain form, worked out on first use."""

    def __missing__(self, char: str) -> str:
        if char in "\r\v\f\x85\u2028\u2029":
            value = "\n"
        else:
            value, before = _fold_once(char), char
            for _ in range(_ROUNDS):
                if value == before:
                    break
                before, value = value, "".join(_fold_once(c) for c in value)
        self[char] = value
        return value


_FOLDS = _Folds()


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
    if not _MIXED.search(word):
        return word
    return "".join(_LEET_SIGNS.get(c, c) for c in word.translate(_LEET))


def _once(text: str) -> tuple[str, list[int]]:
    pieces = [_FOLDS[c] for c in text]
    if text.isascii() and "\r" not in text and not _CONTROL.search(text):
        offsets = list(range(len(text)))
    else:
        offsets = [i for i, piece in enumerate(pieces) for _ in piece]
    draft = _Draft("".join(pieces), [*offsets, len(text)])
    draft.cut(_HAN_GAP, _everything)
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
    for _ in range(_ROUNDS):
        plain, steps = _once(text)
        offsets = steps if offsets is None else [offsets[s] for s in steps]
        if plain == text:
            break
        text = plain
    return Normalized(text, tuple(offsets or [0]))


# Encoded stretches -------------------------------------------------------------------------

_BLOBS = 24
_BLOB_BYTES = 32768
#: (how, a sign without which there is none, where).
_ENCODED: tuple[tuple[str, str, re.Pattern[str]], ...] = (
    (
        "base64",
        "",
        re.compile(
            r"(?<![A-Za-z0-9+/_-])(?:[A-Za-z0-9+/_-]{4}\s?){4,16000}[A-Za-z0-9+/_-]{0,3}={0,2}"
        ),
    ),
    (
        "hex",
        "",
        re.compile(r"(?<![0-9A-Za-z])(?:(?:0x|\\x)?[0-9A-Fa-f]{2}[\s:,]?){8,16000}(?![0-9A-Za-z])"),
    ),
    ("percent", "%", re.compile(r"[^\s%]{0,64}(?:%[0-9A-Fa-f]{2}[^\s%]{0,64}){3,8000}")),
    ("entity", "&#", re.compile(r"(?:[^\s&]{0,64}&#x?[0-9A-Fa-f]{1,6};){4,8000}")),
    ("escape", "\\u", re.compile(r"(?:\\u[0-9A-Fa-f]{4}){3,8000}")),
    ("tags", "", re.compile("[\U000e0020-\U000e007e]{4,16000}")),
    ("selectors", "", re.compile("[\ufe00-\ufe0f\U000e0100-\U000e01ef]{4,16000}")),
    ("bits", "", re.compile(r"(?<![01])(?:[01]{8}\s?){6,8000}(?![01])")),
)
_ROT13 = re.compile(r"(?i)rot[- _]?13|caesar|凯撒")
_BACKWARD = re.compile(r"(?i)\bbackwards?\b|\brevers(?:e|ed|ing)\b|倒序|反转|倒着|逆序")


def _bytes(kind: str, found: str) -> bytes:
    """The bytes behind an encoded stretch; raises ValueError where there are none."""
    if kind == "base64":
        packed = re.sub(r"\s", "", found).translate(str.maketrans("-_", "+/")).rstrip("=")
        if len(packed) % 4 == 1:
            packed = packed[:-1]
        return base64.b64decode(packed + "=" * (-len(packed) % 4), validate=True)
    if kind == "hex":
        return binascii.unhexlify(re.sub(r"0x|\\x|[\s:,]", "", found))
    if kind == "percent":
        plain = found.encode("utf-8", "surrogatepass")
        return re.sub(rb"%([0-9A-Fa-f]{2})", lambda m: bytes([int(m.group(1), 16)]), plain)
    if kind == "entity":
        return html.unescape(found).encode("utf-8", "surrogatepass")
    if kind == "escape":
        codes = re.findall(r"\\u([0-9A-Fa-f]{4})", found)
        units = b"".join(int(c, 16).to_bytes(2, "little") for c in codes)
        return units.decode("utf-16-le").encode()
    if kind == "tags":
        return bytes(ord(c) - 0xE0000 for c in found)
    if kind == "selectors":
        return bytes(
            ord(c) - 0xFE00 if ord(c) < 0xFF00 else (ord(c) - 0xE0100 + 16) & 0xFF for c in found
        )
    bits = re.sub(r"\s", "", found)
    return bytes(int(bits[i : i + 8], 2) for i in range(0, len(bits) - 7, 8))


def _readable(data: bytes) -> str:
    """The text in `data`, "" where it does not read like language."""
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        return ""
    letters = sum(c.isalpha() or c.isspace() for c in text)
    whole = len(text) >= 4 and letters >= 0.7 * len(text) and text.isprintable() | ("\n" in text)
    return text if whole else ""


def _decoded(text: str, depth: int) -> Iterator[View]:
    count = 0
    for kind, sign, pattern in _ENCODED:
        if sign not in text:
            continue
        for match in pattern.finditer(text):
            count += 1
            if count > _BLOBS:
                return
            try:
                plain = _readable(_bytes(kind, match.group()[:_BLOB_BYTES]))
            except ValueError:
                continue
            if not plain or plain == match.group():
                continue
            whole = (match.start(), match.end())
            yield View(f"decoded.{kind}", plain, whole=whole)
            yield View(f"decoded.{kind}", normalize(plain).text, whole=whole)
            if depth:
                for inner in _decoded(plain, depth - 1):
                    yield View(inner.kind, inner.text, whole=whole)


def views(text: str) -> Iterator[View]:
    """The readings of `text` to judge: raw, normalised where it differs, and what it encodes."""
    yield View("raw", text)
    plain = normalize(text)
    if plain.text != text:
        yield View("normalised", plain.text, plain.offsets)
        if re.search(r"(?<=[a-z])[1!|]|[1!|](?=[a-z])", text.lower()):
            # `1` is i in k1ll and l in exp1osive; same length, so the offsets hold.
            other = normalize(re.sub(r"(?<=[A-Za-z@$0-9])[1!|](?=[A-Za-z@$0-9])", "l", text))
            if other.text != plain.text:
                yield View("normalised", other.text, other.offsets)
        if len(_LEET_DIGITS.findall(text.lower())) >= 2:
            # Where words are written so, digits standing alone are words too: `h0w 70 k1ll 4`.
            everywhere = normalize(text.translate(_LEET))
            yield View("normalised", everywhere.text, everywhere.offsets)
    yield from _decoded(text, 1)
    everything = (0, len(text))
    if _ROT13.search(text):
        yield View("decoded.rot13", codecs.encode(text, "rot13"), whole=everything)
    if _BACKWARD.search(text):
        yield View("decoded.backward", text[::-1], whole=everything)
