"""Any transformers causal language model, in this process.

`policy.model` is a folder, or a hub name that is looked up in the local cache first and fetched
only if `HF_HUB_OFFLINE` allows. Weights are safetensors; code that comes with a checkpoint is
never run. `policy.adapter` is the folder of a LoRA adapter laid over it.

The token loop is our own: it stops between two tokens, and its log-probs are those of the very
distribution the tokens were drawn from (after temperature and top-p; the plain ones when greedy).
What the last prompt and this one begin with in common is not read again.
"""

from __future__ import annotations

import inspect
import logging
import threading
import time
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors import SafetensorError
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from assistant.config import PolicySettings
from assistant.errors import (
    BackendMissing,
    ConfigError,
    ModelNotFound,
    PolicyError,
    PolicyRefused,
    PolicyUnavailable,
)
from assistant.policy._chat import encode as encode
from assistant.policy._chat import without_oldest
from assistant.policy._checkpoint import check, find, revision, tokenizing
from assistant.policy._prefix import Prefix
from assistant.policy._stream import Cleaner, Pieces, resolve, unclosed
from assistant.policy.base import Policy, Resources
from assistant.schema import Delta, Message, PolicyCard, Prompt, Sampling, Usage

try:
    import peft
except ModuleNotFoundError:  # an extra of its own, needed with an adapter only
    peft = None  # type: ignore[assignment]

logger = logging.getLogger(__name__)

DTYPES = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}
#: Half precision where the device is made for it: bfloat16 on a graphics card, else float32.
AUTO = "auto"
#: Room an answer needs at least, tokens; with less the prompt counts as too long.
MIN_ANSWER = 64
#: What ends an answer where the tokenizer has no chat template (see `encode`).
PLAIN_STOP = ("\nUser:", "\nSystem:")
_GREEDY_BELOW = 1e-5


