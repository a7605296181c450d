from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from safety.audit import GENESIS, AuditLog, Entry, check, text_hash, verify
from safety.errors import AuditBroken

ROOT = Path(__file__).resolve().parents[2]


def entry(number: int) -> Entry:
    """Make a decision about an invented text."""
    return Entry(
        decision=f"d{number}",
        side="input",
        action="refuse",
        category="illicit",
        reason="illicit.test",
        moderator="rules",
        policy="p" * 64,
        text_sha256=text_hash(f"text {number}"),
        length=6,
    )


@pytest.fixture
def log(tmp_path: Path) -> AuditLog:
    """Give a log of three records, two of them from one append."""
    log = AuditLog(tmp_path / "audit" / "log.jsonl", sync=False)
    log.append([entry(0)])
    log.append([entry(1), entry(2)])
    return log


def test_an_untouched_log_verifies(log: AuditLog) -> None:
    """Records chain from the first, over appends."""
    report = check(log.path)
    assert (report.records, report.sealed, report.torn) == (3, (), False)
    assert report.head != GENESIS


def test_no_log_is_an_empty_log(tmp_path: Path) -> None:
    """A log that was never written verifies, and an empty append writes none."""
    AuditLog(tmp_path / "a.jsonl").append([])
    assert verify(tmp_path / "a.jsonl").records == 0
    assert verify(tmp_path / "a.jsonl").ok


def test_the_text_is_never_written(log: AuditLog) -> None:
    """A record holds the text's hash and length, not the text."""
    assert b"text 1" not in log.path.read_bytes()
    assert text_hash("text 1").encode() in log.path.read_bytes()


def test_any_changed_byte_is_detected(log: AuditLog) -> None:
    """Whatever byte is changed, the log no longer passes as whole."""
    good = log.path.read_bytes()
    for place in range(len(good)):
        log.path.write_bytes(good[:place] + bytes([good[place] ^ 1]) + good[place + 1 :])
        report = verify(log.path)
        assert not report.ok or report.torn, place


@pytest.mark.parametrize("line", [0, 1])
def test_a_missing_moved_or_repeated_record_is_detected(log: AuditLog, line: int) -> None:
    """Removing, swapping or repeating whole records breaks the chain, and the line is named."""
    lines = log.path.read_bytes().splitlines(keepends=True)
    for broken in (
        lines[:line] + lines[line + 1 :],
        [*lines[:line], lines[line + 1], lines[line], *lines[line + 2 :]],
        [*lines[: line + 1], *lines[line:]],
    ):
        log.path.write_bytes(b"".join(broken))
        with pytest.raises(AuditBroken, match=r"line \d"):
            check(log.path)


def test_a_head_kept_elsewhere_shows_a_cut_end(log: AuditLog) -> None:
    """A log cut at a record's end still chains; its head differs from the one kept."""
    head = verify(log.path).head
    lines = log.path.read_bytes().splitlines(keepends=True)
    log.path.write_bytes(b"".join(lines[:-1]))
    assert verify(log.path).ok
    assert verify(log.path).head != head


def test_a_torn_end_is_reported_then_sealed(log: AuditLog) -> None:
    """Wherever a crash cuts the last append, it is reported, sealed, and the chain goes on."""
    good = log.path.read_bytes()
    first = good.index(b"\n") + 1
    for cut in range(first, len(good)):
        log.path.write_bytes(good[:cut])
        whole_lines = good[cut - 1 : cut] == b"\n"
        before = verify(log.path)
        assert before.ok
        assert before.torn is not whole_lines
        log.append([entry(9)])
        after = check(log.path)
        assert not after.torn
        record_complete = good[cut : cut + 1] == b"\n"
        assert bool(after.sealed) is not (whole_lines or record_complete)


def test_a_sealed_line_may_not_be_changed(log: AuditLog) -> None:
    """The seal holds the torn line's hash, so that it cannot be rewritten afterwards."""
    good = log.path.read_bytes()
    log.path.write_bytes(good[:-20])
    log.append([entry(9)])
    sealed = log.path.read_bytes()
    place = len(good) - 40
    log.path.write_bytes(sealed[:place] + b"#" + sealed[place + 1 :])
    assert not verify(log.path).ok


def test_a_damaged_end_takes_no_more_records(log: AuditLog) -> None:
    """Appending to a log whose last record was changed is refused."""
    good = log.path.read_bytes()
    log.path.write_bytes(good[:-10] + b"#" + good[-9:])
    with pytest.raises(AuditBroken, match="damaged"):
        log.append([entry(3)])


def test_a_long_last_record_is_found(log: AuditLog) -> None:
    """The last record is read whole however long it is."""
    log.append([replace(entry(3), reason="x" * 200_000)])
    log.append([entry(4)])
    assert check(log.path).records == 5


def test_several_processes_append_to_one_chain(log: AuditLog) -> None:
    """Appends of several processes interleave, and every record is kept."""
    script = (
        "import sys; from pathlib import Path; from safety.audit import AuditLog, Entry\n"
        "log = AuditLog(Path(sys.argv[1]), sync=False)\n"
        "for i in range(20):\n"
        "    log.append([Entry(f'{sys.argv[2]}.{i}', *'abcdef', 'h', 1)])\n"
    )
    runs = [
        subprocess.Popen([sys.executable, "-c", script, str(log.path), str(n)], cwd=ROOT)
        for n in range(3)
    ]
    assert [run.wait(60) for run in runs] == [0, 0, 0]
    assert check(log.path).records == 63
