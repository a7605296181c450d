"""What the buttons of the page on training do."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Literal

from assistant.errors import TrainerError
from assistant.training import Choice, Side, Trainer
from assistant.ui import train_page
from assistant.ui.desk import Desk
from assistant.ui.layout import Play, Updates
from assistant.ui.render_train import AT_WORK, said
from assistant.ui.state import View
from assistant.ui.strings import known, say

#: Who is written into the log of decisions.
WHO = "page"

#: The verbs, and the region that says what they came to.
VERBS = {
    "start": "train",
    "resume": "train",
    "cancel": "train",
    "promote": "candidates",
    "canary": "candidates",
    "end_canary": "candidates",
    "rollback": "candidates",
}


class Train:
    """The handlers; each draws the page again, with a sentence on what became of it."""

    def __init__(self, desk: Desk) -> None:
        self.desk = desk
        self.page = desk.page

    @property
    def trainer(self) -> Trainer | None:
        """The trainer; None also where others than this computer can reach the page."""
        return self.desk.trainer if self.desk.folders else None

    def show(self, place: Literal["chat", "train"], view: View) -> Updates:
        """Turn to the other page."""
        view = replace(view, place=place)
        return {**self.desk.draw_train(view), self.page.view: view}

    def do(self, verb: str, target: str, view: View) -> Updates:
        """Do one of `VERBS` to a run or a candidate."""
        trainer, share = self.trainer, self.desk.settings.canary.share
        if trainer is None:
            return self.desk.draw_train(view)
        doing: dict[str, Callable[[], object]] = {
            "start": trainer.start,
            "resume": lambda: trainer.resume(target),
            "cancel": lambda: trainer.cancel(target),
            "promote": lambda: trainer.promote(target, who=WHO),
            "canary": lambda: trainer.canary(target, share, who=WHO),
            "end_canary": lambda: trainer.end_canary(who=WHO),
            "rollback": lambda: trainer.rollback(who=WHO),
        }
        return self._done(doing[verb], verb, VERBS[verb], view)

    def judge(self, pair_id: str, token: str, value: int, view: View) -> Updates:
        """The verdict on two answers: 0 the first shown, 1 the second, -1 equally good."""
        trainer, lot = self.trainer, self.desk.lots.draw(pair_id)
        if trainer is None or token != lot.token:
            return self.desk.draw_train(view)
        other: Side = "old" if lot.first == "new" else "new"
        choices: tuple[Choice, ...] = (lot.first, other, "equal")
        choice = choices[value]

        def pick() -> None:
            trainer.pick(pair_id, choice, first=lot.first, who=WHO)

        return self._done(pick, "pick", "blind", view)

    def tick(self, view: View, seen: str) -> Play:
        """A look at the run: the plots while it works, the whole page when it has ended."""
        trainer = self.trainer
        if trainer is None or view.place != "train":
            yield {}
            return
        try:
            runs = list(trainer.runs())
        except TrainerError:
            yield {}  # the next look may find it; the page says what it said before
            return
        if train_page.mark(runs) != seen:
            yield self.desk.draw_train(view)
        elif runs and runs[0].state in AT_WORK:
            yield {self.page.run: self.desk.sheet.run(trainer, runs, view.language)}
        else:
            yield {}

    def _done(self, work: Callable[[], object], verb: str, under: str, view: View) -> Updates:
        try:
            work()
        except TrainerError as error:
            other = say(view.language, "train_why_other")
            words = known(view.language, f"train_why_{error.why}", other)
            return self.desk.draw_train(view, said(words, str(error), bad=True), under)
        words = say(view.language, f"train_done_{verb}")
        return self.desk.draw_train(view, said(words), under)
