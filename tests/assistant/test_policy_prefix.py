"""What a local model keeps of its last prompt changes the time of an answer, and nothing else."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    MambaConfig,
    MambaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    PreTrainedTokenizerFast,
)

from assistant.errors import PolicyError, PolicyUnavailable
from assistant.policy._chat import encode
from assistant.policy._prefix import Prefix
from assistant.prompt import render
from assistant.schema import Delta, Message, Prompt, Sampling, Usage
from tests.assistant.policies import MARK, load, make_random, make_tokenizer, passage, run, said

KINDS = ("llama", "qwen2", "gpt2", "window", "recurrent")
#: Those whose keys and values can be cut back at any length.
CUT = ("llama", "qwen2", "gpt2")


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    """Train one tokenizer for all tests."""
    return make_tokenizer()


@pytest.fixture(scope="module")
def folders(
    tmp_path_factory: pytest.TempPathFactory, tokenizer: PreTrainedTokenizerFast
) -> dict[str, Path]:
    """Save one random model of each kind: plain attention, a sliding window, a recurrent state."""
    root = tmp_path_factory.mktemp("models")
    made = {name: make_random(root / name, name, tokenizer) for name in CUT}
    size: dict[str, Any] = {
        "vocab_size": len(tokenizer),
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "eos_token_id": tokenizer.eos_token_id,
        "bos_token_id": None,
        "pad_token_id": tokenizer.pad_token_id,
    }
    torch.manual_seed(7)
    window: Any = MistralForCausalLM(
        MistralConfig(
            intermediate_size=64,
            num_attention_heads=4,
            num_key_value_heads=2,
            sliding_window=32,
            max_position_embeddings=2048,
            initializer_range=0.4,
            **size,
        )
    )
    recurrent: Any = MambaForCausalLM(MambaConfig(state_size=4, **size))
    for name, model in (("window", window), ("recurrent", recurrent)):
        made[name] = root / name
        model.save_pretrained(made[name])
        tokenizer.save_pretrained(made[name])
    return made


def conversation(turns: int = 3) -> list[Prompt]:
    """The prompts of one conversation, as the assistant renders them; evidence changes."""
    history: list[Message] = []
    prompts = []
    for n in range(turns):
        prompts.append(
            render(f"What {n}?", [passage(f"Fact {n}. 事实。")], history, "en", mark=MARK + str(n))
        )
        history += [Message("user", f"What {n}?"), Message("assistant", f"Fact {n}. [1]")]
    return prompts


def drawn(deltas: Sequence[Delta]) -> tuple[list[int], list[float]]:
    """Return the tokens of an answer and their log-probs."""
    return [t for d in deltas for t in d.token_ids], [p for d in deltas for p in d.logprobs]


def usage(deltas: Sequence[Delta]) -> Usage:
    """Return what was counted."""
    found = deltas[-1].usage
    assert found is not None
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_an_answer_is_the_same_with_and_without(folders: dict[str, Path], kind: str) -> None:
    """Tokens are equal and log-probs agree to 1e-5, turn after turn, sampled or greedy."""
    keeping, plain = load(folders[kind]), load(folders[kind], cache_tokens=0)
    for n, prompt in enumerate([*conversation(), *conversation()]):
        how = {"max_tokens": 12, "seed": n, "temperature": float(n % 2)}
        tokens, logprobs = drawn(run(keeping, prompt, **how))
        again, expected = drawn(run(plain, prompt, **how))
        assert tokens == again
        assert logprobs == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("kind", CUT)
def test_a_turn_reads_only_what_is_new(
    folders: dict[str, Path], tokenizer: PreTrainedTokenizerFast, kind: str
) -> None:
    """What two prompts begin with in common is read once: all that stands before the evidence."""
    policy = load(folders[kind])
    one, two, _ = conversation()
    first, second = usage(run(policy, one, max_tokens=4)), usage(run(policy, two, max_tokens=4))
    ids = [encode(tokenizer, p.messages) for p in (one, two)]
    same = next(n for n, (a, b) in enumerate(zip(*ids, strict=False)) if a != b)
    assert first == Usage(len(ids[0]), 4, 0)
    assert second == Usage(len(ids[1]), 4, same)
    assert same > len(encode(tokenizer, one.messages[:1])) - 8
    third = usage(run(policy, two, max_tokens=4, temperature=1.0))
    assert third.cached == len(ids[1]) - 1  # another answer to the same prompt


def test_no_more_is_kept_than_there_is_room(folders: dict[str, Path]) -> None:
    """The setting bounds what stays; nothing stays with 0."""
    one, *_ = conversation()
    for room in (0, 10, 50):
        policy = load(folders["llama"], cache_tokens=room)
        run(policy, one, max_tokens=4)
        assert usage(run(policy, one, max_tokens=4)).cached == room


def test_a_reader_who_leaves_spoils_nothing(folders: dict[str, Path]) -> None:
    """After a stream is closed in the middle, the next answer is that of a fresh policy."""
    one, two, _ = conversation()
    policy = load(folders["llama"])
    stream = policy.stream(one, Sampling(max_tokens=12, temperature=1.0))
    next(stream)
    stream.close()  # type: ignore[attr-defined]
    answer = run(policy, two, max_tokens=12)
    assert usage(answer).cached
    assert said(answer) == said(run(load(folders["llama"], cache_tokens=0), two, max_tokens=12))


def test_after_a_failure_nothing_is_kept(folders: dict[str, Path]) -> None:
    """Keys and values of a pass that broke off are not built upon."""
    one, *_ = conversation()
    policy: Any = load(folders["llama"])
    run(policy, one, max_tokens=4)
    model = policy._model
    before = model.lm_head.weight.detach().clone()
    with torch.no_grad():
        model.lm_head.weight.fill_(torch.nan)
    with pytest.raises(PolicyError, match="NaN"):
        run(policy, one, max_tokens=4)
    with torch.no_grad():
        model.lm_head.weight.copy_(before)
    assert usage(run(policy, one, max_tokens=4)).cached == 0


def test_threads_do_not_mix_what_is_kept(folders: dict[str, Path]) -> None:
    """Conversations side by side get the answers they get one after the other."""
    policy = load(folders["qwen2"])
    prompts = [p for _ in range(3) for p in conversation()]
    alone = [said(run(load(folders["qwen2"], cache_tokens=0), p, max_tokens=8)) for p in prompts]
    together: list[str] = [""] * len(prompts)

    def work(n: int) -> None:
        together[n] = said(run(policy, prompts[n], max_tokens=8))

    threads = [threading.Thread(target=work, args=(n,)) for n in range(len(prompts))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert together == alone


def test_a_closed_policy_keeps_nothing(folders: dict[str, Path]) -> None:
    """`close` gives the memory back, also while an answer is under way."""
    one, *_ = conversation()
    policy: Any = load(folders["llama"])
    stream = policy.stream(one, Sampling(max_tokens=200))
    next(stream)
    policy.close()
    with pytest.raises(PolicyUnavailable):
        list(stream)
    assert policy._prefix.take([1, 2, 3]) == (None, 0)


class Rope:
    """A cache that can be cut back, or says that it cannot."""

    def __init__(self, stiff: bool = False) -> None:
        self.is_croppable = not stiff
        self.cut = 0

    def crop(self, tokens: int) -> None:
        """Count what is taken off."""
        self.cut -= tokens


def test_the_last_token_is_always_read() -> None:
    """A prompt that is known whole is still read at its end, for the next token's logits."""
    kept, rope = Prefix(10), Rope()
    kept.keep([1, 2, 3], rope)
    assert kept.take([1, 2, 3]) == (rope, 2)
    assert rope.cut == 1
    assert kept.take([1, 2, 3]) == (None, 0)  # it has one owner


def test_what_cannot_be_cut_is_used_only_as_it_is() -> None:
    """A cache that cannot go back serves a prompt that goes on where it ended, and no other."""
    kept, rope = Prefix(10), Rope(stiff=True)
    kept.keep([1, 2, 3], rope)
    assert kept.take([1, 2, 3, 4]) == (rope, 3)
    kept.keep([1, 2, 3], rope)
    assert kept.take([1, 2, 9, 9]) == (None, 0)
    kept.keep([5, 6], rope)
    assert kept.take([7, 8]) == (None, 0)
