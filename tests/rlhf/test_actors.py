from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from torch import Tensor, nn
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    LlamaForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from assistant.policy._decode import Reader, score
from assistant.policy._quoting import Layout, Line
from assistant.policy._trie import Paths
from rlhf._actor_network import Ids, Network, without_dropout
from rlhf.actor_causal import CausalActor, Prompted
from rlhf.actor_quote import QuoteActor
from rlhf.errors import TrainingError
from rlhf.schema import Rollout
from tests.assistant.quoters import network, tokenizer
from tests.rlhf.toys import tiny

STOP = 0


@dataclass(frozen=True)
class Asked:
    """A prompt that is laid out."""

    ids: Ids
    paths: Paths


def asked(number: int, spoken: bool = False) -> Asked:
    """A question with two to five sentences of evidence."""
    layout = Layout(tokenizer(), spoken=spoken)
    size = 2 + number % 4
    texts = [f"Pump {n} of hall {number} runs{' and runs' * (n % 3)}." for n in range(size)]
    lines = [Line(0, "Pumps", text, 1.0, 0.1) for text in texts]
    labels = range(1, size + 1)
    ids = layout.prompt(f"How long does {number} run? " * (1 + number % 3), lines, 0.5, labels)
    return Asked(tuple(ids), layout.paths(texts, labels))


def prompted(count: int = 10) -> list[Prompted]:
    """Prompts of several lengths, some with the stop token inside."""
    return [Prompted((STOP, *range(1, 2 + n % 5)), frozenset({STOP}), 12) for n in range(count)]


def dice(seed: int = 1) -> torch.Generator:
    """A source of chance."""
    return torch.Generator().manual_seed(seed)


def apart(one: Tensor, rollouts: Sequence[Rollout]) -> float:
    """Largest distance of log-probs from those of the sampler."""
    return max(
        abs(float(one.detach()[n, at]) - logprob)
        for n, rollout in enumerate(rollouts)
        for at, logprob in enumerate(rollout.logprobs)
    )


def moved(actor: CausalActor | QuoteActor, size: float = 0.2) -> None:
    """Make the policy another one than its reference."""
    with torch.no_grad():
        for number, parameter in enumerate(actor.policy.values()):
            parameter.add_(size * torch.randn(parameter.shape, generator=dice(number)))


@pytest.mark.parametrize("spoken", [False, True])
def test_what_quotes_is_scored_as_it_serves(spoken: bool) -> None:
    """Batched sampler, training forward and the serving code give the same log-probs."""
    actor, tasks = QuoteActor(network(), at_once=5), [asked(n, spoken) for n in range(12)]
    rollouts = actor.draw(tasks, 0.7, dice())
    look = actor.look(rollouts, 0.7, entropy=True)
    prompts, answers = [r.prompt for r in rollouts], [r.completion for r in rollouts]
    want = score(actor.model, prompts, answers, [t.paths for t in tasks], 0.7)
    for row, values in enumerate(want):
        torch.testing.assert_close(look.logprobs[row, : len(values)], values, atol=1e-5, rtol=0)
    assert apart(look.logprobs, rollouts) < 1e-5
    for task, rollout in zip(tasks, rollouts, strict=True):
        steps = list(task.paths.along(rollout.completion))
        assert steps[-1] == ()
        assert rollout.allowed == tuple(steps[:-1])
        assert rollout.actions == tuple(len(step) > 1 for step in steps[:-1])
        assert rollout.finish == "stop"
    assert look.entropies is not None
    assert (look.entropies > 0).sum() == sum(sum(r.actions) for r in rollouts)
    forced = torch.tensor([[*r.actions, *[False] * 200][: look.values.shape[1]] for r in rollouts])
    assert not look.logprobs[~forced].any()


def test_answers_do_not_depend_on_what_is_drawn_beside_them() -> None:
    """One by one or all at once, the same dice give the same answers."""
    tasks = [asked(n) for n in range(9)]
    found = [QuoteActor(network(), at_once=n).draw(tasks, 1.0, dice()) for n in (1, 9)]
    assert len({tuple(r.completion for r in rollouts) for rollouts in found}) == 1
    other = QuoteActor(network()).draw(tasks, 1.0, dice(2))
    assert [r.completion for r in other] != [r.completion for r in found[0]]


