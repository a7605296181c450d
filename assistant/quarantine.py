"""The step of a turn that sets aside evidence which tries to instruct the assistant.

The guard sees what a policy would see: title, headings and text. Of a passage that it stops as an
attack, the sentences that are to blame go and the others stay, as shorter passages with offsets
of their own (`policy.quarantine`): one planted sentence must not silence a whole page. Where no
sentence can be blamed, or the rest is stopped too, the whole passage goes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from assistant.steps import Parts, State
from retrieval.schema import Chunk, Passage
from retrieval.text import sentences
from safety import Context, Verdict
from safety.audit import text_hash
from safety.schema import WINDOW, Side, Span
from safety.verdicts import Verdicts

#: Sentences are judged alone and with their neighbours: an instruction may need two to be one.
WINDOWS = (1, 2, 3)
#: How a sentence ends that announces something, and how code begins and ends.
OPENS, FENCE = (":", "："), "```"
#: Passages named in the step's line.
NAMED = 3


class Screens(Protocol):
    """As much of a guard as is needed here."""

    kept: Verdicts | None

    def screen_many(self, texts: Sequence[str], side: Side, context: Context) -> list[Verdict]:
        """One verdict per text, in order."""


@dataclass(frozen=True, slots=True)
class _Aside:
    """A passage that was stopped: why, and what is left of it."""

    passage: Passage
    verdict: Verdict
    rest: tuple[Passage, ...]


def screen_passages(state: State, parts: Parts) -> str:
    """Passages that try to instruct the assistant are set aside, or cut."""
    context = Context(
        language=state.language, conversation=state.conversation_id, user=state.user_id
    )
    texts = [seen(p) for p in state.passages]
    claimed(parts.guard.kept, state.passages, texts)
    verdicts = parts.guard.screen_many(texts, "passage", context)
    state.verdicts.extend(v for v in verdicts if v.action != "allow")
    kept: list[Passage] = []
    aside: list[_Aside] = []
    for passage, verdict in zip(state.passages, verdicts, strict=True):
        if not verdict.stops:
            kept.append(passage)
            continue
        rest: list[Passage] = []
        if parts.settings.policy.quarantine == "cut" and planted(verdict):
            rest = innocent(passage, verdict, parts.guard, context)
        kept += rest
        aside.append(_Aside(passage, verdict, tuple(rest)))
    state.passages = kept
    return _told(aside) if aside else f"{len(kept)} pass"


def innocent(
    passage: Passage, verdict: Verdict, guard: Screens, context: Context = Context()
) -> list[Passage]:
    """The stretches of a stopped passage that no judgement blames, in order; [] to drop it all."""
    text = passage.chunk.text
    spans = sentences(text)
    windows = [(at, at + size) for size in WINDOWS for at in range(len(spans) - size + 1)]
    texts = [text[spans[a][0] : spans[b - 1][1]] for a, b in windows]
    head, *judged = _parts(passage, [_head(passage), *texts], guard, context)
    if head.stops:
        return []
    offset = len(_head(passage)) + 1
    guilty = _spanned([s for s in verdict.spans if s.rule != WINDOW], offset, spans)
    for (a, b), one in zip(windows, judged, strict=True):  # the shortest windows come first
        if one.stops and guilty.isdisjoint(range(a, b)):
            guilty.update(range(a, b))
    guilty = guilty or _spanned(verdict.spans, offset, spans)
    guilty |= _announced(passage.chunk, spans, guilty)
    if not guilty or len(guilty) == len(spans):
        return []
    rest = [replace(passage, chunk=_stretch(passage.chunk, *s)) for s in _runs(spans, guilty)]
    whole = "\n".join([_head(passage), *(p.chunk.text for p in rest)])
    (last,) = _parts(passage, [whole], guard, context)
    return [] if last.stops else rest


def _parts(
    passage: Passage, texts: Sequence[str], guard: Screens, context: Context
) -> list[Verdict]:
    """Verdicts on parts of a passage."""
    claimed(guard.kept, [passage] * len(texts), texts, whole=False)
    return guard.screen_many(texts, "passage", context)


def _head(passage: Passage) -> str:
    return " › ".join((passage.title, *passage.chunk.headings))


def seen(passage: Passage) -> str:
    """The passage as a prompt shows it, and as the guard judges it."""
    return f"{_head(passage)}\n{passage.chunk.text}"


def claimed(
    kept: Verdicts | None, passages: Sequence[Passage], texts: Sequence[str], *, whole: bool = True
) -> None:
    """Note whose the texts are, so that their verdicts are kept as long as the documents.

    `passages` match `texts` one by one. `whole` is False for parts of a passage.
    """
    if kept is not None:
        owners = [p.chunk.document_id for p in passages]
        kept.claim(zip(owners, map(text_hash, texts), strict=True), whole=whole)


def planted(verdict: Verdict) -> bool:
    """Whether sentences of the passage may be to blame, and not all of it."""
    return verdict.action == "quarantine" and verdict.category == "attack"


def _spanned(found: Sequence[Span], offset: int, spans: Sequence[tuple[int, int]]) -> set[int]:
    """Sentences in which a verdict on head and text points at something."""
    return {
        n
        for n, (a, b) in enumerate(spans)
        if any(s.start - offset < b and s.end - offset > a for s in found)
    }


def _announced(chunk: Chunk, spans: Sequence[tuple[int, int]], guilty: set[int]) -> set[int]:
    """What guilty sentences announce: the sentence after a colon, or all of the code there."""
    found: set[int] = set()
    for n in guilty:
        start, end = spans[n]
        if not chunk.text[start:end].endswith(OPENS) or n + 1 == len(spans):
            continue
        first = spans[n + 1][0]
        stop = spans[n + 1][1]
        if chunk.text.startswith(FENCE, first):
            close = chunk.text.find(FENCE, first + len(FENCE))
            stop = close + len(FENCE) if close >= 0 else len(chunk.text)
        stop = max([stop, *(b for a, b in chunk.code if a <= first < b)])
        found.update(m for m, (a, _) in enumerate(spans) if first <= a < stop)
    return found


def _runs(spans: Sequence[tuple[int, int]], guilty: set[int]) -> list[tuple[int, int]]:
    """Stretches between guilty sentences."""
    runs: list[tuple[int, int]] = []
    for n, (a, b) in enumerate(spans):
        if n in guilty:
            continue
        if runs and n - 1 not in guilty:
            runs[-1] = (runs[-1][0], b)
        else:
            runs.append((a, b))
    return runs


def _stretch(chunk: Chunk, start: int, end: int) -> Chunk:
    code = tuple(
        (max(a, start) - start, min(b, end) - start) for a, b in chunk.code if a < end and b > start
    )
    text = chunk.text[start:end]
    return replace(chunk, text=text, start=chunk.start + start, end=chunk.start + end, code=code)


def _told(aside: Sequence[_Aside]) -> str:
    """How many, and of the first ones which and why."""
    whole = sum(not one.rest for one in aside)
    counts = [f"{whole} set aside"] if whole else []
    counts += [f"{len(aside) - whole} cut"] if len(aside) > whole else []
    named = [
        f"{one.passage.source.rsplit('/', 1)[-1]} ({one.verdict.reason or one.verdict.category})"
        for one in aside[:NAMED]
    ]
    more = ["…"] if len(aside) > NAMED else []
    return f"{', '.join(counts)}: {', '.join([*named, *more])}"
