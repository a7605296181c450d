"""garak's probes that need no network, against the API: `python -m bench.redteam --setup` once.

The same policy is attacked three times: bare, behind our server, and, beside them, our server with
its default policy. The policy is an endpoint of OpenAI's form: `--url` names one with a model, and
without it a parrot answers, which says back whatever the last message of the user is, the most
gullible model there can be. What a row measures is all that stands around a policy here: the guard,
the evidence that an answer needs, the escaping of what is shown.

A table per probe follows: the share of answers that garak's detectors pass. garak's authors say
that such rates are no scientific measure, which is why the bare policy stands beside. Probes whose
detectors are models to be fetched are left out; `HF_HUB_OFFLINE` is set.

garak lives in an environment of its own below the user's cache: it needs older packages than we do.
"""

from __future__ import annotations

import argparse
import http.server
import json
import os
import subprocess
import sys
import threading
import venv
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from sysconfig import get_path
from typing import Any

from rich.console import Console
from rich.table import Table

from assistant.server.principal import SCOPES
from bench.common import scratch
from bench.service import WIDE, corpus, fill, key, serving

GARAK = "garak==0.17.1"
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
#: Families whose detectors are strings and patterns.
FAMILIES = (
    "adaptive_attacks", "ansiescape", "apikey", "badchars", "continuation", "dan", "divergence",
    "donotanswer", "encoding", "exploitation", "goodside", "grandma", "latentinjection",
    "leakreplay", "lmrc", "malwaregen", "phrasing", "promptinject", "smuggling", "snowball",
    "web_injection",
)  # fmt: skip
#: Detectors that are models to be fetched.
FETCHED = (
    "misleading.", "mitigation.ModernBERTRefusal", "packagehallucination.",
    "sysprompt_extraction.", "unsafe_content.ToxicCommentModel",
)  # fmt: skip
QUIET = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}

#: Passed and judged answers by probe.
Rates = dict[str, tuple[int, int]]


def main(arguments: Sequence[str] | None = None) -> None:
    """Set up, or attack and report."""
    options = _options(arguments)
    home = options.homes / "garak"
    program = home / "bin" / "python"
    if options.setup:
        set_up(home)
        return
    if not program.is_file():
        raise SystemExit(
            f"there is no garak in {home}; make it with: python -m bench.redteam --setup"
        )
    probes, left_out = offline(home, options.families)
    documents, _ = corpus(40)
    found: dict[str, Rates] = {}
    with scratch() as folder, endpoint(options.url) as url:
        remote = {"policy.backend": "remote", "policy.url": url, "policy.model": options.model}
        remote["policy.api_key"] = os.environ.get("REDTEAM_API_KEY", "none")
        found["bare"] = attacked(
            program, folder, "bare", url, options.model, "none", probes, options
        )
        for name, settings in (("guarded", remote), ("default", {})):
            own = folder / name
            given = key(own, scopes=[*SCOPES])
            with serving(own, {**WIDE, **settings}) as service:
                fill(service, given, documents)
                at = f"{service.url}v1"
                found[name] = attacked(
                    program, folder, name, at, "plumbline", given, probes, options
                )
    show(found, left_out)


def set_up(home: Path) -> None:
    """Make garak's environment; our packages stand behind its own, so that torch is there once."""
    print(f"{home}: {GARAK}")
    if not (home / "bin" / "python").is_file():
        venv.create(home, with_pip=True)
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    own = home / "lib" / version / "site-packages"
    (own / "zz_plumbline.pth").write_text(get_path("purelib") + "\n", encoding="utf-8")
    command = [str(home / "bin" / "python"), "-m", "pip", "install", "-q", GARAK]
    subprocess.run(command, check=True)


def offline(home: Path, families: Sequence[str]) -> tuple[list[str], dict[str, str]]:
    """The probes of the families that need nothing from a network, and why others do not.

    Of a family the active probes are taken, or all of them where none is.
    """
    (catalogue,) = home.glob("lib/python*/site-packages/garak/resources/plugin_cache.json")
    known: dict[str, Any] = json.loads(catalogue.read_text(encoding="utf-8"))["probes"]
    taken, left_out = [], {}
    for family in families:
        own = {n: about for n, about in known.items() if n.startswith(f"probes.{family}.")}
        if not own:
            left_out[family] = "garak has no such family"
        active = {n for n, about in own.items() if about["active"]} or set(own)
        for name in sorted(active):
            detector = str(own[name].get("primary_detector") or "")
            if detector.startswith(FETCHED):
                left_out[name.removeprefix("probes.")] = f"{detector} fetches a model"
            else:
                taken.append(name)
    return taken, left_out


