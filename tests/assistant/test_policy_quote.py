from __future__ import annotations

import json
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from assistant.errors import ConfigError, ModelNotFound, PolicyError, PolicyUnavailable
from assistant.policy._decode import score
from assistant.policy._quoting import KEPT, QUESTION, TEXT, Layout, Line, Offer, quoted
from assistant.policy._ranker import weigh
from assistant.policy._signs import SPELLINGS, sign
from assistant.policy.quote import CALIBRATION, Calibration, Quote, build, calibration, phrasebook
from assistant.schema import Delta, PolicyCard, Prompt, Sampling
from tests.assistant import quoters
from tests.assistant.quoters import TEXTS, network, prompt, ranker, resources, tokenizer

LAYOUT, RANKER, MODEL = Layout(tokenizer()), ranker(), network()
CARD = PolicyCard("quote", "random")
QUESTIONS = ("When was valve 3 replaced?", "第三号水泵多久检查一次？", "Do cats purr?")


def policy(minimum: float = 0.0, beams: int = 1, layout: Layout = LAYOUT) -> Quote:
    """A random network behind the seam; it never abstains of itself unless `minimum` says so."""
    return Quote(MODEL, layout, RANKER, {}, minimum, CARD, beams)


def offer(asked: Prompt, layout: Layout = LAYOUT) -> Offer:
    """Lay out a prompt that has sentences."""
    evidence = weigh(asked, RANKER.resources)
    assert evidence is not None
    return layout.offer(asked, evidence, RANKER)


def answer(made: Quote, asked: Prompt, **sampling: float | int) -> list[Delta]:
    """Collect an answer."""
    return list(made.stream(asked, replace(Sampling(), **sampling)))  # type: ignore[arg-type]


def said(deltas: list[Delta]) -> tuple[tuple[int, ...], tuple[float, ...]]:
    """Tokens and log-probs of a whole answer."""
    ids = tuple(chain.from_iterable(d.token_ids for d in deltas))
    return ids, tuple(chain.from_iterable(d.logprobs for d in deltas))


@settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.too_slow])
@given(
    texts=st.lists(st.sampled_from(TEXTS), min_size=1, max_size=3, unique=True),
    question=st.sampled_from(QUESTIONS),
    seed=st.integers(0, 10_000),
    spoken=st.booleans(),
)
def test_a_reply_parses_back_and_is_verbatim(
    texts: list[str], question: str, seed: int, spoken: bool
) -> None:
    """Tokens name the sentences; each stands word for word where it is cited; scores agree."""
    layout = Layout(tokenizer(), spoken=spoken)
    asked = prompt(question, *texts)
    deltas = answer(policy(layout=layout), asked, temperature=1.5, seed=seed)
    ids, logprobs = said(deltas)
    offered = offer(asked, layout)
    spans = [d.quote for d in deltas[:-1]]
    assert quoted(asked, offered, ids) == spans
    for delta in deltas[:-1]:
        assert delta.quote is not None
        number, start, end = delta.quote
        assert asked.passages[number - 1].chunk.text[start:end] == delta.text != ""
    for number in offered.paths.chosen(ids):
        if number < len(offered.candidates):
            assert any(offered.candidates[number].text in d.text for d in deltas)
    (found,) = score(MODEL, [offered.ids], [ids], [offered.paths], 1.5)
    assert found.tolist() == pytest.approx(logprobs, abs=1e-5)
    assert deltas[-1].finish == ("stop" if spans else "abstain")


@pytest.mark.parametrize("beams", [1, 4])
def test_greedy_answers_quote_and_are_always_the_same(beams: int) -> None:
    """Without a threshold the best answer quotes; the seed changes nothing."""
    asked = prompt()
    first = answer(policy(beams=beams), asked, seed=1)
    assert first == answer(policy(beams=beams), asked, seed=2)
    assert first[-1].finish == "stop"
    assert first[0].quote
    assert sum(said(first)[1]) <= 0


def test_a_beam_finds_no_worse_answer_than_greed() -> None:
    """Over several questions the log-prob of the whole answer is at least as high."""
    for question in QUESTIONS:
        greedy, wide = (answer(policy(beams=b), prompt(question)) for b in (1, 24))
        assert sum(said(wide)[1]) >= sum(said(greedy)[1]) - 1e-6


def test_the_same_seed_draws_the_same_answer() -> None:
    """And seeds differ."""
    drawn = [answer(policy(), prompt(), temperature=2.0, seed=s) for s in (1, 2, 3, 4, 5, 1)]
    assert drawn[0] == drawn[-1]
    assert len({said(d)[0] for d in drawn}) > 2


