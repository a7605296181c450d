from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from assistant.config import Settings
from retrieval.embed import _weights
from rlhf._desk_views import shipped
from rlhf.fit import _reward_card as card
from rlhf.fit._asked import FILES
from rlhf.fit._reward_rows import Gathered, Ranking
from rlhf.fit.reward import Plan, Trainer, begun, drawn, judged, run
from rlhf.scoring import SCALE, WEIGHTS, load
from tests.bench_files import write

WORDS = 64
#: What a reply's words are worth to the synthetic annotator; a reply's worth has variance 1.
WORTH = np.random.default_rng(1).normal(size=WORDS)
LENGTH = 8


class Bag(nn.Module):
    """A scorer of bags of words: the mean of its words' vectors, and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(WORDS, 16)
        nn.init.normal_(self.words.weight, std=0.3)
        self.head = nn.Parameter(torch.zeros(16, 1))
        begun(self.head, 3)

    def forward(self, ids: Sequence[Sequence[int]], device: str, parts: int) -> Tensor:
        """Logits (n, 1)."""
        found = self.words(torch.tensor([list(row) for row in ids])).sum(1)
        return torch.matmul(found, self.head)


def worth(text: str) -> float:
    """The true reward of a reply."""
    return float(WORTH[read(("", text)),].sum() / math.sqrt(LENGTH) / np.std(WORTH))


def read(pair: tuple[str, str]) -> tuple[int, ...]:
    """Ids of a reply: its words are numbers."""
    return tuple(int(word) for word in pair[1].split())


def synthetic(prompts: int, replies: int, seed: int) -> Gathered:
    """Rankings by people who choose by the true reward, with the noise of Bradley and Terry."""
    draw = np.random.default_rng(seed)
    rows = []
    for number in range(prompts):
        texts = [" ".join(map(str, draw.integers(0, WORDS, LENGTH))) for _ in range(replies)]
        pairs = []
        for a in range(replies):
            for b in range(a + 1, replies):
                chance = 1 / (1 + math.exp(worth(texts[b]) - worth(texts[a])))
                pairs.append((a, b, 1.0) if draw.random() < chance else (b, a, 1.0))
        held = number % 4 == 0
        name = f"{number}"
        rows.append(Ranking("synthetic", "en", name, name, tuple(texts), tuple(pairs), held))
    return Gathered(tuple(rows), Counter(), 0)


def trained(rows: Gathered, folder: Path, steps: int = 0) -> tuple[Bag, Trainer]:
    """A scorer after its epoch, or `steps` of it."""
    torch.manual_seed(0)
    plan = Plan(
        steps,
        prompts=32,
        at_once=32,
        rate=0.02,
        head_rate=0.02,
        save_every=10_000,
        check_every=9999,
    ).over(len(rows.kept))
    bag = Bag()
    trainer = Trainer(bag, bag, rows, read, plan, "cpu", folder)
    list(trainer.run())
    return bag, trainer


def test_d6_the_head_begins_with_variance_one_over_its_width() -> None:
    """N(0, 1 / sqrt(width + 1)); the sample's deviation is within three standard errors."""
    head = nn.Parameter(torch.zeros(384, 20))
    begun(head, 11)
    wanted, count = 385**-0.5, head.numel()
    assert abs(float(head.detach().std()) - wanted) < 3 * wanted / math.sqrt(2 * count)
    assert abs(float(head.detach().mean())) < 3 * wanted / math.sqrt(count)


def test_d8_every_prompt_is_learnt_from_once(tmp_path: Path) -> None:
    """One epoch: steps are the prompts over those of a step, and no plan makes more of them."""
    rows = synthetic(100, 3, 5)
    assert Plan(prompts=16).over(75).steps == 5
    assert Plan(steps=900, prompts=16).over(75).steps == 5
    assert Plan(steps=2, prompts=16).over(75).steps == 2
    seen: Counter[str] = Counter()

    class Watching(Bag):
        def forward(self, ids: Sequence[Sequence[int]], device: str, parts: int) -> Tensor:
            if torch.is_grad_enabled():
                seen.update(" ".join(map(str, row)) for row in ids)
            return super().forward(ids, device, parts)

    plan = Plan(prompts=16, at_once=4, check_every=9999).over(len(rows.kept))
    bag = Watching()
    list(Trainer(bag, bag, rows, read, plan, "cpu", tmp_path).run())
    assert seen == Counter(text for row in rows.kept for text in row.replies)


def test_t6_a_ranking_model_reaches_the_ceiling_of_its_annotators(tmp_path: Path) -> None:
    """On synthetic preferences: accuracy E[sigmoid(|difference|)], .725 for rewards of variance 1.

    So an accuracy of 72 % can be all there is to reach.
    """
    draw = np.random.default_rng(0).normal(size=(400_000, 2))
    ceiling = float((1 / (1 + np.exp(-np.abs(draw[:, 0] - draw[:, 1])))).mean())
    assert ceiling == pytest.approx(0.725, abs=0.002)
    rows = synthetic(6000, 3, 2)
    bag, trainer = trained(rows, tmp_path)
    found = judged(rows.held, trainer.logits)
    right = judged(rows.held, lambda pairs: np.array([worth(p[1]) for p in pairs]))
    assert card.accuracy(found) == pytest.approx(ceiling, abs=0.02)
    assert card.accuracy(found) == pytest.approx(card.accuracy(right), abs=0.01)
    assert card.error(found) < 0.06
    assert isinstance(bag, Bag)


