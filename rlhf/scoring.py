"""The reward model at work: pairs of a question and a reply in, scores out.

All that the model ever reads, in training and afterwards, is rendered by `render`, and nowhere
else: `question >>> reply`, on one line, without citation marks (whether an answer cites, and
rightly, is judged by other terms of the reward, and the number of a passage says nothing).

The network reads 128 tokens. Of a longer text the beginning and the end are kept: a short question
stays whole, a long one is cut to 48 tokens where the reply needs the room, and the rest is the
reply's, three fifths of it for its beginning. A reply that ends badly is thus seen as well as one
that begins badly. Between them stands how much is left out: one `…` for up to 64 tokens, and one
more for each doubling, five at most; people do judge by length, so what judges like them must know
it. The tokenizer's own truncation never has anything to cut.

How much length counts depends on what was asked (a chat wants more where a quote should be short),
so the head has two columns: a score, and how much it rises with the logarithm of the reply's length
(`size`). A file with the first column alone scores without the second. A model that was fitted to
one's own comparisons weighs the reply's letters as well (`WORDS`, see `rlhf._surface`).
"""

from __future__ import annotations

import functools
import hashlib
import json
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file
from tokenizers import Encoding, Tokenizer

from assistant.prompt import EVIDENCE
from assistant.schema import Message
from retrieval.embed import _weights
from retrieval.embed.heads import MAX_TOKENS
from retrieval.embed.heads import load as load_heads
from rlhf._surface import surface
from rlhf.errors import RewardError

#: Where the shipped reward model lies, and its files.
MODEL = Path(__file__).resolve().parents[1] / "models" / "reward"
WEIGHTS, SCALE = "heads.safetensors", "calibration.json"
#: The weights of a reply's letters in the file, (FEATURES,); they add to the first column.
WORDS = "words"
JOINT, LEFT_OUT = " >>> ", "…"
#: Tokens that one such mark stands for; each further one stands for twice as many. Most marks.
LEAST, MARKS = 64, 5
#: Tokens that a long question keeps, and the share of a long text's room for its beginning.
QUESTION, BEGINNING = 48, 0.6
#: Characters of either end of a text that are looked at: far more than 128 tokens.
_ENDS = 3000
#: Tokens that are neither the question's nor the reply's: the first, the last and the joint.
_FRAME = 5
_CITED = re.compile(r"\s*[\[【]\d{1,3}(?:\s*[,，、]\s*\d{1,3})*[\]】]")
_JOINTS = re.compile(r"(?:>\s*){3,}")

Array = NDArray[np.float32]
Pair = tuple[str, str]


def render(question: str, reply: str) -> str:
    """What the network reads of a reply to a question: at most 128 tokens, both ends of each."""
    asked, said = plain(question), plain(reply)
    made = _tokenizer()
    left, right = (made.encode(text, add_special_tokens=False) for text in (asked, said))
    room = MAX_TOKENS - _FRAME
    while True:
        first = min(len(left), max(QUESTION, room - len(right)))
        text = _ends(asked, left, first) + JOINT + _ends(said, right, room - first)
        # what is cut may be spelt with other tokens than it had in the whole
        over = len(made.encode(text)) - MAX_TOKENS
        if over <= 0:
            return text
        room -= over


def plain(text: str) -> str:
    """A text as it is rendered: one line, no citation marks, and no joint of its own."""
    if len(text) > 2 * _ENDS:
        text = f"{text[:_ENDS]} {text[-_ENDS:]}"
    text = text.encode("utf-8", "replace").decode("utf-8")
    return " ".join(_JOINTS.sub(">> ", _CITED.sub("", text)).split())


def asked(messages: Sequence[Message]) -> str:
    """The question of a rendered prompt, as `assistant.prompt` puts it last; "" of no messages.

    Every line of the evidence begins with a mark, so no document can pass for the question.
    """
    if not messages:
        return ""
    text = messages[-1].text
    for _, _, ask, _ in EVIDENCE.values():
        _, found, question = text.partition(f"\n\n{ask} ")
        if found:
            return question
    return text


@dataclass(frozen=True, slots=True)
class Scale:
    """What makes a logit a score: `gain * logit + bias`."""

    gain: float = 1.0
    bias: float = 0.0

    def __call__(self, logits: Array) -> Array:
        """Scores, of the logits' shape."""
        return (logits.astype(np.float64) * self.gain + self.bias).astype(np.float32)


def fitted(logits: Array) -> Scale:
    """The scale on which these logits have mean 0 and standard deviation 1 (Ziegler et al. 2019).

    Raises:
        RewardError: there are fewer than two, they are all alike, or one is not finite.
    """
    found = logits.astype(np.float64)
    deviation = float(found.std()) if len(found) > 1 else 0.0
    if not np.isfinite(deviation) or deviation < 1e-9:
        raise RewardError(
            f"{len(found)} reference samples have a standard deviation of {deviation}: the reward "
            "model tells nothing apart; train it on more comparisons"
        )
    return Scale(1 / deviation, -float(found.mean()) / deviation)


def size(reply: str) -> float:
    """How long a reply is: the logarithm of its tokens, 0 at about 50 of them."""
    return math.log1p(len(_tokenizer().encode(plain(reply), add_special_tokens=False))) - 4.0


