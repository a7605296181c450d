from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from assistant.config import TrainSettings
from assistant.phrases import PHRASES, say
from assistant.policy import quote
from assistant.policy._quoting import Layout
from assistant.prompt import ABSTAIN, mark_of, render
from assistant.schema import PolicyCard, Sampling
from rlhf import _loop_status as status
from rlhf._loop_gates import Network, Served
from rlhf._loop_pupil import Quoting
from rlhf._loop_reward import source
from rlhf._loop_tasks import of_lesson, of_prompt, of_sample, read_back
from rlhf._loop_watch import Watch
from rlhf.errors import Cancelled, Diverged, TrainingError
from rlhf.fit.loop import network
from rlhf.loop import schedule
from rlhf.preferences import PreferenceStore
from rlhf.registry import Registry
from rlhf.schema import Rollout, Sample
from tests.assistant import quoters
from tests.rlhf.conftest import make_feedback, make_record
from tests.rlhf.cycle_parts import FAST, LAYOUT, WEIGHTS, cycle, lesson, parts, tasks

CARD = PolicyCard("quote", "tiny")
PHRASES_SAID = {text for key in ("greeting", "clarify") for text in PHRASES[key].values()}


def told(home: Path) -> status.Status:
    """What the newest run says."""
    found = status.read(status.runs(home)[0])
    assert found is not None
    return found


def test_a_whole_cycle_on_an_untrained_network_ends_in_a_candidate(tmp_path: Path) -> None:
    """Every stage is done, and the candidate can be served as it lies in the registry."""
    home = tmp_path / "data"
    made, board, store, registry = cycle(home, parts(tmp_path, reward=True))
    lines = list(made.run())
    entry = registry.entries()[0]
    assert entry.manifest is not None
    assert (board.status.state, board.status.candidate) == ("done", entry.id)
    assert entry.manifest.gates
    assert entry.manifest.config["run"] == board.folder.name
    assert entry.manifest.policy == {"backend": "quote", "model": "."}
    rows = status.lines(board.folder / status.UPDATES)
    assert [row["update"] for row in rows] == [0, 1, 2, 3]
    assert "preference" in rows[0]["terms"]
    policy = quote.build(quoters.options(registry.folder(entry.id)), quoters.resources())
    deltas = [*policy.stream(quoters.prompt(), Sampling())]
    assert deltas[-1].finish in ("stop", "abstain")
    assert any("2 that a fresh" in line for line in lines)
    assert registry.pointer().live is None
    store.close()


def test_without_comparisons_the_reward_is_what_is_known(tmp_path: Path) -> None:
    """No reward model is trained, the reason says how many comparisons are missing."""
    made, board, _, registry = cycle(tmp_path / "data", parts(tmp_path))
    lines = list(made.run())
    assert any("2 more are needed" in line and "alone" in line for line in lines)
    terms = status.lines(board.folder / status.UPDATES)[0]["terms"]
    assert "right" in terms
    assert "preference" not in terms
    manifest = registry.entries()[0].manifest
    assert manifest is not None
    named = {gate.name: gate for gate in manifest.gates}
    assert named["reward_accuracy"].passed
    assert named["win_rate"].reason


def test_with_nothing_to_tell_answers_apart_no_run_begins(tmp_path: Path) -> None:
    """Neither labels nor a reward model, or no prompts at all: the reason is said."""
    unknown = [replace(task, answerable=None) for task in tasks(4)]
    made, board, _, _ = cycle(tmp_path / "data", parts(tmp_path, tasks=unknown))
    with pytest.raises(TrainingError, match="no answer would be better"):
        list(made.run())
    assert (board.status.state, board.status.stage) == ("failed", "preferences")
    made, board, _, _ = cycle(tmp_path / "other", parts(tmp_path, tasks=[]))
    with pytest.raises(TrainingError, match="no prompts"):
        list(made.run())
    assert "no prompts" in board.status.reason


def weights(folder: Path) -> dict[str, torch.Tensor]:
    """What a run's policy holds."""
    return load_file(folder / "policy" / "model.safetensors")


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> dict[str, torch.Tensor]:
    """Weights of a run that nothing stopped."""
    folder = tmp_path_factory.mktemp("whole")
    made, board, store, _ = cycle(folder / "data", parts(folder, reward=True))
    list(made.run())
    store.close()
    return weights(board.folder)


