"""Between LangChain's messages and ours: what was asked, and what an answer says of itself.

Citations are in LangChain's own form; `[n]` in the text is number n of them.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Sequence
from typing import Any
from uuid import uuid4

from langchain_core.documents import Document
from langchain_core.messages import BaseMessage, HumanMessage
from langchain_core.messages.ai import UsageMetadata
from langchain_core.messages.content import create_citation

from assistant.dialogue import Assistant
from assistant.errors import ConversationNotFound
from assistant.policy._stream import Cleaner
from assistant.prompt import mark_of, render
from assistant.schema import Asked, Citation, Event, Message, Prompt, Reply, Role, Usage
from assistant.understand import language_of
from retrieval.schema import Chunk, Passage
from safety import Verdict

ROLES: dict[str, Role] = {"system": "system", "human": "user", "ai": "assistant"}
#: Blocks of a message that are no text, and may be left out of an earlier answer.
THOUGHTS = ("reasoning", "thinking", "redacted_thinking")


# over an assistant --------------------------------------------------------------------------------


def turn_of(
    assistant: Assistant, messages: list[BaseMessage], how: Asked
) -> Generator[Event, None, None]:
    """The events of one turn, in the conversation that the messages belong to.

    Earlier messages are the context, where there is a question among them. The conversation is
    that of `how`, else the one that the last answer names; where that one was deleted, or is
    somebody else's, the question is answered, and not there.

    Raises:
        ConversationNotFound: `how` names a conversation that is none of this user's.
        ValueError: there is no question, or it is not text.
    """
    question = question_of(messages)
    before = messages[: _asked_from(messages)]
    if any(m.type == "human" for m in before):
        how = {**how, "history": _told(before)}
    answers = [m.response_metadata for m in before[::-1] if m.type == "ai"]
    named = next((a["conversation_id"] for a in answers if "conversation_id" in a), None)
    if how.get("conversation_id") is not None or not isinstance(named, str):
        yield from assistant.stream(question, **how)
        return
    try:
        there: Asked = {**how, "conversation_id": named}
        yield from assistant.stream(question, **there)
    except ConversationNotFound:
        yield from assistant.stream(question, **how)


def narrowed(own: frozenset[str] | None, asked: Iterable[str] | None) -> frozenset[str] | None:
    """The readers that both allow; None allows all. A call never widens what it may see."""
    if asked is None:
        return own
    names = frozenset([asked] if isinstance(asked, str) else asked)
    return names if own is None else own & names


def released(
    events: Iterable[Event], stop: Sequence[str] | None = None
) -> Iterator[tuple[str, Reply | None]]:
    """Text as it is released; last what the finished reply adds or says instead, with the reply."""
    cleaner, shown = Cleaner(stop or ()), ""
    for event in events:
        if event.text and (text := cleaner.feed(event.text)):
            shown += text
            yield text, None
        if event.reply is not None:
            yield rest(until(event.reply.text, stop), shown), event.reply


def about(reply: Reply, text: str) -> dict[str, Any]:
    """What an answer says of itself, as JSON: `response_metadata` of a message."""
    stopped = reply.outcome in ("refused", "crisis")
    return {
        "outcome": reply.outcome,
        "finish_reason": "content_filter" if stopped else _finish(reply),
        "confidence": reply.confidence,
        "language": reply.language,
        "turn_id": reply.turn_id,
        "conversation_id": reply.conversation_id,
        "citations": citations_of(reply.citations, text, reply.turn_id),
        "moderation": [_judged(verdict) for verdict in reply.verdicts],
    }


def _finish(reply: Reply) -> str:
    return "length" if reply.finish == "length" else "stop"


def _judged(verdict: Verdict) -> dict[str, str]:
    return {
        "side": verdict.side,
        "action": verdict.action,
        "category": verdict.category,
        "reason": verdict.reason,
        "decision_id": verdict.decision_id,
    }


def usage_of(usage: Usage | None) -> UsageMetadata | None:
    """Tokens as LangChain counts them."""
    if usage is None:
        return None
    return {
        "input_tokens": usage.prompt,
        "output_tokens": usage.answer,
        "total_tokens": usage.prompt + usage.answer,
        "input_token_details": {"cache_read": usage.cached},
    }


def _told(messages: list[BaseMessage]) -> list[Message]:
    """What was asked and answered; instructions and calls of tools are not the assistant's."""
    spoken = [m for m in messages if m.type in ("human", "ai")]
    return [Message(ROLES[m.type], str(m.text)) for m in spoken]


