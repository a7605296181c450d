"""Preference data of other tools and of the field, taken into the log row by row.

hh            HH-RLHF: two transcripts of Human and Assistant
preference    TRL: prompt, chosen, rejected; messages or plain text, or without the prompt
unpaired, kto TRL: prompt, completion, label
sft           TRL: prompt, completion
prompt        TRL: prompt
ranking       K answers with ranks (NeMo RL), or `prompt` and `ranked`, best first
arena         Chatbot Arena: battles and ties; "both bad" is left out
argilla       rankings, choices and corrections, of version 1 and 2
label-studio  pairwise choices
open-webui    thumbs; never pairs

A row that cannot be used is named, by file, line, reason and remedy, and the rest goes on. What is
taken in carries its data set and licence, and stays apart from users' own rows.
"""

from __future__ import annotations

import logging
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Literal

from rlhf import _imports_formats, _imports_tools
from rlhf._imports_formats import Parser
from rlhf._imports_read import Malformed, Problem, rows
from rlhf.errors import ImportRefused
from rlhf.preferences import PreferenceStore
from rlhf.schema import Sample, Split

logger = logging.getLogger(__name__)

PARSERS: dict[str, Parser] = {
    "hh": _imports_formats.hh,
    "preference": _imports_formats.preference,
    "unpaired": _imports_formats.unpaired,
    "kto": _imports_formats.unpaired,
    "sft": _imports_formats.completion,
    "prompt": _imports_formats.prompt,
    "ranking": _imports_formats.ranking,
    "arena": _imports_tools.arena,
    "argilla": _imports_tools.argilla,
    "label-studio": _imports_tools.label_studio,
    "open-webui": _imports_tools.open_webui,
}
FORMATS = tuple(PARSERS)

#: Texts and where they stand -> of each, why it must not be trained on, "" where it may be.
Screen = Callable[[Sequence[str], Literal["input", "passage"]], Sequence[str]]

_BATCH = 64
_NAME = re.compile(r"[\w.-]{1,80}\Z")


@dataclass(slots=True)
class ImportSummary:
    """What became of a file. `read` counts its rows, the others count samples.

    A row may hold several samples (one an annotator) or none. `kinds` and `splits` are of what was
    new; `masked` of it held personal data, `moved` of it went to the split where its words were met
    before, `ties` of it decide nothing, and `contradicting` says the opposite of a row there is.
    """

    dataset: str
    read: int = 0
    new: int = 0
    duplicates: int = 0
    contradicting: int = 0
    ties: int = 0
    masked: int = 0
    moved: int = 0
    problems: Counter[str] = field(default_factory=Counter)
    kinds: Counter[str] = field(default_factory=Counter)
    splits: Counter[str] = field(default_factory=Counter)


def read(path: Path, format: str) -> Iterator[tuple[int, Sample | Problem | None]]:
    """Yield the samples of a file, by line, and what is wrong with other rows; None ends each row.

    Raises:
        ImportRefused: no such format, or the file cannot be opened.
    """
    parser = PARSERS.get(format)
    if parser is None:
        raise ImportRefused(f"no import format {format!r}; there are: {', '.join(FORMATS)}")
    for line, row in rows(path):
        try:
            if isinstance(row, Malformed):
                raise row
            for sample in parser(row):
                # a stable name, so that what the file says of a row can be found again
                yield line, sample if sample.id else replace(sample, id=f"{path.name}:{line}")
        except Malformed as error:
            yield line, Problem(error.kind, path.name, line, error.reason, error.remedy)
        yield line, None


