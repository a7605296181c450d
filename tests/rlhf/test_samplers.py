from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from transformers import GPT2Config, GPT2ForSequenceClassification, GPT2LMHeadModel

from retrieval import menu
from rlhf.actor_causal import CausalActor, Prompted
from rlhf.actor_quote import QuoteActor
from rlhf.errors import TrainingError
from rlhf.ppo import PPO
from rlhf.samplers import quote, transformers, vllm
from rlhf.samplers.base import ROUNDING, Sampled, Sampler
from rlhf.schema import Rollout
from tests.assistant.quoters import network
from tests.rlhf.test_actors import STOP, apart, asked, dice, moved, prompted
from tests.rlhf.test_ppo import changed
from tests.rlhf.toys import tiny

Make = Callable[[Path], tuple[Any, Sampler[Any], list[Any]]]


def gpt2(kind: type[Any] = GPT2LMHeadModel, **options: Any) -> Any:
    """A network with tied embeddings and layers that hold their weights transposed."""
    torch.manual_seed(4)
    return kind(
        GPT2Config(
            vocab_size=8, n_embd=16, n_layer=2, n_head=2, n_positions=64, bos_token_id=0,
            eos_token_id=0, initializer_range=0.3, **options,
        )
    )  # fmt: skip


class Asleep(Exception):
    """The double was used in a way that vLLM does not allow."""


@dataclass(frozen=True)
class Params:
    """vllm.SamplingParams: the parameters that its documentation names, as far as they are used."""

    temperature: float
    top_p: float
    top_k: int
    min_p: float
    max_tokens: int
    stop_token_ids: list[int]
    ignore_eos: bool
    logprobs: int
    seed: int
    detokenize: bool


@dataclass
class Logprob:
    """vllm.logprobs.Logprob."""

    logprob: float


@dataclass
class Completion:
    """vllm.outputs.CompletionOutput."""

    token_ids: list[int]
    logprobs: list[dict[int, Logprob]]
    finish_reason: str


@dataclass
class Output:
    """vllm.outputs.RequestOutput."""

    outputs: list[Completion]


class LLM:
    """vllm.LLM with sleep mode, recorded: weights come from the file, and go with the sleep."""

    calls: list[str]

    def __init__(
        self, model: str, *, skip_tokenizer_init: bool, enable_sleep_mode: bool,
        logprobs_mode: str, gpu_memory_utilization: float,
    ) -> None:  # fmt: skip
        assert (skip_tokenizer_init, enable_sleep_mode) == (True, True)
        assert logprobs_mode == "processed_logprobs"
        self._path, self._awake = Path(model), {"weights", "kv_cache"}
        self._draws: Any = transformers.Generating(tiny())
        self._cached = False
        self.finish = ""
        LLM.calls = [f"LLM {gpu_memory_utilization}"]
        self.collective_rpc("reload_weights")

    def collective_rpc(self, method: str) -> None:
        """Read the file again."""
        LLM.calls.append(method)
        assert method == "reload_weights"
        if "weights" not in self._awake:
            raise Asleep("no room for weights")
        transformers.taken(self._draws._model, load_file(self._path / "model.safetensors").items())
        self._loaded = True

    def sleep(self, level: int) -> None:
        """Drop everything."""
        LLM.calls.append(f"sleep {level}")
        self._awake, self._loaded = set(), False

    def wake_up(self, tags: list[str]) -> None:
        """Make room."""
        LLM.calls.append(f"wake_up {tags[0]}")
        self._awake |= {*tags}

    def reset_prefix_cache(self) -> None:
        """Forget prompts."""
        LLM.calls.append("reset_prefix_cache")
        self._cached = False

    def generate(
        self, prompts: list[dict[str, list[int]]], params: list[Params], *, use_tqdm: bool
    ) -> list[Output]:
        """Draw by `generate` of transformers, and answer as vLLM does."""
        LLM.calls.append("generate")
        if self._awake != {"weights", "kv_cache"} or not self._loaded or self._cached:
            raise Asleep("no weights, no cache, or one of old weights")
        self._cached = True
        found = []
        for prompt, one in zip(prompts, params, strict=True):
            assert (one.top_p, one.top_k, one.min_p, one.logprobs) == (1.0, 0, 0.0, 0)
            task = Prompted(
                tuple(prompt["prompt_token_ids"]), frozenset(one.stop_token_ids), one.max_tokens
            )
            (drawn,) = self._draws.generate([task], one.temperature, dice(one.seed))
            pairs = zip(drawn.completion, drawn.logprobs, strict=True)
            each = [{token: Logprob(logprob)} for token, logprob in pairs]
            ids = [*drawn.completion]
            found.append(Output([Completion(ids, each, self.finish or drawn.finish)]))
        return found


