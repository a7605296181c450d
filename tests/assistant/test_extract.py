"""The embedded policy on its shipped weights: it quotes, it abstains, it repeats itself."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from assistant.build import build_assistant
from assistant.config import PolicySettings, load
from assistant.dialogue import Assistant
from assistant.policy import extract
from assistant.policy._ranker import READ, READS, Candidate, weigh
from assistant.policy.base import Resources
from assistant.policy.extract import MOST, WEIGHTS, build, pick, quotes, variant
from assistant.schema import Delta, Prompt, Sampling
from retrieval.config import EmbedSettings
from retrieval.embed import hashing
from retrieval.schema import Chunk, Found, Passage

DOCUMENTS = {
    "harbour.md": "# Harbour of Varnholm\n\nThe harbour of Varnholm was built in 1874 by Erik Lund."
    " It can hold ninety fishing boats. The harbour office opens at eight in the morning.\n",
    "lighthouse.md": "# Lighthouse of Varnholm\n\nThe lighthouse of Varnholm is 41 metres tall."
    " Its lamp was replaced in 1962. Visitors may climb the stairs on Sundays.\n",
    "boats.md": "# Renting boats\n\nTo rent a boat in Varnholm, bring these papers:\n\n"
    "- a passport\n- a sailing licence\n- a deposit of fifty crowns\n\nBoats come back by six.\n",
    "temple.md": "# 云岭寺\n\n云岭寺建于1374年，由僧人慧明主持修建。寺内有一座高27米的石塔。"
    "云岭寺每天上午八点开门。\n",
    "tea.md": "# 云岭茶\n\n云岭茶产于云岭南坡，每年四月采摘。云岭茶的年产量约为三百吨。\n",
}


@pytest.fixture(scope="module")
def assistant(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Assistant]:
    """An assistant with the embedded policy on a few documents."""
    folder = tmp_path_factory.mktemp("extract")
    (folder / "documents").mkdir()
    for name, text in DOCUMENTS.items():
        (folder / "documents" / name).write_text(text, encoding="utf-8")
    settings = load(
        overrides={
            "home": str(folder / "home"),
            "docs": "false",
            "retrieval.embed.backend": "hashing",
            "policy.backend": "extract",
        }
    )
    with build_assistant(settings) as made:
        for _ in made.ingest([folder / "documents"]):
            pass
        yield made


RESOURCES = Resources(hashing.build(EmbedSettings()), lambda terms: [1.0] * len(terms))


def passage(text: str, number: int = 1, code: tuple[tuple[int, int], ...] = ()) -> Passage:
    """Make a passage that was found."""
    chunk = Chunk(number, number, text, 0, len(text), (), 0, code)
    found = (Found("fused", number, 1.0), Found("dense", number, 0.5))
    return Passage(chunk, f"{number}.md", "Harbour", "en", "v", 0.0, 0.0, 1.0, found)


def prompt(question: str, *texts: str) -> Prompt:
    """Make a prompt; the policy reads data, not messages."""
    passages = tuple(passage(text, n) for n, text in enumerate(texts, start=1))
    return Prompt((), question, passages, "en")


def run(policy: extract.Extract, asked: Prompt, variant: int = 0) -> list[Delta]:
    """Collect an answer."""
    return list(policy.stream(asked, Sampling(variant=variant)))


QUESTIONS = [
    ("When was the harbour of Varnholm built?", "1874"),
    ("Who built the harbour of Varnholm?", "Erik Lund"),
    ("How tall is the lighthouse of Varnholm?", "41 metres"),
    ("云岭寺建于哪一年？", "1374年"),
    ("云岭茶的年产量是多少？", "三百吨"),
]


@pytest.mark.parametrize(("question", "answer"), QUESTIONS)
def test_the_sentence_that_answers_is_quoted(
    question: str, answer: str, assistant: Assistant
) -> None:
    """Asked in either language, the answer stands in the reply."""
    reply = assistant.reply(question)
    assert (reply.outcome, answer in reply.text) == ("answered", True)


@pytest.mark.parametrize(("question", "answer"), QUESTIONS)
def test_every_quote_is_verbatim(question: str, answer: str, assistant: Assistant) -> None:
    """A citation's offsets hold its words in the document, and the reply holds them too."""
    reply = assistant.reply(question)
    got = [
        (assistant.excerpt(c).current, c.verbatim, c.quote in reply.text) for c in reply.citations
    ]
    assert got == [(True, True, True)] * len(got) != []


@pytest.mark.parametrize(
    "question",
    [
        "What is the boiling point of mercury?",
        "Who won the football world cup in 2014?",
        "Which airline flies from Nairobi to Lima?",
        "量子计算机的纠错原理是什么？",
        "巴西世界杯的冠军是谁？",
    ],
)
def test_a_question_about_nothing_in_the_base_is_not_answered(
    question: str, assistant: Assistant
) -> None:
    """Nothing is quoted, nothing is cited, and the missing word is named."""
    reply = assistant.reply(question)
    assert (reply.outcome, reply.citations, "“" in reply.text) == ("abstained", (), True)


