from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from retrieval import lexical
from retrieval.text import query_terms, terms

TEXTS = {
    1: ("Install", "Download the archive and unpack it. Don't run it as root."),
    2: ("Cats", "A cat is an animal. The cat sleeps. Cats purr, and a cat hunts."),
    3: ("Dogs", "A dog is an animal that barks at every cat it sees in the long, long street."),
    4: ("学校", "北京大学成立于1898年，位于海淀区。"),
    5: ("人物", "演员张予曦出演了电视剧《古剑奇谭》。"),
    6: ("資料庫", "資料庫系統儲存資料，並提供查詢。"),
    7: ("Names", "O'Brien wrote node.js and C++ code for the 𠮷野家 restaurant."),
}


@pytest.fixture
def connection(tmp_path: Path) -> Iterator[sa.Connection]:
    """An index that holds TEXTS."""
    engine = sa.create_engine(f"sqlite:///{tmp_path / 'lexical.db'}")
    with engine.begin() as connection:
        for statement in lexical.CREATE:
            connection.execute(sa.text(statement))
        lexical.add(connection, [(key, *texts) for key, texts in TEXTS.items()])
        yield connection
    engine.dispose()


def found(connection: sa.Connection, question: str, k: int = 10) -> list[int]:
    """Return ids in the order found."""
    return list(lexical.search(connection, query_terms(question), k))


@pytest.mark.parametrize(
    ("question", "expected"),
    [
        ("cat", [2, 3]),
        ("cats", [2, 3]),
        ("unpacking an archive", [1]),
        ("don't", [1]),
        ("O'Brien", [7]),
        ("C++", [7]),
        ("node.js", [7]),
        ("js", [7]),
        ("北京", [4]),
        ("海淀", [4]),
        ("张予曦", [5]),
        ("予曦", [5]),
        ("古剑", [5]),
        ("数据", []),
        ("资料", [6]),
        ("資料庫", [6]),
        ("查询", [6]),
        ("𠮷野家", [7]),
        ("1898年", [4]),
        ("zebra", []),
        ("", []),
        ("?!", []),
    ],
)
def test_what_is_found(connection: sa.Connection, question: str, expected: list[int]) -> None:
    """Stems, compounds, two-character words and names no dictionary knows are found."""
    assert found(connection, question) == expected


@pytest.mark.parametrize(
    "question",
    [
        'cat" OR "dog',
        "cat NOT dog",
        "cat AND zebra",
        "NEAR(cat dog)",
        "cat*",
        "^cat",
        "body:cat",
        "(cat",
        "cat)",
        "{cat} : -",
        "'cat'; DROP TABLE lexical; --",
        "cat\0",
        "- cat +",
        '""cat""',
        "cat \ud800",
    ],
)
def test_operators_are_text(connection: sa.Connection, question: str) -> None:
    """Operators, quotes and broken syntax in a question mean nothing."""
    assert set(found(connection, question)) >= {2, 3}
    assert lexical.rarity(connection, ["zebra"], 7) == [math.log(8 / 0.5)]


@given(st.lists(st.text(max_size=12), max_size=5))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_term_is_harmless(connection: sa.Connection, query: list[str]) -> None:
    """No string given as a term is an error."""
    assert len(lexical.search(connection, query, 3)) <= 3


@given(st.text(st.characters(codec="utf-8"), min_size=1, max_size=30))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_every_term_is_indexed_as_itself(connection: sa.Connection, text: str) -> None:
    """Each term of a text finds the text, and its rarity is that of a term that was seen."""
    wanted = list(dict.fromkeys(terms(text)))
    with connection.begin_nested() as savepoint:
        lexical.add(connection, [(99, "", text)])
        assert [99 in lexical.search(connection, [t], 100) for t in wanted] == [True] * len(wanted)
        assert all(value < math.log(9 / 0.5) for value in lexical.rarity(connection, wanted, 8))
        savepoint.rollback()


def test_bm25_order(connection: sa.Connection) -> None:
    """More of a term in less text ranks higher, and a heading counts more than the body."""
    lexical.add(
        connection,
        [
            (21, "", "quokka one two three four"),
            (22, "", "quokka quokka three four five"),
            (23, "", "quokka " + "filler " * 40),
            (24, "quokka", "one two three four five"),
        ],
    )
    scores = lexical.search(connection, ["quokka"], 10)
    assert list(scores) == sorted(scores, key=lambda key: -scores[key])
    assert list(scores).index(22) < list(scores).index(21) < list(scores).index(23)
    assert list(scores).index(24) < list(scores).index(21)
    assert all(score > 0 for score in scores.values())


def test_ties_go_by_id(connection: sa.Connection) -> None:
    """Equal chunks come in the order of their ids, and the limit takes the first."""
    lexical.add(connection, [(key, "", "quagga stands still") for key in (33, 31, 32)])
    assert found(connection, "quagga", 2) == [31, 32]


def test_a_rare_term_decides(connection: sa.Connection) -> None:
    """Among chunks with one term each, the one with the rarer term is first."""
    assert found(connection, "animal barks")[0] == 3


def test_rarity_falls_with_every_holder(connection: sa.Connection) -> None:
    """Rarity is log((N + 1) / (df + 0.5)), df counting chunks, not occurrences."""
    values = lexical.rarity(connection, ["zebra", "purr", "cat", "o'brien", "don't"], 7)
    expected = [math.log(8 / (df + 0.5)) for df in (0, 1, 2, 1, 1)]
    assert values == pytest.approx(expected)


def test_removed_is_not_found(connection: sa.Connection) -> None:
    """A removed chunk is found no more; an unknown id is ignored."""
    lexical.remove(connection, [2, 404])
    assert found(connection, "cat") == [3]
    assert lexical.rarity(connection, ["purr"], 6) == [math.log(7 / 0.5)]


def test_common_words_cost_little_in_a_large_store(tmp_path: Path) -> None:
    """In a large store rare terms decide; common ones alone are looked for in the newest chunks."""
    engine = sa.create_engine(f"sqlite:///{tmp_path / 'large.db'}")
    total = lexical.LARGE + 1_000
    with engine.begin() as connection:
        for statement in lexical.CREATE:
            connection.execute(sa.text(statement))
        rows = (
            (key, "common" if key % 3_000 == 0 else "", text)
            for key in range(1, total)
            for text in ("common other common common rare" if key % 1_000 == 0 else "common",)
        )
        insert = "INSERT INTO lexical(rowid, head, body) VALUES (?, ?, ?)"
        connection.exec_driver_sql(insert, list(rows))
        found = lexical.search(connection, ["common", "rare", "absent"], 1_000)
        assert set(found) == set(range(1_000, total, 1_000))
        both = "SELECT rowid, -bm25(lexical, 1.6, 1.0) FROM lexical WHERE lexical MATCH ?"
        for key, score in connection.exec_driver_sql(both, ('"rare" OR "common"',)):
            if key in found:
                assert found[key] == pytest.approx(score, rel=1e-6)
        newest = lexical.search(connection, ["common"], total)
        assert set(newest) == set(range(total - len(newest), total))
        assert len(newest) == pytest.approx(lexical.MATCHES, rel=0.01)
        allowed = np.zeros(total, dtype=bool)
        allowed[[5, 6, 2_000]] = True
        assert set(lexical.search(connection, ["common", "rare"], 10, allowed)) == {5, 6, 2_000}
        unseen, rare, common = lexical.rarity(connection, ["absent", "rare", "common"], total)
        assert unseen > rare > common
    engine.dispose()
