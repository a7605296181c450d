"""Trains the reward model: `python app.py train reward --data FOLDER`; goes to models/reward.

A head on the encoder's extended network, a score and what length adds to it, with a low-rank change
of its own (LoRA, Hu et al. 2021). One epoch over rankings (`_reward_rows`, with the chat's own log
in the home at hand) by the K-wise ranking loss: all comparisons of a prompt in one step, with a
weight that does not depend on how many they are. The head begins at N(0, 1 / sqrt(width + 1)),
without a bias; the rate falls to nearly nothing over the epoch. After it the scores are brought to
mean 0 and standard deviation 1 on replies to the questions of the product, and others show whether
that holds (Ziegler et al. 2019). The same scale before the training is told on the card and changes
nothing: comparisons begin near even odds, which a head scaled up sixfold would not.

Checkpoints are kept in .runs/reward; an interrupted run goes on.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import random
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from assistant.config import Settings
from retrieval.embed import _weights
from retrieval.embed.heads import HEAD, MAX_TOKENS
from retrieval.fit._checkpoint import named
from retrieval.fit._loop import Loop
from retrieval.fit._student import Scorer, precision, stored, write
from rlhf.errors import TrainingError
from rlhf.fit import _reward_card as card
from rlhf.fit._reward_log import logged, moderated
from rlhf.fit._reward_quotes import quoted
from rlhf.fit._reward_rows import Gathered, Ranking, barred, gathered, people
from rlhf.objectives import ranking_loss, shared
from rlhf.scoring import (
    SCALE,
    WEIGHTS,
    Array,
    Pair,
    RewardModel,
    Scale,
    fitted,
    joined,
    render,
    size,
    unscaled,
)

WORK = Path(".runs") / "reward"
#: Below so many comparisons reward models of any size are near chance (Gao et al. 2022).
ENOUGH = 2000
#: What a prompt of a source weighs. What people chose weighs more than what was made; where a
#: prompt has many comparisons, each says more than its part of 1.
SHARES: Mapping[str, float] = {
    "log": 2.0, "hh_harmless_base": 1.0, "oasst_zh": 1.5, "pandalm": 3.0, "jade-pairs": 0.7,
    "quoted": 0.5,
}  # fmt: skip
Ids = tuple[tuple[int, ...], ...]


class Network(Protocol):
    """What is trained: columns (n, 1 or 2) of token ids, in `parts` forwards."""

    def __call__(self, ids: Sequence[Sequence[int]], device: str, parts: int) -> Tensor:
        """Logits of texts, in their order."""
        ...


@dataclass(frozen=True, slots=True)
class Plan:
    """How long and how fast. A step ranks the replies of `prompts`, `at_once` prompts together.

    `steps` 0 is one epoch, and there are never more; `reference` replies set the scale, and as
    many others check it.
    """

    steps: int = 0
    prompts: int = 16
    at_once: int = 8
    rank: int = 32
    rate: float = 4e-4
    head_rate: float = 1e-3
    warmup: int = 40
    seed: int = 7
    save_every: int = 25
    check_every: int = 200
    reference: int = 1000

    def over(self, prompts: int) -> Plan:
        """The plan for so many prompts: one epoch, or less of it."""
        epoch = -(-prompts // self.prompts)
        steps = min(self.steps or epoch, epoch)
        return dataclasses.replace(self, steps=steps, warmup=min(self.warmup, max(1, steps // 5)))


def run(data: Path, out: Path, limit: int | None, settings: Settings) -> Iterator[str]:
    """Train, and write weights, scale and card to `out`; yields lines to show.

    Args:
        data: folder that holds preference/, safety/ and qa/.
        out: folder of the weights.
        limit: steps, where not the whole epoch.
        settings: name the home whose log is learnt from, and the device.

    Raises:
        TrainingError: there is nothing to learn from, a training file is missing or malformed, or
            there is no Chinese extension.
    """
    extension = _weights.extension()
    if extension is None:
        raise TrainingError("no models/encoder to build on; run `train encoder` first")
    own = logged(settings.home, settings.preferences, lambda: moderated(settings))
    rows = gathered(chain(people(data), quoted(data), own), barred(data))
    yield from told(rows)
    plan = Plan(steps=limit or 0).over(len(rows.kept))
    device = settings.retrieval.embed.device
    scorer = Scorer(extension, 2, plan.rank, plan.seed, device, precision(device))
    begun(scorer.head, plan.seed)
    with torch.no_grad():
        scorer.head[:, 1:] = 0  # length adds nothing at first
    tokenizer = Reader(extension)
    trainer = Trainer(scorer, scorer, rows, tokenizer, plan, device, WORK)
    samples = drawn(rows.kept, 2 * plan.reference, plan.seed)
    before = fitted(trainer.logits(samples[:256]))
    yield f"{plan.steps} steps, {trainer.path.name}; before, {before}"
    yield from trainer.run()
    out.mkdir(parents=True, exist_ok=True)
    changes = stored(scorer.change)
    changes[HEAD] = scorer.head.detach().cpu().numpy().astype(np.float16)
    write(changes, out / WEIGHTS, {"encoder": extension.revision})
    yield "bringing the scores to mean 0 and deviation 1"
    model, digest = scaled(out, samples[::2], device)
    fresh = model(samples[1::2])
    found, plain = judged(rows.held, model.logits), card.judged(rows.held, card.longer)
    _said(out, {"held": card.overall(found, plain)})
    lines = [*card.table(found, plain), "", _checked(fresh, samples[1::2])]
    (out / "card.md").write_text(_card(digest, plan, rows, before, lines), encoding="utf-8")
    yield from lines
    yield f"written to {out}"


def scaled(out: Path, samples: Sequence[Pair], device: str = "cpu") -> tuple[RewardModel, str]:
    """Write the scale beside the weights in `out`; the model on it, and the weights' SHA-256."""
    logits = unscaled(out / WEIGHTS, device=device)
    model = RewardModel(logits, Scale()).normalised(samples)
    digest = hashlib.sha256((out / WEIGHTS).read_bytes()).hexdigest()
    (out / SCALE).unlink(missing_ok=True)  # what it says is of the weights before
    _said(out, {"gain": model.scale.gain, "bias": model.scale.bias, "sha256": digest})
    return model, digest