def test_an_interrupted_run_goes_on_where_it_stopped(tmp_path: Path) -> None:
    """Stopped half-way and taken up again, the weights are those of a run that never stopped."""
    rows = synthetic(80, 3, 4)
    plan = Plan(prompts=8, at_once=4, save_every=3, check_every=9999).over(len(rows.kept))

    def fresh(folder: Path) -> tuple[Bag, Trainer]:
        torch.manual_seed(0)
        bag = Bag()
        return bag, Trainer(bag, bag, rows, read, plan, "cpu", folder)

    whole, trainer = fresh(tmp_path / "whole")
    list(trainer.run())
    _, trainer = fresh(tmp_path / "parts")
    lines = trainer.run()
    next(lines)
    lines.close()  # type: ignore[attr-defined]
    parts, trainer = fresh(tmp_path / "parts")
    assert 0 < trainer.loop.step < plan.steps
    list(trainer.run())
    for one, other in zip(whole.parameters(), parts.parameters(), strict=True):
        assert torch.equal(one, other)


def test_the_reference_is_what_the_product_says() -> None:
    """One reply a question, of quotes and the log where there are any."""
    quote = Ranking("quoted", "en", "a", "Q?", ("x", "y"), ((0, 1, 1.0),), False)
    chat = Ranking("hh_harmless_base", "en", "b", "R?", ("x", "y"), ((0, 1, 1.0),), False)
    assert [question for question, _ in drawn([quote, chat], 9, 1)] == ["Q?"]
    assert [question for question, _ in drawn([chat], 9, 1)] == ["R?"]


def test_accuracy_and_calibration_by_hand() -> None:
    """Equal scores count half; a scorer as sure as it is right has no error."""
    row = Ranking(
        "s", "en", "o", "q", ("a", "bb", "c"), ((1, 0, 1.0), (1, 2, 1.0), (0, 2, 1.0)), True
    )
    assert card.accuracy(card.judged([row], card.longer)) == pytest.approx(2.5 / 3)
    assert card.accuracy(card.judged([row], card.shorter)) == pytest.approx(0.5 / 3)
    draw = np.random.default_rng(0)
    gap = draw.normal(size=20_000) * 2
    won = np.where(draw.random(20_000) < 1 / (1 + np.exp(-gap)), gap, -gap)
    assert card.error([card.Judged("s", "en", won)]) < 0.015
    assert card.error([card.Judged("s", "en", won * 5)]) > 0.1
    assert math.isnan(card.error([]))
    assert len(list(card.table(card.judged([row], card.longer), []))) == 2 + 2
    told = card.overall(card.judged([row], card.shorter), card.judged([row], card.longer))
    assert (told["n"], told["accuracy"], told["baseline"]) == (3, 0.1667, 0.8333)
    assert told["low"] <= told["accuracy"] <= told["high"]
    assert card.overall([], []) == {}


def data(folder: Path) -> Path:
    """A folder with every file that is read, a few rows each."""
    qa = folder / "qa"
    said = {
        "en": "The pump was built in 1874. It stands in hall 7. Nobody knows who paid. It is red.",
        "zh": "水泵建于1874年。它在七号厅。没有人知道是谁付的钱。它是红色的。",
    }
    for name in FILES:
        lang = "zh" if name.startswith(("cmrc", "drcd")) else "en"
        rows = [
            {
                "id": f"{name}{n}",
                "title": f"{name} {n}",
                "question": f"When was pump {name} {n} built?"
                if lang == "en"
                else f"{name}第{n}号水泵建于哪一年？",
                "context": f"{said[lang]} {name} {n}.",
                "answers": [{"text": "1874"}],
                "lang": lang,
            }
            for n in range(5)
        ]
        write(qa / f"{name}.jsonl.gz", rows)
    for name in ("xquad/en", "covidqa/docs", "covidqa/qa", "canard/dev"):
        write(qa / f"{name}.jsonl.gz", [])
    preference = folder / "preference"
    talk = {"chosen": "No, that hurts.", "rejected": "Sure.", "split": "train"}
    rows = [{"prompt": f"Human: How do I hurt {n}?", **talk} for n in range(4)]
    write(preference / "hh_harmless_base" / "test.jsonl.gz", rows)
    write(preference / "pandalm" / "testset_v1.jsonl.gz", [])
    order = {"prompt": "为什么？", "history": [], "ranked": ["因为下雨了。", "不知道。", "哦"]}
    write(preference / "oasst_zh" / "ranked.jsonl.gz", [{**order, "split": "test"}])
    write(folder / "safety" / "jade-pairs" / "train.jsonl.gz", [])
    return folder


@pytest.mark.skipif(_weights.extension() is None, reason="there is no models/encoder")
def test_a_run_leaves_a_model_that_scores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From files to weights, scale and card: few comparisons are named, and the model loads."""
    monkeypatch.chdir(tmp_path)  # checkpoints go to .runs of where one stands
    out = tmp_path / "models" / "reward"
    settings = Settings(home=tmp_path / "nowhere")
    lines = list(run(data(tmp_path / "data"), out, 1, settings))
    assert any("below about 2,000" in line for line in lines)
    made = load(out, runtime="torch", dtype="float32")
    scores = made([("When was it built?", "It was built in 1874."), ("When?", "[[no-answer]]")])
    assert np.isfinite(scores).all()
    assert scores[0] != scores[1]
    card_text = (out / "card.md").read_text(encoding="utf-8")
    assert "| quoted | zh |" in card_text
    assert "near chance" in card_text
    assert (out / WEIGHTS).stat().st_size <= 2_800_000
    assert not (tmp_path / "nowhere").exists()
    held = shipped(out)
    assert 0 <= (held.low or 0) <= (held.accuracy or -1) <= (held.high or 0) <= 1
    assert held.n > 0
    (out / SCALE).write_text('{"gain": 1}', encoding="utf-8")
    assert shipped(out).accuracy is None
