"""plumbline in LangChain: a chat model over an assistant or a policy, and a Runnable.

    ChatPlumbline(assistant=assistant)   every turn searched, answered, checked, and remembered
    ChatPlumbline(policy=policy)         what the policy writes; with `documents=` in a call, from
                                         these documents only, checked sentence by sentence
    AssistantRunnable(assistant=...)     a question in, the answer with its passages out

Citations stand in `response_metadata["citations"]`, in LangChain's own form; `[n]` in the text is
number n of them. Asynchronous calls run in threads, and a cancelled one stops the policy.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import aclosing
from typing import Any, Literal, Self

from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
from langchain_core.documents import Document
from langchain_core.language_models import BaseChatModel, LangSmithParams
from langchain_core.language_models.chat_models import (
    agenerate_from_stream,
    generate_from_stream,
)
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage, HumanMessage
from langchain_core.messages.utils import convert_to_messages
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from langchain_core.runnables import RunnableConfig, RunnableSerializable
from langchain_core.runnables.utils import AddableDict
from pydantic import ConfigDict, model_validator

from assistant._langchain import (
    about,
    citations_of,
    narrowed,
    prompt_of,
    released,
    turn_of,
    until,
    usage_of,
)
from assistant.asynchronous import Stopped, following
from assistant.dialogue import Assistant
from assistant.grounding import Grounded, Grounder, SentenceStream
from assistant.phrases import abstain, say
from assistant.prompt import unmarked
from assistant.schema import Asked, Delta, Event, Prompt, Reply, Sampling
from retrieval.langchain import as_document
from safety.links import said_back


class ChatPlumbline(BaseChatModel):
    """A chat model that answers from documents. Exactly one of `assistant` and `policy` is given.

    With an assistant, the last human message is the question, and the messages before it are its
    context; where there are none, the stored turns are. The turn is kept in the conversation that
    the last answer in the messages belongs to (its `response_metadata` names it), or the one that
    `conversation_id` names in a call; else in a new one. System messages are not followed: an
    assistant has its own rules. `user_id`, `language` and `readers` are those of
    `Assistant.stream`; `readers` given with a call narrow what is seen and never widen it.

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
        return self._whole(self._events(messages, **kwargs), stop)

    async def _agenerate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        if self.assistant is None:
            return await agenerate_from_stream(self._astream(messages, stop, **kwargs))
        events: list[Event] = []
        work = following(lambda stopped: self._events(messages, stopped=stopped, **kwargs))
        async with aclosing(work):
            events = [event async for event in work]
        return self._whole(events, stop)

    def _stream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> Iterator[ChatGenerationChunk]:
        for chunk in self._chunks(messages, stop, **kwargs):
            yield ChatGenerationChunk(message=chunk)

    async def _astream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[ChatGenerationChunk]:
        work = following(lambda stopped: self._chunks(messages, stop, stopped=stopped, **kwargs))
        async with aclosing(work):
            async for chunk in work:
                yield ChatGenerationChunk(message=chunk)

    def _chunks(
        self, messages: list[BaseMessage], stop: list[str] | None, **kwargs: Any
    ) -> Generator[AIMessageChunk, None, None]:
        if self.assistant is None:
            kwargs.pop("stopped", None)
            yield from self._written(messages, stop, **kwargs)
            return
        for text, reply in released(self._events(messages, **kwargs), stop):
            if reply is None:
                yield AIMessageChunk(content=text)
                continue
            final = self._message(reply, stop)
            final.response_metadata["text"] = final.content  # where it was withdrawn
            yield AIMessageChunk(
                content=text,
                additional_kwargs=final.additional_kwargs,
                response_metadata=final.response_metadata,
                usage_metadata=final.usage_metadata,
            )

    # an assistant -------------------------------------------------------------------------------

    def _events(
        self,
        messages: list[BaseMessage],
        conversation_id: str | None = None,
        readers: Iterable[str] | None = None,
        stopped: Stopped | None = None,
        **kwargs: Any,
    ) -> Generator[Event, None, None]:
        assert self.assistant is not None
        how: Asked = {
            "conversation_id": conversation_id,
            "user_id": self.user_id,
            "language": self.language,
            "surface": "langchain",
            "readers": narrowed(self.readers, readers),
            "stopped": stopped,
        }
        return turn_of(self.assistant, messages, how)

    def _whole(self, events: Iterable[Event], stop: list[str] | None) -> ChatResult:
        *_, last = events
        assert last.reply is not None
        return ChatResult(generations=[ChatGeneration(message=self._message(last.reply, stop))])

    def _message(self, reply: Reply, stop: list[str] | None) -> AIMessage:
        text = until(reply.text, stop)
        refusal = {"refusal": text} if reply.outcome == "refused" else {}
        return AIMessage(
            content=text,
            additional_kwargs=refusal,
            response_metadata={"model_name": self.model_name, **about(reply, text)},
            usage_metadata=usage_of(reply.usage),
        )

    # a policy alone -----------------------------------------------------------------------------

    def _written(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None,
        documents: Sequence[Document] = (),
        **kwargs: Any,
    ) -> Iterator[AIMessageChunk]:
        """What a policy writes; from documents only what they support, or that they do not say."""
        prompt = prompt_of(messages, documents, self.language)
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
            finish, rest = "abstain", abstain(prompt.language, said_back(prompt.question), [], [])
        said = {
            "model_name": self.model_name,
            "finish_reason": finish,
            "outcome": "abstained" if finish == "abstain" else "answered",
            "confidence": last.confidence,
            "citations": citations_of(grounder.citations, shown, prompt.mark),
        }
        usage = usage_of(last.usage)
        yield AIMessageChunk(content=rest, response_metadata=said, usage_metadata=usage)

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
        yield (say(delta.phrase, prompt.language) if delta.phrase else ""), delta


