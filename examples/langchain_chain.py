"""A LangChain chain around the assistant: clean the question, answer it, append its sources.

    python examples/langchain_chain.py FOLDER "a question" "a follow-up" ...

Takes in the documents of FOLDER and answers one question after the other. The chain keeps the
conversation, as a chain with a message history does; answers are streamed.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Any

from langchain_core.messages import AIMessage, BaseMessage, HumanMessage
from langchain_core.runnables import ConfigurableField, Runnable, RunnableConfig, RunnableLambda

from assistant import Assistant, build_assistant, load
from assistant.langchain import AssistantRunnable


def tidy(asked: dict[str, Any]) -> dict[str, Any]:
    """A step of your own before the assistant: here, the greeting of an e-mail goes."""
    text = asked["input"].strip()
    for greeting in ("Dear support,", "您好，"):
        text = text.removeprefix(greeting).strip()
    return {**asked, "input": text}


def build(assistant: Assistant) -> Runnable[dict[str, Any], dict[str, Any]]:
    """One chain for all users: who asks, and what they may read, comes with each call."""
    answer = AssistantRunnable(assistant=assistant).configurable_fields(
        user_id=ConfigurableField(id="user_id"), readers=ConfigurableField(id="readers")
    )
    return RunnableLambda(tidy) | answer


def sources(citations: list[dict[str, Any]]) -> str:
    """The list under an answer; `[n]` in its text is number n of it."""
    return "\n".join(
        f"[{c['extras']['number']}] {c['title']}: {c['cited_text']}" for c in citations
    )


async def main(folder: Path, questions: list[str]) -> None:
    """Answer the questions in one conversation."""
    with build_assistant(load()) as assistant:
        for _ in assistant.ingest([folder]):
            pass
        chain = build(assistant)
        who: RunnableConfig = {
            "configurable": {"user_id": "ann", "readers": frozenset({"ann", "staff"})}
        }
        history: list[BaseMessage] = []
        for question in questions:
            whole: Any = None
            async for piece in chain.astream({"input": question, "chat_history": history}, who):
                print(piece.get("answer", ""), end="", flush=True)
                whole = piece if whole is None else whole + piece
            print(f"\n{sources(whole['citations'])}\n")
            # `text` is what to keep: an answer may be withdrawn while it is streamed
            history += [HumanMessage(whole["input"]), AIMessage(whole["text"])]


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    asyncio.run(main(Path(sys.argv[1]), sys.argv[2:]))
