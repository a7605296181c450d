"""How fast a policy writes, beside plain `generate` of transformers on the same model.

    python -m bench.decode [--policy local] [--shape embedded] [--prompts N] [--tokens N]
                           [--batches 1,4,16] [--paths PATH …] [--set policy.model=FOLDER]

Questions are made from the headings of the documents (the product's own guide, or `--paths`), their
passages are searched for, and the prompts are the product's own, so a policy that quotes gets what
it needs as much as one that writes. Both run in one process, prompt by prompt, by turns.

--policy  any file of assistant/policy/: local, quote, extract, …
--shape   without policy.model: a checkpoint of random weights (tiny, embedded, qwen3-0.6b,
          qwen3-4b), for the policy and for `generate`; such a policy is kept from abstaining
--tokens  the most an answer takes

prefill_ms   plain `generate` of one token: the prompt read once (median)
ttft_*_ms    from the call to the first piece of text of the policy
total_*_ms   to the end of its answer
generate_*   the same end for `generate`, made to write exactly as many tokens as the answer has
             (those drawn, or the tokens of what was quoted)
ratio_to_generate  all time of `generate` over all time of the policy, answers of equal length;
             its interval is bootstrapped over prompts
tokens_per_s by batch: so many callers at once, each on a thread of its own, as a server has them,
             against `generate` with a batch of so many prompts; whole answers, prefill included
"""

from __future__ import annotations

import argparse
import itertools
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.progress import track
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.utils.logging import disable_progress_bar

from assistant.build import DOCS, build_policy, supporter_of
from assistant.config import Settings
from assistant.policy._checkpoint import find
from assistant.policy.base import Policy
from assistant.policy.local import encode
from assistant.prompt import mark_of, render
from assistant.schema import Prompt, Sampling
from bench import asking, shapes
from bench.ask import from_headings
from bench.common import report, scratch
from bench.measures import spread
from retrieval.knowledge import KnowledgeBase, open_knowledge
from retrieval.text import language


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer of a policy: tokens and seconds, to its first text and to its end."""

    tokens: int
    first: float
    total: float


@dataclass(slots=True)
class Times:
    """What was measured, seconds; one value a prompt, but `speed`: tokens a second by batch."""

    answers: list[Answer] = field(default_factory=list)
    prefill: list[float] = field(default_factory=list)
    generate: list[float] = field(default_factory=list)
    speed: dict[str, dict[str, float]] = field(default_factory=dict)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and report."""
    options = _options(arguments)
    quiet: Any = disable_progress_bar
    quiet()
    with scratch() as home:
        settings = asking.chosen(options, home)
        if not settings.policy.model:
            wanted = settings.policy
            made = shapes.make(options.shape, home / options.shape, wanted.device, wanted.dtype)
            options.set += [f"policy.model={made}"]
            options.set = ["policy.min_confidence=0", *options.set]
            settings = asking.chosen(options, home)
        knowledge = open_knowledge(home, settings.retrieval)
        for _ in knowledge.ingest(options.paths):
            pass
        policy = build_policy(settings, knowledge, supporter_of(settings))
        chosen = settings.policy
        plain = Plain(find(chosen.model), chosen.device, chosen.dtype)
        prompts = prepared(knowledge, policy, plain, settings, options.prompts)
        times = measured(policy, plain, prompts, options)
        policy.close()
        knowledge.close()
    _show(times, policy, settings, options)


class Plain:
    """A causal model with `generate`, greedy, as transformers has it."""

    def __init__(self, folder: Path, device: str, dtype: str) -> None:
        """Load `folder`; device and dtype as the policy's settings name them."""
        loading: Any = AutoModelForCausalLM.from_pretrained
        self.model = loading(folder, dtype=shapes.precision(dtype, device), local_files_only=True)
        self.model = self.model.to(device).eval()
        self.tokenizer: Any = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        self.context = int(self.model.config.max_position_embeddings)

    def run(self, prompts: Sequence[Prompt], tokens: int) -> float:
        """Write exactly so many tokens to each prompt, in one batch; returns the seconds."""
        began = time.perf_counter()
        ids = [encode(self.tokenizer, prompt.messages) for prompt in prompts]
        longest = max(map(len, ids))
        pad = self.tokenizer.pad_token_id or 0
        # padded on the left, so that all prompts end in the same column
        padded = torch.tensor([[pad] * (longest - len(row)) + row for row in ids])
        mask = torch.tensor([[0] * (longest - len(row)) + [1] * len(row) for row in ids])
        with torch.inference_mode():
            made = self.model.generate(
                input_ids=padded.to(self.model.device),
                attention_mask=mask.to(self.model.device),
                max_new_tokens=tokens,
                min_new_tokens=tokens,
                do_sample=False,
                pad_token_id=pad,
            )
        made.cpu()  # waits for the device
        return time.perf_counter() - began


def prepared(
    knowledge: KnowledgeBase, policy: Policy, plain: Plain, settings: Settings, number: int
) -> list[Prompt]:
    """Prompts on headings of the base, of a size that both can read, two at the least.

    Raises:
        SystemExit: the documents have fewer than two headings with passages.
    """
    chosen = settings.policy
    room = min(chosen.context_tokens, plain.context) - chosen.max_tokens
    made = []
    for question in from_headings(knowledge, number):
        passages = knowledge.search(question, chosen.passages)
        if passages:
            made.append(
                render(
                    question,
                    passages,
                    (),
                    language(question),
                    mark=mark_of(question),
                    budget=max(room - 64, 128),  # 64: what a chat template adds
                    count_tokens=policy.count_tokens,
                )
            )
    if len(made) < 2:
        raise SystemExit("fewer than two headings to ask about; give --paths with more documents")
    return made


