"""What the policy is given: the conversation so far, and the one rendering of the turn."""

from __future__ import annotations

from assistant.facts import stated, told_in_prompt
from assistant.memory import split, spoken
from assistant.prompt import canary_line, mark_of, render
from assistant.schema import Prompt, Turn
from assistant.steps import Parts, State
from assistant.summary import summarise


def recall(state: State, parts: Parts) -> str:
    """The conversation so far: what stands in the history window, and what is older."""
    memory = parts.settings.memory
    if memory.user_facts:
        state.facts = parts.memory.facts.list(state.user_id)
    state.earlier, state.recent = split(
        state.history, memory.max_turns, memory.window_tokens, parts.policy.count_tokens
    )
    return f"{len(state.history)} turns, {len(state.recent)} in the window"


def write_prompt(state: State, parts: Parts) -> str:
    """The one rendering, within the policy's context."""
    policy = parts.settings.policy
    room = policy.context_tokens - policy.max_tokens
    if parts.writes:
        room -= parts.policy.count_tokens(canary_line(parts.canary, state.language)) + 2
    count, limit = parts.policy.count_tokens, parts.settings.memory.summary_tokens
    allowed = parts.settings.memory.facts_tokens
    facts = told_in_prompt(state.facts, state.language, allowed, count)

    def rendered(recent: list[Turn], summary: str) -> Prompt:
        return render(
            state.understanding.query,
            state.passages,
            spoken(recent),
            state.language,
            mark=mark_of(state.turn_id),
            summary="\n\n".join(text for text in (facts, summary) if text),
            budget=max(room, 128),
            count_tokens=count,
        )

    summary = summarise(state.earlier, limit, count)
    state.prompt = rendered(state.recent, summary)
    exchanges = len(state.prompt.messages) // 2 - 1
    if cut := len(state.recent) - max(
        0, exchanges - bool(facts or summary)
    ):  # sum up what did not fit
        summary = summarise([*state.earlier, *state.recent[:cut]], limit, count)
        state.prompt = rendered(state.recent[cut:], summary)
    return f"{len(state.prompt.passages)} passages, {len(state.prompt.messages)} messages"


def learn(state: State, parts: Parts) -> None:
    """Keep what the message states about its author, where that is on and nothing was stopped."""
    memory = parts.settings.memory
    if memory.user_facts and state.outcome not in ("refused", "crisis"):
        for fact in stated(state.text, parts.guard.unleaked):
            parts.memory.facts.add(state.user_id, fact, state.turn_id, memory.max_facts)