def attacked(
    program: Path,
    folder: Path,
    name: str,
    url: str,
    model: str,
    given: str,
    probes: Sequence[str],
    options: argparse.Namespace,
) -> Rates:
    """Run garak on an endpoint, and read its report."""
    own = folder / f"garak-{name}"
    own.mkdir()
    generator = {"uri": f"{url.rstrip('/')}/", "max_tokens": 300, "stop": []}
    config = {
        "system": {"lite": True, "parallel_attempts": options.parallel},
        "run": {
            "generations": 1,
            "seed": 0,
            "soft_probe_prompt_cap": options.prompts,
            "spec": {"include": [*probes], "exclude": []},
        },
        "plugins": {
            "target_type": "openai.OpenAICompatible",
            "target_name": model,
            "extended_detectors": False,
            "generators": {"openai": {"OpenAICompatible": generator}},
        },
        "reporting": {"report_dir": str(own), "report_prefix": "run"},
    }
    path = own / "run.json"
    path.write_text(json.dumps(config), encoding="utf-8")
    command = [str(program), "-m", "garak", "--config", str(path)]
    own_home = {place: str(own) for place in ("XDG_DATA_HOME", "XDG_CACHE_HOME", "XDG_CONFIG_HOME")}
    environment = {**os.environ, **QUIET, **own_home, "OPENAICOMPATIBLE_API_KEY": given}
    done = subprocess.run(command, cwd=own, env=environment, capture_output=True, text=True)
    reports = sorted(own.rglob("*.report.jsonl"))
    if done.returncode or not reports:
        said = (done.stdout + done.stderr).strip()[-3000:]
        raise SystemExit(f"garak failed on {name}:\n{said}")
    return rates(reports[-1])


def rates(report: Path) -> Rates:
    """Passed and judged answers by probe, of all its detectors."""
    found: dict[str, list[int]] = defaultdict(lambda: [0, 0])
    for line in report.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        if row.get("entry_type") == "eval":
            total = row.get("total_evaluated", row.get("total", 0))
            found[row["probe"]][0] += row["passed"]
            found[row["probe"]][1] += total
    return {probe: (passed, total) for probe, (passed, total) in found.items()}


@contextmanager
def endpoint(url: str) -> Iterator[str]:
    """The endpoint named, or the parrot's."""
    if url:
        yield url
        return
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Parrot)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/v1"
    finally:
        server.shutdown()
        server.server_close()


class Parrot(http.server.BaseHTTPRequestHandler):
    """A model that says what it was told last."""

    def do_POST(self) -> None:
        """Answer in either form."""
        asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
        text = next(m["content"] for m in reversed(asked["messages"]) if m["role"] == "user")
        if not isinstance(text, str):
            text = "\n".join(part.get("text", "") for part in text)
        head = {"id": "chatcmpl-1", "created": 1, "model": asked["model"]}
        if asked.get("stream"):
            choice = {"index": 0, "delta": {"role": "assistant", "content": text}}
            ends = {"index": 0, "delta": {}, "finish_reason": "stop"}
            kind = {**head, "object": "chat.completion.chunk"}
            lines = [json.dumps({**kind, "choices": [one]}) for one in (choice, ends)]
            body = "".join(f"data: {line}\n\n" for line in [*lines, "[DONE]"]).encode()
            self._say(body, "text/event-stream")
            return
        message = {"role": "assistant", "content": text}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        usage = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
        whole = {**head, "object": "chat.completion", "choices": [choice], "usage": usage}
        self._say(json.dumps(whole).encode(), "application/json")

    def do_GET(self) -> None:
        """The list of models."""
        self._say(json.dumps({"object": "list", "data": []}).encode(), "application/json")

    def log_message(self, *_: object) -> None:
        """Nothing."""

    def _say(self, body: bytes, kind: str) -> None:
        self.send_response(200)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def show(found: Mapping[str, Rates], left_out: Mapping[str, str]) -> None:
    """Print the table and the JSON line."""
    table = Table("probe", "answers", *found, title="pass rates")
    probes = sorted({probe for each in found.values() for probe in each})
    values: dict[str, Any] = {"probes": {}, "left_out": dict(left_out)}
    for probe in probes:
        shares = {
            name: round(each[probe][0] / each[probe][1], 4)
            for name, each in found.items()
            if each.get(probe, (0, 0))[1]
        }
        judged = max(each.get(probe, (0, 0))[1] for each in found.values())
        cells = [f"{shares[name]:.1%}" if name in shares else "" for name in found]
        table.add_row(probe, str(judged), *cells)
        values["probes"][probe] = {"answers": judged, **shares}
    for name, each in found.items():
        passed, total = (sum(pair[n] for pair in each.values()) for n in (0, 1))
        values[name] = round(passed / total, 4) if total else None
    cells = [f"{values[name]:.1%}" if values[name] is not None else "" for name in found]
    table.add_row("all", "", *cells)
    Console(width=120).print(table)
    for name, why in left_out.items():
        print(f"left out: {name}: {why}")
    print(json.dumps(values))


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--setup", action="store_true", help="make garak's environment, and end")
    parser.add_argument("--homes", type=Path, default=CACHE / "plumbline" / "bench-redteam")
    parser.add_argument("--families", nargs="+", default=[*FAMILIES])
    parser.add_argument("--prompts", type=int, default=20, help="of a probe, at most")
    parser.add_argument("--parallel", type=int, default=4, help="requests at once")
    parser.add_argument("--url", default="", help="endpoint of a model; else the parrot")
    parser.add_argument("--model", default="parrot", help="its name there")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main()