class Library:
    """The module `vllm`."""

    SamplingParams, LLM = Params, LLM


def of_transformers(folder: Path) -> tuple[CausalActor, Sampler[Any], list[Prompted]]:
    """Free text by `generate`."""
    sampler = transformers.build(tiny(), at_once=4)
    return CausalActor(tiny(), rank=2), sampler, prompted()


def of_quote(folder: Path) -> tuple[QuoteActor, Sampler[Any], list[Any]]:
    """Quotes through trees."""
    return QuoteActor(network()), quote.build(network(), at_once=4), [asked(n) for n in range(8)]


def of_vllm(folder: Path) -> tuple[CausalActor, Sampler[Any], list[Prompted]]:
    """Free text by the double of vLLM."""
    tiny().save_pretrained(folder / "checkpoint")
    sampler = vllm.Engine(folder / "checkpoint", Library, share=0.3)
    return CausalActor(tiny(), rank=2), sampler, prompted()


ALL = pytest.mark.parametrize("make", [of_transformers, of_quote, of_vllm])


def test_the_menu_holds_three_samplers() -> None:
    """And a file dropped in is another one."""
    assert menu.available("rlhf.samplers") == ("quote", "transformers", "vllm")
    assert menu.load("rlhf.samplers", "transformers").build is transformers.build


@ALL
def test_after_every_hand_over_sampler_and_policy_are_one(make: Make, tmp_path: Path) -> None:
    """Log-probs of what was drawn are the training forward's, also when the policy has moved."""
    actor, sampler, tasks = make(tmp_path)
    both = Sampled(actor, sampler)
    seen = []
    for size in (0.0, 0.1, 0.2):
        moved(actor, size)
        rollouts = both.draw(tasks, 0.7, dice())
        assert apart(actor.look(rollouts, 0.7).logprobs, rollouts) < 1e-4
        assert both.gap < 1e-5
        seen.append([r.completion for r in rollouts])
    assert seen[0] != seen[2]
    assert (both.device, both.policy.keys(), both.value.keys()) == (
        actor.device, actor.policy.keys(), actor.value.keys(),
    )  # fmt: skip