def test_draws_follow_the_distribution() -> None:
    """Shares of first tokens are within three standard errors of their probabilities."""
    actor = CausalActor(tiny(), rank=2, at_once=512)
    tasks = [Prompted((1, 2), frozenset({STOP}), 1)] * 4096
    rollouts = actor.draw(tasks, 1.0, dice())
    with torch.no_grad():
        chances = actor.model(input_ids=torch.tensor([[1, 2]])).logits[0, -1].softmax(0)
    drawn = torch.tensor([r.completion[0] for r in rollouts]).bincount(minlength=8) / 4096
    error = (chances * (1 - chances) / 4096).sqrt()
    assert ((drawn - chances).abs() < 3.5 * error).all()
    ended = torch.tensor([r.completion[0] == STOP for r in rollouts])
    assert [r.finish == "stop" for r in rollouts] == ended.tolist()


def test_d2_a_stop_inside_the_prompt_ends_nothing() -> None:
    """An answer ends at its own stop, in the last place too, and is cut off at its longest."""
    rollouts = CausalActor(tiny(), rank=2).draw(prompted(40), 1.0, dice())
    for rollout in rollouts:
        assert STOP in rollout.prompt
        assert STOP not in rollout.completion[:-1]
        assert (rollout.finish == "stop") == (rollout.completion[-1] == STOP)
        assert len(rollout.completion) == 12 or rollout.finish == "stop"
    assert {r.finish for r in rollouts} == {"stop", "length"}


def test_d11_forced_tokens_and_evidence_are_no_actions() -> None:
    """What a search brings is read by the policy, and no log-prob of it counts."""
    actor = CausalActor(tiny(), rank=2)
    search, found = 5, (6, 7, 6)

    @dataclass(frozen=True)
    class Search(Prompted):
        """May search first; what is found is put in."""

        def allowed(self, path: Sequence[int]) -> Ids | None:
            """Tokens of the evidence one by one after a search, anything else elsewhere."""
            if path and path[0] == search and len(path) <= len(found):
                return (found[len(path) - 1],)
            return (1, search) if not path else super().allowed(path)

    tasks = [Search((1, n % 8), frozenset({STOP}), 9) for n in range(16)]
    rollouts = actor.draw(tasks, 1.0, dice())
    assert {r.completion[0] for r in rollouts} == {1, search}
    for rollout in rollouts:
        searched = rollout.completion[0] == search
        assert rollout.actions[:4] == (True, *[not searched] * 3)[: len(rollout.actions)]
        if searched:
            assert rollout.completion[1:4] == found
    look = actor.look(rollouts, 1.0)
    assert apart(look.logprobs, rollouts) < 1e-5
    look.logprobs.sum().backward()  # type: ignore[no-untyped-call]


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_d16_d18_a_fresh_policy_is_its_reference(temperature: float) -> None:
    """KL is 0 before the first step, at any temperature; after one it is not."""
    for actor, rollouts in (
        (q := QuoteActor(network()), q.draw([asked(n) for n in range(6)], temperature, dice())),
        (c := CausalActor(tiny(), rank=2), c.draw(prompted(), temperature, dice())),
    ):
        with torch.no_grad():
            kl = actor.look(rollouts, temperature).logprobs - actor.reference(rollouts, temperature)
            assert float(kl.abs().max()) < 1e-5
            assert apart(actor.look(rollouts, temperature).logprobs, rollouts) < 1e-5
            moved(actor)
            after = actor.look(rollouts, temperature).logprobs
            assert float((after - actor.reference(rollouts, temperature)).abs().max()) > 1e-3


def gpt2() -> GPT2LMHeadModel:
    """A network with learnt positions, for which padding on the left would move everything."""
    torch.manual_seed(5)
    config = GPT2Config(
        vocab_size=8, n_positions=128, n_embd=16, n_layer=2, n_head=2, initializer_range=0.3
    )
    return GPT2LMHeadModel(config)


@pytest.mark.parametrize("make", [tiny, gpt2])
def test_d20_padding_changes_no_log_prob(make: Callable[[], Any]) -> None:
    """Neither where answers are looked at nor where they are drawn, by rows up to 32 longer."""
    actor = CausalActor(make(), rank=2)
    short = Prompted((1, 2, 3), frozenset({STOP}), 8)
    for extra in (0, 1, 7, 32):
        long = Prompted((1,) * (3 + extra), frozenset({STOP}), 8)
        one, two = actor.draw([short, long], 1.0, dice())
        alone = actor.look([one], 1.0).logprobs
        beside = actor.look([one, two], 1.0).logprobs
        size = alone.shape[1]
        torch.testing.assert_close(alone[0], beside[0, :size], atol=1e-5, rtol=0)
        assert apart(beside, [one, two]) < 1e-5