def measured(
    policy: Policy, plain: Plain, prompts: Sequence[Prompt], options: argparse.Namespace
) -> Times:
    """Both by turns, after each ran once; then in batches."""
    sampling = Sampling(max_tokens=options.tokens)
    answered(policy, prompts[-1], sampling)
    plain.run(prompts[-1:], 2)
    times = Times()
    for prompt in track(prompts, "one by one", transient=True):
        answer = answered(policy, prompt, sampling)
        times.answers.append(answer)
        times.prefill.append(plain.run([prompt], 1))
        times.generate.append(plain.run([prompt], max(1, answer.tokens)))
    for size in track(options.batches, "batches", transient=True):
        batch = list(itertools.islice(itertools.cycle(prompts), size))
        began = time.perf_counter()
        with ThreadPoolExecutor(size) as pool:
            found = list(pool.map(lambda p: answered(policy, p, sampling), batch))
        spent = time.perf_counter() - began
        tokens = sum(answer.tokens for answer in found)
        length = max(1, round(tokens / size))
        times.speed[str(size)] = {
            "policy": round(tokens / spent, 1),
            "generate": round(length * size / plain.run(batch, length), 1),
        }
    return times


def answered(policy: Policy, prompt: Prompt, sampling: Sampling) -> Answer:
    """One answer. Its tokens are those drawn; of quotes, those of the quoted words."""
    began = time.perf_counter()
    first, drawn, quoted = 0.0, 0, ""
    for delta in policy.stream(prompt, sampling):
        if delta.text and not first:
            first = time.perf_counter() - began
        drawn += len(delta.token_ids)
        quoted += delta.text if delta.quote else ""
    total = time.perf_counter() - began
    return Answer(policy.count_tokens(quoted) if quoted else drawn, first or total, total)


def _show(times: Times, policy: Policy, settings: Settings, options: argparse.Namespace) -> None:
    """Print the table and the JSON line."""
    total = np.array([a.total for a in times.answers])
    plain = np.array(times.generate)
    low, high = spread(lambda at: float(plain[at].sum() / total[at].sum()), len(total), rounds=1000)
    ratio = float(plain.sum() / total.sum())
    values: dict[str, object] = {}
    rows = []
    measures = {
        "ttft": np.array([a.first for a in times.answers]),
        "total": total,
        "generate": plain,
    }
    for name, seconds in measures.items():
        p50, p95 = (float(np.percentile(seconds, p)) * 1000 for p in (50, 95))
        values |= {f"{name}_p50_ms": round(p50, 3), f"{name}_p95_ms": round(p95, 3)}
        rows.append((name, f"{p50:.0f} / {p95:.0f} ms", f"p50 / p95, n {len(seconds)}"))
    prefill = float(np.median(times.prefill)) * 1000
    tokens = float(np.mean([a.tokens for a in times.answers]))
    rows.append(("prefill", f"{prefill:.0f} ms", "p50, plain generate of one token"))
    rows.append(("tokens of an answer", f"{tokens:.1f}", "mean"))
    rows.append(("ratio to generate", f"{ratio:.2f}", f"95 %: {low:.2f} to {high:.2f}"))
    for size, speed in times.speed.items():
        speeds = f"{speed['policy']:.0f} against {speed['generate']:.0f} tokens/s"
        rows.append((f"batch {size}", speeds, "policy, plain generate"))
    named = options.shape if str(settings.policy.model).endswith(f"/{options.shape}") else ""
    values |= {
        "ratio_to_generate": round(ratio, 3),
        "ratio_low": round(low, 3),
        "ratio_high": round(high, 3),
        "prefill_ms": round(prefill, 1),
        "tokens": round(tokens, 1),
        "tokens_per_s": times.speed,
        "n": len(total),
        "policy": policy.card.name,
        "model": f"random weights, {named}" if named else settings.policy.model,
        "device": settings.policy.device,
        "dtype": settings.policy.dtype,
    }
    report(f"decoding, {options.policy}", rows, values)


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = asking.parser(__doc__)
    parser.set_defaults(policy="local")
    parser.add_argument("--shape", default="embedded", choices=tuple(shapes.SHAPES))
    parser.add_argument("--prompts", type=int, default=20)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--batches", default="1,4,16")
    parser.add_argument("--paths", nargs="+", type=Path, default=[DOCS])
    options = parser.parse_args(arguments)
    if options.prompts < 2 or options.tokens < 1:
        parser.error("--prompts must be 2 or more, --tokens 1 or more")
    options.prompts = min(options.prompts, options.limit) if options.limit else options.prompts
    options.batches = [int(size) for size in options.batches.split(",") if size]
    if any(size < 1 for size in options.batches):
        parser.error("--batches must be numbers of 1 or more, such as 1,4,16")
    options.set = [f"policy.max_tokens={options.tokens}", *options.set]
    return options


if __name__ == "__main__":
    main()
