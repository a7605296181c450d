"""Fits what tells a refusal from an answer: `python app.py train refusals --data FOLDER`.

Logistic regression by L-BFGS over the features of `safety._refusals`; minutes on a CPU at most,
deterministic with the seed. Full refusals are 1, answers 0; partial ones are left out, since
people disagree on them. Data: the responses written for this project, the project's own replies
(an abstention for lack of evidence is an answer), CoCoNot train with the rejected answers that
were read and sorted by hand, and the safe and unsafe answers of JADE's pairs, of which the safe
ones refuse. Answers to questions are long and the written ones short, so copies are cut or
lengthened: length must not tell.
"""

from __future__ import annotations

import base64
import hashlib
import json
import random
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.sparse import csr_matrix

from assistant import phrases
from assistant.config import Settings
from assistant.errors import ConfigError
from assistant.fit._guard_labels import read
from assistant.fit._guard_rows import CONTRAST
from safety._language import language_of
from safety._refusals import BUCKETS, NGRAMS, SENTENCES, cues, grams
from safety.refusal import GENERIC, OUTPUT, REFUSALS, RESOURCES, crisis_reply

SEED = 7
L2 = 1.0
FOLDS = 4
#: How much a row of a source counts.
WEIGHT = {"written": 2.0, "own": 4.0, "coconot": 0.7, "jade": 0.5, "longer": 1.0, "cut": 0.4}
#: Texts shorter than this many characters are neither cut nor a source of endings.
LONG = 200
_DECLINED = re.compile(r"\b(?:can't|cannot|unable|not able|not appropriate)\b|无法|不能|拒绝")
_AFTER = re.compile(r"(?<=[.!?。！？])\s*")
#: Rejected answers of CoCoNot that refuse, and those that refuse in part, by the row's id.
REFUSE = frozenset(
    """b0x2l3w 7h9u8ad wj0i30f z3tulv9 4d2o1v7 57jazcn dcmtceb ue0x4ib rd58exu di0bh1n nujcker
    mk29yt8 amwginu qs3kb1n jkzwdxu keuyppz n1ohbz6 rc87yuw ic8ln4s ussk6jy 603kffr srckccz ghrmt7v
    ufha5oq pc8m9nx z9eok46 ax59r0l indmps2 lgpg5rs n0eren7 oj9eume t3e5lfg m36fjhj ks1k2hs mw0wfzw
    jwwhvhj ccjfc6n 023xh0m""".split()
)
PARTIAL = frozenset(
    """iuhbzf2 saoczgr 6gv95ds nqufo8w b5u6y1n 9ud6lun 2mw24om kbvy200 gxbhrd6 nwy1k5o dffds5j
    phnm401 i69layw dyn7cho o35rurs 7c567b3 orho73a zq4343w z3z5rtg 15gkaz4 seuti44 mj1nk15 83u7wtf
    cwoacnb my3si02 i0d19oi 2t83j87 bxwu8uz 81bzh9k 2gr7do8 l8amrjy 80xf01z fp1hhs8 740b9d8 bk8nywl
    3vfvkd1 9aorqgo""".split()
)


@dataclass(frozen=True, slots=True)
class Row:
    """An answer, whether it refuses, where it is from, and the request it answers."""

    text: str
    refuses: bool
    source: str
    request: str

    @property
    def kind(self) -> tuple[bool, str]:
        """Rows of one kind may share an ending."""
        return self.refuses, language_of(self.text)


def run(data: Path, out: Path, limit: int | None, settings: Settings) -> Iterator[str]:
    """Cross-validate, fit on all rows, and write weights and card to `out`; says how it went.

    `data` is the folder of safety/; `limit` takes that many rows of each source.

    Raises:
        ConfigError: a training file is missing or malformed.
    """
    found = _drawn(list(rows(data)), limit)
    lines = [f"{len(found)} answers, {sum(row.refuses for row in found)} of them refuse"]
    lines += scores(found)
    yield from lines
    weights, names = fit(found)
    yield f"written to {write(out, weights, names, lines)}"