class AssistantRunnable(RunnableSerializable[Any, dict[str, Any]]):
    """An assistant as a step of a chain: a question in, the answer with its evidence out.

    The input is the question, or a mapping with `input` and, where there are any,
    `chat_history` (messages), `conversation_id` and `readers` (which narrow this one's). The
    output has the keys of a retrieval chain, `input`, `context` (documents) and `answer`, and
    beside them what `ChatPlumbline` says in `response_metadata`, and `steps`. When it is streamed,
    `answer` comes in pieces and the rest with the last; its `text` is the whole answer, for one
    that was withdrawn.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True)

    assistant: Assistant
    user_id: str = "local"
    language: str = "auto"
    readers: frozenset[str] | None = None

    def invoke(
        self, input: Any, config: RunnableConfig | None = None, **kwargs: Any
    ) -> dict[str, Any]:
        """Answer one question; see the class."""
        return self._call_with_config(self._one, input, config, **kwargs)

    async def ainvoke(
        self, input: Any, config: RunnableConfig | None = None, **kwargs: Any
    ) -> dict[str, Any]:
        """Answer one question; cancelled, it stops the policy."""
        return await self._acall_with_config(self._aone, input, config, **kwargs)

    def stream(
        self, input: Any, config: RunnableConfig | None = None, **kwargs: Any
    ) -> Iterator[dict[str, Any]]:
        """Answer one question in pieces; see the class."""
        yield from self.transform(iter([input]), config, **kwargs)

    def transform(
        self, input: Iterator[Any], config: RunnableConfig | None = None, **kwargs: Any
    ) -> Iterator[dict[str, Any]]:
        """As `stream`, once the whole question has come."""
        yield from self._transform_stream_with_config(input, self._pieces_of, config, **kwargs)

    async def astream(
        self, input: Any, config: RunnableConfig | None = None, **kwargs: Any
    ) -> AsyncIterator[dict[str, Any]]:
        """Answer one question in pieces; whoever breaks off stops the policy."""

        async def once() -> AsyncIterator[Any]:
            yield input

        async for piece in self.atransform(once(), config, **kwargs):
            yield piece

    async def atransform(
        self, input: AsyncIterator[Any], config: RunnableConfig | None = None, **kwargs: Any
    ) -> AsyncIterator[dict[str, Any]]:
        """As `astream`, once the whole question has come."""
        work = self._atransform_stream_with_config(input, self._apieces_of, config, **kwargs)
        async for piece in work:
            yield piece

    def _one(self, asked: Any) -> dict[str, Any]:
        return _finished(self._pieces(asked))

    async def _aone(self, asked: Any) -> dict[str, Any]:
        work = following(lambda stopped: self._pieces(asked, stopped))
        async with aclosing(work):
            return _finished([piece async for piece in work])

    def _pieces_of(self, asked: Iterator[Any]) -> Iterator[dict[str, Any]]:
        yield from self._pieces(_sum(asked))

    async def _apieces_of(self, asked: AsyncIterator[Any]) -> AsyncIterator[dict[str, Any]]:
        whole = _sum([piece async for piece in asked])
        work = following(lambda stopped: self._pieces(whole, stopped))
        async with aclosing(work):
            async for piece in work:
                yield piece

    def _pieces(
        self, asked: Any, stopped: Stopped | None = None
    ) -> Generator[AddableDict, None, None]:
        given = asked if isinstance(asked, Mapping) else {"input": asked}
        if not isinstance(given.get("input"), str):
            raise ValueError(
                f"the input is {asked!r:.80}; give a question, or a mapping with input"
            )
        messages = [
            *convert_to_messages(given.get("chat_history") or []),
            HumanMessage(given["input"]),
        ]
        how: Asked = {
            "conversation_id": given.get("conversation_id"),
            "user_id": self.user_id,
            "language": self.language,
            "surface": "langchain",
            "readers": narrowed(self.readers, given.get("readers")),
            "stopped": stopped,
        }
        yield AddableDict(input=given["input"])
        for text, reply in released(turn_of(self.assistant, messages, how)):
            if reply is None:
                yield AddableDict(answer=text)
                continue
            yield AddableDict(
                answer=text,
                text=reply.text,
                context=[as_document(passage) for passage in reply.passages],
                steps=[{"name": s.name, "seconds": s.seconds} for s in reply.steps],
                **about(reply, reply.text),
            )


def _finished(pieces: Iterable[AddableDict]) -> dict[str, Any]:
    """Pieces put together; an answer that was withdrawn is not shown at all."""
    whole: AddableDict = _sum(pieces)
    return {**whole, "answer": whole["text"]}


def _sum(pieces: Iterable[Any]) -> Any:
    """Pieces of a stream put together; the parts of `answer` are joined."""
    whole: Any = None
    for piece in pieces:
        whole = piece if whole is None else whole + piece
    return whole
