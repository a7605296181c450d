"""Prompts for a policy that writes: the messages that any causal model is asked by.

A lesson brings the passages that the real retrieval found; a user's prompt is what was sent then,
as the log has it. An answer is right where it holds one of the answers that are known, or abstains
where there is none.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from assistant.policy._chat import encode
from assistant.policy._stream import Cleaner, unclosed
from assistant.policy.extract import tongue
from assistant.prompt import ABSTAIN, mark_of, render
from assistant.schema import Message, Prompt
from retrieval.schema import Passage
from rlhf._loop_tasks import passages_of, read_back
from rlhf.fit._lessons import Lesson
from rlhf.schema import Rollout, Sample

#: Characters of a passage that are shown beside an answer that cites it.
QUOTED = 240


@dataclass(frozen=True, slots=True)
class Speech:
    """How a model is asked.

    Attributes:
        tokenizer: its own.
        stops: tokens that end an answer.
        endings: texts that end one, where the tokenizer has no chat template.
        most: tokens of an answer at the most.
        context: tokens of prompt and answer together.
    """

    tokenizer: Any
    stops: frozenset[int]
    endings: tuple[str, ...]
    most: int
    context: int

    def count(self, text: str) -> int:
        """Tokens of a text."""
        return len(self.tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])

    def said(self, path: Sequence[int], opened: str = "") -> str:
        """What an answer's tokens say, as it would be shown; `opened` as `unclosed` has it."""
        cleaner = Cleaner(self.endings, opened)
        plain = self.tokenizer.decode(
            list(path), skip_special_tokens=True, clean_up_tokenization_spaces=False
        )
        return (cleaner.feed(str(plain)) + cleaner.finish()).strip()


@dataclass(frozen=True, slots=True, eq=False)
class Written:
    """A prompt as a model reads it, and what is known of its answers; see `_loop_tasks.Asked`.

    Attributes:
        id: tells it from others, always the same.
        question: standalone.
        language: of the question.
        ids: of the prompt.
        messages: that they were made of.
        passages: the evidence.
        speech: how the model is asked.
        answers: each of which is right.
        answerable: whether the passages answer; None where nobody knows.
        user: pseudonym of who asked, "" of a lesson.
    """

    id: str
    question: str
    language: str
    ids: tuple[int, ...]
    messages: tuple[Message, ...]
    passages: tuple[Passage, ...]
    speech: Speech
    answers: tuple[str, ...] = ()
    answerable: bool | None = None
    user: str = ""

    def allowed(self, path: Sequence[int]) -> tuple[int, ...] | None:
        """Any token, until a stop or the longest answer."""
        return () if len(path) >= self.speech.most or self.ended(path) else None

    def ended(self, path: Sequence[int]) -> bool:
        """Whether the answer came to a stop."""
        return bool(path) and path[-1] in self.speech.stops

    def reply(self, path: Sequence[int]) -> str:
        """What an answer says."""
        return self.speech.said(path, unclosed(self.speech.tokenizer.decode(list(self.ids[-8:]))))

    def correct(self, reply: str) -> float | None:
        """1 where a reply holds an answer, or abstains where there is none; None: nobody knows."""
        if self.answerable is None:
            return None
        if ABSTAIN in reply or not self.answerable:
            return float(ABSTAIN in reply and not self.answerable)
        return float(holds(reply, self.answers))

    def prompt(self) -> Prompt:
        """The prompt as any policy takes it."""
        return Prompt(self.messages, self.question, self.passages, self.language)

    def rollout(self, reply: str) -> Rollout | None:
        """A reply as the tokens that say it; None where it is longer than answers are."""
        made = self.speech.tokenizer(reply, add_special_tokens=False, verbose=False)["input_ids"]
        ids = (*made, *sorted(self.speech.stops)[:1])
        if not made or len(ids) > self.speech.most:
            return None
        return Rollout(self.ids, ids, (True,) * len(ids), None, "stop")

    def shown(self, reply: str) -> list[dict[str, Any]]:
        """The passages that a reply cites, as the page shows them."""
        return [
            {"number": n, "title": p.title, "quote": p.chunk.text[:QUOTED]}
            for n, p in enumerate(self.passages, start=1)
            if f"[{n}]" in reply
        ]


def of_lesson(lesson: Lesson, speech: Speech) -> Written | None:
    """A lesson as it is when someone asks; None where its answer does not fit the context."""
    found = passages_of(lesson)
    name = f"lesson:{lesson.id}:{int(lesson.present)}"
    made = render(
        lesson.question, found, (), lesson.lang,
        mark=mark_of(name), budget=speech.context - speech.most, count_tokens=speech.count,
    )  # fmt: skip
    there = any(lesson.right) or bool(lesson.needed)
    if there and not any(holds(p.chunk.text, lesson.answers) for p in made.passages):
        return None
    ids = tuple(encode(speech.tokenizer, made.messages))
    if len(ids) + speech.most > speech.context:
        return None
    return Written(
        name, lesson.question, lesson.lang, ids, made.messages, made.passages, speech,
        lesson.answers, there,
    )  # fmt: skip


def of_sample(sample: Sample, speech: Speech) -> Written | None:
    """A user's prompt; None where no passage was shown with it, or it does not fit the context."""
    shown = read_back(sample)
    if shown is None:
        return None
    ids = tuple(encode(speech.tokenizer, sample.prompt))
    if len(ids) + speech.most > speech.context:
        return None
    return Written(
        f"turn:{sample.turn}", shown.question, tongue(shown.question), ids, sample.prompt,
        shown.passages, speech, user=sample.user,
    )  # fmt: skip


def holds(text: str, answers: Sequence[str]) -> bool:
    """Whether a text says one of the answers, case and blanks aside."""
    plain = " ".join(text.casefold().split())
    return any((one := " ".join(answer.casefold().split())) and one in plain for answer in answers)
