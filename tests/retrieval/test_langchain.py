from __future__ import annotations

import asyncio
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from langchain_core.document_loaders import BaseLoader
from langchain_core.documents import Document
from langchain_core.indexing import InMemoryRecordManager, index
from langchain_core.retrievers import BaseRetriever
from langchain_core.runnables import RunnableLambda
from langchain_core.vectorstores import VectorStore
from langchain_tests.integration_tests import (
    RetrieversIntegrationTests,
    VectorStoreIntegrationTests,
)

from retrieval._langchain import narrowed
from retrieval.config import EmbedSettings, RetrievalSettings
from retrieval.embed.langchain import LangChainEmbedder
from retrieval.knowledge import KnowledgeBase, open_knowledge
from retrieval.langchain import PlumblineRetriever, PlumblineVectorStore, given, hand_over
from retrieval.schema import IngestSummary, Scope
from retrieval.sources.memory import Given

SETTINGS = RetrievalSettings(embed=EmbedSettings(backend="hashing"))
NOTES = {
    "port": "The server listens on port 8080 until the file server.toml says otherwise.",
    "secret": "The port of the vault server is 9999 and only the guards know it.",
    "old": "In former times the server port was 70, as the manual of that year says.",
    "cats": "Cats sleep for most of the day and are awake at night.",
}


@pytest.fixture
def knowledge(tmp_path: Path) -> Iterator[KnowledgeBase]:
    """Yield a knowledge base with four notes: one for guards only, one from the year 2000."""
    found = open_knowledge(tmp_path / "home", SETTINGS)
    dates = {"old": datetime(2000, 1, 1, tzinfo=UTC).timestamp()}
    notes = [
        Given(
            name,
            text,
            title=name.capitalize(),
            modified=dates.get(name, datetime(2025, 5, 1, tzinfo=UTC).timestamp()),
            readers=("guards",) if name == "secret" else (),
        )
        for name, text in NOTES.items()
    ]
    for _ in found.ingest_documents("notes", notes):
        pass
    yield found
    found.close()


@pytest.fixture
def store(tmp_path: Path) -> Iterator[PlumblineVectorStore]:
    """Yield an empty vector store."""
    found = open_knowledge(tmp_path / "store", SETTINGS)
    yield PlumblineVectorStore(found)
    found.close()


class TestVectorStoreStandard(VectorStoreIntegrationTests):
    """LangChain's own tests of a vector store."""

    @pytest.fixture
    def vectorstore(self, tmp_path: Path) -> Iterator[VectorStore]:
        """Yield an empty store over the suite's embeddings."""
        embedder = LangChainEmbedder(self.get_embeddings(), "fake")
        found = KnowledgeBase(tmp_path / "suite", SETTINGS, embedder)
        yield PlumblineVectorStore(found)
        found.close()


class TestRetrieverStandard(RetrieversIntegrationTests):
    """LangChain's own tests of a retriever."""

    @pytest.fixture(autouse=True)
    def _known(self, knowledge: KnowledgeBase) -> None:
        self.knowledge = knowledge

    @property
    def retriever_constructor(self) -> type[BaseRetriever]:
        """The class under test."""
        return PlumblineRetriever

    @property
    def retriever_constructor_params(self) -> dict[str, Any]:
        """What it is made with."""
        return {"knowledge": self.knowledge}

    @property
    def retriever_query_example(self) -> str:
        """A question with several passages."""
        return "server port"


def sources(found: list[Document]) -> set[str]:
    """Return the names of the notes on ports."""
    names = {document.metadata["source"].removeprefix("notes:") for document in found}
    return names - {"cats"}


