"""A causal language model as the policy that a run trains, by LoRA or with all its weights.

Base, reference and policy share one copy of the weights while there is an adapter, and so does who
answers before the run: it is the base with its adapter off. A candidate is the adapter alone, laid
over the model that the settings name; with rank 0 it is the whole model.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any

from safetensors.torch import load_file

from assistant.config import PolicySettings, TrainSettings
from assistant.policy.local import PLAIN_STOP, Loaded, LocalPolicy, end_ids, load, served
from assistant.schema import Sampling
from rlhf._loop_gates import Served, Side
from rlhf._loop_tasks import Asked
from rlhf._loop_written import Speech
from rlhf.actor_causal import CausalActor
from rlhf.errors import TrainingError

Off = Callable[[], AbstractContextManager[None]]
#: The adapter's scale is this times its rank, over its rank.
SCALE = 2
#: How peft names the parameters of an adapter in its file, and in the network.
_FILE, _NETWORK, _HEAD = "adapter_model.safetensors", ".default.", "base_model.model."


class Writing:
    """See the module's text.

    Args:
        options: name the model and its device; they name no adapter.
        settings: of the run.

    Raises:
        TrainingError: the settings lay an adapter over the model already, or peft is missing.
        AssistantError: the model cannot be loaded.
    """

    def __init__(self, options: PolicySettings, settings: TrainSettings) -> None:
        if options.adapter:
            raise TrainingError(
                f"policy.adapter = {options.adapter!r} is laid over the model already, and a run "
                "begins with the model itself; merge the adapter into it, or leave it out"
            )
        self._options = options
        self._found: Loaded = load(options)
        rank = settings.adapter_rank
        self.actor = CausalActor(
            self._found.model, rank, SCALE * rank, settings.seed, at_once=settings.episodes
        )
        network: Any = self.actor.model
        self._found = replace(self._found, model=network)
        self._whole = not rank
        own = Path(options.model).expanduser().is_dir()
        model = str(self._found.folder.resolve()) if own else options.model
        #: The settings of a candidate.
        self.policy: Mapping[str, object] = {
            "backend": "local",
            **({"model": "."} if self._whole else {"model": model, "adapter": "."}),
        }
        templated = bool(self._found.tokenizer.chat_template)
        #: How it is asked.
        self.speech = Speech(
            self._found.tokenizer,
            end_ids(network, self._found.tokenizer),
            () if templated else PLAIN_STOP,
            settings.answer_tokens,
            self._found.context(options.context_tokens),
        )

    @property
    def exact(self) -> bool:
        """Whether it computes in float32."""
        return self._found.dtype == "float32"

    def save(self, folder: Path) -> None:
        """The adapter; or the whole model with its tokenizer."""
        self.actor.save(folder)
        if self._whole:
            self._found.tokenizer.save_pretrained(str(folder))

    def take_over(self, folder: Path) -> None:
        """The adapter's weights, or all, from their files."""
        files = [folder / _FILE] if not self._whole else sorted(folder.glob("*.safetensors"))
        found = {name: value for path in files for name, value in load_file(path).items()}
        for name, parameter in self.actor.policy.items():
            own = name if self._whole else _HEAD + name.replace(_NETWORK, ".")
            parameter.data.copy_(found[own])

    def side(self, folder: Path) -> Side:
        """As it is served, without chance."""
        return Served(self._policy(), self._sampling())

    def before(self) -> Side:
        """The model as it was before the run."""
        if self.actor.frozen is None:
            return _Before(self._policy(), self._sampling(), self.actor.adapter_off)
        return Served(self._policy(self.actor.frozen), self._sampling())

    def _policy(self, network: Any = None) -> LocalPolicy:
        found = self._found if network is None else replace(self._found, model=network)
        # what it has read is not kept: its weights change
        return served(found, self._options.model_copy(update={"cache_tokens": 0}))

    def _sampling(self) -> Sampling:
        return Sampling(max_tokens=self.speech.most, seconds=self._options.seconds)


class _Before(Served):
    """Answers while the adapter is off."""

    def __init__(self, policy: LocalPolicy, sampling: Sampling, off: Off) -> None:
        super().__init__(policy, sampling)
        self._off = off

    def answer(self, task: Asked) -> str:
        """See `Served`."""
        with self._off():
            return super().answer(task)
