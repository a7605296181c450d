"""schemathesis on the server's own OpenAPI description, as a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import httpx

START = "from schemathesis.cli import schemathesis; schemathesis()"
#: What a description cannot say is no fault: which models, conversations and fields there are here,
#: and what the guard or the question's length forbid. A body may be refused for its size as well.
CONFIG = """
[checks]
positive_data_acceptance.enabled = false

[checks.negative_data_rejection]
expected-statuses = [400, 401, 403, 404, 405, 408, 409, 411, 413, 415, 421, 429, 503]
"""


def run(url: str, reader: str, key: str, examples: int, seconds: float = 1800) -> str:
    """Send generated requests to a server; returns what did not hold, "" where all did.

    Args:
        url: the server, ends in /.
        reader: a key by which the description is read.
        key: what the requests are sent with; none where "".
        examples: generated for an operation, at most.
        seconds: the whole run, at most.
    """
    headers = {"authorization": f"Bearer {reader}"} if reader else {}
    answer = httpx.get(f"{url}v1/openapi.json", headers=headers, timeout=30)
    answer.raise_for_status()
    with tempfile.TemporaryDirectory() as folder:
        described = Path(folder) / "openapi.json"
        described.write_text(json.dumps(answer.json()), encoding="utf-8")
        (Path(folder) / "schemathesis.toml").write_text(CONFIG, encoding="utf-8")
        command = [
            sys.executable, "-c", START, "run", str(described), "--url", url.rstrip("/"),
            "--max-examples", str(examples), "--seed", "0", "--no-color", "--warnings", "off",
            "--suppress-health-check", "all", "--continue-on-failure", "--no-shrink",
            "--request-timeout", "60",
        ]  # fmt: skip
        if key:
            command += ["--header", f"Authorization: Bearer {key}"]
        try:
            done = subprocess.run(
                command, cwd=folder, capture_output=True, text=True, timeout=seconds
            )
        except subprocess.TimeoutExpired:
            return f"schemathesis did not end within {seconds:.0f} s"
    return "" if done.returncode == 0 else (done.stdout + done.stderr).strip()