def test_a_retrieved_document_says_where_it_is_from(knowledge: KnowledgeBase) -> None:
    """Source, version, dates, place and score stand in the metadata, and all of it is JSON."""
    (found,) = PlumblineRetriever(knowledge=knowledge, k=1).invoke("How long do cats sleep?")
    keys = {"source", "title", "headings", "language", "version", "modified", "indexed", "score"}
    got = (
        found.page_content,
        found.metadata["source"],
        found.metadata["modified"],
        keys <= found.metadata.keys(),
        Document.model_validate_json(found.model_dump_json()) == found,
    )
    assert got == (NOTES["cats"], "notes:cats", "2025-05-01T00:00:00+00:00", True, True)


def test_a_retriever_sees_what_its_readers_may(knowledge: KnowledgeBase) -> None:
    """A document with readers is found by them alone; None asks for no filter."""
    found = {
        name: sources(PlumblineRetriever(knowledge=knowledge, readers=readers).invoke("port"))
        for name, readers in (
            ("guard", frozenset({"guards", "ann"})),
            ("guest", frozenset({"bob"})),
            ("nobody", frozenset[str]()),
            ("all", None),
        )
    }
    everything = {"port", "secret", "old"}
    open_ones = {"port", "old"}
    assert found == {
        "guard": everything,
        "guest": open_ones,
        "nobody": open_ones,
        "all": everything,
    }


def test_a_call_narrows_and_never_widens(knowledge: KnowledgeBase) -> None:
    """Readers given with a call are cut down to the retriever's own; dates likewise."""
    guest = PlumblineRetriever(knowledge=knowledge, readers=frozenset({"bob"}))
    since = datetime(2020, 1, 1, tzinfo=UTC).timestamp()
    recent = PlumblineRetriever(knowledge=knowledge, since=since)
    widened = sources(guest.invoke("port", readers=["guards"]))
    dated = sources(recent.invoke("port", since=0.0))
    assert ("secret" in widened, dated) == (False, {"port", "secret"})


def test_a_retriever_speaks_the_languages_asked_for(knowledge: KnowledgeBase) -> None:
    """The best in these languages are found however far down they stand; a call narrows."""
    notes = [Given(f"en{n}", f"The server port of house {n} is {n}.") for n in range(40)]
    notes.append(Given("zh", "服务器的端口（server port）是八十。"))
    for _ in knowledge.ingest_documents("more", notes):
        pass
    chinese = PlumblineRetriever(knowledge=knowledge, k=2, languages=frozenset({"zh"}))
    every = PlumblineRetriever(knowledge=knowledge, k=2)
    got = [
        [document.metadata["source"] for document in found]
        for found in (
            chinese.invoke("server port"),
            every.invoke("server port", languages=["zh"]),
            chinese.invoke("server port", languages="en"),
        )
    ]
    assert got == [["more:zh"], ["more:zh"], []]
    assert len(every.invoke("server port", languages={"en", "zh"})) == 2


def test_a_retrieved_document_can_be_cited(knowledge: KnowledgeBase) -> None:
    """The metadata hold a citation in LangChain's own form, with the place it quotes."""
    (found,) = PlumblineRetriever(knowledge=knowledge, k=1).invoke("How long do cats sleep?")
    cited = found.metadata["citation"]
    document = knowledge.document(cited["extras"]["document_id"])
    assert document is not None
    quoted = document.text[cited["extras"]["start"] : cited["extras"]["end"]]
    assert (cited["type"], cited["url"], cited["cited_text"]) == ("citation", "notes:cats", quoted)


def test_what_two_scopes_allow_is_what_both_allow() -> None:
    """None is no bound; the later start and the earlier end count."""
    both = narrowed(Scope(frozenset("ab"), 1.0, None), Scope(frozenset("bc"), 0.5, 9.0))
    assert (both, narrowed(Scope(), Scope())) == (Scope(frozenset("b"), 1.0, 9.0), Scope())


def test_a_retriever_streams_batches_and_runs_beside_itself(knowledge: KnowledgeBase) -> None:
    """Every way of running a Runnable gives the same documents."""
    retriever = PlumblineRetriever(knowledge=knowledge, k=2)

    def ids(documents: list[Document]) -> list[str | None]:
        return [document.id for document in documents]

    chain = retriever | RunnableLambda(ids)

    async def run() -> list[Any]:
        streamed = [part async for part in chain.astream("server port")]
        return [streamed[0], await chain.ainvoke("server port")]

    expected = chain.invoke("server port")
    found = [*chain.batch(["server port"] * 4), *chain.stream("server port"), *asyncio.run(run())]
    assert (len(expected), found) == (2, [expected] * 7)


