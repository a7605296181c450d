"""Samples -> lines of each export format. Every line says where its row is from."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Any

from assistant.schema import Message
from rlhf.samples import decided
from rlhf.schema import Sample

Line = dict[str, Any]

_SPEAKERS = {"user": "Human", "assistant": "Assistant"}
#: A turn that a text pretends to begin; it loses its empty line, and begins none.
_TURN = re.compile(r"(?<!\n)\n+[ \t]*(?=(?:Human|Assistant):)")
#: At the very beginning no empty line is needed.
_FIRST = re.compile(r"\A(?=(?:Human|Assistant):)")


def preference(sample: Sample, plain: bool) -> Iterator[Line]:
    """One line for each pair that decides something, together of the sample's weight."""
    pairs = decided(sample)
    for better, worse in pairs:
        yield {
            "prompt": _prompt(sample, plain),
            "chosen": _answer(sample.completions[better], plain),
            "rejected": _answer(sample.completions[worse], plain),
            "weight": sample.weight / len(pairs),
            **_origin(sample),
        }


def unpaired(sample: Sample, plain: bool) -> Iterator[Line]:
    """A completion and whether it was liked."""
    yield {
        "prompt": _prompt(sample, plain),
        "completion": _answer(sample.completions[0], plain),
        "label": sample.label,
        **_origin(sample),
    }


def completion(sample: Sample, plain: bool) -> Iterator[Line]:
    """A completion to imitate."""
    yield {
        "prompt": _prompt(sample, plain),
        "completion": _answer(sample.completions[0], plain),
        **_origin(sample),
    }


def prompt(sample: Sample, plain: bool) -> Iterator[Line]:
    """A prompt alone."""
    yield {"prompt": _prompt(sample, plain), **_origin(sample)}


def ranking(sample: Sample, plain: bool) -> Iterator[Line]:
    """K answers with their ranks, 0 the best."""
    places = {rank: place for place, rank in enumerate(sorted(set(sample.ranks)))}
    models = sample.models or ("",) * len(sample.completions)
    yield {
        "context": _messages(sample.prompt),
        "completions": [
            {"rank": places[rank], "completion": _answer(text, False), "model": model}
            for text, rank, model in zip(sample.completions, sample.ranks, models, strict=True)
        ],
        "task_name": sample.dataset or "plumbline",
        **_origin(sample),
    }


def hh(sample: Sample, plain: bool) -> Iterator[Line]:
    """Two whole transcripts."""
    for better, worse in decided(sample):
        asked = transcript(sample.prompt)
        yield {
            "chosen": f"{asked} {_tame(sample.completions[better])}",
            "rejected": f"{asked} {_tame(sample.completions[worse])}",
            **_origin(sample),
        }


def arena(sample: Sample, plain: bool) -> Iterator[Line]:
    """A battle for each pair of answers, a tie where both were as good; no battle is an edit."""
    if sample.source == "edit":
        return
    models = sample.models or ("",) * len(sample.completions)
    for a, b in _battles(sample):
        ranks = (sample.ranks[a], sample.ranks[b])
        winner = "tie" if ranks[0] == ranks[1] else "model_a" if ranks[0] < ranks[1] else "model_b"
        yield {
            "question_id": sample.id,
            "model_a": models[a],
            "model_b": models[b],
            "winner": winner,
            "judge": sample.user,
            "conversation_a": _whole(sample, a),
            "conversation_b": _whole(sample, b),
            "turn": sum(m.role == "user" for m in sample.prompt),
            "anony": True,
            "language": {"en": "English", "zh": "Chinese"}.get(sample.language, sample.language),
            "tstamp": sample.created,
            **_origin(sample),
        }


def argilla(sample: Sample, plain: bool) -> Iterator[Line]:
    """A record with the field of each answer and one submitted ranking."""
    if sample.source == "edit":
        return
    names = [f"response-{n}" for n in range(1, len(sample.completions) + 1)]
    order = sorted(zip(sample.ranks, names, strict=True))
    yield {
        "prompt": _question(sample.prompt),
        **dict(zip(names, sample.completions, strict=True)),
        "ranking": [
            {
                "user_id": sample.user,
                "value": [{"rank": rank, "value": name} for rank, name in order],
                "status": "submitted",
            }
        ],
        "external_id": sample.id,
        "metadata": _origin(sample),
    }


