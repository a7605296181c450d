from __future__ import annotations

import itertools
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from retrieval import lexical
from retrieval.chunk import Piece
from retrieval.compact import compact
from retrieval.config import EmbedSettings, SearchSettings
from retrieval.embed import hashing
from retrieval.schema import Scope
from retrieval.search import Retriever
from retrieval.serving import Serving, backend_name
from retrieval.snapshot import Snapshots
from retrieval.store import NewVersion, Store

EMBEDDER = hashing.build(EmbedSettings())
NOBODY = Scope(readers=frozenset())


def version(
    source: str, text: str, *, date: float = 0.0, acl: tuple[str, ...] = (), chunks: int = 2
) -> NewVersion:
    """A document whose chunks all say `text`."""
    texts = [f"{text} part{place}" for place in range(chunks)]
    starts = [0, *itertools.accumulate(len(t) + 1 for t in texts)]
    pieces = tuple(Piece(a, a + len(t), ()) for a, t in zip(starts, texts, strict=False))
    return NewVersion(
        source=source, root="r", title="t", text="\n".join(texts), lang="en", version=text,
        made_by="m", modified=1.0, stamp="s", pieces=pieces, digests=tuple(texts),
        vectors=EMBEDDER.embed(texts, "passage"), acl=acl, date=date,
    )  # fmt: skip


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """An empty store."""
    store = Store(tmp_path / "k.db", EMBEDDER.id, EMBEDDER.dim)
    yield store
    store.close()


def dense(serving: Serving, text: str, scope: Scope | None = None, k: int = 1000) -> set[int]:
    """Ids the dense side finds."""
    view = serving.view(scope)
    return set(view.search(EMBEDDER.embed([text], "query"), k, view.allowed(scope)))


def terms(serving: Serving, text: str, scope: Scope | None = None, k: int = 1000) -> set[int]:
    """Ids the lexical side finds."""
    allowed = serving.view(scope).allowed(scope)
    with serving.store.read() as connection:
        return set(lexical.search(connection, [text], k, allowed))


def sources(serving: Serving, scope: Scope | None) -> set[str]:
    """Sources that the whole search returns."""
    found = Retriever(serving, SearchSettings()).search("quokka", 100, scope=scope)
    return {passage.source for passage in found}


@pytest.mark.parametrize(
    ("scope", "expected"),
    [
        (None, {"open", "bob", "both", "old"}),
        (Scope(), {"open", "bob", "both", "old"}),
        (NOBODY, {"open", "old"}),
        (Scope(readers=frozenset({"bob"})), {"open", "old", "bob", "both"}),
        (Scope(readers=frozenset({"ann", "eve"})), {"open", "old", "both"}),
        (Scope(readers=frozenset({"eve"})), {"open", "old"}),
        (Scope(since=5.0), {"open", "bob", "both"}),
        (Scope(until=10.0), {"old"}),
        (Scope(since=10.0, until=20.0, readers=frozenset({"bob"})), {"open", "bob"}),
        (Scope(since=99.0), set()),
    ],
)
def test_a_scope_bounds_every_side(store: Store, scope: Scope | None, expected: set[str]) -> None:
    """Both sides find all that a scope may see, and nothing else; dates are half-open."""
    store.put(version("open", "quokka one", date=10.0))
    store.put(version("old", "quokka two", date=1.0))
    serving = Serving(store, EMBEDDER, "flat")
    serving.view(NOBODY)
    store.put(version("bob", "quokka three", date=10.0, acl=("bob",)))
    store.put(version("both", "quokka four", date=20.0, acl=("ann", "bob")))
    for views in (serving, Serving(store, EMBEDDER, "flat")):
        ids = {
            name: {1 + 2 * place, 2 + 2 * place}
            for place, name in enumerate(("open", "old", "bob", "both"))
        }
        wanted = set().union(*(ids[name] for name in expected)) if expected else set()
        assert dense(views, "quokka", scope) == wanted
        assert terms(views, "quokka", scope) == wanted
    if not scope or scope.readers != NOBODY.readers:
        assert all(source in expected for source in sources(serving, scope))


def test_a_filter_costs_no_passages(store: Store) -> None:
    """A reader of one document in twenty gets all of it: the filter works before the cut."""
    for number in range(20):
        acl = ("bob",) if number == 15 else ("eve",)
        store.put(version(f"s{number}", "quokka", acl=acl))
    serving = Serving(store, EMBEDDER, "flat")
    scope = Scope(readers=frozenset({"bob"}))
    assert dense(serving, "quokka", scope, k=2) == {31, 32}
    assert terms(serving, "quokka", scope, k=2) == {31, 32}


def test_a_right_withdrawn_holds_at_once(store: Store) -> None:
    """New readers and a new date hold from the commit on, without a new version."""
    store.put(version("a", "quokka", date=5.0))
    serving = Serving(store, EMBEDDER, "flat")
    bob = Scope(readers=frozenset({"bob"}))
    assert dense(serving, "quokka", bob) == {1, 2}
    document = store.known()["a"].id
    store.touch(document, "s", 1.0, acl=("ann",))
    assert dense(serving, "quokka", bob) == terms(serving, "quokka", bob) == set()
    assert store.passages([(1, 1.0, ())], bob) == []
    assert len(store.passages([(1, 1.0, ())], Scope(readers=frozenset({"ann"})))) == 1
    store.touch(document, "s", 1.0, acl=())
    assert dense(serving, "quokka", bob) == {1, 2}
    store.touch(document, "s", 9.0)
    stored = store.document(document)
    assert stored is not None
    assert (stored.modified, stored.date) == (9.0, 5.0), "the source's own date stays"
    store.touch(document, "s", 9.0, date=7.0)
    assert dense(serving, "quokka", Scope(since=6.0)) == {1, 2}