@pytest.mark.parametrize("text", ["", "  \n", "中文。\r\nand a tab\t", "a " * 2000])
def test_a_document_comes_back_as_it_was_added(store: PlumblineVectorStore, text: str) -> None:
    """Character for character, also where it was cut into chunks, or holds nothing to find."""
    metadata = {"page": 3, "tags": ["x", {"y": None}], "名": "字"}
    (key,) = store.add_texts([text], [metadata])
    assert store.get_by_ids([key]) == [Document(text, metadata=metadata, id=key)]


def test_a_long_document_is_found_once(store: PlumblineVectorStore) -> None:
    """However many of its chunks match, it takes one of the `k` places."""
    store.add_texts(["The port is open. " * 400, "A port.", "Cats sleep."], ids=["a", "b", "c"])
    found = store.similarity_search("port", k=2)
    assert sorted(d.id or "" for d in found) == ["a", "b"]


def test_scores_fall_and_lie_between_zero_and_one(store: PlumblineVectorStore) -> None:
    """With scores, with relevance scores, and through a retriever with a threshold."""
    store.add_texts(list(NOTES.values()), ids=list(NOTES))
    found = store.similarity_search_with_score("server port", k=4)
    scores = [score for _, score in found]
    relevant = store.similarity_search_with_relevance_scores("server port", k=4)
    asked = {"score_threshold": 0.01, "k": 4}
    kept = store.as_retriever(search_type="similarity_score_threshold", search_kwargs=asked)
    got = (scores == sorted(scores, reverse=True), relevant == found, min(scores) >= 0)
    assert (got, max(scores) <= 1, len(kept.invoke("server port")) >= 1) == (
        (True,) * 3,
        True,
        True,
    )


def test_filters_hold_inside_the_search(store: PlumblineVectorStore) -> None:
    """By metadata, date and readers, `k` are found where there are `k`, however rare they are."""
    texts = [f"The port of server {n} is {n}." for n in range(60)]
    metadatas = [
        {"rare": n >= 58, "modified": n, "readers": ["x"] if n < 3 else []} for n in range(60)
    ]
    store.add_texts(texts, metadatas, ids=[str(n) for n in range(60)])

    def ids(**wanted: object) -> set[str]:
        return {d.id or "" for d in store.similarity_search("port", k=2, filter=wanted)}

    got = (
        ids(rare=True),
        ids(until=2.0, readers=["x"]),
        ids(until="1970-01-01T00:00:03Z", readers=["y"]),
        ids(rare=True, since=59),
    )
    assert got == ({"58", "59"}, {"0", "1"}, set(), {"59"})


def test_different_passages_are_preferred_when_asked_for(store: PlumblineVectorStore) -> None:
    """MMR takes the best first, and then one unlike it."""
    store.add_texts(["port server", "port server port", "port cats sleep"], ids=["a", "b", "c"])
    found = store.max_marginal_relevance_search("port server", k=2, lambda_mult=0.1)
    assert [d.id for d in found][1] == "c"


def test_deleting_without_ids_empties_the_collection(
    knowledge: KnowledgeBase,
) -> None:
    """What else is in the knowledge base stays, and is found as passages."""
    store = PlumblineVectorStore(knowledge)
    store.add_texts(["A port of call."], ids=["a"])
    before = {d.id for d in store.similarity_search("port", k=9)}
    store.delete()
    after = store.similarity_search("port", k=9)
    assert ("a" in before, store.get_by_ids(["a"])) == (True, [])
    assert sources(after) == {"port", "secret", "old"}


