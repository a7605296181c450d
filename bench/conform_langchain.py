"""What LangChain's client for OpenAI sees of the server."""

from __future__ import annotations

import asyncio
from importlib.metadata import version
from typing import Any

import openai
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_openai import ChatOpenAI, OpenAIEmbeddings

from bench.conform_rows import ANSWER, HARM, MODEL, PRICE, Behaviours, Target, holds, raised, same

behaviour = Behaviours(f"langchain-openai {version('langchain-openai')}")


def chat(target: Target, model: str = MODEL, **options: Any) -> Any:
    """A chat model."""
    given = {"max_retries": 0, **options}
    return ChatOpenAI(model=model, base_url=f"{target.url}v1", api_key=target.key, **given)


@behaviour
def invokes(target: Target) -> None:
    """Invoke gives the answer, finish_reason and usage."""
    made = chat(target).invoke(PRICE)
    same((made.content, made.response_metadata["finish_reason"]), (ANSWER, "stop"))
    holds(made.usage_metadata["total_tokens"] > 0, "no usage")


@behaviour
def streams(target: Target) -> None:
    """Stream gives the same text, and usage where stream_usage is on."""
    whole: Any = None
    for chunk in chat(target, stream_usage=True).stream(PRICE):
        whole = chunk if whole is None else whole + chunk
    same(whole.content, ANSWER)
    holds(whole.usage_metadata["total_tokens"] > 0, "no usage")
    same("".join(c.content for c in chat(target).stream(PRICE)), ANSWER)


@behaviour
def refuses(target: Target) -> None:
    """A refusal stands in additional_kwargs, with content and finish_reason content_filter."""
    made = chat(target).invoke(HARM)
    same(made.response_metadata["finish_reason"], "content_filter")
    holds(made.additional_kwargs["refusal"] and made.content, "no refusal or no content")


@behaviour
def chains(target: Target) -> None:
    """A chain of a prompt, the model and a parser runs, batched too."""
    prompt = ChatPromptTemplate.from_messages([("system", "Be brief."), ("user", "{question}")])
    chain = prompt | chat(target) | StrOutputParser()
    same(chain.batch([{"question": PRICE}] * 3), [ANSWER] * 3)


@behaviour
def converses(target: Target) -> None:
    """System, user and assistant messages are the history of a follow-up."""
    made = chat(target).invoke(
        [
            SystemMessage("Be brief."),
            HumanMessage(PRICE),
            AIMessage(ANSWER),
            HumanMessage("How much does the gadget cost?"),
        ]
    )
    same(made.content, "The gadget costs 70 euros. [1]")


@behaviour
def sources(target: Target) -> None:
    """The model plumbline-sources lists the sources in the text, which is all LangChain keeps."""
    said = chat(target, "plumbline-sources").invoke(PRICE).content
    holds(said.startswith(f"{ANSWER}\n\nSources:\n[1] Widget"), said)


@behaviour
def asynchronous(target: Target) -> None:
    """Ainvoke and astream give the answer."""

    async def run() -> tuple[str, str]:
        model = chat(target)
        made = await model.ainvoke(PRICE)
        return str(made.content), "".join([str(c.content) async for c in model.astream(PRICE)])

    same(asyncio.run(run()), (ANSWER, ANSWER))


@behaviour
def stops(target: Target) -> None:
    """Stop and max_tokens are obeyed."""
    same(chat(target).invoke(PRICE, stop=["euros"]).content, "The widget costs 40 ")
    made = chat(target, max_tokens=3).invoke(PRICE)
    same(made.response_metadata["finish_reason"], "length")


@behaviour
def tools(target: Target) -> None:
    """A model with tools bound is refused with BadRequestError that names tools."""

    def price(name: str) -> str:
        """Price of a thing."""
        return name

    error = raised(openai.BadRequestError, lambda: chat(target).bind_tools([price]).invoke(PRICE))
    same(error.param, "tools")


@behaviour
def embeds(target: Target) -> None:
    """OpenAIEmbeddings embeds documents and questions, sent as text."""
    given: dict[str, Any] = {"base_url": f"{target.url}v1", "api_key": target.key}
    given |= {"check_embedding_ctx_length": False, "max_retries": 0}
    model = OpenAIEmbeddings(model="plumbline-embed", **given)
    vectors = model.embed_documents(["a widget", "北京塔"])
    same(len({len(v) for v in [*vectors, model.embed_query("a widget")]}), 1)
