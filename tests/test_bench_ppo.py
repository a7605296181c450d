from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import GPT2ForSequenceClassification, GPT2LMHeadModel

from bench import ppo, ppo_clock, ppo_offline, ppo_ours, ppo_spent, ppo_task
from rlhf.actor_causal import CausalActor, Prompted
from rlhf.ppo import PPO
from rlhf.schema import Rollout
from tests.rlhf.toys import Table

SHAPE = ppo_task.Shape(layers=2, width=32, vocabulary=128, shortest=3, longest=6, answer=5)


def options(*given: str) -> argparse.Namespace:
    """The smallest sizes."""
    sizes = "--quick --layers 2 --width 32 --vocabulary 128 --answer 5 --episodes 8 --micro 4"
    return ppo._options([*sizes.split(), "--updates", "2", "--threads", "1", *given])


def job(folder: Path, *given: str, **changed: Any) -> dict[str, Any]:
    """A job for our side."""
    asked = options(*given)
    ids = ppo_task.make(folder, SHAPE, asked.natural)
    return ppo.told(asked, SHAPE, ids, 1) | {"folder": str(folder), "critic": True} | changed


def test_the_reward_model_has_the_taste_that_was_planted() -> None:
    """Its scores have mean 0 and deviation 1, and follow the share of good tokens."""
    good = torch.sign(torch.randn(128, generator=torch.Generator().manual_seed(1)))
    judge = ppo_task.planted(SHAPE, good)
    ids = torch.randint(128, (512, 9), generator=torch.Generator().manual_seed(2))
    rows = [Rollout(tuple(r[:4]), tuple(r[4:]), (True,) * 5, None, "stop") for r in ids.tolist()]
    scores = torch.tensor(ppo_ours.scores(judge, rows))
    assert abs(float(scores.mean())) < 0.2
    assert float(scores.std()) == pytest.approx(1, abs=0.2)
    both = torch.stack((scores, good[ids].mean(1)))
    assert float(torch.corrcoef(both)[0, 1]) > 0.9


def test_the_reward_model_scores_the_last_token_whatever_is_beside_it() -> None:
    """A row's score is that of the row alone."""
    torch.manual_seed(0)
    judge = ppo_task.planted(SHAPE, torch.ones(128))
    rows = [Rollout((5,) * n, (7,), (True,), None, "stop") for n in (3, 6)]
    alone = [ppo_ours.scores(judge, [row])[0] for row in rows]
    assert ppo_ours.scores(judge, rows) == pytest.approx(alone, abs=1e-4)


@pytest.mark.parametrize("critic", [True, False])
def test_our_side_counts_what_it_does(tmp_path: Path, critic: bool) -> None:
    """Four steps an update, all phases timed, as many tokens as were asked for."""
    found = ppo_clock.measured(ppo_ours.system, job(tmp_path, critic=critic))
    assert found["steps"] == 2 * 4
    assert len(found["updates"]) == 2
    for row in found["updates"]:
        assert row["tokens"] == 8 * 5
        assert min(row["generate"], row["score"], row["train"]) > 0
        assert {"reward", "kl", "cpu"} < row.keys()
    assert found["updates"][0]["kl"] == pytest.approx(0, abs=1e-4)
    assert abs(found["updates"][1]["kl"]) > 1e-6


def test_a_shared_trunk_takes_fewer_operations(tmp_path: Path) -> None:
    """Counted, not timed."""
    flops = [
        ppo_clock.measured(ppo_ours.system, job(tmp_path, critic=critic, flops=True, updates=1))[
            "flops"
        ]
        for critic in (True, False)
    ]
    assert flops[0] > 1.3 * flops[1] > 0


def test_answers_may_end_by_themselves(tmp_path: Path) -> None:
    """Then they are shorter than the longest, and ids of padding and end are what TRL asks for."""
    asked = job(tmp_path, "--natural", answer=40)
    found = ppo_clock.measured(ppo_ours.system, asked | {"answer": 5, "updates": 1})
    assert found["updates"][0]["tokens"] < 8 * 5
    assert (asked["pad"], asked["eos"]) == (128, ppo_task.END)
    assert all(ppo_task.END not in row for row in asked["tasks"])


