"""Which of the two languages a text is mostly in."""

from __future__ import annotations

#: Share of Chinese characters, spaces not counted, above which a text is Chinese. A character says
#: about as much as a word of four or five letters.
_HAN_SHARE = 0.2


def language_of(text: str) -> str:
    """`zh` where a good part of the text is Chinese characters, else `en`."""
    han = sum("\u3400" <= c <= "\u9fff" for c in text)
    return "zh" if han > _HAN_SHARE * len(text.replace(" ", "")) else "en"
