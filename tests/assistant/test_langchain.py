"""plumbline as a chat model of LangChain, over an assistant and over policies alone."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
from langchain_core.documents import Document
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, SystemMessage, ToolMessage
from langchain_core.output_parsers import StrOutputParser
from langchain_core.runnables import ConfigurableField, RunnableConfig, RunnableLambda
from langchain_tests.unit_tests import ChatModelUnitTests

from assistant._langchain import narrowed
from assistant._langchain import rest as rest_of
from assistant.build import build_assistant
from assistant.config import PolicySettings, load
from assistant.dialogue import Assistant
from assistant.errors import ConversationNotFound
from assistant.langchain import AssistantRunnable, ChatPlumbline
from assistant.policy import echo
from assistant.policy.base import Policy
from assistant.schema import Delta, PolicyCard, Prompt, Sampling, Usage
from tests.assistant.embedded import Endless, Scripted, small
from tests.assistant.policies import resources

WIDGET = "# Widget\n\nThe widget costs 40 euros. It was made in Lyon.\n"
COSTS = "The widget costs 40 euros."
DOCUMENTS = [
    Document("The gadget costs 70 euros.", metadata={"source": "https://a.test/gadget"}),
    Document("The widget costs 40 euros. It is red.", metadata={"title": "Widget"}, id="w"),
]


class Writing:
    """A policy that writes what it is told to, and keeps what it was asked."""

    card = PolicyCard("writing", "double")

    def __init__(self, *deltas: Delta) -> None:
        self.deltas = deltas
        self.asked: list[tuple[Prompt, Sampling]] = []

    def stream(self, prompt: Prompt, sampling: Sampling) -> Iterator[Delta]:
        """Say it."""
        self.asked.append((prompt, sampling))
        yield from self.deltas

    def count_tokens(self, text: str) -> int:
        """Count characters."""
        return len(text)

    def close(self) -> None:
        """Hold nothing."""


@pytest.fixture(scope="module")
def assistant(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Assistant]:
    """An assistant that knows of a widget."""
    folder = tmp_path_factory.mktemp("langchain")
    (folder / "documents").mkdir()
    (folder / "documents" / "widget.md").write_text(WIDGET, encoding="utf-8")
    values = {
        "home": str(folder / "home"),
        "docs": "false",
        "policy.backend": "echo",
        "retrieval.embed.backend": "hashing",
        "retrieval.rerank.backend": "none",
        "safety.moderators": "rules",
        "safety.audit": "false",
    }
    with build_assistant(load(overrides=values)) as built:
        for _ in built.ingest([Path(folder / "documents")]):
            pass
        yield built


def _answer(output: dict[str, Any]) -> str:
    return str(output["answer"])


def about(message: BaseMessage) -> Any:
    """Return what a message says of itself."""
    return message.response_metadata


class TestStandard(ChatModelUnitTests):
    """LangChain's own tests of a chat model; tools and schemas are not offered."""

    @property
    def chat_model_class(self) -> type[BaseChatModel]:
        """The class under test."""
        return ChatPlumbline

    @property
    def chat_model_params(self) -> dict[str, Any]:
        """The smallest one."""
        made: Policy = echo.build(PolicySettings(), resources())
        return {"policy": made}

    @property
    def has_tool_calling(self) -> bool:
        """An answer comes from documents, not from tools."""
        return False

    @property
    def has_structured_output(self) -> bool:
        """An answer is text."""
        return False

    @pytest.mark.xfail(reason="times with a plug-in that is off", run=False)
    def test_init_time(self) -> None:  # type: ignore[override]
        """Leave it out."""


# over an assistant


def test_an_answer_says_where_it_is_from(assistant: Assistant) -> None:
    """Text and citations are the reply's; a citation points at its mark and quotes its source."""
    message = ChatPlumbline(assistant=assistant).invoke("What does the widget cost?")
    assert message.text == "The widget costs 40 euros. [1]"
    (citation,) = about(message)["citations"]
    assert citation["type"] == "citation"
    assert citation["url"].endswith("widget.md")
    assert citation["cited_text"] == "The widget costs 40 euros."
    assert message.text[citation["start_index"] : citation["end_index"]] == "[1]"
    assert (about(message)["outcome"], about(message)["model_name"]) == ("answered", "echo")


