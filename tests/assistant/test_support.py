"""The trained half of the support check, with a tiny network in the place of the real one."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import save_file

from assistant import support as trained
from assistant.build import supporter_of
from assistant.checking import SUPPORT, check
from assistant.config import Settings, load
from assistant.errors import ModelNotFound
from assistant.figures import figures, missing
from assistant.grounding import Grounder, support
from assistant.support import ASKS, KINDS, MOST, ROOM, Calibration, Trained, units, windows
from retrieval.schema import Chunk, Passage
from retrieval.text import content_words, count_tokens, sentences

WIDGET = (
    "The widget costs 40 euros in Lyon. It was made in 1999 by Mara Lind. It is not waterproof. "
    "Repairs are free for two years."
)
TOWER = "北京塔高300米，建于1999年。门票四十元。周末免费参观。"


class Overlap:
    """Logits by the words a sentence shares; a "not" on one side contradicts. Keeps its texts."""

    id, width = "overlap", 2

    def __init__(self, sure: float = 0.0) -> None:
        """`sure` is added to the logit of support."""
        self.read: list[str] = []
        self._sure = sure

    def __call__(self, texts: Sequence[str]) -> np.ndarray:
        """(len(texts), 2)."""
        self.read += texts
        rows = []
        for text in texts:
            claim, _, window = text.partition(ASKS)
            said = {w.lower() for w in content_words(claim)}
            best = (0.0, False)
            for a, b in sentences(window):
                held = {w.lower() for w in content_words(window[a:b])}
                denied = (" not " in claim) != (" not " in window[a:b])
                best = max(best, (len(said & held) / max(1, len(said)), denied))
            rows.append((8 * best[0] - 5 - 8 * best[1] + self._sure, 4.0 if best[1] else -4.0))
        return np.array(rows, dtype=np.float32)


def even(terms: list[str]) -> list[float]:
    """Every word says as much as another."""
    return [1.0] * len(terms)


def made(scorer: trained.Scorer | None = None) -> Trained:
    """Make the check on a tiny network."""
    lines = {kind: np.array([[1.0, 0.0]] * 2, dtype=np.float32) for kind in KINDS}
    return Trained(scorer or Overlap(), Calibration(lines, dict.fromkeys(KINDS, 0.5)))


def passage(text: str, number: int = 1) -> Passage:
    """Make a passage that says `text`."""
    chunk = Chunk(number, number, text, 0, len(text), (), 0)
    return Passage(chunk, f"{number}.md", "Doc", "en", "v", 0.0, 0.0, 1.0, ())


def said(text: str, *bodies: str, scorer: trained.Scorer | None = None) -> str:
    """Say how a sentence is supported; "dropped" where it may not be shown."""
    found = [passage(body, n) for n, body in enumerate(bodies, start=1)]
    grounded = Grounder(found, even, "drop", made(scorer)).sentence(text)
    return grounded.support if grounded else "dropped"


def test_a_quote_is_not_read() -> None:
    """What stands in the passage is supported whatever the network says, and costs nothing."""
    scorer = Overlap(sure=-100.0)
    assert said("It is not waterproof. [1]", WIDGET, scorer=scorer) == "quote"
    assert scorer.read == []


@pytest.mark.parametrize(
    "sentence",
    [
        "The widget costs 41 euros in Lyon, they say. [1]",
        "The widget costs forty-one euros, they say. [1]",
        "The widget, made by Otto Lind, costs 40 euros. [1]",
        "It was made in 2001 by Mara Lind, they say. [1]",
    ],
)
def test_another_number_or_name_is_never_supported(sentence: str) -> None:
    """However sure the network is; it is not even asked."""
    scorer = Overlap(sure=100.0)
    assert said(sentence, WIDGET, scorer=scorer) == "dropped"
    assert scorer.read == []


def test_both_checks_must_agree() -> None:
    """Words without the network do not do, nor the network without a word."""
    claim = "In Lyon the widget costs 40 euros. [1]"
    assert said(claim, WIDGET) == "supported"
    assert said(claim, WIDGET, scorer=Overlap(sure=-100.0)) == "dropped"
    assert said("Cats purr at night. [1]", WIDGET, scorer=Overlap(sure=100.0)) == "dropped"


def test_across_languages_the_network_decides() -> None:
    """What could not be checked by words alone is supported or not."""
    claim = "The tower was built in 1999. [1]"
    assert said(claim, TOWER, scorer=Overlap(sure=100.0)) == "supported"
    assert said(claim, TOWER, scorer=Overlap(sure=-100.0)) == "dropped"
    assert said("The tower was built in 2001. [1]", TOWER, scorer=Overlap(sure=100.0)) == "dropped"


def test_the_citation_holds_the_sentence_that_says_so() -> None:
    """Not the window that was read, but the sentence in it."""
    grounder = Grounder([passage(WIDGET)], even, "drop", made())
    grounder.sentence("By Mara Lind it was made in 1999. [1]")
    assert [c.quote for c in grounder.citations] == ["It was made in 1999 by Mara Lind."]


def test_a_flagged_sentence_names_the_place_that_contradicts_it() -> None:
    """In flag mode the reader can be shown what speaks against it."""
    grounder = Grounder([passage(WIDGET)], even, "flag", made())
    found = grounder.sentence("The widget is waterproof. [1]")
    assert found is not None
    assert found.support == "unsupported"
    assert found.against is not None
    number, start, end = found.against
    assert (number, WIDGET[start:end]) == (1, "It is not waterproof.")


@given(st.text(max_size=80), st.lists(st.text(max_size=200), max_size=3))
def test_whatever_is_read_has_a_support(text: str, bodies: list[str]) -> None:
    """A number in [0, 1], and places that lie in their passages; with the network and without."""
    for scorer in (made(Overlap(sure=100.0)), None):
        for body, found in zip(bodies, check(text, bodies, even, scorer), strict=True):
            assert 0 <= found.start <= found.end <= len(body)
            assert 0 <= found.score <= 1
            assert (found.score >= SUPPORT) == (found.support in ("quote", "supported"))
        passages = [passage(body, n) for n, body in enumerate(bodies, start=1)]
        assert 0 <= support(text, passages, even, scorer) <= 1


@given(st.text(alphabet="ab 。.不x\n1,", max_size=300), st.text(max_size=60))
def test_windows_are_stretches_that_can_be_read(body: str, claim: str) -> None:
    """Units lie in order in the passage; a window holds whole ones, as many as may be read."""
    spans = units(body)
    assert all(a < b for a, b in spans)
    assert list(spans) == sorted(spans)
    for a, b in windows(claim, body):
        inner = [u for u in spans if a <= u[0] and u[1] <= b]
        assert (inner[0][0], inner[-1][1]) == (a, b)
        assert len(inner) <= MOST
        assert len(inner) == 1 or sum(count_tokens(body[x:y]) for x, y in inner) <= ROOM


@pytest.mark.parametrize(
    "body",
    [
        "word " * 20_000,
        "好" * 100_000,
        "The widget number 7 is blue. " * 3_500,
        "x" * 100_000,
        "第7号产品是蓝色的。" * 10_000,
    ],
)
def test_a_long_passage_is_read_in_bounded_time(body: str) -> None:
    """100,000 characters: few windows, each short, within seconds."""
    scorer = Overlap()
    begun = time.process_time()
    for text in ("The widget is blue, said Lind. [1]", "产品不是蓝色的。[1]", "w " * 50_000):
        said(text, body, scorer=scorer)
    assert time.process_time() - begun < 20
    assert len(scorer.read) < 80
    assert max(map(count_tokens, scorer.read), default=0) < 200


def test_a_sentence_too_long_to_be_read_is_not_believed() -> None:
    """Its weakest piece counts, and beyond a few pieces nothing is read."""
    checker = made(Overlap(sure=100.0))
    (found,) = checker.score(["The widget is blue, " * 200], [WIDGET])
    assert (found.probability, found.supported) == (0.0, False)


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("1,000 and １０００", {"1000"}),
        ("1.5 million", {"1500000"}),
        ("150万", {"1500000"}),
        ("forty-two", {"42"}),
        ("四十二", {"42"}),
        ("两万五千", {"25000"}),
        ("29 February 2004", {"29", "2", "2004"}),
        ("2004年02月29日", {"29", "2", "2004"}),
        ("一九九九年", {"1999"}),
        ("version 1.10", {"1.10"}),
        ("one of the two, 十分好，千万别去", set()),
    ],
)
def test_numbers_are_compared_by_their_value(text: str, values: set[str]) -> None:
    """However they are written, in either language."""
    assert figures(text) == values


@pytest.mark.parametrize(
    ("text", "body", "gone"),
    [
        ("It is an American firm.", "A firm of America.", False),
        ("It is a French firm.", "A firm in France.", False),
        ("The NPS runs it.", "The National Park Service runs it.", False),
        ("It was made by Otto Lind.", "It was made by Mara Lind.", True),
        ("In March 2004 it closed.", "Closed on 2004-03-12.", False),
        ("她为Google工作。", "She works for Microsoft.", True),
        ("She works for Google.", "她在谷歌工作。", False),
    ],
)
def test_names_must_stand_in_the_passage(text: str, body: str, gone: bool) -> None:
    """In another form, by initials, by their nation; not where the scripts differ."""
    assert missing(text, body) is gone


def test_names_may_stand_in_the_title() -> None:
    """A passage need not repeat what its document is about."""
    assert not missing("The Halden Ferry is red.", "It is red.", "Halden Ferry")


def test_without_weights_words_are_compared(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The log says so, and how to get them."""
    with caplog.at_level(logging.WARNING):
        assert supporter_of(Settings(), tmp_path) is None
    assert "train support" in caplog.text


