"""A small GPT that quotes: it chooses which sentences answer, in what order, and when none does.

The evidence is laid out by `_quoting`; an answer is a path through the tree of what can be quoted
(`_trie`), so nothing but sentences of the evidence can come out, whatever the weights are. The
probability that the network gives to quoting at all, calibrated on training questions
(calibration.json beside the weights), is the reply's confidence; below the language's threshold
the policy abstains. `policy.model` names another folder than the one that is shipped.

A network that learnt the phrase book (calibration.json says which phrases) may answer a greeting,
or a message that nothing can be searched for, with one of its phrases; the last delta names it.
"""

from __future__ import annotations

import json
import logging
import math
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors import SafetensorError
from tokenizers import Tokenizer
from transformers import LlamaForCausalLM
from transformers.utils import logging as of_transformers

from assistant.config import PolicySettings
from assistant.errors import ConfigError, ModelNotFound, PolicyError, PolicyUnavailable
from assistant.phrases import PHRASES
from assistant.policy._checkpoint import check, find, revision, tokenizing
from assistant.policy._decode import Answer, Reader, beam, sample
from assistant.policy._quoting import Layout, Offer, logit, quoted
from assistant.policy._ranker import weigh
from assistant.policy._signs import SPELLINGS
from assistant.policy._trie import Paths
from assistant.policy.base import Resources
from assistant.policy.extract import Fitted, fitted, inside, tongue
from assistant.policy.local import AUTO, DTYPES
from assistant.schema import Delta, PolicyCard, Prompt, Sampling

logger = logging.getLogger(__name__)

MODEL = Path(__file__).resolve().parents[2] / "models" / "policy"
CALIBRATION = "calibration.json"


@dataclass(frozen=True, slots=True)
class Calibration:
    """Of one language: sigmoid(scale * logit(1 - p(abstain)) + ranked * logit(sure) + offset).

    `sure` is the linear model's probability that a sentence answers (`_quoting.Shown`): two that
    err on other questions are better calibrated together (stacking: Wolpert 1992). A further
    sentence is said where it is more probable than `more` that one is needed.
    """

    scale: float = 1.0
    offset: float = 0.0
    threshold: float = 0.5
    ranked: float = 0.0
    more: float = 0.5

    def knowing(self, sure: float) -> Calibration:
        """The same for evidence of which the linear model makes `sure`."""
        return replace(self, offset=self.offset + self.ranked * logit(sure), ranked=0.0)

    def confidence(self, abstains: float) -> float:
        """Probability in [0, 1] that the evidence answers, once `sure` is known."""
        value = self.scale * logit(1 - abstains) + self.offset
        return 1 / (1 + math.exp(-min(max(value, -50.0), 50.0)))


class Quote:
    """The policy; see the module's text. One answer is made at a time.

    Args:
        model: the network, on its device, in evaluation mode.
        layout: of prompts, with the network's tokenizer.
        fitted: the linear ranker that chooses what the network sees.
        calibration: of each language.
        minimum: confidence below which it abstains; negative takes the calibrated threshold.
        card: who this is.
        beams: answers kept side by side where nothing is drawn; 1 is greedy.
    """

    writes = False

    def __init__(
        self,
        model: Any,
        layout: Layout,
        fitted: Fitted,
        calibration: dict[str, Calibration],
        minimum: float,
        card: PolicyCard,
        beams: int = 1,
    ) -> None:
        self.card = card
        self._beams = beams
        self._model, self._layout, self._fitted = model, layout, fitted
        self._calibration, self._minimum = calibration, minimum
        self._lock = threading.Lock()

    def stream(self, prompt: Prompt, sampling: Sampling) -> Iterator[Delta]:
        """One delta a quote; `sampling.variant` n gives the n-th answer that repeats no sentence.

        Raises:
            PolicyUnavailable: another answer was being made all the time, or it was closed.
            PolicyError: the network failed.
        """
        if not self._lock.acquire(timeout=min(sampling.seconds, threading.TIMEOUT_MAX)):
            raise PolicyUnavailable(
                f"the policy was busy for {sampling.seconds:g} s; try again, or raise "
                "policy.seconds"
            )
        try:
            found = self._answers(prompt, sampling)
        finally:
            self._lock.release()
        yield from found

    def count_tokens(self, text: str) -> int:
        """Exactly, with its own tokenizer."""
        return self._layout.count(text)

    def close(self) -> None:
        """Let go of the weights."""
        self._model = None

    def _answers(self, prompt: Prompt, sampling: Sampling) -> list[Delta]:
        evidence = weigh(prompt, self._fitted.resources)
        if evidence is None:
            return [Delta("", finish="abstain", confidence=0.0)]
        barred: list[tuple[int, int, int]] = []
        sure = 0.0
        for number in range(sampling.variant + 1):
            offer = self._layout.offer(prompt, evidence, self._fitted, barred)
            if not offer.candidates:
                break
            last = number == sampling.variant
            found, confidence = self._decide(prompt, offer, sampling if last else Sampling())
            sure = sure or confidence
            spans = quoted(prompt, offer, found.path)
            said = self._layout.said(found.path)
            if said and not number:
                ids, logprobs = found.path, found.logprobs
                end = Delta("", finish="stop", phrase=said, token_ids=ids, logprobs=logprobs)
                if last:
                    return [end]
                break
            if last or not spans:
                return _deltas(prompt, offer, found, spans, sure)
            barred += spans
        return [Delta("", finish="abstain", confidence=sure)]

    def _decide(self, prompt: Prompt, offer: Offer, sampling: Sampling) -> tuple[Answer, float]:
        """An answer and the confidence that there is one."""
        if self._model is None:
            raise PolicyUnavailable("the policy was closed; build it anew")
        fit, minimum = calibrated_for(self._calibration, prompt.question, offer.sure, self._minimum)
        reader = Reader(self._model, offer.ids)
        try:
            return decide(reader, offer.paths, self._layout, fit, minimum, self._beams, sampling)
        except FloatingPointError as error:
            raise PolicyError(
                f"the network gave NaN in {self.card.dtype}; set policy.dtype = float32"
            ) from error
        except (RuntimeError, IndexError) as error:
            raise PolicyError(f"the network failed: {error}") from error