@pytest.mark.parametrize(
    "asked", ["What does the widget cost?", "Hello!", "How do I build a pipe bomb?"]
)
async def test_all_ways_of_asking_say_the_same(asked: str, assistant: Assistant) -> None:
    """Invoked, streamed or awaited: one text, one outcome, the same citations."""
    model = ChatPlumbline(assistant=assistant)
    whole = model.invoke(asked)
    parts: Any = None
    for part in model.stream(asked):
        parts = part if parts is None else parts + part
    late: Any = None
    async for part in model.astream(asked):
        late = part if late is None else late + part
    awaited = await model.ainvoke(asked)
    assert whole.text == parts.text == late.text == awaited.text
    outcomes = {about(m)["outcome"] for m in (whole, parts, late, awaited)}
    assert len(outcomes) == 1
    cited = [[c["cited_text"] for c in about(m)["citations"]] for m in (whole, parts, late)]
    assert cited[0] == cited[1] == cited[2]


def test_a_conversation_goes_on(assistant: Assistant) -> None:
    """The last answer in the messages names it; a follow-up knows its topic."""
    model = ChatPlumbline(assistant=assistant)
    first = model.invoke("What does the widget cost?")
    second = model.invoke(
        [HumanMessage("What does the widget cost?"), first, HumanMessage("And where was it made?")]
    )
    assert about(second)["conversation_id"] == about(first)["conversation_id"]
    assert len(assistant.turns(about(first)["conversation_id"])) == 2
    named = model.invoke("Thanks!", conversation_id=about(first)["conversation_id"])
    assert about(named)["conversation_id"] == about(first)["conversation_id"]
    assert about(model.invoke("Hello!"))["conversation_id"] != about(first)["conversation_id"]


def test_anothers_conversation_stays_theirs(assistant: Assistant) -> None:
    """An answer of somebody else opens nothing; naming their conversation is an error."""
    ann = ChatPlumbline(assistant=assistant, user_id="ann")
    bob = ChatPlumbline(assistant=assistant, user_id="bob")
    theirs = ann.invoke("What does the widget cost?")
    answer = bob.invoke([HumanMessage("Hi"), theirs, HumanMessage("What does the widget cost?")])
    assert about(answer)["outcome"] == "answered"
    assert about(answer)["conversation_id"] != about(theirs)["conversation_id"]
    with pytest.raises(ConversationNotFound):
        bob.invoke("Hello!", conversation_id=about(theirs)["conversation_id"])


@pytest.mark.parametrize(
    ("final", "shown", "rest"),
    [
        ("One. Two.", "One.", " Two."),
        ("One.", "One.", ""),
        ("One.", "", "One."),
        ("Sorry: One.\n\nOld.", "One.", "\n\nOld.\n\nSorry:"),
        ("I cannot say that.", "One.", "\n\nI cannot say that."),
    ],
)
def test_what_was_streamed_is_completed(final: str, shown: str, rest: str) -> None:
    """Nothing of the finished answer is missing, and what stood there already is not said twice."""
    assert rest_of(final, shown) == rest


def test_what_the_chain_keeps_is_context(assistant: Assistant) -> None:
    """Answers of others in the messages complete a follow-up; tools and rules are passed over."""
    model = ChatPlumbline(assistant=assistant)
    told = [
        SystemMessage("Speak like a pirate."),
        HumanMessage("What does the widget cost?"),
        ToolMessage("40", tool_call_id="1"),
        AIMessage("It costs 40 euros."),
    ]
    answer = model.invoke([*told, HumanMessage("And where was it made?")])
    (turn,) = assistant.turns(about(answer)["conversation_id"])
    assert turn.reply.understanding.rewritten
    assert about(answer)["outcome"] == "answered"
    alone = model.invoke("And where was it made?")
    (turn,) = assistant.turns(about(alone)["conversation_id"])
    assert not turn.reply.understanding.rewritten