@pytest.mark.parametrize(
    "ask", [("preferences", 0), ("reward", 0), ("ppo", 2), ("gates", 3), ("candidate", 0)]
)
def test_a_run_cancelled_at_any_stage_goes_on_to_the_same_end(
    tmp_path: Path, ask: tuple[str, int], uninterrupted: dict[str, torch.Tensor]
) -> None:
    """Weights are the same to the bit, and there is one candidate, made once."""
    home = tmp_path / "data"
    made, board, _, registry = cycle(home, parts(tmp_path, reward=True), ask=ask)
    with pytest.raises(Cancelled, match=ask[0]):
        list(made.run())
    assert (told(home).state, told(home).stage) == ("cancelled", ask[0])
    assert status.unfinished(home) == board.folder
    assert registry.entries() == []
    again, board, _, registry = cycle(home, parts(tmp_path, reward=True), board.folder)
    list(again.run())
    assert told(home).state == "done"
    assert status.unfinished(home) is None
    assert len(registry.entries()) == 1
    found = weights(board.folder)
    assert all(torch.equal(uninterrupted[name], found[name]) for name in found)


def test_a_run_that_fails_after_its_candidate_makes_no_second_one(tmp_path: Path) -> None:
    """The registry knows the run, so the stage can be done again."""
    made, board, _, registry = cycle(tmp_path / "data", parts(tmp_path))
    list(made.run())
    again, board, _, registry = cycle(tmp_path / "data", parts(tmp_path), board.folder)
    list(again.run())
    assert [e.id for e in registry.entries()] == [board.status.candidate]


def test_a_run_that_diverges_leaves_what_answers_alone(tmp_path: Path) -> None:
    """It stops with its reason; no candidate, no pointer, no half of a policy."""
    wild = FAST.model_copy(update={"most_kl": 1e-6, "least_kl": -1e6, "rate": 0.5, "updates": 12})
    made, board, _, registry = cycle(tmp_path / "data", parts(tmp_path), ppo=wild)
    with pytest.raises(Diverged):
        list(made.run())
    assert board.status.state == "failed"
    assert "KL" in board.status.reason
    assert registry.entries() == []
    assert registry.pointer().live is None
    assert not (board.folder / "policy").exists()


def test_a_reward_that_is_not_finite_stops_the_run(tmp_path: Path) -> None:
    """The reason names it, and nothing is made."""

    class Broken:
        def __call__(
            self, tasks: Sequence[object], rollouts: Sequence[Rollout]
        ) -> dict[str, list[float]]:
            return {"right": [float("nan")] * len(rollouts)}

    made, board, _, registry = cycle(tmp_path / "data", parts(tmp_path, judge=lambda own: Broken()))
    with pytest.raises(TrainingError):
        list(made.run())
    assert board.status.state == "failed"
    assert board.status.reason
    assert registry.entries() == []


def test_a_run_learns_what_is_right(tmp_path: Path) -> None:
    """Where the first sentence answers, right answers become more frequent."""
    made = [of_lesson(lesson(n, right=(0,)), WEIGHTS["en"], LAYOUT) for n in range(8)]
    settings = FAST.model_copy(update={"updates": 16, "episodes": 24, "beta": 0.01, "rate": 2e-2})
    run, board, _, _ = cycle(tmp_path / "data", parts(tmp_path, tasks=made), ppo=settings)
    list(run.run())
    rows = status.lines(board.folder / status.UPDATES)
    before, after = (sum(r["terms"]["right"] for r in some) / 5 for some in (rows[:5], rows[-5:]))
    assert after > before + 0.2


def test_a_run_does_not_go_on_with_other_prompts(tmp_path: Path) -> None:
    """What somebody had erased since must not be learnt on under the old plan's name."""
    home = tmp_path / "data"
    made, board, _, _ = cycle(home, parts(tmp_path), ask=("ppo", 1))
    with pytest.raises(Cancelled):
        list(made.run())
    again, board, _, _ = cycle(home, parts(tmp_path, tasks=tasks(11)), board.folder)
    with pytest.raises(TrainingError, match="start a new run"):
        list(again.run())