def label_studio(sample: Sample, plain: bool) -> Iterator[Line]:
    """A task for each pair that decides something, the answers in the order shown."""
    if sample.source == "edit":
        return
    for number, (better, worse) in enumerate(decided(sample)):
        left, right = sorted((better, worse))
        chosen = {
            "type": "pairwise",
            "from_name": "pairwise",
            "to_name": "answer1,answer2",
            "value": {"selected": "left" if better == left else "right"},
        }
        yield {
            "id": f"{sample.id}-{number}" if number else sample.id,
            "data": {
                "prompt": _question(sample.prompt),
                "answer1": sample.completions[left],
                "answer2": sample.completions[right],
            },
            "annotations": [
                {
                    "result": [chosen],
                    "completed_by": sample.user,
                    "created_at": datetime.fromtimestamp(sample.created, UTC).isoformat(),
                    "was_cancelled": False,
                }
            ],
            "meta": _origin(sample),
        }


def open_webui(sample: Sample, plain: bool) -> Iterator[Line]:
    """A feedback with the chat that it was given on."""
    said = [*sample.prompt, Message("assistant", sample.completions[0])]
    names = [f"{sample.id}-{n}" for n in range(len(said))]
    model = sample.models[0] if sample.models else ""
    messages = {
        name: {
            "id": name,
            "parentId": names[n - 1] if n else None,
            "childrenIds": names[n + 1 : n + 2],
            "role": message.role,
            "content": message.text,
        }
        for n, (name, message) in enumerate(zip(names, said, strict=True))
    }
    yield {
        "id": sample.id,
        "user_id": sample.user,
        "version": 0,
        "type": "rating",
        "data": {
            "rating": 1 if sample.label else -1,
            "model_id": model,
            "reason": "",
            "comment": "",
        },
        "meta": {"arena": False, "message_id": names[-1], "tags": [], **_origin(sample)},
        "snapshot": {"chat": {"chat": {"history": {"messages": messages, "currentId": names[-1]}}}},
        "created_at": int(sample.created),
        "updated_at": int(sample.created),
    }


def transcript(messages: Sequence[Message]) -> str:
    """Messages as HH-RLHF writes them, up to where the answer begins; the system's stand first.

    What a text says cannot begin a turn.
    """
    parts = [
        _FIRST.sub("> ", _tame(m.text))
        if m.role == "system"
        else f"\n\n{_SPEAKERS[m.role]}: {_tame(m.text)}"
        for m in messages
    ]
    return "".join([*parts, "\n\nAssistant:"])


def _tame(text: str) -> str:
    return _TURN.sub("\n", text.strip())


def _battles(sample: Sample) -> list[tuple[int, int]]:
    """The pairs of which something was said: of a pick, the picked beside each other one."""
    best = min(sample.ranks)
    places = range(len(sample.ranks))
    tied = len(set(sample.ranks)) == 1
    every = [(a, b) for a in places for b in places if a < b]
    if sample.source != "pick" or tied:
        return every
    return [(a, b) for a, b in every if best in (sample.ranks[a], sample.ranks[b])]


def _whole(sample: Sample, place: int) -> list[Line]:
    return [
        *_messages(sample.prompt),
        *_messages([Message("assistant", sample.completions[place])]),
    ]


def _question(messages: Sequence[Message]) -> str:
    """A prompt as one text: the question alone where there is nothing else."""
    if [m.role for m in messages] == ["user"]:
        return _FIRST.sub("> ", _tame(messages[0].text))
    return transcript(messages)


def _prompt(sample: Sample, plain: bool) -> Any:
    return transcript(sample.prompt) if plain else _messages(sample.prompt)


def _answer(text: str, plain: bool) -> Any:
    return f" {_tame(text)}" if plain else _messages([Message("assistant", text)])


def _messages(prompt: Sequence[Message]) -> list[dict[str, str]]:
    return [{"role": m.role, "content": m.text} for m in prompt]


def _origin(sample: Sample) -> Line:
    own = {"source": sample.source, "id": sample.id, "split": sample.split}
    if not sample.dataset:
        return own
    return {**own, "dataset": sample.dataset, "licence": sample.licence}