def calibrated_for(
    calibration: Mapping[str, Calibration], question: str, sure: float, minimum: float
) -> tuple[Calibration, float]:
    """The calibration of a question's language, and the confidence below which nothing is quoted.

    Args:
        calibration: of each language.
        question: standalone.
        sure: what the linear model makes of its evidence.
        minimum: negative for the language's own threshold.
    """
    fit = calibration.get(tongue(question), Calibration()).knowing(sure)
    return fit, minimum if minimum >= 0 else fit.threshold


def decide(
    reader: Reader,
    paths: Paths,
    layout: Layout,
    fit: Calibration,
    minimum: float,
    beams: int,
    sampling: Sampling,
) -> tuple[Answer, float]:
    """An answer, and the confidence in [0, 1] that the evidence holds one.

    What is served, and what the gates measure, is decided here.

    Args:
        reader: of the prompt.
        paths: the answers there are.
        layout: of the prompt.
        fit: calibration of the prompt's language, which knows what the linear model makes of it.
        minimum: confidence below which nothing is quoted.
        beams: answers kept side by side where nothing is drawn; 1 is greedy.
        sampling: how to draw, if at all.

    Raises:
        FloatingPointError: the network's first logits are not finite.
    """
    first = reader.after(())
    if not torch.isfinite(first).all():
        raise FloatingPointError("the first logits are not finite")
    three = first[[layout.cite, layout.abstain, layout.book]]
    confidence = fit.confidence(float(torch.softmax(three[:2], 0)[1]))
    logits, drawn = three.tolist(), sampling.temperature > 0
    if layout.book not in paths.allowed(()):  # the tree of a layout without the phrase book
        logits[2] = -math.inf
    begun = layout.opening(logits, abstains=confidence < minimum, drawn=drawn)
    if beams > 1 and not drawn:
        return beam(reader, paths, beams, begun), confidence
    drawing = sampling.temperature, sampling.top_p, sampling.seed
    return sample(reader, paths, *drawing, begun, fit.more), confidence


def _deltas(
    prompt: Prompt,
    offer: Offer,
    found: Answer,
    spans: Sequence[tuple[int, int, int]],
    sure: float,
) -> list[Delta]:
    """One delta a quote; the tokens of all deltas are the answer's, in their order.

    A sentence that was chosen later than others and joins an earlier quote leaves its tokens with
    the quotes after it.
    """
    cuts = [0] * len(spans)
    at = 0
    for number, _, end in offer.paths.pieces(found.path) if spans else ():
        held = offer.candidates[number]
        at = max(at, next(n for n, span in enumerate(spans) if inside(held, span)))
        cuts[at] = end
    deltas, start = [], 0
    for span, cut in zip(spans, cuts, strict=True):
        tokens = slice(start, max(start, cut))
        text = prompt.passages[span[0] - 1].chunk.text[span[1] : span[2]]
        ids, logprobs = found.path[tokens], found.logprobs[tokens]
        deltas.append(Delta(text, quote=span, token_ids=ids, logprobs=logprobs))
        start = tokens.stop
    last = Delta(
        "",
        finish="stop" if spans else "abstain",
        confidence=sure,
        token_ids=found.path[start:],
        logprobs=found.logprobs[start:],
    )
    return [*deltas, last]


