"""plumbline as a LangChain chat model: a whole assistant, or a policy alone.

    ChatPlumbline(assistant=assistant)   every turn searched, answered, checked, and remembered
    ChatPlumbline(policy=policy)         what the policy writes; with `documents=` in a call, from
                                         these documents only, checked sentence by sentence

Citations stand in `response_metadata["citations"]`, in LangChain's own form; `[n]` in the text is
number n of them. Asynchronous calls run in threads.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Literal, Self
from uuid import uuid4

from langchain_core.callbacks import CallbackManagerForLLMRun
from langchain_core.documents import Document
from langchain_core.language_models import BaseChatModel, LangSmithParams
from langchain_core.language_models.chat_models import generate_from_stream
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage, HumanMessage
from langchain_core.messages.content import create_citation
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from pydantic import ConfigDict, model_validator

from assistant.dialogue import Assistant
from assistant.errors import ConversationNotFound
from assistant.grounding import Grounded, Grounder, SentenceStream
from assistant.phrases import abstain
from assistant.policy._stream import Cleaner
from assistant.prompt import mark_of, render, unmarked
from assistant.schema import Citation, Delta, Event, Message, Prompt, Reply, Role, Sampling
from assistant.understand import language_of
from retrieval.schema import Chunk, Passage

ROLES: dict[str, Role] = {"system": "system", "human": "user", "ai": "assistant"}
#: Blocks of a message that are no text, and may be left out of an earlier answer.
THOUGHTS = ("reasoning", "thinking", "redacted_thinking")


class ChatPlumbline(BaseChatModel):
    """A chat model that answers from documents. Exactly one of `assistant` and `policy` is given.

    With an assistant, the last human message is the question. The conversation goes on that the
    last answer in the messages belongs to (its `response_metadata` names it), or the one that
    `conversation_id` names in a call; else a new one begins. System messages are not followed: an
    assistant has its own rules. `user_id`, `language` and `readers` are those of
    `Assistant.stream`.

    With a policy, `temperature`, `max_tokens`, `seed` and `seconds` are its sampling. Without
    documents the messages go to it as they are and nothing is checked; a policy that only quotes
    then abstains.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True)

    assistant: Assistant | None = None
    policy: Any = None
    user_id: str = "local"
    language: str = "auto"
    readers: frozenset[str] | None = None
    unsupported: Literal["drop", "flag"] = "drop"
    temperature: float = 0.0
    max_tokens: int = 512
    seed: int = 0
    seconds: float = 120.0

    @model_validator(mode="after")
    def _one_of_two(self) -> Self:
        if (self.assistant is None) == (self.policy is None):
            raise ValueError("give either assistant= or policy=, and not both")
        return self

    @property
    def _llm_type(self) -> str:
        return "plumbline"

    @property
    def model_name(self) -> str:
        """Who answers: the policy's model."""
        if self.assistant is None:
            return str(self.policy.card.model)
        chosen = self.assistant.settings.policy
        return chosen.model or chosen.backend

    def _get_ls_params(self, stop: list[str] | None = None, **kwargs: Any) -> LangSmithParams:
        params = super()._get_ls_params(stop=stop, **kwargs)
        return {**params, "ls_provider": "plumbline"}

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        if self.assistant is None:
            return generate_from_stream(self._stream(messages, stop, run_manager, **kwargs))
        *_, last = self._events(messages, **kwargs)
        assert last.reply is not None
        text = _until(last.reply.text, stop)
        message = AIMessage(content=text, response_metadata=self._about(last.reply, text))
        return ChatResult(generations=[ChatGeneration(message=message)])

    def _stream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> Iterator[ChatGenerationChunk]:
        make = self._written if self.assistant is None else self._answered
        for chunk in make(messages, stop, **kwargs):
            yield ChatGenerationChunk(message=chunk)

    # an assistant -------------------------------------------------------------------------------

    def _answered(
        self, messages: list[BaseMessage], stop: list[str] | None, **kwargs: Any
    ) -> Iterator[AIMessageChunk]:
        """Text as it is released, then what the finished reply adds or says instead."""
        cleaner, shown = Cleaner(stop or ()), ""
        for event in self._events(messages, **kwargs):
            if event.text and (text := cleaner.feed(event.text)):
                shown += text
                yield AIMessageChunk(content=text)
            if event.reply is not None:
                final = _until(event.reply.text, stop)
                text = _rest(final, shown)
                about = self._about(event.reply, final)
                about["text"] = final  # where the answer was withdrawn, or begins otherwise
                yield AIMessageChunk(content=text, response_metadata=about)

    def _events(
        self, messages: list[BaseMessage], conversation_id: str | None = None, **kwargs: Any
    ) -> Iterator[Event]:
        assert self.assistant is not None
        question = _question(messages)
        answers = [m.response_metadata for m in messages[::-1] if m.type == "ai"]
        known = next((a["conversation_id"] for a in answers if "conversation_id" in a), None)
        known = known if conversation_id is None else None
        try:
            yield from self.assistant.stream(
                question,
                conversation_id=conversation_id or known,
                user_id=self.user_id,
                language=self.language,
                surface="langchain",
                readers=self.readers,
            )
        except ConversationNotFound:
            if known is None:
                raise
            # deleted, or somebody else's: the question is answered, and not there
            yield from self._events([HumanMessage(question)])

    def _about(self, reply: Reply, text: str) -> dict[str, Any]:
        return {
            "model_name": self.model_name,
            "outcome": reply.outcome,
            "confidence": reply.confidence,
            "language": reply.language,
            "turn_id": reply.turn_id,
            "conversation_id": reply.conversation_id,
            "citations": _citations(reply.citations, text, reply.turn_id),
        }

    # a policy alone -----------------------------------------------------------------------------

    def _written(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None,
        documents: Sequence[Document] = (),
        **kwargs: Any,
    ) -> Iterator[AIMessageChunk]:
        """What a policy writes; from documents only what they support, or that they do not say."""
        prompt = _prompt(messages, documents, self.language)
        grounder = Grounder(prompt.passages, lambda terms: [1.0] * len(terms), self.unsupported)
        shown, last = "", Delta("")
        for text, delta in self._sentences(prompt, stop, grounder):
            last = delta
            piece = f" {text}" if shown and text and documents else text
            if piece:
                shown += piece
                yield AIMessageChunk(content=piece)
        finish, rest = last.finish, ""
        if documents and not shown:
            finish, rest = "abstain", abstain(prompt.language, prompt.question, [], [])
        about = {
            "model_name": self.model_name,
            "finish_reason": finish,
            "outcome": "abstained" if finish == "abstain" else "answered",
            "confidence": last.confidence,
            "citations": _citations(grounder.citations, shown, prompt.mark),
        }
        usage: Any = last.usage and {
            "input_tokens": last.usage.prompt,
            "output_tokens": last.usage.answer,
            "total_tokens": last.usage.prompt + last.usage.answer,
            "input_token_details": {"cache_read": last.usage.cached},
        }
        yield AIMessageChunk(content=rest, response_metadata=about, usage_metadata=usage or None)

    def _sentences(
        self, prompt: Prompt, stop: list[str] | None, grounder: Grounder
    ) -> Iterator[tuple[str, Delta]]:
        """Text that may be shown, each with the policy's piece it came with; the last one is last.

        Without passages there is nothing to check by, and pieces pass as they are.
        """
        sampling = Sampling(
            temperature=self.temperature,
            max_tokens=self.max_tokens,
            stop=tuple(stop or ()),
            seed=self.seed,
            seconds=self.seconds,
        )
        cutter, delta = SentenceStream(), Delta("")

        def checked(sentences: Sequence[str]) -> Iterator[Grounded | None]:
            return (grounder.sentence(unmarked(s, prompt.mark)) for s in sentences)

        for delta in self.policy.stream(prompt, sampling):
            if not prompt.passages:
                yield delta.text, delta
                continue
            cut = cutter.feed(delta.text) if delta.quote is None else []
            found = checked(cut) if delta.quote is None else iter([grounder.quote(delta)])
            yield from ((g.text, delta) for g in found if g is not None)
        rest = cutter.flush() if prompt.passages and delta.finish != "abstain" else []
        if not (delta.finish == "length" and grounder.citations):  # else it was cut off
            yield from ((g.text, delta) for g in checked(rest) if g is not None)
        yield "", delta


