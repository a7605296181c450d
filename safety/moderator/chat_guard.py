"""A guard model behind an OpenAI-compatible chat endpoint: vLLM, SGLang, a hosted service.

The endpoint applies the model's own chat template. ShieldGemma and Granite Guardian need options
of theirs, sent as `chat_template_kwargs`, which vLLM and SGLang know.
"""

from __future__ import annotations

from typing import Any

from safety.config import SafetySettings
from safety.errors import ModelUnusable
from safety.moderator._families import Answer, Query
from safety.moderator._http import Endpoint
from safety.moderator._plugin import Plugin, asking


def build(settings: SafetySettings) -> Plugin:
    """Prepare the client; the endpoint is not asked before the first text.

    Raises:
        ModelUnusable: `guard_url` or `guard_model` are missing or malformed.
    """
    endpoint = Endpoint(settings)
    if not settings.guard_model:
        raise ModelUnusable("safety.guard_model is empty; name the endpoint's guard model")

    def ask(query: Query, deadline: float) -> Answer:
        body: dict[str, Any] = {
            "model": settings.guard_model,
            "messages": [{"role": role, "content": text} for role, text in query.messages],
            "max_tokens": query.tokens,
            "temperature": 0,
        }
        if query.options:
            body["chat_template_kwargs"] = dict(query.options)
        reply = endpoint.post("/chat/completions", body, deadline)
        try:
            text = reply["choices"][0]["message"]["content"]
        except (KeyError, IndexError, TypeError) as error:
            raise endpoint.wrong(f"no chat completion ({type(error).__name__})") from error
        if not isinstance(text, str):
            raise endpoint.wrong("a chat completion without text")
        return Answer(text)

    identity = f"{settings.guard_family}:{settings.guard_model}@{endpoint.place}"
    return asking("chat_guard", identity, settings.guard_family, ask, settings)
