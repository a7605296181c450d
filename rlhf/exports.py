"""The preference log in the field's formats, as JSON lines. Pure functions over the store.

preference  {"prompt": [messages], "chosen": [message], "rejected": [message]}, plus a weight:
            what reward-model and DPO trainers load (TRL's conversational preference type)
unpaired    {"prompt": [messages], "completion": [message], "label": bool}: KTO
sft         {"prompt": [messages], "completion": [message]}: supervised fine-tuning, from edits
raw         one whole turn a line, as logged

A message is {"role", "content"}. Only rows of users who allow training now appear in any of them.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Literal, get_args

from assistant.schema import Message
from rlhf.errors import ExportError
from rlhf.preferences import PreferenceStore
from rlhf.schema import EditExample, Preference, Split, ThumbExample

Format = Literal["preference", "unpaired", "sft", "raw"]
FORMATS: tuple[Format, ...] = get_args(Format)
Line = dict[str, Any]


def export(
    store: PreferenceStore, format: Format, split: Split | None = None, *, raw: bool = False
) -> Iterator[Line]:
    """Yield the lines of one export, oldest first; redacted texts unless `raw`.

    Raises:
        ExportError: no such format.
    """
    if format == "preference":
        return (of_preference(row) for row in store.pairs(split, raw=raw))
    if format == "unpaired":
        return (of_thumb(row) for row in store.thumbs(split, raw=raw))
    if format == "sft":
        return (of_edit(row) for row in store.edits(split, raw=raw))
    if format == "raw":
        return store.records(split)
    raise ExportError(f"no export format {format!r}; there are: {', '.join(FORMATS)}")


def of_preference(row: Preference) -> Line:
    """One line of "preference"."""
    return {
        "prompt": _messages(row.prompt),
        "chosen": _answer(row.chosen),
        "rejected": _answer(row.rejected),
        "weight": row.weight,
        "source": row.source,
        "id": row.origin.event_id,
    }


def of_thumb(row: ThumbExample) -> Line:
    """One line of "unpaired"."""
    return {
        "prompt": _messages(row.prompt),
        "completion": _answer(row.completion),
        "label": row.label,
        "id": row.origin.event_id,
    }


def of_edit(row: EditExample) -> Line:
    """One line of "sft"."""
    return {
        "prompt": _messages(row.prompt),
        "completion": _answer(row.edited),
        "id": row.origin.event_id,
    }


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


def _messages(prompt: tuple[Message, ...]) -> list[dict[str, str]]:
    return [{"role": m.role, "content": m.text} for m in prompt]


def _answer(text: str) -> list[dict[str, str]]:
    return [{"role": "assistant", "content": text}]
