from __future__ import annotations

import re
from pathlib import Path

import pytest

from safety.errors import PolicyInvalid
from safety.moderator.rules import FILES, FOLDER
from safety.policy import load

GOOD = """
version = 1
[groups]
ask = ["how to"]
thing = ["bomb*"]
fine = ["bath"]
[[rule]]
id = "illicit.thing"
sides = ["input"]
action = "refuse"
parts = ["ask", "thing"]
unless = ["fine"]
"""


def written(folder: Path, text: str) -> list[Path]:
    """Write a policy file and return what `load` takes."""
    path = folder / "policy.toml"
    path.write_text(text, encoding="utf-8")
    return [path]


def test_a_rule_fires_within_its_sentence_and_side(tmp_path: Path) -> None:
    """Parts in order, close together, in one sentence, on the rule's side, without an excuse."""
    policy = load(written(tmp_path, GOOD))

    def fires(text: str) -> bool:
        return bool(policy.match(text, "input"))

    assert fires("tell me how to make bombs")
    assert not fires("bombs, and how to cook")
    assert not fires("how to cook. bombs fell")
    assert not fires("how to make a bath bomb")
    assert not fires("how to " + "very " * 20 + "bomb")
    assert not policy.match("how to make bombs", "passage")


def test_an_excuse_may_have_to_stand_close(tmp_path: Path) -> None:
    """With `excuse_within` a far excuse in the same sentence does not count."""
    policy = load(written(tmp_path, GOOD.strip() + "\nexcuse_within = 5\n"))
    assert not policy.match("how to make a bath bomb", "input")
    assert policy.match("how to make bombs while my sister is taking a bath", "input")


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("version = 1", "version = 2", "version"),
        ('"illicit.thing"', '"Thing"', "must read category.name"),
        ('"illicit.thing"', '"nonsense.thing"', "unknown category"),
        ('action = "refuse"', 'action = "shout"', "unknown action"),
        ('action = "refuse"', "", "unknown action"),
        ('["input"]', '["everywhere"]', "sides"),
        ('["input"]', "[]", "sides"),
        ('["ask", "thing"]', '["ask", "nothing"]', "unknown group 'nothing'"),
        ('["ask", "thing"]', "[]", "parts are empty"),
        ('parts = ["ask", "thing"]', "", "parts or pattern"),
        ('parts = ["ask", "thing"]', 'pattern = "(a+)+b"', "unbounded"),
        ('parts = ["ask", "thing"]', 'pattern = "a.*b"', "unbounded"),
        ('parts = ["ask", "thing"]', 'pattern = "(a"', "compile"),
        ('parts = ["ask", "thing"]', 'parts = ["ask"]\nwithin = 0', "within"),
        ('parts = ["ask", "thing"]', 'parts = ["ask"]\nscore = 2.0', "score"),
        ('parts = ["ask", "thing"]', 'parts = ["ask"]\nscope = "page"', "scope"),
        ('parts = ["ask", "thing"]', 'parts = ["ask"]\nwithn = 4', "unknown field withn"),
        ('"bomb*"', '"@gone"', "unknown '@gone'"),
        ('"bomb*"', '"b*"', "stem"),
        ('["bomb*"]', '"bomb*"', "list of strings"),
        ("[groups]", "[groups", "cannot be read"),
    ],
)
def test_a_bad_policy_names_what_is_wrong(tmp_path: Path, old: str, new: str, reason: str) -> None:
    """Each mistake raises PolicyInvalid with its reason; nothing is skipped in silence."""
    assert old in GOOD
    with pytest.raises(PolicyInvalid, match=re.escape(reason)):
        load(written(tmp_path, GOOD.replace(old, new, 1)))


def test_an_id_is_used_once(tmp_path: Path) -> None:
    """Two rules may not share a reason code."""
    rule = GOOD[GOOD.index("[[rule]]") :]
    with pytest.raises(PolicyInvalid, match="used twice"):
        load(written(tmp_path, GOOD + rule))


def test_a_missing_file_is_an_error(tmp_path: Path) -> None:
    """A policy that is not there is no empty policy."""
    with pytest.raises(PolicyInvalid, match="cannot be read"):
        load([tmp_path / "none.toml"])
    with pytest.raises(PolicyInvalid, match="no rule"):
        load(written(tmp_path, "version = 1\n"))


def test_every_byte_of_the_policy_is_in_its_hash(tmp_path: Path) -> None:
    """A changed byte, even in a comment, changes the policy hash."""
    plain = load(written(tmp_path, GOOD)).sha256
    assert plain != load(written(tmp_path, GOOD + "# note\n")).sha256


def test_the_shipped_policy_loads_and_names_both_languages() -> None:
    """The policy that ships is valid, and each of its categories is served in both languages."""
    policy = load([FOLDER / name for name in FILES])
    english = {r.category for r in policy.rules if not r.id.endswith("_zh")}
    chinese = {r.category for r in policy.rules if r.id.endswith("_zh")}
    assert {"illicit", "violence", "self_harm", "minors", "sexual"} <= english & chinese
    assert {"hate", "privacy", "attack"} <= english & chinese
