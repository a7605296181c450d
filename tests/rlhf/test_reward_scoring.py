from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from assistant.prompt import mark_of
from assistant.prompt import render as render_prompt
from retrieval.embed import _weights
from retrieval.embed.heads import HEAD, MAX_TOKENS, Heads
from retrieval.embed.heads import load as load_heads
from retrieval.fit._student import write
from rlhf.errors import RewardError
from rlhf.fit.reward import Reader
from rlhf.scoring import (
    SCALE,
    WEIGHTS,
    RewardModel,
    Scale,
    asked,
    fitted,
    load,
    plain,
    render,
    size,
)
from tests.rlhf.conftest import passage

GOLDEN = json.loads((Path(__file__).parent / "reward_golden.json").read_text(encoding="utf-8"))
LONG = " ".join(f"Pump {n} of the upper hall runs {n + 3} hours." for n in range(300))
LONG_ZH = "".join(f"第{n}号水泵每天运行{n + 3}小时。" for n in range(300))
CHATS = [
    (f"How long does pump {n} run? 第{n}号水泵呢？"[: 12 + n % 40], (LONG, LONG_ZH)[n % 2][: 9 * n])
    for n in range(1, 101)
]
extension = _weights.extension()
pytestmark = pytest.mark.skipif(extension is None, reason="there is no models/encoder")


@functools.cache
def whole() -> Tokenizer:
    """The encoder's tokenizer, which cuts nothing."""
    assert extension is not None
    return _weights.tokenizer(extension.spellings)


def words(text: str) -> float:
    """A score that a rendering has in every runtime: no network."""
    return len(text) % 17 + 0.25 * text.count("e")


def toy(texts: Sequence[str]) -> np.ndarray:
    """Logits of texts."""
    return np.array([words(text) for text in texts], dtype=np.float32)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A reward model with a head drawn by a seed and no change to the encoder."""
    assert extension is not None
    made = tmp_path_factory.mktemp("reward")
    head = np.random.default_rng(5).normal(size=(_weights.DIM, 1)).astype(np.float16)
    write({HEAD: head}, made / WEIGHTS, {"encoder": extension.revision})
    digest = hashlib.sha256((made / WEIGHTS).read_bytes()).hexdigest()
    scale = {"gain": 0.5, "bias": -1.0, "sha256": digest}
    (made / SCALE).write_text(json.dumps(scale), encoding="utf-8")
    return made


@pytest.fixture(scope="module")
def model(folder: Path) -> RewardModel:
    """The model of that folder."""
    return load(folder, runtime="torch", dtype="float32")


def test_d4_training_and_scoring_read_the_same_tokens() -> None:
    """On 100 chats the trainer's ids are those of the scorer at work, the closing token included.

    The reward model reads text, so ids of a policy's tokenizer never meet it.
    """
    assert extension is not None
    reader = Reader(extension)
    working = _weights.tokenizer(extension.spellings)  # as retrieval.embed.heads makes it
    working.enable_truncation(MAX_TOKENS)
    for pair in CHATS:
        ids = reader(pair)
        assert ids == tuple(working.encode(render(*pair)).ids)
        assert ids == tuple(whole().encode(render(*pair)).ids)  # nothing was cut away unseen
        assert whole().id_to_token(ids[-1]) == "[SEP]"


def test_d4_golden_scores(model: RewardModel) -> None:
    """What was scored once is scored so for good: rendering, tokens, network and scale."""
    pairs = [(row["question"], row["reply"]) for row in GOLDEN]
    assert [render(*pair) for pair in pairs] == [row["rendered"] for row in GOLDEN]
    assert model(pairs) == pytest.approx([row["score"] for row in GOLDEN], abs=2e-3)


def test_d5_a_score_is_read_at_the_same_place_whatever_stands_beside(model: RewardModel) -> None:
    """The head reads the first token, so neither padding nor its batch moves a score."""
    alone = np.concatenate([model([pair]) for pair in CHATS[:6]])
    assert model([*CHATS[:6], *CHATS[-6:]])[:6] == pytest.approx(alone, abs=1e-4)


def test_d7_scores_of_the_reference_have_mean_0_and_deviation_1() -> None:
    """Also those of fresh samples; the ranking stays."""
    draw = np.random.default_rng(0)
    logits = (3.0 + 0.2 * draw.normal(size=40_000)).astype(np.float32)
    scale = fitted(logits[:20_000])
    fresh = scale(logits[20_000:])
    assert abs(float(fresh.mean())) < 0.02
    assert abs(float(fresh.std()) - 1) < 0.02
    assert (np.argsort(fresh) == np.argsort(logits[20_000:])).all()


def test_d7_the_scale_survives_the_disk(folder: Path, model: RewardModel) -> None:
    """What `load` gives is the logit times the gain plus the bias of the file beside it."""
    heads = load_heads(folder / WEIGHTS, runtime="torch", dtype="float32")
    raw = RewardModel(heads, Scale())(CHATS[:4])
    assert model(CHATS[:4]) == pytest.approx(raw * 0.5 - 1, abs=1e-5)
    some = CHATS[:8]
    again, before = model.normalised(some)(some), model(some)
    assert float(again.mean()) == pytest.approx(0, abs=1e-4)
    assert (np.argsort(again) == np.argsort(before)).all()


def test_what_length_adds_depends_on_the_question(tmp_path: Path, folder: Path) -> None:
    """The second column times the size of the reply; replies that are rendered alike differ."""
    assert extension is not None
    heads = load_heads(folder / WEIGHTS, runtime="torch", dtype="float32")
    head = np.random.default_rng(6).normal(size=(_weights.DIM, 2)).astype(np.float16)
    write({HEAD: head}, tmp_path / WEIGHTS, {"encoder": extension.revision})
    heads = load_heads(tmp_path / WEIGHTS, runtime="torch", dtype="float32")
    made, some = RewardModel(heads, Scale()), CHATS[:6]
    columns = heads([render(*pair) for pair in some])
    sizes = np.array([size(reply) for _, reply in some])
    assert made(some) == pytest.approx(columns[:, 0] + columns[:, 1] * sizes, abs=1e-3)
    longer = LONG[:2000] + " Pump." * 5 + LONG[2000:]
    assert render("q", longer) == render("q", LONG)
    gap = float(columns_of(heads, "q", LONG)[1]) * (size(longer) - size(LONG))
    assert gap != 0
    difference = float(np.subtract(*made([("q", longer), ("q", LONG)])))
    assert difference == pytest.approx(gap, abs=1e-3)


def columns_of(heads: Heads, question: str, reply: str) -> np.ndarray:
    """Both columns of one reply."""
    found: np.ndarray = heads([render(question, reply)])[0]
    return found


def test_size_grows_with_the_logarithm_of_tokens() -> None:
    """About 0 at 50 tokens, in either language; marks and line breaks are not counted."""
    assert size("word " * 53) == pytest.approx(0, abs=0.05)
    assert size("水" * 53) == pytest.approx(0, abs=0.4)
    assert size("") == -4
    assert size("It is [1].\n\nSo.") == size("It is. So.")
    assert size(LONG) > size(LONG[:900]) > size("No.")


def test_a_model_that_tells_nothing_apart_is_refused() -> None:
    """One sample, or all alike, set no scale."""
    for logits in ([1.0], [2.0, 2.0, 2.0], [1.0, float("nan")]):
        with pytest.raises(RewardError, match="tells nothing apart"):
            fitted(np.array(logits, dtype=np.float32))


def test_weights_and_scale_must_be_of_one_run(folder: Path, tmp_path: Path) -> None:
    """Neither a missing file nor another run's scale goes unnoticed."""
    with pytest.raises(RewardError, match="train reward"):
        load(tmp_path)
    (tmp_path / WEIGHTS).write_bytes((folder / WEIGHTS).read_bytes() + b" ")
    (tmp_path / SCALE).write_bytes((folder / SCALE).read_bytes())
    with pytest.raises(RewardError, match="one run"):
        load(tmp_path)


