"""Lists the candidates, and says which one answers."""

from __future__ import annotations

import argparse
import getpass
import time

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from assistant.config import Settings
from assistant.policy._promoted import Pointer
from rlhf import canary
from rlhf._manifest import Manifest
from rlhf.errors import RegistryError
from rlhf.gates import failing
from rlhf.registry import Registry

HELP = "list trained policies, promote one, try one on a share of the chats, roll back"
ACTIONS = ("list", "show", "promote", "rollback", "canary", "log")


def arguments(parser: argparse.ArgumentParser) -> None:
    """What to do, and with which candidate."""
    parser.add_argument("what", choices=ACTIONS)
    parser.add_argument("candidate", nargs="?", default="", help="id, as the list shows it")
    parser.add_argument("--reason", default="", help="why; kept in the log of decisions")
    parser.add_argument("--force", action="store_true", help="whatever the gates say")
    parser.add_argument("--share", type=float, help="share of the conversations (canary)")
    parser.add_argument("--stop", action="store_true", help="take the one on trial back (canary)")


def run(options: argparse.Namespace, settings: Settings, out: Console) -> int:
    """Carry it out; 1 where `canary` is asked for and no candidate answers anybody."""
    registry = Registry(settings.home, settings.promotion)
    who, why = getpass.getuser(), options.reason
    if options.what == "list":
        _list(registry, out)
    elif options.what == "show":
        _show(registry.load(_named(options)), out)
    elif options.what == "promote":
        registry.promote(_named(options), who=who, reason=why, force=options.force)
        _now(registry.pointer(), out)
    elif options.what == "rollback":
        registry.rollback(who=who, reason=why)
        _now(registry.pointer(), out)
    elif options.what == "log":
        for made in registry.decisions():
            about = made.ref.id if made.ref else ""
            line = f"{made.sequence}  {_date(made.at)}  {made.action} {about} by {made.who}"
            _say(f"{line}: {made.reason}" if made.reason else line, out)
    else:
        return _canary(registry, options, settings, who, out)
    return 0


def _canary(
    registry: Registry, options: argparse.Namespace, settings: Settings, who: str, out: Console
) -> int:
    if options.stop:
        registry.end_trial(who=who, reason=options.reason)
    elif options.candidate:
        share = options.share or settings.canary.share
        registry.begin_trial(
            options.candidate, share, who=who, reason=options.reason, force=options.force
        )
    else:
        found = canary.consider(registry, settings.home / "preferences.db", settings.canary)
        if found is None:
            _say("No candidate answers anybody, so there are no votes to look at.", out)
            return 1
        finding, _ = found
        _say(f"{finding.action}: {finding.reason}", out)
    _now(registry.pointer(), out)
    return 0


def _list(registry: Registry, out: Console) -> None:
    table = Table("Candidate", "State", "Made", "From", "Policy", "Gates")
    for entry in registry.entries():
        made = entry.manifest
        if made is None:
            table.add_row(entry.id, "[red]broken[/]", "", "", "", escape(entry.error))
            continue
        table.add_row(
            entry.id,
            entry.state,
            _date(made.created),
            made.parent or "settings",
            escape(str(made.policy.get("backend", ""))),
            f"{len(failing(made.gates))} not passed" if failing(made.gates) else "passed",
        )
    out.print(table)
    _now(registry.pointer(), out)


def _show(made: Manifest, out: Console) -> None:
    _say(f"{made.id}, made {_date(made.created)} from {made.parent or 'the settings'}", out)
    _say(f"policy {made.policy}, seeds {list(made.seeds)}", out)
    _say(f"data {made.data_sha256}", out)
    for name, value in sorted(made.metrics.items()):
        _say(f"  {name} = {value:g}", out)
    table = Table("Gate", "Value", "Interval", "Passed", "Rows", "Why")
    for gate in made.gates:
        number = "" if gate.value is None else f"{gate.value:.3f}"
        low, high = gate.interval or (None, None)
        span = "" if low is None else f"{low:.3f} to {high:.3f}"
        passed = "yes" if gate.passed else "[red]no[/]"
        table.add_row(gate.name, number, span, passed, str(gate.n), escape(gate.reason))
    out.print(table)
    for name, digest in sorted(made.files.items()):
        _say(f"  {digest[:16]}  {name}", out)


def _now(pointer: Pointer, out: Console) -> None:
    _say(f"{pointer.live.id if pointer.live else 'The policy of the settings'} answers.", out)
    if pointer.trial is not None:
        share = f"{pointer.trial.share:.0%}"
        _say(f"{pointer.trial.ref.id} is on trial with {share} of the conversations.", out)


def _named(options: argparse.Namespace) -> str:
    if not options.candidate:
        raise RegistryError(f"`policy {options.what}` needs a candidate's id; see `policy list`")
    return str(options.candidate)


def _date(moment: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(moment))


def _say(line: str, out: Console) -> None:
    out.print(line, markup=False, highlight=False, soft_wrap=True)
