"""Which tokens may come next, where an answer is built of given pieces.

A piece is a run of tokens: a label, or a whole sentence with its citation, so a model without
labels can be held to sentences word for word as well. An answer is one to `most` different pieces
and the end, or one piece that stands alone (an abstention) and the end. Where one token may come it
is forced: it has log-prob 0, and a run of such tokens costs one forward pass.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

Path = tuple[int, ...]


class Paths:
    """The answers there are.

    Args:
        options: pieces that can be combined.
        alone: pieces that cannot.
        end: the token after the last piece.
        most: pieces in an answer at the most.
        clashes: of each option, the options that cannot be in the same answer; none by default.

    Raises:
        ValueError: there is no piece, one begins with another, or one begins with `end`.
    """

    def __init__(
        self,
        options: Sequence[Path],
        alone: Sequence[Path],
        end: int,
        most: int,
        clashes: Sequence[frozenset[int]] = (),
    ) -> None:
        self._pieces = (*options, *alone)
        self._count, self._most = len(options), most
        #: The token after the last piece.
        self.end = end
        self._clashes = clashes or [frozenset[int]()] * len(options)
        self._whole = {piece: number for number, piece in enumerate(self._pieces)}
        #: Beginning of a piece -> next token -> the pieces that go on so.
        self._next: dict[Path, dict[int, set[int]]] = {}
        for number, piece in enumerate(self._pieces):
            for at, token in enumerate(piece):
                self._next.setdefault(piece[:at], {}).setdefault(token, set()).add(number)
        if not self._pieces or () in self._whole or len(self._whole) < len(self._pieces):
            raise ValueError(f"{len(self._pieces)} pieces, of which some are empty or alike")
        if self._whole.keys() & self._next.keys() or end in self._next[()]:
            raise ValueError(
                "a piece begins with another one or with the end; end each with a mark"
            )

    def allowed(self, path: Sequence[int]) -> Path:
        """The tokens that may follow, in rising order; none after the end.

        Raises:
            ValueError: `path` is no beginning of an answer.
        """
        *_, last = self.along(path)
        return last

    def along(self, path: Sequence[int]) -> Iterator[Path]:
        """What is allowed before each token of `path`, and after it.

        Raises:
            ValueError: `path` is no beginning of an answer.
        """
        chosen: list[int] = []
        piece: Path = ()
        ended = False
        for token in path:
            found = () if ended else self._following(chosen, piece)
            yield found
            if token not in found:
                raise ValueError(f"token {token} is not among {found[:8]}")
            ended = not piece and token == self.end
            piece = (*piece, token)
            if piece in self._whole:
                chosen.append(self._whole[piece])
                piece = ()
        yield () if ended else self._following(chosen, piece)

    def pieces(self, path: Sequence[int]) -> list[tuple[int, int, int]]:
        """(number, start, end) of the whole pieces, in tokens of `path`; alone ones come last.

        Raises:
            ValueError: `path` is no beginning of an answer.
        """
        found: list[tuple[int, int, int]] = []
        start = 0
        for at, _ in enumerate(self.along(path)):
            number = self._whole.get(tuple(path[start:at]))
            if number is not None:
                found.append((number, start, at))
                start = at
        return found

    def chosen(self, path: Sequence[int]) -> Path:
        """Numbers of the whole pieces in `path`, in their order.

        Raises:
            ValueError: `path` is no beginning of an answer.
        """
        return tuple(number for number, _, _ in self.pieces(path))

    def path(self, chosen: Sequence[int]) -> Path:
        """The answer that is made of these pieces; the way back from `chosen`."""
        return (*(token for number in chosen for token in self._pieces[number]), self.end)

    def forced(self, path: Sequence[int]) -> Path:
        """The run of tokens that must follow."""
        run: list[int] = []
        while len(found := self.allowed((*path, *run))) == 1:
            run += found
        return tuple(run)

    def whole(self) -> Iterator[Path]:
        """Every answer; for trees of a few."""
        left: list[Path] = [()]
        while left:
            path = left.pop()
            found = self.allowed(path)
            left += ((*path, token) for token in found)
            if not found:
                yield path

    def _following(self, chosen: Sequence[int], piece: Path) -> Path:
        if chosen and (chosen[-1] >= self._count or len(chosen) == self._most):
            return (self.end,)
        barred = {*chosen, *(j for i in chosen for j in self._clashes[i])}
        if chosen:
            barred.update(range(self._count, len(self._pieces)))
        found = {token for token, pieces in self._next[piece].items() if pieces - barred}
        if chosen and not piece:
            found.add(self.end)
        return tuple(sorted(found))