@settings(max_examples=60, deadline=None)
@given(st.text(max_size=400), st.text(max_size=800))
def test_whatever_is_rendered_fits(question: str, reply: str) -> None:
    """No text makes more than 128 tokens, and none makes it fail."""
    assert len(whole().encode(render(question, reply)).ids) <= MAX_TOKENS


@pytest.mark.parametrize("text", [LONG, LONG_ZH])
def test_of_a_long_reply_both_ends_are_read(text: str) -> None:
    """Its beginning, how much is left out, and its end; a short question stays whole."""
    found = render("How long? 多久？", text)
    question, _, reply = found.partition(" >>> ")
    assert question == "How long? 多久？"
    assert reply[:12] == text[:12]
    assert reply[-8:] == text[-8:]
    assert reply.count("…") == 5
    assert render("How long?", text[:500]).count("…") < 5


def test_a_long_question_leaves_the_reply_its_room() -> None:
    """A long question is cut where the reply needs the room, and only there."""
    both, alone = render(LONG, LONG_ZH), render(LONG, "No.")
    assert len(both.partition(" >>> ")[0]) < len(alone.partition(" >>> ")[0])
    assert alone.endswith(" >>> No.")


def test_what_says_nothing_is_not_read() -> None:
    """Citation marks, line breaks and a joint of the text's own change no score."""
    told = render("What?", "The harbour is old. It was built in 1874.")
    assert render("What?", "The harbour is old [1].\n\nIt was built in 1874【2，3】.") == told
    assert plain("yes >>> no") == "yes >> no"
    assert render("a", "b\ud800").endswith("b?")


def test_the_question_of_a_prompt_is_found() -> None:
    """It is what stands last, whatever a document says."""
    for language, question in (("en", "Who?\n\nQuestion: me?"), ("zh", "谁？")):
        sly = passage(1)
        prompt = render_prompt(question, (sly,), (), language, mark=mark_of("t"))
        assert asked(prompt.messages) == question
    assert asked(()) == ""


def test_a_chance_is_that_of_the_logits() -> None:
    """The scale does not change how sure the model is of a preference."""
    for scale in (Scale(), Scale(4.0, 2.0)):
        made = RewardModel(toy, scale)
        left, right = made([("q", "better one")]), made([("q", "worse")])
        gap = float(toy([render("q", "better one")])[0] - toy([render("q", "worse")])[0])
        assert made.chance(left, right) == pytest.approx([1 / (1 + np.exp(-gap))], abs=1e-5)


def test_nothing_to_score_gives_nothing() -> None:
    """No pairs, no scores."""
    assert RewardModel(toy, Scale())([]).shape == (0,)
