"""The seam behind which an answer is written.

A policy is one file of this folder with `build(options, resources) -> Policy`. The contract:

* `stream` yields one or more `Delta`s; the last one, and only it, has `finish` set;
* citations are written `[n]`, n counting `prompt.passages` from 1; others are dropped later;
* abstaining is `finish="abstain"`; the dialogue manager words it, so its text is not shown;
* errors of the engine underneath come out as `assistant.errors.PolicyError`s;
* closing the iterator early stops the work (a reader who leaves costs nothing);
* the same prompt, sampling and seed give the same answer;
* one that only quotes and never reads `prompt.messages` says so with an attribute `writes = False`
  and then gets no canary in its prompt.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

from assistant.answering import Answerer
from assistant.schema import Delta, PolicyCard, Prompt, Sampling
from retrieval.embed.base import Embedder
from retrieval.rerank.base import Reranker


@dataclass(frozen=True, slots=True)
class Resources:
    """What the assistant lends to a policy: its encoder, rarity, and what reads two texts as one.

    Reranker and answerer are None where the assistant has none.
    `rarity(terms)` gives each term's inverse document frequency, `log((N + 1) / (df + 0.5))`.
    """

    embedder: Embedder
    rarity: Callable[[list[str]], list[float]]
    reranker: Reranker | None = None
    answerer: Answerer | None = None


class Policy(Protocol):
    """Writes (or picks) the answer to a prompt."""

    @property
    def card(self) -> PolicyCard:
        """Who this is, for the log."""

    def stream(self, prompt: Prompt, sampling: Sampling) -> Iterator[Delta]:
        """Answer `prompt` piece by piece.

        Raises:
            PolicyError: the engine failed; `retryable` says whether trying again may help.
        """

    def count_tokens(self, text: str) -> int:
        """How many of this policy's tokens `text` takes, for the context budget."""

    def close(self) -> None:
        """Give back memory and connections; the policy is not used afterwards."""
