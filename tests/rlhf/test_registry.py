"""The registry: candidates whole or not there, promoted through gates, logged, rolled back."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from filelock import FileLock

import app
from assistant.config import PromotionSettings
from assistant.policy._promoted import verify
from rlhf._manifest import Manifest
from rlhf.errors import (
    CandidateBroken,
    NotPromotable,
    RegistryBusy,
    RegistryError,
    UnknownCandidate,
)
from rlhf.gates import NAMES, Gate
from rlhf.registry import LOG, Registry

PASSED = tuple(Gate(name, 1.0, (0.9, 1.1), (0.5, None), True, "well", 100) for name in NAMES)
Make = Callable[..., Manifest]


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    """One whose clock moves a second a look."""
    now = iter(range(1_000_000, 2_000_000))
    settings = PromotionSettings(keep=2, busy_seconds=0.2)
    return Registry(tmp_path / "answers", settings, clock=lambda: float(next(now)))


@pytest.fixture
def make(registry: Registry, tmp_path: Path) -> Make:
    """Add a candidate of two files."""

    def made(text: str = "one", **values: object) -> Manifest:
        source = tmp_path / "trained"
        shutil.rmtree(source, ignore_errors=True)
        (source / "below").mkdir(parents=True)
        (source / "weights.bin").write_text(text, encoding="utf-8")
        (source / "below" / "more.txt").write_text("再来", encoding="utf-8")
        live = registry.pointer().live
        fixed = {
            "policy": {"backend": "quote", "model": "."},
            "data_sha256": "d" * 64,
            "config": {"rate": 0.1, "stages": ["sft", "ppo"]},
            "seeds": [7, 8],
            "metrics": {"win_rate": 0.6},
            "gates": PASSED,
            "against": live.id if live else "",
        }
        return registry.add(source, **{**fixed, **values})  # type: ignore[arg-type]

    return made


def live(registry: Registry) -> str:
    """Who answers."""
    ref = registry.pointer().live
    return ref.id if ref is not None else ""


def test_a_candidate_comes_back_as_it_was_added(registry: Registry, make: Make) -> None:
    """Id, parent, time, data, configuration, seeds, metrics, gates and hashes are all there."""
    made = make(parent="p")
    assert registry.load(made.id) == made
    assert (made.parent, made.seeds, made.gates, made.metrics) == (
        "p",
        (7, 8),
        PASSED,
        {"win_rate": 0.6},
    )
    assert set(made.files) == {"weights.bin", "below/more.txt"}
    assert registry.entries()[0].state == "candidate"


def test_promote_and_roll_back(registry: Registry, make: Make) -> None:
    """The pointer follows; rolling back leads through those before to the settings' policy."""
    first = make("one").id
    registry.promote(first, who="ann")
    second = make("two").id
    registry.promote(second, who="ann", reason="better")
    states = {entry.id: entry.state for entry in registry.entries()}
    assert (live(registry), states) == (second, {first: "before", second: "live"})
    registry.rollback(who="bob", reason="worse after all")
    assert live(registry) == first
    registry.rollback(who="bob")
    assert live(registry) == ""
    with pytest.raises(RegistryError, match="nothing to roll back"):
        registry.rollback(who="bob")
    told = [(d.action, d.who, d.reason) for d in registry.decisions()]
    assert told == [
        ("promote", "ann", ""),
        ("promote", "ann", "better"),
        ("rollback", "bob", "worse after all"),
        ("rollback", "bob", ""),
    ]


def test_gates_must_pass_against_who_answers(registry: Registry, make: Make) -> None:
    """A failed gate, a missing one and gates measured beside another policy each stop it."""
    failed = (*PASSED[:-1], replace(PASSED[-1], passed=False, reason="too long"))
    cases = (
        ({"gates": failed}, f"{NAMES[-1]}: too long"),
        ({"gates": PASSED[1:]}, f"{NAMES[0]}: was not measured"),
        ({"gates": ()}, "was not measured"),
        ({"against": "20200101-000000-aaaaaaaa"}, "measured against 20200101"),
    )
    for values, said in cases:
        name = make(said, **values).id
        with pytest.raises(NotPromotable, match=said):
            registry.promote(name, who="ann")
        with pytest.raises(NotPromotable, match=said):
            registry.begin_trial(name, 0.1, who="ann")
    assert (live(registry), registry.decisions()) == ("", [])
    registry.promote(name, who="ann", force=True, reason="I know")
    assert registry.decisions()[0].action == "promote by force"


def test_gates_are_measured_after_the_candidate_is_made(registry: Registry, make: Make) -> None:
    """What is measured later is written into the manifest, until the candidate is in use."""
    name = make(gates=()).id
    registry.measured(name, PASSED, "", {"kl": 3.0})
    assert registry.load(name).metrics == {"win_rate": 0.6, "kl": 3.0}
    registry.promote(name, who="ann")
    with pytest.raises(RegistryError, match="in use"):
        registry.measured(name, (), "", {})


