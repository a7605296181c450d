"""Whether a text is supported by passages: `python -m bench.support --data FOLDER [--limit N]`.

FOLDER holds the folders `refchecker` (human_annotations.jsonl.gz) and `halueval`
(general.jsonl.gz), or one of them. Each text is judged by the support check of the product,
`assistant.grounding.support`, with the trained heads where the settings and models/ have them
(`--set policy.support=words` compares words alone; `judge` says which), at its own threshold. A
text below it counts as unsupported, which is the positive class: `auroc` and `f1` are of finding
what annotators called unsupported, and `positives` is their share, the precision of calling
everything unsupported.

refchecker_*  claims out of seven models' answers, by the setting they were answered in. Annotators
              held each against a reference text that the file does not carry; here it is held
              against what the other models answered to the same question, so these are numbers
              of agreement with models that may err alike. Neutral and Contradiction are positive.
              With a file refchecker/references.jsonl.gz {source_id, passages: [text, …]} that is
              what claims are held against. `refchecker` is all of them together
halueval      answers of a model with a human label; there is no reference, and the answer is held
              against the user's own text. Most of these hold no facts: near .5 is expected
halueval_given  of these, questions of at least 300 characters, which bring a text along

`--limit` is a number of answers for each set; intervals are bootstrapped over texts.
"""

from __future__ import annotations

import argparse
import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.progress import track

from assistant import load
from assistant.build import supporter_of
from assistant.grounding import SUPPORT, support
from bench import asking
from bench.common import assigned, report, settable
from bench.ir import lines
from bench.measures import Bools, Floats, auroc, f1, spread
from retrieval.text import terms

#: From this length on a question of HaluEval brings a text of its own.
GIVEN = 300


@dataclass(frozen=True, slots=True)
class Judged:
    """A text with what it is held against, and whether annotators called it unsupported."""

    set: str
    text: str
    passages: tuple[str, ...]
    unsupported: bool


def main(arguments: Sequence[str] | None = None) -> None:
    """Judge and report."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else "")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--limit", type=int, default=0, help="answers of each set, 0 = all")
    settable(parser)
    options = parser.parse_args(arguments)
    found = [*refchecker(options.data, options.limit), *halueval(options.data, options.limit)]
    if not found:
        raise SystemExit(f"{options.data}: neither refchecker nor halueval; name their folder")
    trained = supporter_of(load(overrides=assigned(options)))
    known = rarity(sorted({text for one in found for text in one.passages}))
    scores: dict[str, list[tuple[bool, float]]] = defaultdict(list)
    for one in track(found, "judging", transient=True):
        passages = [asking.passage(text, n) for n, text in enumerate(one.passages, start=1)]
        share = support(one.text, passages, known, trained)
        scores[one.set].append((one.unsupported, share))
    _show(scores, "words" if trained is None else trained.id)


def refchecker(folder: Path, limit: int = 0) -> Iterator[Judged]:
    """Claims against references, or against the other answers to the same question."""
    path = folder / "refchecker" / "human_annotations.jsonl.gz"
    if not path.is_file():
        return
    answers = list(lines(path))
    references: dict[str, list[str]] = {}
    given = path.with_name("references.jsonl.gz")
    for row in lines(given) if given.is_file() else ():
        references[str(row["source_id"])] = list(row["passages"])
    others: dict[tuple[str, str], list[Any]] = defaultdict(list)
    settings: dict[str, list[Any]] = defaultdict(list)
    for answer in answers:
        others[answer["setting"], answer["source_id"]].append(answer)
        settings[answer["setting"]].append(answer)
    for setting in sorted(settings):
        for answer in asking.drawn(settings[setting], limit):
            beside = others[setting, answer["source_id"]]
            said = [o["response"] for o in beside if o["model"] != answer["model"]]
            against = tuple(t for t in references.get(answer["source_id"], said) if t.strip())
            for claim in answer["claims"]:
                text = " ".join(str(part) for part in claim["triplet"])
                unsupported = claim["label"] != "Entailment"
                yield Judged(f"refchecker_{setting}", text, against, unsupported)


def halueval(folder: Path, limit: int = 0) -> Iterator[Judged]:
    """Answers against what the user wrote."""
    path = folder / "halueval" / "general.jsonl.gz"
    if not path.is_file():
        return
    rows = list(lines(path))
    long = [row for row in rows if len(row["user_query"]) >= GIVEN]
    for name, found in (("halueval", rows), ("halueval_given", long)):
        for row in asking.drawn(found, limit):
            answer, asked = row["chatgpt_response"], row["user_query"]
            yield Judged(name, answer, (asked,), row["hallucination"] == "yes")


def rarity(texts: Sequence[str]) -> Callable[[list[str]], list[float]]:
    """Inverse document frequency over these texts, as a knowledge base has it over its chunks."""
    count = Counter(term for text in texts for term in set(terms(text)))

    def known(wanted: list[str]) -> list[float]:
        return [math.log((len(texts) + 1) / (count[term] + 0.5)) for term in wanted]

    return known


def _show(scores: dict[str, list[tuple[bool, float]]], judge: str) -> None:
    """Print the table and the JSON line."""
    rows: list[tuple[str, str, str]] = []
    values: dict[str, object] = {}
    claims = [
        pair for name, pairs in scores.items() if name.startswith("refchecker") for pair in pairs
    ]
    for name, pairs in {**({"refchecker": claims} if claims else {}), **scores}.items():
        labels = np.array([label for label, _ in pairs], dtype=bool)
        shares = np.array([share for _, share in pairs], dtype=float)
        values[name] = found = _measured(name, labels, shares, rows)
        found |= {"n": len(labels), "positives": _rounded(float(labels.mean()))}
    report(f"support, {judge}, threshold {SUPPORT}", rows, values | {"judge": judge})


def _measured(
    name: str, labels: Bools, shares: Floats, rows: list[tuple[str, str, str]]
) -> dict[str, object]:
    """The two measures of a set; their rows are added to the table's."""

    def ranked(at: NDArray[np.intp]) -> float:
        return auroc(labels[at], -shares[at])

    def decided(at: NDArray[np.intp]) -> float:
        return f1(labels[at], shares[at] < SUPPORT)

    found: dict[str, object] = {}
    measures: dict[str, Callable[[NDArray[np.intp]], float]] = {"auroc": ranked, "f1": decided}
    for measure, of in measures.items():
        value = of(np.arange(len(labels)))
        low, high = spread(of, len(labels))
        note = f"n {len(labels)}, 95 %: {low:.3f} to {high:.3f}, positives {labels.mean():.3f}"
        rows.append((f"{name} {measure}", f"{value:.3f}", note))
        found[measure] = _rounded(value)
    return found


def _rounded(value: float) -> float | None:
    return None if math.isnan(value) else round(value, 4)


if __name__ == "__main__":
    main()
