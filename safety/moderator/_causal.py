"""Guard models that write their judgement: loaded by transformers, run in this process.

Answers are the likeliest tokens, a few dozen at most, each with its probability. One answer is
written at a time; a query that has to wait past its deadline is given up.
"""

from __future__ import annotations

import inspect
import logging
import threading
import time
from pathlib import Path
from typing import Any

import torch
from jinja2 import TemplateError
from safetensors import SafetensorError
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    AutoTokenizer,
)

from safety.config import SafetySettings
from safety.errors import ModelUnusable, ModeratorUnavailable
from safety.moderator._families import FAMILIES, Answer, Query
from safety.moderator._folder import find, identity
from safety.moderator._plugin import Plugin, asking, late

logger = logging.getLogger(__name__)

#: What `config.json` calls the architectures of each family.
TYPES = {
    "qwen3guard": ("qwen3",),
    "llamaguard": ("llama", "llama4", "llama4_text"),
    "shieldgemma": ("gemma2",),
    "granite": ("granite", "granitemoe"),
}
_PROBE, _ASKED = "zebra crossing", "railway bridge"


class Causal:
    """A causal language model with its tokenizer and chat template.

    Args:
        model: the network, on its device, in evaluation mode.
        tokenizer: its tokenizer, with a chat template.
        settings: deadlines, for messages.
    """

    def __init__(self, model: Any, tokenizer: Any, settings: SafetySettings) -> None:
        self._model = model
        self._tokenizer = tokenizer
        self._settings = settings
        self._lock = threading.Lock()
        self._ends = _ends(model, tokenizer)
        text = model.config.get_text_config()
        self._context = int(getattr(text, "max_position_embeddings", None) or 4096)
        self._parts = False
        # logits of every token of a long query would take gigabytes
        known = inspect.signature(model.forward).parameters
        self._options: dict[str, Any] = {"logits_to_keep": 1} if "logits_to_keep" in known else {}

    def check(self, query: Query) -> None:
        """See that the chat template shows what is judged, as text or as a list of parts.

        Raises:
            ModelUnusable: it shows it in neither form, or refuses the query.
        """
        reasons = []
        for parts in (False, True):
            self._parts = parts
            try:
                shown = self._tokenizer.decode(self._encode(query))
            except (TemplateError, ValueError, TypeError, KeyError) as error:
                reasons.append(f": {error}")
            else:
                if all(body in shown for _, body in query.messages):
                    return
        raise ModelUnusable(
            "the guard model's chat template does not show the text to judge"
            f"{reasons[0] if reasons else ''}; check that safety.guard_model is the guard it "
            "should be"
        )

    def ask(self, query: Query, deadline: float) -> Answer:
        """The model's answer, with the probability of each token.

        Where the user's question leaves no room for what is judged, more of it is cut.

        Raises:
            ModeratorUnavailable: too slow, too long, out of memory, or no numbers.
        """
        if not self._lock.acquire(timeout=max(0.0, deadline - time.monotonic())):
            raise late("guard model", self._settings)
        try:
            ids = self._encode(query)
            while len(ids) + query.tokens > self._context and (less := query.shorter()):
                query, ids = less, self._encode(less)
            if len(ids) + query.tokens > self._context:
                raise ModeratorUnavailable(
                    f"a query of {len(ids)} tokens does not fit the guard's context of "
                    f"{self._context}"
                )
            return self._written(ids, query.tokens, deadline)
        except (TemplateError, RuntimeError, IndexError, ValueError) as error:
            raise ModeratorUnavailable(
                f"the guard model failed ({type(error).__name__}); try another safety.guard_device"
            ) from error
        finally:
            self._lock.release()

    def _encode(self, query: Query) -> list[int]:
        messages = [
            {"role": role, "content": [{"type": "text", "text": text}] if self._parts else text}
            for role, text in query.messages
        ]
        ids = self._tokenizer.apply_chat_template(
            messages,
            add_generation_prompt=True,
            return_dict=False,
            sanitize_control_tokens=True,
            **query.options,
        )
        return list(ids)

    def _written(self, ids: list[int], limit: int, deadline: float) -> Answer:
        tokens: list[int] = []
        pieces: list[tuple[int, int, float]] = []
        feed, cache, text = ids, None, ""
        for _ in range(limit):
            if time.monotonic() >= deadline:
                raise late("guard model", self._settings)
            with torch.inference_mode():
                out = self._model(
                    input_ids=torch.tensor([feed], device=self._model.device),
                    past_key_values=cache,
                    use_cache=True,
                    **self._options,
                )
                chances = torch.softmax(out.logits[0, -1].float(), dim=-1)
                token = int(chances.argmax())
                chance = float(chances[token])
            if chance != chance:
                raise ModeratorUnavailable(
                    "the guard model gave NaN; use another safety.guard_device"
                )
            if token in self._ends:
                break
            tokens.append(token)
            grown = self._tokenizer.decode(tokens, skip_special_tokens=True)
            pieces.append((len(text), len(grown), chance))
            feed, cache, text = [token], out.past_key_values, grown
        return Answer(text, tuple(pieces))