@pytest.mark.parametrize(("question", "answer"), QUESTIONS)
def test_the_same_question_gets_the_same_answer(
    question: str, answer: str, assistant: Assistant
) -> None:
    """Nothing is drawn at random."""
    one, two = (assistant.reply(question) for _ in range(2))
    assert (one.text, one.confidence) == (two.text, two.confidence)


@pytest.mark.parametrize("question", [q for q, _ in QUESTIONS])
def test_other_answers_share_no_quote(question: str, assistant: Assistant) -> None:
    """Each alternative quotes sentences that no answer before it quoted."""
    reply = assistant.reply(question)
    answers = [reply]
    for _ in range(2):
        *_, last = assistant.alternative(reply.turn_id)
        assert last.reply is not None
        answers.append(last.reply)
    places = [(c.document_id, c.start) for a in answers for c in a.citations]
    assert len(places) == len(set(places))


def test_a_sentence_with_a_colon_is_quoted_with_its_list(assistant: Assistant) -> None:
    """What a sentence announces belongs to the answer."""
    reply = assistant.reply("Which papers must I bring to rent a boat in Varnholm?")
    items = ("a passport", "a sailing licence", "a deposit of fifty crowns")
    held = [item in reply.citations[0].quote for item in items]
    assert held == [True] * 3


@pytest.mark.parametrize(
    ("minimum", "outcome"), [("0", "answered"), ("1", "abstained"), ("-1", "answered")]
)
def test_the_threshold_can_be_set(minimum: str, outcome: str) -> None:
    """0 always answers, 1 never does, -1 is the fitted threshold."""
    policy = build(PolicySettings(min_confidence=float(minimum)), RESOURCES)
    asked = prompt("When was the harbour built?", "The harbour was built in 1874. It is deep.")
    last = run(policy, asked)[-1]
    assert last.finish == ("stop" if outcome == "answered" else "abstain")


SENTENCES = st.lists(
    st.sampled_from(
        [
            "The harbour was built in 1874.",
            "It is deep:",
            "- boats",
            "云岭寺建于1374年。",
            "Is it?",
            "\n",
            "1. First",
            "a",
            "...",
            "Dr. Lund came in 1901.",
        ]
    ),
    max_size=8,
).map(" ".join)


@given(
    st.lists(SENTENCES, max_size=3),
    st.sampled_from(["When was the harbour built?", "云岭寺建于哪年？", "", "?", "the of"]),
    st.integers(0, 3),
)
def test_the_contract_of_a_quoting_policy(texts: list[str], question: str, variant: int) -> None:
    """Quotes stand where they say, three at the most, and the last delta alone finishes."""
    policy = build(PolicySettings(min_confidence=0.0), RESOURCES)
    asked = prompt(question, *texts)
    *quoted, last = run(policy, asked, variant)
    for delta in quoted:
        assert delta.quote is not None
        number, start, end = delta.quote
        assert asked.passages[number - 1].chunk.text[start:end] == delta.text != ""
    confident = last.confidence is not None and 0 <= last.confidence <= 1
    got = (len(quoted) <= MOST, bool(quoted), last.text, confident)
    assert got == (True, last.finish == "stop", "", True)


@given(st.lists(st.floats(-9, 9), max_size=12), st.integers(0, 5))
def test_variants_are_disjoint(values: list[float], count: int) -> None:
    """No sentence is quoted in two variants, and each has three at the most."""
    names = [f"Sentence {i} holds." for i in range(len(values))]
    asked = prompt("?", *names)
    found = [Candidate(i, 0, len(name), name) for i, name in enumerate(names)]
    scores = np.array(values)
    answers = [variant(asked, found, scores, number) for number in range(count + 1)]
    quoted = [span for answer in answers for span in answer]
    sizes = [len(answer) <= MOST for answer in answers]
    assert (len(quoted), all(sizes)) == (len(set(quoted)), True)


def test_a_variant_quotes_nothing_of_an_announced_list_again() -> None:
    """What a sentence announced belongs to its quote: another answer does not repeat it."""
    text = "Bring these papers:\na valid passport\na second photo\n\nBoats come back by six."
    asked = prompt("?", text)
    found = [
        Candidate(0, text.index(c), text.index(c) + len(c), c)
        for c in ("Bring these papers:", "a valid passport", "Boats come back by six.")
    ]
    scores = np.array([9.0, 5.0, 0.0])
    answers = [variant(asked, found, scores, number) for number in range(3)]
    quoted = [[text[a:b] for _, a, b in answer] for answer in answers]
    assert quoted == [
        ["Bring these papers:\na valid passport\na second photo"],
        ["Boats come back by six."],
        [],
    ]


@given(st.lists(st.floats(-9, 9), min_size=1, max_size=12))
def test_the_best_sentence_comes_first(values: list[float]) -> None:
    """The answer begins with the sentence that scores highest."""
    assert values[pick(np.array(values), range(len(values)))[0]] == max(values)


