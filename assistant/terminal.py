"""What the command line shows of documents: a run and what it came to, and the sources."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence

from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table

from assistant.schema import Reply
from retrieval.schema import FileReport, IngestProgress, IngestSummary, RootStatus

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
        for event in events:
            if isinstance(event, IngestSummary):
                summary = event
                continue
            rate = event.embedded / event.seconds if event.seconds else 0.0
            if event.done == 1 and progress.tasks[task].completed > 1:
                task = progress.add_task("files", total=event.total, rate="")
            progress.update(
                task, total=event.total, completed=event.done, rate=f"{rate:.0f} chunks/s"
            )
    assert summary is not None
    return summary


def conclude(summary: IngestSummary, out: Console, err: Console) -> int:
    """Print what a run came to; 1 where anything failed, empty files aside."""
    failures(summary.failures, err)
    for report in summary.remarks[:_LISTED]:
        err.print(f"[dim]{escape(report.source)}: {escape(report.detail)}[/]", soft_wrap=True)
    if len(summary.remarks) > _LISTED:
        err.print(f"[dim]… and {len(summary.remarks) - _LISTED} more remarks[/]")
    if summary.ignored:
        kinds = ", ".join(f"{count} {suffix}" for suffix, count in summary.ignored)
        err.print(f"[dim]Other files in these folders, not read: {escape(kinds)}[/]")
    out.print(line(summary))
    return 1 if any(f.reason != "empty" for f in summary.failures) else 0


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
    err.print(f"  confidence {reply.confidence}, policy {reply.policy.name}")


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
