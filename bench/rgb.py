"""Robustness to bad passages: `python -m bench.rgb --data FOLDER [--limit N] [--policy NAME]`.

FOLDER holds files of RGB (Chen et al., AAAI 2024): `*_refine`, `*_int` and `*_fact`.jsonl.gz with
`query`, `answer`, `positive`, `negative`, and in the last `fakeanswer` and `positive_wrong`. A
question gets five passages, chosen by RGB's own rule. They are its documents in a base of all
questions' passages, where access lists keep them apart (see `bench.asking`), so the whole product
runs: search, reranker, duplicates and versions, guard, policy, grounding. An answer is right where
the reply holds each of its parts, any alias of a part, after width, case and space are folded.

noise       right answers by the share of negative passages; abstaining is wrong
rejection   abstentions where all passages are negative; `answered`: that still get an answer.
            Negatives hold the answer now and then: `right_in_noise`, and such replies count
            as answered all the same
`*_int`     the parts of the answer stand in different passages: all must be in the reply
`*_fact`    `noise` is over the true passages. Then the false ones, of which the policy cannot
            know better, as the product would meet them, with what it has against them:

  false     false passages alone: `misled`, the reply says what they say
  versions  each false passage is version 2 of a document whose version 1, a year older, is the
            true passage. `detected`: the reply shows the contradiction, because a cited passage
            names an older version that disagrees and holds the true answer, or because the reply
            says both answers; `right`: it holds the true answer
  corrected the same with version 2 true: `right`, `misled`, `detected`
  apart     the first true passage beside other false ones, no versions: the same rates
  agreeing  two true passages as versions: `false_alarm`, a contradiction is shown

`detected` of a file is that of `versions`. RGB itself asks a model to doubt false passages by what
it has learnt, so its published numbers (1 to 8 %) are of another task.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.progress import track

from assistant import Assistant, Reply
from bench import asking
from bench.common import report, scratch
from bench.ir import lines
from retrieval.sources.memory import Given

NOISE = ("0", "0.2", "0.4", "0.6", "0.8")
COUNT = 5
ROOT = "rgb"
#: Times of the two versions of a document: 1 January 2023 and 2024 (UTC).
OLD, NEW = 1672531200.0, 1704067200.0


@dataclass(frozen=True, slots=True)
class Case:
    """One question with its passages: `kind` is a share of noise, "1", or an arm of `*_fact`.

    `passages` are (name, text, time or None); `fake` is "" outside of `*_fact`.
    """

    file: str
    id: str
    kind: str
    question: str
    gold: asking.Gold
    fake: str
    passages: tuple[tuple[str, str, float | None], ...]

    @property
    def reader(self) -> str:
        """Who may read the passages."""
        return f"{self.file}/{self.id}/{self.kind}"


@dataclass(frozen=True, slots=True)
class Said:
    """What came of a case; `shown`: the reply shows that its sources contradict each other."""

    case: Case
    answered: bool
    abstained: bool
    right: bool
    fake: bool
    detected: bool
    shown: bool


def main(arguments: Sequence[str] | None = None) -> None:
    """Ask everything and report."""
    parser = asking.parser(__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--files", default="", help="names without .jsonl.gz, all by default")
    options = parser.parse_args(arguments)
    names = [name for name in options.files.split(",") if name] or _known(options.data)
    everything = [case for name in names for case in read(options.data, name, options.limit)]
    with scratch() as home:
        settings = asking.chosen(options, home)
        with asking.opened(settings, ROOT, documents(everything)) as assistant:
            found = asked(assistant, everything)
    _show(names, found, options)


def read(folder: Path, name: str, limit: int = 0) -> list[Case]:
    """The cases of one file, from at most `limit` rows drawn by a seed (all: 0)."""
    rows = asking.drawn(list(lines(folder / f"{name}.jsonl.gz")), limit)
    return [case for row in rows for case in _cases(name, row)]


def documents(cases: Sequence[Case]) -> Iterator[Given]:
    """Every passage once, open to the cases that have it."""
    readers: dict[tuple[str, str, float | None], list[str]] = {}
    for case in cases:
        for given in case.passages:
            readers.setdefault(given, []).append(case.reader)
    for (name, text, modified), who in readers.items():
        yield Given(name, text, modified=modified, readers=tuple(who))


def asked(assistant: Assistant, cases: Sequence[Case]) -> list[Said]:
    """Ask each case; two shares of noise that come to the same passages are asked once."""
    known: dict[tuple[object, ...], Said] = {}
    found = []
    for case in track(cases, "asking", transient=True):
        key = (case.file, case.id, *sorted(name for name, _, _ in case.passages))
        if key not in known:
            reply = assistant.reply(case.question, readers=frozenset({case.reader}))
            known[key] = judged(case, reply)
        same = known[key]
        found.append(
            Said(
                case,
                same.answered,
                same.abstained,
                same.right,
                same.fake,
                same.detected,
                same.shown,
            )
        )
    return found


def judged(case: Case, reply: Reply) -> Said:
    """What a reply is worth."""
    text = asking.said(reply)
    fake = bool(case.fake) and asking.holds(text, case.fake)
    right = _true(text, case)
    older = [old.text for citation in reply.citations for old in citation.older]
    both = right and fake
    return Said(
        case,
        reply.outcome == "answered",
        reply.outcome == "abstained",
        right,
        fake,
        both or any(_true(old, case) for old in older),
        both or bool(older),
    )


def passages(row: Mapping[str, Any], noise: float, parted: bool) -> list[str]:
    """RGB's choice of five: as many negatives as `noise` says, while both kinds last.

    Args:
        row: of a file.
        noise: share of negatives, 0 to 1.
        parted: `positive` is a list for each part of the answer, and of each one is taken first.
    """
    negative = list(row["negative"])
    wanted = COUNT - math.ceil(COUNT * noise)
    if parted and wanted:
        found = [part[0] for part in row["positive"]]
        rest = [text for round in _rounds(row["positive"]) for text in round]
        found += rest[: max(0, wanted - len(found))]
    else:
        positive = [] if parted else list(row["positive"])
        if noise < 1 and COUNT - wanted > len(negative):
            wanted = COUNT - len(negative)
        found = positive[:wanted]
    return found + negative[: max(0, COUNT - len(found))]


def _rounds(parts: Sequence[Sequence[str]]) -> Iterator[list[str]]:
    """The second texts of all parts, then the third ones, and so on."""
    for at in range(1, max(map(len, parts))):
        yield [part[at] for part in parts if len(part) > at]


def _cases(file: str, row: Mapping[str, Any]) -> Iterator[Case]:
    def case(kind: str, texts: Sequence[tuple[str, str, float | None]]) -> Case:
        question, fake = str(row["query"]), str(row.get("fakeanswer", ""))
        return Case(file, str(row["id"]), kind, question, row["answer"], fake, tuple(texts))

    place: dict[str, str] = {}
    for kind in (*NOISE, "1"):
        texts = passages(row, float(kind), file.endswith("_int"))
        if texts:
            named = [place.setdefault(t, f"{row['id']}/p{len(place)}") for t in texts]
            yield case(kind, [(n, t, None) for n, t in zip(named, texts, strict=True)])
    if "positive_wrong" not in row:
        return
    true, false = list(row["positive"])[:COUNT], list(row["positive_wrong"])[:COUNT]
    yield case("false", [(f"{row['id']}/f{n}", t, None) for n, t in enumerate(false)])
    yield case("versions", _versions(f"{row['id']}/a", true, false))
    yield case("corrected", _versions(f"{row['id']}/b", false, true))
    if len(true) > 1 and len(false) > 1:
        beside = [(f"{row['id']}/d{n}", t, None) for n, t in enumerate([true[0], *false[1:]])]
        yield case("apart", beside)
        yield case("agreeing", _versions(f"{row['id']}/c", true[::2], true[1::2]))


def _versions(
    name: str, old: Sequence[str], new: Sequence[str]
) -> list[tuple[str, str, float | None]]:
    """Documents in two versions each, told apart by the marks of their names and by time."""
    found: list[tuple[str, str, float | None]] = []
    for number, (before, after) in enumerate(zip(old, new, strict=False)):
        found += [(f"{name}{number} v1", before, OLD), (f"{name}{number} v2", after, NEW)]
    return found


def _true(text: str, case: Case) -> bool:
    """Whether a text holds the answer, and not only within the false one (70 in 170)."""
    if case.fake:
        text = asking.folded(text).replace(asking.folded(case.fake), "…")
    return asking.holds(text, case.gold)


def _known(folder: Path) -> list[str]:
    found = sorted(path.name.removesuffix(".jsonl.gz") for path in folder.glob("*.jsonl.gz"))
    if not found:
        raise SystemExit(f"{folder}: no .jsonl.gz; name a folder with files of RGB")
    return sorted(found, key=lambda name: (name.endswith("_fact"), name.endswith("_int"), name))


def _show(names: Sequence[str], found: Sequence[Said], options: argparse.Namespace) -> None:
    """Print the table and the JSON line."""
    rows: list[tuple[str, str, str]] = []
    values: dict[str, object] = {}
    for name in names:
        of: dict[str, list[Said]] = {}
        for one in found:
            if one.case.file == name:
                of.setdefault(one.case.kind, []).append(one)
        values[name] = _measured(name, of, rows)
    report(f"RGB, {options.policy}", rows, values | {"policy": options.policy})


Measure = Callable[[Said], bool]
ARMS: dict[str, dict[str, Measure]] = {
    "false": {"misled": lambda s: s.fake and not s.right},
    "versions": {
        "detected": lambda s: s.detected,
        "right": lambda s: s.right,
        "misled": lambda s: s.fake and not s.right,
    },
    "corrected": {
        "right": lambda s: s.right,
        "misled": lambda s: s.fake and not s.right,
        "detected": lambda s: s.shown,
    },
    "apart": {
        "detected": lambda s: s.detected,
        "right": lambda s: s.right,
        "misled": lambda s: s.fake and not s.right,
    },
    "agreeing": {"false_alarm": lambda s: s.shown},
}


def _measured(
    name: str, of: Mapping[str, list[Said]], rows: list[tuple[str, str, str]]
) -> dict[str, object]:
    """The values of one file; their rows are added to the table's."""

    def rate(label: str, kind: str, measure: Measure) -> float | None:
        hits = [float(measure(one)) for one in of.get(kind, [])]
        rows.append(asking.row(f"{name} {label}", hits))
        return asking.average(hits)

    values: dict[str, object] = {
        "noise": {kind: rate(f"noise {kind}", kind, lambda s: s.right) for kind in NOISE},
        "rejection": rate("rejection", "1", lambda s: s.abstained),
        "answered": rate("answered in noise", "1", lambda s: s.answered),
        "right_in_noise": rate("right in noise", "1", lambda s: s.right),
        "detected": None,
        "n": len(of.get(NOISE[0], [])),
    }
    if "false" in of:
        arms = {
            arm: {label: rate(f"{arm}: {label}", arm, m) for label, m in measures.items()}
            | {"n": len(of.get(arm, []))}
            for arm, measures in ARMS.items()
        }
        values |= {"detected": arms["versions"]["detected"], "counterfactual": arms}
    return values


if __name__ == "__main__":
    main()
