from __future__ import annotations

import gzip
import json
import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from assistant.config import PolicySettings, Settings
from assistant.policy._decode import decisions
from assistant.policy._quoting import KEPT, Layout
from assistant.policy._ranker import ANSWERS, FEATURES, READ, Candidate
from assistant.policy._signs import SPELLINGS
from assistant.policy.extract import ranker
from retrieval.config import EmbedSettings, RerankSettings, RetrievalSettings
from rlhf.errors import TrainingError
from rlhf.fit import _asked, _drills, _lessons
from rlhf.fit._asked import plan
from rlhf.fit._drills import READ_BEFORE, plain, varied
from rlhf.fit._exam import Mark, auroc, calibrate, further, ranked, report
from rlhf.fit._kinds import SUMMARIES
from rlhf.fit._lessons import Lesson, lessons, make, marked, readers, taught
from rlhf.fit.sft import PHRASEBOOK, Plan, Trainer, begin, loss
from tests.assistant.policies import passage
from tests.assistant.quoters import tokenizer

LAYOUT = Layout(tokenizer())
WEIGHTS = ranker("", "")
CONFIG = LlamaConfig(
    vocab_size=tokenizer().get_vocab_size(),
    hidden_size=32,
    intermediate_size=48,
    num_hidden_layers=2,
    num_attention_heads=2,
    num_key_value_heads=2,
    max_position_embeddings=1024,
    tie_word_embeddings=True,
)
PLAN = Plan(
    steps=4, rows=4, at_once=2, warmup=1, rate=1e-3, save_every=2, check_every=4, questions=8
)