def moderator(name: str, settings: SafetySettings) -> Plugin:
    """The plug-in of family `name` on the model of `guard_model`.

    Raises:
        ModelUnusable: the folder is missing, damaged, untrusted, or another kind of model.
    """
    folder = find(settings.guard_model)
    model, tokenizer = _load(folder, name, settings.guard_device)
    causal = Causal(model, tokenizer, settings)
    for side in ("input", "output"):
        _tried(causal, name, side, settings)
    logger.info("guard loaded moderator=%s model=%s", name, folder.name)
    return asking(name, identity(folder), name, causal.ask, settings)


def _tried(causal: Causal, name: str, side: Any, settings: SafetySettings) -> None:
    """Put the family's own first query through the template, without an answer."""
    seen: list[Query] = []

    def ask(query: Query) -> Answer:
        seen.append(query)
        raise ModeratorUnavailable("only the query is wanted")

    try:
        FAMILIES[name](ask, _PROBE, side, settings, _ASKED)
    except ModeratorUnavailable:
        causal.check(seen[0])


def _load(folder: Path, name: str, device: str) -> tuple[Any, Any]:
    safe: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
    try:
        config = AutoConfig.from_pretrained(folder, **safe)
        if config.model_type not in TYPES[name]:
            raise ModelUnusable(
                f"{folder} is a model of type {config.model_type!r}, and {name} is "
                f"{' or '.join(TYPES[name])}; check safety.guard_model"
            )
        tokenizer = AutoTokenizer.from_pretrained(folder, **safe)
        seeing = "ForConditionalGeneration" in " ".join(config.architectures or ())
        kind = AutoModelForImageTextToText if seeing else AutoModelForCausalLM
        loaded: Any = kind.from_pretrained(
            folder,
            config=config,
            dtype="auto",
            use_safetensors=True,
            output_loading_info=True,
            **safe,
        )
    except (OSError, ValueError, KeyError, RuntimeError, ImportError, SafetensorError) as error:
        raise ModelUnusable(f"cannot load {folder}: {error}; fetch the model again") from error
    model, report = loaded
    lacking = sorted(report["missing_keys"]) + sorted(map(str, report["mismatched_keys"]))
    if lacking:
        raise ModelUnusable(
            f"{folder} lacks {len(lacking)} weights, {lacking[0]} first; it is damaged or another "
            "architecture's"
        )
    if not tokenizer.chat_template:
        raise ModelUnusable(
            f"{folder} has no chat template, which says how {name} is asked; fetch the whole model"
        )
    place = device
    if device == "auto":
        place = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        return model.to(torch.device(place)).eval(), tokenizer
    except (RuntimeError, AssertionError) as error:  # torch asserts that it was built with CUDA
        raise ModelUnusable(f"cannot use safety.guard_device = {device!r}: {error}") from error


def _ends(model: Any, tokenizer: Any) -> frozenset[int]:
    ends: set[int] = set()
    for found in (
        getattr(model.generation_config, "eos_token_id", None),
        getattr(model.config.get_text_config(), "eos_token_id", None),
        tokenizer.eos_token_id,
    ):
        if found is not None:
            ends.update([found] if isinstance(found, int) else found)
    return frozenset(ends)