def test_both_sides_get_the_prompts_in_one_order(tmp_path: Path) -> None:
    """What the others are given is what our loop draws to, update by update."""
    given = job(tmp_path)
    drawn: list[int] = []

    class Recording(Table):
        """Remembers its tasks."""

        def draw(
            self, tasks: Sequence[int], temperature: float, generator: torch.Generator
        ) -> list[Rollout]:
            drawn.extend(tasks)
            return super().draw(tasks, temperature, generator)

    def reward(tasks: Sequence[int], rollouts: Sequence[Rollout]) -> dict[str, list[float]]:
        return {"none": [0.0] * len(tasks)}

    tasks = [*range(len(given["tasks"]))]
    loop = PPO(Recording(8, 2, len(tasks)), tasks, reward, ppo_ours.settings(given), tmp_path)
    for _ in zip(range(2), loop.train(), strict=False):
        pass
    assert [given["tasks"][n] for n in drawn[:16]] == given["drawn"]


def test_the_critic_begins_as_the_reward_model(tmp_path: Path) -> None:
    """Both sides load it from one folder, and the policy has the size that the note names."""
    ppo_task.make(tmp_path, SHAPE, natural=False)
    loaded: Any = GPT2ForSequenceClassification.from_pretrained(tmp_path / "reward")
    assert loaded.score.out_features == 1
    whole: Any = GPT2LMHeadModel(ppo_task._config(ppo_task.Shape()))
    assert sum(p.numel() for p in whole.parameters()) == pytest.approx(5.3e6, rel=0.02)


def test_a_side_runs_in_its_own_process(tmp_path: Path) -> None:
    """A job goes through a file, and so does what was measured."""
    given = job(tmp_path, updates=1)
    found = ppo.started("ours_best", given, tmp_path)
    assert found["steps"] == 4
    assert found["version"].startswith("plumbline ")
    assert 0 < found["base_mib"] <= found["peak_mib"]


def run(train: float, reward: float, kl: float, steps: int = 8) -> dict[str, Any]:
    """A run of three updates as a process tells it; the first one is slow."""
    rows = [
        {"generate": 1.0, "score": 0.5, "train": 9 * train if n == 0 else train, "other": 0.0,
         "cpu": train, "tokens": 40.0}
        for n in range(3)
    ]  # fmt: skip
    spent = [{"kl": kl * n / 3, "reward": reward * n / 3} for n in range(4)]
    return {"updates": rows, "steps": steps, "flops": 0, "base_mib": 1, "peak_mib": 2,
            "version": "1", "spent": spent}  # fmt: skip


def test_ratios_are_of_runs_that_belong_together() -> None:
    """The median over repeats, without the first update; the best rival for the best row."""
    runs = {
        "ours_same": [run(2.5, 1, 2), run(1.0, 1, 2), run(6.0, 1, 2)],
        "trl": [run(4.5, 1, 4), run(3.5, 1, 4), run(10.0, 1, 4)],
        "ours_best": [run(0.5, 1, 2)] * 3,
        "trl_whole": [run(2.5, 1, 4)] * 3,
    }
    found = ppo.summary(runs, {"ours_same": 2.0, "trl": 3.0, "ours_best": 1.0, "trl_whole": 4.0})
    assert found["same_ratio"] == round(11.5 / 7.5, 3)
    assert found["best_ratio"] == round(4.0 / 2.0, 3)
    assert (found["same_ratio_flops"], found["best_ratio_flops"]) == (1.5, 3.0)
    assert found["repeats"] == 3
    assert (found["kl_ours"], found["kl_trl"], found["kl_equal"]) == (2.0, 4.0, 2.0)
    assert found["kl_gap"] == [-2.0, -2.0, -2.0]
    assert (found["last_ours"], found["last_trl"]) == (1.0, 1.0)
    assert (found["reward_ours"], found["reward_trl"]) == (1.0, 0.5)
    assert found["reward_gain"] == [0.5, 0.5, 0.5]
    assert ppo.summary({"rloo": runs["trl"]}, {"rloo": 1.0})["same_ratio"] is None


def test_scores_are_compared_where_the_kl_is_equal() -> None:
    """Between two updates they are drawn straight; what spent nothing stands at the beginning."""
    assert ppo.at_equal_kl(run(1, 2.0, 4.0), run(1, 2.0, 1.0)) == pytest.approx((0.5, 2.0, 1.0))
    assert ppo.at_equal_kl(run(1, 2.0, 4.0), run(1, 0.0, 0.0)) == (0.0, 0.0, 0.0)


