from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from assistant.prompt import ABSTAIN
from rlhf._loop_reward import LIKED, Judge, mix
from rlhf.reward import Composite
from rlhf.scoring import RewardModel, Scale
from tests.rlhf.cycle_parts import shorter, tasks


def judge() -> Judge:
    """The terms of a run with a reward model that likes short replies, and no rules."""
    liking = RewardModel(shorter, Scale(), "short")
    return Judge(Composite(mix(preference=True, rules=False), preference=liking))


def test_what_is_liked_weighs_less_where_the_answer_is_known() -> None:
    """A user's prompt, of which nobody knows, has the whole score and no label's."""
    known = tasks(1)[0]
    told, asked = known, replace(known, id="user", answerable=None)
    reply = f"{known.texts[0]} [1]"
    found = judge().terms([told, asked], [reply, reply])
    assert found["preference"][1] != 0
    assert found["preference"][0] == pytest.approx(LIKED * found["preference"][1])
    assert (found["right"] + found["wrong"])[1] == 0
    assert abs((found["right"] + found["wrong"])[0]) == 1


def test_no_liking_outweighs_what_is_right() -> None:
    """Of two sentences the right one is worth more, however much longer, and than refusing."""
    task = next(t for t in tasks(6) if t.answerable)
    right = next(iter(task.right))
    wrong = next(n for n in range(len(task.texts)) if n not in task.right)
    said = [f"{task.texts[right]} [1]", f"{task.texts[wrong]} [1]", ABSTAIN]
    worth = judge().totals([task] * 3, said)
    liked = judge().terms([task] * 3, said)["preference"]
    assert np.ptp(liked) < 2 * LIKED * 3  # scores are about -3 to 3
    assert worth[0] > max(worth[1:])
