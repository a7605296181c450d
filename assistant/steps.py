"""The steps of a turn, each a function over the turn's state; `turn.py` lists their order.

A step returns one line for "why this answer". A step that ends the turn sets `state.outcome`.
"""

from __future__ import annotations

import re
import secrets
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from uuid import uuid4

from assistant.config import Settings
from assistant.errors import PolicyError, TurnStopped
from assistant.facts import asks_about_me, listed
from assistant.grounding import Grounded, Grounder, SentenceStream, marks_removed
from assistant.memory import Memory
from assistant.phrases import abstain, say
from assistant.policy.base import Policy
from assistant.prompt import unmarked, with_canary
from assistant.schema import (
    Citation,
    Consent,
    Delta,
    Fact,
    Message,
    Outcome,
    Prompt,
    Sampling,
    Step,
    Turn,
    Understanding,
    Usage,
)
from assistant.support import Supporter
from assistant.understand import language_of, understand
from retrieval.knowledge import KnowledgeBase
from retrieval.period import Period
from retrieval.schema import Passage
from retrieval.text import content_words, is_han, is_stop, query_terms
from safety import Context, Guard, Verdict
from safety.control import inert
from safety.leaks import mask
from safety.links import neutralise, said_back
from safety.refusal import refusal_reply

NOTHING_YET = Understanding("question", "", False, "en", "")
_ADDRESS = re.compile(r"(?:https?://|www\.)[^\s<>\"'`\[\]{}()）】」，。、；]+")
SOCIAL = ("greeting", "thanks", "farewell", "capability")


@dataclass(frozen=True, slots=True)
class Parts:
    """The concrete parts a turn runs through.

    `supporter` is the trained half of the support check, where there is one.
    `version` is the id of the promoted candidate that `policy` is, "" where the settings name it.
    `canary` is a word that stands in the system message of policies that write, and that no
    answer may hold: the same for the whole process, and in no log.
    """

    settings: Settings
    knowledge: KnowledgeBase
    guard: Guard
    policy: Policy
    memory: Memory
    supporter: Supporter | None = None
    version: str = ""
    canary: str = field(default_factory=lambda: secrets.token_hex(12), repr=False)

    @property
    def writes(self) -> bool:
        """Whether the policy reads the rendered prompt; one that only quotes says that not."""
        return bool(getattr(self.policy, "writes", True))


@dataclass(slots=True)
class State:
    """What is known about the turn so far."""

    user_text: str
    conversation_id: str
    user_id: str
    tongue: str
    surface: str
    consent: Consent
    sampling: Sampling
    readers: frozenset[str] | None = None
    stopped: Callable[[], bool] | None = None
    turn_id: str = field(default_factory=lambda: uuid4().hex)
    history: list[Turn] = field(default_factory=list)
    facts: list[Fact] = field(default_factory=list)
    text: str = ""
    understanding: Understanding = NOTHING_YET
    period: Period | None = None
    any_date: bool = False
    passages: list[Passage] = field(default_factory=list)
    prompt: Prompt | None = None
    earlier: list[Turn] = field(default_factory=list)
    recent: list[Turn] = field(default_factory=list)
    verdicts: list[Verdict] = field(default_factory=list)
    steps: list[Step] = field(default_factory=list)
    citations: tuple[Citation, ...] = ()
    outcome: Outcome | None = None
    answer: str = ""
    finish: str = ""
    phrase: str = ""
    confidence: float | None = None
    token_ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    usage: Usage | None = None
    began: float = field(default_factory=time.monotonic)

    @property
    def language(self) -> str:
        """The language the reply is in."""
        return self.understanding.language


def screen_input(state: State, parts: Parts) -> str:
    """The guard sees the message before anything else does."""
    spoken = language_of(state.user_text, state.history, state.tongue)
    state.understanding = replace(state.understanding, language=spoken)
    earlier = tuple(t.user_text for t in state.history[-4:])
    verdict = parts.guard.screen(
        state.user_text,
        "input",
        Context(
            language=spoken,
            earlier=earlier,
            conversation=state.conversation_id,
            user=state.user_id,
        ),
    )
    state.verdicts.append(verdict)
    state.text = verdict.safe_text or state.user_text
    if verdict.stops:
        state.outcome = "crisis" if verdict.action == "crisis" else "refused"
        state.answer = verdict.reply
    return f"{verdict.action} {verdict.reason}".strip()


def interpret(state: State, parts: Parts) -> str:
    """Intent, and the question made standalone."""
    found = understand(state.text, state.history, state.tongue)
    state.understanding = found
    if parts.settings.memory.user_facts and asks_about_me(state.text):
        state.understanding = replace(found, query="", reason="about the user: nothing to search")
        state.outcome, state.answer = "social", listed(state.facts, found.language)
    elif found.intent in SOCIAL:
        state.outcome = "social"
        state.answer = say(found.intent, found.language)
    return f"{found.intent}: {state.understanding.reason}"