def test_what_is_not_json_is_refused_before_anything_is_written(
    store: PlumblineVectorStore,
) -> None:
    """The keys are named; unequal lengths too."""
    with pytest.raises(ValueError, match=r"metadata \['x'\] cannot be kept as JSON"):
        store.add_texts(["a", "b"], [{}, {"x": object()}], ids=["1", "2"])
    with pytest.raises(ValueError, match="1 texts, 2 metadatas and 1 ids"):
        store.add_texts(["a"], [{}, {}], ids=["1"])
    assert store.get_by_ids(["1", "2"]) == []


def test_a_store_from_texts_keeps_its_model(tmp_path: Path) -> None:
    """It opens again in the same folder, gives the model back, and a store without folder goes."""
    model = VectorStoreIntegrationTests.get_embeddings()
    first = PlumblineVectorStore.from_texts(["a port"], model, ids=["x"], folder=tmp_path / "f")
    first.close()
    again = PlumblineVectorStore.from_texts([], model, folder=tmp_path / "f")
    kept = (again.get_by_ids(["x"])[0].page_content, again.embeddings is model)
    again.close()
    loose = PlumblineVectorStore.from_documents([Document("a port")], model)
    (folder,) = (Path(loose._folder.name),) if loose._folder else (tmp_path,)
    loose.close()
    assert (kept, folder.exists()) == (("a port", True), False)


class Loader(BaseLoader):
    """Loads what it was given."""

    def __init__(self, *documents: Document) -> None:
        self.documents = documents

    def lazy_load(self) -> Iterator[Document]:
        """See `BaseLoader`."""
        yield from self.documents


def summary(knowledge: KnowledgeBase, *documents: Document) -> IngestSummary:
    """Hand documents over and return the summary."""
    *_, last = hand_over(knowledge, Loader(*documents), "manual")
    assert isinstance(last, IngestSummary)
    return last


def test_a_loader_is_a_source(knowledge: KnowledgeBase) -> None:
    """Loaded again, nothing is embedded again; what it no longer loads is gone."""
    pages = [
        Document("Page one tells of ports.", metadata={"source": "m.pdf", "page": 0}),
        Document("Page two tells of ships.", metadata={"source": "m.pdf", "page": 1}),
    ]
    first, second = summary(knowledge, *pages), summary(knowledge, *pages)
    third = summary(knowledge, pages[1])
    found = PlumblineRetriever(knowledge=knowledge).invoke("Which page tells of ships?")
    got = (first.added, second.embedded, second.unchanged, third.removed)
    assert (got, found[0].metadata["source"]) == ((2, 0, 2, 1), "manual:m.pdf#page=1")


def test_every_loaded_document_has_a_name_of_its_own() -> None:
    """By id, source, page, or number; dates and readers travel."""
    documents = [
        Document("a", id="x"),
        Document("b", metadata={"source": "s", "modified": "2025-05-01", "readers": "ann"}),
        Document("c", metadata={"source": "s"}),
        Document("d"),
    ]
    found = list(given(documents))
    date = datetime(2025, 5, 1, tzinfo=UTC).timestamp()
    got = ([g.name for g in found], found[1].modified, found[1].readers)
    assert got == (["x", "s", "s#2", "document 3"], date, ("ann",))


def test_langchain_s_indexing_keeps_the_store_in_step(store: PlumblineVectorStore) -> None:
    """`index` adds what is new, skips what is known, and deletes what is gone."""
    records = InMemoryRecordManager("test")
    records.create_schema()
    one, two = (Document(text, metadata={"source": text}) for text in ("a port", "a ship"))

    def run(*documents: Document) -> tuple[int, int, int]:
        done = index(documents, records, store, cleanup="full", key_encoder="sha256")
        return done["num_added"], done["num_skipped"], done["num_deleted"]

    assert [run(one, two), run(one, two), run(two)] == [(2, 0, 0), (0, 2, 0), (0, 1, 1)]
    assert [d.page_content for d in store.similarity_search("port ship", k=5)] == ["a ship"]
