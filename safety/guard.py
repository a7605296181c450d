"""The one door: every text that enters, is retrieved or leaves is screened here.

Fails closed: a moderator that raises, answers nonsense or is too slow blocks the text. Second
moderators are asked about what the first line is not sure of (see safety.cascade).
"""

from __future__ import annotations

import logging
import threading
import time
import uuid
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from safety._outbound import leaving
from safety._record import Recorder
from safety.audit import AuditLog, text_hash
from safety.cascade import RANK, settle
from safety.config import SafetySettings
from safety.errors import AuditBroken, ModelUnusable, ModeratorUnavailable
from safety.menu import load
from safety.moderator.base import Moderator
from safety.normalize import warm_up
from safety.pii import build as build_finder
from safety.refusal import crisis_reply, refusal_reply
from safety.schema import Context, Side, Span, Verdict
from safety.verdicts import Verdicts, fingerprint

logger = logging.getLogger(__name__)

#: Loads the network of a file of heads: texts in, logits out; ModelUnusable where it cannot.
LoadNetwork = Callable[[Path], Callable[[Sequence[str]], Any]]

_NO_CONTEXT = Context()
#: Calls of one moderator that may hang at once before it is taken for dead.
_STUCK = 8


class _Runner:
    """Runs one moderator with a deadline, and turns everything that goes wrong into a fault."""

    def __init__(self, moderator: Moderator, seconds: float) -> None:
        self.moderator = moderator
        self.name = moderator.name
        self.seconds = seconds
        self._stuck = 0
        self._lock = threading.Lock()

    def judge(self, texts: Sequence[str], side: Side, question: str = "") -> list[Verdict]:
        """Verdicts of the moderator, or a fault per text."""
        if not texts:
            return []
        begin = time.perf_counter()
        problem = "timeout"
        try:
            verdicts = self._call(texts, side, question)
        except Exception as error:  # whatever a plugged-in moderator raises, the text is blocked
            problem = type(error).__name__
        else:
            return verdicts
        seconds = time.perf_counter() - begin
        logger.error("moderator_failed moderator=%s error=%s", self.name, problem)
        fault = Verdict(
            "block", "fault", 1.0, side, self.name, f"fault.{self.name}", seconds=seconds
        )
        return [fault] * len(texts)

    def _call(self, texts: Sequence[str], side: Side, question: str) -> list[Verdict]:
        with self._lock:
            if self._stuck >= _STUCK:
                raise ModeratorUnavailable(f"{self.name}: {self._stuck} calls hang; restart it")
            self._stuck += 1
        result: list[list[Verdict]] = []
        failure: list[Exception] = []

        def work() -> None:
            try:
                result.append(list(self.moderator.judge(texts, side, question)))
            except Exception as error:  # carried over to the calling thread
                failure.append(error)
            finally:
                with self._lock:
                    self._stuck -= 1

        # A thread of its own, daemonic: one that hangs must not hold up the next call or exit.
        thread = threading.Thread(target=work, name=f"moderator-{self.name}", daemon=True)
        thread.start()
        thread.join(self.seconds)
        if failure:
            raise failure[0]
        if not result:
            raise ModeratorUnavailable(f"{self.name}: no verdict within {self.seconds} s")
        return self._checked(result[0], len(texts), side)

    def _checked(self, verdicts: list[Verdict], count: int, side: Side) -> list[Verdict]:
        sound = all(
            isinstance(v, Verdict) and v.action in RANK and v.side == side for v in verdicts
        )
        if len(verdicts) != count or not sound:
            raise ModeratorUnavailable(f"{self.name}: not one sound verdict per text")
        return verdicts