def test_what_is_broken_is_not_promoted(registry: Registry, make: Make) -> None:
    """A changed or missing file is named; the live policy stays; the list shows it."""
    name = make().id
    path = registry.folder(name) / "weights.bin"
    path.write_text("two", encoding="utf-8")
    with pytest.raises(CandidateBroken, match=r"weights\.bin is not what its manifest says"):
        registry.promote(name, who="ann", force=True)
    path.unlink()
    with pytest.raises(CandidateBroken, match=r"lacks weights\.bin"):
        registry.promote(name, who="ann")
    assert (live(registry), registry.entries()[0].state) == ("", "broken")
    for strange in ("nobody", "../x", ""):
        with pytest.raises(UnknownCandidate):
            registry.load(strange)


def test_rolling_back_passes_over_what_is_broken(registry: Registry, make: Make) -> None:
    """A damaged policy before the live one is passed over, and the log says so."""
    first = make("one").id
    registry.promote(first, who="ann")
    second = make("two").id
    registry.promote(second, who="ann")
    (registry.folder(first) / "weights.bin").unlink()
    registry.rollback(who="ann", reason="worse")
    assert live(registry) == ""
    assert f"worse; {first} passed over" in registry.decisions()[-1].reason


def test_the_last_few_are_kept(registry: Registry, make: Make) -> None:
    """Who answers, as many of those before as `keep` says, and as many of the newest others."""
    promoted = []
    for number in range(5):
        promoted.append(make(str(number)).id)
        registry.promote(promoted[-1], who="ann")
    others = [make(f"other {number}").id for number in range(4)]
    kept = {entry.id for entry in registry.entries()}
    assert kept == {*promoted[2:], *others[2:]}


def test_a_trial_begins_and_ends(registry: Registry, make: Make) -> None:
    """One at a time, with a share, and promoting it ends it."""
    first, second = make("one").id, make("two").id
    for share in (0.0, 1.0, -1.0, float("nan")):
        with pytest.raises(RegistryError, match="between 0 and 1"):
            registry.begin_trial(first, share, who="ann")
    registry.begin_trial(first, 0.3, who="ann")
    with pytest.raises(RegistryError, match="is on trial"):
        registry.begin_trial(second, 0.3, who="ann")
    registry.end_trial(who="ann")
    with pytest.raises(RegistryError, match="no candidate is on trial"):
        registry.end_trial(who="ann")
    registry.begin_trial(second, 0.3, who="ann")
    registry.promote(second, who="ann")
    assert (live(registry), registry.pointer().trial) == (second, None)


def test_a_changed_log_is_noticed(registry: Registry, make: Make) -> None:
    """A line that was changed, removed or cut off at the end breaks the chain; a torn one not."""
    for number in range(3):
        registry.promote(make(str(number)).id, who="ann", reason=f"reason {number}")
    path = registry.root / LOG
    whole = path.read_bytes()
    lines = whole.splitlines(keepends=True)
    for changed in (
        whole.replace(b"reason 1", b"reason 9"),
        lines[0] + lines[2],
        lines[0],
        b"",
        whole + b"{}\n",
    ):
        path.write_bytes(changed)
        with pytest.raises(RegistryError):
            registry.decisions()
    path.write_bytes(lines[0] + lines[1] + lines[2][:20])  # as a crash leaves it
    assert [d.reason for d in registry.decisions()] == ["reason 0", "reason 1", "reason 2"]
    registry.rollback(who="ann")
    assert (len(registry.decisions()), path.read_bytes().startswith(whole)) == (4, True)


def test_another_writer_is_waited_for_and_then_named(registry: Registry, make: Make) -> None:
    """Two writers never mix; who waits too long is told to try again."""
    name = make().id
    with FileLock(registry.root / ".lock"), ThreadPoolExecutor(1) as pool:
        task = pool.submit(registry.promote, name, who="ann")
        with pytest.raises(RegistryBusy, match="try again"):
            task.result(30)
    assert live(registry) == ""


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_metric_that_is_no_number_is_refused(value: float, make: Make) -> None:
    """A manifest holds finite numbers only."""
    with pytest.raises(RegistryError, match="metric 'loss'"):
        make(metrics={"loss": value})


def test_a_linked_file_is_refused(registry: Registry, tmp_path: Path) -> None:
    """A candidate's files are its own."""
    source = tmp_path / "linked"
    source.mkdir()
    (source / "weights.bin").symlink_to("/etc/hostname")
    with pytest.raises(RegistryError, match="is a link"):
        registry.add(source, policy={}, data_sha256="", config={}, seeds=[])
    assert registry.entries() == []


