"""Answers that are paths through a tree of pieces (`_trie`), by a causal network of transformers.

Log-probs are over the allowed tokens only, after the temperature, in float32; where one token is
allowed it is forced, its log-prob is 0, and a run of such tokens is read in one forward pass
together with what comes before the next decision. The prompt is read once. Training scores paths
with `score`, which is what the sampler computes in another order.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from assistant.policy._trie import Path, Paths
from assistant.policy.local import draw


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole path with the log-prob of each token, and how many forward passes it took."""

    path: Path
    logprobs: tuple[float, ...]
    forwards: int


class Reader:
    """A network that has read a prompt; of one answer at a time.

    Args:
        model: a causal language model of transformers, in evaluation mode.
        ids: the prompt.
    """

    def __init__(self, model: Any, ids: Sequence[int]) -> None:
        self._model, self._ids = model, tuple(ids)
        self._cache: Any = None
        self._read: Path = ()
        self._last: Tensor | None = None
        #: Forward passes so far.
        self.forwards = 0

    def after(self, path: Path) -> Tensor:
        """Logits of what follows prompt and `path`, (vocabulary,) float32 on the CPU."""
        whole = (*self._ids, *path)
        if self._last is None or whole != self._read:
            self._keep(_common(self._read, whole[:-1]))
            out = self._forward([whole[len(self._read) :]], self._cache, 1)
            self._cache, self._read = out.past_key_values, whole
            self._last = out.logits[0, -1].float().cpu()
        return self._last

    def after_each(self, paths: Sequence[Path]) -> Tensor:
        """The same for several paths at once, (paths, vocabulary)."""
        if not any(paths):
            return self.after(()).expand(len(paths), -1)
        if len(self._read) < len(self._ids):
            self.after(())
        self._keep(len(self._ids) - 1)
        cache = copy.deepcopy(self._cache)
        if cache is not None:
            cache.batch_repeat_interleave(len(paths))
        longest = max(map(len, paths))
        rows = [(*self._ids[-1:], *path, *[0] * (longest - len(path))) for path in paths]
        found = self._forward(rows, cache, 0).logits
        last = [row[len(path)] for row, path in zip(found, paths, strict=True)]
        return torch.stack(last).float().cpu()

    def _keep(self, size: int) -> None:
        """Forget what was read but its first `size` tokens."""
        gone = len(self._read) - size
        if gone:
            self._last, self._read = None, self._read[:size]
            if size:
                self._cache.crop(-gone)
            else:
                self._cache = None

    def _forward(self, rows: Sequence[Path], cache: Any, keep: int) -> Any:
        """Read on, with the logits of the last `keep` places, 0 for all."""
        ids = torch.tensor(rows, device=self._model.device)
        self.forwards += 1
        with torch.inference_mode():
            return self._model(
                input_ids=ids, past_key_values=cache, use_cache=True, logits_to_keep=keep
            )


def sample(
    reader: Reader,
    paths: Paths,
    temperature: float,
    top_p: float,
    seed: int,
    begun: Path = (),
    more: float | None = None,
) -> Answer:
    """Draw an answer, or take the likeliest token each time where `temperature` is 0.

    `begun` are tokens decided already; they get the log-probs of decisions nonetheless. With `more`
    an answer that is not drawn goes on, to the likeliest other token, where not to end is more
    probable than this.
    """
    generator = torch.Generator().manual_seed(seed)  # on the CPU: the same on every device
    path: Path = ()
    logprobs: list[float] = []
    while allowed := paths.allowed(path):
        token, logprob = allowed[0], 0.0
        if len(allowed) > 1:
            logits = reader.after(path)[list(allowed)]
            if len(path) < len(begun):
                at = allowed.index(begun[len(path)])
                logprob = float(torch.log_softmax(logits, 0)[at])
            else:
                at, logprob = draw(logits, temperature, top_p, generator)
                if more is not None and temperature == 0 and paths.end in allowed:
                    at, logprob = _stop_or_go(logits, allowed.index(paths.end), more)
            token = allowed[at]
        path = (*path, token)
        logprobs.append(logprob)
    return Answer(path, tuple(logprobs), reader.forwards)


def _stop_or_go(logits: Tensor, end: int, more: float) -> tuple[int, float]:
    """The end, or the likeliest of the others where one of them is more probable than `more`."""
    logprobs = torch.log_softmax(logits, 0)
    if 1 - float(logprobs[end].exp()) <= more:
        return end, float(logprobs[end])
    at = int(torch.where(torch.arange(len(logits)) == end, -torch.inf, logits).argmax())
    return at, float(logprobs[at])


