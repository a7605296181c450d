"""What every writing policy does to its stream: tokens to text, text to what may be shown.

`Pieces` never splits a character; `Cleaner` takes out thinking blocks, ends at a stop string and
recognises the abstain marker, also where these are cut over several pieces. For both the result
depends on the whole text only, never on how it was cut. `Length` notices an engine that writes on
where it should have stopped.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Literal

from assistant.prompt import ABSTAIN
from assistant.schema import Sampling

#: How models open and close what they think before they answer.
THINKING = {
    "<think>": "</think>",
    "<thinking>": "</thinking>",
    "<reasoning>": "</reasoning>",
    "[THINK]": "[/THINK]",
}
#: The longest token of common vocabularies is a run of white space about this long, characters.
_TOKEN_CHARACTERS = 64
#: A greedy policy has no second answer, so variants are sampled at this temperature.
VARIANT_TEMPERATURE = 0.8


def resolve(sampling: Sampling) -> Sampling:
    """Turn `variant` into plain sampling: another seed, and a temperature where there was none."""
    if sampling.variant <= 0:
        return sampling
    return replace(
        sampling,
        temperature=sampling.temperature or VARIANT_TEMPERATURE,
        seed=(sampling.seed + 7919 * sampling.variant) % 2**31,
        variant=0,
    )


class Pieces:
    """Tokens in, whole characters out.

    A token of a byte-level vocabulary may end within a character; its text waits for the rest.
    Decoding starts some tokens back, since a token's text can depend on the one before it.
    """

    def __init__(self, decode: Callable[[list[int]], str]) -> None:
        self._decode = decode
        self._ids: list[int] = []
        self._from = 0
        self._read = 0

    def feed(self, token: int) -> str:
        """Return the text that `token` completes, "" while a character is unfinished."""
        self._ids.append(token)
        return self._new(held=True)

    def finish(self) -> str:
        """Return what is left; an unfinished character comes out as U+FFFD."""
        return self._new(held=False)

    def _new(self, held: bool) -> str:
        before = self._decode(self._ids[self._from : self._read])
        text = self._decode(self._ids[self._from :])
        if len(text) <= len(before) or (held and text.endswith("\ufffd")):
            return ""
        self._from, self._read = self._read, len(self._ids)
        return text[len(before) :]


class Length:
    """Counts what comes from an engine whose tokens cannot be seen.

    A piece holds a token at least, so more pieces than tokens were asked for are too many; so is
    text that no vocabulary could write in so few.
    """

    def __init__(self, max_tokens: int) -> None:
        self._pieces = max_tokens
        self._characters = max_tokens * _TOKEN_CHARACTERS

    def over(self, piece: str) -> bool:
        """Count a piece, thinking included; True once it is beyond what was asked for."""
        self._pieces -= bool(piece)
        self._characters -= len(piece)
        return self._pieces < 0 or self._characters < 0


def unclosed(text: str) -> str:
    """The tag that closes the thinking block which the end of a prompt has opened, "" for none."""
    ends = (close for tag, close in THINKING.items() if text.rstrip().endswith(tag))
    return next(ends, "")


class Cleaner:
    """Raw text in, text to show out.

    Args:
        stop: strings that end the answer and are not part of it; empty ones are ignored.
        closing: the tag that ends the thinking block which the prompt has opened already.
    """

    def __init__(self, stop: Sequence[str] = (), closing: str = "") -> None:
        self._stop = tuple(s for s in stop if s)
        self._closing = closing  # "" outside of thinking blocks
        self._raw = ""  # may still turn out to be a tag
        self._shown = ""  # may still turn out to be the marker or a stop string
        self._begun = False
        #: "stop" or "abstain" once the answer has ended and more input is pointless.
        self.ended: Literal["", "stop", "abstain"] = ""

    def feed(self, text: str) -> str:
        """Return what may be shown now."""
        if self.ended:
            return ""
        self._raw += text
        self._shown += self._unthink()
        return self._release(final=False)

    def finish(self) -> str:
        """Return what was held back; the input is over."""
        if self.ended:
            return ""
        if not self._closing:
            self._shown += self._raw
        self._raw = ""
        return self._release(final=True)

    def _unthink(self) -> str:
        """Take from `_raw` what is certainly outside of thinking blocks and no part of a tag."""
        out = ""
        while tag := self._next_tag():
            before, _, self._raw = self._raw.partition(tag)
            out += "" if self._closing else before
            self._closing = "" if self._closing else THINKING[tag]
        keep = _overlap(self._raw, (self._closing,) if self._closing else tuple(THINKING))
        if not self._closing:
            out += self._raw[: len(self._raw) - keep]
        self._raw = self._raw[len(self._raw) - keep :]
        return out

    def _next_tag(self) -> str:
        """The first tag in `_raw` that changes anything, "" for none."""
        if self._closing:
            return self._closing if self._closing in self._raw else ""
        found = [(at, tag) for tag in THINKING if (at := self._raw.find(tag)) >= 0]
        return min(found)[1] if found else ""

    def _release(self, final: bool) -> str:
        if not self._begun:
            self._shown = self._shown.lstrip()
            if self._shown.startswith(ABSTAIN):
                self.ended = "abstain"
                return ""
            if ABSTAIN.startswith(self._shown) and not final:
                return ""  # nothing yet, or the marker's beginning
            self._begun = True
        hits = [at for s in self._stop if (at := self._shown.find(s)) >= 0]
        if hits:
            self.ended = "stop"
            return self._shown[: min(hits)]
        keep = 0 if final else _overlap(self._shown, self._stop)
        out = self._shown[: len(self._shown) - keep]
        self._shown = self._shown[len(self._shown) - keep :]
        return out


def _overlap(text: str, words: Sequence[str]) -> int:
    """Length of the longest end of `text` that begins one of `words`, short of the whole word."""
    longest = max((len(w) for w in words), default=1) - 1
    for size in range(min(longest, len(text)), 0, -1):
        if any(len(w) > size and w.startswith(text[-size:]) for w in words):
            return size
    return 0
