"""The step of a turn that finds the evidence: what is searched, within which bounds, and beside it.

The search is bounded by who asks (always) and by the time that the question names (where that
leaves anything; else everything is searched, and the reply says so).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta

from assistant.phrases import say
from assistant.schema import Turn
from assistant.steps import Parts, State
from retrieval.period import period
from retrieval.schema import Passage, Scope
from retrieval.text import content_words, query_terms, sentences, terms

#: Windows that begin later are recent: a document without a date is not taken to lie in one.
RECENT = timedelta(days=90)


def retrieve(state: State, parts: Parts) -> str:
    """Passages for the standalone question; a correction looks where it has not looked yet."""
    query = state.understanding.query
    seen: frozenset[int] = frozenset()
    if state.understanding.intent == "correction":
        seen = _shown_before(state.history)
    now = datetime.now().astimezone()
    state.period = period(query, now)
    bounded = state.period is not None and not state.any_date
    scope = _scope(state, now if bounded else None)
    k = parts.settings.policy.passages
    state.passages = parts.knowledge.search(query, k, exclude=seen, scope=scope)
    if bounded and not state.passages:
        state.any_date = True
        scope = _scope(state, None)
        state.passages = parts.knowledge.search(query, k, exclude=seen, scope=scope)
    if state.understanding.rewritten and state.understanding.intent == "question":
        state.passages = _about(state.text, state.passages, parts)
    state.passages += _beside(query, state.passages, seen, parts)
    if not state.passages and parts.knowledge.status().chunks == 0:
        state.outcome = "abstained"
        state.answer = say("empty", state.language)
    when = ""
    if state.period is not None:
        when = ", of any date" if state.any_date else f", dated {state.period.phrase}"
    return f"“{query}”: {len(state.passages)} passages{when}"


def _scope(state: State, now: datetime | None) -> Scope | None:
    """Who asks, and with `now` the time that the question names."""
    if now is None or state.period is None:
        return None if state.readers is None else Scope(readers=state.readers)
    since = state.period.since
    recent = since is not None and since >= (now - RECENT).timestamp()
    return Scope(state.readers, since, state.period.until, undated=not recent)


def _shown_before(history: Sequence[Turn]) -> frozenset[int]:
    """Chunks cited for the question that is being corrected, and in its corrections so far."""
    seen: set[int] = set()
    for turn in reversed(history):
        seen.update(c.chunk_id for c in turn.reply.citations)
        understood = turn.reply.understanding
        if understood.query and understood.intent != "correction":
            break
    return frozenset(seen)


def _about(text: str, passages: list[Passage], parts: Parts) -> list[Passage]:
    """Those passages that hold the rarest word of the follow-up itself, all where none does.

    The words carried over outnumber the new ones; without this the last answer comes back.
    """
    own = query_terms(text)
    if not own or not content_words(text):
        return passages
    rarest = max(zip(parts.knowledge.rarity(own), own, strict=True))[1]
    held = [p for p in passages if rarest in terms(" ".join((*p.chunk.headings, p.chunk.text)))]
    return held or passages


def _beside(
    query: str, passages: Sequence[Passage], seen: frozenset[int], parts: Parts
) -> list[Passage]:
    """The passage after (or before) the best one, where that matches at its very edge.

    The answer may lie across the cut: "The steps are these:" ends one chunk, the steps begin the
    next. It comes last, so that it pushes nothing out of a short prompt.
    """
    if not passages:
        return []
    best = passages[0]
    spans = sentences(best.chunk.text)
    asked = set(query_terms(query))
    shares = [len(asked & set(terms(best.chunk.text[a:b]))) for a, b in spans]
    if not shares or not max(shares):
        return []
    matched = [n for n, share in enumerate(shares) if share == max(shares)]
    before, after = parts.knowledge.around(best)
    wanted = [after] if matched[-1] == len(spans) - 1 else []
    wanted += [before] if matched[0] == 0 and len(spans) > 1 else []
    known = seen | {p.chunk.id for p in passages}
    least = min(p.score for p in passages)
    return [
        replace(p, score=min(p.score, least))
        for p in wanted
        if p is not None and p.chunk.id not in known and p.chunk.headings == best.chunk.headings
    ]