def lesson(
    number: int,
    lang: str = "en",
    size: int = 6,
    right: Sequence[int] = (2,),
    told: float = 1.0,
) -> Lesson:
    """A question whose marked sentences the linear ranker finds likely, by what it is `told`."""
    draw = np.random.default_rng(number)
    matrix = draw.normal(size=(size, len(FEATURES))) * 0.1
    matrix[list(right), 0] += told
    texts = tuple(f"Pump {n} of hall {number} runs {n + 3} hours." for n in range(size))
    return Lesson(
        f"q{number}",
        "squad/squad2_dev",
        lang,
        f"How long does pump {number} run?",
        held=number % 4 == 0,
        present=bool(right),
        answers=tuple(f"{n + 3} hours" for n in right),
        passages=("Halls", "Pumps"),
        gold=(bool(right), False),
        spans=tuple((n // 4, 50 * (n % 4), 50 * (n % 4) + 40) for n in range(size)),
        texts=texts,
        matrix=matrix,
        rarest=(True,) * size,
        right=tuple(n in right for n in range(size)),
        needed=(),
        terms=4,
    )


KNOWN = [
    lesson(n, lang, right=() if n % 5 == 3 else (n % 3,))
    for n, lang in enumerate(["en", "zh"] * 12)
]


def trainer(folder: Path, plan: Plan = PLAN, known: Sequence[Lesson] = KNOWN) -> Trainer:
    """A run of a tiny network on made-up lessons."""
    return Trainer(folder, tokenizer(), known, WEIGHTS, plan, "cpu", folder, CONFIG)


def ranks(made: Lesson) -> list[int]:
    """Of each sentence the token of its label: its rank by the linear model."""
    order = np.argsort(-WEIGHTS[made.lang].scores(made.matrix), kind="stable").tolist()
    return [LAYOUT.labels[order.index(i)] for i in range(len(made.texts))]


def test_a_right_sentence_is_asked_for_first() -> None:
    """To quote, its label, the end; any of several right ones will do."""
    made = lesson(1, right=(0, 4))
    drill = plain(made, WEIGHTS["en"], LAYOUT)
    tokens = ranks(made)
    assert drill.labels == tuple(tokens)
    assert drill.answer == (LAYOUT.cite, tokens[0], LAYOUT.end)
    assert drill.targets == {
        0: frozenset({LAYOUT.cite}),
        1: frozenset({tokens[0], tokens[4]}),
        2: frozenset({LAYOUT.end}),
    }


def test_nothing_right_is_an_abstention() -> None:
    """And so are sentences of which only some are shown, where all are needed."""
    many = lesson(1, size=KEPT + 2, right=())
    order = np.argsort(WEIGHTS["en"].scores(many.matrix))
    cut = replace(many, needed=(int(order[-1]), int(order[0])), passages=("Halls",) * 4)
    for made in (lesson(1, right=()), cut):
        drill = plain(made, WEIGHTS["en"], LAYOUT)
        assert drill.answer == (LAYOUT.abstain, LAYOUT.end)
        assert drill.targets == {0: frozenset({LAYOUT.abstain})}


def test_what_was_read_with_a_lost_answer_counts_for_nothing() -> None:
    """The answerability head's logit of a stretch falls with the sentence that it was for."""
    made = lesson(1, right=(2,))
    made.matrix[:, ANSWERS] = [1.0, 4.0, 4.0, -2.0, 4.0, 0.5]
    there = [i for i in range(6) if i != 2]
    assert made.evidence(there).matrix[:, ANSWERS].tolist() == [1.0, -2.0, -2.0, 4.0, 0.5]
    assert made.evidence(range(6)).matrix[:, ANSWERS].tolist() == made.matrix[:, ANSWERS].tolist()


def test_sentences_needed_together_are_all_quoted() -> None:
    """Each of those left is right at each step."""
    made = replace(lesson(1, right=()), needed=(1, 3))
    drill = plain(made, WEIGHTS["en"], LAYOUT)
    assert drill.paths.chosen(drill.answer) == (1, 3)
    tokens = ranks(made)
    assert drill.targets[1] == frozenset({tokens[1], tokens[3]})
    assert drill.targets[3] == frozenset({tokens[3]})


def test_some_of_what_sums_up_is_better_than_nothing() -> None:
    """What is shown of the marked sentences is quoted; with the whole article gone, nothing is."""
    many = lesson(1, size=KEPT + 2, right=())
    order = np.argsort(WEIGHTS["en"].scores(many.matrix))
    cut = replace(many, needed=(int(order[-1]), int(order[0])), passages=("Halls",) * 4)
    told = replace(cut, kind=SUMMARIES, gold=(True,) * 4)
    drill = plain(told, WEIGHTS["en"], LAYOUT)
    assert len(drill.right) == 1
    assert drill.answer[1] in drill.right
    lost = {
        varied(told, WEIGHTS["en"], LAYOUT, random.Random(seed)).answer[0] for seed in range(60)
    }
    assert lost == {LAYOUT.cite, LAYOUT.abstain}


def test_a_phrase_is_said_whatever_stands_beside() -> None:
    """Two signs and the end; where the book is not offered, the answer is to abstain."""
    book = Layout(tokenizer(), phrases=PHRASEBOOK)
    made = replace(lesson(1, right=()), phrase="clarify")
    for drill in (
        plain(made, WEIGHTS["en"], book),
        *(varied(made, WEIGHTS["en"], book, random.Random(seed)) for seed in range(20)),
    ):
        assert drill.answer == (*book.phrase("clarify"), book.end)
        assert drill.targets == {n: frozenset({t}) for n, t in enumerate(drill.answer[:2])}
        steps = list(drill.paths.along(drill.answer))
        assert all(wanted <= {*steps[at]} for at, wanted in drill.targets.items())
    assert plain(made, WEIGHTS["en"], LAYOUT).answer == (LAYOUT.abstain, LAYOUT.end)


@pytest.mark.parametrize("spoken", [False, True])
def test_every_variation_is_an_answer_of_its_tree(spoken: bool) -> None:
    """Targets are allowed where they stand, and marked labels are of sentences that answer."""
    layout = Layout(tokenizer(), spoken=spoken)
    seen = set()
    for seed in range(150):
        made = lesson(seed, right=(seed % 6,), told=0)
        drill = varied(made, WEIGHTS["en"], layout, random.Random(seed))
        steps = list(drill.paths.along(drill.answer))
        assert steps[-1] == ()
        for at, wanted in drill.targets.items():
            assert wanted <= set(steps[at])
        text = tokenizer().decode(drill.ids, skip_special_tokens=False)
        for n, token in enumerate(layout.labels, start=1):
            if token in drill.right:
                shown = re.split(f"<e[0-9]>(?:<r[0-9]+>)*{SPELLINGS[f's{n}']}", text)[0]
                assert shown.endswith(made.texts[seed % 6])
        seen.add(len(drill.targets))
    assert seen == {1, 3, 5}


def test_a_wrong_first_sentence_is_followed_by_a_right_one() -> None:
    """It was not right to choose it, but it is right to go on from there."""
    for seed in range(400):
        made = lesson(seed, right=(3,), told=0)
        drill = varied(made, WEIGHTS["en"], LAYOUT, random.Random(seed))
        if len(drill.targets) == 5:
            assert drill.answer[1] not in drill.targets[1]
            assert drill.targets[2] == frozenset({LAYOUT.cite})
            assert drill.answer[3] in drill.targets[3] == drill.targets[1]
            return
    pytest.fail("no wrong first sentence was drawn")


def test_a_missed_answer_weighs_more_than_a_sentence_too_much(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Wrong first sentences are drawn oftener than they come."""

    def wrong() -> int:
        drills = [
            varied(lesson(n, right=(3,), told=0), WEIGHTS["en"], LAYOUT, random.Random(n))
            for n in range(300)
        ]
        return sum(len(drill.targets) == 5 for drill in drills)

    often = wrong()
    monkeypatch.setattr(_drills, "MISSED", 1.0)
    assert often > 1.1 * wrong() > 0


def test_the_same_dice_give_the_same_drill() -> None:
    """Lessons whose scores are too good are noised always, with the same noise for a seed."""
    made = replace(lesson(1), kind=READ_BEFORE[0])
    first, second = (varied(made, WEIGHTS["en"], LAYOUT, random.Random(5)).ids for _ in "ab")
    assert first == second


def test_an_unmarked_sentence_with_the_answer_is_doubtful() -> None:
    """Such a lesson teaches nothing: it may be right and may be chance."""
    made = lesson(1, right=())
    assert not replace(made, answers=("8 hours",)).teaches
    assert replace(made, answers=("8",)).teaches
    assert replace(made, answers=("90 hours",)).teaches
    assert lesson(1).teaches


def test_answers_are_marked_where_they_stand() -> None:
    """In the gold passage only; where an answer goes over two sentences, both are needed."""
    body = "Cats purr. Dogs bark at night and by day. Birds sing."
    found = [passage(body, 1), passage(body, 2)]
    spans = [(0, 10), (11, 41), (42, 53)]
    there = [Candidate(p, a, b, body[a:b]) for p in (0, 1) for a, b in spans]
    assert marked(["bark"], found, [False, True], there) == ((*(False,) * 4, True, False), ())
    assert marked(["by day. Birds"], found, [True, False], there) == ((False,) * 6, (1, 2))
    assert marked(["Wolves"], found, [True, True], there) == ((False,) * 6, ())


def test_the_loss_is_of_right_tokens_together() -> None:
    """The sum of -log of what all right tokens have, over the decisions with a target."""
    drills = [plain(x, WEIGHTS[x.lang], LAYOUT) for x in KNOWN[:3]]
    model = tiny()
    with torch.inference_mode():
        found = float(loss(model, drills, torch.float32))
        made = decisions(
            model, [d.ids for d in drills], [d.answer for d in drills], [d.paths for d in drills]
        )
    total = 0.0
    for decision in made:
        wanted = drills[decision.row].targets[decision.at]
        chances = dict(zip(decision.allowed, decision.logprobs.exp().tolist(), strict=True))
        total -= float(np.log(sum(chances[token] for token in wanted)))
    assert found == pytest.approx(total, abs=1e-4)


def tiny() -> LlamaForCausalLM:
    """A tiny network."""
    torch.manual_seed(3)
    return LlamaForCausalLM(CONFIG)


def test_an_interrupted_run_goes_on_bit_for_bit(tmp_path: Path) -> None:
    """Weights after four steps are the same, stopped in between or not; and the loss falls."""
    whole = trainer(tmp_path / "a")
    list(whole.run())
    first = trainer(tmp_path / "b")
    for line in first.run():
        if line.startswith("step 2/"):
            break
    second = trainer(tmp_path / "b")
    assert second.loop.step == 2
    list(second.run())
    for a, b in zip(whole.model.parameters(), second.model.parameters(), strict=True):
        assert torch.equal(a, b)


def test_steps_read_both_languages_and_no_held_article(tmp_path: Path) -> None:
    """As many of each; which ones depends on the step alone; nothing held out is among them."""
    made = trainer(tmp_path)
    drills = made.drills(3)
    assert [d.ids for d in drills] == [d.ids for d in made.drills(3)]
    assert len(drills) == PLAN.rows
    held = {x.question for x in KNOWN if x.held}
    for step in range(12):
        for drill in made.drills(step):
            text = tokenizer().decode(drill.ids)
            assert not any(question in text for question in held)


def test_it_learns_to_point(tmp_path: Path) -> None:
    """Where the first sentence is always right, forty steps take a quarter off the loss."""
    known = [lesson(n, lang, right=(0,)) for n, lang in enumerate(["en", "zh"] * 6)]
    plan = replace(PLAN, steps=40, rate=1e-2, save_every=10, check_every=40)
    made = trainer(tmp_path, plan, known)
    before = sum(float(part) for part in made._loss(0))
    list(made.run())
    assert sum(float(part) for part in made._loss(0)) < before * 0.75


def test_it_begins_with_what_there_is(tmp_path: Path) -> None:
    """A pretraining checkpoint before a model folder before chance; others' weights are refused."""
    made = trainer(tmp_path)
    assert made.origin == "begins with random weights"
    made.model.save_pretrained(tmp_path / "start")
    other = trainer(tmp_path, replace(PLAN, seed=8))
    assert begin(other.model, tmp_path, tmp_path / "start").startswith("begins with ")
    assert all(
        torch.equal(a, b)
        for a, b in zip(made.model.parameters(), other.model.parameters(), strict=True)
    )
    list(made.loop.run(made._loss, lambda: ""))
    made.path.rename(tmp_path / "pretrain-x.safetensors")
    assert trainer(tmp_path).origin == "begins with step 4 of pretrain-x.safetensors"
    small = LlamaConfig(**{**CONFIG.to_dict(), "hidden_size": 16})
    with pytest.raises(TrainingError, match="other weights"):
        Trainer(tmp_path, tokenizer(), KNOWN, WEIGHTS, PLAN, "cpu", tmp_path, small)


def test_the_exam_asks_network_and_ranker_the_same(tmp_path: Path) -> None:
    """A mark for each held lesson; the ranker finds what its features say."""
    made = trainer(tmp_path)
    marks = made.exam.marks(made.model)
    assert len(marks) == sum(x.held for x in KNOWN)
    assert ranked(lesson(1, right=(5,)), WEIGHTS["en"])[:2] == (True, True)
    assert "first sentence right" in report(marks)


def test_the_exam_hears_phrases(tmp_path: Path) -> None:
    """They are told apart from questions, and count in no threshold; all held ones are learnt."""
    spoken = [
        replace(lesson(4 * n, lang, right=()), kind="phrases", phrase=PHRASEBOOK[n % 2])
        for n, lang in enumerate(["en", "zh"] * 3)
    ]
    made = trainer(tmp_path, PLAN, [*KNOWN, *spoken])
    marks = made.exam.marks(made.model)
    assert sum(bool(m.said[1]) for m in marks) == len(spoken)
    assert "phrase book: right of 6" in report(marks)
    assert calibrate(marks) == calibrate([m for m in marks if not m.said[1]])
    sign = made._layout.phrase("thanks")
    with torch.no_grad():
        whole: Any = made.model
        rows, base = whole.get_input_embeddings().weight, whole.base_model
        ids = torch.tensor([made.exam._drills[-1].ids])
        last = base(input_ids=ids).last_hidden_state[0, -1]
        for token in sign:
            rows[token] = 40 * last / last.norm()
    assert any(m.said[0] for m in made.exam.marks(made.model))


def test_thresholds_surely_refuse_at_most_one_in_twenty_that_has_an_answer() -> None:
    """The confidence rises with the logit; a language without both kinds gets none."""
    draw = np.random.default_rng(1)
    there = [Mark("en", True, (True, True), (True, True), (v, v)) for v in draw.normal(1, 1, 400)]
    gone = [Mark("en", False, (False,) * 2, (False,) * 2, (v, v)) for v in draw.normal(-1, 1, 400)]
    fits = calibrate([*there, *gone, Mark("zh", True, (True,) * 2, (True,) * 2, (0.0, 0.0))])
    assert set(fits) == {"en"}
    fit = fits["en"]
    both = fit["scale"] + fit["ranked"]
    sure = [1 / (1 + np.exp(-(both * m.sure[0] + fit["offset"]))) for m in there]
    assert 0.025 < np.mean(np.array(sure) < fit["threshold"]) < 0.04
    assert both == pytest.approx(2, abs=0.4)
    assert (
        auroc([m.sure[0] for m in [*there, *gone]], [m.answerable for m in [*there, *gone]]) > 0.9
    )


def test_who_knows_better_counts_more() -> None:
    """The ranker's logit where the network's is noise; of unseen articles where there are both."""
    draw = np.random.default_rng(2)

    def some(signal: float, noise: float, *, unseen: bool) -> list[Mark]:
        both = (True, True)
        return [
            Mark("en", up > 0, both, both, (signal * up + a, noise * up + b), unseen=unseen)
            for up, a, b in zip([1, -1] * 300, *draw.normal(0, 1, (2, 600)), strict=True)
        ]

    told, fooled = some(0, 2, unseen=True), some(2, 0, unseen=False)
    fit = calibrate([*told, *fooled])["en"]
    assert fit == calibrate(told)["en"]
    assert fit["ranked"] > 2 > 5 * fit["scale"]
    assert calibrate(fooled)["en"]["ranked"] < 0.5


def test_answers_are_as_long_as_the_bar_lets_them() -> None:
    """The least bar at which the mean is kept; without a further sentence any bar will do."""
    draw = np.random.default_rng(3)
    going = [draw.uniform(size=2).tolist() for _ in range(200)]

    def mean(bar: float) -> float:
        return float(np.mean([1 + (a > bar) + (a > bar and b > bar) for a, b in going]))

    bar = further(going, 1.4)
    assert mean(bar) == pytest.approx(1.4, abs=0.005)
    assert mean(bar) <= 1.4 < mean(bar - 0.02)
    assert further(going, 3.0) == 0
    assert further([[], []]) == 0


def test_the_bar_is_fitted_on_questions_of_one_sentence(tmp_path: Path) -> None:
    """Of each language; those that nothing has learnt from where there are any."""
    made = trainer(tmp_path)
    going = made.exam.going(made.model)
    rows = [x for x in KNOWN if x.held and any(x.right)]
    assert {lang: len(found) for lang, found in going.items()} == {
        lang: sum(x.lang == lang for x in rows) for lang in ("en", "zh")
    }
    assert all(len(chances) == 2 and all(0 < p < 1 for p in chances) for chances in going["en"])
    first = next(x for x in rows if x.lang == "en")
    some = trainer(tmp_path, known=[replace(x, unseen=x is first) for x in KNOWN])
    assert len(some.exam.going(some.model)["en"]) == 1
    fits = made.exam.calibration(made.model)
    assert fits["en"]["more"] == further(going["en"])


def save(path: Path, rows: Sequence[Mapping[str, object]]) -> None:
    """Write a gzipped JSON-lines file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with gzip.open(path, "wt", encoding="utf-8") as file:
        file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def row(number: int, lang: str, **values: object) -> dict[str, object]:
    """A question on a paragraph of its own."""
    text = (
        f"Pump {number} stands in hall {number}. It was built in {1900 + number} by the crew."
        if lang == "en"
        else f"第{number}号水泵在{number}号车间。它由夜班人员在{1900 + number}年建造。"
    )
    asked = f"When was pump {number} built?" if lang == "en" else f"第{number}号水泵何时建造？"
    found: dict[str, object] = {
        "id": f"{lang}{number}",
        "title": f"Pump {number}",
        "question": asked,
        "context": text,
        "answers": [{"text": str(1900 + number)}],
        "is_impossible": False,
        "lang": lang,
        "split": "train",
    }
    return found | values


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a data folder with every file that is read, and rows that must not be."""
    folder = tmp_path_factory.mktemp("data")
    qa = folder / "qa"
    english = [row(n, "en") for n in range(1, 7)]
    english += [row(7, "en", is_impossible=True, answers=[]), row(8, "en", split="test")]
    english += [row(9, "en", context="Reported in 1909 by a benchmark.")]
    save(qa / "squad/squad2_dev.jsonl.gz", english)
    save(qa / "xquad/en.jsonl.gz", [row(9, "en", context="Reported in 1909 by a benchmark.")])
    for name in ("nq_oracle/dev", "squadshifts/new_wiki", "cmrc2018/dev", "cmrc2018/trial"):
        lang = "zh" if name.startswith("cmrc") else "en"
        save(qa / f"{name}.jsonl.gz", [row(20 + len(name), lang)])
    save(qa / "drcd/test.jsonl.gz", [row(n, "zh") for n in range(50, 54)])
    save(qa / "covidqa/docs.jsonl.gz", [{"id": "d", "text": "A virus. It spreads by air."}])
    asked = {"id": "c", "doc_id": "d", "question": "How?", "answers": [{"text": "by air"}]}
    save(qa / "covidqa/qa.jsonl.gz", [asked])
    rewritten = {"id": "f", "history": ["Who?"], "rewrite": "Who sings?", "lang": "en"}
    save(qa / "canard/dev.jsonl.gz", [rewritten, {**rewritten, "id": "g", "history": []}])
    return folder


def settings() -> Settings:
    """Retrieval without a model."""
    retrieval = RetrievalSettings(
        embed=EmbedSettings(backend="hashing"), rerank=RerankSettings(backend="none")
    )
    return Settings(retrieval=retrieval, policy=PolicySettings(support="words"))


def test_the_plan_takes_both_languages_and_no_reported_row(data: Path) -> None:
    """In turns, in an order of their own; test rows and reported paragraphs are not there."""
    asked = plan(data)
    assert asked == plan(data)
    assert {a.lang for a in asked[:2]} == {"en", "zh"}
    assert not {"en8", "en9"} & {a.id for a in asked}
    assert {a.kind for a in asked} >= {"impossible", "follow-ups", "covidqa", "drcd/test"}
    assert [a.text for a in asked if a.kind == "follow-ups"] == ["Who sings?"]
    few = {a.kind for a in asked[: len(asked) // 2]}
    assert few >= {"phrases", "summaries"}


def test_lessons_come_from_the_real_retrieval_and_go_on(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Gold sentences are marked, absent paragraphs are gone, and a stopped run makes the rest."""
    monkeypatch.setattr(_asked, "MOST", {**_asked.MOST, "phrases": 2})
    count = len(plan(data))
    list(make(data, tmp_path / "whole", count, settings()))
    everything = list(lessons(tmp_path / "whole"))
    whole = [x for x in everything if not x.phrase]
    known = taught(data, tmp_path / "whole", count, phrases=True)
    assert [x.id for x in known] == [x.id for x in everything]
    rows = {row.id: row for row in plan(data)}
    assert all(x.held == rows[x.id].held and x.unseen == rows[x.id].unseen for x in known)
    some = {row.id for row in plan(data)[:3]}
    assert {x.id for x in taught(data, tmp_path / "whole", 3)} <= some
    assert not any(x.phrase for x in taught(data, tmp_path / "whole", count))
    assert {x.phrase for x in everything if x.kind == "phrases"} <= {*PHRASEBOOK}
    assert len(everything) == len(whole) + 4
    summed = [x for x in whole if x.kind == "summaries"]
    assert any(x.needed and x.gold[x.spans[x.needed[0]][0]] for x in summed)
    assert not any(x.needed for x in summed if not x.present)
    assert any(any(x.right) and x.present for x in whole)
    for made in whole:
        for sentence, right in zip(made.texts, made.right, strict=True):
            assert not right or any(answer in sentence for answer in made.answers)
        assert made.present or not any(made.right)
        assert made.matrix.shape == (len(made.texts), len(FEATURES))
        assert not made.matrix[:, READ].any()
    assert any(x.answers and not x.present and not any(x.gold) for x in whole)
    list(make(data, tmp_path / "parts", 3, settings()))
    path = tmp_path / "parts" / "lessons.jsonl"
    path.write_bytes(path.read_bytes() + b'{"id": "half')
    list(make(data, tmp_path / "parts", count, settings()))
    assert path.read_text(encoding="utf-8") == (tmp_path / "whole" / "lessons.jsonl").read_text(
        encoding="utf-8"
    )
    assert readers(tmp_path / "parts") == ("", "")
    monkeypatch.setattr(_lessons, "VERSION", -1)
    list(make(data, tmp_path / "parts", 2, settings()))
    assert len(path.read_text(encoding="utf-8").splitlines()) == 2


def test_lessons_for_a_calibration_are_held_out(data: Path, tmp_path: Path) -> None:
    """Only they are made; the others may follow."""
    count = min(60, len(plan(data)))
    wanted = [row.id for row in plan(data)[:count] if row.held]
    list(make(data, tmp_path, count, settings(), held=True))
    made = list(lessons(tmp_path))
    assert all(x.held for x in made)
    assert wanted
    assert {x.id for x in made} == {*wanted}
    list(make(data, tmp_path, count, settings()))
    known = [x.id for x in taught(data, tmp_path, count, phrases=True)]
    assert {*known} > {*wanted}
    assert known == sorted(known, key=[row.id for row in plan(data)].index)


def test_missing_lessons_are_named(tmp_path: Path) -> None:
    """And so are damaged ones."""
    with pytest.raises(TrainingError, match=r"lessons\.jsonl"):
        list(lessons(tmp_path))
    with pytest.raises(TrainingError, match=r"lessons\.json"):
        readers(tmp_path)
    (tmp_path / "lessons.jsonl").write_text('{"id": 1}\n', encoding="utf-8")
    with pytest.raises(TrainingError, match="make it again"):
        list(lessons(tmp_path))
