"""Whether clients can tell us from the original: `python -m bench.conformance`.

A server of ours runs as a process of its own, with doubles for the policy and the encoder, over
three documents. One row a behaviour and client: OpenAI's client of our environment in strict
validation, langchain-openai, plain HTTP, and OpenAI's client 1.x and 2.x, each in an environment of
its own that `--setup` makes. `--fuzz` adds schemathesis on the server's OpenAPI description, with a
key and without. `passed` and `failed` count rows; a client without its environment is `skipped`,
with the reason in the table.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import venv
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from rich.console import Console
from rich.table import Table

from bench import conform_langchain, conform_raw, fuzz
from bench.common import scratch
from bench.conform_rows import Row, Target, loaded
from bench.conform_target import targeted
from bench.service import ROOT

#: Clients in environments of their own, with what is installed there.
HOMES = {"openai1": "openai==1.*", "openai2": "openai==2.*"}
CLIENTS = ("openai", *HOMES, "langchain", "raw")
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")


def main(arguments: Sequence[str] | None = None) -> None:
    """Set up, or run and report."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--setup", action="store_true", help="make the environments, and end")
    parser.add_argument("--homes", type=Path, default=CACHE / "plumbline" / "bench-conformance")
    parser.add_argument("--clients", nargs="+", choices=CLIENTS, default=[*CLIENTS])
    parser.add_argument("--fuzz", action="store_true", help="schemathesis too")
    parser.add_argument("--examples", type=int, default=100, help="of schemathesis, an operation")
    options = parser.parse_args(arguments)
    if options.setup:
        for name, wanted in HOMES.items():
            set_up(options.homes / name, [wanted])
        return
    rows: list[Row] = []
    skipped = []
    with scratch() as folder, targeted(folder / "home") as target:
        for name in options.clients:
            if name in HOMES and not python(options.homes / name).is_file():
                skipped.append((name, "no environment; make it with --setup"))
            else:
                rows += of(name, target, options.homes)
        if options.fuzz:
            for who, given in (("with a key", target.key), ("without a key", "")):
                problem = fuzz.run(target.url, target.key, given, options.examples)
                rows.append(Row("schemathesis", f"the OpenAPI description holds {who}", problem))
    show(rows, skipped)
    if any(row.problem for row in rows):
        raise SystemExit(1)


def python(home: Path) -> Path:
    """The interpreter of an environment."""
    return home / "bin" / "python"


def set_up(home: Path, wanted: Sequence[str]) -> None:
    """Make an environment with packages of its own; one that is there is brought up to date."""
    print(f"{home}: {' '.join(wanted)}")
    if not python(home).is_file():
        venv.create(home, with_pip=True)
    subprocess.run([str(python(home)), "-m", "pip", "install", "-q", *wanted], check=True)


def of(name: str, target: Target, homes: Path) -> list[Row]:
    """The rows of a client."""
    if name == "langchain":
        return conform_langchain.behaviour.run(target)
    if name == "raw":
        return conform_raw.behaviour.run(target)
    program = str(python(homes / name)) if name in HOMES else sys.executable
    done = subprocess.run(
        [program, "-m", "bench.conform_sdk", json.dumps(asdict(target))],
        cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True,
    )  # fmt: skip
    if done.returncode:
        return [Row(name, "the client runs", done.stderr.strip()[-500:])]
    return loaded(done.stdout.strip().splitlines()[-1])


def show(rows: Sequence[Row], skipped: Sequence[tuple[str, str]]) -> None:
    """Print the table and the JSON line."""
    table = Table("client", "behaviour", "result", title="conformance")
    for row in rows:
        table.add_row(row.client, row.behaviour, row.problem or "pass")
    for name, why in skipped:
        table.add_row(name, "", why)
    Console(width=160, markup=False, highlight=False).print(table)
    failed = [row for row in rows if row.problem]
    values = {
        "passed": len(rows) - len(failed),
        "failed": len(failed),
        "skipped": [name for name, _ in skipped],
        "failures": [f"{row.client}: {row.behaviour}" for row in failed],
    }
    print(json.dumps(values))


if __name__ == "__main__":
    main()