class LocalPolicy:
    """A causal language model and its tokenizer. One generation runs at a time.

    Args:
        model: the network, on its device, in evaluation mode.
        tokenizer: its tokenizer.
        card: who this is.
        context: prompt and answer together, tokens.
        cached: tokens of a prompt and its answer that stay read for the next prompt. Leave it 0
            where the weights may change between two prompts.
    """

    def __init__(
        self, model: Any, tokenizer: Any, card: PolicyCard, context: int, cached: int = 0
    ) -> None:
        self.card = card
        self._model = model
        self._tokenizer = tokenizer
        self._context = context
        self._lock = threading.Lock()
        self._prefix = Prefix(cached)
        self._ends = end_ids(model, tokenizer)
        base = model.get_base_model() if hasattr(model, "get_base_model") else model
        known = inspect.signature(base.forward).parameters
        self._options: dict[str, Any] = {"logits_to_keep": 1} if "logits_to_keep" in known else {}
        self._caches = "past_key_values" in known  # recurrent models have another kind of state

    def stream(self, prompt: Prompt, sampling: Sampling) -> Iterator[Delta]:
        """Generate an answer token by token.

        Raises:
            PolicyRefused: the prompt does not fit the context, even without history.
            PolicyUnavailable: another generation held the model all the time, or memory ran out.
            PolicyError: the network failed.
        """
        sampling = resolve(sampling)
        deadline = time.monotonic() + sampling.seconds
        if not self._lock.acquire(timeout=min(sampling.seconds, threading.TIMEOUT_MAX)):
            raise PolicyUnavailable(
                f"the local model was busy for {sampling.seconds:g} s; try again, or serve it "
                "with an engine that batches (policy.backend = remote)"
            )
        try:
            yield from self._answer(prompt.messages, sampling, deadline)
        finally:
            self._lock.release()

    def count_tokens(self, text: str) -> int:
        """Count exactly, with the model's own tokenizer."""
        return len(self._tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])

    def close(self) -> None:
        """Let go of the weights; a generation that is under way ends with an error."""
        self._model = None  # no lock: a reader who left without closing may hold it
        self._prefix = Prefix(0)

    def _answer(
        self, messages: Sequence[Message], sampling: Sampling, deadline: float
    ) -> Iterator[Delta]:
        ids, limit = self._fit(messages, sampling.max_tokens)
        opened = unclosed(self._tokenizer.decode(ids[-8:]))
        stop = sampling.stop if self._tokenizer.chat_template else (*sampling.stop, *PLAIN_STOP)
        cleaner, pieces = Cleaner(stop, opened), Pieces(self._decode)
        tokens: list[int] = []
        logprobs: list[float] = []
        finish, text, drawn = "length", "", 0
        known = self._prefix.take(ids)
        with closing(self._tokens(ids, known, limit, sampling)) as source:
            for token, logprob in source:
                drawn += 1
                tokens.append(token)
                logprobs.append(logprob)
                if token in self._ends:
                    finish = "stop"
                    break
                text = cleaner.feed(pieces.feed(token))
                if cleaner.ended:
                    break
                if text:
                    yield Delta(text, token_ids=tuple(tokens), logprobs=tuple(logprobs))
                    tokens, logprobs, text = [], [], ""
                if time.monotonic() >= deadline:
                    break
        if not cleaner.ended:
            text = cleaner.feed(pieces.finish())
            text += cleaner.finish()
        yield Delta(
            text,
            finish=cleaner.ended or ("stop" if finish == "stop" else "length"),
            token_ids=tuple(tokens),
            logprobs=tuple(logprobs),
            usage=Usage(len(ids), drawn, known[1]),
        )

    def _fit(self, messages: Sequence[Message], wanted: int) -> tuple[list[int], int]:
        """Give the prompt's ids and the answer's length; the oldest history goes first."""
        kept = list(messages)
        while True:
            ids = encode(self._tokenizer, kept)
            shorter = without_oldest(kept)
            if len(ids) + wanted <= self._context or shorter is None:
                break
            kept = shorter
        room = self._context - len(ids)
        if room < min(wanted, MIN_ANSWER):
            raise PolicyRefused(
                f"the prompt takes {len(ids)} tokens of a context of {self._context}, which leaves "
                f"{max(room, 0)} for the answer; lower policy.passages, or raise "
                "policy.context_tokens if the model allows"
            )
        if len(kept) < len(messages):
            logger.info("history cut messages=%d of=%d", len(kept), len(messages))
        return ids, min(wanted, room)

    def _tokens(
        self, ids: list[int], known: tuple[Any, int], limit: int, sampling: Sampling
    ) -> Generator[tuple[int, float]]:
        """Sample up to `limit` tokens; each with its log-prob. The end token is one of them.

        `known` is a cache and how many of the prompt's tokens it holds; it is kept afterwards for
        the next prompt, with what was read here, unless the network failed.
        """
        # on the CPU, so that a seed means the same on every device
        generator = torch.Generator().manual_seed(sampling.seed)
        cache, read = known
        history, feed, whole = list(ids), ids[read:], False
        try:
            for _ in range(limit):
                whole = False
                logits, cache = self._forward(feed, cache)
                whole, read = True, len(history)
                token, logprob = draw(logits, sampling.temperature, sampling.top_p, generator)
                yield token, logprob
                history.append(token)
                feed = history if cache is None else [token]
        finally:
            if whole:
                self._prefix.keep(history[:read], cache)

    def _forward(self, feed: list[int], cache: Any) -> tuple[torch.Tensor, Any]:
        """Logits of the next token, (vocabulary,) float32 on the CPU, and the grown cache."""
        model = self._model
        if model is None:
            raise PolicyUnavailable("the local model was closed; build the policy anew")
        try:
            # not around the loop: the mode would leak to the reader between two pieces
            with torch.inference_mode():
                state = {"past_key_values": cache, "use_cache": True} if self._caches else {}
                ids = torch.tensor([feed], device=model.device)
                out = model(input_ids=ids, **state, **self._options)
                logits = out.logits[0, -1].float().cpu()
        except torch.OutOfMemoryError as error:
            raise PolicyUnavailable(
                f"out of memory on {model.device} with {len(feed)} new tokens; lower "
                "policy.context_tokens or use a smaller dtype"
            ) from error
        except (RuntimeError, IndexError) as error:
            raise PolicyError(f"the local model failed: {error}") from error
        if torch.isnan(logits).any():
            raise PolicyError(
                f"the local model gave NaN in {self.card.dtype}; try policy.dtype = bfloat16 or "
                "float32"
            )
        return logits, out.past_key_values if self._caches else None

    def _decode(self, ids: list[int]) -> str:
        return str(
            self._tokenizer.decode(
                ids, skip_special_tokens=True, clean_up_tokenization_spaces=False
            )
        )


def draw(
    logits: torch.Tensor, temperature: float, top_p: float, generator: torch.Generator
) -> tuple[int, float]:
    """Draw one token.

    Args:
        logits: (vocabulary,) float32.
        temperature: 0 takes the likeliest token.
        top_p: nucleus: the fewest tokens that together have this probability (Holtzman 2020).
        generator: the source of chance.

    Returns:
        The token and its log-prob under the distribution drawn from: after temperature and
        nucleus, renormalised. Greedy choice gives the model's own log-prob instead of 0.
    """
    if temperature < _GREEDY_BELOW:
        logprobs = torch.log_softmax(logits, dim=-1)
        token = int(logprobs.argmax())
        return token, float(logprobs[token])
    logprobs = torch.log_softmax(logits / temperature, dim=-1)
    if top_p < 1:
        ordered, order = logprobs.sort(descending=True, stable=True)
        chances = ordered.exp()
        outside = chances.cumsum(-1) - chances >= top_p  # the likeliest token always stays
        logprobs[order[outside]] = -torch.inf
        logprobs = torch.log_softmax(logprobs, dim=-1)
    token = int(torch.multinomial(logprobs.exp(), 1, generator=generator))
    return token, float(logprobs[token])


