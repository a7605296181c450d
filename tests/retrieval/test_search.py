from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sqlalchemy as sa

from retrieval.chunk import Piece
from retrieval.config import EmbedSettings, SearchSettings
from retrieval.embed import hashing, minilm
from retrieval.embed.base import Embedder, Kind, Vectors
from retrieval.schema import Passage, Scope
from retrieval.search import Retriever
from retrieval.serving import Serving
from retrieval.store import NewVersion, Store
from retrieval.text import language
from tests.retrieval.rerankers import Overlap

DOCUMENTS = {
    "cats": "Cats sleep most of the day and hunt mice at night.",
    "dogs": "Dogs bark at strangers and guard the house.",
    "ships": "A ship carries containers across the ocean.",
    "猫": "猫白天睡觉，晚上捉老鼠。",
    "大学": "北京大学成立于1898年，位于海淀区。",
    "人物": "演员张予曦出演了电视剧《古剑奇谭》。",
}


class English(hashing.Hashing):
    """The double, but it does not read Chinese, as the packaged encoder."""

    id = "english-only"

    def reads(self, text: str) -> bool:
        """Whether the text is not Chinese."""
        return language(text) != "zh"


def put(
    store: Store, embedder: Embedder, source: str, text: str, acl: tuple[str, ...] = ()
) -> None:
    """Store a document of one chunk."""
    readable = embedder.reads(text)
    vectors: Vectors = np.zeros((1, embedder.dim), dtype=np.float32)
    vectors = embedder.embed([text], "passage") if readable else vectors
    piece = Piece(0, len(text), ())
    store.put(
        NewVersion(
            source, "root", source, text, language(text), "1", "m", 0.0, "s",
            (piece,), (text,), vectors, acl,
        )
    )  # fmt: skip


@pytest.fixture
def statements() -> Iterator[list[str]]:
    """Collect the SQL that is run."""
    found: list[str] = []

    def note(_c: Any, _cursor: Any, statement: str, *_: Any) -> None:
        found.append(statement)

    sa.event.listen(sa.Engine, "before_cursor_execute", note)
    yield found
    sa.event.remove(sa.Engine, "before_cursor_execute", note)


