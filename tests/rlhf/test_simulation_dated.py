from __future__ import annotations

import random
from pathlib import Path

import pytest

from rlhf.actor_quote import QuoteActor
from rlhf.preferences import PreferenceStore
from rlhf.simulation import Annotator, collect
from rlhf.simulation_dated import YEARS, dated, editions
from tests.assistant import quoters
from tests.rlhf.cycle_parts import LAYOUT, WEIGHTS, lesson


@pytest.mark.parametrize("lang", ["en", "zh"])
def test_an_answer_comes_in_two_editions_that_only_the_year_tells_apart(lang: str) -> None:
    """Both are right, each stands whole in its passage, and either may stand first."""
    firsts = set()
    for seed in range(12):
        made = editions(lesson(1, lang, right=(1,)), random.Random(seed))
        right = [n for n, one in enumerate(made.right) if one]
        years = [next(y for y in YEARS if made.passages[made.spans[n][0]].endswith(str(y)))
                 for n in right]  # fmt: skip
        assert sorted(years) == list(YEARS)
        for n, year in zip(right, years, strict=True):
            assert str(year) in made.texts[n]
            assert made.texts[n].endswith(lesson(1, lang, right=(1,)).texts[1])
        firsts.add(years[0])
        assert len(made.texts) == len(made.matrix) == len(made.spans) == len(made.rarest)
        task = dated(lesson(1, lang, right=(1,)), WEIGHTS[lang], LAYOUT, random.Random(seed))
        for text, place in zip(task.texts, task.places, strict=True):
            assert text in task.passages[place - 1].chunk.text
    assert firsts == set(YEARS)


def test_what_nothing_answers_has_no_editions() -> None:
    """And there is nothing to taste."""
    plain = lesson(1, right=())
    assert editions(plain, random.Random(1)) is plain
    task = dated(plain, WEIGHTS["en"], LAYOUT, random.Random(1))
    assert Annotator("newest").follows(task, f"{task.texts[0]} [1]") is None


def test_simulated_people_who_want_the_newest_pick_it(tmp_path: Path) -> None:
    """Of two right answers the newer one, but for the noise; through the chat's own log."""
    own, dice = Annotator("newest", noise=0.0), random.Random(1)
    rows = [dated(lesson(n, right=(n % 4,)), WEIGHTS["en"], LAYOUT, dice) for n in range(24)]
    for task in rows:
        newest = max(task.right, key=lambda n: task.passages[task.places[n] - 1].modified)
        oldest = min(task.right, key=lambda n: task.passages[task.places[n] - 1].modified)
        said = tuple(f"{task.texts[n]} [{task.places[n]}]" for n in (oldest, newest))
        assert own.picks(task, (said[0], said[1]), dice) == 1
        assert [own.follows(task, one) for one in said] == [False, True]
    store = PreferenceStore(tmp_path / "preferences.db")
    actor = QuoteActor(quoters.network())
    found = collect(actor, rows, own, store.add_turn, store.add_feedback, 96, seed=2)
    assert found.picks > 20
    by_question = {task.question: task for task in rows}
    liked = [
        (own.gold([whose], [pair.chosen])[0], own.gold([whose], [pair.rejected])[0])
        for pair in store.pairs()
        if (whose := by_question.get(pair.prompt[-1].text.split("Question: ")[-1])) is not None
    ]
    assert len(liked) > 20
    assert all(chosen > rejected for chosen, rejected in liked)
    store.close()
