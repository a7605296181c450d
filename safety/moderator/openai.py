"""Any endpoint with OpenAI's moderation API: OpenAI itself, Mistral, LiteLLM, LocalAI.

What it flags is unsafe; what it does not flag, but scores in the grey band or above, is unsure.
A category with no place in our table is no judgement, so nothing unknown passes as harmless.
The API takes single texts: an answer is judged without its question.
"""

from __future__ import annotations

from typing import Any

from safety.config import SafetySettings
from safety.errors import ModeratorUnavailable
from safety.moderator._families import plain
from safety.moderator._hazards import MODERATIONS, Finding, Hazard, by_score, hazard
from safety.moderator._http import Endpoint
from safety.moderator._plugin import Plugin
from safety.schema import Side


def build(settings: SafetySettings) -> Plugin:
    """Prepare the client; the endpoint is not asked before the first text.

    Raises:
        ModelUnusable: `guard_url` is missing or no http(s) address.
    """
    endpoint = Endpoint(settings)

    def find(text: str, side: Side, question: str, deadline: float) -> Finding:
        body: dict[str, Any] = {"input": plain(text)}
        if settings.guard_model:
            body["model"] = settings.guard_model
        reply = endpoint.post("/moderations", body, deadline)
        try:
            (result,) = reply["results"]
            return read(result, settings)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise endpoint.wrong(f"no moderation result ({type(error).__name__})") from error

    name = settings.guard_model or "default"
    return Plugin("openai", f"{name}@{endpoint.place}", find, settings)


def read(result: dict[str, Any], settings: SafetySettings) -> Finding:
    """One element of the API's `results`.

    Raises:
        KeyError: a flagged category that is not in the table.
        ValueError: values of other types, or scores outside [0, 1].
        ModeratorUnavailable: it is flagged, but for nothing.
    """
    flags, scores = result["categories"], result["category_scores"]
    unsafe: list[tuple[float, Hazard]] = []
    unsure: list[tuple[float, Hazard]] = []
    top = 0.0
    for name in {**scores, **flags}:
        flag, score = flags.get(name), scores.get(name, 0.0)
        # OpenAI's answer holds null for categories that its older models do not know
        flag, score = bool(flag) if flag is None else flag, 0.0 if score is None else score
        if not isinstance(flag, bool) or isinstance(score, bool) or not 0 <= score <= 1:
            raise ValueError(f"category {name!r} is {flag!r} with score {score!r}")
        if flag:
            unsafe.append((score, hazard(MODERATIONS, name)))
        elif score >= settings.guard_low:
            unsure.append((score, hazard(MODERATIONS, name)))
        top = max(top, score)
    if unsafe:
        return Finding("unsafe", by_score(unsafe), top)
    if result.get("flagged"):
        raise ModeratorUnavailable("the guard endpoint flagged a text, but for no category")
    return Finding("unsure" if unsure else "safe", by_score(unsure), top)
