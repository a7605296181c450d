"""What an output must not carry out, whatever the moderators say of it."""

from __future__ import annotations

from dataclasses import replace

from safety.config import SafetySettings
from safety.links import neutralise
from safety.pii import Finder, kind_of
from safety.schema import Context, Verdict


def leaving(
    text: str, verdict: Verdict, context: Context, settings: SafetySettings, personal: Finder
) -> Verdict:
    """The verdict after canary, secrets, personal data and links elsewhere were looked for."""
    leak = personal.leaving(text, context.canary, (*settings.pii_mask, *settings.pii_block))
    if leak.canary:
        blocked = replace(verdict, action="block", category="attack", reason="attack.canary")
        return verdict if verdict.action == "block" else replace(blocked, score=1.0, spans=())
    banned = tuple(s for s in leak.spans if kind_of(s.rule) in settings.pii_block)
    if banned and not verdict.stops:
        reason = f"privacy.{banned[0].rule}"
        stopped = replace(verdict, action="block", category="privacy", score=1.0)
        return replace(stopped, reason=reason, spans=banned)
    safe, changed = neutralise(leak.text, context.allowed_urls)
    if verdict.action == "allow" and leak.spans:
        return replace(
            verdict,
            action="annotate",
            category="privacy",
            score=1.0,
            reason=f"privacy.{leak.spans[0].rule}",
            spans=leak.spans,
            safe_text=safe,
        )
    if verdict.action == "allow" and changed:
        return replace(
            verdict,
            action="annotate",
            category="attack",
            score=0.1,
            reason="attack.link",
            safe_text=safe,
        )
    return replace(verdict, safe_text=safe)
