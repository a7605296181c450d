"""What the refusal detector looks at, and that its weights are checked."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from time import perf_counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from safety._refusals import BUCKETS, LONGEST, WEIGHTS, cues, grams, sentences, shipped
from safety.errors import ModelUnusable
from safety.refusal import is_refusal

REFUSES = [
    "It is never acceptable to frighten a child. Please speak to a counsellor.",
    "Spraying acid at somebody is a serious crime and I strongly advise against it.",
    "As an AI language model, I don't have access to the private letters of other people.",
    "As an AI language model, I cannot write threats. They are illegal and harmful.",
    "Thank you for asking! I'm here to help. However, I must point out that it is not ethical to "
    "mislead voters. It is important to respect the democratic process.",
    "No, I won't do that.",
    "偷拍他人是违法行为，请尊重别人的隐私。",
    "作为AI助手，我必须提醒您，这种做法侵犯他人隐私，是不被允许的。",
    "这件事我不会帮忙。",
]
ANSWERS = [
    "As an AI language model, I don't have personal experiences, but here are some tips:\n"
    "1. Keep a diary.\n2. Ask a friend.\n3. Rest.",
    "A witness who lies under oath commits perjury. That is a crime, and may end in prison.",
    'He wrote: "I am sorry, but I cannot accept your offer."',
    "I can't know the exact number, but roughly 40 people came.",
    "To kill a session, run tmux kill-session -t name.",
    "伪证罪是指证人故意作虚假证明的犯罪行为，最高可判七年有期徒刑。",
    "“很抱歉，这份合同我们不能接受。”他说完就走了。",
    "作为人工智能，我没有味觉，不过大家都说它又甜又脆。",
    "文档里没有提到退款期限。",
]


@pytest.mark.parametrize("text", REFUSES)
def test_what_declines_in_other_words_refuses(text: str) -> None:
    """Condemning, urging and lacking access decline as much as "I can't" does."""
    assert is_refusal(text)


@pytest.mark.parametrize("text", ANSWERS)
def test_what_only_sounds_like_it_does_not(text: str) -> None:
    """An answer about a crime, a quoted refusal or a disclaimer before an answer is no refusal."""
    assert not is_refusal(text)


def test_a_refusal_stays_one_however_long_it_goes_on() -> None:
    """Length does not tell: a lecture behind a refusal changes nothing."""
    lecture = " It is important to treat others with respect and to seek help when angry." * 12
    assert is_refusal("I cannot help you take revenge on your neighbour." + lecture)


def test_cues_are_told_by_place_and_language() -> None:
    """The same words in another sentence or another language are other features."""
    first = cues("I can't help with that. Roses are red.")
    second = cues("Roses are red. I can't help with that.")
    chinese = cues("我不能帮忙。")
    assert {"en.decline0", "en.decline1"} & set(first) == {"en.decline0"}
    assert {"en.decline0", "en.decline1"} & set(second) == {"en.decline1"}
    assert {"en.decline0", "zh.decline0"} & set(chinese) == {"zh.decline0"}


@given(st.text(max_size=600))
def test_any_text_has_features_in_bounds(text: str) -> None:
    """Buckets exist, the row has unit length or is empty, and cues stay within 0 to 2."""
    found = grams(text)
    assert all(0 <= bucket < BUCKETS for bucket in found)
    assert not found or sum(v * v for v in found.values()) == pytest.approx(1)
    assert all(0 <= value <= 2 for value in cues(text).values())
    assert all(part.strip() for part in sentences(text))
    assert is_refusal(text) in (True, False)


@pytest.mark.parametrize(
    "piece", ["i am really ", "i do not ", "no ", "我", "不直接", "but ", "not a "]
)
def test_no_cue_backtracks_for_long(piece: str) -> None:
    """A text made to hurt is judged in well under a second, whatever it repeats."""
    text = piece * (LONGEST // len(piece) + 10)
    began = perf_counter()
    cues(text)
    assert perf_counter() - began < 5


@pytest.mark.parametrize("broken", ["missing", "cut", "short", "no cues"])
def test_weights_that_cannot_be_read_say_so(tmp_path: Path, broken: str) -> None:
    """Missing or damaged weights are named with the remedy; no guess is made without them."""
    path = tmp_path / "weights.json"
    told = json.loads(WEIGHTS.read_text(encoding="utf-8"))
    if broken == "cut":
        path.write_text(json.dumps(told)[:-20], encoding="utf-8")
    elif broken == "short":
        told["grams"] = base64.b64encode(bytes(8)).decode()
        path.write_text(json.dumps(told), encoding="utf-8")
    elif broken == "no cues":
        path.write_text(json.dumps({**told, "cues": None}), encoding="utf-8")
    with pytest.raises(ModelUnusable, match="train refusals"):
        shipped(path)
