"""Our verdicts as OpenAI's moderation results."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from assistant.server.base import MODERATE
from safety import Verdict

#: The categories of OpenAI's results, and which of ours each is; "" where we have none such.
CATEGORIES = {
    "harassment": "harassment",
    "harassment/threatening": "",
    "hate": "hate",
    "hate/threatening": "",
    "illicit": "illicit",
    "illicit/violent": "",
    "self-harm": "self_harm",
    "self-harm/instructions": "",
    "self-harm/intent": "",
    "sexual": "sexual",
    "sexual/minors": "minors",
    "violence": "violence",
    "violence/graphic": "",
    "privacy": "privacy",
    "attack": "attack",
    "fault": "fault",
}


def result_of(verdicts: Sequence[Verdict]) -> dict[str, Any]:
    """The worst of several verdicts on one text (or on its parts) as one result."""
    hit = {v.category for v in verdicts if v.stops or v.action == "safe_complete"}
    scores: dict[str, float] = {}
    for verdict in verdicts:
        named = dict(verdict.scores)
        if verdict.category != "none":
            named[verdict.category] = max(verdict.score, named.get(verdict.category, 0.0))
        for category, score in named.items():
            scores[category] = max(score, scores.get(category, 0.0))
    return {
        "flagged": bool(hit),
        "categories": {name: ours in hit for name, ours in CATEGORIES.items()},
        "category_scores": {
            name: round(float(scores.get(ours, 0.0)), 6) for name, ours in CATEGORIES.items()
        },
        "category_applied_input_types": {name: ["text"] for name in CATEGORIES},
    }


def moderation_of(verdicts: Sequence[Verdict]) -> dict[str, Any]:
    """The `moderation` of a completion: what was said of the question, and of the answer."""
    made = {}
    for side in ("input", "output"):
        result = result_of([v for v in verdicts if v.side == side])
        made[side] = {
            "model": MODERATE,
            "type": "moderation_results",
            "results": [{**result, "model": MODERATE, "type": "moderation_result"}],
        }
    return made
