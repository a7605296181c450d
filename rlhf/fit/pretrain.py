"""Pretrains the policy: `python app.py train pretrain --data FOLDER`; goes to OUT/policy.

The first of the policy's stages; those that follow have names of their own and write to the same
folder. Next-token prediction (Radford et al. 2018) over text in both languages, as many tokens of
each, whatever there is: the smaller part is read more often. 15 % of the tokens are of documents
that teach to point at sentences (`_lookup`); a policy that quotes has to do that and little else.

Documents are packed end to end, and a token attends to its own document only. Checkpoints and the
packed tokens are kept in .runs/policy; an interrupted run goes on, bit for bit on a CPU. A GPU is
used with `--set policy.device=cuda`. Matrix products are in bfloat16 where the processor has tiles
for it, or on a GPU; weights, moments and the loss are in float32.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM

from assistant.config import Settings
from assistant.policy._signs import LABELS, LANGUAGES, NAMES, sign
from retrieval.fit._checkpoint import named
from retrieval.fit._loop import Loop
from retrieval.fit._student import precision
from rlhf.fit._network import configuration, export, logits, loss, losses, network, parts
from rlhf.fit._pack import Tokens, lengths, mapped, pack, positions, rows
from rlhf.fit.tokenizer import load, revision

WORK = Path(".runs") / "policy"
#: Windows of held-out text a language that are looked at.
HELD_WINDOWS = 16


@dataclass(frozen=True, slots=True)
class Plan:
    """How long and how fast. Defaults are what the shipped weights were made with.

    A step reads `windows` of `context` tokens, `at_once` of them together.
    """

    steps: int = 1200
    windows: int = 16
    at_once: int = 4
    context: int = 1024
    rate: float = 3e-3
    decay: float = 0.1
    warmup: int = 60
    seed: int = 7
    save_every: int = 40
    check_every: int = 200


def run(data: Path, out: Path, limit: int | None, settings: Settings) -> Iterator[str]:
    """Pretrain, and write weights, configuration and card beside the tokenizer.

    Args:
        data: folder that holds text/, qa/, sft/.
        out: the weights lie in the folder `policy` beside it, where the tokenizer is.
        limit: steps, where not the plan's.
        settings: name the device.

    Raises:
        TrainingError: there is no tokenizer, or a training file is missing or malformed.
    """
    folder = out.with_name("policy")
    made = load(folder)
    plan = Plan()
    if limit is not None:
        plan = dataclasses.replace(plan, steps=limit, warmup=max(1, min(plan.warmup, limit // 10)))
    yield from pack(data, WORK, made, revision(folder), plan.seed)
    config = configuration(made, context=plan.context)
    trainer = Trainer(WORK, made, config, plan, settings.policy.device, revision(folder))
    size = sum(p.numel() for p in trainer.model.parameters())
    yield f"{size} parameters, {plan.windows * plan.context} tokens a step, {trainer.path.name}"
    yield from trainer.run()
    export(trainer.model, folder)
    report = trainer.check()
    (folder / "card.md").write_text(_card(folder, plan, size, report), encoding="utf-8")
    yield f"written to {folder}"


class Trainer:
    """One run: the network and where it stands.

    Args:
        folder: of the packed tokens and the checkpoint.
        made: the tokenizer.
        config: of the network.
        plan: the run's length.
        device: a torch device.
        revision: of the tokenizer; a checkpoint is of one plan, network and tokenizer.
    """

    def __init__(
        self,
        folder: Path,
        made: Tokenizer,
        config: LlamaConfig,
        plan: Plan,
        device: str,
        revision: str = "",
    ) -> None:
        self._plan, self._device, self._dtype = plan, device, precision(device)
        self._files = [mapped(folder / f"{lang}.bin") for lang in LANGUAGES]
        self._held = {lang: mapped(folder / f"held-{lang}.bin") for lang in LANGUAGES}
        self._asked = {lang: mapped(folder / f"lookup-{lang}.bin") for lang in LANGUAGES}
        self._bytes = torch.from_numpy(lengths(made)).to(device)
        self._ids = {name: sign(made, name) for name in NAMES}
        self.model: LlamaForCausalLM = network(config, plan.seed, device)
        about = [dataclasses.asdict(plan), config.to_dict(), revision]
        #: The checkpoint.
        self.path = named(folder, "pretrain", about)
        self.loop = Loop(self.model, parts(self.model, plan.rate, plan.decay), plan, self.path)

    def run(self) -> Iterator[str]:
        """Train to the end; yields lines to show."""
        yield from self.loop.run(self._loss, self.check)

    def check(self) -> str:
        """Bits a byte of held-out text, and how often the right sentence is pointed at."""
        found = []
        with torch.inference_mode():
            for lang in LANGUAGES:
                found.append(f"{lang} {self.bits(self._held[lang]):.3f} bits a byte")
                right, told = self.pointed(self._asked[lang])
                found.append(f"{lang} sentence found {right:.3f}, absence told {told:.3f}")
        return "held out: " + ", ".join(found)

    def bits(self, tokens: Tokens) -> float:
        """Bits a byte over the first windows; special tokens are left out."""
        size, context = 0, self._plan.context
        total = 0.0
        for at in range(0, min(len(tokens) - 1, HELD_WINDOWS * context), context):
            ids = self._tensor(np.asarray(tokens[at : at + context + 1], dtype=np.int64)[None])
            each = self._bytes[ids[:, 1:]]
            total += float((self._losses(ids) * (each > 0)).sum())
            size += int(each.sum())
        return total / math.log(2) / max(1, size)

    def pointed(self, tokens: Tokens) -> tuple[float, float]:
        """Over lookup documents that fit the context.

        Returns:
            How often the right label is the likeliest of all labels, and the mean of how often
            absent sentences are told from present ones and these from those.
        """
        begin, first = self._ids["bos"], self._ids["s1"]
        starts = [*np.flatnonzero(np.asarray(tokens) == begin), len(tokens)]
        right: list[bool] = []
        told: dict[bool, list[bool]] = {True: [], False: []}
        for a, b in pairwise(starts):
            if b - a > self._plan.context:
                continue
            ids = self._tensor(np.asarray(tokens[a:b], dtype=np.int64)[None])
            scores = logits(self.model, ids, self._places(ids), self._dtype)[0].float()
            labels = scores[:, first : first + LABELS].argmax(1) + first
            cite, abstain = self._ids["cite"], self._ids["abstain"]
            there = (scores[:, cite] > scores[:, abstain]).tolist()
            said = ids[0].tolist()
            for at, token in enumerate(said[:-1]):
                if token == cite:
                    right.append(int(labels[at]) == said[at + 1])
                if token == self._ids["assistant"]:
                    told[said[at + 1] == cite].append(there[at] == (said[at + 1] == cite))
        rates = [float(np.mean(part)) for part in told.values() if part]
        return float(np.mean(right)) if right else math.nan, float(np.mean(rates or [math.nan]))

    def _loss(self, step: int) -> Iterator[Tensor]:
        """Parts of the step's loss."""
        plan = self._plan
        ids = rows(self._files, plan.context, plan.windows, plan.seed, step)
        for at in range(0, len(ids), plan.at_once):
            part = self._tensor(ids[at : at + plan.at_once])
            places = self._places(part[:, :-1])
            yield loss(self.model, part, places, self._dtype) / (len(ids) * plan.context)

    def _losses(self, ids: Tensor) -> Tensor:
        return losses(self.model, ids, self._places(ids[:, :-1]), self._dtype)

    def _places(self, ids: Tensor) -> Tensor:
        return self._tensor(positions(ids.cpu().numpy(), self._ids["bos"]))

    def _tensor(self, values: np.ndarray[tuple[int, ...], np.dtype[np.int64]]) -> Tensor:
        return torch.from_numpy(values).to(self._device)