def compose(state: State, parts: Parts) -> Iterator[str]:
    """Generate, check support and screen, sentence by sentence; yields what may be shown."""
    assert state.prompt is not None
    if not state.prompt.passages:
        state.finish = "abstain"  # nothing to answer from: no policy is asked to invent
        return
    settings = parts.settings.policy
    grounder = Grounder(
        state.prompt.passages, parts.knowledge.rarity, settings.unsupported, parts.supporter
    )
    shown: list[str] = []
    try:
        for sentence in _sentences(state, parts, grounder):
            passed = _screened(sentence.text, shown, grounder.citations, state, parts)
            if passed is None:
                return
            piece = _joined(shown, passed)
            shown.append(piece)
            yield piece
    except PolicyError as error:
        state.outcome = "failed"
        reason = str(error).replace(parts.canary, "***")  # an endpoint may quote its prompt
        state.answer = say("failed", state.language, reason=reason)
        return
    finally:
        state.citations = tuple(_unleaked(c, parts) for c in grounder.citations)
    if state.phrase:
        state.outcome, state.answer = "social", say(state.phrase, state.language)
        yield state.answer
        return
    cited = grounder.citations
    # once more as a whole: a link's parts may stand in several sentences
    state.answer, _ = neutralise("".join(shown), targets(cited, state.passages), _sources(cited))
    if state.answer:
        state.outcome = "answered"
    elif grounder.dropped:
        state.finish = "unsupported"


def composed(state: State, parts: Parts) -> str:
    """What came of composing, with the tokens it took where the policy counts them."""
    line = f"{parts.policy.card.name}: {state.finish or 'stopped'}"
    if state.usage is None:
        return line
    read, told = state.usage.prompt, state.usage.answer
    return f"{line}, {read} tokens read ({state.usage.cached} of them before), {told} written"


def conclude(state: State, parts: Parts) -> str:
    """Word what was not found, and own up to a correction."""
    query = state.understanding.query
    corrected = state.understanding.intent == "correction"
    if state.outcome == "answered":
        state.answer = _annotated(state, corrected)
    elif state.outcome is None:
        state.outcome = "abstained"
        state.citations = ()
        if state.sampling.variant:
            state.answer = say("no_other", state.language)
        elif corrected:
            asked = next((t.user_text for t in reversed(state.history) if t.reply.passages), query)
            state.answer = say("not_corrected", state.language, query=said_back(asked))
        else:
            # what a word's absence tells must not tell of documents that may not be read
            absent = _absent(query, parts) if state.readers is None else []
            state.answer = abstain(state.language, said_back(state.text), absent, _near(state))
            aside = sum(v.action == "quarantine" for v in state.verdicts)
            if aside:
                state.answer += " " + say("set_aside", state.language, number=str(aside))
    if state.outcome in ("refused", "crisis", "failed"):
        state.citations = ()
    return f"{state.outcome}, {len(state.citations)} citations"


def _annotated(state: State, corrected: bool) -> str:
    """The answer with what must be said about it: a mistake owned, dates, older versions."""
    parts = [state.answer]
    if state.any_date and state.period is not None:
        parts.insert(0, say("any_date", state.language, phrase=state.period.phrase))
    if corrected:
        parts.insert(0, say("corrected", state.language))
    for old in dict.fromkeys((o.source, o.modified) for c in state.citations for o in c.older):
        name = old[0].rsplit("/", 1)[-1].removeprefix("upload:")
        date = time.strftime("%Y-%m-%d", time.localtime(old[1]))
        parts.append(say("older", state.language, name=name, date=date))
    return "\n\n".join(parts)


def _sentences(state: State, parts: Parts, grounder: Grounder) -> Iterator[Grounded]:
    assert state.prompt is not None
    cutter = SentenceStream()
    mark = state.prompt.mark
    given = with_canary(state.prompt, parts.canary) if parts.writes else state.prompt
    for delta in _pieces(state, parts, given):
        _note(state, delta)
        if delta.quote is not None:
            found = [grounder.quote(delta)]
        else:
            found = [grounder.sentence(unmarked(s, mark)) for s in cutter.feed(delta.text)]
        yield from (g for g in found if g is not None)
    rest = cutter.flush() if state.finish != "abstain" else []
    if state.finish == "length" and grounder.citations:
        return  # the last sentence was cut off, and there are whole ones
    last = (grounder.sentence(unmarked(s, mark)) for s in rest)
    yield from (g for g in last if g is not None)


def _pieces(state: State, parts: Parts, prompt: Prompt) -> Iterator[Delta]:
    """What the policy says, until it ends or the caller wants no more of it."""
    pieces = parts.policy.stream(prompt, state.sampling)
    for delta in pieces:
        if state.stopped is not None and state.stopped():
            close = getattr(pieces, "close", None)  # an engine or endpoint goes on otherwise
            if close is not None:
                close()
            raise TurnStopped("the turn was stopped by its caller; ask again for an answer")
        yield delta