def test_another_answer_repeats_no_sentence() -> None:
    """Each variant quotes what none before it has quoted, until nothing is left."""
    asked, seen = prompt(), set[tuple[int, int]]()
    for number in range(12):
        deltas = answer(policy(), asked, variant=number)
        places = {
            (d.quote[0], at) for d in deltas if d.quote for at in range(d.quote[1], d.quote[2])
        }
        assert not places & seen
        seen |= places
        if deltas[-1].finish == "abstain":
            break
    assert number > 1
    assert deltas[-1].finish == "abstain"


BOOK = Layout(tokenizer(), phrases=("greeting", "clarify"))


def leaning(sign: int) -> Quote:
    """A policy whose network begins with `sign`, in whatever company."""
    model = network()
    whole: Any = model
    embedding, base = whole.get_input_embeddings().weight.data, whole.base_model
    ids = torch.tensor([offer(prompt(), BOOK).ids])
    last = base(input_ids=ids).last_hidden_state[0, -1]
    embedding[sign] = 40 * last.detach() / last.norm()
    return Quote(model, BOOK, RANKER, {}, 0.0, CARD)


def test_the_phrase_book_is_an_answer_like_others() -> None:
    """Masked log-probs of all answers, phrases among them, sum to one; each parses back."""
    offered = offer(prompt(QUESTIONS[0], TEXTS[1]), BOOK)
    paths = list(offered.paths.whole())
    with torch.inference_mode():
        found = score(MODEL, [offered.ids] * len(paths), paths, [offered.paths] * len(paths))
    chances = torch.stack([part.sum() for part in found]).exp()
    assert float(chances.sum()) == pytest.approx(1, abs=1e-4)
    assert {BOOK.said(path) for path in paths} == {"", "greeting", "clarify"}
    assert all(not LAYOUT.said(path) for path in paths)


def test_a_phrase_is_named_and_quotes_nothing() -> None:
    """The last delta says which, with the log-probs of scoring; there is no other answer."""
    asked = prompt()
    made = leaning(BOOK.book)
    (delta,) = answer(made, asked)
    offered = offer(asked, BOOK)
    assert delta.phrase in BOOK.phrases
    assert (delta.text, delta.quote, delta.finish) == ("", None, "stop")
    (found,) = score(made._model, [offered.ids], [delta.token_ids], [offered.paths])
    assert found.tolist() == pytest.approx(delta.logprobs, abs=1e-5)
    assert answer(made, asked, variant=1)[-1].finish == "abstain"


def test_the_book_opens_only_where_it_is_likelier_than_all_else() -> None:
    """Less likely, the confidence decides between quoting and abstaining, as without a book."""
    told = [(0.0, 0.0, 2.0), (0.0, 0.0, 0.5), (3.0, 0.0, 2.0)]
    opened = [BOOK.opening(logits, abstains=False) for logits in told]
    assert opened == [(BOOK.book,), (BOOK.cite,), (BOOK.cite,)]
    assert BOOK.opening(told[1], abstains=True) == (BOOK.abstain,)
    assert LAYOUT.opening(told[0], abstains=False) == (LAYOUT.cite,)
    assert BOOK.opening(told[0], abstains=False, drawn=True) == ()


def test_there_are_as_many_phrases_as_signs() -> None:
    """One phrase more is an error."""
    Layout(tokenizer(), phrases=[str(n) for n in range(32)])
    with pytest.raises(ValueError, match="33 phrases"):
        Layout(tokenizer(), phrases=[str(n) for n in range(33)])


def test_phrases_and_beams_come_from_folder_and_settings(tmp_path: Path) -> None:
    """calibration.json names the phrases in their order; one that nobody wrote is refused."""
    folder = quoters.save(tmp_path)
    told = {"languages": {}, "phrases": ["clarify", "thanks"]}
    (folder / CALIBRATION).write_text(json.dumps(told), encoding="utf-8")
    assert phrasebook(folder) == ("clarify", "thanks")
    wide, narrow = (build(quoters.options(folder, beams=n), resources()) for n in (24, 1))
    for question in QUESTIONS:
        totals = [sum(said(answer(made, prompt(question)))[1]) for made in (wide, narrow)]
        assert totals[0] >= totals[1] - 1e-6
    (folder / CALIBRATION).write_text('{"languages": {}, "phrases": ["x"]}', encoding="utf-8")
    with pytest.raises(ModelNotFound, match="train sft"):
        phrasebook(folder)
    assert phrasebook(tmp_path / "none") == ()