def _prompt(messages: list[BaseMessage], documents: Sequence[Document], tongue: str) -> Prompt:
    """Messages as they are; with documents, as the one renderer puts them."""
    question = _question(messages)
    language = language_of(question, [], tongue)
    told = [Message(_role(m), _text(m)) for m in messages]
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


def _question(messages: list[BaseMessage]) -> str:
    return "\n".join(_text(m) for m in messages[_asked_from(messages) :])


def _role(message: BaseMessage) -> Role:
    if message.type not in ROLES:
        known = ", ".join(ROLES)
        raise ValueError(f"a message of type {message.type!r}; plumbline reads {known} messages")
    return ROLES[message.type]


def _text(message: BaseMessage) -> str:
    blocks = message.content if isinstance(message.content, list) else []
    kinds = {b.get("type", "") for b in blocks if isinstance(b, dict)} - {"text", *THOUGHTS}
    if kinds:
        raise ValueError(f"a message holds {', '.join(sorted(kinds))}; plumbline reads text only")
    return str(message.text)


def _rest(final: str, shown: str) -> str:
    """What is still to be streamed of a finished answer; all of it where it says something else."""
    if not shown:
        return final
    before, found, after = final.partition(shown)
    aside = (before if found else final).strip()
    return after + (f"\n\n{aside}" if aside else "")


def _until(text: str, stop: list[str] | None) -> str:
    """The text before the first stop string."""
    ends = [at for word in stop or () if word and (at := text.find(word)) >= 0]
    return text[: min(ends)] if ends else text


def _citations(found: Sequence[Citation], text: str, name: str) -> list[dict[str, Any]]:
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