def test_without_the_setting_nothing_is_loaded(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """`policy.support=words` is silent."""
    assert supporter_of(load(overrides={"policy.support": "words"}), tmp_path) is None
    assert caplog.text == ""


def test_damaged_weights_are_named(tmp_path: Path) -> None:
    """Half a file, or one of another encoder: the path and the remedy."""
    path = tmp_path / "heads.safetensors"
    path.write_bytes(b"\x08\x00\x00\x00")
    with pytest.raises(ModelNotFound, match=r"heads\.safetensors.*policy\.support to words"):
        supporter_of(Settings(), tmp_path)
    save_file({"head": np.zeros((384, 2), dtype=np.float16)}, path, {"encoder": "another"})
    with pytest.raises(ModelNotFound, match="another"):
        supporter_of(Settings(), tmp_path)


@pytest.mark.parametrize(
    "card",
    [
        None,
        {"heads": ["other"], "lines": {}, "levels": {}},
        {"heads": list(trained.HEADS), "lines": {}, "levels": {}},
        {
            "heads": list(trained.HEADS),
            "lines": {k: [[1, 0], [1, 0]] for k in KINDS},
            "levels": dict.fromkeys(KINDS, 2.0),
        },
    ],
)
def test_a_damaged_calibration_is_named(tmp_path: Path, card: object) -> None:
    """Missing, of other heads, cut short, or with a level that is no probability."""
    if card is not None:
        (tmp_path / "calibration.json").write_text(json.dumps(card), encoding="utf-8")
    with pytest.raises(ModelNotFound, match="cannot be read"):
        trained.build(Overlap(), tmp_path)
