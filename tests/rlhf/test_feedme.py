from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from assistant.prompt import ABSTAIN
from rlhf._loop_tasks import Task
from rlhf.actor_quote import QuoteActor
from rlhf.errors import TrainingError
from rlhf.feedme import FeedME, FeedMESettings, Rated, chosen, of_log, of_policy, rollout_of
from rlhf.preferences import PreferenceStore
from rlhf.schema import Rollout, Sample
from tests.assistant import quoters
from tests.rlhf.conftest import make_feedback, make_record
from tests.rlhf.cycle_parts import tasks
from tests.rlhf.toys import Table

FAST = FeedMESettings(steps=6, rows=4, micro=2, rate=3e-3, warmup=1, save_every=2)


def rated(rating: float = 1.0, **values: object) -> Rated:
    """An answer of two tokens, the second of them forced."""
    rollout = Rollout((0,), (3, 1), (True, False), None, "stop")
    return replace(Rated(rollout, rating), **values)  # type: ignore[arg-type]


def test_d43_nothing_below_the_threshold_or_of_held_out_users_enters() -> None:
    """Nor does an answer in which nothing was chosen."""
    good = rated()
    forced = replace(good.rollout, actions=(False, False))
    rows = [
        good,
        rated(0.99),
        rated(split="test"),
        rated(split="dev"),
        replace(good, rollout=forced),
    ]
    assert chosen(rows, 1.0) == [good]


def test_d43_only_training_users_of_the_log_are_read(tmp_path: Path) -> None:
    """Liked, picked and written answers of training users, and of nobody else."""
    store = PreferenceStore(tmp_path / "log.db")
    for number in range(40):
        turn, user = f"t{number}", f"user{number}"
        store.add_turn(make_record(turn, f"c{number}", user, "Fact 1 [1]."))
        thumb = make_feedback("thumb", turn, user, candidate_ids=(f"c{number}",), value=1)
        store.add_feedback(replace(thumb, value=1 if number % 2 else -1))
    asked: list[Sample] = []
    one = tasks(1)[0]

    def lay(sample: Sample) -> Task:
        asked.append(sample)
        return replace(one, texts=("Fact 1", *one.texts[1:]))

    rows = list(of_log(store, lay))
    splits = {t.origin.split for t in store.thumbs()}
    assert splits == {"train", "dev", "test"}
    assert {s.split for s in asked} == {"train"}
    assert {row.rating for row in rows} == {0.0, 1.0}
    liked = sum(t.label for t in store.thumbs("train"))
    assert len(chosen(rows, 1.0)) == liked
    store.close()


def test_d43_the_loss_is_over_what_was_chosen_alone(tmp_path: Path) -> None:
    """Forced tokens, evidence and prompts give no gradient, whatever their tokens are."""
    table = Table(5, 2)
    made = FeedME(table, [rated()], replace(FAST, rows=1), tmp_path)
    (part,) = made.loss(0)
    torch.autograd.backward(part)
    gradient = table.logits.grad
    assert gradient is not None
    assert gradient[0, 0].abs().sum() > 0
    expected = -table.logits.detach()[0, 0].log_softmax(0)[3]
    # the table looks at every place, so what it says of the forced one must be masked out
    assert float(part.detach()) == pytest.approx(float(expected), abs=1e-5)
    assert gradient[0, 1].abs().sum() == 0


def test_a_text_is_found_again_as_an_answer() -> None:
    """Every answer of a tree says a text that leads back to what it quotes, in its order."""
    task = tasks(1)[0]
    for path in list(task.paths.whole())[:40]:
        found = rollout_of(task, task.reply(path))
        assert found is not None
        assert found.completion == path
        assert found.finish == "stop"
        assert found.allowed is not None
        for token, allowed, action in zip(
            found.completion, found.allowed, found.actions, strict=True
        ):
            assert allowed is not None
            assert token in allowed
            assert action == (len(allowed) > 1)
    assert rollout_of(task, "Something a user wrote.") is None
    abstained = rollout_of(task, ABSTAIN)
    assert abstained is not None
    assert task.reply(abstained.completion) == ABSTAIN


def test_the_best_of_several_draws_is_kept() -> None:
    """With the score it got; of one draw it is that draw."""
    table = Table(6, 1, contexts=3)

    def score(rows: Sequence[int], rollouts: Sequence[Rollout]) -> list[float]:
        return [float(r.completion[0]) for r in rollouts]

    many = of_policy(table, [0, 1, 2], score, 64, torch.Generator().manual_seed(1))
    assert [row.rating for row in many] == [5.0] * 3
    assert all(row.rollout.completion[0] == row.rating for row in many)
    with pytest.raises(ValueError, match="draw 1 or more"):
        of_policy(table, [0], score, 0, torch.Generator())


def test_imitation_makes_the_good_answers_likelier_and_goes_on_where_it_stopped(
    tmp_path: Path,
) -> None:
    """Weights are the same to the bit whether a run was broken off or not."""
    rows = []
    for task in tasks(6):
        found = rollout_of(task, f"{task.texts[0]} [1]")
        assert found is not None
        rows.append(Rated(found, 1.0))

    def total(actor: QuoteActor) -> float:
        with torch.no_grad():
            return float(actor.look([row.rollout for row in rows], 1.0).logprobs.sum())

    whole = QuoteActor(quoters.network())
    before = total(whole)
    list(FeedME(whole, rows, FAST, tmp_path / "a").run())
    assert total(whole) > before
    for line in FeedME(QuoteActor(quoters.network()), rows, FAST, tmp_path / "b").run():
        if line.startswith("step 4/"):
            break
    resumed = QuoteActor(quoters.network())
    again = FeedME(resumed, rows, FAST, tmp_path / "b")
    assert again.loop.step == 4
    list(again.run())
    assert all(torch.equal(whole.policy[k], v) for k, v in resumed.policy.items())


def test_nothing_to_imitate_is_said(tmp_path: Path) -> None:
    """With the threshold."""
    with pytest.raises(TrainingError, match="rated 2 or better"):
        FeedME(Table(5, 2), [rated()], replace(FAST, least=2.0), tmp_path)
