"""Preferences in the field's formats, as JSON lines. Pure functions over the store.

preference     {"prompt", "chosen", "rejected"}, plus a weight: TRL's preference type, which
               reward-model and DPO trainers load
unpaired, kto  {"prompt", "completion", "label": bool}: TRL's unpaired type, KTO
sft            {"prompt", "completion"}: supervised fine-tuning, from edits
prompt         {"prompt"}: what a policy is trained to answer (TRL's prompt-only type)
ranking        {"context", "completions": [{"rank", "completion"}]}: K answers, ties among them
hh             {"chosen", "rejected"}: transcripts of HH-RLHF
arena          battles of Chatbot Arena, ties among them; edits are none
argilla        records of Argilla with a ranking, ties among them
label-studio   tasks of Label Studio with a pairwise choice, which knows no tie
open-webui     feedback of Open WebUI, from thumbs
raw            one whole turn a line, as logged

Messages are lists of {"role", "content"}; `plain` makes transcripts of them in TRL's types. A
thumb is never half of a pair. Only rows of users who allow training now appear in any format;
imported data sets only where they are named, each line with its data set and licence.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Literal, get_args

from rlhf import _exports_formats as formats
from rlhf._exports_formats import Line
from rlhf.errors import ExportError
from rlhf.preferences import PreferenceStore
from rlhf.samples import gather
from rlhf.schema import Sample, SampleKind, Split

Format = Literal[
    "preference",
    "unpaired",
    "kto",
    "sft",
    "prompt",
    "ranking",
    "hh",
    "arena",
    "argilla",
    "label-studio",
    "open-webui",
    "raw",
]
FORMATS: tuple[Format, ...] = get_args(Format)
#: The formats that `plain` changes.
PLAIN = ("preference", "unpaired", "kto", "sft", "prompt")

Make = Callable[[Sample, bool], Iterator[Line]]
_MAKERS: dict[str, tuple[SampleKind, Make]] = {
    "preference": ("comparison", formats.preference),
    "unpaired": ("label", formats.unpaired),
    "kto": ("label", formats.unpaired),
    "sft": ("demonstration", formats.completion),
    "prompt": ("prompt", formats.prompt),
    "ranking": ("comparison", formats.ranking),
    "hh": ("comparison", formats.hh),
    "arena": ("comparison", formats.arena),
    "argilla": ("comparison", formats.argilla),
    "label-studio": ("comparison", formats.label_studio),
    "open-webui": ("label", formats.open_webui),
}


def export(
    store: PreferenceStore,
    format: Format,
    split: Split | None = None,
    *,
    raw: bool = False,
    plain: bool = False,
    datasets: Sequence[str] = (),
) -> Iterator[Line]:
    """Yield the lines of one export: users' own, oldest first, then those of named data sets.

    Texts are the redacted ones unless `raw`; those of data sets always are.

    Raises:
        ExportError: no such format or data set, or a plain form of a format that has none.
    """
    if format not in FORMATS:
        raise ExportError(f"no export format {format!r}; there are: {', '.join(FORMATS)}")
    if plain and format not in PLAIN:
        raise ExportError(f"{format} has no plain form; these have: {', '.join(PLAIN)}")
    known = store.datasets()
    for name in datasets:
        if name not in known:
            there = ", ".join(known) or "none"
            raise ExportError(f"no data set {name!r} was imported; there are: {there}")
    if format == "raw":
        if datasets:
            raise ExportError("raw is of users' own turns; name another format for data sets")
        return store.records(split)
    kind, make = _MAKERS[format]
    found = gather(store, kind, split, raw=raw, datasets=datasets)
    return (line for sample in found for line in make(sample, plain))


def write(lines: Iterable[Line], path: Path) -> int:
    """Write JSON lines (UTF-8) to `path`, all or nothing; returns how many.

    Raises:
        ExportError: the file cannot be written.
    """
    aside = path.with_name(f".{path.name}.part")
    count = 0
    try:
        descriptor = os.open(aside, os.O_CREAT | os.O_TRUNC | os.O_WRONLY, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            for line in lines:
                file.write(json.dumps(line, ensure_ascii=False) + "\n")
                count += 1
            file.flush()
            os.fsync(file.fileno())
        aside.replace(path)
    except OSError as error:
        raise ExportError(f"cannot write {path}: {error}") from error
    finally:
        aside.unlink(missing_ok=True)
    return count