def test_other_steps_are_no_comparison() -> None:
    """A side that took more of them ends the benchmark."""
    ppo.same_steps({"a": [run(1, 1, 1)], "b": [run(2, 1, 1)]})
    with pytest.raises(SystemExit, match="steps differ"):
        ppo.same_steps({"a": [run(1, 1, 1)], "b": [run(1, 1, 1, steps=9)]})


def test_policies_are_read_in_the_order_of_their_updates(tmp_path: Path) -> None:
    """By number, and the first one before them."""
    for name in ("10", "2", "1"):
        (tmp_path / "final" / name).mkdir(parents=True)
    assert [path.name for path in ppo.written(tmp_path)] == ["policy", "1", "2", "10"]


def test_writing_a_policy_takes_no_time_of_an_update(tmp_path: Path) -> None:
    """The phase goes on after it, and nothing is written where nobody asked."""
    clock = ppo_clock.Clock()
    clock.to("generate")
    clock.to("other")

    class Slow:
        """Writing takes longer than anything here."""

        def save_pretrained(self, folder: Path) -> None:
            folder.mkdir(parents=True)
            time.sleep(0.3)

    clock.keep(Slow(), {})
    clock.keep(Slow(), {"final": str(tmp_path / "final")})
    clock.end()
    assert [path.name for path in (tmp_path / "final").iterdir()] == ["1"]
    assert clock.updates[0]["other"] < 0.3


def test_a_critics_first_values_are_the_potential_without_one(tmp_path: Path) -> None:
    """The reward model's score before each token, as the critic of the other system has it."""
    ppo_task.make(tmp_path, SHAPE, natural=False)
    judge: Any = GPT2ForSequenceClassification.from_pretrained(tmp_path / "reward")
    judge.eval()
    model: Any = GPT2LMHeadModel.from_pretrained(tmp_path / "policy")
    actor = CausalActor(model, rank=0, critic=judge)
    rows = [
        Rollout((3,) * n, (7, 8, 9)[:m], (True,) * m, None, "stop") for n, m in ((2, 3), (4, 2))
    ]
    before, end = ppo_ours.judged(judge, rows)
    with torch.no_grad():
        torch.testing.assert_close(before, actor.look(rows, 1.0).values, atol=1e-5, rtol=0)
    assert end.tolist() == pytest.approx(ppo_ours.scores(judge, rows))
    assert before[1, 2] == 0


def test_the_report_ends_with_json(capsys: pytest.CaptureFixture[str]) -> None:
    """With the keys that were promised."""
    ppo.show({"ours_same": [run(1, 1, 1)]}, {"ours_same": 5e9}, options())
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    promised = "same_ratio best_ratio reward_ours reward_trl kl_ours kl_trl repeats"
    assert {*promised.split()} <= found.keys()


def test_what_is_missing_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Environments, with the command that makes them; sizes that do not fit."""
    with pytest.raises(SystemExit, match=r"bench\.ppo --setup"):
        ppo.main(["--quick", "--homes", str(tmp_path)])
    with pytest.raises(SystemExit):
        options("--micro", "3")
    assert "--micro 3 does not divide" in capsys.readouterr().err


def test_what_a_policy_spent_is_counted_the_same_for_all(tmp_path: Path) -> None:
    """The first policy spent nothing; a trained one what its log-ratios say, in the mean."""
    given = job(tmp_path, updates=2, final=str(tmp_path / "final"), rate=3e-3)
    held = ppo_task.prompts(SHAPE, 200, 9)
    none = ppo_spent.weigh(tmp_path, tmp_path / "policy", held, given)
    assert (none["kl"], none["k1"], none["k3"]) == (0.0, 0.0, 0.0)
    ppo_clock.measured(ppo_ours.system, given)
    assert [path.name for path in ppo.written(tmp_path)] == ["policy", "1", "2"]
    half, found = (ppo_spent.weigh(tmp_path, at, held, given) for at in ppo.written(tmp_path)[1:])
    assert 0 < half["kl"] < found["kl"]
    assert found["tokens"] == 5
    assert found["kl"] > 0.05
    allowance = 4 * (2 * found["kl"] / 200) ** 0.5
    assert found["k1"] == pytest.approx(found["kl"], abs=allowance)
    assert found["k3"] == pytest.approx(found["kl"], abs=allowance)
    assert found["reward"] > none["reward"]


def test_a_kl_of_two_known_distributions() -> None:
    """Summed over the answer's tokens, neither the prompt's nor the padding's."""

    class Fixed(torch.nn.Module):
        """One distribution at every place."""

        def __init__(self, chances: list[float]) -> None:
            super().__init__()
            self.logits = torch.tensor(chances).log()

        def forward(self, ids: torch.Tensor, use_cache: bool) -> argparse.Namespace:
            return argparse.Namespace(logits=self.logits.expand(*ids.shape, 2))

    rows = [Rollout((1,) * n, (0,) * m, (True,) * m, None, "stop") for n, m in ((2, 3), (5, 1))]
    found = ppo_spent.divergences(Fixed([0.75, 0.25]), Fixed([0.5, 0.5]), rows)
    exact = 0.75 * math.log(1.5) + 0.25 * math.log(0.5)
    torch.testing.assert_close(found["kl"], torch.tensor([3 * exact, exact]))
    torch.testing.assert_close(found["k1"], torch.tensor([3.0, 1.0]) * math.log(1.5))
    ratio = 1 / 1.5
    torch.testing.assert_close(
        found["k3"], torch.tensor([3.0, 1.0]) * (ratio - 1 - math.log(ratio))
    )


