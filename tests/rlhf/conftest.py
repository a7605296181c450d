from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from hashlib import sha512
from itertools import count
from pathlib import Path
from types import SimpleNamespace

import pytest

from assistant.prompt import fingerprint, mark_of, render
from assistant.schema import (
    Citation,
    Consent,
    Feedback,
    PolicyCard,
    Reply,
    Sampling,
    Step,
    TurnRecord,
    Understanding,
)
from retrieval.schema import Chunk, Passage
from rlhf.preferences import PreferenceStore
from safety.schema import Verdict

ALL = Consent(train=True, evaluate=True, publish=True)

MakeRecord = Callable[..., TurnRecord]
MakeFeedback = Callable[..., Feedback]


class Clock:
    """A clock that stands until it is moved; seconds."""

    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        """Tell the time."""
        return self.now


@pytest.fixture(autouse=True)
def _drawn(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Draw each log's secret from the test's name: in every run a user falls into one split."""
    number = count()

    def token_hex(size: int) -> str:
        return sha512(f"{request.node.nodeid} {next(number)}".encode()).hexdigest()[: 2 * size]

    monkeypatch.setattr("rlhf.identity.secrets", SimpleNamespace(token_hex=token_hex))


@pytest.fixture
def clock() -> Clock:
    """Give a clock to move."""
    return Clock()


@pytest.fixture
def store(tmp_path: Path, clock: Clock) -> Iterator[PreferenceStore]:
    """Open an empty log."""
    made = PreferenceStore(tmp_path / "log.db", clock=clock)
    yield made
    made.close()


def passage(number: int) -> Passage:
    """Make a passage of document 7."""
    chunk = Chunk(number, 7, f"Fact {number}. 事实{number}。", 10, 24, ("Head",), number)
    return Passage(chunk, f"doc{number}.md", "Title", "en", "a" * 64, 1.0, 2.0, 0.9, ())


def make_record(
    turn: str = "t1",
    candidate: str = "c1",
    user: str = "alice",
    text: str = "Fact 1 [1].",
    question: str = "What is fact 1?",
    consent: Consent = ALL,
    outcome: str = "answered",
    created: float = 1_000.0,
    position: int = 0,
    shown: bool = True,
    passages: int = 2,
) -> TurnRecord:
    """Make one candidate of one turn, with a true prompt."""
    found = tuple(passage(n) for n in range(1, passages + 1))
    prompt = render(question, found, (), "en", mark=mark_of(turn))
    citation = Citation(
        1, 1, 7, "doc1.md", "Title", ("Head",), "Fact 1.", 10, 17, True, "a" * 64, 1.0, 2.0, 0.9
    )
    reply = Reply(
        turn_id=turn,
        candidate_id=candidate,
        conversation_id="conv",
        text=text,
        outcome=outcome,  # type: ignore[arg-type]
        language="en",
        citations=(citation,),
        passages=found,
        verdicts=(Verdict("allow", "none", 0.0, "input", "rules", decision_id="d1"),),
        steps=(Step("search", 0.1, "found 2"),),
        understanding=Understanding("question", question, False, "en", ""),
        policy=PolicyCard("local", "tiny", "rev", "", "transformers 5", "float32"),
        confidence=0.5,
        seconds=0.2,
    )
    return TurnRecord(
        turn_id=turn,
        candidate_id=candidate,
        conversation_id="conv",
        parent_id="",
        user_id=user,
        surface="ui",
        language="en",
        created=created,
        user_text=question,
        prompt=prompt.messages,
        prompt_sha256=fingerprint(prompt.messages),
        reply=reply,
        sampling=Sampling(seed=3),
        finish="stop",
        token_ids=(1, 2, 3),
        logprobs=(-0.1, -0.2, -0.3),
        consent=consent,
        position=position,
        shown=shown,
    )


def make_feedback(
    kind: str = "thumb", turn: str = "t1", user: str = "alice", **values: object
) -> Feedback:
    """Make feedback of any kind on the turn t1."""
    blank = Feedback(turn, "conv", user, kind)  # type: ignore[arg-type]
    return replace(blank, **values)  # type: ignore[arg-type]


@pytest.fixture
def record() -> MakeRecord:
    """Give the maker of turns."""
    return make_record


@pytest.fixture
def feedback() -> MakeFeedback:
    """Give the maker of feedback."""
    return make_feedback