def _note(state: State, delta: Delta) -> None:
    state.token_ids.extend(delta.token_ids)
    state.logprobs.extend(delta.logprobs)
    if delta.finish:
        state.finish, state.phrase = delta.finish, delta.phrase
        state.confidence = delta.confidence
        state.usage = delta.usage


def _screened(
    text: str, shown: list[str], cited: tuple[Citation, ...], state: State, parts: Parts
) -> str | None:
    """The sentence as it may be shown, or None where the whole answer must be withdrawn.

    The rules that hold whatever the moderators say: links lead to what is cited, nothing is
    loaded from elsewhere, no control token and no canary leaves, not even over several sentences.
    """
    context = Context(
        language=state.language,
        conversation=state.conversation_id,
        user=state.user_id,
        canary=parts.canary,
        allowed_urls=targets(cited, state.passages),
        question=state.user_text,
    )
    verdict = parts.guard.screen(text, "output", context)
    if verdict.action != "allow":
        state.verdicts.append(verdict)
    if verdict.stops:
        state.outcome = "crisis" if verdict.action == "crisis" else "refused"
        state.answer = verdict.reply
        return None
    if _tells("".join([*shown, text]), parts.canary):
        state.outcome, state.answer = "refused", refusal_reply("attack", state.language, "output")
        return None
    safe, _ = neutralise(verdict.safe_text or text, context.allowed_urls, _sources(cited))
    return inert(safe)


def kept_passages(state: State, parts: Parts) -> tuple[Passage, ...]:
    """The passages as a reply keeps them: masked as the answer is; offsets stay the document's."""
    hide = parts.guard.unleaked
    return tuple(
        replace(
            p,
            title=hide(p.title),
            chunk=replace(
                p.chunk,
                text=hide(p.chunk.text),
                headings=tuple(hide(heading) for heading in p.chunk.headings),
            ),
        )
        for p in state.passages
    )


def kept_prompt(state: State, parts: Parts) -> tuple[Message, ...]:
    """The prompt as the preference log keeps it, masked as the answer is."""
    messages = state.prompt.messages if state.prompt else ()
    return tuple(replace(m, text=parts.guard.unleaked(m.text)) for m in messages)


def _unleaked(citation: Citation, parts: Parts) -> Citation:
    """The citation with secrets masked, as the answer's text has them."""
    masked = parts.guard.unleaked(citation.quote)
    return citation if masked == citation.quote else replace(citation, quote=masked)


def _tells(answer: str, canary: str) -> bool:
    """Whether any eight letters of the canary stand together in the answer, whatever parts them.

    The guard looks at one sentence; this at all of them, for a canary told piece by piece.
    """
    bare = "".join(c for c in marks_removed(answer).casefold() if c.isalnum())
    return any(canary[at : at + 8] in bare for at in range(len(canary) - 7))


def targets(cited: tuple[Citation, ...], passages: list[Passage]) -> frozenset[str]:
    """Where links may lead: the cited sources, and the addresses in their cited passages.

    An address that a document holds word for word carries nothing of the conversation away.
    """
    places = {(c.document_id, c.chunk_id) for c in cited}
    bodies = [p.chunk.text for p in passages if (p.chunk.document_id, p.chunk.id) in places]
    found = {a for body in bodies for a in _ADDRESS.findall(body)}
    return frozenset(found | {a.rstrip(".,:;!?") for a in found} | _sources(cited))


def _sources(cited: tuple[Citation, ...]) -> frozenset[str]:
    """Addresses of the cited documents; what is loaded unasked may come from nowhere else."""
    return frozenset(c.source for c in cited if _ADDRESS.fullmatch(c.source))


def _joined(shown: list[str], text: str) -> str:
    if not shown:
        return text
    if "\n" in text or "\n" in shown[-1]:
        return "\n\n" + text
    return " " + text


def _absent(query: str, parts: Parts) -> list[str]:
    """Words of the question that no document holds, as written, three at most."""
    gone = []
    for word in content_words(query):
        if is_han(word) and (len(word) < 2 or any(is_stop(c) for c in word)):
            continue  # a fragment of the question, not a thing it names
        known = query_terms(word)
        rarest = parts.knowledge.rarity(["", *known])
        if known and all(value >= rarest[0] for value in rarest[1:]):
            gone.append(word)
    return gone[:3]


def _near(state: State) -> list[str]:
    places = []
    for passage in state.passages[:3]:
        place = mask(" › ".join((passage.title, *passage.chunk.headings[-1:]))).text
        places.append(inert(neutralise(place, frozenset())[0]))  # a heading is a document's word
    return list(dict.fromkeys(places))[:2]
