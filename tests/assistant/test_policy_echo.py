from __future__ import annotations

import pytest

from assistant.config import PolicySettings
from assistant.policy.echo import build
from assistant.schema import Delta
from tests.assistant.policies import ask, resources, run, said


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("Cats purr. Dogs bark.", "Cats purr."),
        ("  猫会打呼噜。狗会叫。", "猫会打呼噜。"),
        ("Version 3.11 is out. More.", "Version 3.11 is out."),
        ("no full stop", "no full stop"),
        ("Heading\nBody.", "Heading"),
    ],
)
def test_the_first_sentence_comes_back_cited(text: str, sentence: str) -> None:
    """The answer is the first passage's first sentence and its number."""
    policy = build(PolicySettings(), resources())
    deltas = run(policy, ask("?", text, "Other."))
    assert (said(deltas), deltas[-1].finish) == (f"{sentence} [1]", "stop")


def test_without_passages_it_abstains() -> None:
    """Nothing found is nothing said."""
    policy = build(PolicySettings(), resources())
    assert run(policy, ask("?")) == [Delta("", finish="abstain", confidence=0.0)]


def test_variants_echo_other_passages() -> None:
    """Variant n is the n-th passage after the first."""
    policy = build(PolicySettings(), resources())
    texts = [said(run(policy, ask("?", "One.", "Two."), variant=n)) for n in (0, 1, 2)]
    assert texts == ["One. [1]", "Two. [2]", "One. [1]"]
