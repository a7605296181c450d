"""A deterministic double: the first sentence of the first passage, or an abstention.

For tests and for trying the assistant without a model. Variant n echoes the n-th passage after it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from assistant.config import PolicySettings
from assistant.policy._stream import Cleaner
from assistant.policy.base import Policy, Resources
from assistant.schema import Delta, PolicyCard, Prompt, Sampling
from retrieval.text import count_tokens

_SENTENCE = re.compile(r".+?(?:[.!?](?=\s|$)|[。！？]|\n|$)", re.DOTALL)


class EchoPolicy:
    """Answers with what it was given."""

    card = PolicyCard(name="echo", model="echo", revision="1")

    def stream(self, prompt: Prompt, sampling: Sampling) -> Iterator[Delta]:
        """Repeat a passage's first sentence and cite it; abstain without passages."""
        if not prompt.passages:
            yield Delta("", finish="abstain", confidence=0.0)
            return
        number = sampling.variant % len(prompt.passages)
        found = _SENTENCE.match(prompt.passages[number].chunk.text.strip())
        sentence = found.group().strip() if found else ""
        cleaner = Cleaner(sampling.stop)
        yield Delta(cleaner.feed(sentence))
        tail = cleaner.feed(f" [{number + 1}]") + cleaner.finish()
        yield Delta(tail, finish=cleaner.ended or "stop", confidence=1.0)

    def count_tokens(self, text: str) -> int:
        """Count as retrieval does."""
        return count_tokens(text)

    def close(self) -> None:
        """Do nothing: nothing is held."""


def build(options: PolicySettings, resources: Resources) -> Policy:
    """Make the double; no setting changes it."""
    return EchoPolicy()
