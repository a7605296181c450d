"""How often a reward model prefers what people preferred: `python -m bench.reward --data FOLDER`.

FOLDER, or its folder `preference`, holds the folders of these sets, or some of them:

hh_harmless_base  test rows of our split: the rest may have been learnt from
pandalm           likewise; several answers to an instruction, ties left out
oasst_zh          likewise, Chinese; all pairs of an order
llmbar            objective preferences, natural and adversarial, and by subset (never learnt from)
hhh               HHH alignment (never learnt from)
halluqa_zh        Chinese; a good answer over a bad one (never learnt from)
en, zh            all comparisons whose prompt is in the language

Each comparison is right, wrong, or half where both score alike; intervals are bootstrapped over
prompts, whose comparisons hang together. `baseline` is the best of four plain rules, which are all
in `baselines`: `majority`, the place (first or second) that was preferred more often, where a set
has places, else one half; `longer` and `shorter`; and `cosine` of question and reply under an
encoder that is random (hashed words) and knows nothing.
"""

from __future__ import annotations

import argparse
import itertools
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

from bench import asking
from bench.common import report
from bench.ir import lines
from retrieval.embed.hashing import Hashing
from rlhf.fit import _reward_card as card
from rlhf.fit._reward_rows import Compared, Ranking, gathered, harmless, owner, pandalm, ranked
from rlhf.fit.reward import judged
from rlhf.scoring import MODEL, RewardModel, load

#: Set, file and, where part of it may have been learnt from, what reads the file.
SHARED = {
    "hh_harmless_base": ("test", harmless),
    "pandalm": ("testset_v1", pandalm),
    "oasst_zh": ("ranked", ranked),
}
UNSEEN = {"llmbar": ("llmbar", "pairs"), "hhh": ("hhh_alignment", "pairs")}
RULES = ("majority", "longer", "shorter", "cosine")


def main(arguments: Sequence[str] | None = None) -> None:
    """Score and report."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else "")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--model", type=Path, default=MODEL, help="folder of the reward model")
    parser.add_argument("--limit", type=int, default=0, help="prompts of each set, 0 = all")
    options = parser.parse_args(arguments)
    below = options.data / "preference"
    folder = below if below.is_dir() else options.data
    found = {name: asking.drawn(rows, options.limit) for name, rows in sets(folder).items()}
    if not found:
        names = ", ".join([*SHARED, "llmbar", "hhh_alignment", "halluqa_zh"])
        raise SystemExit(f"{options.data} holds none of these folders: {names}; name their folder")
    model = load(options.model)
    rows: list[tuple[str, str, str]] = []
    values: dict[str, object] = {}
    for name, rankings in (found | languages(found)).items():
        values[name] = measured(name, rankings, model, places(folder, name), rows)
    report(f"reward, {model.id}", rows, values | {"model": model.id})


def sets(folder: Path) -> dict[str, list[Ranking]]:
    """The rankings of each set that the folder has, as far as none were learnt from."""
    found: dict[str, list[Ranking]] = {}
    for name, (file, read) in SHARED.items():
        path = folder / name / f"{file}.jsonl.gz"
        if path.is_file():
            found[name] = gathered(read(path)).held
    for name, (inside, file) in UNSEEN.items():
        path = folder / inside / f"{file}.jsonl.gz"
        parts: dict[str, list[Compared]] = defaultdict(list)
        for row in lines(path) if path.is_file() else ():
            asked, good, bad = row["prompt"], row["chosen"], row["rejected"]
            one = Compared(name, owner(asked), asked, good, bad, held=True)
            parts[name].append(one)
            parts[f"{name}_{row['subset']}"].append(one)
        found |= {part: gathered(rows).held for part, rows in parts.items()}
    path = folder / "halluqa_zh" / "qa.jsonl.gz"
    if path.is_file():
        found["halluqa_zh"] = gathered(_halluqa(path)).held
    return {name: rows for name, rows in found.items() if rows}


def _halluqa(path: Path) -> Iterator[Compared]:
    for row in lines(path):
        for good, bad in itertools.product(row["good"], row["bad"]):
            yield Compared("halluqa_zh", owner(row["prompt"]), row["prompt"], good, bad, held=True)


def languages(found: dict[str, list[Ranking]]) -> dict[str, list[Ranking]]:
    """All rankings by language; a subset is part of its set already."""
    parts = {name for name in found if any(name.startswith(f"{whole}_") for whole in UNSEEN)}
    every = [row for name, rows in found.items() if name not in parts for row in rows]
    by = {lang: [row for row in every if row.lang == lang] for lang in ("en", "zh")}
    return {lang: rows for lang, rows in by.items() if rows}


def places(folder: Path, name: str) -> float:
    """How often the place that is preferred more often is: only pandalm keeps places."""
    path = folder / name / "testset_v1.jsonl.gz"
    if name != "pandalm" or not path.is_file():
        return 0.5
    said = (
        row["label"] for row in lines(path) if row["split"] == "test" and row["label"] in (1, 2)
    )
    count = Counter(said)
    return max(count.values()) / count.total() if count else 0.5


def measured(
    name: str,
    rankings: Sequence[Ranking],
    model: RewardModel,
    majority: float,
    rows: list[tuple[str, str, str]],
) -> dict[str, object]:
    """The accuracy on a set beside those of plain rules; its row is added to the table's."""
    found = judged(rankings, model.logits)
    rules = {
        "majority": majority,
        "longer": card.accuracy(card.judged(rankings, card.longer)),
        "shorter": card.accuracy(card.judged(rankings, card.shorter)),
        "cosine": card.accuracy(card.judged(rankings, cosine)),
    }
    best = max(RULES, key=lambda rule: rules[rule])
    right, (low, high) = card.accuracy(found), card.interval(found)
    count = sum(len(row.margins) for row in found)
    note = (
        f"{count} comparisons of {len(found)} prompts, 95 %: {low:.3f} to {high:.3f}, "
        f"calibration error {card.error(found):.3f}; {best} {rules[best]:.3f}"
    )
    rows.append((name, f"{right:.3f}", note))
    return {
        "accuracy": round(right, 4),
        "ci": [round(low, 4), round(high, 4)],
        "baseline": round(rules[best], 4),
        "baselines": {rule: round(rules[rule], 4) for rule in RULES},
        "ece": round(card.error(found), 4),
        "n": count,
        "prompts": len(found),
    }


def cosine(row: Ranking) -> list[float]:
    """Scores by likeness of reply and question under a random encoder."""
    encoder = Hashing()
    question, *replies = encoder.embed([row.question, *row.replies], "passage")
    return [float(question @ reply) for reply in replies]


if __name__ == "__main__":
    main()
