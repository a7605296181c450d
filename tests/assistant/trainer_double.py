"""A trainer that trains nothing, for work on the page: same in, same out.

It remembers every verb in `calls`, so that a test can look; `refuse` makes the next verb fail.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

from assistant.errors import TrainerError
from assistant.schema import PolicyCard
from assistant.training import (
    Answer,
    Candidate,
    Choice,
    Collected,
    Decided,
    Evidence,
    GateRow,
    Obstacle,
    Pair,
    Point,
    Remark,
    RewardModel,
    Run,
    Side,
    Standing,
)

NOW = datetime.now(UTC).timestamp()
LIVE, WAITING, POOR = "20261118-090112-5d0c2f9a", "20261121-201455-91be77d0", "20261122-0007-bad0"
HOSTILE = '<img src=x onerror=window.PWN=1><svg onload="window.PWN=1"></svg>'


def points(updates: int = 40) -> tuple[Point, ...]:
    """A run that earns its reward first and over-optimises at the end."""
    found = []
    for i in range(updates):
        kl = 8.0 * (i / 40) ** 1.5
        reward = 0.92 * (1 - math.exp(-i / 14)) + 0.05 * math.sin(i * 1.7)
        gold = reward * (1 - 0.035 * max(0, i - 22)) if i % 5 == 4 else None
        wins = 0.5 + 0.19 * (1 - math.exp(-i / 11)) + 0.012 * math.sin(i) if i % 5 == 4 else None
        found.append(Point(i + 1, reward, kl, wins, gold))
    return tuple(found)


def gate(name: str, value: float | None, low: float, high: float, **more: object) -> GateRow:
    """A gate that passed, unless `more` says otherwise."""
    values: dict[str, object] = {
        "passed": True,
        "low": low,
        "high": high,
        "least": None,
        "most": None,
        "reason": "as it should be",
        "n": 240,
        **more,
    }
    return GateRow(name=name, value=value, **values)  # type: ignore[arg-type]


GATES = (
    gate("win_rate", 0.624, 0.561, 0.683, least=0.5),
    gate("reward_accuracy", 0.688, 0.641, 0.732, least=0.671, n=412),
    GateRow("reward_ece", True, 0.041, None, None, None, 0.1, "off by 0.041", 412),
    gate("safety", -0.004, -0.013, 0.004, most=0.01),
    gate("safety.privacy", 0.0, -0.006, 0.006, most=0.01),
    gate("over_refusal", 0.008, -0.004, 0.019, most=0.02),
    gate("groundedness", 0.011, -0.006, 0.027, least=-0.01),
    gate("answers", 0.034, 0.006, 0.061, least=-0.01),
    gate("length", 0.93, 0.88, 0.98, least=0.8, most=1.25),
    gate("kl", 7.12, 6.74, 7.51, most=10.0),
    gate("sign", 0.21, 0.14, 0.28, least=0.0),
    gate("modelling", 0.002, -0.001, 0.006, most=0.05),
)
FAILED = (
    *GATES[:5],
    gate(
        "over_refusal",
        0.041,
        0.012,
        0.07,
        most=0.02,
        passed=False,
        reason="rises by +0.041, at most +0.070; +0.020 is allowed",
    ),
    *GATES[6:11],
    GateRow("modelling", False, None, None, None, None, None, "not computed: it was not measured"),
)
PAIRS = (
    Pair(
        "pair-1",
        WAITING,
        "How much are hotel costs reimbursed per night?",
        "en",
        Answer(
            "Hotel costs are reimbursed up to 150 euros per night. Breakfast is included in this "
            "amount. Book through the travel desk where you can. [1]",
            (Evidence(1, "Travel handbook", "Hotel costs are reimbursed up to 150 euros."),),
        ),
        Answer(
            "Hotel costs are reimbursed up to 150 euros per night. [1]",
            (Evidence(1, "Travel handbook", "Hotel costs are reimbursed up to 150 euros."),),
        ),
    ),
    Pair(
        "pair-2",
        WAITING,
        "员工每年有多少天年假？",
        "zh",
        Answer("文档里没有找到答案。"),
        Answer(
            "员工每年享有十五天年假。[1]", (Evidence(1, "员工手册", "员工每年享有十五天年假。"),)
        ),
    ),
)


@dataclass
class TrainerDouble:
    """See the module; `full` has everything to show."""

    policy: PolicyCard = field(default_factory=lambda: PolicyCard("quote", "models/policy"))
    obstacles: tuple[Obstacle, ...] = ()
    reward: RewardModel | None = None
    refused: str = ""
    given: Collected = field(default_factory=lambda: Collected((), (), (), 0, 0, 2000, 2000))
    found: list[Run] = field(default_factory=list)
    curve: tuple[Point, ...] = ()
    stock: list[Candidate] = field(default_factory=list)
    log: list[Decided] = field(default_factory=list)
    waiting: list[Pair] = field(default_factory=list)
    calls: list[tuple[object, ...]] = field(default_factory=list)
    refuse: TrainerError | None = None

    @classmethod
    def full(cls) -> TrainerDouble:
        """A week of use: feedback, a run at work, three candidates, two pairs."""
        today = datetime.now(UTC).date()
        days = [(today - timedelta(days=n), (n * 37 + 11) % 29) for n in range(26, -1, -1)]
        return cls(
            policy=PolicyCard("quote", "models/policy", version=LIVE),
            reward=RewardModel("models/reward", 0.688, 0.641, 0.732, 412, 0.543, 0.041),
            given=Collected(
                (
                    ("comparison", 1384),
                    ("tie", 122),
                    ("edit", 87),
                    ("liked", 2310),
                    ("disliked", 418),
                    ("demonstration", 87),
                    ("imported", 10_000),
                ),
                (("zh", 861), ("en", 523)),
                tuple((day.isoformat(), n) for day, n in days if n),
                41,
                1102,
                2000,
                898,
                (
                    Remark("duplicates", "12 comparisons are there twice", 12),
                    Remark("largest", "one user gave 53% of the comparisons", 0.53),
                ),
            ),
            found=[
                Run(
                    "20261122-1311",
                    "running",
                    "ppo",
                    27,
                    40,
                    "reward 0.79, entropy 1.31",
                    NOW - 540,
                ),
                Run(
                    "20261121-0907",
                    "failed",
                    "ppo",
                    9,
                    40,
                    "",
                    NOW - 90_000,
                    NOW - 88_000,
                    "update 9: the entropy collapsed to 0.02; lower ppo.learning_rate",
                    resumable=True,
                ),
            ],
            curve=points(27),
            stock=[
                Candidate(
                    WAITING, LIVE, NOW - 64_000, "candidate", GATES, picks=(6, 2, 1), pairs=2
                ),
                Candidate(
                    POOR,
                    LIVE,
                    NOW - 150_000,
                    "candidate",
                    FAILED,
                    blockers=(
                        "over_refusal: rises by +0.041, at most +0.070; +0.020 is allowed",
                        "modelling: not computed: it was not measured",
                        f"measured against the settings' policy, but {LIVE} answers now",
                    ),
                ),
                Candidate(LIVE, "", NOW - 330_000, "live", GATES),
            ],
            log=[Decided(NOW - 320_000, "promote", LIVE, "page")],
            waiting=list(PAIRS),
        )

    def standing(self) -> Standing:
        """As set."""
        return Standing(self.policy, self.obstacles, self.reward, self.refused)

    def collected(self) -> Collected:
        """As set."""
        return self.given

    def runs(self) -> Sequence[Run]:
        """As set, and what was started."""
        return tuple(self.found)

    def points(self, run_id: str) -> Sequence[Point]:
        """Only the newest run has any."""
        return self.curve if self.found and run_id == self.found[0].id else ()

    def candidates(self) -> Sequence[Candidate]:
        """As set, changed by the verbs."""
        return tuple(self.stock)

    def decisions(self) -> Sequence[Decided]:
        """As set, changed by the verbs."""
        return tuple(self.log)

    def can_roll_back(self) -> bool:
        """Whether a candidate answers."""
        return any(one.state == "live" for one in self.stock)

    def pairs(self, candidate_id: str, limit: int = 1) -> Sequence[Pair]:
        """What nobody has judged."""
        return tuple(one for one in self.waiting if one.candidate == candidate_id)[:limit]

    def start(self) -> Run:
        """Remember it; the run is at work at once."""
        self._note("start")
        run = Run("20261122-1400", "running", "preferences", 0, 0, "", NOW)
        self.found.insert(0, run)
        self.curve = ()
        return run

    def resume(self, run_id: str) -> Run:
        """Remember it."""
        self._note("resume", run_id)
        return self._became(run_id, state="running", reason="", resumable=False, ended=0.0)

    def cancel(self, run_id: str) -> None:
        """Remember it; the run is cancelled at once."""
        self._note("cancel", run_id)
        self._became(run_id, state="cancelled", ended=NOW, resumable=True)

    def promote(self, candidate_id: str, *, who: str) -> None:
        """Remember it."""
        self._note("promote", candidate_id, who)
        self._states({"live": "previous"}, candidate_id, "live")
        self.log.insert(0, Decided(NOW, "promote", candidate_id, who))

    def canary(self, candidate_id: str, share: float, *, who: str) -> None:
        """Remember it."""
        self._note("canary", candidate_id, share, who)
        self._states({}, candidate_id, "canary")

    def end_canary(self, *, who: str) -> None:
        """Remember it."""
        self._note("end_canary", who)
        self._states({"canary": "rolled_back"})

    def rollback(self, *, who: str) -> None:
        """Remember it."""
        self._note("rollback", who)
        self._states({"live": "rolled_back"})

    def pick(self, pair_id: str, choice: Choice, *, first: Side, who: str) -> None:
        """Remember it; the pair waits no more."""
        self._note("pick", pair_id, choice, first, who)
        self.waiting = [one for one in self.waiting if one.id != pair_id]
        left = len(self.waiting)
        self.stock = [replace(c, pairs=left) if c.id == WAITING else c for c in self.stock]

    def _note(self, *call: object) -> None:
        if self.refuse is not None:
            error, self.refuse = self.refuse, None
            raise error
        self.calls.append(call)

    def _became(self, run_id: str, **changes: object) -> Run:
        at = next(i for i, run in enumerate(self.found) if run.id == run_id)
        self.found[at] = replace(self.found[at], **changes)  # type: ignore[arg-type]
        return self.found[at]

    def _states(self, moves: dict[str, str], candidate_id: str = "", state: str = "") -> None:
        self.stock = [
            replace(one, state=state if one.id == candidate_id else moves.get(one.state, one.state))  # type: ignore[arg-type]
            for one in self.stock
        ]
