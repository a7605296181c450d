"""What a turn may see and what its answer says about it: readers, dates, versions, neighbours."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from assistant.config import load
from assistant.dialogue import Assistant
from assistant.memory import Memory
from assistant.phrases import told
from assistant.policy.echo import EchoPolicy
from assistant.schema import Delta, Message, PolicyCard, Prompt, Reply, Sampling
from assistant.ui.render_panel import panel
from retrieval.knowledge import KnowledgeBase, open_knowledge
from retrieval.sources.memory import Given
from safety import Guard
from safety.config import SafetySettings
from safety.moderator.rules import build as build_rules

LONG = "The garden has many beds of herbs and flowers that visitors like to see. " * 12
DOCUMENTS = (
    ("guide-2023.md", "# Guide\n\nThe parking fee is 5 euros.\n", "2023-05-01", ()),
    ("guide-2025.md", "# Guide\n\nThe parking fee is 8 euros.\n", "2025-05-01", ()),
    ("假期_v1.md", "# 假期\n\n年假为十天。\n", "2023-05-01", ()),
    ("假期_v2.md", "# 假期\n\n年假为十五天。\n", "2025-05-01", ()),
    ("salaries.md", "# Salaries\n\nThe director earns 90000 euros.\n", "2025-05-01", ("board",)),
    ("salaries-2022.md", "# Salaries\n\nThe director earns 70000 euros.\n", "2022-05-01", ()),
    ("museum.md", "# Museum\n\nThe museum opens at nine.\n", "2024-06-01", ()),
    ("copy.md", "# Museum copy\n\nThe museum opens at nine.\n", "2024-06-02", ()),
    ("herbs.md", f"# Herbs\n\n{LONG}Thyme needs these things:\n\nSun, and little water.\n", "", ()),
)


class Quoting:
    """Quotes the first sentence of the first passage that has the question's last word."""

    card = PolicyCard("quoting", "double", "1")

    def __init__(self, word: str) -> None:
        self.word = word
        self.prompts: list[Prompt] = []

    def stream(self, prompt: Prompt, sampling: Sampling) -> Iterator[Delta]:
        """Quote, or abstain."""
        self.prompts.append(prompt)
        for number, passage in enumerate(prompt.passages, start=1):
            text = passage.chunk.text
            if self.word in text:
                yield Delta(text, quote=(number, 0, len(text)))
                yield Delta("", finish="stop")
                return
        yield Delta("", finish="abstain")

    def count_tokens(self, text: str) -> int:
        """One a character."""
        return len(text)

    def close(self) -> None:
        """Hold nothing."""