def joined(columns: Any, sizes: Any) -> Any:
    """Logits (n,) of a head's columns (n, 1 or 2) and the replies' sizes (n,), numpy or torch."""
    return columns[:, 0] if columns.shape[1] == 1 else columns[:, 0] + columns[:, 1] * sizes


class RewardModel:
    """Scores of replies. Safe for several threads.

    Args:
        logits: texts as `render` makes them in, columns (n, 1 or 2) out, as `joined` takes them.
        scale: of the scores.
        name: `id`, for the log.
    """

    def __init__(
        self, logits: Callable[[Sequence[str]], Array], scale: Scale, name: str = "reward"
    ) -> None:
        self.id, self.scale, self._logits = name, scale, logits

    def __call__(self, pairs: Sequence[Pair]) -> Array:
        """Score (question, reply) pairs.

        Returns:
            (n,) float32: over replies of the reference policy mean 0 and standard deviation 1.
        """
        return self.scale(self.logits(pairs))

    def logits(self, pairs: Sequence[Pair]) -> Array:
        """(n,) float32, before the scale; equal renderings are read once."""
        texts = [render(*pair) for pair in pairs]
        place = {text: at for at, text in enumerate(dict.fromkeys(texts))}
        if not place:
            return np.zeros(0, dtype=np.float32)
        columns = np.asarray(self._logits(list(place)), dtype=np.float32).reshape(len(place), -1)
        each = columns[[place[text] for text in texts]]
        sizes = np.array([size(reply) for _, reply in pairs], dtype=np.float32)
        found: Array = joined(each, sizes)
        return found

    def chance(self, left: Array, right: Array) -> Array:
        """Probability that people prefer what scored `left` to what scored `right`, each (n,)."""
        gap = (left.astype(np.float64) - right) / self.scale.gain
        return (1 / (1 + np.exp(-np.clip(gap, -60, 60)))).astype(np.float32)

    def normalised(self, samples: Sequence[Pair]) -> RewardModel:
        """The same model on the scale of another reference policy's samples.

        Raises:
            RewardError: too few samples, or all alike.
        """
        return RewardModel(self._logits, fitted(self.logits(samples)), self.id)


def load(
    folder: Path = MODEL,
    *,
    runtime: str = "auto",
    device: str = "cpu",
    dtype: str = "auto",
    size: int = 32,
) -> RewardModel:
    """Load a trained reward model; see `retrieval.embed.heads.load` for what is the network's.

    Raises:
        RewardError: there is none in `folder`, or its two files are of different runs.
        ModelUntrusted: it was made for another encoder.
    """
    weights, scale = folder / WEIGHTS, folder / SCALE
    if not weights.exists() or not scale.exists():
        raise RewardError(
            f"no reward model in {folder}; make one with `python app.py train reward --data FOLDER`"
        )
    told = json.loads(scale.read_text(encoding="utf-8"))
    digest = hashlib.sha256(weights.read_bytes()).hexdigest()
    if told.get("sha256") != digest:
        raise RewardError(
            f"{scale} is not of the weights beside it ({digest[:12]}); take both from one run"
        )
    own = Scale(float(told["gain"]), float(told["bias"]))
    logits = unscaled(weights, runtime=runtime, device=device, dtype=dtype, size=size)
    return RewardModel(logits, own, f"reward@{digest[:12]}")


def letters(texts: Sequence[str]) -> NDArray[np.float64]:
    """What `surface` makes of the replies in texts as `render` makes them, (n, FEATURES)."""
    return surface([text.partition(JOINT)[2] for text in texts])


def unscaled(weights: Path, **how: Any) -> Callable[[Sequence[str]], Array]:
    """What a file of weights makes of rendered texts, (n, columns); `how` as `load` takes it."""
    heads, words = load_heads(weights, **how), load_file(weights).get(WORDS)
    if words is None:
        return heads
    weighed = words.astype(np.float64)

    def logits(texts: Sequence[str]) -> Array:
        found = np.array(heads(texts), dtype=np.float32)
        found[:, 0] += letters(texts) @ weighed
        return found

    return logits


@functools.cache
def _tokenizer() -> Tokenizer:
    found = _weights.extension()
    return _weights.tokenizer(found.spellings if found is not None else None)


def _ends(text: str, found: Encoding, room: int) -> str:
    """The beginning and the end of a text, in `room` tokens; cut between words where it can be."""
    if len(found) <= room:
        return text
    marks = min(MARKS, max(1, math.ceil(math.log2((len(found) - room) / LEAST)) + 1))
    head = _back(found, round((room - marks) * BEGINNING))
    tail = _on(found, len(found) - max(room - marks - head, 0))
    before = text[: found.offsets[head - 1][1]] if head else ""
    after = text[found.offsets[tail][0] :] if tail < len(found) else ""
    return f"{before} {' '.join(LEFT_OUT * marks)} {after}".strip()


def _back(found: Encoding, at: int) -> int:
    """The nearest token from `at` on backwards that begins a word, or `at`."""
    words, start = found.word_ids, at
    while at > 0 and words[at] == words[at - 1]:
        at -= 1
    return at if at > 0 else max(start, 0)


def _on(found: Encoding, at: int) -> int:
    """The nearest token from `at` on forwards that begins a word, or `at`."""
    words, start = found.word_ids, at
    while 0 < at < len(words) and words[at] == words[at - 1]:
        at += 1
    return at if at < len(words) else start
