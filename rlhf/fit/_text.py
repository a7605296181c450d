"""What the policy's tokenizer and its pretraining read: plain text, passages, conversations.

Left out: what benchmarks report on (nq_oracle, xquad and its paragraphs in squad, drcd/dev, every
test split) and a fifth of drcd/test, by paragraph, which the later stages may be fitted on.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from assistant.policy._signs import Sign
from retrieval.fit._glossary import share
from rlhf.errors import TrainingError

#: Of plain text and of passages, the share that is never trained on, whole documents.
HELD = 0.01
#: Laws are two fifths of the Chinese text and much alike: this share of them is read.
LAWS = 0.3
#: Passages a file (the answer's context), all of which carry `split` but the last.
PASSAGES = (
    "squad/squad11_dev",
    "squad/squad2_dev",
    "squadshifts/new_wiki",
    "cmrc2018/dev",
    "cmrc2018/trial",
    "pubmedqa/pqal",
    "drcd/test",
)
DIALOGUES = ("crosswoz", "kdconv", "topical_chat", "sgd")
PAIRS = ("lfrqa/answers", "gsm8k/train", "oasst_zh/sft", "self_instruct/seed_tasks")


@dataclass(frozen=True, slots=True)
class Document:
    """What is trained on in one piece.

    `group` names what must be held out together; `parts` are texts and signs, without the
    document's beginning and end.
    """

    group: str
    lang: str
    source: str
    parts: tuple[str, ...]

    @property
    def text(self) -> str:
        """The first part that is no sign."""
        return next((p for p in self.parts if not isinstance(p, Sign)), "")

    @property
    def held_out(self) -> bool:
        """Whether the document is for checking only."""
        return share(f"pretrain:{self.group}") < HELD


def documents(data: Path) -> Iterator[Document]:
    """All documents of the data folder, plain text first; each begins with its language.

    Raises:
        TrainingError: a file is missing or malformed.
    """
    yield from texts(data / "text")
    yield from passages(data / "qa")
    yield from conversations(data / "sft")


def texts(folder: Path) -> Iterator[Document]:
    """Plain text, a document each.

    Raises:
        TrainingError: there is none, or a file is malformed.
    """
    paths = sorted(folder.glob("*-*.txt.gz"))
    if not paths:
        raise TrainingError(f"no LANGUAGE-SOURCE.txt.gz in {folder}; name the data folder")
    for path in paths:
        lang, _, source = path.name.removesuffix(".txt.gz").partition("-")
        for row in read(path):
            if source != "prc_laws" or share(f"laws:{row['id']}") < LAWS:
                group = str(row["id"]).split("#")[0]
                yield Document(group, lang, source, (Sign(lang), row["text"]))


def passages(folder: Path) -> Iterator[Document]:
    """Passages that questions were asked about, each once, under their titles."""
    reported = {row["context"] for row in read(folder / "xquad" / "en.jsonl.gz")}
    for name in PASSAGES:
        for row in read(folder / f"{name}.jsonl.gz"):
            kept = row.get("split") != "test"
            if name.startswith("drcd"):
                kept = share(row["para_id"]) < 0.8
            if kept and row["context"] not in reported:
                reported.add(row["context"])
                title = str(row.get("title") or "").replace("_", " ")
                text = f"{title}\n\n{row['context']}" if title else row["context"]
                lang = str(row["lang"])[:2]
                yield Document(f"{name}:{row['context']}", lang, name, (Sign(lang), text))
    for row in read(folder / "covidqa" / "docs.jsonl.gz"):
        yield Document(row["id"], "en", "covidqa", (Sign("en"), row["text"]))


def questions(folder: Path) -> Iterator[tuple[str, str]]:
    """(language, question) that may be trained on; the tokenizer should know how people ask."""
    for name in PASSAGES:
        for row in read(folder / f"{name}.jsonl.gz"):
            if row.get("split") != "test" and (
                not name.startswith("drcd") or share(row["para_id"]) < 0.8
            ):
                yield str(row["lang"])[:2], row["question"]
    for row in read(folder / "canard" / "dev.jsonl.gz"):
        yield "en", row["rewrite"]


def conversations(folder: Path) -> Iterator[Document]:
    """Conversations, as the chat template puts them; the first to speak is the user."""
    for name in DIALOGUES:
        for row in read(folder / name / "dialogues.jsonl.gz"):
            if row.get("split") != "test":
                lang = "zh" if name in ("crosswoz", "kdconv") else "en"
                yield _chat(row["id"], lang, name, [turn["text"] for turn in row["turns"]])
    for name in PAIRS:
        for row in read(folder / f"{name}.jsonl.gz"):
            if row.get("split") != "test":
                past = [str(text) for pair in row.get("history") or () for text in pair]
                said = [*past, row["prompt"], row["response"]]
                yield _chat(row["id"], row["lang"], name.split("/")[0], said)
    for row in read(folder / "chatterbot" / "pairs.jsonl.gz"):
        yield _chat(row["id"], str(row["lang"])[:2], "chatterbot", row["turns"])


def read(path: Path) -> Iterator[Mapping[str, Any]]:
    """Rows of a gzipped JSON-lines file.

    Raises:
        TrainingError: the file is missing or malformed.
    """
    try:
        with gzip.open(path, "rt", encoding="utf-8") as file:
            for line in file:
                yield json.loads(line)
    except (OSError, EOFError, ValueError) as error:
        raise TrainingError(f"cannot read {path}: {error}; name the data folder") from error


def _chat(group: str, lang: str, source: str, said: list[str]) -> Document:
    parts: list[str] = []
    for number, text in enumerate(said):
        parts += [Sign("assistant" if number % 2 else "user"), text, Sign("end")]
    return Document(f"{source}:{group}", lang, source, tuple(parts))