@pytest.mark.parametrize("how", ["trained", "refitted"])
def test_a_reward_model_of_ones_own_is_made_once(tmp_path: Path, how: str) -> None:
    """With enough comparisons it is made in the run's folder, and not again on resuming.

    Trained afresh where there are many, fitted to them where there are some.
    """
    home, calls = tmp_path / "data", []
    many = 20 if how == "trained" else 1000
    settings = TrainSettings(comparisons=many, refit=20, updates=2, episodes=8, answers=2)

    def train(folder: Path) -> Iterator[str]:
        calls.append(folder)
        yield "step 1/2, loss 0.7"
        yield "step 2/2, loss 0.6"

    home.mkdir()
    store = PreferenceStore(home / "preferences.db")
    for number in range(40):
        turn, user = f"t{number}", f"user{number}"
        for side, text in enumerate(("Fact 1 [1].", "Fact 1, at length [1].")):
            store.add_turn(make_record(turn, f"{turn}-{side}", user, text, position=side))
        pick = {"candidate_ids": (f"{turn}-0", f"{turn}-1"), "value": 0}
        store.add_feedback(make_feedback("ab_pick", turn, user, **pick))
    store.close()
    other = {"trained": "refit_reward", "refitted": "train_reward"}[how]
    values = {"train_reward": train, "refit_reward": train, other: lambda folder: 1 / 0}
    made, board, _, _ = cycle(
        home, parts(tmp_path, reward=True, **values), ask=("ppo", 1), settings=settings
    )
    with pytest.raises(Cancelled):
        list(made.run())
    again, board, _, registry = cycle(
        home, parts(tmp_path, reward=True, **values), board.folder, settings=settings
    )
    list(again.run())
    assert calls == [board.folder / "reward"]
    manifest = registry.entries()[0].manifest
    assert manifest is not None
    assert manifest.config["reward"] == how


@pytest.mark.parametrize(
    ("count", "trains", "shipped", "how"),
    [
        (2000, True, True, "trained"),
        (2000, False, True, "refitted"),
        (1999, True, True, "refitted"),
        (200, True, True, "refitted"),
        (199, True, True, "shipped"),
        (1999, True, False, "none"),
        (0, False, False, "none"),
    ],
)
def test_which_reward_model_a_run_has(count: int, trains: bool, shipped: bool, how: str) -> None:
    """It hangs on how many comparisons there are, and the reason says how many are needed."""
    found, why = source(count, TrainSettings(), trains=trains, shipped=shipped)
    assert found == how
    assert how == "trained" or f"{2000 - count} more are needed" in why


def test_only_one_run_is_at_work(tmp_path: Path) -> None:
    """A second one is told so."""
    with status.alone(tmp_path), pytest.raises(TrainingError, match="another run"):  # noqa: SIM117
        with status.alone(tmp_path):
            pass


def test_a_run_whose_process_is_gone_was_interrupted(tmp_path: Path) -> None:
    """The state follows from the process, not from what it said last."""
    folder = status.new(tmp_path)
    board = status.Board(folder)
    assert status.state(folder, board.status) == "running"
    (folder / status.CANCEL).touch()
    assert status.state(folder, board.status) == "cancelling"
    gone = replace(board.status, pid=2**22 + 12345)
    assert status.state(folder, gone) == "interrupted"
    assert gone.pid != os.getpid()


