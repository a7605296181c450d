from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from assistant.policy._trie import Path, Paths

END = 99


def tree(most: int = 2, clashes: tuple[frozenset[int], ...] = ()) -> Paths:
    """Three pieces that share beginnings, and an abstention."""
    return Paths([(1, 2), (1, 3, 4), (5, 6, 7, 8)], [(9,)], END, most, clashes)


def test_every_answer_is_different_pieces_and_the_end() -> None:
    """The tree holds each ordered choice of one or two pieces once, and the abstention."""
    found = sorted(tree().chosen(path) for path in tree().whole())
    pairs = [(a, b) for a in range(3) for b in range(3) if a != b]
    assert found == sorted([(0,), (1,), (2,), (3,), *pairs])
    assert all(path[-1] == END for path in tree().whole())


def test_what_may_come_next() -> None:
    """Beginnings of all pieces first; then others and the end; nothing after the end."""
    assert tree().allowed(()) == (1, 5, 9)
    assert tree().allowed((1,)) == (2, 3)
    assert tree().allowed((1, 2)) == (1, 5, END)
    assert tree().allowed((1, 2, 1)) == (3,)
    assert tree().allowed((1, 2, 5, 6, 7, 8)) == (END,)
    assert tree().allowed((9, END)) == ()


def test_a_run_without_a_choice_is_forced() -> None:
    """The rest of a piece whose first token tells it, and the end where nothing else may come."""
    assert tree().forced((5,)) == (6, 7, 8)
    assert tree(most=1).forced((5,)) == (6, 7, 8, END)
    assert tree().forced(()) == ()


def test_pieces_that_clash_are_not_in_one_answer() -> None:
    """A sentence inside a quote that stands already is not offered."""
    barred = tree(3, (frozenset({1}), frozenset({0}), frozenset()))
    assert not any({0, 1} <= set(barred.chosen(path)) for path in barred.whole())


@given(st.data())
def test_any_walk_parses_back(data: st.DataObject) -> None:
    """Whatever is chosen among what is allowed, the whole pieces tile the path up to the end."""
    paths = tree(3)
    path: Path = ()
    while allowed := paths.allowed(path):
        path = (*path, data.draw(st.sampled_from(allowed)))
    pieces = paths.pieces(path)
    assert [a for _, a, _ in pieces] == [0, *(b for _, _, b in pieces[:-1])]
    assert path[pieces[-1][2] :] == (END,)


@pytest.mark.parametrize("path", [(2,), (1, 2, 1, 2), (9, 1), (9, END, 9)])
def test_a_path_outside_is_refused(path: Path) -> None:
    """A token that is not allowed is named."""
    with pytest.raises(ValueError, match=f"token {path[-1]}"):
        tree().chosen(path)


@pytest.mark.parametrize("pieces", [[], [()], [(1,), (1,)], [(1,), (1, 2)], [(END, 1)]], ids=str)
def test_pieces_that_cannot_be_told_apart_are_refused(pieces: list[Path]) -> None:
    """A piece that begins with another would make two answers of one path."""
    with pytest.raises(ValueError, match="piece"):
        Paths(pieces, [], END, 2)
