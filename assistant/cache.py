"""Answers that are given again, where everything that they depend on is the same.

A cache of answers by likeness of questions alone gives wrong ones: two questions that differ in a
name or a "not" are alike to an encoder. Here a turn runs as always up to its prompt: the guard
judges the question, the search finds what this asker may read now, and passages are screened. Only
then, and in place of the policy alone, an earlier answer is taken, if

* its gate is equal: the audience (tenant and groups), language, policy with its version, sampling
  and settings, the guard's moderators and settings, the encoder;
* the turn stands alone: no earlier turn, no fact about the user, no time such as "last week", one
  answer drawn without chance (temperature 0);
* its evidence is the evidence of now: for the same words, the same passages. For like words, or
  where passages differ: those it cites are all there, most others too, none is newer than the
  answer, the sentences that match both questions best are the same, and nothing in the words tells
  the questions apart.
  For another asker of the same audience, every passage behind the answer was found for them too.

Passages are named by chunk, stretch and what they stand for; numbers of chunks are never used
again, so a changed, deleted or closed document brings none of the names that its answers need. The
answer is screened again, with this question, and is left out if the guard wants anything changed.
Answers from documents that are gone are deleted at the next question.
"""

from __future__ import annotations

import hashlib
import json
import threading
import time
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from uuid import uuid4

import numpy as np

from assistant.cache_alike import normal, of_today, told_apart
from assistant.cache_config import CacheSettings
from assistant.memory_answers import FILE, Answers, Entry
from assistant.steps import Parts, State, targets
from retrieval.embed.base import Vectors
from retrieval.schema import Passage
from retrieval.text import sentences
from safety import Context

#: Sentences that stand for what a question asks of its evidence, and how many must be the same.
LEAD, SHARED = 3, 2
#: Vectors of sentences, and turns that were answered from here, that are remembered.
VECTORS, TURNS = 20_000, 10_000
HOUR = 3600.0


class AnswerCache:
    """Finds and keeps answers. Safe for several threads.

    Args:
        settings: where answers lie, and when two questions are alike.
        home: folder of the file, where they lie on disk.
    """

    def __init__(self, settings: CacheSettings, home: Path) -> None:
        path = home / FILE if settings.store == "disk" else None
        self._settings = settings
        self._answers = Answers(path, settings.entries)
        self._lock = threading.Lock()
        self._vectors: OrderedDict[str, Vectors] = OrderedDict()
        self._turns: OrderedDict[str, str] = OrderedDict()
        self._sequence = -1

    def find(self, state: State, parts: Parts) -> tuple[Entry | None, str]:
        """An answer that may be given, and the line for "why this answer"."""
        if alone := _alone(state):
            return None, f"not asked: {alone}"
        self._sweep(parts)
        entries = self._answers.of(_gate(state, parts))
        since = time.time() - self._settings.hours * HOUR
        entries = [entry for entry in entries if entry.created >= since]
        question, readers = normal(state.understanding.query), _readers(state)
        evidence = _named(state.passages)
        vector: Vectors | None = None
        why = "nothing like it"
        for entry in entries:
            same = normal(entry.question) == question
            why, how = _same(entry, evidence), "the same question"
            if not same or why:
                if self._settings.match == "same" or not entry.vector:
                    continue
                if vector is None:
                    vector = self._vector(state.understanding.query, parts)
                near = float(np.dot(vector, entry.vector)) if len(vector) else 0.0
                if near < self._settings.cosine:
                    continue
                why = self._like(entry, state, parts, vector)
                how = f"a like question ({near:.2f})"
            if not why and entry.readers != readers and not set(entry.evidence) <= {*evidence}:
                why = "evidence of another reader"
            why = why or _screened(entry, state, parts)
            if not why:
                self._take(entry, state)
                made = time.strftime("%Y-%m-%d %H:%M", time.localtime(entry.created))
                return entry, f"cached: answered {made} to {how}, with the same evidence"
        return None, f"not cached: {why}"

    def keep(self, state: State, parts: Parts, pieces: Sequence[str]) -> None:
        """Keep the answer of a turn that was just composed, where it may be given again."""
        if state.outcome != "answered" or not state.citations or _alone(state):
            return
        question = state.understanding.query
        near = self._settings.match == "near"
        vector = self._vector(question, parts) if near else np.zeros(0, np.float32)
        cited = {c.chunk_id for c in state.citations}
        entry = Entry(
            id=uuid4().hex,
            gate=_gate(state, parts),
            owner=state.user_id,
            readers=_readers(state),
            question=question,
            vector=tuple(float(x) for x in vector),
            evidence=_named(state.passages),
            lead=self._lead(state, parts, vector) if len(vector) else (),
            cited=_named([p for p in state.passages if p.chunk.id in cited]),
            documents=tuple(sorted({p.chunk.document_id for p in state.passages})),
            pieces=tuple(pieces),
            answer=state.answer,
            citations=state.citations,
            finish=state.finish,
            confidence=state.confidence,
            created=time.time(),
        )
        old = (entry.gate, normal(question), entry.readers)
        self._answers.drop(lambda e: (e.gate, normal(e.question), e.readers) == old)
        self._answers.put(entry)
        self._note(state.turn_id, entry.id)

    def rejected(self, turn_id: str) -> None:
        """A user did not like the answer of a turn: it is not given again."""
        with self._lock:
            entry = self._turns.get(turn_id)
        if entry is not None:
            self._answers.drop(lambda e: e.id == entry)

    def forget(self, user_id: str) -> int:
        """Delete the answers to a user's questions; returns how many there were."""
        return self._answers.drop(lambda e: e.owner == user_id)

    def __len__(self) -> int:
        return len(self._answers)

    def close(self) -> None:
        """Close the file."""
        self._answers.close()

    def _take(self, entry: Entry, state: State) -> None:
        state.outcome, state.answer = "answered", entry.answer
        state.citations = entry.citations
        state.finish, state.confidence = entry.finish, entry.confidence
        self._answers.used(entry)
        self._note(state.turn_id, entry.id)

    def _note(self, turn_id: str, entry: str) -> None:
        with self._lock:
            self._turns[turn_id] = entry
            while len(self._turns) > TURNS:
                self._turns.popitem(last=False)

    def _sweep(self, parts: Parts) -> None:
        """Delete answers from versions that are gone, where anything has changed."""
        sequence = parts.knowledge.store.sequence()
        with self._lock:
            changed, self._sequence = sequence != self._sequence, sequence
        if changed:
            there = parts.knowledge.there(self._answers.documents())
            self._answers.drop(lambda e: not there.issuperset(e.documents))

    def _like(self, entry: Entry, state: State, parts: Parts, vector: Vectors) -> str:
        """Why the answer to a like question will not do; "" where it will."""
        evidence = _named(state.passages)
        mine, theirs = set(evidence), set(entry.evidence)
        if not set(entry.cited) <= mine:
            return "other evidence"
        if len(mine & theirs) < self._settings.overlap * len(mine | theirs):
            return "too little evidence in common"
        pairs = zip(evidence, state.passages, strict=True)
        if any(p.indexed > entry.created for name, p in pairs if name not in theirs):
            return "newer evidence"
        lead = self._lead(state, parts, vector)
        if lead[:1] != entry.lead[:1] or len({*lead} & {*entry.lead}) < min(SHARED, len(lead)):
            return "other sentences of the evidence"
        told = " ".join(text for name, text in _sentences(state.passages) if name in lead)
        return told_apart(entry.question, state.understanding.query, told)

    def _vector(self, question: str, parts: Parts) -> Vectors:
        """The question's vector; empty where the encoder cannot read it."""
        embedder = parts.knowledge.embedder
        if not embedder.reads(question):
            return np.zeros(0, np.float32)
        return np.asarray(embedder.embed([question], "query")[0])

    def _lead(self, state: State, parts: Parts, vector: Vectors) -> tuple[str, ...]:
        """The sentences of the evidence that are nearest to the question, best first."""
        found = _sentences(state.passages)
        if not found:
            return ()
        with self._lock:
            known = {name: self._vectors.get(name) for name, _ in found}
        fresh = {name: text for name, text in found if known[name] is None}
        if fresh:
            made = parts.knowledge.embedder.embed([*fresh.values()], "passage")
            known |= dict(zip(fresh, made, strict=True))
            with self._lock:
                self._vectors.update({name: v for name, v in known.items() if v is not None})
                while len(self._vectors) > VECTORS:
                    self._vectors.popitem(last=False)
        names = [*known]
        near = np.stack([v for v in known.values() if v is not None]) @ vector
        best = np.argsort(-near, kind="stable")[:LEAD]
        return tuple(names[n] for n in best)


