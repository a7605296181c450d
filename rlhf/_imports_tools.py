"""Rows of the tools that people judge answers with -> samples.

Chatbot Arena, Argilla, Label Studio, Open WebUI. What a tool does not say is not made up: a
thumb is a label and never half of a pair, a rating of one answer says nothing about another, and
battles that were "both bad" are left out.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from assistant.schema import Message
from rlhf._imports_formats import Row
from rlhf._imports_read import LeftOut, Malformed
from rlhf._imports_text import (
    comparison,
    joined,
    messages_of,
    name_of,
    prompt_of,
    split_off,
    text_of,
    time_of,
)
from rlhf.schema import Sample

WINNERS = {"model_a": (1, 2), "model_b": (2, 1), "tie": (1, 1)}
BOTH_BAD = ("tie (bothbad)", "bothbad", "both_bad", "tie_bothbad")
PROMPTS = ("prompt", "instruction", "question", "input")
TIES = ("tie", "equal", "same", "both", "both good", "equally good")
_ANSWER = re.compile(
    r"(?:response|reply|completion|answer|generation|output|text)[-_ ]?([0-9]{1,2}|[a-zA-Z])?\Z",
    re.IGNORECASE,
)
_CORRECTION = re.compile(r"correct|edit|rewrit|improv", re.IGNORECASE)
#: An edit says less than a pick between two answers that were both on offer.
EDIT_WEIGHT = 0.5


def arena(row: Row) -> Iterator[Sample]:
    """A battle of Chatbot Arena (arXiv 2306.05685): two conversations and the winner."""
    winner = row.get("winner")
    if winner in BOTH_BAD:
        raise LeftOut("both answers were bad: no preference", "nothing to do")
    if not isinstance(winner, str) or winner not in WINNERS:
        raise Malformed(f"the winner {winner!r} is none of {', '.join([*WINNERS, BOTH_BAD[0]])}")
    sides = [
        split_off(messages_of(row.get(name), name), name)
        for name in ("conversation_a", "conversation_b")
    ]
    (prompt, one), (other, two) = sides
    if prompt != other:
        raise LeftOut(
            "the conversations part before their last answer: the vote is on all of it",
            "give battles of one turn",
        )
    yield comparison(
        prompt,
        (one, two),
        WINNERS[winner],
        models=(name_of(row.get("model_a")), name_of(row.get("model_b"))),
        id=name_of(row.get("question_id")),
        user=name_of(row.get("judge")),
        created=time_of(row.get("tstamp")),
    )


def argilla(row: Row) -> Iterator[Sample]:
    """A record of Argilla, of 1.x or 2.x: fields, and what each annotator said on each question.

    Read are rankings of answers, a choice of one, and corrections of the only one.
    """
    prompt = prompt_of(next((row[k] for k in PROMPTS if isinstance(row.get(k), str)), None))
    fields = _answers(row)
    yielded, said = 0, 0
    for question, user, value in _responses(row):
        said += 1
        marks: dict[str, Any] = {
            "user": user,
            "id": name_of(row.get("external_id") or row.get("id")),
        }
        correcting = _CORRECTION.search(question) and isinstance(value, str)
        if correcting and len(fields) == 1:
            (original,) = fields.values()
            better = value.strip()
            if better and better != original:
                yielded += 1
                yield comparison(prompt, (better, original), (1, 2), weight=EDIT_WEIGHT, **marks)
                yield Sample("demonstration", prompt, (better,), **marks)
        elif (ranks := _ranks(value, list(fields))) is not None:
            yielded += 1
            yield comparison(prompt, list(fields.values()), ranks, **marks)
    if not yielded:
        raise LeftOut(
            f"{said} submitted responses, none of which ranks, picks or corrects an answer",
            "name the answers response-1, response-2 … and ask for a ranking or a choice",
        )


def _answers(row: Row) -> dict[str, str]:
    """The fields with answers, by name, in their order."""
    found = {
        name: text_of(row, name)
        for name, value in row.items()
        if isinstance(value, str) and value.strip() and _ANSWER.match(name) and name not in PROMPTS
    }
    if not found:
        raise Malformed("no field is named response-1, answer_a or the like")
    return found


def _responses(row: Row) -> Iterator[tuple[str, str, Any]]:
    """Question, annotator and value of each submitted response."""
    for name, value in row.items():
        if name.endswith(".responses") and isinstance(value, list):
            users = row.get(f"{name}.users") or [None] * len(value)
            states = row.get(f"{name}.status") or [None] * len(value)
            answers = list(zip(value, users, states, strict=False))
            question = name.removesuffix(".responses")
        elif isinstance(value, list) and value and all(_is_response(v) for v in value):
            answers = [(v["value"], v.get("user_id"), v.get("status")) for v in value]
            question = name
        elif isinstance(value, dict) and isinstance(value.get("value"), list):  # columns
            size = len(value["value"])
            users, states = (value.get(k) or [None] * size for k in ("user_id", "status"))
            answers = list(zip(value["value"], users, states, strict=False))
            question = name
        else:
            continue
        for said, user, state in answers:
            if said is not None and state in (None, "submitted"):
                yield question, name_of(user), said


def _is_response(value: object) -> bool:
    return isinstance(value, dict) and "value" in value


def _ranks(value: object, names: Sequence[str]) -> tuple[int, ...] | None:
    """The rank of each answer, None where the value is no judgement between them."""
    if isinstance(value, dict) and isinstance(value.get("rank"), list):  # columns of a ranking
        value = [
            {"rank": r, "value": v}
            for r, v in zip(value["rank"], value.get("value") or (), strict=False)
        ]
    places: dict[str, int] = {}
    if isinstance(value, list):
        for place, item in enumerate(value, start=1):
            rank = item.get("rank") if isinstance(item, dict) else place
            name = _named(item.get("value") if isinstance(item, dict) else item, names)
            if name is None or not isinstance(rank, int):
                return None
            places[name] = rank
        return tuple(places[n] for n in names) if len(places) == len(names) > 1 else None
    if len(names) < 2 or isinstance(value, bool) or not isinstance(value, str):
        return None
    if value.strip().lower() in TIES and len(names) == 2:
        return (1, 1)
    best = _named(value, names)
    return None if best is None else tuple(1 if n == best else 2 for n in names)


def _named(value: object, names: Sequence[str]) -> str | None:
    """Find the answer a value names, by its field or by the number or letter at its end."""
    text = str(value).strip().lower()
    for name in names:
        match = _ANSWER.match(name)
        if text == name.lower() or (match and match[1] and text == match[1].lower()):
            return name
    return None


def label_studio(row: Row) -> Iterator[Sample]:
    """A task of Label Studio with pairwise choices: left is the first answer of its data."""
    data = row.get("data")
    if not isinstance(data, dict):
        raise Malformed("there is no 'data'", "export the tasks as JSON, not as JSON-MIN")
    prompt = prompt_of(next((data[k] for k in PROMPTS if data.get(k)), None))
    names = ("left", "right")
    sides = {n: text_of(data, n) for n in names} if names[0] in data else _answers(data)
    if len(sides) != 2:
        raise Malformed(f"'data' holds {len(sides)} answers, a pairwise choice has two")
    yielded = 0
    for annotation in _list(row.get("annotations")):
        if annotation.get("was_cancelled"):
            continue
        for result in _list(annotation.get("result")):
            value = result.get("value")
            chosen = value.get("selected") if isinstance(value, dict) else None
            if result.get("type") != "pairwise" or chosen is None:
                continue
            if chosen not in ("left", "right"):
                raise Malformed(f"the choice {chosen!r} is neither left nor right")
            yielded += 1
            yield comparison(
                prompt,
                list(sides.values()),
                (1, 2) if chosen == "left" else (2, 1),
                id=name_of(row.get("id")),
                user=name_of(annotation.get("completed_by")),
                created=time_of(annotation.get("created_at")),
            )
    if not yielded:
        raise LeftOut("no annotation holds a pairwise choice", "nothing to do")


def _list(value: object) -> list[dict[str, Any]]:
    return [v for v in value if isinstance(v, dict)] if isinstance(value, list) else []


def open_webui(row: Row) -> Iterator[Sample]:
    """A feedback of Open WebUI: a thumb on one message of the chat as it then stood.

    Other models' answers to the same message make no pair: who rated did not compare them.
    """
    data, meta = _object(row, "data"), _object(row, "meta")
    rating = data.get("rating")
    if row.get("type", "rating") != "rating" or rating in (None, 0, "0"):
        raise LeftOut("the feedback rates nothing", "nothing to do")
    if str(rating) not in ("1", "-1"):
        raise Malformed(f"the rating {rating!r} is neither 1 nor -1")
    messages = _snapshot(row)
    name = name_of(meta.get("message_id"))
    if name not in messages:
        raise Malformed(
            f"the chat holds no message {name!r}", "export with the snapshot of the chat"
        )
    prompt, answer = split_off(_branch(messages, name), "snapshot")
    yield Sample(
        "label",
        prompt,
        (answer,),
        label=str(rating) == "1",
        models=(name_of(data.get("model_id")),),
        id=name_of(row.get("id")),
        user=name_of(row.get("user_id")),
        created=time_of(row.get("created_at")),
    )


def _object(row: Row, name: str) -> dict[str, Any]:
    value = row.get(name)
    if not isinstance(value, dict):
        raise Malformed(f"there is no {name!r}", "check that the format is the file's")
    return value


def _snapshot(row: Row) -> Mapping[str, Any]:
    """The messages of the chat by id; versions differ in how deep they lie."""
    held: Any = _object(row, "snapshot")
    for _ in range(3):
        history = held.get("history")
        if isinstance(history, dict) and isinstance(history.get("messages"), dict):
            found: Mapping[str, Any] = history["messages"]
            return found
        held = held.get("chat")
        if not isinstance(held, dict):
            break
    raise Malformed("the snapshot holds no messages", "export with the snapshot of the chat")


def _branch(messages: Mapping[str, Any], name: str) -> tuple[Message, ...]:
    """The conversation that leads to a message, first to last."""
    found: list[Message] = []
    seen: set[str] = set()
    while name and name not in seen:
        seen.add(name)
        message = messages.get(name)
        if not isinstance(message, dict):
            raise Malformed(f"the chat holds no message {name!r}")
        found += messages_of([message], "snapshot")
        name = name_of(message.get("parentId"))
    return joined(found[::-1])
