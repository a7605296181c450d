"""The left of the page: the list of chats, what is indexed, and a running ingestion."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path

from assistant.schema import Conversation
from assistant.ui.render import button, escape, page
from assistant.ui.render_panel import UPLOADS, short
from assistant.ui.strings import Language, ago, count, known, say, span
from retrieval.schema import FileReport, IndexStatus, IngestProgress, IngestSummary, RootStatus

#: The product's own guide, ingested at every start: it has a name, and cannot be removed here.
GUIDE = str(Path(__file__).resolve().parents[2] / "docs")

_SHOWN_FAILURES = 50


def sessions(
    chats: Sequence[Conversation], current: str, language: Language, now: float | None = None
) -> str:
    """The user's chats, newest first, grouped by day; one whose only turn was stopped is empty."""
    chats = [chat for chat in chats if chat.turns]
    if not chats:
        return page(f'<p class="pl-empty">{escape(say(language, "no_chats"))}</p>')
    groups: dict[str, list[str]] = {}
    for chat in sorted(chats, key=lambda c: c.updated, reverse=True):
        day = _day(chat.updated, time.time() if now is None else now)
        groups.setdefault(day, []).append(_session(chat, chat.id == current, language))
    body = "".join(
        f'<h3 class="pl-day">{escape(say(language, day))}</h3><ul>{"".join(items)}</ul>'
        for day, items in groups.items()
    )
    return page(
        f'<nav class="pl-sessions" aria-label="{escape(say(language, "chats"))}">{body}</nav>'
    )


def account(name: str, language: Language) -> str:
    """Who signed in, and the way out."""
    out = button("sign-out", say(language, "sign_out"), classes="pl-quiet")
    words = escape(say(language, "signed_in", name=name))
    return page(f'<div class="pl-account"><small>{words}</small>{out}</div>')


def shelf(status: IndexStatus, language: Language, note: str = "") -> str:
    """What is indexed, root by root. `note` is a sentence on what just happened."""
    rows = "".join(_root(root, language) for root in status.roots)
    if not rows:
        rows = f'<li class="pl-empty">{escape(say(language, "nothing_indexed"))}</li>'
    said = f'<p class="pl-note" role="status">{escape(note)}</p>' if note else ""
    return page(f'{said}<ul class="pl-roots">{rows}</ul>')


def summary_line(status: IndexStatus, language: Language) -> str:
    """One line for the top of the page: how much is known, and whether it is current and sound."""
    lag = max(0, status.sequence - status.served)
    if status.switching:
        fresh = say(language, "switching", share=f"{status.switched:.0%}")
    elif status.health:
        fresh = say(language, "unsound")
    else:
        fresh = count(language, "lagging", lag) if lag else say(language, "fresh")
    state = "pl-lagging" if lag or status.switching or status.health else "pl-fresh"
    why = f' title="{escape(status.health)}"' if status.health else ""
    return page(
        f'<div class="pl-status {state}"{why}><span class="pl-dot" aria-hidden="true"></span>'
        f"{escape(count(language, 'documents', status.documents))} · {escape(fresh)}</div>"
    )


def progress(
    tick: IngestProgress | None, failures: Sequence[FileReport], language: Language
) -> str:
    """A running ingestion: bar, speed, what remains, and the files that failed so far."""
    done, total = (tick.done, tick.total) if tick else (0, 0)
    checking = tick is not None and tick.phase == "check"
    counted = "checked_of" if checking else "files_of"
    facts = [say(language, counted, done=f"{done:,}", total=f"{total:,}")] if tick else []
    if tick and done and tick.seconds > 0:
        speed = done / tick.seconds
        if not checking:
            shown = f"{speed:.1f}" if speed < 10 else f"{speed:,.0f}"
            facts.append(say(language, "rate", n=shown))
        if total > done:
            left = span(language, max(1.0, (total - done) / speed))
            facts.append(say(language, "remaining", span=left))
    bar = (
        f'<progress value="{done}" max="{max(1, total)}"></progress>'
        if tick
        else "<progress></progress>"
    )
    stop = button("stop-reading", say(language, "stop_reading"), classes="pl-quiet")
    return page(
        f'<div class="pl-ingest" role="status"><div class="pl-row"><span>'
        f"{escape(say(language, 'checking' if checking else 'reading'))}</span>{stop}</div>{bar}"
        f'<small class="pl-facts">{escape(" · ".join(facts))}</small>'
        f"{_failures(failures, language)}</div>"
    )


def ingested(result: IngestSummary, language: Language) -> str:
    """What an ingestion did, and each file that could not be read."""
    line = say(language, "ingest_done", span=span(language, result.seconds))
    counts = (
        ("added", result.added),
        ("updated", result.updated),
        ("unchanged", result.unchanged),
        ("gone", result.removed),
    )
    facts = [say(language, key, n=f"{n:,}") for key, n in counts if n]
    left = " · ".join(f"{suffix} {n:,}" for suffix, n in result.ignored)
    left_out = f"<small>{escape(say(language, 'left_out', what=left))}</small>" if left else ""
    return page(
        f'<div class="pl-ingest pl-done" role="status"><span>{escape(line)}</span>'
        f'<small class="pl-facts">{escape(" · ".join(facts))}</small>{left_out}'
        f"{_quarantined(result.remarks, language)}"
        f"{_failures(result.failures, language)}</div>"
    )


def notice(words: str, code: str = "", *, bad: bool = True) -> str:
    """A sentence about something that did not work, or that ended early."""
    small = f"<small>{escape(code)}</small>" if code else ""
    look, role = (" pl-error", "alert") if bad else ("", "status")
    return page(
        f'<div class="pl-ingest{look}" role="{role}"><span>{escape(words)}</span>{small}</div>'
    )


