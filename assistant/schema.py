"""The types of a conversation. All frozen; times are seconds since the epoch (UTC)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypedDict

from retrieval.schema import Older, Passage
from safety.schema import Verdict

Role = Literal["system", "user", "assistant"]
Outcome = Literal["answered", "abstained", "refused", "crisis", "social", "failed"]
Intent = Literal["question", "greeting", "thanks", "farewell", "capability", "correction"]
FeedbackKind = Literal["thumb", "ab_pick", "edit", "regenerate", "copy", "report"]


@dataclass(frozen=True, slots=True)
class Message:
    """One message of a prompt."""

    role: Role
    text: str


@dataclass(frozen=True, slots=True)
class Sampling:
    """How a policy samples. `variant` n > 0 asks for the n-th other answer to the same question.

    `max_tokens` counts new tokens; `seconds` bounds the whole generation.
    """

    temperature: float = 0.0
    top_p: float = 1.0
    max_tokens: int = 512
    stop: tuple[str, ...] = ()
    seed: int = 0
    variant: int = 0
    seconds: float = 120.0


@dataclass(frozen=True, slots=True)
class Wish:
    """How one caller wants an answer sampled; what is None stays as the settings say."""

    temperature: float | None = None
    top_p: float | None = None
    max_tokens: int | None = None
    seed: int | None = None
    variant: int = 0

    def laid_over(self, sampling: Sampling) -> Sampling:
        """The sampling as wished; no more tokens than it had."""
        most = sampling.max_tokens
        return replace(
            sampling,
            temperature=sampling.temperature if self.temperature is None else self.temperature,
            top_p=self.top_p or sampling.top_p,
            max_tokens=min(self.max_tokens or most, most),
            seed=sampling.seed if self.seed is None else self.seed + self.variant,
        )


@dataclass(frozen=True, slots=True)
class Prompt:
    """What a policy is given: rendered messages for one that writes, data for one that quotes.

    `messages` is the only rendering (see `assistant.prompt`); passage number n in it is
    `passages[n - 1]`. `question` is the user's question made standalone. `mark` is the word before
    every quoted sentence in `messages`, "" where nothing was rendered.
    """

    messages: tuple[Message, ...]
    question: str
    passages: tuple[Passage, ...]
    language: str
    mark: str = ""


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens of one answer as the engine counts them.

    `cached` of the `prompt` tokens were not read anew; `answer` counts thinking too.
    """

    prompt: int
    answer: int
    cached: int = 0


@dataclass(frozen=True, slots=True)
class Delta:
    """A piece of a policy's answer.

    `text` may be any length; citations are written `[n]`, n counting `Prompt.passages` from 1.
    A policy that quotes sends one piece a quote, its `text` without the mark, and says in `quote`
    where it stands: (n, start, end), `passages[n - 1].chunk.text[start:end] == text`.
    `finish` is set on the last piece only: stop, length, or abstain (the policy says that the
    evidence does not answer). `confidence` in [0, 1], on the last piece, is the policy's own
    probability that the evidence answers the question; None where it cannot say.
    `token_ids` and `logprobs` are the sampled tokens, for the preference log. `usage`, on the last
    piece, is what the engine counted; None where it does not say. `phrase`, on the last piece, is
    the key of a phrase (`assistant.phrases`) that is the whole answer, "" for an answer of its own.
    """

    text: str
    quote: tuple[int, int, int] | None = None
    finish: Literal["", "stop", "length", "abstain"] = ""
    confidence: float | None = None
    token_ids: tuple[int, ...] = ()
    logprobs: tuple[float, ...] = ()
    usage: Usage | None = None
    phrase: str = ""


@dataclass(frozen=True, slots=True)
class PolicyCard:
    """Who answered: the identity of a policy, as the preference log keeps it.

    `version` is the id of a promoted candidate, "" for the policy that the settings name.
    `tokenizer` is a SHA-256 of what turned the messages into token ids, the chat template with it,
    "" where another machine does that.
    """

    name: str
    model: str
    revision: str = ""
    adapter: str = ""
    engine: str = ""
    dtype: str = ""
    version: str = ""
    tokenizer: str = ""


@dataclass(frozen=True, slots=True)
class Citation:
    """`[number]` in a reply's text: which passage, and which words of it are quoted.

    `start` and `end` are offsets into the document's text; `document.text[start:end] == quote`
    where `verbatim`, else the passage that supports a sentence the policy wrote itself. `also`
    names other sources of the same text; `older` are earlier versions that say something else.
    """

    number: int
    chunk_id: int
    document_id: int
    source: str
    title: str
    headings: tuple[str, ...]
    quote: str
    start: int
    end: int
    verbatim: bool
    version: str
    modified: float
    indexed: float
    score: float
    also: tuple[str, ...] = ()
    older: tuple[Older, ...] = ()