def test_an_answer_without_an_end_loses_the_same_on_both_sides(tmp_path: Path) -> None:
    """One off its score, as TRL does it, and nothing is replaced."""
    given = job(tmp_path, "--natural", answer=40) | {"answer": 5}
    task = ppo_ours.asked((3, 4), given)
    assert task.ended((7, 7, 7, 7, 7))
    assert task.allowed((7, given["eos"])) == ()
    assert task.allowed((7, 7)) is None
    rows = [Rollout((3,), (7, end), (True,) * 2, None, "stop") for end in (given["eos"], 7)]
    assert ppo_ours.cut_off(rows, given) == [0.0, -1.0]
    assert ppo_ours.cut_off(rows, given | {"natural": False}) == [0.0, 0.0]


def test_answers_of_a_fixed_length_are_whole() -> None:
    """They were not cut off, so their score is not replaced."""
    task = ppo_ours.Fixed((1,), frozenset(), 3)
    assert isinstance(task, Prompted)
    assert (task.allowed((4, 5)), task.allowed((4, 5, 6)), task.ended((4,))) == (None, (), True)


@pytest.mark.parametrize("natural", [False, True])
def test_what_learns_without_drawing_gets_judged_answers_of_the_first_policy(
    tmp_path: Path, natural: bool
) -> None:
    """As many as PPO draws, two to a prompt, each with the reward model's own score."""
    given = job(tmp_path, *(["--natural"] if natural else []))
    clock = ppo_clock.Clock()
    _, rows, _ = ppo_offline.drawn(given, clock)
    clock.end()
    assert [prompt for prompt, _ in rows] == [*given["drawn"][:4], *given["drawn"][8:12]]
    assert sum(len(answers) for _, answers in rows) == 2 * 8
    judge: Any = GPT2ForSequenceClassification.from_pretrained(tmp_path / "reward")
    for prompt, answers in rows:
        for ids, score in answers:
            ended = natural and ids[-1] == given["eos"]
            assert len(ids) == 5 or (ended and len(ids) < 5)
            assert given["eos"] not in ids[:-1]
            said = Rollout(tuple(prompt), tuple(ids), (True,) * len(ids), None, "stop")
            lost = 1.0 if natural and not ended else 0.0
            assert score == pytest.approx(ppo_ours.scores(judge.eval(), [said])[0] - lost, abs=1e-4)
    assert len(clock.updates) == 2
    assert sum(row["tokens"] for row in clock.updates) == sum(len(a) for _, x in rows for a, _ in x)


def test_time_of_learning_without_drawing_is_shared_out() -> None:
    """All updates got it together, so each has its part."""
    clock = ppo_clock.Clock()
    for _ in range(4):
        clock.to("generate")
        clock.to("score")

    class Trainer:
        """Takes no time that matters."""

        def train(self) -> None:
            clock.updates[-1]["train"] = 8.0

    ppo_offline.finish(Trainer(), None, {}, clock)
    assert [round(row["train"], 2) for row in clock.updates] == [2.0] * 4