#: Dies at the n-th change of a file below the home, for every n until nothing is left to die at.
CRASHES = """
import logging, os, shutil, sys
from pathlib import Path
from rlhf.registry import Registry
from rlhf.gates import NAMES, Gate

logging.disable()
home, what = Path(sys.argv[1]), sys.argv[2]
passed = tuple(Gate(n, 1.0, None, (None, None), True, "", 1) for n in NAMES)
source = home.parent / "source"
source.mkdir()
(source / "weights.bin").write_text("weights")

def add(registry, against):
    return registry.add(source, policy={"backend": "echo"}, data_sha256="", config={}, seeds=[],
                        gates=passed, against=against).id

clock = iter(range(10**6, 10**7))
start = Registry(home, clock=lambda: float(next(clock)))
first = add(start, ""); start.promote(first, who="t")
second = add(start, first)
third = add(start, first)
if what == "rollback":
    start.promote(second, who="t")
saved = home.with_name("saved"); shutil.copytree(home, saved)
EVENTS = {"open", "os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.truncate"}

def die_at(number):
    left = [number]
    def hook(event, args):
        if event in EVENTS and any(str(home) in str(a) for a in args):
            writes = event != "open" or (isinstance(args[1], str) and args[1][:1] in "wax")
            left[0] -= writes
            if writes and left[0] < 0:
                os._exit(9)
    sys.addaudithook(hook)

deaths = 0
while True:
    shutil.rmtree(home); shutil.copytree(saved, home)
    child = os.fork()
    if not child:
        die_at(deaths)
        registry = Registry(home, clock=lambda: float(next(clock)))
        if what == "promote": registry.promote(second, who="t")
        elif what == "trial": registry.begin_trial(second, 0.5, who="t")
        elif what == "rollback": registry.rollback(who="t")
        else: add(registry, first)
        os._exit(0)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    after = Registry(home, clock=lambda: float(next(clock)))
    live = after.pointer().live
    old, new = {"promote": (first, second), "rollback": (second, first)}.get(what, (first, first))
    assert live.id in (old, new), live
    after.load(live.id)
    assert all(e.state != "broken" for e in after.entries()), after.entries()
    told = after.decisions()
    assert told[-1] == after.pointer().decision
    done = live.id == new if what in ("promote", "rollback") else None
    if code == 0:
        assert done in (True, None)
    if live.id != third:  # and everything goes on from there
        after.promote(third, who="t", force=True)
        assert len(after.decisions()) == len(told) + 1
    left = [p.name for p in after.root.iterdir() if p.name.startswith((".part", ".gone"))]
    assert not left, left
    if code == 0:
        break
    assert code == 9, code
    deaths += 1
print(deaths)
"""


@pytest.mark.parametrize("what", ["promote", "rollback", "trial", "add"])
def test_a_crash_at_any_step_leaves_a_usable_policy(what: str, root: Path, tmp_path: Path) -> None:
    """Killed before every single change of a file, the registry is as before or as after."""
    home = tmp_path / "crashed" / "answers"
    home.parent.mkdir()
    done = subprocess.run(
        [sys.executable, "-c", CRASHES, str(home), what],
        cwd=root,
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert int(done.stdout) >= 3


def test_the_command_lists_promotes_and_rolls_back(
    registry: Registry, make: Make, capsys: pytest.CaptureFixture[str]
) -> None:
    """As a user types it; what cannot be done is one line and exit status 1."""
    good, bad = make("one").id, make("two", gates=()).id

    def run(*words: str) -> tuple[int, str]:
        code = app.main([f"--set=home={registry.root.parent}", "policy", *words])
        told = capsys.readouterr()
        return code, " ".join((told.out + told.err).split())

    assert "The policy of the settings answers." in run("list")[1]
    code, told = run("show", good)
    assert (code, "weights.bin" in told, "win_rate" in told) == (0, True, True)
    assert run("promote", bad)[0] == 1
    assert run("promote")[0] == 1
    assert run("promote", good, "--reason", "better") == (0, f"{good} answers.")
    code, told = run("canary", bad, "--share", "0.25", "--force")
    assert (code, told) == (0, f"{good} answers. {bad} is on trial with 25% of the conversations.")
    assert "fewer than 20 votes on a side" in run("canary")[1]
    assert run("canary", "--stop") == (0, f"{good} answers.")
    assert run("rollback") == (0, "The policy of the settings answers.")
    assert run("canary")[0] == 1
    assert "promote" in run("log")[1]
    assert json.loads((registry.root / "live.json").read_text(encoding="utf-8"))["sequence"] == 4
    verify(registry.root, good)
