"""What the command line shows: a run and what it came to, the sources, an answer, the hazards."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence

from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table

from assistant.schema import Reply
from assistant.ui.strings import Language, known, pick, say
from retrieval.schema import FileReport, IngestProgress, IngestSummary, RootStatus
from safety.config import SafetySettings
from safety.hazards import HAZARDS, served

#: Names listed for one reason; the rest are counted.
_LISTED = 10


def show(events: Iterator[IngestProgress | IngestSummary], err: Console) -> IngestSummary:
    """Run to the end under a progress bar."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    summary: IngestSummary | None = None
    with Progress(*columns, console=err) as progress:
        task = progress.add_task("files", total=None, rate="")
        checks: TaskID | None = None
        for event in events:
            if isinstance(event, IngestSummary):
                summary = event
                continue
            if event.phase == "check":
                if checks is None:
                    checks = progress.add_task("safety check", total=event.total, rate="")
                progress.update(checks, completed=event.done, rate="passages")
                continue
            rate = event.embedded / event.seconds if event.seconds else 0.0
            if event.done == 1 and progress.tasks[task].completed > 1:
                task = progress.add_task("files", total=event.total, rate="")
            progress.update(
                task, total=event.total, completed=event.done, rate=f"{rate:.0f} chunks/s"
            )
    assert summary is not None
    return summary