@dataclass(frozen=True, slots=True)
class Step:
    """One line of "why this answer": what was done, how long it took, what came of it."""

    name: str
    seconds: float
    detail: str


@dataclass(frozen=True, slots=True)
class Understanding:
    """What the assistant took a message to mean. `query` is what was searched ("" = no search)."""

    intent: Intent
    query: str
    rewritten: bool
    language: str
    reason: str


@dataclass(frozen=True, slots=True)
class Reply:
    """A finished answer to one turn.

    `text` carries `[n]` marks; `citations` holds them in order. `candidate_id` names this very
    answer (a turn can have several). `confidence` in [0, 1] or None where the policy gives none.
    `finish` is how the policy ended, as in `Delta`, and `usage` what its engine counted.
    """

    turn_id: str
    candidate_id: str
    conversation_id: str
    text: str
    outcome: Outcome
    language: str
    citations: tuple[Citation, ...]
    passages: tuple[Passage, ...]
    verdicts: tuple[Verdict, ...]
    steps: tuple[Step, ...]
    understanding: Understanding
    policy: PolicyCard
    confidence: float | None
    seconds: float
    finish: str = ""
    usage: Usage | None = None


@dataclass(frozen=True, slots=True)
class Turn:
    """A stored turn: the user's words and the answer shown (its chosen candidate)."""

    id: str
    conversation_id: str
    user_text: str
    reply: Reply
    created: float
    rating: int = 0


@dataclass(frozen=True, slots=True)
class Conversation:
    """An entry of the session list."""

    id: str
    user_id: str
    title: str
    created: float
    updated: float
    turns: int


@dataclass(frozen=True, slots=True)
class Fact:
    """Something that a user said about themselves, in their own words, and in which turn."""

    id: str
    user_id: str
    text: str
    turn_id: str
    created: float


@dataclass(frozen=True, slots=True)
class Event:
    """What `Assistant.stream` yields.

    kind "step": a step finished (`step`). "text": `text` was released, append it. "reply": the
    finished `reply`; its text replaces what was streamed. Exactly one "reply" comes, last.
    """

    kind: Literal["step", "text", "reply"]
    text: str = ""
    step: Step | None = None
    reply: Reply | None = None


@dataclass(frozen=True, slots=True)
class Consent:
    """What the user allowed. Nothing is used for training unless `train` is True."""

    train: bool = False
    evaluate: bool = False
    publish: bool = False
    text_version: str = "2026-11"


class Asked(TypedDict, total=False):
    """What may be said with a question; the meanings are those of `Assistant.stream`."""

    conversation_id: str | None
    user_id: str
    language: str
    surface: str
    consent: Consent
    readers: frozenset[str] | None
    history: Sequence[Message] | None
    stopped: Callable[[], bool] | None
    keep: bool
    wish: Wish
    beside: Reply | None


@dataclass(frozen=True, slots=True)
class TurnRecord:
    """One turn as the preference log takes it: everything needed to train on it later.

    `prompt` is the rendered prompt, verbatim but for the canary, which no log holds;
    `prompt_sha256` its hash; `shown` is False for a candidate made but never displayed.
    """

    turn_id: str
    candidate_id: str
    conversation_id: str
    parent_id: str
    user_id: str
    surface: str
    language: str
    created: float
    user_text: str
    prompt: tuple[Message, ...]
    prompt_sha256: str
    reply: Reply
    sampling: Sampling
    finish: str
    token_ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    consent: Consent
    position: int = 0
    shown: bool = True


@dataclass(frozen=True, slots=True)
class Feedback:
    """What a user did with an answer.

    thumb: `value` +1 or -1 (0 takes it back), `reasons` tags. ab_pick: `candidate_ids` in the
    order shown, `value` the index picked, -1 for "equally good". edit: `text` is the user's
    version. regenerate, copy: implicit. report: `reasons` and `text`.
    """

    turn_id: str
    conversation_id: str
    user_id: str
    kind: FeedbackKind
    candidate_ids: tuple[str, ...] = ()
    value: int = 0
    reasons: tuple[str, ...] = ()
    text: str = ""
    order_randomised: bool = False
    explicit: bool = True
    surface: str = "ui"
    language: str = ""
    dwell_ms: int = 0


@dataclass(frozen=True, slots=True)
class Excerpt:
    """The neighbourhood of a citation, for the sources panel: before + quote + after."""

    citation: Citation
    before: str
    quote: str
    after: str
    current: bool


@dataclass(frozen=True, slots=True)
class Health:
    """What `status` shows: what is indexed, how fresh, which policy, since when.

    `refused` is why the policy that was promoted last does not answer, "" where it does.
    """

    documents: int
    chunks: int
    lag: int
    embedder: str
    policy: PolicyCard
    moderators: tuple[str, ...]
    data_dir: str
    conversations: int
    ready_seconds: float
    refused: str = ""