def beam(reader: Reader, paths: Paths, width: int, begun: Path = ()) -> Answer:
    """The likeliest of the answers that a beam of `width` finds; exact where it is wide enough.

    `begun` are tokens decided already, as in `sample`.
    """
    done: list[tuple[float, Path, tuple[float, ...]]] = []
    left: list[tuple[float, Path, tuple[float, ...]]] = [(0.0, (), ())]
    while left:
        grown = []
        for total, path, logprobs in left:
            run = paths.forced(path)
            grown.append((total, (*path, *run), (*logprobs, *[0.0] * len(run))))
        done += [found for found in grown if not paths.allowed(found[1])]
        left = [found for found in grown if paths.allowed(found[1])]
        if not left:
            break
        scores = reader.after_each([path for _, path, _ in left])
        steps = []
        for (total, path, logprobs), logits in zip(left, scores, strict=True):
            allowed = list(paths.allowed(path))
            wanted = begun[len(path) : len(path) + 1] or allowed
            each = torch.log_softmax(logits[allowed], 0).tolist()
            steps += [
                (total + value, (*path, token), (*logprobs, value))
                for token, value in zip(allowed, each, strict=True)
                if token in wanted
            ]
        bar = max((total for total, _, _ in done), default=-torch.inf)
        left = sorted((s for s in steps if s[0] > bar), key=lambda s: -s[0])[:width]
    _, path, logprobs = max(done, key=lambda found: found[0])
    return Answer(path, logprobs, reader.forwards)


@dataclass(frozen=True, slots=True)
class Decision:
    """Token `at` of answer `row`, where `allowed` were; `logprobs` (len(allowed),) float32."""

    row: int
    at: int
    allowed: Path
    logprobs: Tensor


def decisions(
    model: Any,
    prompts: Sequence[Sequence[int]],
    answers: Sequence[Sequence[int]],
    trees: Sequence[Paths],
    temperature: float = 1.0,
) -> list[Decision]:
    """What many answers decide, in one forward pass; gradients flow.

    Args:
        model: a causal language model of transformers.
        prompts: ids of each prompt.
        answers: a path, or the beginning of one, for each prompt.
        trees: what is allowed.
        temperature: that the answers were drawn with.

    Raises:
        ValueError: an answer is not in its tree.
    """
    steps = [
        (row, at, allowed)
        for row, (answer, tree) in enumerate(zip(answers, trees, strict=True))
        for at, allowed in enumerate(tree.along(answer))
        if at < len(answer) and len(allowed) > 1
    ]
    places = [(row, len(prompts[row]) + at - 1) for row, at, _ in steps]
    logits = _logits(model, prompts, answers, places)
    return [
        Decision(row, at, allowed, torch.log_softmax(values[list(allowed)] / temperature, 0))
        for (row, at, allowed), values in zip(steps, logits, strict=True)
    ]


def score(
    model: Any,
    prompts: Sequence[Sequence[int]],
    answers: Sequence[Sequence[int]],
    trees: Sequence[Paths],
    temperature: float = 1.0,
) -> list[Tensor]:
    """Log-probs of the tokens of many answers; arguments and errors as in `decisions`.

    Returns:
        (len(answer),) float32 for each, 0 where a token is forced.
    """
    zero = torch.zeros((), device=model.device)
    found = [[zero] * len(answer) for answer in answers]
    for made in decisions(model, prompts, answers, trees, temperature):
        token = answers[made.row][made.at]
        found[made.row][made.at] = made.logprobs[made.allowed.index(token)]
    return [torch.stack(row) if row else zero[None][:0] for row in found]


def _logits(
    model: Any,
    prompts: Sequence[Sequence[int]],
    answers: Sequence[Sequence[int]],
    places: Sequence[tuple[int, int]],
) -> Tensor:
    """Logits after each of the places (row, token), (places, vocabulary) float32.

    Rows are padded on the right, where a causal network does not look.
    """
    whole = [[*prompt, *answer[:-1]] for prompt, answer in zip(prompts, answers, strict=True)]
    longest = max(map(len, whole))
    ids = torch.tensor([[*row, *[0] * (longest - len(row))] for row in whole], device=model.device)
    hidden = model.base_model(input_ids=ids, use_cache=False).last_hidden_state
    rows = torch.tensor([row for row, _ in places], dtype=torch.long, device=model.device)
    at = torch.tensor([place for _, place in places], dtype=torch.long, device=model.device)
    found: Tensor = model.get_output_embeddings()(hidden[rows, at]).float()
    return found


def _common(left: Path, right: Path) -> int:
    """How many tokens two runs begin alike with."""
    size = min(len(left), len(right))
    return next((n for n in range(size) if left[n] != right[n]), size)
