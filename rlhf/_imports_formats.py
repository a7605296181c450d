"""Rows of the formats that trainers read -> samples: HH-RLHF, TRL's, K-wise rankings.

HH-RLHF: github.com/anthropics/hh-rlhf. TRL: its guide to dataset formats, conversational and
plain. Rankings: NeMo RL's preference datasets (rank 0 or 1 is the best), or a list best first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import takewhile
from typing import Any

from assistant.schema import Message
from rlhf._imports_read import Malformed
from rlhf._imports_text import (
    answer_of,
    comparison,
    joined,
    messages_of,
    name_of,
    prompt_of,
    split_off,
    text_of,
    transcript,
    weight_of,
)
from rlhf.schema import Sample

Row = dict[str, Any]
Parser = Callable[[Row], Iterator[Sample]]


def hh(row: Row) -> Iterator[Sample]:
    """Two transcripts that are the same up to their last answer."""
    if "transcript" in row and "rating" in row:
        raise Malformed("a rated attack on a model is no comparison", "leave the red-team file out")
    if "prompt" in row:
        yield from preference(row)
        return
    sides = []
    for name in ("chosen", "rejected"):
        found = transcript(text_of(row, name))
        if not found:
            raise Malformed(f"{name!r} is no transcript of Human and Assistant")
        sides.append(split_off(found, name))
    (prompt, chosen), (other, rejected) = sides
    if prompt != other:
        raise Malformed("the two transcripts part before their last answer")
    yield comparison(prompt, (chosen, rejected), (1, 2), **_marks(row))


def preference(row: Row) -> Iterator[Sample]:
    """TRL's preference type: the prompt named, or what both conversations begin with."""
    for name in ("chosen", "rejected"):
        if name not in row:
            raise Malformed(f"there is no {name!r}", "check that the format is the file's")
    chosen, rejected = row["chosen"], row["rejected"]
    if "prompt" in row:
        prompt = prompt_of(row["prompt"])
    elif isinstance(chosen, list) and isinstance(rejected, list):
        sides = zip(messages_of(chosen, "chosen"), messages_of(rejected, "rejected"), strict=False)
        prompt = tuple(one for one, _ in takewhile(lambda pair: pair[0] == pair[1], sides))
        if not prompt or prompt[-1].role != "user":
            raise Malformed("the two conversations share no prompt that ends with the user")
    else:
        yield from _implicit(row)
        return
    answers = (answer_of(chosen, prompt, "chosen"), answer_of(rejected, prompt, "rejected"))
    yield comparison(prompt, answers, (1, 2), **_marks(row))


def _implicit(row: Row) -> Iterator[Sample]:
    if not transcript(text_of(row, "chosen")):
        raise Malformed("there is no 'prompt'", "add it, or give whole transcripts")
    yield from hh(row)


def unpaired(row: Row) -> Iterator[Sample]:
    """TRL's unpaired preference type, which KTO reads: one answer and whether it was liked."""
    label = row.get("label")
    if not isinstance(label, bool):
        raise Malformed(f"the label {label!r} is neither true nor false")
    (lesson,) = completion(row)
    yield replace(lesson, kind="label", label=label)


def completion(row: Row) -> Iterator[Sample]:
    """TRL's prompt-completion type: an answer to imitate."""
    if "completion" not in row:
        raise Malformed("there is no 'completion'", "check that the format is the file's")
    asked = prompt_of(row.get("prompt"))
    answer = answer_of(row["completion"], asked, "completion")
    yield Sample("demonstration", asked, (answer,), **_marks(row))


def prompt(row: Row) -> Iterator[Sample]:
    """TRL's prompt-only type."""
    marks = _marks(row)
    marks.pop("weight")
    yield Sample("prompt", prompt_of(row.get("prompt")), **marks)


def ranking(row: Row) -> Iterator[Sample]:
    """K answers with their ranks, equal ones tied."""
    if "completions" in row:
        asked = prompt_of(row.get("context", row.get("prompt")), "context")
        items = row["completions"]
        if not isinstance(items, list) or not all(isinstance(i, dict) for i in items):
            raise Malformed("'completions' is no list of objects")
        ranks = [item.get("rank") for item in items]
        if not all(isinstance(r, int) and not isinstance(r, bool) for r in ranks):
            raise Malformed("a completion has no whole number as its rank")
        answers = [answer_of(item.get("completion"), asked, "completion") for item in items]
        models = tuple(name_of(item.get("model")) for item in items)
        yield comparison(asked, answers, ranks, models=models, **_marks(row))
        return
    best_first = row.get("ranked")
    if not isinstance(best_first, list):
        raise Malformed("there is neither 'completions' nor 'ranked'", "see the guide's formats")
    asked = joined((*_history(row.get("history")), *prompt_of(row.get("prompt"))))
    answers = [answer_of(item, asked, "ranked") for item in best_first]
    yield comparison(asked, answers, range(1, len(answers) + 1), **_marks(row))


def _history(value: object) -> Iterator[Message]:
    for turn in value if isinstance(value, list) else ():
        if (
            not isinstance(turn, list)
            or len(turn) != 2
            or not all(isinstance(t, str) for t in turn)
        ):
            raise Malformed("'history' is no list of question and answer")
        yield from (Message("user", turn[0].strip()), Message("assistant", turn[1].strip()))


def _marks(row: Row) -> dict[str, Any]:
    return {
        "id": name_of(row.get("id")),
        "user": name_of(row.get("user")),
        "weight": weight_of(row),
    }
