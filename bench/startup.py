"""How long from the command to ready: `python -m bench.startup [--runs N]`.

`import_s`: a new interpreter's `import assistant`, less an empty interpreter's start. `ready_s`:
`python app.py` from its start to the first page served, on a home that was ingested before. Medians
of N runs, in processes of their own.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time
import urllib.request
from collections.abc import Sequence
from pathlib import Path

from bench.common import report, scratch

ROOT = Path(__file__).resolve().parent.parent


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description="start-up time")
    parser.add_argument("--runs", type=int, default=3)
    options = parser.parse_args(arguments)
    with scratch() as home:
        ready(home)  # the first start ingests the documentation
        starts = [ready(home) for _ in range(options.runs)]
    imports = [_python("import assistant") - _python("pass") for _ in range(options.runs)]
    import_s, ready_s = statistics.median(imports), statistics.median(starts)
    rows = [
        ("import assistant", f"{import_s:.2f} s", f"median of {options.runs}"),
        ("warm start to ready", f"{ready_s:.2f} s", f"median of {options.runs}"),
    ]
    report("startup", rows, {"import_s": round(import_s, 3), "ready_s": round(ready_s, 3)})


def ready(home: Path) -> float:
    """Seconds from starting the chat to its first page."""
    began = time.monotonic()
    command = [sys.executable, "app.py"]
    for setting in (f"home={home}", "serve.port=0", "serve.open_browser=false"):
        command += ["--set", setting]
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        said = []
        for line in process.stderr:
            said.append(line)
            if "http://" in line:
                address = line[line.index("http://") :].split()[0]
                with urllib.request.urlopen(address, timeout=30) as page:
                    page.read()
                seconds = time.monotonic() - began
                process.terminate()
                return seconds
    raise SystemExit("the chat did not start:\n" + "".join(said))


def _python(code: str) -> float:
    began = time.monotonic()
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
    return time.monotonic() - began


if __name__ == "__main__":
    main()
