"""Personal data in a text: where it is, of which kind, how sure; and the text with it masked.

Found by published forms, checksums and the words beside them, in Chinese and English; names and
places only where Presidio is set up (`safety.pii_presidio`), which reads a text by a model.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, get_args

from safety import _personal as forms
from safety._presidio import Presidio
from safety._presidio import build as build_presidio
from safety.config import PersonalKind, SafetySettings
from safety.leaks import DIGITS, Leak, found, has_canary
from safety.schema import Span

KINDS: tuple[PersonalKind, ...] = get_args(PersonalKind)
#: Confidence from which a find counts.
LEAST = 0.5
#: Kinds that answers are searched for by `safety.leaks`, whose marks name the rule.
LEAKS = ("secret", *DIGITS)


@dataclass(frozen=True, slots=True)
class Found:
    """Personal data at [start, end) of the text; `score` in [0, 1]; `rule` says how it was seen."""

    start: int
    end: int
    kind: PersonalKind
    score: float
    rule: str


class Engine(Protocol):
    """Something else that finds personal data."""

    def find(self, text: str) -> Iterator[tuple[int, int, str, float]]:
        """(start, end, kind, confidence) of each find."""
        ...


class Finder:
    """Finds and masks personal data. Safe for several threads.

    Args:
        regions: two-letter regions whose national phone numbers are known without a +.
        engine: asked too, for what no form tells.
    """

    def __init__(
        self, regions: Sequence[str] = ("CN", "US", "GB"), engine: Engine | None = None
    ) -> None:
        self._regions = tuple(regions)
        self._engine = engine

    def find(
        self, text: str, kinds: Iterable[str] = KINDS, least: float = LEAST
    ) -> tuple[Found, ...]:
        """What there is of these kinds, in order; of two that overlap the surer, then longer."""
        wanted = set(kinds)
        hits = [h for h in self._all(text, wanted) if h.score >= least]
        kept: list[Found] = []
        for hit in sorted(hits, key=lambda h: (-h.score, h.start - h.end, h.start)):
            if all(hit.end <= k.start or hit.start >= k.end for k in kept):
                kept.append(hit)
        return tuple(sorted(kept, key=lambda h: h.start))

    def mask(self, text: str, kinds: Iterable[str] = KINDS) -> str:
        """The text with each find replaced by `[kind]`."""
        return _replaced(text, [(f.start, f.end, f.kind) for f in self.find(text, kinds)])

    def leaving(self, text: str, canary: str, kinds: Iterable[str]) -> Leak:
        """The text as it may leave: secrets by `safety.leaks`, the other kinds by their forms."""
        wanted = set(kinds)
        spans = [
            Span(start, end, rule)
            for start, end, rule in sorted(found(text))
            if kind_of(rule) in wanted
        ]
        rest = wanted.difference(LEAKS)
        if rest:
            spans += [Span(f.start, f.end, f.kind) for f in self.find(text, rest)]
        merged: list[Span] = []
        for span in sorted(spans, key=lambda s: (s.start, -s.end)):
            if merged and span.start < merged[-1].end:
                last = merged[-1]
                merged[-1] = Span(last.start, max(span.end, last.end), last.rule)
            else:
                merged.append(span)
        out = _replaced(text, [(s.start, s.end, s.rule) for s in merged])
        return Leak(out, tuple(merged), has_canary(text, canary))

    def _all(self, text: str, wanted: set[str]) -> Iterator[Found]:
        by_kind: dict[PersonalKind, Iterator[forms.Hit]] = {
            "email": forms.emails(text),
            "phone": forms.phones(text, self._regions),
            "resident_id": forms.resident_ids(text),
            "card": forms.cards(text),
            "passport": forms.passports(text),
            "iban": forms.ibans(text),
            "ip": forms.addresses(text),
            "ssn": forms.ssns(text),
        }
        for kind, hits in by_kind.items():
            if kind in wanted:
                yield from (Found(s, e, kind, score, rule) for s, e, score, rule in hits)
        if "secret" in wanted:
            for start, end, rule in found(text):
                if rule not in DIGITS:
                    yield Found(start, end, "secret", 0.95, rule)
        if self._engine is not None:
            for start, end, name, score in self._engine.find(text):
                known = next((k for k in KINDS if k == name), None)
                if known is not None and known in wanted:
                    yield Found(start, end, known, score, "presidio")


class MaskingFormatter(logging.Formatter):
    """A log format whose lines, traces included, have personal data masked."""

    def __init__(self, layout: str, finder: Finder, kinds: Sequence[str]) -> None:
        super().__init__(layout)
        self._finder, self._kinds = finder, tuple(kinds)

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        return self._finder.mask(super().format(record), self._kinds)


_DEFAULT = Finder()


def find(text: str, kinds: Iterable[str] = KINDS) -> tuple[Found, ...]:
    """What there is of these kinds; see `Finder.find`."""
    return _DEFAULT.find(text, kinds)


def mask(text: str, kinds: Iterable[str] = KINDS) -> str:
    """The text with what was found replaced by `[kind]`; see `Finder.mask`."""
    return _DEFAULT.mask(text, kinds)


def kind_of(rule: str) -> str:
    """The kind that a span of `Finder.leaving` stands for."""
    return rule if rule in KINDS else "secret"


def build(settings: SafetySettings) -> Finder:
    """The finder that the settings describe.

    Raises:
        BackendMissing: Presidio is asked for and not installed.
        ModelUnusable: a model that Presidio needs is not installed.
    """
    engine: Presidio | None = None
    if settings.pii_presidio:
        engine = build_presidio(settings.pii_presidio)
    return Finder(settings.pii_regions, engine)


def mask_logs(layout: str, settings: SafetySettings) -> None:
    """Give every handler of the root logger a format that masks the kinds of `pii_logs`."""
    formatter = MaskingFormatter(layout, build(settings), settings.pii_logs)
    for handler in logging.getLogger().handlers:
        handler.setFormatter(formatter)


def _replaced(text: str, spans: Sequence[tuple[int, int, str]]) -> str:
    out, at = [], 0
    for start, end, name in spans:
        out += [text[at:start], f"[{name}]"]
        at = end
    return "".join([*out, text[at:]])