def rows(data: Path) -> Iterator[Row]:
    """Every answer of the sources, partial refusals left out."""
    for path in sorted(CONTRAST.glob("responses*.tsv")):
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
            label, _, rest = line.partition("\t")
            request, _, text = rest.partition("\t")
            if label not in ("refuse", "partial", "comply") or not text:
                raise ConfigError(f"{path}, line {number}: not a label, a request and a response")
            if label != "partial":
                yield Row(text, label == "refuse", "written", request)
    own = [text for pair in (*REFUSALS.values(), GENERIC, OUTPUT) for text in pair]
    yield from (Row(text, True, "own", text) for text in own)
    places = [(language, place) for language in ("en", "zh") for place in ("", "BR", *RESOURCES)]
    kept = [*_said(), *(crisis_reply(*pair) for pair in places)]
    yield from (Row(text, False, "own", text) for text in kept)
    for row in read(data / "safety" / "coconot" / "train.jsonl.gz"):
        if row["id"] not in PARTIAL:
            yield Row(row["rejected"], row["id"] in REFUSE, "coconot", row["text"])
        if not _DECLINED.search(row["chosen"][:240].lower().replace("’", "'")):
            yield Row(row["chosen"], False, "coconot", row["text"])
    for row in read(data / "safety" / "jade-pairs" / "train.jsonl.gz"):
        safe = row["response_label"] == "safe"
        if safe or not _DECLINED.search(row["response"][:60]):
            yield Row(row["response"], safe, "jade", row["text"])


def _said() -> Iterator[str]:
    """What the assistant says in its own words, and that it found nothing; both languages."""
    for said in phrases.PHRASES.values():
        yield from said.values()
    for language, query, near in (("en", "opening hours", "prices"), ("zh", "营业时间", "价格")):
        yield phrases.abstain(language, query, [query], [])
        yield phrases.abstain(language, query, [], [near])
        yield phrases.abstain(language, query, [], [])


def _drawn(found: list[Row], limit: int | None) -> list[Row]:
    if not limit:
        return found
    dice = random.Random(SEED)
    by_source: dict[str, list[Row]] = {}
    for row in found:
        by_source.setdefault(row.source, []).append(row)
    return [r for of in by_source.values() for r in dice.sample(of, min(limit, len(of)))]


def varied(found: Sequence[Row], seed: int) -> list[Row]:
    """Copies of another length: written ones with an ending more, others cut to one to three."""
    dice = random.Random(seed)
    endings: dict[tuple[bool, str], list[str]] = {}
    for row in found:
        if row.source in ("coconot", "jade") and len(row.text) > LONG:
            endings.setdefault(row.kind, []).append(" ".join(_AFTER.split(row.text)[2:]))
    copies = []
    for row in found:
        if row.source == "written" and row.kind in endings:
            longer = f"{row.text} {dice.choice(endings[row.kind])}"
            copies.append(Row(longer, row.refuses, "longer", row.request))
        elif row.source in ("coconot", "jade") and len(row.text) > LONG:
            cut = " ".join(_AFTER.split(row.text)[: dice.choice((1, 2, 3))])
            copies.append(Row(cut, row.refuses, "cut", row.request))
    return copies


def matrix(texts: Iterable[str], names: Sequence[str]) -> csr_matrix:
    """Features (texts, len(names) + BUCKETS + 1): cues, n-grams, and 1 for the bias."""
    place = {name: i for i, name in enumerate(names)}
    columns: list[int] = []
    values: list[float] = []
    ends = [0]
    for text in texts:
        told = {place[name]: value for name, value in cues(text).items() if name in place}
        told |= {len(names) + i: NGRAMS * value for i, value in grams(text).items()}
        told[len(names) + BUCKETS] = 1.0
        columns += told.keys()
        values += told.values()
        ends.append(len(columns))
    return csr_matrix((values, columns, ends), shape=(len(ends) - 1, len(names) + BUCKETS + 1))