def test_d21_no_pad_token_reaches_the_embedding(tmp_path: Path) -> None:
    """What pads is token 0 and not looked at; the vocabulary stays as it was."""
    model = tiny()
    actor = CausalActor(model, rank=2)
    seen: list[int] = []
    model.get_input_embeddings().register_forward_hook(
        lambda module, given, out: seen.append(int(given[0].max()))
    )
    tasks = [Prompted((1,) * (1 + n), frozenset({7}), 4) for n in range(4)]
    actor.look(actor.draw(tasks, 1.0, dice()), 1.0)
    assert seen
    assert max(seen) < 8
    actor.save(tmp_path)
    with safe_open(tmp_path / "adapter_model.safetensors", "pt") as file:
        assert all("lora" in name for name in file.keys())  # noqa: SIM118
    full = QuoteActor(network())
    full.save(tmp_path / "full")
    again = LlamaForCausalLM.from_pretrained(tmp_path / "full")
    assert again.config.vocab_size == full.model.config.vocab_size


def test_d22_dropout_is_off_even_in_training_mode() -> None:
    """Two forwards of a network made with dropout are the same."""
    config = GPT2Config(
        vocab_size=8, n_positions=32, n_embd=16, n_layer=2, n_head=2,
        resid_pdrop=0.5, embd_pdrop=0.5, attn_pdrop=0.5,
    )  # fmt: skip
    model = GPT2LMHeadModel(config).train()
    ids = torch.arange(8)[None]
    before = model(input_ids=ids).logits
    assert not torch.equal(before, model(input_ids=ids).logits)
    actor = CausalActor(model, rank=2)
    actor.model.train()
    rollouts = actor.draw(prompted(), 1.0, dice())
    one, two = (actor.look(rollouts, 1.0).logprobs for _ in "ab")
    assert torch.equal(one, two)
    llama = tiny()
    llama.model.layers[0].self_attn.attention_dropout = 0.5
    without_dropout(llama)
    assert llama.model.layers[0].self_attn.attention_dropout == 0


def test_d24_log_probs_are_float32_in_half_precision_too() -> None:
    """A network in bfloat16 is within 0.01 of its float32 self, on average."""
    actor = Network(network(), at_once=8)
    half = Network(copy.deepcopy(actor.model).to(torch.bfloat16), at_once=8)
    mixed = Network(actor.model, 8, torch.bfloat16)
    rollouts = QuoteActor(actor.model).draw([asked(n) for n in range(12)], 1.0, dice())
    with torch.no_grad():
        exact = actor.look(rollouts, 1.0)
        for other in (half, mixed):
            found = other.look(rollouts, 1.0)
            assert found.logprobs.dtype == found.values.dtype == torch.float32
            actions = sum(sum(r.actions) for r in rollouts)
            assert float((found.logprobs - exact.logprobs).abs().sum()) / actions < 1e-2


def test_d26_the_reference_is_the_base_and_the_adapter_comes_back() -> None:
    """Bit for bit the network that was wrapped; on again after an error."""
    base = tiny()
    plain = copy.deepcopy(base)
    actor = CausalActor(base, rank=2)
    rollouts = actor.draw(prompted(), 1.0, dice())
    want = Network(plain, 8).look(rollouts, 1.0).logprobs
    moved(actor)
    policy = actor.look(rollouts, 1.0).logprobs
    assert torch.equal(actor.reference(rollouts, 1.0), want)
    assert torch.equal(actor.look(rollouts, 1.0).logprobs, policy)
    with pytest.raises(KeyError), actor.adapter_off():
        raise KeyError
    again = actor.look(rollouts, 1.0).logprobs
    assert torch.equal(again, policy)
    assert not torch.equal(again, want)
    again.sum().backward()  # type: ignore[no-untyped-call]
    assert all(p.requires_grad and p.grad is not None for p in actor.policy.values())


def test_d32_values_begin_at_zero() -> None:
    """Exactly, on a trunk that policy and value head share."""
    actor = QuoteActor(network())
    look = actor.look(actor.draw([asked(n) for n in range(5)], 1.0, dice()), 1.0)
    assert not look.values.any()
    look.values.sum().backward()  # type: ignore[no-untyped-call]
    assert all(p.grad is not None and p.grad.any() for p in actor.value.values())


def test_a_low_rank_adapter_is_all_that_learns() -> None:
    """And the value head; the base has no gradient."""
    actor = CausalActor(tiny(), rank=2)
    names = {name for name, p in actor.model.named_parameters() if p.requires_grad}
    assert names == set(actor.policy)
    assert all("lora_" in name for name in names)


def _squash(module: nn.Module, given: object, out: Any) -> Any:
    out.logits = out.logits.tanh() * 0.1
    return out


def test_logits_that_are_capped_are_refused() -> None:
    """Reading the output layer alone would score another policy than the one served."""
    model = tiny()
    model.register_forward_hook(_squash)
    with pytest.raises(TrainingError, match="choose another model"):
        Network(model, 8)


