"""Prompts that the policy that quotes learns on and is measured on: lessons, and what users asked.

A lesson brings its evidence as the real retrieval found it, with the sentences that answer marked.
A user's prompt is read back from the log as it was rendered: the passages are those that were shown
then, and nobody says whether they answer.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from assistant.phrases import say
from assistant.policy._quoting import Layout, shown
from assistant.policy._ranker import weigh
from assistant.policy._trie import Path as Tokens
from assistant.policy._trie import Paths
from assistant.policy.extract import Fitted, Weights, tongue
from assistant.prompt import ABSTAIN, mark_of, render, unmarked
from assistant.schema import Prompt
from retrieval.schema import Chunk, Passage
from rlhf.fit._drills import plain
from rlhf.fit._lessons import Lesson
from rlhf.schema import Rollout, Sample
from rlhf.scoring import asked

_CITED, _WORD = re.compile(r"[\[【]\d{1,3}[\]】]"), re.compile(r"\w")
_BLOCK = r"^\[(\d{1,3})\] \^%s ?(.*)$"


class Asked(Protocol):
    """A prompt of any policy, as rewards and gates see it; `Task` and `_loop_written.Written`."""

    @property
    def id(self) -> str:
        """Tells it from others, always the same."""

    @property
    def question(self) -> str:
        """Standalone."""

    @property
    def language(self) -> str:
        """Of the question."""

    @property
    def passages(self) -> tuple[Passage, ...]:
        """The evidence."""

    @property
    def answerable(self) -> bool | None:
        """Whether the evidence answers; None where nobody knows."""

    @property
    def user(self) -> str:
        """Pseudonym of who asked, "" of a lesson."""

    def reply(self, path: Sequence[int]) -> str:
        """What an answer says, the word for abstaining where it does."""

    def correct(self, reply: str) -> float | None:
        """1 where a reply holds the answer, or abstains where there is none; None: nobody knows."""

    def prompt(self) -> Prompt:
        """The prompt as any policy takes it."""

    def shown(self, reply: str) -> list[dict[str, Any]]:
        """What a reply rests on: number, title and quote of each place, as the page shows it."""


@dataclass(frozen=True, slots=True, eq=False)
class Task:
    """A prompt as the policy that quotes reads it, and what is known of its answers.

    Attributes:
        id: tells it from others, always the same.
        question: standalone.
        language: of the question.
        ids: of the prompt.
        paths: the answers there are; option n quotes `texts[n]`.
        texts: sentences that can be quoted.
        places: number of each one's passage, from 1.
        passages: the evidence.
        right: options that answer by themselves.
        needed: options that answer together, where none does alone; of a summary or a question of
            two halves, as many of them as are shown.
        answerable: whether the options answer; None where nobody knows.
        user: pseudonym of who asked, "" of a lesson.
        phrases: keys of the phrases that an answer may be, in the order of the tree.
        sure: the linear model's probability that any sentence answers.
    """

    id: str
    question: str
    language: str
    ids: Tokens
    paths: Paths
    texts: tuple[str, ...]
    places: tuple[int, ...]
    passages: tuple[Passage, ...]
    right: frozenset[int] = frozenset()
    needed: frozenset[int] = frozenset()
    answerable: bool | None = None
    user: str = ""
    phrases: tuple[str, ...] = ()
    sure: float = 0.5

    def reply(self, path: Sequence[int]) -> str:
        """What an answer says: quotes with their citations, a phrase, or the word for abstaining.

        Raises:
            ValueError: `path` is no answer.
        """
        found, count = self.paths.chosen(path), len(self.texts)
        if found and found[0] > count:  # abstaining comes before the phrases
            return say(self.phrases[found[0] - count - 1], self.language)
        chosen = [n for n in found if n < count]
        return " ".join(f"{self.texts[n]} [{self.places[n]}]" for n in chosen) or ABSTAIN

    def correct(self, reply: str) -> float | None:
        """1 where a reply holds the answer, or abstains where there is none; None: nobody knows."""
        if self.answerable is None:
            return None
        if ABSTAIN in reply:
            return float(not self.answerable)
        alone = any(self.texts[n] in reply for n in self.right)
        together = bool(self.needed) and all(self.texts[n] in reply for n in self.needed)
        return float(alone or together)

    def prompt(self) -> Prompt:
        """The prompt as any policy takes it."""
        return render(self.question, self.passages, (), self.language, mark=mark_of(self.id))

    def rollout(self, reply: str) -> Rollout | None:
        """A reply as the tokens that say it; None where it is not made of these sentences alone."""
        rest, chosen = reply, []
        for n in sorted(range(len(self.texts)), key=lambda n: -len(self.texts[n])):
            if self.texts[n] and (at := rest.find(self.texts[n])) >= 0:
                chosen.append((reply.find(self.texts[n]), n))
                rest = rest[:at] + rest[at + len(self.texts[n]) :]
        if not chosen or _WORD.search(_CITED.sub("", rest)):
            return None
        path = self.paths.path([n for _, n in sorted(chosen)])
        try:
            allowed = [*self.paths.along(path)][:-1]
        except ValueError:  # two that clash, or too many
            return None
        actions = tuple(len(some) > 1 for some in allowed)
        return Rollout(self.ids, path, actions, tuple(allowed), "stop")

    def shown(self, reply: str) -> list[dict[str, Any]]:
        """The sentences that a reply quotes."""
        return [
            {"number": place, "title": self.passages[place - 1].title, "quote": text}
            for text, place in zip(self.texts, self.places, strict=True)
            if text in reply
        ]


def of_lesson(lesson: Lesson, weights: Weights, layout: Layout) -> Task:
    """A lesson as it is when someone asks."""
    drill = plain(lesson, weights, layout)
    everything = range(len(lesson.texts))
    seen = shown(lesson.evidence(everything), lesson.passages, weights, reads=lesson.read)
    right = frozenset(n for n, i in enumerate(seen.kept) if lesson.right[i])
    needed = frozenset(n for n, i in enumerate(seen.kept) if i in lesson.needed)
    whole = lesson.partial or len(needed) == len(lesson.needed)
    needed = needed if whole and not right else frozenset()
    return Task(
        f"lesson:{lesson.id}:{int(lesson.present)}",
        lesson.question,
        lesson.lang,
        drill.ids,
        drill.paths,
        tuple(lesson.texts[i] for i in seen.kept),
        tuple(lesson.spans[i][0] + 1 for i in seen.kept),
        passages_of(lesson),
        right,
        needed,
        bool(right or needed),
        phrases=layout.phrases,
        sure=seen.sure,
    )


def of_prompt(
    prompt: Prompt, fitted: Fitted, layout: Layout, name: str, user: str = ""
) -> Task | None:
    """A prompt with its passages; None where they hold no sentence."""
    evidence = weigh(prompt, fitted.resources)
    if evidence is None:
        return None
    offer = layout.offer(prompt, evidence, fitted)
    return Task(
        name,
        prompt.question,
        tongue(prompt.question),
        offer.ids,
        offer.paths,
        tuple(c.text for c in offer.candidates),
        tuple(c.passage + 1 for c in offer.candidates),
        prompt.passages,
        user=user,
        phrases=layout.phrases,
        sure=offer.sure,
    )


def of_sample(sample: Sample, fitted: Fitted, layout: Layout) -> Task | None:
    """A user's prompt; None where no passage was shown with it."""
    prompt = read_back(sample)
    if prompt is None:
        return None
    return of_prompt(prompt, fitted, layout, f"turn:{sample.turn}", sample.user)