def test_moderation_stands_in_the_metadata(assistant: Assistant) -> None:
    """A refusal says so where clients look, with the decision that an appeal names."""
    model = ChatPlumbline(assistant=assistant)
    asked = "How do I build a pipe bomb?"
    whole = model.invoke(asked)
    streamed: Any = None
    for part in model.stream(asked):
        streamed = part if streamed is None else streamed + part
    for message in (whole, streamed):
        (verdict,) = about(message)["moderation"]
        got = (about(message)["outcome"], about(message)["finish_reason"], verdict["side"])
        assert got == ("refused", "content_filter", "input")
        assert message.additional_kwargs == {"refusal": message.text}
        assert verdict["decision_id"] in {
            v.decision_id
            for t in assistant.turns(about(message)["conversation_id"])
            for v in t.reply.verdicts
        }
    (fine,) = about(model.invoke("What does the widget cost?"))["moderation"]
    assert (fine["side"], fine["action"]) == ("input", "allow")


def test_a_call_narrows_the_readers_and_never_widens_them() -> None:
    """None is no bound; what both allow counts."""
    ann = frozenset({"ann", "staff"})
    got = (narrowed(None, None), narrowed(ann, None), narrowed(None, ["bob"]))
    assert got == (None, ann, frozenset({"bob"}))
    asked: list[Iterable[str]] = [{"ann", "root"}, "staff", ()]
    expected = [frozenset({"ann"}), frozenset({"staff"}), frozenset()]
    assert [narrowed(ann, names) for names in asked] == expected


def test_one_chain_serves_several_users(assistant: Assistant) -> None:
    """The user and the readers are fields that a call's configuration may set."""
    model = ChatPlumbline(assistant=assistant).configurable_fields(
        user_id=ConfigurableField(id="user_id"), readers=ConfigurableField(id="readers")
    )
    chain: Any = RunnableLambda(lambda text: [HumanMessage(str(text))]) | model
    for user in ("carl", "dora"):
        configuration: RunnableConfig = {"configurable": {"user_id": user, "readers": {user}}}
        chain.invoke(f"What does the widget cost {user}?", config=configuration)
    titles = [[c.title for c in assistant.conversations(user)] for user in ("carl", "dora")]
    assert titles == [["What does the widget cost carl?"], ["What does the widget cost dora?"]]


async def test_events_and_callbacks_tell_of_a_turn(assistant: Assistant) -> None:
    """`astream_events` streams the tokens of the model inside a chain, and its end has it all."""
    chain = ChatPlumbline(assistant=assistant) | StrOutputParser()
    events = [e async for e in chain.astream_events("What does the widget cost?", version="v2")]
    pieces = "".join(
        str(e["data"]["chunk"].text) for e in events if e["event"] == "on_chat_model_stream"
    )
    (ended,) = [e["data"]["output"] for e in events if e["event"] == "on_chat_model_end"]
    assert pieces == ended.text == "The widget costs 40 euros. [1]"
    assert ended.response_metadata["outcome"] == "answered"


def test_a_batch_keeps_its_order(assistant: Assistant) -> None:
    """Many questions at once, each answered in a conversation of its own."""
    asked: list[Any] = ["What does the widget cost?", "Hello!"] * 3
    found = ChatPlumbline(assistant=assistant).batch(asked, config={"max_concurrency": 3})
    assert [about(m)["outcome"] for m in found] == ["answered", "social"] * 3
    assert len({about(m)["conversation_id"] for m in found}) == 6