def _said(out: Path, values: Mapping[str, Any]) -> None:
    """Add values to the file of the scale, from which the Train page reads those held out."""
    path = out / SCALE
    before = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    path.write_text(json.dumps({**before, **values}, indent=1) + "\n", encoding="utf-8")


def told(rows: Gathered) -> Iterator[str]:
    """What there is to learn from; says so where it is little.

    Raises:
        TrainingError: it is nothing.
    """
    kept, held = rows.kept, rows.held
    count = sum(len(row.pairs) for row in kept)
    if not count:
        left = ", ".join(f"{name} {n}" for name, n in rows.left_out.items()) or "there were none"
        raise TrainingError(f"no comparison to learn from ({left}); collect some first")
    yield f"{count} comparisons of {len(kept)} prompts to train on, {len(held)} prompts held out"
    if rows.left_out:
        yield "left out: " + ", ".join(f"{name} {n}" for name, n in rows.left_out.most_common())
    if count < ENOUGH:
        yield (
            f"only {count} comparisons: below about {ENOUGH:,} a reward model is near chance; "
            f"{ENOUGH - count:,} more are needed before its scores mean much"
        )
    for lang in ("en", "zh"):
        if not any(row.lang == lang for row in kept):
            yield f"none of the comparisons is in {lang}: its scores there mean little"
    if rows.users == 1:
        yield "all comparisons of the log are of one user: nothing shows that others agree"


def begun(head: nn.Parameter, seed: int) -> None:
    """Draw the head (width, n) anew from N(0, 1 / sqrt(width + 1)); it has no bias."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        start = torch.randn(head.shape, generator=generator) / (head.shape[0] + 1) ** 0.5
        head.copy_(start)


class Reader:
    """Token ids of rendered pairs, as the scorer at work reads them (`retrieval.embed.heads`)."""

    def __init__(self, extension: _weights.Extension) -> None:
        self._tokenizer = _weights.tokenizer(extension.spellings)
        self._tokenizer.enable_truncation(MAX_TOKENS)

    def __call__(self, pair: Pair) -> tuple[int, ...]:
        """Ids of one (question, reply)."""
        return tuple(self._tokenizer.encode(render(*pair)).ids)


class Tokens(Protocol):
    """Token ids of a pair of question and reply."""

    def __call__(self, pair: Pair) -> tuple[int, ...]:
        """Ids of one (question, reply)."""
        ...


class Trainer:
    """One run: the network and where it stands.

    Args:
        network: what is trained; all its parameters are.
        scorer: the same network, as it is called.
        rows: rankings.
        read: makes token ids of a pair.
        plan: the run's length, of this many prompts (`Plan.over`).
        device: a torch device.
        folder: of checkpoints.
    """

    def __init__(
        self,
        network: nn.Module,
        scorer: Network,
        rows: Gathered,
        read: Tokens,
        plan: Plan,
        device: str,
        folder: Path,
    ) -> None:
        self._plan, self._device, self._scorer, self._read = plan, device, scorer, read
        kept = rows.kept
        order = np.random.default_rng(plan.seed).permutation(len(kept))
        self._rows = [kept[i] for i in order[: plan.steps * plan.prompts]]
        self._held = rows.held
        heads = [p for name, p in network.named_parameters() if name == HEAD]
        change = [p for name, p in network.named_parameters() if name != HEAD]
        parts = [(heads, plan.head_rate, 0.0), (change, plan.rate, 0.01)]
        learnt = [(r.question, r.replies, r.pairs) for r in self._rows]
        about = [dataclasses.asdict(plan), learnt, [list(head.shape) for head in heads]]
        #: The checkpoint.
        self.path = named(folder, "reward", about)
        self.loop = Loop(network, [part for part in parts if part[0]], plan, self.path)

    def run(self) -> Iterator[str]:
        """Train to the end; yields lines to show."""
        yield from self.loop.run(self._loss, self.check)

    def check(self) -> str:
        """Accuracy on up to 400 held-out prompts, by source."""
        drawn = np.random.default_rng(1).permutation(len(self._held))[:400]
        part = [self._held[i] for i in drawn]
        found = judged(part, self.logits)
        sources = sorted({row.source for row in found})
        each = (f"{s} {card.accuracy([r for r in found if r.source == s]):.3f}" for s in sources)
        return "held out: " + (", ".join(each) or "nothing")

    def logits(self, pairs: Sequence[Pair]) -> Array:
        """(n,) float32, of pairs that are not learnt from."""
        with torch.inference_mode():
            parts = [
                self._logits([self._read(pair) for pair in part], [r for _, r in part], 4)
                for part in (pairs[at : at + 128] for at in range(0, len(pairs), 128))
            ]
        found = torch.cat([torch.zeros(0), *(part.float().cpu() for part in parts)])
        return found.numpy()

    def _logits(self, ids: Sequence[Sequence[int]], replies: Sequence[str], parts: int) -> Tensor:
        columns = self._scorer(ids, self._device, parts)
        sizes = torch.tensor([size(reply) for reply in replies], device=columns.device)
        found: Tensor = joined(columns, sizes)
        return found

    def _loss(self, step: int) -> Iterator[Tensor]:
        """Parts of the step's loss, the mean over its prompts; like lengths go together."""
        plan = self._plan
        rows = self._rows[step * plan.prompts : (step + 1) * plan.prompts]
        texts = [[self._read((row.question, reply)) for reply in row.replies] for row in rows]
        order = sorted(range(len(rows)), key=lambda n: max(map(len, texts[n])))
        for at in range(0, len(order), plan.at_once):
            ids: list[tuple[int, ...]] = []
            replies: list[str] = []
            pairs: list[tuple[int, int, float]] = []
            for n in order[at : at + plan.at_once]:
                weight = SHARES.get(rows[n].source, 1.0)
                pairs += shared(rows[n].pairs, weight, len(ids))
                ids += texts[n]
                replies += rows[n].replies
            yield ranking_loss(self._logits(ids, replies, 1), pairs) / len(rows)


