"""Personal data found: precision and recall by kind, and what ordinary prose is mistaken for it.

    python -m bench.pii --data FOLDER [--documents FOLDER]

FOLDER has `pii-synthetic` with a gzipped JSONL of texts and spans (type, start, end). A find is
right where it overlaps a span of its kind; a span is found where such a find overlaps it. The
data is for measuring only: no pattern was made from it. Ordinary prose is the guide in `docs/` by
default: every find there but examples of the kind is a false alarm.
"""

from __future__ import annotations

import argparse
import gzip
import json
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from bench.common import interval, rate, report
from safety.pii import Found, find

#: The set's types that a kind of ours answers to; the others (names, places, dates …) have none.
TYPES = {
    "EMAIL_ADDRESS": "email",
    "PHONE_NUMBER": "phone",
    "CREDIT_CARD": "card",
    "IBAN_CODE": "iban",
    "IP_ADDRESS": "ip",
    "US_SSN": "ssn",
}
GUIDE = Path(__file__).resolve().parents[1] / "docs"


def main() -> None:
    """Measure, print the table and the JSON line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--data", type=Path, required=True, help="folder with pii-synthetic")
    parser.add_argument("--documents", type=Path, default=GUIDE, help="ordinary prose")
    options = parser.parse_args()
    rows: list[list[str]] = []
    values: dict[str, Any] = {}
    for kind, found in measure(list(read(options.data))).items():
        values[kind] = found
        rows.append([kind, _line(found, "recall"), f"{found['n']} spans"])
        rows.append(["", _line(found, "precision"), f"{found['finds']} finds"])
    for language, (size, alarms) in prose(options.documents).items():
        values[f"prose_{language}"] = {"characters": size, "alarms": dict(alarms)}
        named = ", ".join(f"{n} {k}" for k, n in alarms.items()) or "none"
        rows.append(
            [f"prose {language}", f"{alarms.total()} finds", f"{size:,} characters: {named}"]
        )
    report("personal data", rows, values)


def read(data: Path) -> Iterator[dict[str, Any]]:
    """The set's rows."""
    for path in sorted((data / "pii-synthetic").glob("*.jsonl.gz")):
        with gzip.open(path, "rt", encoding="utf-8") as file:
            yield from (json.loads(line) for line in file)


def measure(rows: Sequence[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Recall and precision of each kind, with 95 % bootstrap intervals."""
    caught: dict[str, list[bool]] = {kind: [] for kind in TYPES.values()}
    right: dict[str, list[bool]] = {kind: [] for kind in TYPES.values()}
    for row in rows:
        finds = find(row["text"])
        spans = [s for s in row["spans"] if s["type"] in TYPES]
        for span in spans:
            kind = TYPES[span["type"]]
            caught[kind].append(any(f.kind == kind and _meet(f, span) for f in finds))
        for f in finds:
            if f.kind in right:
                right[f.kind].append(any(TYPES[s["type"]] == f.kind and _meet(f, s) for s in spans))
    return {
        kind: {
            "n": len(caught[kind]),
            "recall": rate(caught[kind]),
            "recall_interval": interval(caught[kind]),
            "finds": len(right[kind]),
            "precision": rate(right[kind]),
            "precision_interval": interval(right[kind]),
        }
        for kind in caught
    }


def prose(folder: Path) -> dict[str, tuple[int, Counter[str]]]:
    """Characters read and finds by kind, by the language a document is in."""
    result: dict[str, tuple[int, Counter[str]]] = {}
    for path in sorted(folder.rglob("*.md")):
        text = path.read_text(encoding="utf-8")
        language = "zh" if re.search(r"[\u4e00-\u9fff]{4}", text[:400]) else "en"
        size, alarms = result.get(language, (0, Counter()))
        result[language] = size + len(text), alarms + Counter(f.kind for f in find(text))
    return result


def _meet(found: Found, span: dict[str, Any]) -> bool:
    return bool(found.start < span["end"] and found.end > span["start"])


def _line(found: dict[str, Any], name: str) -> str:
    if found[name] is None:
        return f"{name} –"
    low, high = found[f"{name}_interval"]
    return f"{name} {found[name]:.3f} [{low:.3f}, {high:.3f}]"


if __name__ == "__main__":
    main()
