from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest

from assistant.config import PolicySettings, Settings
from assistant.errors import ModelNotFound
from assistant.prompt import ABSTAIN
from assistant.schema import Delta, PolicyCard, Prompt, Sampling
from rlhf.best_of_n import BestOf, Choice, Log, ranked, wrapped

PROMPT = Prompt((), "Why?", (), "en", "bcdfghjk")


class Dice:
    """A policy that says another thing for every seed."""

    writes = False
    card = PolicyCard("dice", "cube", engine="none")

    def __init__(self, *texts: str) -> None:
        self.texts, self.asked = texts, list[Sampling]()

    def stream(self, prompt: Prompt, sampling: Sampling) -> Iterator[Delta]:
        """One delta."""
        self.asked.append(sampling)
        text = self.texts[(len(self.asked) - 1) % len(self.texts)]
        yield Delta(
            text, finish="abstain" if not text else "stop", token_ids=(1,), logprobs=(-1.0,)
        )

    def count_tokens(self, text: str) -> int:
        """Characters."""
        return len(text)

    def close(self) -> None:
        """Forget what was said."""
        self.texts = ()


def by_length(pairs: Sequence[tuple[str, str]]) -> np.ndarray:
    """The longer, the better; to abstain is worst."""
    return np.array([-1 if r == ABSTAIN else len(r) for _, r in pairs], dtype=np.float32)


def test_d42_the_best_of_one_is_the_policy_itself() -> None:
    """Nothing is drawn besides."""
    policy = Dice("a", "bb")
    best = BestOf(policy, by_length, 1)
    assert [d.text for d in best.stream(PROMPT, Sampling())] == ["a"]
    assert best.card == policy.card
    assert policy.asked == [Sampling()]


def test_the_best_one_is_given_whole_and_its_place_is_told() -> None:
    """Deltas are those of the chosen draw, tokens too; the card says how many were drawn."""
    told: list[Choice] = []
    policy = Dice("a", "", "ccc", "bb")
    best = BestOf(policy, by_length, 4, told.append)
    (delta,) = best.stream(PROMPT, Sampling(seed=2))
    assert (delta.text, delta.token_ids) == ("ccc", (1,))
    assert told == [Choice("bcdfghjk", 4, 2, 0, (1.0, -1.0, 3.0, 2.0))]
    assert best.card.engine == "none best of 4"
    assert policy.asked[0].temperature == 0
    assert len({s.seed for s in policy.asked}) == 4
    assert all(s.temperature > 0 for s in policy.asked[1:])


def test_another_answer_is_the_next_best_one() -> None:
    """A variant gives the second of the different texts, and the last where there are no more."""
    for variant, text in enumerate(["ccc", "bb", "a", "a"]):
        best = BestOf(Dice("a", "bb", "ccc", "bb"), by_length, 4)
        deltas = list(best.stream(PROMPT, Sampling(variant=variant)))
        assert deltas[0].text == text
    assert ranked([1.0, 2.0, 2.0, 2.0], ["a", "b", "c", "b"]) == [1, 2, 0]


def test_the_log_holds_numbers_and_no_words(tmp_path: Path) -> None:
    """A line a prompt, which the mark ties to its turn; a full disk costs no answer."""
    best = BestOf(Dice("secret", "more secret"), by_length, 2, Log(tmp_path / "best-of.jsonl"))
    list(best.stream(PROMPT, Sampling()))
    text = (tmp_path / "best-of.jsonl").read_text(encoding="utf-8")
    row = json.loads(text)
    assert (row["n"], row["rank"], row["chosen"], row["mark"]) == (2, 0, 1, PROMPT.mark)
    assert "secret" not in text
    Log(tmp_path / "no" / "folder")(Choice("m", 2, 0, 0, (1.0, 2.0)))


def test_the_setting_wraps_the_policy_and_needs_a_reward_model(tmp_path: Path) -> None:
    """1 leaves the policy as it is; more without a reward model says what is missing."""
    policy = Dice("a")
    assert wrapped(policy, Settings(home=tmp_path)) is policy
    more = Settings(home=tmp_path, policy=PolicySettings(best_of=4))
    with pytest.raises(ModelNotFound, match="train reward"):
        wrapped(policy, more, tmp_path)
