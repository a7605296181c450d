"""One turn is the list `STEPS`, read top to bottom.

    screen the input -> recall -> understand -> retrieve -> screen the passages -> prompt
    -> compose (generate, check support, screen, release sentence by sentence) -> conclude

A blocked input never reaches the policy; a sentence is released only after it was grounded and
screened. When a rewritten question finds nothing, the words as typed are searched too. Where there
is a cache, it is looked at in place of composing, and only there.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import replace

from assistant import context, lookup, quarantine, steps
from assistant.cache import AnswerCache
from assistant.schema import Event, Step
from assistant.steps import Parts, State

STEPS: tuple[tuple[str, Callable[[State, Parts], str]], ...] = (
    ("screen input", steps.screen_input),
    ("recall", context.recall),
    ("understand", steps.interpret),
    ("retrieve", lookup.retrieve),
    ("screen passages", quarantine.screen_passages),
    ("prompt", context.write_prompt),
)


def run(state: State, parts: Parts, cache: AnswerCache | None = None) -> Iterator[Event]:
    """Take the turn through its steps; afterwards `state` has an outcome and an answer."""
    for name, step in STEPS:
        yield _timed(state, parts, name, step)
        if state.outcome is not None:
            break
    else:
        if cache is None:
            yield from _composing(state, parts)
        else:
            yield from _recalling(state, parts, cache)
        if state.outcome is None and state.period is not None and not state.any_date:
            yield from _of_any_date(state, parts)
        if state.outcome is None and state.understanding.rewritten:
            yield from _as_typed(state, parts)
    yield _timed(state, parts, "conclude", steps.conclude)


def _of_any_date(state: State, parts: Parts) -> Iterator[Event]:
    """Second attempt of a question that names a time: perhaps it was its topic's."""
    state.any_date = True
    yield from _again(state, parts, "any date")
    if state.outcome is None:
        state.any_date = False


def _as_typed(state: State, parts: Parts) -> Iterator[Event]:
    """Second attempt of a follow-up: perhaps it stood alone after all."""
    if state.understanding.intent != "question":
        return
    rewritten = state.understanding
    state.understanding = replace(rewritten, query=state.text.strip(), rewritten=False)
    yield from _again(state, parts, "as typed")
    if state.outcome is None:
        state.understanding = rewritten


def _again(state: State, parts: Parts, why: str) -> Iterator[Event]:
    state.token_ids, state.logprobs, state.usage = [], [], None  # of the prompt that is logged
    for name, step in STEPS[3:]:
        yield _timed(state, parts, f"{name} ({why})", step)
    yield from _composing(state, parts)


def _recalling(state: State, parts: Parts, cache: AnswerCache) -> Iterator[Event]:
    """Give an answer again where that may be done, else compose one and keep it."""
    began = time.perf_counter()
    entry, told = cache.find(state, parts)
    yield _noted(state, "answer cache", began, told)
    if entry is not None:
        yield from (Event("text", text=piece) for piece in entry.pieces)
        return
    pieces = []
    for event in _composing(state, parts):
        pieces += [event.text] if event.text else []
        yield event
    cache.keep(state, parts, pieces)


def _composing(state: State, parts: Parts) -> Iterator[Event]:
    began = time.perf_counter()
    for piece in steps.compose(state, parts):
        yield Event("text", text=piece)
    yield _noted(state, "compose", began, steps.composed(state, parts))


def _timed(state: State, parts: Parts, name: str, step: Callable[[State, Parts], str]) -> Event:
    began = time.perf_counter()
    return _noted(state, name, began, step(state, parts))


def _noted(state: State, name: str, began: float, detail: str) -> Event:
    step = Step(name, time.perf_counter() - began, detail)
    state.steps.append(step)
    return Event("step", step=step)
