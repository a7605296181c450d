"""Test collections: documents, queries and judgements on disk, and a store filled with them.

A folder holds corpus.jsonl.gz {id, title, text}, queries.jsonl.gz {id, text, split?} and qrels.tsv
(query-id, doc-id, relevance; a header line). A folder of multi-turn tasks holds tasks.jsonl.gz
{id, input: [{speaker, text}, ...]} in place of the queries, and one qrels file a collection.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import random
import re
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from assistant.schema import PolicyCard, Reply, Turn
from assistant.understand import understand
from retrieval import direct, menu
from retrieval.config import ChunkSettings, RetrievalSettings
from retrieval.embed.base import Embedder, Kind, Vectors
from retrieval.store import Store
from retrieval.text import count_tokens, language

#: A distractor is a paragraph of so many tokens: about as long as those of the collections.
SHORTEST, LONGEST = 40, 400
ROOT = "corpus"


@dataclass(frozen=True, slots=True)
class Doc:
    """A document of the collection, searched as a whole; `lang` is "en" or "zh"."""

    id: str
    title: str
    text: str
    lang: str


@dataclass(frozen=True, slots=True)
class Query:
    """A question; `said` are the turns before it, (speaker, text), oldest first."""

    id: str
    text: str
    lang: str
    split: str = ""
    said: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Collection:
    """Documents, queries, and relevance by query and document id."""

    name: str
    docs: tuple[Doc, ...]
    queries: tuple[Query, ...]
    qrels: dict[str, dict[str, float]] = field(default_factory=dict)


def lines(path: Path) -> Iterator[Any]:
    """The objects of a .jsonl.gz file.

    Raises:
        SystemExit: there is no such file, or a line of it is no JSON.
    """
    if not path.is_file():
        raise SystemExit(f"{path}: no such file; name a folder laid out as in bench/ir.py")
    with gzip.open(path, "rt", encoding="utf-8") as file:
        for number, line in enumerate(file, start=1):
            try:
                yield json.loads(line)
            except json.JSONDecodeError as error:
                raise SystemExit(f"{path}:{number}: not JSON ({error}); repair the line") from error


def read(folder: Path) -> Collection:
    """Read a collection; queries without a relevant document are left out.

    Relevance of documents that are not in the corpus is left out too.
    """
    docs = tuple(
        Doc(d["id"], d.get("title", ""), d["text"], _lang(d))
        for d in lines(folder / "corpus.jsonl.gz")
    )
    known = {doc.id for doc in docs}
    qrels: dict[str, dict[str, float]] = {}
    for path in sorted(folder.glob("qrels*.tsv")):
        for row in path.read_text(encoding="utf-8").splitlines()[1:]:
            query, doc, relevance = row.split("\t")
            if doc in known:
                qrels.setdefault(query, {})[doc] = float(relevance)
    tasks = folder / "tasks.jsonl.gz"
    queries = _tasks(tasks) if tasks.is_file() else _queries(folder / "queries.jsonl.gz")
    answerable = {q for q, judged in qrels.items() if any(v > 0 for v in judged.values())}
    kept = tuple(query for query in queries if query.id in answerable)
    return Collection(folder.name, docs, kept, qrels)


def across(collection: Collection, direction: str) -> Collection:
    """Queries of one language over the documents of another: `direction` is like "en-zh"."""
    asked, searched = direction.split("-")
    docs = tuple(doc for doc in collection.docs if doc.lang == searched)
    known = {doc.id for doc in docs}
    qrels = {
        query: {doc: value for doc, value in judged.items() if doc in known}
        for query, judged in collection.qrels.items()
    }
    queries = tuple(
        query
        for query in collection.queries
        if query.lang == asked and any(qrels[query.id].values())
    )
    return replace(collection, docs=docs, queries=queries, qrels=qrels)


def chosen(collection: Collection, limit: int, split: str) -> Collection:
    """Queries of one split only (all: ""), at most `limit` of them (all: 0), the same each time."""
    queries = [query for query in collection.queries if split in ("", query.split)]
    if limit and limit < len(queries):
        queries = random.Random(0).sample(queries, limit)
    return replace(collection, queries=tuple(queries))


def distractors(paths: Sequence[Path], count: int, docs: Sequence[Doc]) -> list[Doc]:
    """`count` paragraphs of text files {id, text}, in the language mix of `docs`, drawn by a seed.

    Fewer where the files do not hold as many of a language; none that is in `docs` already.
    """
    have = {doc.text for doc in docs}
    found: dict[str, list[Doc]] = {"en": [], "zh": []}
    for path in _files(paths):
        for row in lines(path):
            for place, text in enumerate(re.split(r"\n\s*\n", row["text"])):
                text = text.strip()
                if text not in have and SHORTEST <= count_tokens(text) <= LONGEST:
                    have.add(text)
                    tongue = language(text)
                    found[tongue].append(Doc(f"distractor:{row['id']}:{place}", "", text, tongue))
    chinese = round(count * sum(doc.lang == "zh" for doc in docs) / max(1, len(docs)))
    drawn = []
    for tongue, wanted in (("en", count - chinese), ("zh", chinese)):
        pool = found[tongue]
        drawn += random.Random(0).sample(pool, min(wanted, len(pool)))
    return drawn


def asked(query: Query, history: str) -> str:
    """The text searched for a query with turns before it.

    Args:
        query: the last turn, and what was said before.
        history: "last" (the turn alone), "all" (all user turns joined), or "rewrite" (made
            standalone by the assistant's own rules, turn by turn).
    """
    users = [text for speaker, text in query.said if speaker == "user"]
    if history == "last" or not users:
        return query.text
    if history == "all":
        return "\n".join((*users, query.text))
    turns: list[Turn] = []
    for place, (speaker, text) in enumerate(query.said):
        if speaker == "user":
            answer = query.said[place + 1][1] if place + 1 < len(query.said) else ""
            turns.append(_turn(text, answer, turns))
    return understand(query.text, turns).query or query.text


def rewritten(collection: Collection, history: str) -> Collection:
    """The collection with `asked` in place of each query's own text."""
    queries = tuple(replace(query, text=asked(query, history)) for query in collection.queries)
    return replace(collection, queries=queries)


def places(database: Path) -> dict[int, str]:
    """The document id of each chunk in a store filled by `fill`."""
    rows = "SELECT chunk.id, source FROM chunk JOIN document ON document.id = document_id"
    with closing(sqlite3.connect(database)) as connection:
        found = connection.execute(rows).fetchall()
    return {key: source.removeprefix(f"{ROOT}:") for key, source in found}


def embedder(settings: RetrievalSettings, folder: Path) -> Cached:
    """The encoder that the settings name, with its passage vectors kept in `folder`."""
    backend = menu.load("retrieval.embed", settings.embed.backend)
    variant = f"{settings.embed.runtime} {settings.embed.device} {settings.embed.dtype}"
    return Cached(backend.build(settings.embed), folder, variant)


def fill(store: Store, embedder: Embedder, docs: Sequence[Doc], sizes: ChunkSettings) -> int:
    """Cut, embed and store `docs`; returns the number of chunks.

    A document's source is `corpus:` and its id.
    """
    texts = [direct.Plain(f"{ROOT}:{doc.id}", ROOT, doc.text, doc.title) for doc in docs]
    return direct.put(store, embedder, texts, sizes)


class Cached:
    """An embedder whose passage vectors are kept on disk, by its id and the text's digest.

    Queries are embedded every time, because the time of a search includes them.
    """

    def __init__(self, embedder: Embedder, folder: Path, variant: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._embedder = embedder
        self.id, self.dim = embedder.id, embedder.dim
        name = hashlib.sha256(f"{embedder.id} {variant}".encode()).hexdigest()[:16]
        self._cache = sqlite3.connect(folder / f"{name}.db", timeout=60)
        self._cache.execute("CREATE TABLE IF NOT EXISTS vector (digest BLOB PRIMARY KEY, v BLOB)")
        self.embedded = 0

    def embed(self, texts: Sequence[str], kind: Kind) -> Vectors:
        """See `Embedder.embed`."""
        if kind == "query":
            return self._embedder.embed(texts, kind)
        vectors = np.zeros((len(texts), self.dim), dtype=np.float32)
        digests = [hashlib.sha256(text.encode("utf-8", "replace")).digest() for text in texts]
        missing = []
        for row, digest in enumerate(digests):
            kept = self._cache.execute(
                "SELECT v FROM vector WHERE digest = ?", (digest,)
            ).fetchone()
            if kept is None:
                missing.append(row)
            else:
                vectors[row] = np.frombuffer(kept[0], dtype="<f4")
        if missing:
            vectors[missing] = self._embedder.embed([texts[row] for row in missing], kind)
            self.embedded += len(missing)
            with self._cache:
                self._cache.executemany(
                    "INSERT OR REPLACE INTO vector VALUES (?, ?)",
                    [(digests[row], vectors[row].astype("<f4").tobytes()) for row in missing],
                )
        return vectors

    def reads(self, text: str) -> bool:
        """See `Embedder.reads`."""
        return self._embedder.reads(text)


def _turn(text: str, answer: str, before: Sequence[Turn]) -> Turn:
    """A turn as the assistant would have stored it, without citations."""
    meant = understand(text, before)
    reply = Reply(
        turn_id="",
        candidate_id="",
        conversation_id="",
        text=answer,
        outcome="answered",
        language=meant.language,
        citations=(),
        passages=(),
        verdicts=(),
        steps=(),
        understanding=meant,
        policy=PolicyCard("bench", ""),
        confidence=None,
        seconds=0.0,
    )
    return Turn("", "", text, reply, 0.0)


def _queries(path: Path) -> list[Query]:
    return [Query(q["id"], q["text"], _lang(q), q.get("split", "")) for q in lines(path)]


def _tasks(path: Path) -> list[Query]:
    found = []
    for task in lines(path):
        *before, last = [(turn["speaker"], turn["text"]) for turn in task["input"]]
        found.append(Query(task["id"], last[1], language(last[1]), said=tuple(before)))
    return found


def _lang(row: Any) -> str:
    return str(row.get("lang") or language(row["text"]))


def _files(paths: Sequence[Path]) -> list[Path]:
    found: list[Path] = []
    for path in paths:
        if not path.exists():
            raise SystemExit(f"{path}: no such file or folder; check --distractors")
        found += sorted(path.glob("*.txt.gz")) if path.is_dir() else [path]
    return found