def test_a_disk_that_is_full_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The run fails with the reason; what was saved before stays."""
    made, board, _, _ = cycle(tmp_path / "data", parts(tmp_path))

    def full(path: Path, content: bytes) -> None:
        raise OSError("no space left on device")

    run = made.run()
    next(run)
    monkeypatch.setattr("rlhf._durable.write", full)
    with pytest.raises((TrainingError, OSError)):
        list(run)
    monkeypatch.undo()
    assert json.loads((board.folder / status.STATUS).read_text())["state"] == "running"


def test_a_logged_prompt_is_read_back_as_it_was_shown(tmp_path: Path) -> None:
    """Passages, titles and the question, without marks; what holds none gives no task."""
    shown = quoters.prompt()
    made = render(shown.question, shown.passages, (), "en", mark=mark_of("t9"))
    sample = Sample("prompt", made.messages, turn="t9", user="u", language="en")
    found = read_back(sample)
    assert found is not None
    assert found.question == shown.question
    assert [p.chunk.text for p in found.passages] == [p.chunk.text for p in shown.passages]
    assert found.passages[0].title == shown.passages[0].title
    task = of_sample(sample, quoters.ranker(), LAYOUT)
    assert task is not None
    assert (task.id, task.user, task.answerable) == ("turn:t9", "u", None)
    empty = render("Why?", (), (), "en", mark=mark_of("t9"))
    assert of_sample(replace(sample, prompt=empty.messages), quoters.ranker(), LAYOUT) is None


def test_both_sides_of_the_gates_answer_as_they_are_served() -> None:
    """The network's fast way and the policy's own stream quote the same."""
    policy = quote.Quote(quoters.network(), LAYOUT, quoters.ranker(), {}, -1.0, CARD)
    for question in ("When was valve 3 replaced?", "Who records?"):
        shown = quoters.prompt(question)
        task = of_prompt(shown, quoters.ranker(), LAYOUT, "x")
        assert task is not None
        task = replace(task, passages=shown.passages)
        fast = Network(quoters.network(), LAYOUT, {}).answer(task)
        slow = Served(policy).answer(task)
        assert (ABSTAIN in fast) == (ABSTAIN in slow)
        for text in task.texts:
            assert (text in fast) <= (text in slow)


def opinionated(layout: Layout, sign: int, strength: float = 6.0) -> Any:
    """A network that likes to begin with one sign, whatever it is asked."""
    model: Any = quoters.network()
    with torch.no_grad():
        rows = model.get_input_embeddings().weight
        task = of_prompt(quoters.prompt(), quoters.ranker(), layout, "x")
        assert task is not None
        state = model.model(input_ids=torch.tensor([task.ids])).last_hidden_state[0, -1]
        rows[sign] = state / state.norm() * strength
    return model


@pytest.mark.parametrize("opening", ["book", "cite", "abstain"])
@pytest.mark.parametrize("beams", [1, 4])
def test_the_gates_measure_a_candidate_as_it_will_be_served(
    tmp_path: Path, opening: str, beams: int
) -> None:
    """What a run saves is served with its phrases, beams and threshold, and was measured so."""
    layout = Layout(quoters.tokenizer(), phrases=("greeting", "clarify"))
    start = quoters.save(tmp_path / "start")
    options = quoters.options(start, beams=beams, min_confidence=0.2)
    model = opinionated(layout, getattr(layout, opening))
    pupil = Quoting(start, model, layout, options=options)
    pupil.save(tmp_path / "candidate")
    pupil.take_over(tmp_path / "candidate")
    told = quoters.options(tmp_path / "candidate", beams=beams, min_confidence=0.2)
    served = quote.build(told, quoters.resources())
    assert quote.phrasebook(tmp_path / "candidate") == layout.phrases
    said = set()
    for question in ("When was valve 3 replaced?", "Hello!", "猫在做什么？"):
        shown = quoters.prompt(question)
        task = of_prompt(shown, quoters.ranker(), layout, "x")
        assert task is not None
        task = replace(task, passages=shown.passages)
        fast = pupil.side(tmp_path / "candidate").answer(task)
        slow = Served(served).answer(task)
        said.add(fast)
        assert (ABSTAIN in fast) == (ABSTAIN in slow)
        assert (fast in PHRASES_SAID) == (slow in PHRASES_SAID)
        assert all((text in fast) == (text in slow) for text in task.texts)
        assert fast == slow or fast not in PHRASES_SAID
    kinds = {"abstain": {ABSTAIN} & said, "book": PHRASES_SAID & said}
    assert kinds.get(opening, said - PHRASES_SAID - {ABSTAIN})


def test_a_phrase_of_the_book_is_no_abstention() -> None:
    """It says what it says: a greeting in reply to a question nothing answers is not right."""
    layout = Layout(quoters.tokenizer(), phrases=("greeting", "clarify"))
    task = of_lesson(lesson(2, right=()), WEIGHTS["en"], layout)
    path = (*layout.phrase("clarify"), layout.end)
    assert task.reply(path) == say("clarify", "en")
    assert task.correct(task.reply(path)) == 0.0
    assert task.reply((layout.abstain, layout.end)) == ABSTAIN
    assert task.correct(ABSTAIN) == 1.0


def test_a_policy_without_the_phrase_book_answers_prompts_that_offer_it() -> None:
    """Who answers now and who is trained need not have learnt the same phrases."""
    book = Layout(quoters.tokenizer(), phrases=("greeting",))
    for asked, own in ((LAYOUT, book), (book, LAYOUT)):
        task = of_prompt(quoters.prompt(), quoters.ranker(), asked, "x")
        assert task is not None
        said = Network(opinionated(book, book.book, 20.0), own, {}, minimum=0.0).answer(task)
        assert said not in PHRASES_SAID


@pytest.mark.parametrize(("kind", "there"), [("summaries", True), ("squad/squad2_dev", False)])
def test_part_of_a_summary_is_better_than_none(kind: str, there: bool) -> None:
    """Where one of two marked sentences is shown, it answers a summary and no single question."""
    whole = replace(
        lesson(3, size=16, right=()), kind=kind, passages=tuple("ABCD"), gold=(True,) * 4
    )
    order = WEIGHTS["en"].scores(whole.evidence(range(16)).matrix).argsort()
    worst, best = int(order[0]), int(order[-1])
    task = of_lesson(replace(whole, needed=tuple(sorted((worst, best)))), WEIGHTS["en"], LAYOUT)
    assert task.answerable is there
    assert task.correct(f"{whole.texts[best]} [1]") == float(there)
    assert task.correct(ABSTAIN) == float(not there)


@pytest.mark.parametrize(
    ("episodes", "answers", "each"), [(64, 4, 4), (9, 4, 3), (8, 8, 4), (11, 4, 1)]
)
def test_answers_to_a_prompt_share_out_evenly(episodes: int, answers: int, each: int) -> None:
    """No number of answers that somebody asks for is an error; each minibatch has a prompt."""
    made = schedule(TrainSettings(episodes=episodes, answers=answers))
    assert (made.episodes, made.answers) == (episodes, each)
    more = schedule(TrainSettings(episodes=episodes, answers=answers), minibatches=8)
    assert more.episodes // more.answers >= 8


def test_what_a_run_saves_in_half_precision_can_be_trained_again(tmp_path: Path) -> None:
    """Weights stored in float16 are read into float32, with the phrases that were learnt."""
    layout = Layout(quoters.tokenizer(), phrases=("greeting",))
    model = quoters.network()
    Quoting(quoters.save(tmp_path / "start"), model, layout).save(tmp_path / "made")
    stored = load_file(tmp_path / "made" / "model.safetensors")
    assert {value.dtype for value in stored.values()} == {torch.float16}
    found, again = network(tmp_path / "made")
    assert {p.dtype for p in found.parameters()} == {torch.float32}
    assert again.phrases == ("greeting",)
    for name, value in found.named_parameters():
        assert torch.equal(value, stored[name].float())


def test_how_readily_a_policy_goes_on_is_not_set_anew(tmp_path: Path) -> None:
    """The bar is its parent's, so that what was learnt about length shows; the rest is fitted."""
    start, model = quoters.save(tmp_path / "start"), quoters.network()
    layout = Layout(quoters.tokenizer())
    told = {"languages": {"en": {"scale": 3.0, "more": 0.2}}}
    (start / "calibration.json").write_text(json.dumps(told), encoding="utf-8")
    fitted = {"en": {"scale": 2.0, "threshold": 0.1}, "zh": {"scale": 1.5}}
    Quoting(start, model, layout, lambda _: fitted).save(tmp_path / "made")
    assert quote.calibration(tmp_path / "made") == {
        "en": quote.Calibration(2.0, threshold=0.1, more=0.2),
        "zh": quote.Calibration(1.5),
    }


