"""The dialogue manager: who asks, what was said before, what is kept; `turn.py` is the turn itself.

A turn runs with one policy from its first step to its last, whatever is promoted meanwhile
(`live`).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Unpack
from uuid import uuid4

from assistant import context
from assistant.asynchronous import Asynchronous
from assistant.cache import AnswerCache
from assistant.config import Settings
from assistant.live import Live, Served
from assistant.memory import Memory
from assistant.policy.base import Policy
from assistant.record import record_of, reply_of
from assistant.schema import (
    Asked,
    Citation,
    Consent,
    Conversation,
    Event,
    Excerpt,
    Feedback,
    Health,
    Message,
    Reply,
    Sampling,
    Turn,
    TurnRecord,
    Wish,
)
from assistant.steps import Parts, State
from assistant.support import Supporter
from assistant.told import retold
from assistant.turn import run
from retrieval.knowledge import KnowledgeBase
from retrieval.schema import IndexStatus, IngestProgress, IngestSummary
from safety import Guard

OnTurn = Callable[[TurnRecord], None]
OnFeedback = Callable[[Feedback], None]

#: Characters of a document shown around a quote.
AROUND = 320


class Assistant(Asynchronous):
    """Answers from documents; safe for several threads. Made by `assistant.build`."""

    def __init__(
        self,
        settings: Settings,
        knowledge: KnowledgeBase,
        guard: Guard,
        policy: Policy | Live,
        memory: Memory,
        on_turn: OnTurn | None = None,
        on_feedback: OnFeedback | None = None,
        supporter: Supporter | None = None,
        cache: AnswerCache | None = None,
    ) -> None:
        self.settings = settings
        if not isinstance(policy, Live):
            policy = Live(Served("", settings, policy, supporter))
        self._live = policy
        with policy.lease("") as served:
            self._parts = Parts(settings, knowledge, guard, served.policy, memory)
        self._knowledge = knowledge
        self._memory = memory
        #: What users said about themselves, where `memory.user_facts` is on.
        self.facts = memory.facts
        self._cache = cache
        self._on_turn = on_turn
        self._on_feedback = on_feedback
        self._ready = 0.0

    # one turn -----------------------------------------------------------------------------------

    def stream(
        self,
        text: str,
        *,
        conversation_id: str | None = None,
        user_id: str = "local",
        language: str = "auto",
        surface: str = "ui",
        consent: Consent = Consent(),
        readers: frozenset[str] | None = None,
        history: Sequence[Message] | None = None,
        stopped: Callable[[], bool] | None = None,
        keep: bool = True,
        wish: Wish = Wish(),
        beside: Reply | None = None,
    ) -> Generator[Event, None, None]:
        """Answer `text`; yields steps, text as it is released, and the reply, last.

        `readers` are the names (the user and their groups) that documents with an access list are
        open to; None: access lists are not looked at. `history` is what was said before where the
        caller keeps the conversation, and takes the place of the stored turns. `stopped` is asked
        at each piece of the policy's; once it is True, nothing of the turn is stored. With `keep`
        False nothing is stored either way, and `conversation_id` is not looked at; `beside` is then
        an answer to the same text, and this one is another candidate of its turn.

        Raises:
            ConversationNotFound: no such conversation of this user.
            TurnStopped: `stopped` said so.
        """
        text = text.encode(errors="replace").decode()  # half a surrogate pair cannot be stored
        opened = self._memory.open(conversation_id, user_id, text) if keep else ""
        again = beside if not keep else None
        conversation = opened or (again.conversation_id if again else uuid4().hex)
        with self._serving(conversation) as parts:
            sampling = wish.laid_over(_sampling(parts, wish.variant))
            state = State(
                text, conversation, user_id, language, surface, consent, sampling, readers, stopped
            )
            state.turn_id = again.turn_id if again else state.turn_id
            state.history = self._memory.turns(conversation, user_id) if keep else []
            if history is not None:
                told = retold(history, parts.guard, language)
                state.history = _known(told, state.history)
            yield from run(state, parts, self._cache)
            reply = reply_of(state, parts)
            if keep:
                turn = Turn(reply.turn_id, conversation, text, reply, time.time())
                self._memory.add(turn, user_id)
                context.learn(state, parts)
            self._log(state, parts, reply, position=wish.variant)
        yield Event("reply", reply=reply)

    def reply(self, text: str, **asked: Unpack[Asked]) -> Reply:
        """Answer `text` in one go; takes what `stream` takes."""
        asked.setdefault("surface", "python")
        return _last(self.stream(text, **asked))

    def alternative(
        self,
        turn_id: str,
        *,
        user_id: str = "local",
        consent: Consent = Consent(),
        readers: frozenset[str] | None = None,
    ) -> Iterator[Event]:
        """Make another answer to a stored turn; it is kept, but not chosen (see `choose`).

        Raises:
            TurnNotFound: no such turn of this user.
        """
        turn = self._memory.turn(turn_id, user_id)
        made = len(self._memory.candidates(turn_id, user_id))
        with self._serving(turn.conversation_id) as parts:
            state = State(
                turn.user_text,
                turn.conversation_id,
                user_id,
                turn.reply.language,
                "ui",
                consent,
                _sampling(parts, variant=made),
                readers,
                turn_id=turn_id,
            )
            everything = self._memory.turns(turn.conversation_id, user_id)
            state.history = everything[: [t.id for t in everything].index(turn_id)]
            yield from run(state, parts)
            reply = reply_of(state, parts)
            self._memory.add_candidate(reply)
            self._log(state, parts, reply, position=made)
        yield Event("reply", reply=reply)

    def choose(self, turn_id: str, candidate_id: str, *, user_id: str = "local") -> Turn:
        """Make one of a turn's candidates its answer, in the history and on the page."""
        return self._memory.choose(turn_id, candidate_id, user_id)

    def give_feedback(self, feedback: Feedback, kept: bool = True) -> None:
        """Take a thumb, a pick or an edit: into the preference log, and beside a turn `kept`."""
        if not kept:
            pass  # who answers for the turn being theirs has seen to it
        elif feedback.kind == "thumb":
            self._memory.rate(feedback.turn_id, feedback.value, feedback.user_id)
        else:
            self._memory.turn(feedback.turn_id, feedback.user_id)
        refused = feedback.kind in ("edit", "report") or (
            feedback.kind == "thumb" and feedback.value < 0
        )
        if self._cache is not None and refused:
            self._cache.rejected(feedback.turn_id)
        if self._on_feedback is not None:
            self._on_feedback(feedback)

    @property
    def parts(self) -> Parts:
        """The parts that turns run through, for a server that offers them one by one."""
        return self._parts

    @contextmanager
    def _serving(self, conversation_id: str) -> Iterator[Parts]:
        """The parts of one turn, with the policy that answers this conversation now."""
        with self._live.lease(conversation_id) as served:
            yield replace(
                self._parts,
                settings=served.settings,
                policy=served.policy,
                supporter=served.supporter,
                version=served.version,
            )

    def _log(self, state: State, parts: Parts, reply: Reply, position: int) -> None:
        if self._on_turn is not None:
            self._on_turn(record_of(state, parts, reply, position))

    # conversations ------------------------------------------------------------------------------

    def conversations(self, user_id: str = "local") -> list[Conversation]:
        """A user's conversations, the last used first."""
        return self._memory.conversations(user_id)

    def turns(self, conversation_id: str, *, user_id: str = "local") -> list[Turn]:
        """A conversation's turns, oldest first."""
        return self._memory.turns(conversation_id, user_id)

    def rename(self, conversation_id: str, title: str, *, user_id: str = "local") -> None:
        """Give a conversation another title."""
        self._memory.rename(conversation_id, title, user_id)

    def delete(self, conversation_id: str, *, user_id: str = "local") -> None:
        """Delete a conversation."""
        self._memory.delete(conversation_id, user_id)

    def forget_user(self, user_id: str) -> int:
        """Delete all conversations of a user; returns how many there were."""
        if self._cache is not None:
            self._cache.forget(user_id)
        return self._memory.delete_user(user_id)

    # knowledge ----------------------------------------------------------------------------------

    def excerpt(self, citation: Citation, readers: frozenset[str] | None = None) -> Excerpt:
        """The document around a citation; `current` is False once that version is gone.

        Secrets (keys, tokens) are masked here as they are in the answer. `readers` as in `stream`:
        who may no longer read the document sees the quote they were given, and no more.
        """
        document = self._knowledge.document(citation.document_id)
        start, end = citation.start, citation.end
        if document and readers is not None and document.acl and not readers & {*document.acl}:
            document = None
        hide = self._parts.guard.unleaked
        if document is None or hide(document.text[start:end]) != citation.quote:
            return Excerpt(citation, "", citation.quote, "", current=False)
        before = hide(document.text[max(0, start - AROUND) : start])
        after = hide(document.text[end : end + AROUND])
        return Excerpt(citation, before, citation.quote, after, current=True)

    def ingest(self, paths: Sequence[Path | str]) -> Iterator[IngestProgress | IngestSummary]:
        """Take in files, folders and URLs; see `KnowledgeBase.ingest`."""
        return self._knowledge.ingest(paths)

    def upload(self, files: Sequence[tuple[str, Path]]) -> Iterator[IngestProgress | IngestSummary]:
        """Take in uploaded files; see `KnowledgeBase.upload`."""
        return self._knowledge.upload(files)

    def forget(self, root: str) -> int:
        """Remove an ingested root; returns how many documents there were."""
        return self._knowledge.forget(root)

    def keep_fresh(self) -> None:
        """Take in changes of the sources from now on; see `KnowledgeBase.keep_fresh`."""
        self._knowledge.keep_fresh()

    def index_status(self) -> IndexStatus:
        """What is indexed, by root."""
        return self._knowledge.status()

    def health(self) -> Health:
        """What is indexed, how fresh, which policy answers."""
        index = self._knowledge.status()
        return Health(
            documents=index.documents,
            chunks=index.chunks,
            lag=index.sequence - index.served,
            embedder=index.embedder,
            policy=self._live.card,
            moderators=self.settings.safety.moderators,
            data_dir=str(self.settings.home),
            conversations=len(self._memory.conversations("local")),
            ready_seconds=self._ready,
            refused=self._live.refused,
        )

    def warm(self) -> float:
        """Run everything once, so that the first question is not the slow one; returns seconds."""
        began = time.perf_counter()
        words = threading.Thread(target=self._parts.guard.warm, name="warm-up", daemon=True)
        words.start()  # beside the encoder, which leaves the interpreter free
        self._knowledge.search("warm-up", 1)
        words.join()
        self._ready = time.perf_counter() - began
        return self._ready

    def close(self) -> None:
        """Give back models, workers and database connections."""
        self._live.close()
        self._knowledge.close()
        self._memory.close()
        if self._cache is not None:
            self._cache.close()

    def __enter__(self) -> Assistant:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()


def _sampling(parts: Parts, variant: int) -> Sampling:
    policy = parts.settings.policy
    return Sampling(
        temperature=policy.temperature if not variant else max(policy.temperature, 0.7),
        top_p=policy.top_p,
        max_tokens=policy.max_tokens,
        seed=variant,
        variant=variant,
        seconds=policy.seconds,
    )


def _known(told: Sequence[Turn], stored: Sequence[Turn]) -> list[Turn]:
    """What was told, each turn with its sources where it is stored word for word."""
    known = {(t.user_text.strip(), t.reply.text.strip()): t for t in stored}
    return [known.get((t.user_text.strip(), t.reply.text.strip()), t) for t in told]


def _last(events: Iterator[Event]) -> Reply:
    reply = None
    for event in events:
        reply = event.reply or reply
    assert reply is not None
    return reply
