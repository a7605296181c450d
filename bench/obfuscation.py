"""What disguises cost the guard: `python -m bench.obfuscation --data FOLDER… [--limit N]`.

Harmful prompts (strongreject in English, multijail in Chinese) go through the whole guard plain and
under each disguise of `bench.disguise`: `kept` is the share of those stopped plain that are stopped
still. `benign` is how many everyday texts (benign-prompts) of the same language are stopped under
the same disguise. Options:

--limit N          N rows of a set, drawn by a seed
--only a,b         only these disguises
--restored FILE…   instead: how well the normaliser alone undoes each disguise on the texts of these
                   `.jsonl.gz` files: `exact` is the share of texts of which one view equals the
                   plain text's normal form, `similar` the mean likeness of the best view (Ratcliff)
--set KEY=VALUE    a setting, for instance safety.moderators=rules
"""

from __future__ import annotations

import argparse
import difflib
import gzip
import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.progress import track

from bench import measures
from bench.common import assigned, interval, rate, report, settable
from bench.disguise import DISGUISES, Disguise
from bench.safety import judged, read, whole_guard
from safety import Guard
from safety.normalize import normalize, views

HARMFUL = {"en": "strongreject", "zh": "multijail"}
BENIGN = "benign-prompts"


def main(arguments: Sequence[str] | None = None) -> None:
    """Disguise, judge, report."""
    parser = argparse.ArgumentParser(description="recall kept under disguises")
    parser.add_argument("--data", nargs="+", type=Path, default=[])
    parser.add_argument("--restored", nargs="+", type=Path, default=[], metavar="FILE")
    parser.add_argument("--limit", type=int, default=0, help="rows a set")
    parser.add_argument("--only", default="", help="disguises, parted by commas")
    settable(parser)
    options = parser.parse_args(arguments)
    names = [d.name for d in DISGUISES]
    wanted = [name for name in options.only.split(",") if name] or names
    unknown = sorted(set(wanted) - set(names))
    if unknown:
        raise SystemExit(f"--only: no disguise {', '.join(unknown)}; there are: {', '.join(names)}")
    chosen = [d for d in DISGUISES if d.name in wanted]
    if options.restored:
        _report_restored(chosen, options.restored, options.limit)
    elif options.data:
        _report_kept(chosen, options.data, options.limit, whole_guard(assigned(options)))
    else:
        parser.error("name a folder with --data, or files with --restored")


def _report_kept(
    disguises: Sequence[Disguise], folders: Sequence[Path], limit: int, guard: Guard
) -> None:
    values: dict[str, Any] = {}
    lines, skipped = [], []
    everyday = read(folders, BENIGN) or []
    for language, name in HARMFUL.items():
        rows = read(folders, name)
        if rows is None:
            skipped.append(name)
            continue
        harmful = [r["text"] for r in rows if r["lang"] == language][: limit or None]
        benign = [r["text"] for r in everyday if r["lang"] == language][: limit or None]
        plain = stopped(guard, harmful)
        plain_benign = stopped(guard, benign)
        found: dict[str, Any] = {"n": len(harmful), "n_benign": len(benign)}
        found |= {"recall": rate(list(plain)), "benign": rate(list(plain_benign)), "disguised": {}}
        note = f"n {len(harmful)}, {len(benign)} everyday texts"
        lines.append((f"{name} {language} plain", f"recall {found['recall']}", note))
        applied = [d for d in disguises if language in d.languages]
        for disguise in track(applied, f"{name} {language}", transient=True):
            hidden = stopped(guard, [disguise(text) for text in harmful])
            spread = interval([bool(h) for h in hidden[plain]])
            kept = rate([bool(h) for h in hidden[plain]])
            wrong = rate(list(stopped(guard, [disguise(text) for text in benign])))
            found["disguised"][disguise.name] = {
                "recall": rate(list(hidden)),
                "kept": kept,
                "benign": wrong,
            }
            lines.append(
                (
                    f"{name} {language} {disguise.name}",
                    f"kept {kept}",
                    f"recall {rate(list(hidden))}, benign stopped {wrong}, "
                    f"95 % of kept {spread[0]:.3f} to {spread[1]:.3f}",
                )
            )
        values[f"{name}_{language}"] = found
    if skipped:
        lines.append(("skipped", ", ".join(skipped), "no eval.jsonl.gz or heldout.jsonl.gz"))
    report("obfuscation", lines, {**values, "skipped": skipped})


def stopped(guard: Guard, texts: Sequence[str]) -> measures.Bools:
    """Whether each text is stopped as an input."""
    if not texts:
        return np.zeros(0, dtype=bool)
    return judged(guard, [{"text": text} for text in texts], "input").stops


def _report_restored(disguises: Sequence[Disguise], paths: Sequence[Path], limit: int) -> None:
    texts: dict[str, list[str]] = {"en": [], "zh": []}
    for path in paths:
        with gzip.open(path, "rt", encoding="utf-8") as lines:
            for row in map(json.loads, lines):
                texts.get(row["lang"], []).append(row["text"])
    values: dict[str, Any] = {}
    rows = []
    for language, known in texts.items():
        random.Random(0).shuffle(known)
        drawn = known[: limit or None]
        applied = [d for d in disguises if language in d.languages] if drawn else []
        for disguise in track(applied, language, transient=True):
            likeness = [restored(disguise, text) for text in drawn]
            exact = rate([value == 1 for value in likeness])
            similar = round(sum(likeness) / len(likeness), 4)
            values.setdefault(language, {"n": len(drawn)})[disguise.name] = {
                "exact": exact,
                "similar": similar,
            }
            rows.append(
                (
                    f"{disguise.name} {language}",
                    f"exact {exact}",
                    f"similar {similar}, n {len(drawn)}",
                )
            )
    report("restored", rows, values)


def restored(disguise: Disguise, text: str) -> float:
    """Likeness in [0, 1] of the best view of the disguised text to the text's normal form."""
    plain, best = normalize(text).text, 0.0
    for view in views(disguise(text)):
        found = view.text if view.kind == "normalised" else normalize(view.text).text
        if found == plain:
            return 1.0
        best = max(best, difflib.SequenceMatcher(None, found, plain, autojunk=False).ratio())
    return min(best, 0.9999)


if __name__ == "__main__":
    main()
