"""Lessons that were made before, so that a run in a test makes none: all answer a question."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

from assistant.config import Settings
from rlhf.fit import _lessons
from rlhf.fit._asked import plan
from rlhf.fit.pretrain import WORK
from tests.rlhf.cycle_parts import lesson


def put(data: Path, settings: Settings) -> None:
    """Write the lessons of the first questions of a data folder where a run looks for them.

    Two thirds have an answer, and two of five are held out.
    """
    folder = WORK / "lessons"
    folder.mkdir(parents=True)
    state = {"version": _lessons.VERSION, "passages": settings.policy.passages}
    about = {**state, "reranker": "", "answers": ""}
    (folder / "lessons.json").write_text(json.dumps(about) + "\n", encoding="utf-8")
    with (folder / "lessons.jsonl").open("w", encoding="utf-8") as file:
        for number, row in enumerate(plan(data)[: settings.train.lessons]):
            right = () if number % 3 == 2 else (number % 4,)
            made = lesson(number, ("en", "zh")[number % 2], right=right, held=number % 5 < 2)
            line = {"id": row.id, "lessons": [_lessons._plain(replace(made, id=row.id))]}
            file.write(json.dumps(line, ensure_ascii=False) + "\n")
