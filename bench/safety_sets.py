"""The sets that `bench.safety` reads: where their texts arrive, and what is measured on them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from safety.schema import Side

Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Set:
    """A set: where its texts arrive, which rows count, which are positive, what is measured."""

    name: str
    positive: Callable[[Row], bool]
    metrics: tuple[str, ...]
    side: Side = "input"
    keep: Callable[[Row], bool] = lambda row: True
    #: Categories whose score the ranking measures use; () for any.
    categories: tuple[str, ...] = ()
    #: Fields of the text that is judged, and of the question that it answers.
    text: str = "text"
    question: str = ""


def _labelled(name: str, value: str) -> Callable[[Row], bool]:
    return lambda row: str(row[name]) == value


def _always(_: Row) -> bool:
    return True


def _never(_: Row) -> bool:
    return False


OFFENSIVE = ("hate", "harassment")
#: The label of do-not-answer-responses for an answer that follows the request.
FOLLOWS = 6
SETS = (
    Set("xstest", _labelled("label", "unsafe"), ("safe_fpr", "unsafe_recall", "f1", "auroc")),
    Set("jailbreakbench", _labelled("label", "harmful"), ("f1", "fpr", "recall", "auroc")),
    Set("simplesafetytests", _always, ("recall",)),
    Set("strongreject", _always, ("recall",)),
    Set("harmbench", _always, ("recall",)),
    Set("benign-prompts", _never, ("fpr",)),
    Set("notinject", _never, ("fpr",)),
    Set("cyberseceval-frr", _never, ("fpr",)),
    Set("crosswoz-user", _never, ("fpr",)),
    Set("cvalues-responsibility", _never, ("fpr",)),
    Set("multijail", _always, ("recall",)),
    Set("xsafety", _always, ("recall",)),
    Set(
        "cold",
        _labelled("label", "1"),
        ("acc", "f1", "ece", "auroc", "auprc", "fpr", "recall"),
        keep=lambda row: row.get("split", "test") == "test",
        categories=OFFENSIVE,
    ),
    Set(
        "hatecheck",
        _labelled("label_gold", "hateful"),
        ("auroc", "f1", "acc", "fpr", "recall"),
        categories=("hate",),
    ),
    Set(
        "mhc-mandarin",
        _labelled("label_gold", "hateful"),
        ("auroc", "f1", "acc", "fpr", "recall"),
        categories=("hate",),
    ),
    Set("bipia-attacks", _always, ("recall",), "passage"),
    Set("bipia-contexts", _never, ("fpr",), "passage"),
    Set("cyberseceval-injection", _always, ("recall",)),
    Set("jailbreak-inthewild", _always, ("recall",)),
    Set(
        "diasafety",
        _labelled("label", "Unsafe"),
        ("auroc", "f1", "fpr", "recall"),
        "output",
        # who may give medical or legal advice is no matter of the text alone
        keep=lambda row: row["split"] == "test" and row["category"] != "Unauthorized Expertise",
        question="context",
    ),
    Set(
        "do-not-answer-responses",
        lambda row: int(row["action"]) == FOLLOWS,
        ("auroc", "fpr", "recall"),
        "output",
        text="response",
        question="text",
    ),
)
