"""From a chat request to what is asked of the assistant; what cannot be honoured is refused."""

from __future__ import annotations

from dataclasses import dataclass

from assistant.schema import Message, Role, Wish
from assistant.server.base import CHAT, EMBED, MODERATE, SOURCES, TASKS, Server
from assistant.server.errors import ApiError
from assistant.server.schema import ChatMessage, ChatRequest

#: Characters of the question at most.
QUESTION = 32_000
#: Characters of a token, for what is charged before anything is counted.
CHARACTERS = 3
_ROLES: dict[str, Role] = {"user": "user", "assistant": "assistant"}


@dataclass(frozen=True, slots=True)
class Ask:
    """One request. `told` is None where the server remembers the conversation itself."""

    model: str
    question: str
    told: tuple[Message, ...] | None
    conversation_id: str | None
    n: int
    stops: tuple[str, ...]
    limit: int | None
    wish: Wish
    stream: bool
    usage: bool
    markdown: bool
    tokens: int

    @property
    def task(self) -> bool:
        """Whether the client's model name says that this is a front end's own errand."""
        return self.model == TASKS


def read(body: ChatRequest, server: Server, conversation: str | None) -> Ask:
    """What the body asks for; `conversation` is the id of the header.

    Raises:
        ApiError: it asks for something that is not here.
    """
    model = server.model(body.model)
    if model in (EMBED, MODERATE):
        raise ApiError(
            404, f"The model {model!r} does not chat; use {CHAT!r}.", "model_not_found", "model"
        )
    _supported(body)
    messages = [(m.role, _text(m, n)) for n, m in enumerate(body.messages)]
    spoken = [(role, text) for role, text in messages if role in _ROLES]
    start = len(spoken)
    while start and spoken[start - 1][0] == "user":
        start -= 1
    question = "\n".join(text for _, text in spoken[start:]).strip()
    if not question:
        raise ApiError(
            400, "The last message must be the user's, with text.", "invalid_value", "messages"
        )
    if len(question) > QUESTION:
        raise ApiError(
            400,
            f"The question has {len(question)} characters; at most {QUESTION} are read. "
            "Add long texts as documents.",
            "context_length_exceeded",
            "messages",
        )
    named = body.conversation_id or conversation
    if named and (body.n or 1) > 1:
        raise ApiError(
            400,
            "A remembered conversation has one answer a turn; n must be 1.",
            "unsupported_value",
            "n",
        )
    told = tuple(Message(_ROLES[role], text) for role, text in spoken[:start])
    stops = [body.stop] if isinstance(body.stop, str) else body.stop or []
    size = sum(len(text) for _, text in messages)
    return Ask(
        model=model,
        question=question,
        told=None if named else told,
        conversation_id=named or None,
        n=body.n or 1,
        stops=tuple(s for s in stops if s),
        limit=body.max_completion_tokens or body.max_tokens,
        wish=Wish(
            body.temperature,
            body.top_p,
            body.max_completion_tokens or body.max_tokens,
            None if body.seed is None else body.seed % 2**31,
        ),
        stream=bool(body.stream),
        usage=bool(body.stream_options and body.stream_options.include_usage),
        markdown=body.citations == "markdown" or (body.citations is None and model == SOURCES),
        tokens=size // CHARACTERS + 1,
    )


def _supported(body: ChatRequest) -> None:
    if body.stream_options is not None and not body.stream:
        raise ApiError(
            400, "stream_options belongs to stream: true.", "invalid_value", "stream_options"
        )
    if body.tools and body.tool_choice != "none":
        raise _unsupported("tools", "Tools are not called here")
    if body.functions:
        raise _unsupported("functions", "Functions are not called here")
    if body.logprobs:
        raise _unsupported("logprobs", "Log-probabilities are not given")
    if body.response_format is not None and body.response_format.type != "text":
        raise _unsupported("response_format", "Answers are text")
    if set(body.modalities or []) - {"text"}:
        raise _unsupported("modalities", "Answers are text")


def _unsupported(param: str, why: str) -> ApiError:
    return ApiError(400, f"{why}; leave {param!r} out.", "unsupported_parameter", param)


def _text(message: ChatMessage, number: int) -> str:
    """The text of a message; other parts are refused, and never fetched."""
    if message.content is None or isinstance(message.content, str):
        return message.content or ""
    texts = []
    for place, part in enumerate(message.content):
        held = part.text if part.type == "text" else part.refusal
        if part.type not in ("text", "refusal") or held is None:
            raise ApiError(
                400,
                "Only text is read; images, sounds and files are not. Add files as documents.",
                "unsupported_value",
                f"messages.{number}.content.{place}",
            )
        texts.append(held)
    return "\n".join(texts)