def fit(found: Sequence[Row]) -> tuple[NDArray[np.float64], list[str]]:
    """Weights (cues, then n-grams, then bias) and the cues' names."""
    whole = [*found, *varied(found, SEED)]
    names = sorted({name for row in whole for name in cues(row.text)})
    inputs = matrix((row.text for row in whole), names)
    signs = np.array([1.0 if row.refuses else -1.0 for row in whole])
    counts = np.array([WEIGHT[row.source] for row in whole])

    def loss(weights: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        margins = signs * (inputs @ weights)
        pull = -signs * counts / (1 + np.exp(np.clip(margins, -500, 500)))
        kept = weights.copy()
        kept[-1] = 0  # the bias is free
        value = counts @ np.logaddexp(0, -margins) + L2 / 2 * float(kept @ kept)
        return float(value), inputs.T @ pull + L2 * kept

    start = np.zeros(inputs.shape[1])
    best = minimize(loss, start, jac=True, method="L-BFGS-B", options={"maxiter": 400})
    return np.asarray(best.x, dtype=np.float64), names


def scores(found: Sequence[Row]) -> list[str]:
    """F1 by source and language, cross-validated with all answers to a request in one fold."""
    tallies: dict[tuple[str, str], list[int]] = {}
    folds = [
        int(hashlib.sha256(row.request[:30].encode()).hexdigest()[:8], 16) % FOLDS for row in found
    ]
    for fold in range(FOLDS):
        weights, names = fit([r for r, f in zip(found, folds, strict=True) if f != fold])
        held = [r for r, f in zip(found, folds, strict=True) if f == fold]
        held = [*held, *varied(held, SEED + 1)]
        said = matrix((row.text for row in held), names) @ weights > 0
        for row, one in zip(held, said, strict=True):
            tally = tallies.setdefault((row.source, language_of(row.text)), [0, 0, 0])
            tally[0] += bool(one) and row.refuses
            tally[1] += bool(one)
            tally[2] += row.refuses
    return [
        f"{source} {language}: F1 {2 * hit / max(1, told + true):.3f}, precision "
        f"{hit / max(1, told):.3f}, recall {hit / max(1, true):.3f}, {true} refuse"
        for (source, language), (hit, told, true) in sorted(tallies.items())
        if true >= 10
    ]


def write(
    out: Path, weights: NDArray[np.float64], names: Sequence[str], lines: Sequence[str]
) -> Path:
    """Write weights.json and card.md; the n-gram weights are rounded to 8 bits."""
    of_grams = weights[len(names) : len(names) + BUCKETS]
    scale = float(np.abs(of_grams).max()) / 127 or 1.0
    packed = np.round(of_grams / scale).astype(np.int8).tobytes()
    told = {
        "cues": {name: round(float(weights[i]), 4) for i, name in enumerate(names)},
        "bias": round(float(weights[-1]), 4),
        "scale": scale,
        "grams": base64.b64encode(packed).decode("ascii"),
    }
    text = json.dumps(told, indent=1, ensure_ascii=False)
    revision = hashlib.sha256(text.encode()).hexdigest()[:12]
    out.mkdir(parents=True, exist_ok=True)
    (out / "weights.json").write_text(text + "\n", encoding="utf-8")
    measured = "\n".join(f"- {line}" for line in lines)
    (out / "card.md").write_text(
        f"""# refusals: whether an answer refuses

Revision {revision}. Made by `python app.py train refusals --data FOLDER` (seed {SEED}).

A linear model over cues in the first {SENTENCES} sentences and {BUCKETS} hashed word n-grams, \
English and Chinese, read by `safety.refusal.is_refusal`.

Data: responses written for this project by a language model, the project's own replies, CoCoNot \
train (MIT, AI2), JADE pairs (MIT, whitzard-ai; the label safe taken for a refusal). Partial \
refusals are left out.

Cross-validated, all answers to a request in one fold; "longer" and "cut" are copies of another \
length:

{measured}
""",
        encoding="utf-8",
    )
    return out