def spans(text: str, *chosen: str) -> list[str]:
    """Quote these sentences of one passage."""
    found = [Candidate(0, text.index(c), text.index(c) + len(c), c) for c in chosen]
    return [text[start:end] for _, start, end in quotes(prompt("?", text), found)]


@pytest.mark.parametrize(
    ("text", "chosen", "expected"),
    [
        ("One is. Two is. Three is.", ("One is.", "Three is."), ["One is.", "Three is."]),
        ("One is. Two is. Three is.", ("One is.", "Two is."), ["One is. Two is."]),
        ("One is. Two is. Three is.", ("Two is.", "One is."), ["One is. Two is."]),
        ("甲在。乙在。", ("乙在。", "甲在。"), ["甲在。乙在。"]),
        ("Bring:\n- a\n- b", ("Bring:",), ["Bring:\n- a\n- b"]),
        ("Bring:\n- a\n- bee", ("- bee", "Bring:"), ["Bring:\n- a\n- bee"]),
        ("需要：\n- 甲\n- 乙", ("需要：",), ["需要：\n- 甲\n- 乙"]),
    ],
)
def test_neighbours_become_one_quote(
    text: str, chosen: tuple[str, ...], expected: list[str]
) -> None:
    """Sentences that stand side by side are quoted together, in the document's order."""
    assert spans(text, *chosen) == expected


def test_a_list_is_quoted_to_a_limit() -> None:
    """Of a long list the first lines are quoted."""
    text = "Bring:\n" + "\n".join(f"- thing {n}" for n in range(30))
    (quoted,) = spans(text, "Bring:")
    assert quoted.splitlines() == text.splitlines()[: extract.LIST_LINES + 1]


def test_a_short_command_is_quoted_with_its_sentence() -> None:
    """Code that follows a sentence comes with it."""
    text = "Run this:\npip install plumbline\nThen go on."
    start = text.index("pip")
    chunk = Chunk(1, 1, text, 0, len(text), (), 0, ((start, start + 21),))
    found = Passage(chunk, "1.md", "Doc", "en", "v", 0.0, 0.0, 1.0, ())
    asked = Prompt((), "?", (found,), "en")
    ((_, a, b),) = quotes(asked, [Candidate(0, 0, 9, text[:9])])
    assert text[a:b].strip() == "Run this:\npip install plumbline"


def test_the_reranker_reads_the_likeliest_sentences_only() -> None:
    """Those that cover most of the question; others count as the worst of what was read."""
    heard: list[str] = []

    class Reader:
        id = "counting"

        def rank(self, question: str, texts: Sequence[str]) -> NDArray[np.float32]:
            heard.extend(texts)
            return np.linspace(0.9, 0.2, len(texts), dtype=np.float32)

    idle = [f"Bird number {n} sings in the tall tree at noon." for n in range(READS + 6)]
    told = "The pump of hall 9 runs on steam."
    asked = prompt("What does the pump of hall 9 run on?", " ".join([*idle, told]))
    evidence = weigh(asked, replace(RESOURCES, reranker=cast(Any, Reader())))
    assert evidence is not None
    assert len(heard) == READS
    assert heard[0] == told
    read = evidence.matrix[:, READ]
    assert len(read) == READS + 7
    assert read[-1] == read.max()
    assert (read == read.min()).sum() == len(read) - READS + 1


def altered(folder: Path, text: str | None) -> str:
    """Build the policy in a copy of the packages that has other weights; return what it says."""
    root = WEIGHTS.parents[2]
    for name in ("assistant", "retrieval", "safety"):
        shutil.copytree(root / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    if text is not None:
        (folder / "models" / "extract").mkdir(parents=True)
        (folder / "models" / "extract" / "weights.json").write_text(text, encoding="utf-8")
    code = (
        "from assistant.config import PolicySettings\n"
        "from assistant.errors import ModelNotFound\n"
        "from assistant.policy.extract import build\n"
        "try:\n    build(PolicySettings(), None)\n"
        "except ModelNotFound as error:\n    print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=False
    )
    return done.stdout or done.stderr


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("missing", "restore it, or fit it with `python app.py train extract`"),
        ("cut", "restore it, or fit it with `python app.py train extract`"),
        ("features", "was fitted for other features"),
        ("answerable", "was fitted for other features"),
    ],
)
def test_weights_that_do_not_fit_are_refused(change: str, said: str, tmp_path: Path) -> None:
    """Missing or cut off weights, or weights of other features, are an error with its remedy."""
    values = json.loads(WEIGHTS.read_text(encoding="utf-8"))
    if change in values:
        values[change] = values[change][1:]
    text = json.dumps(values)
    texts = {"missing": None, "cut": text[: len(text) // 2]}
    assert said in altered(tmp_path / "copy", texts.get(change, text))


def test_the_card_names_the_weights() -> None:
    """The log knows which weights answered."""
    values = json.loads(WEIGHTS.read_text(encoding="utf-8"))
    card = build(PolicySettings(), RESOURCES).card
    assert (card.name, card.revision) == ("extract", values["revision"])