def read_back(sample: Sample) -> Prompt | None:
    """Question and passages of a logged prompt, as `assistant.prompt` rendered them."""
    if not sample.prompt or not sample.turn:
        return None
    mark, last = mark_of(sample.turn), sample.prompt[-1].text
    question = asked(sample.prompt)
    body = last[: len(last) - len(question)] if question and last.endswith(question) else last
    heads = [*re.finditer(_BLOCK % re.escape(mark), body, re.MULTILINE)]
    ends = [*(head.start() for head in heads[1:]), body.rfind("\n\n")][: len(heads)]
    passages = []
    for number, (head, end) in enumerate(zip(heads, ends, strict=True), start=1):
        title, *headings = head[2].split(" › ")
        text = unmarked(body[head.end() + 1 : end], mark).strip()
        if text and question:
            passages.append(_passage(text, number, title, tuple(headings)))
    return Prompt((), question, tuple(passages), sample.language) if passages else None


def digest(names: Iterable[str]) -> str:
    """SHA-256 (hex) of names, whatever their order."""
    return hashlib.sha256(json.dumps(sorted(names)).encode()).hexdigest()


def passages_of(lesson: Lesson) -> tuple[Passage, ...]:
    """Each passage with its sentences where they stood and blanks between them."""
    found = []
    for number, title in enumerate(lesson.passages):
        here = [i for i, span in enumerate(lesson.spans) if span[0] == number]
        text = [" "] * max((lesson.spans[i][2] for i in here), default=0)
        for i in here:
            start = lesson.spans[i][1]
            text[start : start + len(lesson.texts[i])] = lesson.texts[i]
        found.append(_passage("".join(text), number + 1, title, ()))
    return tuple(found)


def _passage(text: str, number: int, title: str, headings: tuple[str, ...]) -> Passage:
    chunk = Chunk(number, number, text, 0, len(text), headings, number)
    return Passage(chunk, f"passage {number}", title, "", "", 0.0, 0.0, 1 / number, ())