def test_a_run_may_imitate_in_place_of_ppo(tmp_path: Path) -> None:
    """What the reward finds best is said more often; cancelled and resumed, it is the same run."""

    def imitated(folder: Path, ask: tuple[str, int] = ("", 0)) -> tuple[Path, Registry]:
        made = parts(folder, tasks=tasks(24), watch=Watch(tasks(24), (), 60, 3))
        own = TrainSettings(comparisons=2, method="feedme", updates=60, rate=3e-3, seed=3)
        home = folder / "data"
        begun = status.unfinished(home)
        run, board, store, registry = cycle(home, made, begun, ask=ask, settings=own)
        try:
            list(run.run())
        except Cancelled:
            store.close()
            return imitated(folder)
        store.close()
        return board.folder, registry

    folder, registry = imitated(tmp_path / "whole")
    (entry,) = registry.entries()
    assert entry.manifest is not None
    rows = status.lines(folder / status.GOLD)
    assert [row["update"] for row in rows] == [-1, 59]
    assert rows[1]["gold"] > rows[0]["gold"] + 0.1
    assert not (folder / status.UPDATES).exists()
    again, _ = imitated(tmp_path / "broken", ("ppo", 10))
    found = weights(again)
    assert all(torch.equal(value, found[name]) for name, value in weights(folder).items())