@dataclass(frozen=True, slots=True)
class Loaded:
    """A network on its device, in evaluation mode, with its tokenizer and where it came from."""

    model: Any
    tokenizer: Any
    folder: Path
    dtype: str

    def context(self, wanted: int) -> int:
        """Tokens of prompt and answer that it reads, `wanted` at the most."""
        text = self.model.config.get_text_config()
        return min(wanted, getattr(text, "max_position_embeddings", None) or wanted)


def build(options: PolicySettings, resources: Resources) -> Policy:
    """Load the model, its tokenizer and its adapter.

    Raises:
        ConfigError: no model is named, or device or dtype do not exist here.
        ModelNotFound: a folder is missing, incomplete, or wants to run its own code.
        BackendMissing: an adapter is named but peft is not installed.
    """
    found = load(options)
    policy = served(found, options)
    logger.info("model loaded model=%s revision=%s", policy.card.model, policy.card.revision[:12])
    return policy


def load(options: PolicySettings) -> Loaded:
    """Load what `build` serves; raises what it does."""
    if not options.model:
        raise ConfigError("policy.backend = local needs policy.model: a folder or a hub name")
    if options.dtype not in (AUTO, *DTYPES):
        raise ConfigError(f"no dtype {options.dtype!r}; there are: {AUTO}, {', '.join(DTYPES)}")
    if options.adapter and peft is None:
        raise BackendMissing("policy.adapter needs 'peft'; install plumbline[adapters]")
    folder = find(options.model)
    check(folder, "model")
    adapter = Path(options.adapter).expanduser() if options.adapter else None
    if adapter is not None:
        if not adapter.is_dir():
            raise ModelNotFound(f"no adapter folder {adapter}; check policy.adapter")
        check(adapter, "adapter")
    dtype = _auto(options.device) if options.dtype == AUTO else options.dtype
    return Loaded(*_load(folder, adapter, dtype, options.device), folder, dtype)


def served(found: Loaded, options: PolicySettings) -> LocalPolicy:
    """The policy of a network that is loaded, as the settings name it."""
    adapter = Path(options.adapter).expanduser() if options.adapter else None
    card = PolicyCard(
        name="local",
        model=found.folder.name if Path(options.model).expanduser().is_dir() else options.model,
        revision=revision(found.folder),
        adapter=f"{adapter.name}@{revision(adapter)[:12]}" if adapter else "",
        engine=f"transformers {transformers.__version__}",
        dtype=found.dtype,
        tokenizer=tokenizing(found.folder),
    )
    context = found.context(options.context_tokens)
    return LocalPolicy(found.model, found.tokenizer, card, context, options.cache_tokens)


def _auto(device: str) -> str:
    there = device.startswith("cuda") and torch.cuda.is_available()
    fits = there and torch.cuda.is_bf16_supported(including_emulation=False)
    return "bfloat16" if fits else "float32"


def _load(folder: Path, adapter: Path | None, dtype: str, device: str) -> tuple[Any, Any]:
    safe = {"local_files_only": True, "trust_remote_code": False}
    try:
        config = AutoConfig.from_pretrained(folder, **safe)
        tokenizer = AutoTokenizer.from_pretrained(folder, **safe)
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            folder,
            config=config,
            dtype=DTYPES[dtype],
            use_safetensors=True,
            output_loading_info=True,
            **safe,
        )
        model, report = loaded
        if adapter is not None:
            model = peft.PeftModel.from_pretrained(model, str(adapter), is_trainable=False)
    except (OSError, ValueError, KeyError, RuntimeError, ImportError, SafetensorError) as error:
        raise ModelNotFound(f"cannot load {folder}: {error}") from error
    lacking = sorted(report["missing_keys"]) + sorted(map(str, report["mismatched_keys"]))
    if lacking:
        raise ModelNotFound(
            f"{folder} lacks {len(lacking)} weights, {lacking[0]} first; it is damaged or another "
            "architecture's"
        )
    _match(model, tokenizer, folder)
    try:
        return model.to(torch.device(device)).eval(), tokenizer
    except (RuntimeError, AssertionError) as error:  # torch asserts that it was built with CUDA
        raise ConfigError(f"cannot use policy.device = {device!r}: {error}") from error


def _match(model: Any, tokenizer: Any, folder: Path) -> None:
    """Refuse another model's tokenizer, where it shows: it knows tokens that the model does not."""
    read = model.get_input_embeddings().weight.shape[0]
    if tokenizer.vocab_size > read:  # without added tokens, of which some are never used
        raise ModelNotFound(
            f"the tokenizer in {folder} has {tokenizer.vocab_size} tokens and the model {read}; "
            "they are not of one model, get the model's own tokenizer files"
        )


def end_ids(model: Any, tokenizer: Any) -> frozenset[int]:
    """Tokens that end an answer, by the word of model and tokenizer."""
    ends: set[int] = set()
    for found in (
        getattr(model.generation_config, "eos_token_id", None),
        getattr(model.config.get_text_config(), "eos_token_id", None),
        tokenizer.eos_token_id,
    ):
        if found is not None:
            ends.update([found] if isinstance(found, int) else found)
    return frozenset(ends)