def _day(updated: float, now: float) -> str:
    age = datetime.fromtimestamp(now).date() - datetime.fromtimestamp(updated).date()
    return "today" if age.days <= 0 else "yesterday" if age.days == 1 else "earlier"


def _session(chat: Conversation, current: bool, language: Language) -> str:
    title = chat.title.strip() or say(language, "untitled")
    data = {"conversation": chat.id}
    label = escape(say(language, "chat_title"))
    here = ' aria-current="true"' if current else ""
    return (
        f'<li class="pl-session{" pl-current" if current else ""}"{here}><div class="pl-row">'
        f"{button('open', title, classes='pl-open', data=data)}"
        f"{button('open-rename', say(language, 'rename'), icon='edit', classes='pl-mini')}"
        f"{button('open-delete', say(language, 'delete'), icon='trash', classes='pl-mini')}</div>"
        f'<div class="pl-form" data-form="rename" hidden><input type="text" maxlength="120" '
        f'aria-label="{label}" value="{escape(title)}"><div class="pl-row">'
        f"{button('rename', say(language, 'save'), classes='pl-main', data=data)}"
        f"{_cancel(language)}</div></div>"
        f"{_confirm('delete', language, data)}</li>"
    )


def _root(root: RootStatus, language: Language) -> str:
    names = {GUIDE: say(language, "guide"), UPLOADS: say(language, "uploads")}
    known_as = names.get(root.root, short(root.root))
    remove = confirm = ""
    if root.root != GUIDE:
        remove = button("open-remove", say(language, "remove"), icon="trash", classes="pl-mini")
        confirm = _confirm("remove", language, {"root": root.root})
    return (
        f'<li class="pl-root"><div class="pl-row">'
        f'<div class="pl-names" title="{escape(root.root)}">'
        f'<div class="pl-name">{escape(known_as)}</div>{_facts(root, language)}</div>'
        f"{remove}</div>{confirm}"
        f"{_failures(_all_failures(root), language)}</li>"
    )


def _facts(root: RootStatus, language: Language) -> str:
    """How much a source holds, when it was checked and changed, and how far it is behind."""
    kind = known(language, f"kind_{root.kind}", "")
    much = [kind] if kind else []
    much.append(count(language, "documents", root.documents))
    if root.chunks or not root.documents:  # not counted for everybody
        much.append(count(language, "passages", root.chunks))
    if root.quarantined:
        much.append(count(language, "quarantined", root.quarantined))
    if root.readers:
        much.append(say(language, "limited", names=", ".join(root.readers)))
    when = [say(language, "synced", ago=ago(language, root.synced))]
    if root.checked:
        when = [say(language, "checked", ago=ago(language, root.checked))]
    if root.changed:
        when.append(say(language, "changed", ago=ago(language, root.changed)))
    if root.pending:
        when.append(count(language, "waiting", root.pending))
    if root.lag and root.checked:
        when.append(say(language, "overdue", span=span(language, root.lag)))
    lines = (" · ".join(parts) for parts in (much, when))
    return "".join(f"<small>{escape(line)}</small>" for line in lines)


def _all_failures(root: RootStatus) -> tuple[FileReport, ...]:
    """What could not be read, and first of all why the source could not be reached."""
    if root.error is None:
        return root.failures
    rest = tuple(f for f in root.failures if f.source != root.error.source)
    return (root.error, *rest)


def _confirm(action: str, language: Language, data: Mapping[str, object]) -> str:
    """The question asked before something goes away."""
    sure = button(action, say(language, action), classes="pl-danger", data=data)
    return (
        f'<div class="pl-form" data-form="{action}" hidden>'
        f"<span>{escape(say(language, f'{action}_sure'))}</span>"
        f'<div class="pl-row">{sure}{_cancel(language)}</div></div>'
    )


def _cancel(language: Language) -> str:
    return button("close-form", say(language, "cancel"), classes="pl-quiet")


def _failures(failures: Sequence[FileReport], language: Language) -> str:
    """Files that could not be read; empty ones apart, and without alarm: nothing is amiss."""
    empty = [f for f in failures if f.reason == "empty"]
    bad = [f for f in failures if f.reason != "empty"]
    return _listed(bad, "failed_files", "", language) + _listed(
        empty, "empty_files", " pl-calm", language
    )


def _listed(failures: Sequence[FileReport], key: str, calm: str, language: Language) -> str:
    if not failures:
        return ""
    items = "".join(_failure(report, language) for report in failures[:_SHOWN_FAILURES])
    title = escape(count(language, key, len(failures)))
    return (
        f'<details class="pl-failures{calm}"><summary>{title}</summary><ul>{items}</ul></details>'
    )


def _quarantined(remarks: Sequence[FileReport], language: Language) -> str:
    """Documents with passages that the policy is not shown as they are, and what that means."""
    found = [report for report in remarks if report.quarantined]
    if not found:
        return ""
    items = "".join(
        f'<li><span class="pl-name">{escape(Path(short(r.source)).name)}</span>'
        f"<small>{escape(count(language, 'quarantined', r.quarantined))}</small></li>"
        for r in found[:_SHOWN_FAILURES]
    )
    title = escape(count(language, "quarantine_found", len(found)))
    meaning = escape(say(language, "quarantine_meaning"))
    return (
        f'<details class="pl-failures" open><summary>{title}</summary>'
        f"<small>{meaning}</small><ul>{items}</ul></details>"
    )


def _failure(report: FileReport, language: Language) -> str:
    reason = known(language, f"file_{report.reason}", report.detail or report.reason)
    remedy = known(language, f"remedy_{report.reason}", report.remedy)
    return (
        f'<li><span class="pl-name">{escape(Path(short(report.source)).name)}</span>'
        f"<small>{escape(reason)} {escape(remedy)}</small></li>"
    )
