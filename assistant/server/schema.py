"""What a chat request may hold: strict types, and fields nobody knows are let pass."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

#: Most that is taken of each; OpenAI's own bounds where it has some.
CHOICES, STOPS, MESSAGES, PARTS = 4, 4, 1024, 256
#: Parts of all messages: each is an object that is made before anything else can go on.
ALL_PARTS = 4096


class _Open(BaseModel):
    model_config = ConfigDict(strict=True, extra="ignore")


class Part(_Open):
    """A part of a message's content."""

    type: str = Field(max_length=64)
    text: str | None = None
    refusal: str | None = None


class ChatMessage(_Open):
    """A message; `developer` is `system`, and messages of tools are no evidence."""

    role: Literal["system", "developer", "user", "assistant", "tool", "function"]
    content: str | Annotated[list[Part], Field(max_length=PARTS)] | None = None
    name: str | None = Field(None, max_length=256)


class StreamOptions(_Open):
    """What a stream holds beside the answer."""

    include_usage: bool | None = None


class ResponseFormat(_Open):
    """Only text can be asked for."""

    type: str = Field(max_length=64)


class ChatRequest(_Open):
    """The body of /v1/chat/completions.

    `conversation_id` and `citations` are this server's own: the id makes the server remember the
    conversation, and `markdown` lists the sources below the text.
    """

    model: str = Field(max_length=256)
    messages: list[ChatMessage] = Field(min_length=1, max_length=MESSAGES)
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    n: int | None = Field(None, ge=1, le=CHOICES)
    max_tokens: int | None = Field(None, ge=1, le=1_000_000)
    max_completion_tokens: int | None = Field(None, ge=1, le=1_000_000)
    temperature: float | None = Field(None, ge=0, le=2)
    top_p: float | None = Field(None, ge=0, le=1)
    stop: (
        Annotated[str, Field(max_length=256)]
        | Annotated[list[Annotated[str, Field(max_length=256)]], Field(max_length=STOPS)]
        | None
    ) = None
    seed: int | None = Field(None, ge=-(2**63), le=2**63 - 1)
    logprobs: bool | None = None
    tools: list[Any] | None = Field(None, max_length=128)
    tool_choice: Any = None
    functions: list[Any] | None = Field(None, max_length=128)
    response_format: ResponseFormat | None = None
    modalities: list[str] | None = Field(None, max_length=8)
    conversation_id: str | None = Field(None, max_length=128)
    citations: Literal["annotations", "markdown"] | None = None

    @field_validator("messages", mode="before")
    @classmethod
    def _few(cls, given: Any) -> Any:
        """Count the parts before any is looked at."""
        messages = given if isinstance(given, list) else []
        contents = [m.get("content") for m in messages if isinstance(m, dict)]
        if sum(len(c) for c in contents if isinstance(c, list)) > ALL_PARTS:
            raise ValueError(f"the messages have more than {ALL_PARTS} parts in all")
        return given
