"""What every writing policy does to its stream: tokens to text, text to what may be shown.

`Pieces` never splits a character; `Cleaner` takes out thinking blocks, ends at a stop string and
recognises the abstain marker, also where these are cut over several pieces. For both the result
depends on the whole text only, never on how it was cut.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Literal

from assistant.prompt import ABSTAIN
from assistant.schema import Sampling

THINK, UNTHINK = "<think>", "</think>"
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


class Cleaner:
    """Raw text in, text to show out.

    Args:
        stop: strings that end the answer and are not part of it; empty ones are ignored.
        thinking: the prompt has opened a thinking block already.
    """

    def __init__(self, stop: Sequence[str] = (), thinking: bool = False) -> None:
        self._stop = tuple(s for s in stop if s)
        self._thinking = thinking
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
        if not self._thinking:
            self._shown += self._raw
        self._raw = ""
        return self._release(final=True)

    def _unthink(self) -> str:
        """Take from `_raw` what is certainly outside of thinking blocks and no part of a tag."""
        out = ""
        while True:
            tag = UNTHINK if self._thinking else THINK
            before, found, after = self._raw.partition(tag)
            if not found:
                break
            out += "" if self._thinking else before
            self._raw, self._thinking = after, not self._thinking
        keep = _overlap(self._raw, (tag,))
        if not self._thinking:
            out += self._raw[: len(self._raw) - keep]
        self._raw = self._raw[len(self._raw) - keep :]
        return out

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