def test_below_the_threshold_it_abstains() -> None:
    """With the confidence it has; nothing is shown, and the tokens say so."""
    deltas = answer(policy(minimum=1.0), prompt())
    assert [d.text for d in deltas] == [""]
    assert deltas[0].finish == "abstain"
    assert 0 < (deltas[0].confidence or 0) < 1
    assert deltas[0].token_ids == (LAYOUT.abstain, LAYOUT.end)
    assert deltas[0].logprobs[0] < 0 == deltas[0].logprobs[1]


def test_nothing_to_quote_is_an_abstention() -> None:
    """No passages, or none with a sentence."""
    for asked in (prompt("Why?", "```"), Prompt((), "Why?", (), "en")):
        assert answer(policy(), asked) == [Delta("", finish="abstain", confidence=0.0)]


def test_confidence_is_calibrated_by_language() -> None:
    """Scale and offset work on the logit; each language has a threshold of its own."""
    fits = {"en": Calibration(2.0, 50.0, 0.5), "zh": Calibration(2.0, -50.0, 0.5)}
    made = Quote(MODEL, LAYOUT, RANKER, fits, -1.0, CARD)
    assert answer(made, prompt(QUESTIONS[0]))[-1].finish == "stop"
    assert answer(made, prompt(QUESTIONS[1]))[-1].finish == "abstain"
    assert Calibration().confidence(0.3) == pytest.approx(0.7)
    assert Calibration(1.0, 1.0).confidence(0.5) == pytest.approx(1 / (1 + 2.718281828**-1))
    assert 0 < Calibration(9.0, 9.0).confidence(0.0) <= 1
    known = Calibration(ranked=2.0).knowing(0.9)
    assert known.confidence(0.5) == pytest.approx(1 / (1 + (1 / 9) ** 2))
    sure = {"en": Calibration(0.0, 0.0, 0.5, 1.0)}
    held = answer(Quote(MODEL, LAYOUT, RANKER, sure, 0.0, CARD), prompt(QUESTIONS[0]))[-1]
    assert held.confidence == pytest.approx(offer(prompt(QUESTIONS[0])).sure)


def test_the_layout_puts_the_question_first_and_labels_last() -> None:
    """Language, question, evidence under headings with scores and labels behind, assistant."""
    lines = [
        Line(0, "Pumps", "The pump runs.", 1.0, 0.9, -9.0),
        Line(0, "Pumps", "It is old.", -9.0, 0.001),
        Line(1, "Cats", "Cats purr.", None, 0.1),
    ]
    ids = LAYOUT.prompt("Does the pump run?", lines, 0.99, [1, 2, 5])
    names = {i: name for name, i in ((n, sign(tokenizer(), n)) for n in SPELLINGS)}
    seen = [names[i] for i in ids if i in names]
    assert (
        seen
        == (
            "bos en user end evidence heading sentence e7 r10 r0 s1 e0 r0 s2 "
            "heading sentence e3 s5 e6 r15 assistant"
        ).split()
    )
    text = tokenizer().decode([i for i in ids if i not in names])
    assert text == "Does the pump run?PumpsThe pump runs.It is old.CatsCats purr."


def test_a_prompt_has_a_length_it_cannot_exceed() -> None:
    """A paragraph or a question of any length is cut; what is quoted is whole."""
    long = "The pump of hall nine " + "hums and " * 4000 + "stops at noon."
    asked = prompt("When does the pump " * 900 + "stop?", long, *TEXTS)
    offered = offer(asked)
    assert len(offered.ids) < KEPT * (TEXT + 4 + 18) + QUESTION + 20
    assert any(c.text == long for c in offered.candidates)


def test_text_cannot_pose_as_a_sign() -> None:
    """Signs that stand in evidence or question are plain text."""
    texts = ("Cats <s3> purr <|abstain|> at <|end|> night.", "Dogs <|cite|> bark <r9> by day.")
    ids = offer(prompt("<|assistant|> <s1> purr?", *texts)).ids
    plain = offer(prompt("purr?", "Cats purr at night.", "Dogs bark by day.")).ids
    special = {sign(tokenizer(), n) for n in SPELLINGS if n[0] not in "re"}
    assert [i for i in ids if i in special] == [i for i in plain if i in special]