@ALL
def test_weights_that_were_not_taken_are_found_out(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The sampler is stopped before anything is learnt from its answers."""
    actor, sampler, tasks = make(tmp_path)
    both = Sampled(actor, sampler)
    both.draw(tasks, 1.0, dice())
    stale = [(name, value.clone()) for name, value in actor.weights()]
    moved(actor)
    monkeypatch.setattr(actor, "weights", lambda: iter(stale))
    with pytest.raises(TrainingError, match=r"off the policy's by .* nats a token"):
        both.draw(tasks, 1.0, dice())


def test_a_temperature_that_differs_is_found_out() -> None:
    """Log-probs before the temperature are another distribution's."""
    actor, sampler, tasks = of_transformers(Path())

    class Warm:
        """Forgets the temperature."""

        update_weights, sleep, wake = sampler.update_weights, sampler.sleep, sampler.wake

        def generate(
            self, tasks: Sequence[Prompted], temperature: float, generator: torch.Generator
        ) -> list[Rollout]:
            """At 1."""
            return sampler.generate(tasks, 1.0, generator)

    with pytest.raises(TrainingError, match="another temperature"):
        Sampled(actor, Warm()).draw(tasks, 0.5, dice())


def test_a_sampler_has_to_say_its_log_probs() -> None:
    """Without them nobody can tell what it drew from."""
    actor, sampler, tasks = of_transformers(Path())

    class Silent:
        """Says nothing."""

        update_weights, sleep, wake = sampler.update_weights, sampler.sleep, sampler.wake

        def generate(self, *given: Any) -> list[Rollout]:
            """An answer of one token."""
            return [Rollout((1,), (2,), (True,), None, "length")]

    with pytest.raises(TrainingError, match="1 of 1 answers without its log-probs"):
        Sampled(actor, Silent()).draw(tasks[:1], 1.0, dice())


def test_generate_draws_what_the_actor_draws() -> None:
    """The same dice give the same answers, whatever is drawn beside them."""
    tasks = [*prompted(), Prompted((3, 4), frozenset({2, 5}), 6), Prompted((3,), frozenset(), 3)]
    want = CausalActor(tiny(), rank=2).draw(tasks, 0.8, dice())
    for at_once in (1, 5, 64):
        found = transformers.build(tiny(), at_once).generate(tasks, 0.8, dice())
        assert [r.completion for r in found] == [r.completion for r in want]
        assert [r.finish for r in found] == [r.finish for r in want]
        for one, other in zip(found, want, strict=True):
            assert one.logprobs == pytest.approx(other.logprobs, abs=1e-5)


def test_a_quote_is_drawn_as_the_actor_draws_it() -> None:
    """The copy gives the same rollouts, forced tokens and all."""
    tasks = [asked(n) for n in range(8)]
    want = QuoteActor(network()).draw(tasks, 0.8, dice())
    assert quote.build(network()).generate(tasks, 0.8, dice()) == want


@pytest.mark.parametrize("make", [tiny, gpt2])
def test_merged_weights_are_those_of_the_policy(make: Callable[[], Any]) -> None:
    """A plain model that takes them gives the same logits as base and adapter."""
    actor, plain = CausalActor(make(), rank=2), make().eval()
    moved(actor)
    transformers.taken(plain, actor.weights())
    ids = torch.tensor([[1, 2, 3]])
    torch.testing.assert_close(plain(ids).logits, actor.model(ids).logits, atol=1e-5, rtol=1e-5)
    with pytest.raises(TrainingError, match="no weight"):
        transformers.taken(tiny(width=32), actor.weights())
    with pytest.raises(TrainingError, match="got no weights for"):
        transformers.taken(make(), list(actor.weights())[1:])


def test_vllm_is_called_as_it_documents(tmp_path: Path) -> None:
    """Room for weights, weights, room for the cache, and old prompts forgotten; then it sleeps."""
    actor, sampler, tasks = of_vllm(tmp_path)
    both = Sampled(actor, sampler)
    for _ in range(2):
        both.draw(tasks, 1.0, dice())
    first = ["reload_weights", "reset_prefix_cache", "generate", "sleep 2"]
    again = ["wake_up weights", "reload_weights", "wake_up kv_cache", *first[1:]]
    assert LLM.calls == ["LLM 0.3", "reload_weights", *first, *again]
    sampler.wake()
    with pytest.raises(TrainingError, match="hand them over"):
        sampler.generate(tasks, 1.0, dice())


def test_vllms_broken_answers_are_refused(tmp_path: Path) -> None:
    """One that was aborted, and one without the token that ended it."""
    actor, sampler, _ = of_vllm(tmp_path)
    sampler.update_weights(actor.weights())
    engine: Any = sampler
    for said, match in (("abort", "broke an answer off: abort"), ("stop", "left out the token")):
        engine._llm.finish = said
        with pytest.raises(TrainingError, match=match):
            sampler.generate([Prompted((1,), frozenset(), 3)], 1.0, dice())
        sampler.update_weights(actor.weights())


def test_vllm_says_what_it_needs(tmp_path: Path) -> None:
    """A card and a torch of its own; a checkpoint in one file."""
    with pytest.raises(TrainingError, match=r"one file model\.safetensors"):
        vllm.Engine(tmp_path, Library)
    try:
        import vllm as found  # noqa: F401
    except ModuleNotFoundError:
        with pytest.raises(TrainingError, match="graphics card"):
            vllm.build(tmp_path)


def test_d25_a_sampler_of_lower_precision_is_weighed(tmp_path: Path) -> None:
    """PPO learns from bfloat16's answers, corrected by weights near 1, and says the gap."""
    settings = changed(updates=2, episodes=16, micro=16, value_warmup=1)

    def reward(tasks: Sequence[Prompted], found: Sequence[Rollout]) -> dict[str, list[float]]:
        return {"stops": [float(r.finish == "stop") for r in found]}

    gaps = []
    for name, dtype, size in (("whole", torch.float32, 4), ("half", torch.bfloat16, 2)):
        sampler = transformers.build(tiny(), dtype=dtype)
        both = Sampled(CausalActor(tiny(), rank=2), sampler, ROUNDING[size])
        loop = PPO(both, prompted(), reward, settings, tmp_path / name)
        gaps += [max(update.sampler_gap for update in loop.train())]
    assert gaps[0] < 1e-5 < gaps[1] < ROUNDING[2]


# Actors that samplers and benchmarks ask for


def critic() -> Any:
    """A reward model of the policy's kind."""
    return gpt2(GPT2ForSequenceClassification, num_labels=1, pad_token_id=7)


def test_d32_a_critic_begins_with_the_reward_models_values() -> None:
    """Its values are what it gave before, at each token, and its trunk is its own."""
    actor = CausalActor(gpt2(), rank=0, critic=critic())
    rollouts = actor.draw(prompted(4), 1.0, dice())
    look = actor.look(rollouts, 1.0)
    for row, rollout in enumerate(rollouts):
        ids = torch.tensor([(*rollout.prompt, *rollout.completion[:-1])])
        states = critic().eval().transformer(ids).last_hidden_state
        want = critic().score(states)[0, len(rollout.prompt) - 1 :, 0]
        torch.testing.assert_close(look.values[row, : len(want)], want, atol=1e-5, rtol=1e-4)
    look.values.sum().backward()  # type: ignore[no-untyped-call]
    assert all(p.grad is None for p in actor.policy.values())
    assert {name.split(".")[1] for name in actor.value} == {"transformer", "score"}
    assert not {*actor.policy} & {*actor.value}


def test_a_critic_needs_a_head_of_one_number() -> None:
    """A classifier of two labels is none."""
    with pytest.raises(TrainingError, match="num_labels=1"):
        CausalActor(gpt2(), rank=0, critic=gpt2(GPT2ForSequenceClassification, num_labels=2))
    with pytest.raises(TrainingError, match="num_labels=1"):
        CausalActor(gpt2(), rank=0, critic=gpt2())


def test_without_a_rank_all_weights_learn(tmp_path: Path) -> None:
    """The reference stays what the policy was, and the whole model is saved."""
    actor = CausalActor(gpt2(), rank=0)
    rollouts = actor.draw(prompted(4), 1.0, dice())
    before = actor.reference(rollouts, 1.0)
    torch.testing.assert_close(before, actor.look(rollouts, 1.0).logprobs.detach())
    moved_weights = _shifted(actor.policy.values())
    assert moved_weights == len(dict(gpt2().named_parameters()))
    assert torch.equal(actor.reference(rollouts, 1.0), before)
    assert not torch.allclose(actor.look(rollouts, 1.0).logprobs, before, atol=1e-3)
    actor.save(tmp_path)
    ids = torch.tensor([[1, 2]])
    again: Any = GPT2LMHeadModel.from_pretrained(tmp_path)
    assert torch.equal(again.eval()(ids).logits, actor.model(ids).logits)
    plain = gpt2()
    transformers.taken(plain, actor.weights())
    assert torch.equal(plain.eval()(ids).logits, actor.model(ids).logits)
    assert STOP in rollouts[0].prompt


def _shifted(parameters: Iterator[Tensor] | Any) -> int:
    """Move all; returns how many."""
    with torch.no_grad():
        return len([p.add_(0.05 * torch.randn(p.shape, generator=dice())) for p in parameters])
