"""The policy that a run trains: how it is asked, written, read again, and served.

Two kinds: the small network that quotes (`Quoting`, here), and any causal language model with an
adapter (`rlhf.fit._causal.Writing`).
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

from safetensors.torch import load_file

from assistant.config import PolicySettings
from assistant.policy._quoting import Layout
from assistant.policy.quote import CALIBRATION, calibration
from rlhf._loop_gates import Network, Side
from rlhf.actor_quote import QuoteActor

#: Files of a policy that a candidate takes over as they are.
KEPT = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "special_tokens_map.json")
Calibrate = Callable[[Any], Mapping[str, Mapping[str, float]]]


class Pupil(Protocol):
    """See the module's text. Its actor takes the tasks that were made for it."""

    @property
    def actor(self) -> Any:
        """The network as PPO drives it, changed in place."""

    @property
    def policy(self) -> Mapping[str, object]:
        """The settings that serve what `save` wrote, for the manifest of a candidate."""

    def save(self, folder: Path) -> None:
        """Write what is served into an empty folder.

        Raises:
            OSError: it cannot be written.
        """

    def take_over(self, folder: Path) -> None:
        """Go on with the weights that `save` wrote, as they were rounded."""

    def side(self, folder: Path) -> Side:
        """The policy as it answers when it is served from `folder`."""


class Quoting:
    """The network that quotes; all of its weights learn.

    Args:
        start: folder of the policy that is trained, with its tokenizer.
        model: its network, in float32, on its device; it is changed in place.
        layout: of its prompts.
        calibrate: makes the calibration of a trained network, by language.
        options: how it is served.
        actor: the network as PPO drives it, where not in float32.
    """

    policy: Mapping[str, object] = {"backend": "quote", "model": "."}

    def __init__(
        self,
        start: Path,
        model: Any,
        layout: Layout,
        calibrate: Calibrate = lambda model: {},
        options: PolicySettings | None = None,
        actor: QuoteActor | None = None,
    ) -> None:
        self._start, self._model, self._layout = start, model, layout
        self._calibrate, self._options = calibrate, options or PolicySettings()
        self.actor = actor or QuoteActor(model)

    def save(self, folder: Path) -> None:
        """Weights in float16, tokenizer, calibration and the phrases that were learnt."""
        self.actor.save(folder)
        for name in KEPT:
            if (self._start / name).exists():
                shutil.copyfile(self._start / name, folder / name)
        before, fits = calibration(self._start), self._calibrate(self._model)
        told = {
            "languages": {  # how readily it goes on is learnt: another bar would undo that
                lang: {**fit, **({"more": before[lang].more} if lang in before else {})}
                for lang, fit in fits.items()
            },
            "phrases": self._layout.phrases,
        }
        text = json.dumps(told, indent=1)
        (folder / CALIBRATION).write_text(text + "\n", encoding="utf-8")

    def take_over(self, folder: Path) -> None:
        """Float16 is what answers, so it is what is measured."""
        found = load_file(folder / "model.safetensors")
        for name, parameter in self._model.named_parameters():
            parameter.data.copy_(found[name])

    def side(self, folder: Path) -> Side:
        """With the calibration that lies there."""
        own, fits = self._options, calibration(folder)
        return Network(self._model, self._layout, fits, own.min_confidence, own.beams)