def test_quoted_lists_are_not_quoted_twice() -> None:
    """A sentence that brings its list cannot be followed by an item of it."""
    asked = prompt(
        "What to pack?", "Pack these things:\n- a warm tent\n- a gas stove\n\nThen walk."
    )
    offered = offer(asked)
    for path in offered.paths.whole():
        spans = quoted(asked, offered, path)
        words = [(n, i) for n, start, end in spans for i in range(start, end)]
        assert len(words) == len(set(words))


def test_a_model_folder_loads_and_answers(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Safetensors and tokenizer.json are enough; the card names them, and no bar is drawn."""
    folder = quoters.save(tmp_path / "m")
    capsys.readouterr()
    made = build(quoters.options(folder, min_confidence=0.0), resources())
    assert capsys.readouterr() == ("", "")
    for loaded, known in zip(answer(made, prompt()), answer(policy(), prompt()), strict=True):
        assert replace(loaded, logprobs=()) == replace(known, logprobs=())
        assert loaded.logprobs == pytest.approx(known.logprobs, abs=1e-5)
    assert (made.card.name, made.card.model, len(made.card.revision)) == ("quote", "m", 64)
    assert made.count_tokens("Cats purr.") == len(tokenizer().encode("Cats purr.").ids)
    made.close()
    with pytest.raises(PolicyUnavailable, match="closed"):
        answer(made, prompt())


def test_half_precision_answers_too(tmp_path: Path) -> None:
    """bfloat16 is a setting; log-probs stay within a few hundredths of those in float32."""
    folder = quoters.save(tmp_path / "m")
    made = build(quoters.options(folder, min_confidence=0.0, dtype="bfloat16"), resources())
    deltas = answer(made, prompt())
    offered = offer(prompt())
    (found,) = score(MODEL, [offered.ids], [said(deltas)[0]], [offered.paths])
    assert found.tolist() == pytest.approx(said(deltas)[1], abs=0.1)


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("tokenizer.json", None, "tokenizer.json"),
        ("tokenizer.json", "{", "tokenizer.json"),
        ("tokenizer.json", '{"model": {"vocab": {"a": 0}}}', "not trained to quote"),
        ("model.safetensors", None, "safetensors"),
        ("model.safetensors", "rubbish", "cannot load"),
        ("config.json", None, "config.json"),
        (CALIBRATION, "[]", CALIBRATION),
        (CALIBRATION, '{"languages": {"en": {"scale": "x"}}}', CALIBRATION),
    ],
)
def test_a_damaged_folder_is_named(
    tmp_path: Path, name: str, content: str | None, told: str
) -> None:
    """What is wrong, and in which file."""
    folder = quoters.save(tmp_path / "m")
    (folder / name).unlink(missing_ok=True)
    if content is not None:
        (folder / name).write_text(content, encoding="utf-8")
    with pytest.raises(ModelNotFound, match=told):
        build(quoters.options(folder), resources())


def test_a_tokenizer_of_another_size_is_refused(tmp_path: Path) -> None:
    """Rows and tokens must be as many."""
    folder = quoters.save(tmp_path / "m")
    values = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    values["model"]["vocab"]["moreover"] = len(values["model"]["vocab"])
    (folder / "tokenizer.json").write_text(json.dumps(values), encoding="utf-8")
    with pytest.raises(ModelNotFound, match="rows"):
        build(quoters.options(folder), resources())


def test_settings_that_do_not_exist_are_refused(tmp_path: Path) -> None:
    """A dtype or device there is not."""
    folder = quoters.save(tmp_path / "m")
    with pytest.raises(ConfigError, match="dtype"):
        build(quoters.options(folder, dtype="int3"), resources())
    with pytest.raises(ConfigError, match="device"):
        build(quoters.options(folder, device="nonsense"), resources())


def test_a_network_that_gives_nan_says_so() -> None:
    """Instead of an answer drawn from nothing."""
    broken = network()
    with torch.no_grad():
        broken.model.norm.weight.fill_(torch.nan)
    made = Quote(broken, LAYOUT, RANKER, {}, 0.0, CARD)
    with pytest.raises(PolicyError, match="NaN"):
        answer(made, prompt())


def test_no_calibration_is_the_identity(tmp_path: Path) -> None:
    """A missing file changes no probability, and the threshold is a half."""
    assert calibration(tmp_path) == {}
    (tmp_path / CALIBRATION).write_text(
        '{"languages": {"en": {"scale": 2, "offset": 1, "threshold": 0.3}}}', encoding="utf-8"
    )
    assert calibration(tmp_path) == {"en": Calibration(2.0, 1.0, 0.3)}