def test_a_pinned_view_does_not_change(store: Store) -> None:
    """What a query began with stays what it was, whatever is written meanwhile."""
    store.put(version("a", "quokka"))
    store.put(version("b", "quokka"))
    serving = Serving(store, EMBEDDER, "flat")
    pinned = serving.view(NOBODY)
    question = EMBEDDER.embed(["quokka"], "query")
    before = pinned.search(question, 10, None)
    store.remove(["a"])
    store.put(version("c", "quokka"))
    assert set(serving.view().search(question, 10, None)) == {3, 4, 5, 6}
    assert pinned.search(question, 10, None) == before
    assert set(before) == {1, 2, 3, 4}


def test_auto_chooses_by_size() -> None:
    """Up to 20,000 vectors every one is compared; beyond, the nearest lists are."""
    assert [backend_name("auto", n) for n in (0, 20_000, 20_001)] == ["flat", "flat", "ivf"]
    assert backend_name("exact", 10**7) == "exact"


SOURCES = st.sampled_from(["a", "b", "c", "d"])
READERS = st.sampled_from([(), ("ann",), ("ann", "bob")])
SCOPES = (None, NOBODY, Scope(readers=frozenset({"ann"})), Scope(since=3.0, until=7.0))


class Machine(RuleBasedStateMachine):
    """Store, views and snapshots against a dictionary, with restarts and two processes' views."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.snapshots = Snapshots(Path(self.folder.name, "index"))
        self.model: dict[str, tuple[str, float, tuple[str, ...], int]] = {}
        self.numbers = itertools.count(1)
        self.open()
        self.idle = Serving(self.store, EMBEDDER, "exact", self.snapshots)

    def open(self) -> None:
        """Open store and views."""
        self.store = Store(Path(self.folder.name, "k.db"), EMBEDDER.id, EMBEDDER.dim)
        self.serving = Serving(self.store, EMBEDDER, "flat", self.snapshots)

    @rule(source=SOURCES, date=st.integers(0, 9), acl=READERS, chunks=st.integers(0, 3))
    def put(self, source: str, date: int, acl: tuple[str, ...], chunks: int) -> None:
        """Write a version."""
        text = f"quokka v{next(self.numbers)}"
        self.store.put(version(source, text, date=float(date), acl=acl, chunks=chunks))
        self.model[source] = (text, float(date), acl, chunks)

    @rule(source=SOURCES, acl=READERS)
    def share(self, source: str, acl: tuple[str, ...]) -> None:
        """Change who may read a document."""
        if source in self.model:
            self.store.touch(self.store.known()[source].id, "s", 1.0, acl=acl)
            text, date, _, chunks = self.model[source]
            self.model[source] = (text, date, acl, chunks)

    @rule(source=SOURCES)
    def remove(self, source: str) -> None:
        """Remove a document."""
        assert self.store.remove([source]) == (source in self.model)
        self.model.pop(source, None)

    @rule(index=st.sampled_from(["flat", "ivf", "exact"]))
    def compact(self, index: str) -> None:
        """Write a snapshot; the views do not know of it yet."""
        compact(self.store, self.snapshots, self.store.model, index)

    @rule()
    def take_up(self) -> None:
        """Take the newest snapshot up."""
        self.serving.reopen()

    @rule()
    def damage(self) -> None:
        """Spoil the newest snapshot on disk."""
        found = sorted(self.snapshots.folder.glob("*/snap-*"), key=lambda p: int(p.name[5:]))
        if found:
            manifest = found[-1] / "manifest.json"
            content = manifest.read_bytes()
            manifest.unlink()
            manifest.write_bytes(content.replace(b"ntotal", b"mtotal"))

    @rule()
    def restart(self) -> None:
        """Close and open."""
        self.store.close()
        self.open()
        self.idle.store = self.store

    @rule()
    def look_idly(self) -> None:
        """Views that are seldom used catch up, too."""
        self.same(self.idle)

    @invariant()
    def is_the_model(self) -> None:
        """Every scope finds what the model says, on both sides."""
        self.same(self.serving)

    def same(self, serving: Serving) -> None:
        """Compare one holder of views with the model."""
        for scope in SCOPES:
            expected = {
                f"{text} part{place}"
                for text, date, acl, chunks in self.model.values()
                for place in range(chunks)
                if visible(scope, date, acl)
            }
            for found in (dense(serving, "quokka", scope), terms(serving, "quokka", scope)):
                passages = self.store.passages([(key, 1.0, ()) for key in found], scope)
                assert len(passages) == len(found)
                assert {passage.chunk.text for passage in passages} == expected

    def teardown(self) -> None:
        """Remove the files."""
        self.store.close()
        self.folder.cleanup()


def visible(scope: Scope | None, date: float, acl: tuple[str, ...]) -> bool:
    """The rule of scopes, said once more."""
    if scope is None:
        return True
    if scope.readers is not None and acl and not scope.readers & set(acl):
        return False
    after = scope.since is None or date >= scope.since
    return after and (scope.until is None or date < scope.until)


TestMachine = Machine.TestCase
TestMachine.settings = settings(
    max_examples=6, stateful_step_count=12, suppress_health_check=list(HealthCheck)
)


def test_a_query_sees_one_state_of_the_vectors(store: Store) -> None:
    """A view never mixes two states: removed and replaced chunks leave it together."""
    store.put(version("a", "quokka"))
    serving = Serving(store, EMBEDDER, "flat")
    for number in range(10):
        store.put(version("a", f"quokka v{number}"))
        found = dense(serving, "quokka")
        last = 2 * (number + 2)
        assert found == {last - 1, last}
    assert serving.view().pending >= 2
    assert np.isin([1, 2], serving.view().gone).all()
