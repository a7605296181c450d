from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest

from retrieval.embed import _weights
from retrieval.embed.heads import HEAD
from retrieval.embed.heads import load as load_heads
from retrieval.fit._student import write
from rlhf.errors import TrainingError
from rlhf.fit._reward_refit import _fitted, _Pairs, refit
from rlhf.fit._reward_rows import Ranking
from rlhf.scoring import WEIGHTS, load

extension = _weights.extension()
pytestmark = pytest.mark.skipif(extension is None, reason="there is no models/encoder")
ANIMALS = "cat dog horse sheep duck goat cow hen".split()
CARS = "engine gearbox clutch tyre brake bumper axle exhaust".split()


def shipped(folder: Path, columns: int, loud: float) -> Path:
    """A model whose head is drawn by lot and speaks as loudly as that."""
    assert extension is not None
    head = loud * np.random.default_rng(3).normal(size=(_weights.DIM, columns)).astype(np.float16)
    write({HEAD: head}, folder / WEIGHTS, {"encoder": extension.revision})
    return folder


def rankings(count: int, seed: int, liked: float) -> list[Ranking]:
    """Replies on animals and on cars, of which the first are liked in that share."""
    dice = random.Random(seed)
    found = []
    for n in range(count):
        said = (f"It is about a {dice.choice(ANIMALS)}.", f"It is about a {dice.choice(CARS)}.")
        order = (0, 1) if dice.random() < liked else (1, 0)
        pair = ((*order, 1.0),)
        found.append(Ranking("log", "en", "user a", f"What is page {n} about?", said, pair, False))
    return found


@pytest.mark.parametrize("columns", [1, 2])
def test_own_comparisons_turn_the_head(tmp_path: Path, columns: int) -> None:
    """Three quarters of the picks are to a taste, and new replies are scored by it; mean 0, 1."""
    refit(shipped(tmp_path, columns, 0.0), rankings(120, 1, 0.75), tmp_path / "own", 7)
    model = load(tmp_path / "own")
    sides = [
        model([("What is page 500 about?", f"It is about a {word}.") for word in words])
        for words in (ANIMALS, CARS)
    ]
    assert sides[0].mean() > sides[1].mean() + 0.5
    seen = model([(row.question, said) for row in rankings(200, 2, 1.0) for said in row.replies])
    assert (seen.mean(), seen.std()) == pytest.approx((0.0, 1.0), abs=0.25)


def test_a_taste_for_a_year_is_read_from_the_letters(tmp_path: Path) -> None:
    """In both languages, and further comparisons begin where the first ones ended."""
    dice = random.Random(4)
    rows = []
    for n in range(200):
        form = "As of {}: pump %d runs %d hours." if n % 2 else "截至{}年：泵%d运行%d小时。"
        said = tuple(form.format(year) % (n, dice.randint(2, 30)) for year in (2016, 2024))
        order = (1, 0) if dice.random() < 0.75 else (0, 1)
        rows.append(Ranking("log", "en", "a", f"Pump {n}?", said, ((*order, 1.0),), False))
    refit(shipped(tmp_path, 2, 0.0), rows, tmp_path / "own", 7)
    asked = [
        ("How long does the valve run?", f"As of {y}: valve 3 runs 7 hours.") for y in (2024, 2016)
    ]
    asked += [("阀门运行多久？", f"截至{y}年：阀门运行七小时。") for y in (2024, 2016)]
    refit(tmp_path / "own", rows[:20], tmp_path / "again", 7)
    for folder in ("own", "again"):
        found = load(tmp_path / folder)(asked)
        assert found[0] > found[1]
        assert found[2] > found[3]


def test_the_penalty_holds_the_head_where_it_was() -> None:
    """A pull without bound leaves it, a weak one lets it follow; an edit counts for less."""
    gaps = np.eye(3)
    start, prompts = np.zeros(3), np.arange(3)
    pairs = _Pairs(gaps, np.array([1.0, 1.0, 0.5]), prompts)
    held, free = (_fitted(pairs, start, strength) for strength in (1e9, 0.5))
    np.testing.assert_allclose(held, start, atol=1e-6)
    assert free[0] == pytest.approx(free[1], rel=1e-3)
    assert free[0] > free[2] > 0.2
    assert pairs.loss(free) < pairs.loss(start)


def test_without_a_comparison_there_is_nothing_to_fit(tmp_path: Path) -> None:
    """That is said."""
    with pytest.raises(TrainingError, match="no comparison"):
        refit(shipped(tmp_path, 2, 0.1), [], tmp_path / "own", 7)


def test_the_identity_as_head_gives_the_vectors(tmp_path: Path) -> None:
    """And their product with the file's own head is what it computes."""
    folder = shipped(tmp_path, 2, 0.1)
    texts = ["What? >>> A cat.", "什么？ >>> 一只猫。"]
    vectors = load_heads(folder / WEIGHTS, head=np.eye(_weights.DIM, dtype=np.float32))(texts)
    assert vectors.shape == (2, _weights.DIM)
    own = np.random.default_rng(3).normal(size=(_weights.DIM, 2)).astype(np.float16)
    found = load_heads(folder / WEIGHTS)(texts)
    np.testing.assert_allclose(vectors @ (0.1 * own), found, rtol=0.02, atol=0.02)