# over a policy alone ------------------------------------------------------------------------------


def prompt_of(messages: list[BaseMessage], documents: Sequence[Document], tongue: str) -> Prompt:
    """Messages as they are; with documents, as the one renderer puts them."""
    question = question_of(messages)
    language = language_of(question, [], tongue)
    told = [Message(_role(m), text_of(m)) for m in messages]
    if not documents:
        return Prompt(tuple(told), question, (), language)
    history = told[: _asked_from(messages)]
    if any(m.role == "system" for m in history):
        raise ValueError("documents come with our own system message; leave the other one out")
    passages = [_passage(n, document) for n, document in enumerate(documents, start=1)]
    return render(question, passages, history, language, mark=mark_of(uuid4().hex))


def _passage(number: int, document: Document) -> Passage:
    text, said = document.page_content, document.metadata
    source = str(said.get("source") or document.id or f"document {number}")
    title = str(said.get("title") or source.rsplit("/", 1)[-1])
    chunk = Chunk(number, number, text, 0, len(text), (), number - 1)
    return Passage(chunk, source, title, "", str(said.get("version", "")), 0.0, 0.0, 1.0, ())


def _asked_from(messages: list[BaseMessage]) -> int:
    """Where the question begins: the human messages that nothing follows."""
    start = len(messages)
    while start and isinstance(messages[start - 1], HumanMessage):
        start -= 1
    if start == len(messages):
        raise ValueError("the last message must be a human one: it is the question")
    return start


def question_of(messages: list[BaseMessage]) -> str:
    """What is asked: the human messages at the end.

    Raises:
        ValueError: the last message is not a human one, or holds what is no text.
    """
    return "\n".join(text_of(m) for m in messages[_asked_from(messages) :])


def _role(message: BaseMessage) -> Role:
    if message.type not in ROLES:
        known = ", ".join(ROLES)
        raise ValueError(f"a message of type {message.type!r}; plumbline reads {known} messages")
    return ROLES[message.type]


def text_of(message: BaseMessage) -> str:
    """The text of a message.

    Raises:
        ValueError: it holds a picture, a file or a call of a tool.
    """
    blocks = message.content if isinstance(message.content, list) else []
    kinds = {b.get("type", "") for b in blocks if isinstance(b, dict)} - {"text", *THOUGHTS}
    if kinds:
        raise ValueError(f"a message holds {', '.join(sorted(kinds))}; plumbline reads text only")
    return str(message.text)


# text and citations -------------------------------------------------------------------------------


def rest(final: str, shown: str) -> str:
    """What is still to be streamed of a finished answer; all of it where it says something else."""
    if not shown:
        return final
    before, found, after = final.partition(shown)
    aside = (before if found else final).strip()
    return after + (f"\n\n{aside}" if aside else "")


def until(text: str, stop: Sequence[str] | None) -> str:
    """The text before the first stop string."""
    ends = [at for word in stop or () if word and (at := text.find(word)) >= 0]
    return text[: min(ends)] if ends else text


def citations_of(found: Sequence[Citation], text: str, name: str) -> list[dict[str, Any]]:
    """Citations in LangChain's form; the indices are where `[n]` first stands in the answer."""
    made = []
    for citation in found:
        mark = f"[{citation.number}]"
        at = text.find(mark)
        block = create_citation(
            id=f"{name}-{citation.number}",
            url=citation.source,
            title=citation.title,
            cited_text=citation.quote,
            start_index=at if at >= 0 else None,
            end_index=at + len(mark) if at >= 0 else None,
            number=citation.number,
            document_id=citation.document_id,
            start=citation.start,
            end=citation.end,
            verbatim=citation.verbatim,
            version=citation.version,
            modified=citation.modified,
        )
        made.append(dict(block))
    return made
