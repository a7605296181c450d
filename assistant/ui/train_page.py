"""The page on training, drawn: what the trainer says, region by region, whatever cannot be read."""

from __future__ import annotations

import logging
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

import gradio as gr

from assistant.config import Settings
from assistant.errors import TrainerError
from assistant.training import Candidate, Pair, Run, Trainer
from assistant.ui import render_candidates, render_stock, render_train
from assistant.ui.layout import Page, Updates
from assistant.ui.state import Lots, View
from assistant.ui.strings import Language

logger = logging.getLogger(__name__)

#: Candidates whose answers are worth a pick.
_OPEN = ("candidate", "canary")


@dataclass(frozen=True, slots=True)
class Sheet:
    """What drawing needs. `why` is the string key that says why there is no trainer."""

    page: Page
    trainer: Trainer | None
    settings: Settings
    lots: Lots
    why: str = "train_none"

    def draw(self, view: View, notes: Mapping[str, str] | None = None) -> Updates:
        """Every region; all are empty while the chat is seen. `notes` are markup, by region."""
        page, language = self.page, view.language
        shown = {
            page.places: render_train.places(view.place, language),
            page.pulse: gr.update(active=view.place == "train" and self.trainer is not None),
        }
        parts = (page.train, page.run, page.candidates, page.blind, page.stock)
        if view.place != "train":
            return {**shown, **dict.fromkeys(parts, "")}
        if self.trainer is None:
            closed = {page.train: render_train.closed(self.why, language)}
            return {**shown, **dict.fromkeys(parts, ""), **closed}
        return {**shown, **self._parts(self.trainer, language, notes or {})}

    def run(self, trainer: Trainer, runs: list[Run], language: Language) -> str:
        """The newest run and its plots."""
        budget = self.settings.gates.kl

        def make() -> str:
            points = trainer.points(runs[0].id) if runs else ()
            return render_train.run(runs, points, budget, language)

        return _read(make, language)

    def _parts(self, trainer: Trainer, language: Language, notes: Mapping[str, str]) -> Updates:
        page = self.page
        runs: list[Run] = []

        def head() -> str:
            runs.extend(trainer.runs())
            return render_train.head(trainer.standing(), runs, language, notes.get("train", ""))

        def candidates() -> str:
            return render_candidates.candidates(
                trainer.candidates(),
                trainer.decisions(),
                self.settings.canary.share,
                language,
                can_roll_back=trainer.can_roll_back(),
                note=notes.get("candidates", ""),
            )

        def blind() -> str:
            pair, left = waiting(trainer)
            lot = self.lots.draw(pair.id) if pair is not None else None
            return render_candidates.blind(pair, lot, left, language, notes.get("blind", ""))

        def stock() -> str:
            today = datetime.now(UTC).date()
            reward = trainer.standing().reward
            return render_stock.stock(trainer.collected(), reward, language, today)

        return {
            page.train: _head(head, language),
            page.run: self.run(trainer, runs, language),
            page.candidates: _read(candidates, language),
            page.blind: _read(blind, language),
            page.stock: _read(stock, language),
            page.seen: mark(runs),
        }


def mark(runs: list[Run]) -> str:
    """What must change for the whole page to be drawn again: the newest run, or its state."""
    return f"{runs[0].id} {runs[0].state} {runs[0].candidate}" if runs else ""


def waiting(trainer: Trainer) -> tuple[Pair | None, int]:
    """The next pair to be judged, and how many there are of its candidate."""
    for one in trainer.candidates():
        if _wanted(one):
            pairs = trainer.pairs(one.id, 1)
            if pairs:
                return pairs[0], max(one.pairs, 1)
    return None, 0


def _wanted(one: Candidate) -> bool:
    return one.state in _OPEN and one.pairs > 0


def _read(make: Callable[[], str], language: Language) -> str:
    """A region, or the sentence that it cannot be read: the others are shown all the same."""
    try:
        return make()
    except TrainerError as error:
        return render_train.unread(str(error), language)
    except Exception as error:
        # the message may hold the user's words, so only the kind and the place are logged
        where = "".join(traceback.format_tb(error.__traceback__))
        logger.error("train_page error=%s\n%s", type(error).__name__, where)
        return render_train.unread("", language)


def _head(make: Callable[[], str], language: Language) -> str:
    """The first region; by it the page knows that it is open, whatever cannot be read."""
    made = _read(make, language)
    return made if 'class="pl-train"' in made else render_train.closed("train_unread", language)