def take_in(
    store: PreferenceStore,
    path: Path,
    format: str,
    *,
    dataset: str,
    licence: str,
    split: Split | None = None,
    screen: Screen | None = None,
    tell: Callable[[Problem], None] = lambda problem: None,
) -> ImportSummary:
    """Take a file into the log; every row that is not is told of, and the rest goes on.

    What was taken before an interruption is kept, and the same call again adds the rest.

    Args:
        store: the log.
        path: JSON lines or a JSON array, plain or gzip.
        format: one of `FORMATS`.
        dataset: a name for the rows: letters, digits, dot, dash.
        licence: under what the rows may be used, as their publisher says.
        split: where all rows go, but those whose words are in another split; by a hash without.
        screen: says of each text why it must not be trained on, "" where it may be.
        tell: hears of each row that is not taken in.

    Raises:
        ImportRefused: no such format, no licence, or the file cannot be opened.
        StoreError: the log cannot be written.
    """
    _check(store, dataset, licence)
    summary = ImportSummary(dataset)

    def wrong(problem: Problem) -> None:
        summary.problems[problem.kind] += 1
        tell(problem)

    found = _heard(read(path, format), summary, wrong)
    while batch := list(islice(found, _BATCH)):
        kept = batch if screen is None else _screened(batch, screen, path, wrong)
        for (_, sample), taken in zip(
            kept, store.take([s for _, s in kept], dataset, licence, split), strict=True
        ):
            if taken.outcome == "duplicate":
                summary.duplicates += 1
                continue
            summary.new += 1
            summary.kinds[sample.kind] += 1
            summary.splits[taken.split] += 1
            summary.contradicting += taken.contradicts
            summary.masked += taken.masked
            summary.moved += taken.moved
            summary.ties += bool(sample.ranks) and len(set(sample.ranks)) == 1
    logger.info("imported dataset=%s rows=%d new=%d", dataset, summary.read, summary.new)
    return summary


def _heard(
    found: Iterator[tuple[int, Sample | Problem | None]],
    summary: ImportSummary,
    wrong: Callable[[Problem], None],
) -> Iterator[tuple[int, Sample]]:
    """Pass samples on with the line of their row, problems to whom they concern."""
    for line, item in found:
        if item is None:
            summary.read += 1
        elif isinstance(item, Problem):
            wrong(item)
        else:
            yield line, item


def _screened(
    batch: Sequence[tuple[int, Sample]],
    screen: Screen,
    path: Path,
    wrong: Callable[[Problem], None],
) -> list[tuple[int, Sample]]:
    """Hold back the rows with a text that must not be trained on."""
    texts: dict[Literal["input", "passage"], dict[str, str]] = {"input": {}, "passage": {}}
    for _, sample in batch:
        for message in sample.prompt:
            texts["input" if message.role == "user" else "passage"][message.text] = ""
        texts["passage"] |= dict.fromkeys(sample.completions, "")
    for side, known in texts.items():
        if known:
            known |= zip(known, screen(list(known), side), strict=True)
    kept = []
    for line, sample in batch:
        said = [texts["input" if m.role == "user" else "passage"][m.text] for m in sample.prompt]
        said += [texts["passage"][text] for text in sample.completions]
        reason = next((why for why in said if why), "")
        if reason:
            remedy = "read it, and leave it out or import it without the check"
            wrong(Problem("held back", path.name, line, f"a text is an attack ({reason})", remedy))
        else:
            kept.append((line, sample))
    return kept


def _check(store: PreferenceStore, dataset: str, licence: str) -> None:
    if not _NAME.match(dataset):
        raise ImportRefused(f"the data set's name {dataset!r} is not letters, digits, dot and dash")
    if not licence.strip():
        raise ImportRefused(f"{dataset} has no licence note; say under what it may be used")
    known = store.datasets().get(dataset)
    if known is not None and known[0] != licence:
        raise ImportRefused(
            f"{dataset} is in the log under the licence {known[0]!r}, not {licence!r}; "
            "give the rows another name, or forget the data set first"
        )


def lines(found: ImportSummary) -> list[str]:
    """What a summary says, a sentence a line."""

    def listed(counts: Counter[str]) -> str:
        return ", ".join(f"{n} {name}" for name, n in sorted(counts.items())) or "none"

    said = [
        f"{found.read} rows read, {found.new} taken into {found.dataset}: {listed(found.kinds)}; "
        f"splits: {listed(found.splits)}",
        f"not taken: {found.duplicates} there already, {listed(found.problems)}",
    ]
    if found.ties:
        said.append(f"{found.ties} comparisons are ties and decide nothing")
    if found.contradicting:
        said.append(f"{found.contradicting} say something else than a row about the same answers")
    if found.masked:
        said.append(f"personal data was masked in {found.masked}")
    if found.moved:
        said.append(f"{found.moved} went to the split in which their words were met before")
    return said


__all__ = ["FORMATS", "ImportSummary", "Problem", "Screen", "lines", "read", "take_in"]
