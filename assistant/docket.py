"""What the command line shows of appeals and of how often texts are stopped."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from assistant.schema import Reply
from safety.appeal import Appeal, State
from safety.rates import Rates

#: What a reviewer does, and what the appeal is then.
STATES: dict[str, State] = {"uphold": "upheld", "overturn": "overturned"}
#: Digits of an id that are shown; what is shown can be typed.
DIGITS = 8
_WORDS = 60


def decision(reply: Reply) -> str:
    """Short id of the decision that refused, "" where none did."""
    if reply.outcome != "refused":
        return ""
    stops = [v.decision_id for v in reply.verdicts if v.stops and v.side != "passage"]
    return stops[-1][:DIGITS] if stops else ""


def refusal(reply: Reply, err: Console) -> None:
    """How to object, where the reply is a refusal."""
    found = decision(reply)
    if found:
        err.print(f"[dim]decision {found} · wrong? plumbline appeal {found}[/]")


def show(appeal: Appeal, out: Console) -> None:
    """One appeal: what was decided, and what each moderator says of each reading now."""
    _line(out, f"appeal {appeal.id[:DIGITS]}: {appeal.state}")
    _line(out, f"decided: {_two(appeal.decided)} ({appeal.side}, {', '.join(appeal.languages)})")
    _line(out, f"now: {_two(appeal.now)}")
    if appeal.decided[1].endswith(".turns"):
        _line(out, "The decision weighed earlier messages too; here the text stands alone.")
    if appeal.question:
        _line(out, f"in answer to: {appeal.question}")
    if appeal.text is None:
        _line(out, "The text of this category is not kept.")
    table = Table("Moderator", "Reading", "Action", "Category", "Score", "Reason")
    for o in appeal.opinions:
        score = f"{o.score:.2f}{' grey' if o.grey else ''}"
        table.add_row(*map(escape, (o.moderator, o.view, o.action, o.category, score, o.reason)))
    out.print(table)
    if appeal.state != "open":
        _line(out, f"{appeal.state} by {appeal.reviewer}: {appeal.note or '(no note)'}")


def listing(appeals: Sequence[Appeal], out: Console) -> None:
    """The open appeals, oldest first."""
    if not appeals:
        _line(out, "No open appeals.")
        return
    table = Table("Appeal", "Since", "Side", "Decided", "Now", "Text")
    for a in appeals:
        text = "(not kept)" if a.text is None else " ".join(a.text.split())
        short = text if len(text) <= _WORDS else text[:_WORDS] + "…"
        since = time.strftime("%Y-%m-%d %H:%M", time.localtime(a.at))
        row = (a.id[:DIGITS], since, a.side, _two(a.decided), _two(a.now), short)
        table.add_row(*map(escape, row))
    out.print(table)


def reviewed(appeal: Appeal, queue: Path, out: Console) -> None:
    """What became of an appeal, and where the case is now."""
    _line(out, f"appeal {appeal.id[:DIGITS]}: {appeal.state} by {appeal.reviewer}")
    where = "its text is not kept, so it is no training case"
    if appeal.text is not None:
        where = f"added to {queue}"
    _line(out, where)


def rates(found: Rates, out: Console) -> None:
    """How much was judged and stopped, and by category and language in one line each."""
    share = f" ({found.stopped / found.judged:.1%})" if found.judged else ""
    _line(
        out,
        f"safety, last {found.days:g} days: {found.judged} texts judged, "
        f"{found.stopped} stopped{share}",
    )
    for rate in found.rates:
        _line(
            out,
            f"  {rate.side} {rate.category} {rate.language or '??'}: {rate.stopped} of "
            f"{rate.judged} ({rate.share:.1%})",
        )


def _two(pair: tuple[str, str]) -> str:
    return " ".join(part for part in pair if part)


def _line(out: Console, words: str) -> None:
    out.print(words, markup=False, highlight=False, soft_wrap=True)