def drawn(rows: Sequence[Ranking], count: int, seed: int) -> list[Pair]:
    """Replies such as a quoting policy gives, one a question: of the quotes and the log, else all.

    The reference that sets the scale; a policy's own samples do better (`RewardModel.normalised`).
    """
    own = [row for row in rows if row.source in ("quoted", "log")] or list(rows)
    dice = random.Random(seed)
    chosen = dice.sample(own, min(count, len(own)))
    return [(row.question, dice.choice(row.replies)) for row in chosen]


def judged(rows: Sequence[Ranking], logits: Callable[[Sequence[Pair]], Array]) -> list[card.Judged]:
    """What these logits make of rankings."""
    found = iter(logits([(row.question, reply) for row in rows for reply in row.replies]).tolist())
    return card.judged(rows, lambda row: list(islice(found, len(row.replies))))


def _checked(scores: Array, samples: Sequence[Pair]) -> str:
    return (
        f"On {len(samples)} other replies than those that set the scale: mean {scores.mean():.3f}, "
        f"standard deviation {scores.std():.3f}."
    )


def _card(digest: str, plan: Plan, rows: Gathered, before: Scale, lines: Sequence[str]) -> str:
    kept = rows.kept
    prompts = Counter((row.source, row.lang) for row in kept)
    pairs: Counter[tuple[str, str]] = Counter()
    for row in kept:
        pairs[row.source, row.lang] += len(row.pairs)
    counts = (
        f"| {source} | {lang} | {n} | {pairs[source, lang]} | {SHARES.get(source, 1.0)} |"
        for (source, lang), n in prompts.most_common()
    )
    left = ", ".join(f"{name} {n}" for name, n in rows.left_out.most_common()) or "none"
    return "\n".join(
        (
            "# reward: what people prefer, as a score of a reply to a question",
            "",
            f"SHA-256 of {WEIGHTS}: {digest}. Made by `python app.py train reward --data FOLDER`: "
            f"{plan}. Before the training, {before}.",
            "",
            "| set | language | prompts | comparisons | weight of a prompt |",
            "| --- | --- | --- | --- | --- |",
            *counts,
            "",
            f"Comparisons left out: {left}. Held out are whole conversations, articles and users. "
            + ("" if sum(pairs.values()) >= ENOUGH else f"Fewer than {ENOUGH}: near chance. "),
            "",
            "On what was held out (intervals over prompts; equal scores count half):",
            "",
            *lines,
            "",
            "Data: HH-RLHF harmless-base (MIT), PandaLM (Apache-2.0), OpenAssistant OASST1 in "
            "Chinese (Apache-2.0), JADE pairs (MIT), and quotes of SQuAD 2.0 dev (CC BY-SA 4.0), "
            "NQ-open with gold passages (MIT; Wikipedia CC BY-SA), SQuADShifts (CC BY 4.0), CMRC "
            "2018 (CC BY-SA 4.0), DRCD test (CC BY-SA 3.0): training rows only.",
            "",
            "Licence of the weights: Apache-2.0, as the project and the English encoder.",
            "",
        )
    )