def _alone(state: State) -> str:
    """Why a turn's answer depends on more than its question and evidence; "" where it does not."""
    sampling = state.sampling
    if state.history:
        return "the conversation goes on"
    if state.facts:
        return "something is known of the user"
    if state.period is not None or state.any_date or of_today(state.text):
        return "the question names a time"
    if sampling.temperature > 0 or sampling.variant:
        return "the answer is drawn by chance"
    return ""


def _gate(state: State, parts: Parts) -> str:
    audience = None
    if state.readers is not None:
        own = {state.user_id, state.user_id.rsplit("/", 1)[-1]}
        audience = sorted(state.readers - own)
    told = [
        audience,
        state.language,
        asdict(replace(parts.policy.card, version=parts.version)),
        asdict(state.sampling),
        parts.settings.policy.model_dump(mode="json"),
        parts.settings.safety.model_dump(mode="json"),
        parts.guard.fingerprint,
        parts.knowledge.embedder.id,
    ]
    return _hash(told)


def _readers(state: State) -> str:
    return _hash(None if state.readers is None else sorted(state.readers))


def _named(passages: Sequence[Passage]) -> tuple[str, ...]:
    """Names of passages: equal where the same words are shown, standing for the same sources."""
    return tuple(
        _hash([p.chunk.id, p.chunk.start, p.chunk.end, p.also, [asdict(o) for o in p.older]])
        for p in passages
    )


def _sentences(passages: Sequence[Passage]) -> list[tuple[str, str]]:
    return [
        (f"{p.chunk.id}:{p.chunk.start + a}:{p.chunk.start + b}", p.chunk.text[a:b])
        for p in passages
        for a, b in sentences(p.chunk.text)
    ]


def _same(entry: Entry, evidence: Sequence[str]) -> str:
    return "" if {*evidence} == {*entry.evidence} else "other evidence than then"


def _screened(entry: Entry, state: State, parts: Parts) -> str:
    """Why the guard does not let the answer pass as it is, to this question; "" where it does."""
    context = Context(
        language=state.language,
        conversation=state.conversation_id,
        user=state.user_id,
        canary=parts.canary,
        allowed_urls=targets(entry.citations, state.passages),
        question=state.user_text,
    )
    texts = [piece.strip() for piece in entry.pieces]
    verdicts = parts.guard.screen_many(texts, "output", context)
    passed = zip(texts, verdicts, strict=True)
    if all(v.action == "allow" and (v.safe_text or t) == t for t, v in passed):
        return ""
    return "the guard would not let it pass as it is"


def _hash(told: object) -> str:
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()