def _card(folder: Path, plan: Plan, size: int, report: str) -> str:
    digest = hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
    packed = json.loads((WORK / "packed.json").read_text(encoding="utf-8"))["counts"]
    return "\n".join(
        (
            "# policy: a bilingual GPT that points at sentences",
            "",
            f"SHA-256 of model.safetensors: {digest}; tokenizer.json: {revision(folder)}. Made by "
            "`python app.py train tokenizer --data FOLDER` and `python app.py train pretrain "
            f"--data FOLDER`: {plan}. Stages so far: pretraining.",
            "",
            f"LlamaForCausalLM, {size} parameters, float16. "
            f"{plan.steps * plan.windows * plan.context} tokens were seen, half of each language, "
            "of: " + ", ".join(f"{name} {count}" for name, count in packed.items()) + ".",
            "",
            f"At the end, {report}.",
            "",
            *_DATA,
            "",
            "From text alone a model of this size writes nothing that can be trusted: it is for "
            "choosing among sentences that it is given.",
            "",
            "Licence of the weights: Apache-2.0, as the project.",
            "",
        )
    )


_DATA: Sequence[str] = (
    "Data: OpenStax (CC BY 4.0), Standard Ebooks, US speeches (public domain), 18F (CC0), Python "
    "documentation (PSF; translations CC0), d2l (CC BY-SA 4.0, Apache-2.0), React, etcd, CNCF "
    "glossary (CC BY 4.0), Rust book, Electron, FastAPI (MIT, Apache-2.0), Milvus, Helm, Hugging "
    "Face course, DolphinScheduler, Paddle, SOFAStack (Apache-2.0), LCTT (CC BY-SA 4.0), PRC laws "
    "(no copyright); passages of SQuAD, CMRC 2018 (CC BY-SA 4.0), DRCD (CC BY-SA 3.0), SQuADShifts "
    "(CC BY 4.0), PubMedQA (MIT), COVID-QA (CC BY); conversations of CrossWOZ, KdConv, LFRQA, "
    "self-instruct, OASST1 (Apache-2.0), Topical-Chat (CDLA-Sharing-1.0), SGD (CC BY-SA 4.0), "
    "GSM8K (MIT), ChatterBot (BSD-3-Clause); training rows only, without what benchmarks report "
    "on. English words of some queries were exchanged by a glossary that a language model wrote.",
)