class Guard:
    """Screens texts with every moderator and keeps the most severe verdict. Thread-safe.

    Args:
        moderators: the first line, asked about every text.
        settings: deadlines, cache, and when and how second opinions count.
        audit: where decisions are recorded; None records none.
        second: moderators asked about texts with a grey first-line verdict.
        kept: verdicts on passages that are kept on disk.
    """

    def __init__(
        self,
        moderators: Sequence[Moderator],
        settings: SafetySettings | None = None,
        audit: AuditLog | None = None,
        second: Sequence[Moderator] = (),
        kept: Verdicts | None = None,
    ) -> None:
        self.settings = settings or SafetySettings()
        self._runners = [_Runner(m, self.settings.seconds) for m in moderators]
        if not self._runners:
            raise ModeratorUnavailable("no moderators given; name at least 'rules'")
        self._second = [_Runner(m, self.settings.second_seconds) for m in second]
        self._personal = build_finder(self.settings)
        every = [*moderators, *second]
        self._recorder = None if audit is None else Recorder(audit, every, self.settings)
        self.kept = kept
        #: Changes with anything that a verdict on a passage depends on but the passage.
        self.fingerprint = fingerprint(moderators, second, self.settings)
        self._cache: OrderedDict[tuple[Side, str], Verdict] = OrderedDict()
        self._lock = threading.Lock()

    def screen(self, text: str, side: Side, context: Context = _NO_CONTEXT) -> Verdict:
        """Judge one text. Never raises for what a moderator or the audit does: it blocks."""
        return self.screen_many([text], side, context)[0]

    def screen_many(
        self, texts: Sequence[str], side: Side, context: Context = _NO_CONTEXT
    ) -> list[Verdict]:
        """One verdict per text, in order; passages judged before come from the cache."""
        begin = time.perf_counter()
        asked = context.question if side == "output" else ""
        verdicts = self._judge(texts, side, asked)
        if side == "input" and context.earlier:
            verdicts = [
                self._over_turns(t, v, context) for t, v in zip(texts, verdicts, strict=True)
            ]
        if side == "output":
            verdicts = [
                leaving(t, v, context, self.settings, self._personal)
                for t, v in zip(texts, verdicts, strict=True)
            ]
        seconds = time.perf_counter() - begin
        done = [
            self._finished(t, v, context, seconds) for t, v in zip(texts, verdicts, strict=True)
        ]
        return self._audited(texts, done, context)

    def ahead(self, texts: Sequence[str]) -> list[Verdict]:
        """Judge passages before anybody asks: verdicts are kept on disk, nothing is recorded."""
        verdicts = self._judge(texts, "passage")
        if self.kept is not None:
            digests = [text_hash(t) for t in texts]
            there = self.kept.get(digests)
            with self._lock:  # what was judged before its document claimed it
                known = {d: self._cache.get(("passage", d)) for d in digests if d not in there}
            self.kept.add({d: v for d, v in known.items() if v is not None})
        return verdicts

    def retold(self, texts: Sequence[str]) -> list[Verdict]:
        """Judge what a caller says was said before, each text alone; nothing is recorded."""
        return self._judge(texts, "input")

    def warm(self) -> None:
        """Load all that the first judgement would wait for; nothing is recorded."""
        warm_up()
        self._opinions(["warm-up"], "input", "")

    def unleaked(self, text: str) -> str:
        """The text with the personal data and secrets masked that no answer may show."""
        return self._personal.leaving(text, "", self.settings.pii_mask).text

    def opinions(self, texts: Sequence[str], side: Side, question: str = "") -> list[list[Verdict]]:
        """Per text what every moderator says, those of both lines, each on its own; unrecorded.

        `question` is what outputs answer, as in `Context`.
        """
        runners = [*self._runners, *self._second]
        found = [r.judge(texts, side, question) for r in runners]
        return [[verdicts[i] for verdicts in found] for i in range(len(texts))]

    def _judge(self, texts: Sequence[str], side: Side, question: str = "") -> list[Verdict]:
        """The worst verdict of all moderators per text; inputs and passages are cached.

        Outputs are not: what one is depends on the question.
        """
        keys = [(side, text_hash(t)) for t in texts]
        with self._lock:
            known = {k: self._cache[k] for k in keys if k in self._cache}
            for key in known:
                self._cache.move_to_end(key)
        fresh = {k: t for k, t in zip(keys, texts, strict=True) if k not in known}
        if self.kept is not None and side == "passage":
            found = self.kept.get([digest for _, digest in fresh])
            stored: dict[tuple[Side, str], Verdict] = {(side, d): v for d, v in found.items()}
            self._remember(stored)
            known |= stored
            fresh = {k: t for k, t in fresh.items() if k not in stored}
        sure: dict[tuple[Side, str], Verdict] = {}
        opinions = self._opinions(list(fresh.values()), side, question)
        for key, (first, second) in zip(fresh, opinions, strict=True):
            settled = settle(first, second, self.settings.second_fails)
            # Cached rows hold no text: the caller's own text is put back in `_finished`.
            known[key] = replace(settled, safe_text="")
            faulty = any(v.category == "fault" for v in [settled, *second])
            if not faulty and side != "output":
                sure[key] = known[key]
        self._remember(sure)
        if self.kept is not None and side == "passage":
            self.kept.add({digest: v for (_, digest), v in sure.items()})
        return [known[k] for k in keys]

    def _remember(self, verdicts: Mapping[tuple[Side, str], Verdict]) -> None:
        with self._lock:
            self._cache.update(verdicts)
            while len(self._cache) > self.settings.cache:
                self._cache.popitem(last=False)

    def _opinions(
        self, texts: list[str], side: Side, question: str
    ) -> list[tuple[list[Verdict], list[Verdict]]]:
        """Per text the first line's verdicts, and the second opinions where they were asked."""
        firsts = [r.judge(texts, side, question) for r in self._runners]
        both: list[tuple[list[Verdict], list[Verdict]]]
        both = [([verdicts[i] for verdicts in firsts], []) for i in range(len(texts))]
        always = self.settings.second_always
        asked = [i for i, (first, _) in enumerate(both) if always or any(v.grey for v in first)]
        for runner in self._second:
            verdicts = runner.judge([texts[i] for i in asked], side, question)
            for i, verdict in zip(asked, verdicts, strict=True):
                both[i][1].append(verdict)
        return both

    def _over_turns(self, text: str, verdict: Verdict, context: Context) -> Verdict:
        """Risk that no single turn shows: a request split over two, or one hinted at again."""
        if verdict.stops or not self.settings.turns:
            return verdict
        earlier = list(context.earlier[-self.settings.turns :])
        if verdict.action == "annotate":
            for before in reversed(self._judge(earlier, "input")):
                if before.stops and before.category == verdict.category:
                    return replace(verdict, action=before.action, reason=f"{verdict.reason}.turns")
        seam = len(earlier[-1])
        (joined,) = self._judge([f"{earlier[-1]} {text}"], "input")
        crosses = any(s.start < seam < s.end for s in joined.spans)
        if joined.category == "fault":
            return joined
        if joined.stops and crosses:
            spans = tuple(
                Span(max(0, s.start - seam - 1), s.end - seam - 1, s.rule)
                for s in joined.spans
                if s.end > seam + 1
            )
            return replace(joined, reason=f"{joined.reason}.turns", spans=spans)
        return verdict

    def _finished(self, text: str, verdict: Verdict, context: Context, seconds: float) -> Verdict:
        """The verdict with its id, its reply, and the text that may go on."""
        reply = ""
        if verdict.action == "crisis":
            reply = crisis_reply(context.language, self.settings.locale)
        elif verdict.action in ("refuse", "block", "safe_complete"):
            reply = refusal_reply(verdict.category, context.language, verdict.side)
        safe = "" if verdict.stops else (verdict.safe_text or text)
        return replace(
            verdict,
            reply=reply,
            safe_text=safe,
            seconds=seconds,
            decision_id=uuid.uuid4().hex,
        )

    def _audited(
        self, texts: Sequence[str], verdicts: list[Verdict], context: Context
    ) -> list[Verdict]:
        """Write the decisions; one that would pass unrecorded is blocked instead."""
        if self._recorder is None:
            return verdicts
        try:
            self._recorder.write(texts, verdicts, context)
        except (OSError, AuditBroken) as error:
            logger.error("audit_failed texts=%d error=%s", len(texts), type(error).__name__)
            lost = [self._recorder.wants(v) and not v.stops for v in verdicts]
            return [
                _unrecorded(v, context) if gone else v
                for v, gone in zip(verdicts, lost, strict=True)
            ]
        return verdicts