@pytest.fixture(params=["exact", "flat"])
def opened(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[tuple[Store, Retriever]]:
    """A store with DOCUMENTS and a search over it, by each index."""
    embedder = English()
    store = Store(tmp_path / "k.db", embedder.id, embedder.dim)
    for source, text in DOCUMENTS.items():
        put(store, embedder, source, text)
    yield store, Retriever(Serving(store, embedder, request.param), SearchSettings())
    store.close()


def sources(passages: Sequence[Passage]) -> list[str]:
    """Return where passages come from."""
    return [passage.source for passage in passages]


def stages(passage: Passage) -> set[str]:
    """Return the names of the stages that found a passage."""
    return {found.stage for found in passage.found_by}


@pytest.mark.parametrize(
    ("question", "expected"),
    [
        ("When do cats sleep?", "cats"),
        ("dog barking", "dogs"),
        ("猫晚上做什么", "猫"),
        ("北京大学在哪个区", "大学"),
        ("張予曦是誰", "人物"),
        ("海淀", "大学"),
    ],
)
@pytest.mark.parametrize("mode", ["fused", "lexical"])
def test_the_right_passage_is_first(
    opened: tuple[Store, Retriever], question: str, expected: str, mode: Any
) -> None:
    """A question finds its passage, in either language, by the terms alone and by both sides."""
    passages = opened[1].search(question, 3, mode=mode)
    assert sources(passages)[:1] == [expected]
    assert passages[0].chunk.text == DOCUMENTS[expected]


def test_dense_alone(opened: tuple[Store, Retriever]) -> None:
    """Dense mode ranks by the vectors alone, and says nothing about what it cannot read."""
    _, retriever = opened
    passages = retriever.search("cats hunting mice", 10, mode="dense")
    assert sorted(sources(passages)) == ["cats", "dogs", "ships"]
    assert (sources(passages)[0], stages(passages[0])) == ("cats", {"fused", "dense"})
    assert retriever.search("猫晚上做什么", 10, mode="dense") == []


def test_lexical_alone(opened: tuple[Store, Retriever]) -> None:
    """Lexical mode returns all chunks that hold a term, and no others."""
    passages = opened[1].search("sleeping strangers", 10, mode="lexical")
    assert sorted(sources(passages)) == ["cats", "dogs"]
    assert {stage for passage in passages for stage in stages(passage)} == {"fused", "lexical"}


def test_the_stages_are_told(opened: tuple[Store, Retriever]) -> None:
    """A passage tells its rank and score in each stage that found it; scores fall and are fused."""
    passages = opened[1].search("Cats hunt mice at night", 10)
    assert [p.found_by[0].rank for p in passages] == list(range(1, len(passages) + 1))
    assert [p.found_by[0].score for p in passages] == [p.score for p in passages]
    scores = [p.score for p in passages]
    assert scores == sorted(scores, reverse=True)
    assert {f.stage: f.rank for f in passages[0].found_by} == {"fused": 1, "dense": 1, "lexical": 1}
    assert passages[0].score == 1.0


def test_chinese_leans_on_terms(opened: tuple[Store, Retriever]) -> None:
    """A Chinese question is answered from the terms: no passage comes from the vectors alone."""
    passages = opened[1].search("猫和北京大学 cats", 10)
    assert sorted(sources(passages)) == ["cats", "大学", "猫"]
    assert all("dense" not in stages(passage) for passage in passages)
    assert opened[1].search("量子力学", 10) == []


def test_weight_zero_brings_nothing(tmp_path: Path) -> None:
    """Where the dense side has no weight, it adds no passages, also if it can read."""
    embedder = hashing.build(EmbedSettings())
    store = Store(tmp_path / "k.db", embedder.id, embedder.dim)
    for source, text in DOCUMENTS.items():
        put(store, embedder, source, text)
    settings = SearchSettings(dense_weight=0.0, dense_weight_zh=1.0)
    retriever = Retriever(Serving(store, embedder, "exact"), settings)
    assert retriever.search("quantum mechanics", 10) == []
    assert sources(retriever.search("cats", 10)) == ["cats"]
    assert len(retriever.search("量子力学", 10)) == len(DOCUMENTS)
    store.close()


def test_the_packaged_encoder_finds_both_languages(tmp_path: Path) -> None:
    """Chinese is found whether or not the encoder's extension reads it, English by meaning."""
    embedder = minilm.build(EmbedSettings())
    store = Store(tmp_path / "k.db", embedder.id, embedder.dim)
    for source, text in DOCUMENTS.items():
        put(store, embedder, source, text)
    retriever = Retriever(Serving(store, embedder, "flat"), SearchSettings())
    assert sources(retriever.search("北京大学在哪里", 1)) == ["大学"]
    assert sources(retriever.search("vessel moving freight by sea", 1)) == ["ships"]
    dense = sources(retriever.search("北京大学在哪里", 10, mode="dense"))
    assert bool(dense) == embedder.reads("北京大学在哪里")
    store.close()


def test_a_commit_is_seen_at_once(opened: tuple[Store, Retriever]) -> None:
    """A search right after a commit finds the new text, and the old text no more."""
    store, retriever = opened
    put(store, English(), "cats", "Lions roar in the savanna.")
    assert sources(retriever.search("lions roar", 1)) == ["cats"]
    assert all("hunt mice" not in p.chunk.text for p in retriever.search("cats hunt mice", 10))
    assert retriever.status().sequence == retriever.status().served


def test_a_removed_document_is_never_returned(opened: tuple[Store, Retriever]) -> None:
    """Once removed by anyone, a document is found by no search, in no mode."""
    store, retriever = opened
    other = Retriever(Serving(store, English(), "exact"), SearchSettings())
    assert "cats" in sources(other.search("cats", 10))
    store.remove(["cats", "猫"])
    for question in ("cats sleep", "猫白天睡觉"):
        for mode in ("fused", "dense", "lexical"):
            for view in (retriever, other):
                found = sources(view.search(question, 10, mode=mode))
                assert not {"cats", "猫"} & set(found)


def test_removal_does_not_cost_passages(tmp_path: Path) -> None:
    """Removed chunks take no place among the k that are asked for."""
    embedder = English()
    store = Store(tmp_path / "k.db", embedder.id, embedder.dim)
    for number in range(40):
        put(store, embedder, f"s{number}", f"A quokka named number{number} eats leaves.")
    retriever = Retriever(Serving(store, embedder, "exact"), SearchSettings(candidates=4))
    store.remove([f"s{number}" for number in range(30)])
    assert len(retriever.search("quokka", 10)) == 10
    store.close()


def test_excluded_chunks_do_not_come(opened: tuple[Store, Retriever]) -> None:
    """Excluded ids are left out, and others move up."""
    _, retriever = opened
    passages = retriever.search("cats dogs", 3)
    first = passages[0].chunk.id
    rest = retriever.search("cats dogs", 2, exclude=frozenset({first}))
    assert [p.chunk.id for p in rest] == [p.chunk.id for p in passages[1:3]]
    everything = frozenset(range(100))
    assert retriever.search("cats", 3, exclude=everything) == []


@pytest.mark.parametrize("mode", ["fused", "dense", "lexical"])
def test_an_empty_store_finds_nothing(tmp_path: Path, mode: Any) -> None:
    """Nothing is found in nothing, in every mode."""
    store = Store(tmp_path / "k.db", English.id, English.dim)
    for backend in ("exact", "flat"):
        retriever = Retriever(Serving(store, English(), backend), SearchSettings())
        assert retriever.search("cats", 5, mode=mode) == []
        assert (retriever.status().chunks, retriever.status().served) == (0, 0)
    store.close()


@pytest.mark.parametrize("question", ["", "   ", "\n\t"])
def test_an_empty_question_finds_nothing(opened: tuple[Store, Retriever], question: str) -> None:
    """White space is no question."""
    assert opened[1].search(question, 5) == []


@pytest.mark.parametrize("question", ["?!…", "\"' OR *", "\0", "\ud800", "(" * 2_000])
def test_marks_are_harmless(opened: tuple[Store, Retriever], question: str) -> None:
    """A question of marks is no error, and finds nothing by its terms."""
    assert opened[1].search(question, 5, mode="lexical") == []
    assert len(opened[1].search(question, 5)) <= 5


@pytest.mark.parametrize("word", ["word{}", "北京大学{}"])
def test_a_pasted_text_is_bounded(opened: tuple[Store, Retriever], word: str) -> None:
    """Ten thousand words search for no more terms than the settings say."""
    searched: list[int] = []

    def note(_c: Any, _cursor: Any, statement: str, values: Any, *_: Any) -> None:
        if "MATCH" in statement:
            searched.append(1 + str(values).count('" OR "'))

    question = " ".join(word.format(number) for number in range(10_000))
    sa.event.listen(sa.Engine, "before_cursor_execute", note)
    try:
        opened[1].search(question, 5)
    finally:
        sa.event.remove(sa.Engine, "before_cursor_execute", note)
    assert all(number <= SearchSettings().max_terms for number in searched)


def test_few_matches_all_come(tmp_path: Path) -> None:
    """In a small store every chunk that matches is returned, the weakest too."""
    store = Store(tmp_path / "k.db", English.id, English.dim)
    put(store, English(), "one", "数据库的索引。")
    put(store, English(), "two", "数据库的备份与恢复，以及很多别的事情。")
    retriever = Retriever(Serving(store, English(), "exact"), SearchSettings())
    assert sorted(sources(retriever.search("数据库", 5))) == ["one", "two"]
    store.close()


def test_k_is_a_limit(opened: tuple[Store, Retriever]) -> None:
    """At most k passages come, and a smaller k is a prefix of a larger."""
    passages = sources(opened[1].search("cats dogs ship", 10))
    assert [sources(opened[1].search("cats dogs ship", k)) for k in (0, 1, 2)] == [
        passages[:k] for k in (0, 1, 2)
    ]


class Recording(English):
    """Notes with which kind each text was embedded."""

    def __init__(self) -> None:
        self.asked: list[Kind] = []

    def embed(self, texts: Sequence[str], kind: Kind) -> Vectors:
        """Note, then embed."""
        self.asked.append(kind)
        return super().embed(texts, kind)


def test_what_is_embedded(tmp_path: Path) -> None:
    """A question is embedded once, as a query; one that cannot be read is not embedded."""
    embedder = Recording()
    store = Store(tmp_path / "k.db", embedder.id, embedder.dim)
    retriever = Retriever(Serving(store, embedder, "exact"), SearchSettings())
    retriever.search("cats", 5)
    retriever.search("猫", 5)
    retriever.search("cats", 5, mode="lexical")
    assert embedder.asked == ["query"]
    store.close()


def test_rarity_is_over_the_store(opened: tuple[Store, Retriever]) -> None:
    """An unseen term is rarer than a seen one, which is rarer than a common one."""
    unseen, seen, common = opened[1].rarity(["zebra", "ship", "at"])
    assert unseen > seen > common


def test_searches_beside_a_writer(opened: tuple[Store, Retriever]) -> None:
    """Threads that search while documents come and go get whole passages and no errors."""
    store, retriever = opened
    done = threading.Event()

    def search() -> set[str]:
        seen: set[str] = set()
        while not done.is_set():
            seen |= {p.chunk.text for p in retriever.search("quokka number", 5)}
        return seen

    with ThreadPoolExecutor() as pool:
        searches = [pool.submit(search) for _ in range(3)]
        for number in range(15):
            put(store, English(), f"s{number % 4}", f"Quokka number {number} eats leaves.")
        store.remove(["s0"])
        done.set()
        seen = set().union(*(search.result() for search in searches))
    whole = {f"Quokka number {number} eats leaves." for number in range(15)}
    assert seen <= whole | set(DOCUMENTS.values())
    found = retriever.search("quokka number", 10, mode="lexical")
    assert sorted(sources(found)) == ["s1", "s2", "s3"]


def test_own_language_first(tmp_path: Path) -> None:
    """Of passages that match alike, the one in the question's language comes first."""
    store = Store(tmp_path / "k.db", English.id, English.dim)
    put(store, English(), "english", "Docker docker docker engine")
    put(store, English(), "中文", "docker docker 引擎，说明")
    put(store, English(), "long", "Docker " + "and many other words " * 20)
    retriever = Retriever(Serving(store, English(), "exact"), SearchSettings())
    assert sources(retriever.search("docker 是什么", 3)) == ["中文", "english", "long"]
    assert sources(retriever.search("docker", 3, mode="lexical")) == ["english", "中文", "long"]
    store.close()


def opened_with(
    path: Path, rows: dict[str, str], reranker: Overlap | None = None, depth: int = 20
) -> tuple[Store, Retriever]:
    """Open a store with these documents, searched with a reranker."""
    store = Store(path / "k.db", English.id, English.dim)
    for source, text in rows.items():
        put(store, English(), source, text)
    return store, Retriever(Serving(store, English()), SearchSettings(), reranker, depth)


def test_a_reranker_has_the_last_word(tmp_path: Path) -> None:
    """What the reranker likes best comes first, and the passage tells so; fused leaves it out."""
    rows = {**DOCUMENTS, "mice": "Mice mice mice mice.", "both": "At night the hunted mice sleep."}
    store, retriever = opened_with(tmp_path, rows, Overlap())
    passages = retriever.search("mice hunted at night by cats", 3)
    assert [f.stage for f in passages[0].found_by[:2]] == ["reranked", "fused"]
    assert [p.found_by[0].rank for p in passages] == [1, 2, 3]
    assert [p.found_by[0].score for p in passages] == [p.score for p in passages]
    scores = [p.score for p in passages]
    assert scores == sorted(scores, reverse=True)
    fused = retriever.search("mice hunted at night by cats", 3, mode="fused")
    assert {f.stage for p in fused for f in p.found_by} <= {"fused", "dense", "lexical"}
    assert retriever.search("", 3) == []
    store.close()


def test_a_reranker_reads_no_more_than_its_depth(tmp_path: Path) -> None:
    """The reranker is given heading path and text of the best candidates, once a question."""
    rows = {f"s{n}": f"Quokka number{n} eats leaves of tree{n}." for n in range(30)}
    reader = Overlap()
    store, retriever = opened_with(tmp_path, rows, reader, depth=5)
    assert len(retriever.search("quokka leaves", 3)) == 3
    assert len(retriever.search("quokka leaves", 8)) == 8
    assert [len(texts) for texts in reader.read] == [5, 8]
    assert all("\nQuokka number" in text for text in reader.read[0])
    store.close()


def test_without_a_reranker_reranked_is_fused(opened: tuple[Store, Retriever]) -> None:
    """Where none is configured, both modes say the same."""
    question = "Cats hunt mice at night"
    assert opened[1].search(question, 5) == opened[1].search(question, 5, mode="fused")


def test_lexical_finds_get_their_true_cosine(opened: tuple[Store, Retriever]) -> None:
    """A candidate that only the words found is scored by its stored vector, not by 0."""
    store, retriever = opened
    for number in range(200):
        put(store, English(), f"s{number}", f"Cats sleep on shelf{number}.")
    found = retriever.candidates("cats sleep on shelf199 ships", 1)
    ship = next(p.chunk.id for p in retriever.search("ship", 5) if p.source == "ships")
    if ship not in found.near:
        vectors = English().embed(["cats sleep on shelf199 ships", DOCUMENTS["ships"]], "query")
        assert found.dense[ship] == pytest.approx(float(vectors[0] @ vectors[1]), abs=1e-3)
    assert found.near <= found.dense.keys()
    assert found.lexical.keys() & found.dense.keys()


def test_the_same_text_comes_once(tmp_path: Path) -> None:
    """Copies of a text are one passage that names the others; they take no other's place."""
    copies = {f"copy{n}": "Cats sleep most of the day." for n in range(5)}
    store, retriever = opened_with(tmp_path, {**copies, "dogs": "Dogs sleep at night."})
    passages = retriever.search("who sleeps", 5)
    assert len(passages) == 2
    first = next(p for p in passages if p.also)
    assert {first.source, *first.also} == set(copies)
    store.close()


def test_the_newer_version_answers(tmp_path: Path) -> None:
    """The older of two versions is kept out and told."""
    rows = {
        "/d/guide-2023.md": "The parking fee is 5 euros a day.",
        "/d/guide-2025.md": "The parking fee is 8 euros a day.",
    }
    store, retriever = opened_with(tmp_path, rows)
    passages = retriever.search("parking fee", 5)
    assert sources(passages) == ["/d/guide-2025.md"]
    assert [o.source for o in passages[0].older] == ["/d/guide-2023.md"]
    assert len(retriever.search("parking fee in 2023", 5)) == 2
    store.close()


def test_what_may_not_be_read_is_not_named(tmp_path: Path) -> None:
    """A copy or an older version outside the scope is told of in no way."""
    store = Store(tmp_path / "k.db", English.id, English.dim)
    put(store, English(), "/d/guide-2025.md", "The parking fee is 8 euros a day.")
    for source, text in (("/d/guide-2023.md", "5"), ("/secret/copy.md", "8")):
        new = f"The parking fee is {text} euros a day."
        put(store, English(), source, new, acl=("board",))
    retriever = Retriever(Serving(store, English()), SearchSettings(), Overlap())
    mine = retriever.search("parking fee", 5, scope=Scope(readers=frozenset({"guest"})))
    assert sources(mine) == ["/d/guide-2025.md"]
    assert (mine[0].also, mine[0].older) == ((), ())
    board = retriever.search("parking fee", 5, scope=Scope(readers=frozenset({"board"})))
    assert board[0].older
    store.close()


@pytest.mark.parametrize("question", ["who is it", "這是什麼", "是什么呢", "what is that?"])
def test_function_words_alone_find_something(tmp_path: Path, question: str) -> None:
    """A question of stop words is searched by its rarest ones, and by no more than a few."""
    rows = {"it": "Who is it for? It is for readers.", "这": "这是什么？这是一本手册。"}
    store, retriever = opened_with(tmp_path, {**DOCUMENTS, **rows})
    expected = "这" if language(question) == "zh" else "it"
    assert expected in sources(retriever.search(question, 3, mode="lexical"))
    store.close()


@pytest.mark.parametrize(
    "question",
    ["the of is " * 4_000, "cats " * 10_000, "的是在" * 4_000, "猫" * 10_000, "a" * 50_000],
)
def test_long_questions_search_few_terms(
    opened: tuple[Store, Retriever], question: str, statements: list[str]
) -> None:
    """Repeated, hollow or endless questions search for a few terms, and ask for few."""
    opened[1].search(question, 5)
    matches = [s for s in statements if "MATCH" in s]
    assert len(matches) <= 1
    assert len(statements) < 5 * SearchSettings().max_terms


def test_the_question_at_the_end_of_a_paste_counts(opened: tuple[Store, Retriever]) -> None:
    """Of a long paste the beginning and the end are searched, rarest terms first."""
    paste = " ".join(f"dogs{n} bark" for n in range(3_000)) + " When do cats hunt mice?"
    assert sources(opened[1].search(paste, 1, mode="lexical")) == ["cats"]


def test_the_chunks_beside_a_passage(tmp_path: Path) -> None:
    """The text before and after a hit can be had, and ends with the document."""
    store = Store(tmp_path / "k.db", English.id, English.dim)
    text = "First part.\nThe steps are these:\nLast part."
    spans = [(0, 11), (12, 32), (33, 43)]
    pieces = tuple(Piece(a, b, ()) for a, b in spans)
    vectors = English().embed([text[a:b] for a, b in spans], "passage")
    store.put(
        NewVersion(
            "d", "root", "Doc", text, "en", "1", "m", 0.0, "s", pieces, ("a", "b", "c"), vectors
        )
    )
    retriever = Retriever(Serving(store, English()), SearchSettings())
    middle = retriever.search("steps", 1)[0]
    before, after = retriever.around(middle)
    assert before is not None
    assert after is not None
    assert (before.chunk.text, after.chunk.text) == ("First part.", "Last part.")
    assert retriever.around(before)[0] is None
    assert retriever.around(after)[1] is None
    assert [f.stage for f in after.found_by] == ["beside"]
    store.close()