def test_answers_without_a_choice_are_read_too() -> None:
    """A tree of one path leaves nothing to decide."""
    layout = Layout(tokenizer())
    only = Asked((5, 6), Paths([], [(layout.abstain,)], layout.end, 1))
    actor = QuoteActor(network())
    rollouts = actor.draw([only, only], 1.0, dice())
    assert [r.actions for r in rollouts] == [(False, False)] * 2
    assert not actor.look(rollouts, 1.0, entropy=True).logprobs.any()


def test_a_reader_beside_agrees() -> None:
    """Log-probs after a prompt are those of the server's own reader."""
    model, task = network(), asked(3)
    actor = QuoteActor(model)
    (rollout,) = actor.draw([task], 1.0, dice())
    logits = Reader(model, task.ids).after(())[list(task.paths.allowed(()))]
    at = task.paths.allowed(()).index(rollout.completion[0])
    assert rollout.logprobs[0] == pytest.approx(float(logits.log_softmax(0)[at]), abs=1e-5)
    assert isinstance(actor.head, nn.Linear)


def several(count: int, each: int) -> list[Asked]:
    """Prompts, each of them several times, mixed."""
    return [task for _ in range(each) for task in [asked(n) for n in range(count)]]


@pytest.mark.parametrize("kind", ["quotes", "llama", "gpt2", "qwen2", "sliding"])
def test_answers_to_one_prompt_are_read_as_if_each_were_alone(kind: str) -> None:
    """Log-probs, values, entropies, gradients and the answers drawn are those of single rows."""
    tasks: Sequence[Any] = several(4, 3)
    if kind == "quotes":
        actor: Any = QuoteActor(network(), at_once=24)
    else:
        actor, tasks = CausalActor(causal(kind), rank=0, at_once=24), prompted(5) * 3
    moved(actor, 0.05)
    together = actor.draw(tasks, 1.0, dice())
    actor._at_once = 1
    alone = actor.draw(tasks, 1.0, dice())
    assert [r.completion for r in together] == [r.completion for r in alone]
    for one, other in zip(together, alone, strict=True):
        assert one.logprobs == pytest.approx(other.logprobs, abs=1e-4)
    nn.init.normal_(actor.head.weight)
    found = []
    for some in ([together], [[r] for r in together]):
        for parameter in actor.policy.values():
            parameter.grad = None
        looks = [actor.look(part, 1.0, entropy=True) for part in some]
        sums = [(x.logprobs.square().sum() + x.values.square().sum()) for x in looks]
        torch.autograd.backward(torch.stack(sums).sum())
        found.append((looks, [p.grad.clone() for p in actor.policy.values() if p.grad is not None]))
    (whole,), rows = found[0][0], found[1][0]
    for number, row in enumerate(rows):
        size = row.logprobs.shape[1]
        for name in ("logprobs", "values", "entropies"):
            want, have = getattr(row, name)[0], getattr(whole, name)[number, :size]
            assert torch.allclose(want, have, atol=1e-4), name
    for want, have in zip(found[1][1], found[0][1], strict=True):
        assert torch.allclose(want, have, atol=1e-3, rtol=1e-3)


def test_a_prompt_is_read_once_for_all_its_answers() -> None:
    """Twelve answers to four prompts read four prompts, when drawn and when looked at."""
    actor = QuoteActor(network(), at_once=24)
    read: list[int] = []
    actor.model.base_model.register_forward_pre_hook(
        lambda module, args, named: read.append(named["input_ids"].numel()), with_kwargs=True
    )
    tasks = several(4, 3)
    prompts = 4 * max(len(task.ids) for task in tasks)
    rollouts = actor.draw(tasks, 1.0, dice())
    assert read[0] <= prompts
    read.clear()
    actor.look(rollouts, 1.0)
    assert sum(read) <= 1.5 * prompts


def causal(kind: str) -> Any:
    """A tiny random network of a family."""
    torch.manual_seed(2)
    if kind == "gpt2":
        return GPT2LMHeadModel(GPT2Config(n_layer=2, n_embd=16, n_head=2, vocab_size=16))
    if kind == "llama":
        return tiny(16)
    sliding: dict[str, Any] = {"use_sliding_window": True, "sliding_window": 3}
    sliding["max_window_layers"] = 0
    config = Qwen2Config(
        vocab_size=16, hidden_size=16, intermediate_size=32, num_hidden_layers=2,
        num_attention_heads=2, num_key_value_heads=1, bos_token_id=None, eos_token_id=None,
        **(sliding if kind == "sliding" else {}),
    )  # fmt: skip
    found = Qwen2ForCausalLM(config)
    found.train(False)
    return found