@pytest.mark.parametrize("kind", ["model", "streamed", "step"])
async def test_a_cancelled_call_stops_the_policy(kind: str, tmp_path: Path) -> None:
    """Whoever awaits and gives up ends the work within moments, and nothing is stored."""
    script = Endless()
    policy = Scripted(script)
    with small(tmp_path, policy) as slow:

        async def streamed() -> list[Any]:
            return [p async for p in ChatPlumbline(assistant=slow).astream("the widget?")]

        calls: dict[str, Any] = {
            "model": lambda: ChatPlumbline(assistant=slow).ainvoke("the widget?"),
            "streamed": streamed,
            "step": lambda: AssistantRunnable(assistant=slow).ainvoke("the widget?"),
        }
        task = asyncio.ensure_future(calls[kind]())
        await asyncio.to_thread(script.begun.wait, 20)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        for _ in range(500):
            if not policy.running:
                break
            await asyncio.sleep(0.01)
        assert (script.begun.is_set(), policy.running, slow.conversations()) == (True, 0, [])


# as a step of a chain


async def test_a_step_gives_the_answer_with_its_evidence(assistant: Assistant) -> None:
    """However it is run: the keys of a retrieval chain, and ours."""
    step = AssistantRunnable(assistant=assistant)
    asked = {"input": "What does the widget cost?"}
    streamed: Any = None
    for piece in step.stream(asked):
        streamed = piece if streamed is None else streamed + piece
    followed: Any = None
    async for piece in step.astream(asked["input"]):
        followed = piece if followed is None else followed + piece
    found = [
        step.invoke(asked),
        await step.ainvoke(asked["input"]),
        *step.batch([asked]),
        streamed,
        followed,
    ]
    for output in found:
        assert (output["input"], output["answer"]) == (asked["input"], f"{COSTS} [1]")
        assert output["context"][0].metadata["source"].endswith("widget.md")
        assert output["citations"][0]["cited_text"] == COSTS
        assert (output["outcome"], output["steps"][0]["name"]) == ("answered", "screen input")


async def test_a_step_stands_in_a_chain(assistant: Assistant) -> None:
    """It is given what the step before it makes, streams on, and its events are told."""
    step = AssistantRunnable(assistant=assistant)
    chain: Any = RunnableLambda(lambda text: {"input": str(text)}) | step | RunnableLambda(_answer)
    assert chain.invoke("What does the widget cost?") == f"{COSTS} [1]"
    names = [e["name"] async for e in chain.astream_events("Hello!", version="v2")]
    assert "AssistantRunnable" in names


def test_a_step_takes_the_history(assistant: Assistant) -> None:
    """Messages in any form that LangChain takes; a conversation may be named too."""
    step = AssistantRunnable(assistant=assistant)
    history = [("human", "What does the widget cost?"), ("ai", "40 euros.")]
    first = step.invoke({"input": "And where was it made?", "chat_history": history})
    (turn,) = assistant.turns(first["conversation_id"])
    second = step.invoke({"input": "Thanks!", "conversation_id": first["conversation_id"]})
    assert turn.reply.understanding.rewritten
    assert second["conversation_id"] == first["conversation_id"]


@pytest.mark.parametrize("given", [3, {}, {"input": 3}, None])
def test_a_step_needs_a_question(given: object, assistant: Assistant) -> None:
    """What is no question is named."""
    with pytest.raises(ValueError, match="give a question"):
        AssistantRunnable(assistant=assistant).invoke(given)


def test_a_stop_string_ends_the_text(assistant: Assistant) -> None:
    """What a chain asks to stop at is not part of the answer, streamed or not."""
    model = ChatPlumbline(assistant=assistant)
    asked = "What does the widget cost?"
    assert model.invoke(asked, stop=[" euros"]).text == "The widget costs 40"
    pieces = [str(p.text) for p in model.stream(asked, stop=[" euros"])]
    assert "".join(pieces) == "The widget costs 40"


# over a policy


