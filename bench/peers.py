"""The same corpus and encoder through other systems: `python -m bench.peers --data DIR`.

plumbline, LangChain (FAISS), LlamaIndex, txtai, Haystack and bm25s, each in a process of its own,
with the weights of the packaged encoder on disk and no network. Each takes in the same texts in
memory, one system after the other; then every query goes to all of them in turn, the order rotating
from query to query. Clocks run inside each process, around the system's own call.

ingest_s   texts to searchable, the encoder loaded before
p50_ms, p95_ms   one search for 30 pieces, the query's embedding included
ndcg10, r5       a document's score is that of its best piece
rss_mib    peak resident memory of the process

bm25s has no vectors: its ingestion embeds nothing. Only plumbline writes to disk. The peers come
with plumbline[peers], or from another environment: `--python PATH/bin/python`.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import track
from rich.table import Table

from bench import ir
from bench.common import assigned, scratch, settable
from bench.peer_child import PEERS
from retrieval.embed._weights import packaged
from retrieval.measure import bootstrap, ndcg, recall

OURS = "plumbline"
DEPTH = 30
WARM = 3
ROOT = Path(__file__).resolve().parent.parent
#: No hub, no telemetry, no progress bars: the same for every process.
QUIET = {
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "HAYSTACK_TELEMETRY_ENABLED": "False",
    "TQDM_DISABLE": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
}


class Child:
    """A system in its process; `error` says why it cannot take part."""

    def __init__(self, name: str, command: Sequence[str], log: Path) -> None:
        self.name, self.error = name, ""
        self._log = log
        with log.open("wb") as file:
            self._process = subprocess.Popen(
                command,
                cwd=ROOT,
                env={**os.environ, **QUIET},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=file,
                text=True,
                encoding="utf-8",
            )
        self.card = self._read()

    def ask(self, **request: object) -> dict[str, Any]:
        """One request and its reply; {} once the system has failed."""
        if self.error:
            return {}
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            pass  # the reply that does not come says the rest
        return self._read()

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.communicate()

    def _read(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        reply: dict[str, Any] = json.loads(line) if line else {}
        if not line:
            said = self._log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
            self.error = said[-1] if said else "ended without a word"
        self.error = reply.pop("error", self.error)
        return reply


def main(arguments: Sequence[str] | None = None) -> None:
    """Start the systems, fill them, ask them, report."""
    options = _options(arguments)
    data = ir.read(options.data)
    data = ir.chosen(data, options.limit, options.split)
    extra = ir.distractors(options.distractors, options.distractor_count, data.docs)
    overrides = json.dumps(assigned(options))
    with scratch() as folder:
        texts = folder / "texts.jsonl"
        with texts.open("w", encoding="utf-8") as file:
            for doc in (*data.docs, *extra):
                text = f"{doc.title}\n{doc.text}".strip()
                file.write(json.dumps({"id": doc.id, "text": text}) + "\n")
        commands = {OURS: [sys.executable, "-m", "bench.peer_ours", overrides]}
        for name in PEERS:
            commands[name] = [options.python, "-m", "bench.peer_child", name, str(packaged())]
        asked = [name for name in commands if not options.systems or name in options.systems]
        children = [Child(name, commands[name], folder / f"{name}.log") for name in asked]
        try:
            results = _run(children, data, texts)
        finally:
            for child in children:
                child.close()
    _show(data, len(extra), results)


def _run(
    children: Sequence[Child], data: ir.Collection, texts: Path
) -> dict[str, dict[str, object]]:
    """What to report, by system."""
    ingest = {child.name: child.ask(op="ingest", path=str(texts)) for child in children}
    for query in data.queries[:WARM]:
        for child in children:
            child.ask(op="search", query=query.text, k=DEPTH)
    found: dict[str, list[tuple[float, list[str]]]] = {child.name: [] for child in children}
    for number, query in enumerate(track(data.queries, "searching", transient=True)):
        first = number % len(children)
        for child in (*children[first:], *children[:first]):
            reply = child.ask(op="search", query=query.text, k=DEPTH)
            if reply:
                ranking = list(dict.fromkeys(reply["ids"]))
                found[child.name].append((reply["seconds"] * 1000, ranking))
    results: dict[str, dict[str, object]] = {}
    for child in children:
        rss = child.ask(op="rss")
        if child.error:
            results[child.name] = {"error": child.error}
            continue
        values = {"ingest_s": round(ingest[child.name]["seconds"], 2)}
        values |= _measures(data, found[child.name])
        results[child.name] = {**values, "rss_mib": round(rss["rss_mib"]), **child.card}
    return results


def _measures(data: ir.Collection, found: Sequence[tuple[float, list[str]]]) -> dict[str, float]:
    times = [spent for spent, _ in found]
    pairs = [(r, data.qrels[q.id]) for q, (_, r) in zip(data.queries, found, strict=True)]
    gains = [ndcg(ranking, relevance) for ranking, relevance in pairs]
    low, high = bootstrap(gains)
    return {
        "p50_ms": round(float(np.percentile(times, 50)), 2),
        "p95_ms": round(float(np.percentile(times, 95)), 2),
        "ndcg10": round(float(np.mean(gains)), 4),
        "ndcg10_low": round(low, 4),
        "ndcg10_high": round(high, 4),
        "r5": round(float(np.mean([recall(r, judged, 5) for r, judged in pairs])), 4),
    }


def _show(data: ir.Collection, extra: int, results: Mapping[str, Mapping[str, object]]) -> None:
    """Print the table, then the JSON line: one object a system."""
    names = ("ingest_s", "p50_ms", "p95_ms", "ndcg10", "ndcg10_low", "ndcg10_high", "r5", "rss_mib")
    table = Table("system", *names, "kind")
    table.title = (
        f"{data.name}: {len(data.queries)} queries, {len(data.docs)} documents, {extra} distractors"
    )
    for name, values in results.items():
        if "error" in values:
            table.add_row(name, *["–"] * len(names), str(values["error"]))
        else:
            kind = f"{values['kind']}, {values['version']}"
            table.add_row(name, *[str(values[key]) for key in names], kind)
    Console(width=130).print(table)
    counts = {"queries": len(data.queries), "documents": len(data.docs) + extra}
    print(json.dumps({name: {**values, **counts} for name, values in results.items()}))


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--limit", type=int, default=0)
    parser.add_argument("--split", default="")
    parser.add_argument("--distractors", type=Path, nargs="+", default=[])
    parser.add_argument("--distractor-count", type=int, default=20_000)
    parser.add_argument("--python", default=sys.executable, help="interpreter that has the peers")
    parser.add_argument("--systems", nargs="+", choices=(OURS, *PEERS), default=[])
    settable(parser)
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main()