def checking(events: Iterator[IngestProgress], err: Console) -> None:
    """Run a check of passages to the end under a progress bar, where there is any to check."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, TimeRemainingColumn(), console=err) as progress:
        task: TaskID | None = None
        for event in events:
            if task is None:
                task = progress.add_task("safety check", total=event.total)
            progress.update(task, completed=event.done)


def conclude(summary: IngestSummary, out: Console, err: Console) -> int:
    """Print what a run came to; 1 where anything failed, empty files aside."""
    failures(summary.failures, err)
    _remarks([r for r in summary.remarks if not r.quarantined], "dim", "remarks", err)
    _remarks([r for r in summary.remarks if r.quarantined], "yellow", "such documents", err)
    if summary.ignored:
        kinds = ", ".join(f"{count} {suffix}" for suffix, count in summary.ignored)
        err.print(f"[dim]Other files in these folders, not read: {escape(kinds)}[/]")
    out.print(line(summary))
    return 1 if any(f.reason != "empty" for f in summary.failures) else 0


def _remarks(found: Sequence[FileReport], style: str, kind: str, err: Console) -> None:
    for report in found[:_LISTED]:
        err.print(f"[{style}]{escape(report.source)}[/]: {escape(report.detail)}", soft_wrap=True)
    if len(found) > _LISTED:
        err.print(f"[{style}]… and {len(found) - _LISTED} more {kind}[/]")


def line(summary: IngestSummary) -> str:
    """A run in one sentence."""
    rate = summary.embedded / summary.seconds if summary.seconds else 0.0
    return (
        f"{summary.documents} documents, {summary.chunks} chunks: {summary.added} added, "
        f"{summary.updated} updated, {summary.unchanged} unchanged, {summary.removed} removed, "
        f"{len(summary.failures)} failed; {summary.embedded} chunks embedded in "
        f"{summary.seconds:.1f} s ({rate:.0f}/s)."
    )


def failures(found: Sequence[FileReport], err: Console) -> None:
    """By reason, so that ten thousand empty files do not hide the one that is broken."""
    reasons: dict[tuple[str, str, str], list[str]] = {}
    for report in found:
        reasons.setdefault((report.reason, report.detail, report.remedy), []).append(report.source)
    for (reason, detail, remedy), sources in sorted(reasons.items(), key=lambda kv: len(kv[1])):
        err.print(
            f"[red]{len(sources)} not read[/] ({reason}): {escape(detail)}. {escape(remedy)}",
            soft_wrap=True,
        )
        for source in sources[:_LISTED]:
            err.print(f"  {escape(source)}", soft_wrap=True, highlight=False)
        if len(sources) > _LISTED:
            err.print(f"  … and {len(sources) - _LISTED} more", highlight=False)


def sources(roots: Sequence[RootStatus], out: Console) -> None:
    """Every source with its counts and its lag, and below what keeps one from being reached."""
    table = Table("Source", "Kind", "Documents", "Chunks", "Checked", "Changed", "Lag", "Failed")
    for root in roots:
        table.add_row(
            escape(root.root),
            root.kind,
            str(root.documents),
            str(root.chunks),
            ago(root.checked),
            ago(root.changed),
            _lag(root),
            str(len(root.failures)),
        )
    out.print(table)
    for root in roots:
        if root.quarantined:
            out.print(
                f"[yellow]{escape(root.root)}[/]: {root.quarantined} passages quarantined: kept, "
                "but what the safety check stops in them is not shown to the policy",
                soft_wrap=True,
            )
        if root.error is not None:
            out.print(
                f"[red]{escape(root.root)}[/]: {escape(root.error.detail)} "
                f"({root.error.reason}). {escape(root.error.remedy)}",
                soft_wrap=True,
            )


def cited(reply: Reply, out: Console) -> None:
    """The sources of an answer, by number."""
    for c in reply.citations:
        where = " › ".join((c.title, *c.headings))
        date = time.strftime("%Y-%m-%d", time.localtime(c.modified))
        out.print(
            f"  [{c.number}] {where}\n      {c.source} · {date} · version {c.version[:8]}",
            style="dim",
            markup=False,
            highlight=False,
            soft_wrap=True,
        )


def why(reply: Reply, err: Console) -> None:
    """What was searched, each step with its time, each passage with its scores."""
    understood = reply.understanding
    err.print(f"searched: {escape(understood.query or '(nothing)')} ({understood.reason})")
    for step in reply.steps:
        err.print(f"  {step.seconds * 1000:7.1f} ms  {step.name}: {escape(step.detail)}")
    for passage in reply.passages:
        stages = ", ".join(f"{f.stage} {f.score:.2f} (#{f.rank})" for f in passage.found_by)
        err.print(f"  {escape(passage.title)}: {stages}", soft_wrap=True)
    card = reply.policy
    version = f" ({card.version})" if card.version else ""
    err.print(f"  confidence {reply.confidence}, policy {card.name}{version}")


def language_of(setting: str, environment: Mapping[str, str]) -> Language:
    """The user's language: as set, else the locale's, else English."""
    names = ("LC_ALL", "LC_MESSAGES", "LANG")
    locale = next((value for name in names if (value := environment.get(name))), "")
    return pick(setting, "", locale)


def hazards(settings: SafetySettings, language: Language, out: Console) -> None:
    """Every hazard, whether the built-in model learnt it, and what set up here looks for it."""
    heads = ("what", "category", "model", "here")
    table = Table(*(say(language, f"hazard_{head}") for head in heads))
    for hazard in HAZARDS:
        table.add_row(
            hazard.label[0 if language == "en" else 1],
            known(language, f"category_{hazard.category}", hazard.category),
            known(language, f"hazard_{hazard.trained}", hazard.trained),
            ", ".join(served(hazard, settings)) or say(language, "hazard_nothing"),
        )
    out.print(table)
    out.print(say(language, "hazard_note"), highlight=False, soft_wrap=True)


def ago(moment: float) -> str:
    """How long ago, in the largest unit that fits."""
    return f"{span(time.time() - moment)} ago" if moment else "never"


def span(duration: float) -> str:
    """A duration of so many seconds, in the largest unit that fits."""
    seconds = max(0, int(duration))
    for size, name in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds // size} {name}"
    return f"{seconds} s"


def _lag(root: RootStatus) -> str:
    if not root.every_minutes:
        return "by hand"
    if not root.checked:
        return "never reached"
    pending = f", {root.pending} pending" if root.pending else ""
    return f"{span(root.lag) if root.lag else '0'}{pending}"