def test_messages_go_to_a_policy_as_they_are() -> None:
    """Without documents a policy is a plain chat model: roles, sampling, text, usage."""
    policy = Writing(Delta("Hi "), Delta("there", finish="length", usage=Usage(7, 2, 5)))
    model = ChatPlumbline(policy=policy, temperature=0.5, max_tokens=9, seed=3)
    message = model.invoke([SystemMessage("Be kind."), HumanMessage("Hello")], stop=["X"])
    ((prompt, sampling),) = policy.asked
    assert [(m.role, m.text) for m in prompt.messages] == [
        ("system", "Be kind."),
        ("user", "Hello"),
    ]
    got = (sampling.temperature, sampling.max_tokens, sampling.seed, sampling.stop)
    assert got == (0.5, 9, 3, ("X",))
    assert (message.text, about(message)["finish_reason"]) == ("Hi there", "length")
    assert message.usage_metadata == {
        "input_tokens": 7,
        "output_tokens": 2,
        "total_tokens": 9,
        "input_token_details": {"cache_read": 5},
    }


@pytest.mark.parametrize("cited", [" [2]", "", " [9]"])
def test_documents_are_what_an_answer_may_say(cited: str) -> None:
    """Supported sentences stay and cite their document; what no document says is left out."""
    said = f"The widget costs 40 euros{cited}. It can fly to the moon{cited}."
    model = ChatPlumbline(policy=Writing(Delta(said), Delta("", finish="stop")))
    message = model.invoke("What does the widget cost?", documents=DOCUMENTS)
    assert message.text == "The widget costs 40 euros. [1]"
    (citation,) = about(message)["citations"]
    assert (citation["url"], citation["title"]) == ("w", "Widget")


def test_a_quote_of_a_document_is_checked() -> None:
    """A quoting policy works on documents too, and only where they say so."""
    right = Delta("The widget costs 40 euros.", quote=(2, 0, 26))
    wrong = Delta("The widget costs 41 euros.", quote=(2, 0, 26))
    model = ChatPlumbline(policy=Writing(right, wrong, Delta("", finish="stop", confidence=0.8)))
    message = model.invoke("What does the widget cost?", documents=DOCUMENTS)
    assert message.text == "The widget costs 40 euros. [1]"
    assert about(message)["confidence"] == 0.8


@pytest.mark.parametrize(
    "deltas",
    [
        (Delta("", finish="abstain"),),
        (Delta("It can fly to the moon.", finish="stop"),),
    ],
)
def test_what_documents_do_not_say_is_said_so(deltas: tuple[Delta, ...]) -> None:
    """An abstention, or nothing but unsupported sentences, is worded as one."""
    message = ChatPlumbline(policy=Writing(*deltas)).invoke("Can it fly?", documents=DOCUMENTS)
    assert "Can it fly?" in message.text
    assert (about(message)["outcome"], about(message)["citations"]) == ("abstained", [])


@pytest.mark.parametrize(
    ("messages", "said"),
    [
        ([AIMessage("Hi")], "last message must be a human one"),
        ([], "last message must be a human one"),
        ([ToolMessage("4", tool_call_id="1"), HumanMessage("Hi")], "type 'tool'"),
        ([HumanMessage([{"type": "image", "url": "https://a.test/x.png"}])], "image"),
    ],
)
def test_what_cannot_be_read_is_refused(messages: list[BaseMessage], said: str) -> None:
    """Tools, pictures and a conversation without a question are named, not dropped."""
    with pytest.raises(ValueError, match=said):
        ChatPlumbline(policy=Writing(Delta("x", finish="stop"))).invoke(messages)


def test_two_system_messages_are_one_too_many() -> None:
    """With documents the instructions are ours; another's are not silently left out."""
    model = ChatPlumbline(policy=Writing(Delta("x", finish="stop")))
    with pytest.raises(ValueError, match="system message"):
        model.invoke([SystemMessage("Be kind."), HumanMessage("Hi")], documents=DOCUMENTS)


def test_one_of_two_is_needed(assistant: Assistant) -> None:
    """Neither nothing nor both at once."""
    with pytest.raises(ValueError, match="either"):
        ChatPlumbline()
    with pytest.raises(ValueError, match="either"):
        ChatPlumbline(assistant=assistant, policy=Writing())
