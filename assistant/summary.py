"""What was said before the turns that stand in the prompt, in a few lines of its own words.

Nothing is written anew: a line is a question as it was asked, and the sentence of its answer that
has most of the question's words. The same turns always make the same summary, and which turns are
summed up changes in steps, so that prompts keep beginning alike (see `assistant.prompt`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from assistant.grounding import marks_removed
from assistant.schema import Turn
from retrieval.text import content_words, sentences

#: Characters of a question and of an answer's sentence in a line, at most.
QUESTION, ANSWER = 120, 240
#: Turns looked at, and sentences of an answer, at most.
TURNS, SENTENCES = 32, 12


def summarise(turns: Sequence[Turn], budget: int, count_tokens: Callable[[str], int]) -> str:
    """One line a turn, oldest first, in at most `budget` tokens; "" where there is nothing to say.

    Newer turns go before older ones, and a further question before a further answer.
    """
    spoken = [t for t in turns[-TURNS:] if t.reply.outcome in ("answered", "abstained")]
    lines: dict[int, str] = {}
    for whole in (False, True):
        for place in range(len(spoken) - 1, -1, -1):
            line = _line(spoken[place], whole)
            cost = count_tokens(line) - count_tokens(lines.get(place, ""))
            if cost > budget:
                break
            budget -= cost
            lines[place] = line
    return "\n".join(lines[place] for place in sorted(lines))


def _line(turn: Turn, whole: bool) -> str:
    question = _short(turn.user_text, QUESTION)
    answer = _best(turn) if whole and turn.reply.outcome == "answered" else ""
    return f"{question} → {answer}" if answer else question


def _best(turn: Turn) -> str:
    """The sentence of the answer that has most of the question's words; the first of several."""
    text = marks_removed(turn.reply.text)
    found = [text[a:b] for a, b in sentences(text)[:SENTENCES]]
    wanted = {word.casefold() for word in content_words(turn.user_text)}
    scores = [sum(word in sentence.casefold() for word in wanted) for sentence in found]
    return _short(found[scores.index(max(scores))], ANSWER) if found else ""


def _short(text: str, limit: int) -> str:
    line = " ".join(text.split())
    return line if len(line) <= limit else line[: limit - 1] + "…"