@pytest.fixture(scope="module")
def knowledge(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KnowledgeBase]:
    """Documents with dates and readers."""
    home = tmp_path_factory.mktemp("lookup")
    settings = load(overrides={"retrieval.embed.backend": "hashing"}).retrieval
    base = open_knowledge(home, settings)
    given = [
        Given(name, text, ".md", modified=_time(date), readers=readers)
        for name, text, date, readers in DOCUMENTS
    ]
    for _ in base.ingest_documents("given", given):
        pass
    yield base
    base.close()


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A folder for conversations."""
    return tmp_path / "home2"


def _time(date: str) -> float:
    return datetime.fromisoformat(date).astimezone().timestamp() if date else 0.0


class Held(Assistant):
    """An assistant on a knowledge base that outlives it."""


def ask(
    knowledge: KnowledgeBase,
    home: Path,
    question: str,
    word: str,
    readers: frozenset[str] | None = None,
) -> tuple[Reply, Quoting]:
    """Ask one question; returns the reply and the policy that was asked."""
    settings = load(overrides={"home": str(home), "docs": "false", "safety.audit": "false"})
    policy = Quoting(word)
    memory = Memory(home / "conversations.db")
    guard = Guard([build_rules(SafetySettings())], settings.safety)
    assistant = Held(settings, knowledge, guard, policy, memory)
    try:
        reply = assistant.reply(question, readers=readers)
        again = list(assistant.alternative(reply.turn_id, readers=readers))[-1].reply
        assert again is not None
        assert sources(again) <= {p.source for p in again.passages}
        return reply, policy
    finally:
        memory.close()


def sources(reply: Reply) -> set[str]:
    """Names of the documents cited."""
    return {c.source for c in reply.citations}


@pytest.mark.parametrize(
    ("question", "word", "new", "said"),
    [
        (
            "What is the parking fee?",
            "fee",
            "guide-2025.md",
            "An older version says something else: given:guide-2023.md (2023-05-01).",
        ),
        (
            "年假有几天？",
            "年假",
            "假期_v2.md",
            "较早的版本说法不同：given:假期_v1.md（2023-05-01）。",
        ),
    ],
)
def test_the_newest_version_answers_and_the_older_is_named(
    knowledge: KnowledgeBase, home: Path, question: str, word: str, new: str, said: str
) -> None:
    """Where two versions disagree the newer one answers, and the reply names the older one."""
    reply, _ = ask(knowledge, home, question, word)
    assert sources(reply) == {f"given:{new}"}
    assert said in reply.text
    (citation,) = reply.citations
    assert [o.source.removeprefix("given:") for o in citation.older]
    assert citation.version
    page = panel(reply, {}, reply.language)  # type: ignore[arg-type]
    assert "guide-2023.md" in page or "假期_v1.md" in page
    assert citation.version[:8] in page


def test_a_copy_is_named_and_not_shown_twice(knowledge: KnowledgeBase, home: Path) -> None:
    """The same text of two documents is cited once, and the citation names the other."""
    reply, policy = ask(knowledge, home, "When does the museum open?", "museum")
    (citation,) = reply.citations
    assert {citation.source, *citation.also} == {"given:museum.md", "given:copy.md"}
    assert "older" not in reply.text
    texts = [p.chunk.text for p in policy.prompts[0].passages]
    assert len(texts) == len(set(texts))


@pytest.mark.parametrize("readers", [frozenset(), frozenset({"guest"})])
def test_who_may_not_read_learns_nothing(
    knowledge: KnowledgeBase, home: Path, readers: frozenset[str]
) -> None:
    """A document of others reaches neither policy nor reply, nor is it told of in any way."""
    reply, policy = ask(knowledge, home, "What does the director earn?", "director", readers)
    assert sources(reply) == {"given:salaries-2022.md"}
    assert "90000 euros" not in repr(reply) + repr(policy.prompts)
    assert "given:salaries.md" not in repr(reply) + repr(policy.prompts)
    gone, _ = ask(knowledge, home, "What does the director earn in zloty?", "zloty", readers)
    assert "No document mentions" not in gone.text


def test_who_may_read_is_answered(knowledge: KnowledgeBase, home: Path) -> None:
    """A name on the list, or no access filter at all, opens the document."""
    for readers in (frozenset({"board", "x"}), None):
        reply, _ = ask(knowledge, home, "What does the director earn?", "director", readers)
        assert sources(reply) == {"given:salaries.md"}


def test_an_excerpt_is_closed_with_its_document(knowledge: KnowledgeBase, home: Path) -> None:
    """Who may no longer read a document sees the quote they were given, without what is around."""
    reply, _ = ask(knowledge, home, "What does the director earn?", "director")
    settings = load(overrides={"home": str(home), "docs": "false"})
    memory = Memory(home / "conversations.db")
    guard = Guard([build_rules(SafetySettings())], settings.safety)
    assistant = Held(settings, knowledge, guard, EchoPolicy(), memory)
    (citation,) = reply.citations
    assert assistant.excerpt(citation, frozenset({"board"})).current
    closed = assistant.excerpt(citation, frozenset({"guest"}))
    assert (closed.current, closed.before, closed.after) == (False, "", "")
    memory.close()


def test_a_time_bounds_the_search(knowledge: KnowledgeBase, home: Path) -> None:
    """A question about documents since a time is answered from those, and the step says so."""
    reply, policy = ask(knowledge, home, "What is the museum's hour since 2024?", "museum")
    assert sources(reply) <= {"given:museum.md", "given:copy.md"}
    found = {p.source for p in policy.prompts[0].passages}
    assert not found & {"given:guide-2023.md", "given:salaries-2022.md", "given:假期_v1.md"}
    detail = next(s.detail for s in reply.steps if s.name == "retrieve")
    assert detail.endswith("passages, dated since 2024")
    assert told(detail, "zh").endswith("时间范围：since 2024")


@pytest.mark.parametrize(
    ("question", "word", "said"),
    [
        ("Which notes from 1999 tell the parking fee?", "fee", "Within “from 1999” I found no"),
        ("1999年发布的文档里年假有几天？", "年假", "在“1999年”的时间范围内没有找到答案"),
        ("What is the director paid since 2024, in the old days?", "70000", "since 2024"),
    ],
)
def test_a_time_that_leaves_no_answer_is_given_up(
    knowledge: KnowledgeBase, home: Path, question: str, word: str, said: str
) -> None:
    """Where nothing of that time answers, all is searched, and the reply says so first."""
    readers = frozenset({"guest"})
    reply, _ = ask(knowledge, home, question, word, readers)
    assert reply.outcome == "answered"
    assert said in reply.text.splitlines()[0]


def test_undated_documents_are_left_out_of_recent_windows_only(
    knowledge: KnowledgeBase, home: Path
) -> None:
    """A document without a date may be of any year, but it is not taken for last week's."""
    reply, policy = ask(knowledge, home, "Which herbs are new since 2020?", "garden")
    assert "given:herbs.md" in {p.source for p in policy.prompts[0].passages}
    assert "of any date" not in repr(reply.steps)
    recent = datetime.now() - timedelta(days=3)
    reply, _ = ask(knowledge, home, f"Which herbs are new since {recent:%Y-%m-%d}?", "garden")
    assert "of any date" in repr(reply.steps)


def test_what_follows_an_announcement_is_evidence(knowledge: KnowledgeBase, home: Path) -> None:
    """Where the best passage matches at its edge, the one beside it is given too, last."""
    settings = load(overrides={"home": str(home), "docs": "false", "policy.passages": "1"})
    policy = Quoting("Sun")
    memory = Memory(home / "conversations.db")
    guard = Guard([build_rules(SafetySettings())], settings.safety)
    assistant = Held(settings, knowledge, guard, policy, memory)
    reply = assistant.reply("What does thyme need?")
    memory.close()
    texts: Sequence[str] = [p.chunk.text for p in reply.passages]
    assert any("Sun" in text for text in texts)


def test_messages_are_untouched_by_notes(knowledge: KnowledgeBase, home: Path) -> None:
    """What the reply says about versions is the assistant's word, not part of any prompt."""
    _, policy = ask(knowledge, home, "What is the parking fee?", "fee")
    for prompt in policy.prompts:
        assert all("older version" not in m.text for m in prompt.messages if isinstance(m, Message))
