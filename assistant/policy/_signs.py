"""The special tokens of the embedded policy, and how texts and signs become ids.

Written once for those who train and those who answer. No text can become a sign: they stand in the
vocabulary without a merge that leads to them (see `rlhf.fit.tokenizer`) and are added by id.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import chain

from tokenizers import Tokenizer

LANGUAGES = ("en", "zh")
#: Sentences of evidence that can be pointed at, and steps of the two scores.
LABELS, SCORES, SECOND_SCORES, RESERVED = 24, 16, 8, 32
#: Special tokens that a chat template writes.
CONTROL = ("pad", "bos", "eos", "system", "user", "assistant", "end")
NAMES = (
    *CONTROL,
    *("evidence", "heading", "sentence", "cite", "abstain", "phrase"),
    *LANGUAGES,
    *(f"s{n}" for n in range(1, LABELS + 1)),
    *(f"r{n}" for n in range(SCORES)),
    *(f"e{n}" for n in range(SECOND_SCORES)),
    *(f"reserved{n}" for n in range(RESERVED)),
)
#: Name -> how the token is written: `<s1>`, `<r0>`, `<e7>`, `<|user|>`.
SPELLINGS = {name: f"<{name}>" if name[1:].isdigit() else f"<|{name}|>" for name in NAMES}


class Sign(str):
    """The name of a special token, as a part of a document; other parts are text."""

    __slots__ = ()


def sign(made: Tokenizer, name: str) -> int:
    """Id of a special token."""
    found = made.token_to_id(SPELLINGS[name])
    assert found is not None
    return int(found)


def encode(made: Tokenizer, parts: Iterable[str]) -> list[int]:
    """Ids of texts and signs, in their order; text never becomes a sign."""
    found = (
        [sign(made, part)] if isinstance(part, Sign) else made.encode(part).ids for part in parts
    )
    return list(chain.from_iterable(found))