def build(options: PolicySettings, resources: Resources) -> Quote:
    """Load network, tokenizer, linear ranker and calibration.

    Raises:
        ConfigError: device or dtype do not exist here.
        ModelNotFound: a file is missing, damaged, pickled, or of another model.
    """
    if options.dtype not in (AUTO, *DTYPES):
        raise ConfigError(f"no dtype {options.dtype!r}; there are: {AUTO}, {', '.join(DTYPES)}")
    dtype = options.dtype
    if dtype == AUTO:  # a network this small gains nothing from less on a processor
        dtype = "bfloat16" if options.device.startswith("cuda") else "float32"
    folder = find(options.model) if options.model else MODEL
    check(folder, "model")
    made = _tokenizer(folder)
    model = _network(folder, made, dtype, options.device)
    card = PolicyCard(
        name="quote",
        model=folder.name,
        revision=revision(folder),
        engine=f"transformers {transformers.__version__}",
        dtype=dtype,
        tokenizer=tokenizing(folder),
    )
    logger.info("model loaded model=%s revision=%s", card.model, card.revision[:12])
    read = fitted(resources)
    layout = Layout(made, phrases=phrasebook(folder))
    least, beams = options.min_confidence, options.beams
    return Quote(model, layout, read, calibration(folder), least, card, beams)


def calibration(folder: Path) -> dict[str, Calibration]:
    """What calibration.json of a folder says, nothing where there is none.

    Raises:
        ModelNotFound: it is not `{"languages": {language: {field of Calibration: number}}}`.
    """
    return _calibrated(folder)[0]


def phrasebook(folder: Path) -> tuple[str, ...]:
    """The phrases that the network in a folder learnt, in their order.

    Raises:
        ModelNotFound: calibration.json is malformed, or names a phrase that there is not.
    """
    return _calibrated(folder)[1]


def _calibrated(folder: Path) -> tuple[dict[str, Calibration], tuple[str, ...]]:
    path = folder / CALIBRATION
    if not path.exists():
        return {}, ()
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        fits = {
            lang: Calibration(**{key: float(v[key]) for key in v})
            for lang, v in values["languages"].items()
        }
        known = tuple(values.get("phrases", ()))
        for key in known:
            PHRASES[key]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelNotFound(f"cannot read {path}: {error!r}; fit it with `train sft`") from error
    return fits, known


def _tokenizer(folder: Path) -> Tokenizer:
    path = folder / "tokenizer.json"
    try:
        text = path.read_text(encoding="utf-8")
        vocabulary = json.loads(text)["model"]["vocab"]
        lacking = [spelling for spelling in SPELLINGS.values() if spelling not in vocabulary]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelNotFound(f"cannot read {path}: {error!r}; restore it") from error
    if lacking:
        raise ModelNotFound(
            f"{path} has no {lacking[0]}: its model was not trained to quote; choose "
            "policy.backend = local for it"
        )
    return Tokenizer.from_str(text)


@contextmanager
def without_bar() -> Iterator[None]:
    """No progress bar of transformers: a small network is there before one could be read."""
    bars: Any = of_transformers  # its functions have no types
    shown = bars.is_progress_bar_enabled()
    bars.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            bars.enable_progress_bar()


def _network(folder: Path, made: Tokenizer, dtype: str, device: str) -> Any:
    loading: Any = LlamaForCausalLM.from_pretrained
    try:
        with without_bar():
            model, report = loading(
                folder,
                dtype=DTYPES[dtype],
                use_safetensors=True,
                local_files_only=True,
                output_loading_info=True,
            )
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        raise ModelNotFound(f"cannot load {folder}: {error}") from error
    lacking = sorted(report["missing_keys"]) + sorted(map(str, report["mismatched_keys"]))
    if lacking or model.config.vocab_size != made.get_vocab_size():
        raise ModelNotFound(
            f"{folder} lacks {len(lacking)} weights and has {model.config.vocab_size} rows for "
            f"{made.get_vocab_size()} tokens; it is damaged, or another model's"
        )
    try:
        return model.to(torch.device(device)).eval()
    except (RuntimeError, AssertionError) as error:  # torch asserts that it was built with CUDA
        raise ConfigError(f"cannot use policy.device = {device!r}: {error}") from error