def _unrecorded(verdict: Verdict, context: Context) -> Verdict:
    reply = refusal_reply("fault", context.language, verdict.side)
    return replace(
        verdict,
        action="block",
        category="fault",
        score=1.0,
        moderator="audit",
        reason="fault.audit",
        reply=reply,
        safe_text="",
        spans=(),
    )


class _Unusable:
    """In the place of a moderator whose model cannot be used: every judgement is a fault."""

    def __init__(self, name: str, reason: str) -> None:
        self.name, self._reason = name, reason

    def judge(self, texts: Sequence[str], side: Side, question: str = "") -> list[Verdict]:
        raise ModeratorUnavailable(f"{self.name}: {self._reason} ({len(texts)} {side} texts)")


def build_guard(
    settings: SafetySettings,
    audit_path: Path | None,
    network: LoadNetwork | None = None,
    kept: Path | None = None,
) -> Guard:
    """A guard with the moderators that the settings name.

    A first-line moderator whose model is missing or damaged is said to be so in the log, and
    everything is blocked until it is mended: the service starts, and nothing passes unjudged.

    Args:
        settings: name the moderators.
        audit_path: where decisions are written; None: nowhere.
        network: loads the scorer of a file of heads, for moderators that have a NETWORK.
        kept: where verdicts on passages are kept for good; None: nowhere.

    Raises:
        BackendMissing: a moderator's name is unknown or its library is not installed.
        ModelUnusable: the model or endpoint of a second moderator is not set or cannot be used.
        PolicyInvalid: a policy file does not say what it must.
    """
    moderators: list[Moderator] = []
    for name in settings.moderators:
        try:
            moderators.append(_built(name, settings, network))
        except ModelUnusable as error:
            logger.error("moderator_unusable moderator=%s: %s; all is blocked", name, error)
            moderators.append(_Unusable(name, str(error)))
    second = [_built(name, settings, network) for name in settings.second]
    audit = None
    if settings.audit and audit_path is not None:
        audit = AuditLog(audit_path, sync=settings.audit_sync)
    verdicts = None
    if kept is not None and settings.verdicts:
        verdicts = Verdicts(kept, fingerprint(moderators, second, settings), settings.verdicts)
    return Guard(moderators, settings, audit, second, verdicts)


def _built(name: str, settings: SafetySettings, network: LoadNetwork | None) -> Moderator:
    module = load(name)
    wanted: Path | None = getattr(module, "NETWORK", None)
    made: Moderator
    if wanted is not None and network is not None:
        made = module.build(settings, network(wanted))
    else:
        made = module.build(settings)
    return made
