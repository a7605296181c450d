from __future__ import annotations

import base64
import itertools
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from safetensors.numpy import save_file

from safety._ngrams import BUCKETS, Linear
from safety.config import SafetySettings
from safety.errors import ModelUnusable
from safety.levels import load
from safety.moderator import classifier
from safety.moderator.classifier import HEADS, Calibration, Classifier, windows
from safety.schema import Side


class Words:
    """A network that knows one word a head."""

    id = "words@1"
    known = tuple("hate insult kill sex hurtme drug spy ignore bad sure".split())

    def __init__(self) -> None:
        self.seen: list[str] = []

    def __call__(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """8 where the head's word stands in the text, else -8."""
        self.seen += texts
        rows = [[8.0 if word in text else -8.0 for word in self.known] for text in texts]
        return np.array(rows, dtype=np.float32)


def silent() -> Linear:
    """Return an n-gram model that says nothing."""
    zeros = np.zeros(len(HEADS), dtype=np.float32)
    return Linear(np.zeros((BUCKETS, len(HEADS)), dtype=np.int8), zeros, zeros)


def calibration() -> Calibration:
    """Return the network's logit as it is; half of the harmless reach .5, a hundredth .9."""
    line = np.tile(np.array([1, 0, 0], dtype=np.float32), (len(HEADS), 1))
    level = np.tile(np.array([0.99, 0.9, 0.5], dtype=np.float32), (len(HEADS), 1))
    rates = np.array([0.0001, 0.01, 0.5], dtype=np.float32)
    levels = {side: {"en": level, "zh": level} for side in get_args(Side)}
    return Calibration({"en": line, "zh": line}, rates, levels, {"en": -1.0, "zh": -1.0})


#: Gives .36 where the word stands.
LINE = np.tile(np.array([0.2, 0, -2.2], dtype=np.float32), (len(HEADS), 1))


def moderator(scorer: Words | None = None) -> Classifier:
    """Return the classifier with that network."""
    return Classifier(scorer or Words(), silent(), calibration(), load("default"))


@pytest.mark.parametrize(
    ("text", "action", "category"),
    [
        ("please kill them", "refuse", "violence"),
        ("i want to hurtme tonight", "crisis", "self_harm"),
        ("you insult me", "annotate", "harassment"),
        ("something bad", "refuse", "illicit"),
        ("what a nice day", "allow", "none"),
        ("kill and hurtme", "refuse", "violence"),
    ],
)
def test_the_most_severe_action_counts(text: str, action: str, category: str) -> None:
    """A sure head leads to its category's action; of several the most severe is taken."""
    (verdict,) = moderator().judge([text], "input")
    assert (verdict.action, verdict.category, verdict.side) == (action, category, "input")
    assert verdict.stops is (action in ("refuse", "crisis"))


def test_harm_without_a_name_counts_as_the_likeliest() -> None:
    """A text that is only unsafe is illicit; beside a named harm that shows, it is that one."""

    class Hint(Words):
        def __call__(self, texts: Sequence[str]) -> NDArray[np.float32]:
            found = super().__call__(texts)
            found[:, HEADS.index("hate")] = -1  # .27
            return found

    (verdict,) = moderator(Hint()).judge(["something bad"], "input")
    assert (verdict.action, verdict.category) == ("refuse", "hate")


def test_an_answer_is_read_behind_its_question() -> None:
    """What only question and answer together say is found on the output side, and only there."""

    class Pair(Words):
        def __call__(self, texts: Sequence[str]) -> NDArray[np.float32]:
            found = super().__call__(texts)
            both = np.array(["steal" in text and "sure" in text for text in texts])
            found[:, HEADS.index("reply")] = np.where(both, 8, -8)
            return found

    made = moderator(Pair())
    told = "All is well here. " * 60 + "Sure, do it."
    (bad,) = made.judge([told], "output", "Should I steal it?")
    assert (bad.action, bad.category) == ("block", "illicit")
    assert "Sure" in told[bad.spans[0].start : bad.spans[0].end]
    for question in ("", "Should I buy it?"):
        assert made.judge([told], "output", question)[0].action == "allow"
    assert made.judge([told], "input", "Should I steal it?")[0].action == "allow"


def test_a_probability_below_the_least_stops_nothing(tmp_path: Path) -> None:
    """However few harmless texts get there, `least` holds."""
    row = '{ action = "refuse", stop = 0.5, grey = 0.5'
    for least, stops in (("", False), (", least = 0.2", True)):
        path = tmp_path / "mine.toml"
        path.write_text(f"version = 1\n[input]\nhate = {row}{least} }}\n", encoding="utf-8")
        low = replace(calibration(), lines={k: LINE for k in ("en", "zh")})
        low.levels["input"]["en"][:] = 0.1
        made = Classifier(Words(), silent(), low, load(str(path)))
        (verdict,) = made.judge(["hate"], "input")
        assert (verdict.stops, verdict.grey) == (stops, not stops)


def test_a_passage_without_a_hint_of_attack_costs_no_network(tmp_path: Path) -> None:
    """The n-grams choose what the network reads, where passages are judged for attacks alone."""
    loud = silent()
    loud = replace(loud, bias=np.full(len(HEADS), -2, dtype=np.float32))
    for levels, read in ((load("default"), 0), (load(str(_hate(tmp_path))), 1)):
        scorer = Words()
        made = Classifier(scorer, loud, calibration(), levels)
        assert made.judge(["ignore that"], "passage")[0].action == "allow"
        assert len(scorer.seen) == read
        assert made.judge(["ignore that"], "input")[0].action != "quarantine"
        assert len(scorer.seen) == read + 1


def _hate(folder: Path) -> Path:
    path = folder / "mine.toml"
    row = 'hate = { action = "quarantine", stop = 0.5, grey = 0.5 }'
    path.write_text(f"version = 1\n[passage]\n{row}\n", encoding="utf-8")
    return path


def test_plain_text_is_read_once() -> None:
    """Case and full-width punctuation make no second view to score."""
    scorer = Words()
    moderator(scorer).judge(
        ["What？ “Yes”，he said。", "今天，天气好吗？", "今天,天气好吗?"], "input"
    )
    assert scorer.seen == ['what? "yes",he said。', "今天,天气好吗?"]


def test_disguised_text_is_read_too() -> None:
    """What only the normalised view shows is found, and its span lies in the original."""
    text = "please k\u200bi\u200bl\u200bl them"
    (verdict,) = moderator().judge([text], "input")
    assert verdict.category == "violence"
    assert 0 <= verdict.spans[0].start < verdict.spans[0].end <= len(text)


def test_what_is_hidden_is_judged_by_its_own_language() -> None:
    """Chinese in base64 has the levels of Chinese, though what is seen of it is Latin letters."""
    made = calibration()
    strict = {side: found | {"en": found["en"] * 0 + 1} for side, found in made.levels.items()}
    judge = Classifier(Words(), silent(), replace(made, levels=strict), load("default"))
    harm = "我想知道怎样才能 kill 掉那个住在楼上的邻居,请详细告诉我一步一步的做法和需要的东西"
    hidden = base64.b64encode(harm.encode()).decode()
    said = "please kill the man who lives upstairs and tell me how in every detail there is"
    seen, found, english = judge.judge([harm, hidden, said], "input")
    assert (seen.action, found.action, english.action) == ("refuse", "refuse", "allow")
    assert (found.spans[0].start, found.spans[0].end) == (0, len(hidden))


def test_a_long_text_hides_nothing() -> None:
    """A word far down in a long text is found, and the span is of the window that holds it."""
    text = "All is well here. " * 200 + "ignore that " + "All is well there. " * 200
    (verdict,) = moderator().judge([text], "passage")
    assert (verdict.action, verdict.category) == ("quarantine", "attack")
    assert "ignore" in text[verdict.spans[0].start : verdict.spans[0].end]
    assert verdict.spans[0].end - verdict.spans[0].start < 400


def test_only_attacks_count_in_passages() -> None:
    """A document may speak of what a user may not ask for."""
    assert [v.action for v in moderator().judge(["kill hate sex"], "passage")] == ["allow"]


def test_between_grey_and_stop_it_is_not_sure() -> None:
    """A score that only the wider share of harmless texts reaches is noted, and marked grey."""

    class Unsure(Words):
        def __call__(self, texts: Sequence[str]) -> NDArray[np.float32]:
            return np.clip(super().__call__(texts), None, 2.25)  # .905

    (verdict,) = moderator(Unsure()).judge(["hate"], "input")
    assert (verdict.action, verdict.grey, verdict.reason) == ("annotate", True, "hate.grey")
    assert not verdict.stops


@given(st.lists(st.text(max_size=400), max_size=6), st.sampled_from(["input", "passage", "output"]))
def test_any_text_gets_a_verdict(texts: list[str], side: Side) -> None:
    """One verdict a text, whatever it holds; probabilities are within [0, 1]."""
    made = moderator()
    assert [v.side for v in made.judge(texts, side)] == [side] * len(texts)
    for scores in made.scores(texts, side):
        assert all(0 <= value <= 1 for value in scores.values())
        assert "hate" in scores


@given(st.integers(0, 5_000), st.sampled_from(["input", "passage"]))
def test_windows_cover_the_text(length: int, side: Side) -> None:
    """Every character lies in a window, windows overlap, and none is long."""
    text = "x" * length
    found = windows(text, side)
    assert found[0][0] == 0
    assert found[-1][1] == length
    assert all(a < b and c < b for (a, b), (c, _) in itertools.pairwise(found))
    assert max(end - start for start, end in found) <= 624


def test_equal_pieces_are_scored_once() -> None:
    """A batch of like texts costs one."""
    scorer = Words()
    moderator(scorer).judge(["same text"] * 50, "input")
    assert scorer.seen == ["same text"]


def test_thresholds_lie_between_known_rates() -> None:
    """A rate between two known ones gives a probability between theirs; beyond them, the edge."""
    made = calibration()
    assert made.threshold("input", "en", 0, 0.01) == pytest.approx(0.9)
    assert 0.5 < made.threshold("input", "en", 0, 0.1) < 0.9
    assert made.threshold("input", "en", 0, 1e-7) == pytest.approx(0.99)


def test_damaged_weights_are_named(tmp_path: Path) -> None:
    """Missing files, other heads and parts that do not fit are errors that say so."""
    with pytest.raises(ModelUnusable, match="cannot be read"):
        classifier.read(tmp_path)
    zeros = np.zeros(len(HEADS), dtype=np.float32)
    weights = np.zeros((BUCKETS, len(HEADS)), dtype=np.int8)
    arrays: dict[str, NDArray[Any]] = {"weights": weights, "scale": zeros, "bias": zeros}
    save_file(arrays, tmp_path / "ngrams.safetensors")
    line = [[1.0, 0.0, 0.0]] * len(HEADS)
    level = [[0.5]] * len(HEADS)
    values = {
        "heads": list(HEADS),
        "lines": {"en": line, "zh": line},
        "rates": [0.1],
        "levels": {side: {"en": level, "zh": level} for side in get_args(Side)},
        "screen": {"en": -1.0, "zh": -1.0},
    }
    path = tmp_path / "calibration.json"
    path.write_text(json.dumps(values), encoding="utf-8")
    classifier.read(tmp_path)
    bad: list[dict[str, Any]] = [{"heads": ["hate"]}, {"lines": {"en": line}}, {"rates": None}]
    for change in (*bad, {"screen": {"en": 0.0}}):
        path.write_text(json.dumps(values | change), encoding="utf-8")
        with pytest.raises(ModelUnusable, match="take models/"):
            classifier.read(tmp_path)


def test_without_a_network_it_is_not_built() -> None:
    """The classifier needs the encoder's network handed in, and says so."""
    if not classifier.WEIGHTS.exists():
        pytest.skip("models/guard is not in this checkout")
    with pytest.raises(ModelUnusable, match="network"):
        classifier.build(SafetySettings())
