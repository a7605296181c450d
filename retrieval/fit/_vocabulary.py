"""Chinese token rows for an English encoder: which tokens, and where each row starts.

Tokens are single characters and the commonest words, matched longest first (WordPiece). Several
spellings share a row: a word's traditional forms, and its form inside a run ("##"). A row starts as
the mean of the English rows its word translates to, by lexical alignment of the parallel pairs
(IBM model 1, Brown et al. 1993); a word the pairs do not hold starts where a ridge regression puts
it from its distribution in Chinese text (PPMI and SVD, Levy and Goldberg 2014; the idea of
carrying rows over is WECHSEL's, Minixhofer et al. 2022).
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np
import opencc
import rjieba
from numpy.typing import NDArray
from scipy import sparse
from scipy.sparse.linalg import svds
from tokenizers import Tokenizer

from retrieval.text import simplified

Rows = NDArray[np.float32]

LONGEST = 6
_RUN = re.compile("[\u3400-\u9fff]+")
_WORD = re.compile(r"[a-z]+")
#: Rounds of expectation maximisation; translations kept for a token, and the least probability.
ROUNDS, TRANSLATIONS, LEAST = 6, 4, 0.06
#: A token seen in fewer pairs than this starts from its distribution instead.
ALIGNED = 6
#: How many alignments the glossary's first translation counts for; the next count half.
TOLD = 20.0
WINDOW, DIMENSIONS, RIDGE = 5, 256, 3.0


def choose(texts: Iterable[tuple[str, float]], size: int, rarest: float = 6.0) -> list[str]:
    """The tokens, commonest first: all but the rarest characters, then words, `size` in all.

    Args:
        texts: (text, weight) pairs; counts are weighted.
        rarest: a character with a smaller weighted count gets no row.
    """
    words: Counter[str] = Counter()
    characters: Counter[str] = Counter()
    for text, weight in texts:
        for run in _RUN.findall(simplified(text)):
            for word in rjieba.cut(run, True):
                if 1 < len(word) <= LONGEST:
                    words[word] += weight  # type: ignore[assignment]
            for character in run:
                characters[character] += weight  # type: ignore[assignment]
    single = [c for c, n in characters.most_common() if n >= rarest]
    return single + [w for w, _ in words.most_common(max(0, size - len(single)))]


def spelled(tokens: Sequence[str]) -> list[str]:
    """A line for each token: the token, then its traditional spellings, with spaces between.

    A spelling that is a token itself is not given away.
    """
    lines = [[token] for token in tokens]
    taken = set(tokens)
    for name in ("s2t", "s2tw", "s2hk"):
        convert = opencc.OpenCC(name).convert
        for line in lines:
            spelling = convert(line[0])
            if spelling not in taken:
                taken.add(spelling)
                line.append(spelling)
    return [" ".join(line) for line in lines]


def start(
    pairs: Sequence[tuple[str, str]],
    texts: Iterable[str],
    meant: Mapping[str, Sequence[str]],
    tokenizer: Tokenizer,
    base: Rows,
    seed: int,
) -> Rows:
    """First values of the new rows, (tokens, width).

    Args:
        pairs: (English, Chinese) parallel text.
        texts: Chinese text, for the distributions.
        meant: words and their translations, the most general first.
        base: the English rows, (vocabulary, width).
    """
    first = len(base)
    count = max(tokenizer.get_vocab().values()) + 1 - first
    aligned, mass = _translated(pairs, tokenizer, base, count)
    aligned, mass = _told(meant, tokenizer, base, aligned, mass)
    space = _space(texts, tokenizer, first, count, seed)
    known = (mass >= ALIGNED) & (np.abs(space).sum(1) > 0)
    weights = np.minimum(mass[known], 50.0)[:, None]
    left = space[known] * weights
    gram = left.T @ space[known] + RIDGE * weights.mean() * np.eye(space.shape[1])
    guess = space @ np.linalg.solve(gram, left.T @ aligned[known])
    share = np.clip(mass / ALIGNED, 0, 1)[:, None]
    rows = share * aligned + (1 - share) * guess
    norm = np.linalg.norm(rows, axis=1, keepdims=True)
    usual = float(np.median(np.linalg.norm(base[1000:], axis=1)))
    return np.asarray(rows / np.maximum(norm, 1e-6) * usual, dtype=np.float32)


def _translated(
    pairs: Sequence[tuple[str, str]], tokenizer: Tokenizer, base: Rows, count: int
) -> tuple[Rows, NDArray[np.float64]]:
    """(rows, expected number of alignments) of every new token, by IBM model 1."""
    first = len(base)
    english = [_WORD.findall(en.lower())[:80] for en, _ in pairs]
    often = Counter(word for words in english for word in set(words))
    words = [w for w, n in often.items() if n >= 3]
    where = {w: i + 1 for i, w in enumerate(words)}  # 0 is the empty word
    chinese = _encode(tokenizer, [zh for _, zh in pairs], first)
    zs, es, owners = [], [], []
    for number, (left, right) in enumerate(zip(english, chinese, strict=True)):
        sources = np.array([0, *sorted({where[w] for w in left if w in where})], dtype=np.int32)
        targets = np.unique(right[:80])
        if len(targets) == 0 or len(sources) < 2:
            continue
        zs.append(np.repeat(targets, len(sources)).astype(np.int32))
        es.append(np.tile(sources, len(targets)))
        # one group for each target token of each pair: the alignments within it sum to one
        owners.append(
            np.repeat(np.arange(len(targets), dtype=np.int64) + number * 128, len(sources))
        )
    z, e = np.concatenate(zs), np.concatenate(es)
    owner = np.unique(np.concatenate(owners), return_inverse=True)[1]
    cell, key = np.unique(z.astype(np.int64) * (len(words) + 1) + e, return_inverse=True)
    probability = np.ones(len(cell))
    expected = probability
    for _ in range(ROUNDS):
        weight = probability[key]
        weight /= np.bincount(owner, weight)[owner]
        expected = np.bincount(key, weight).astype(np.float64)
        total = np.bincount(cell % (len(words) + 1), expected)
        probability = expected / total[cell % (len(words) + 1)]
    return _rows(cell, expected, words, tokenizer, base, count)


def _rows(
    cell: NDArray[np.int64],
    expected: NDArray[np.float64],
    words: Sequence[str],
    tokenizer: Tokenizer,
    base: Rows,
    count: int,
) -> tuple[Rows, NDArray[np.float64]]:
    """Mean of the English rows each token aligns with; pieces of a word count alike."""
    pieces = [
        base[encoded.ids].mean(0)
        for encoded in tokenizer.encode_batch(list(words), add_special_tokens=False)
    ]
    token, word = cell // (len(words) + 1), cell % (len(words) + 1)
    rows = np.zeros((count, base.shape[1]))
    mass = np.zeros(count)
    order = np.lexsort((-expected, token))
    edges = np.searchsorted(token[order], np.arange(count + 1))
    for row in range(count):
        best = order[edges[row] : edges[row + 1]]
        whole = expected[best].sum()
        kept = [b for b in best[: TRANSLATIONS + 1] if word[b] > 0][:TRANSLATIONS]
        kept = [b for b in kept if expected[b] >= LEAST * whole]
        if kept:
            share = expected[kept]
            rows[row] = sum(s * pieces[word[b] - 1] for s, b in zip(share, kept, strict=True))
            rows[row] /= share.sum()
            mass[row] = share.sum()
    return rows.astype(np.float32), mass


def _told(
    meant: Mapping[str, Sequence[str]],
    tokenizer: Tokenizer,
    base: Rows,
    aligned: Rows,
    mass: NDArray[np.float64],
) -> tuple[Rows, NDArray[np.float64]]:
    """The rows and their weights with what the glossary says of them."""
    rows, weights = aligned.copy(), mass.copy()
    for word, translations in meant.items():
        token = tokenizer.token_to_id(word)
        if token is None or token < len(base):
            continue
        pieces = [e.ids for e in tokenizer.encode_batch([*translations], add_special_tokens=False)]
        shares = TOLD * 0.5 ** np.arange(len(pieces))
        own = float(np.clip(mass[token - len(base)], 0, 2 * TOLD))
        total = own * aligned[token - len(base)]
        for share, ids in zip(shares, pieces, strict=True):
            total = total + share * base[ids].mean(0)
        rows[token - len(base)] = total / (own + shares.sum())
        weights[token - len(base)] = own + shares.sum()
    return rows, weights


def _space(
    texts: Iterable[str], tokenizer: Tokenizer, first: int, count: int, seed: int
) -> NDArray[np.float64]:
    """Distributional vectors of the new tokens, (count, DIMENSIONS)."""
    table = sparse.csr_matrix((count, count), dtype=np.float32)
    for part in _parts(texts, 20_000):
        left, right = [], []
        for ids in _encode(tokenizer, part, first):
            for step in range(1, WINDOW + 1):
                left.append(ids[:-step])
                right.append(ids[step:])
        a, b = np.concatenate(left), np.concatenate(right)
        ones = np.ones(len(a), dtype=np.float32)
        table += sparse.coo_matrix((ones, (a, b)), shape=(count, count)).tocsr()
    both = (table + table.T).tocoo()
    total = both.sum()
    row = np.asarray(both.sum(1)).ravel() + 1e-9
    smooth = row**0.75
    value = np.log(both.data * total / (row[both.row] * smooth[both.col] * (total / smooth.sum())))
    kept = value > 0
    ppmi = sparse.csr_matrix((value[kept], (both.row[kept], both.col[kept])), shape=(count, count))
    u, s, _ = svds(ppmi, k=min(DIMENSIONS, count - 1), random_state=seed)
    space = u * np.sqrt(s)
    return np.asarray(space / np.maximum(np.linalg.norm(space, axis=1, keepdims=True), 1e-9))


def _encode(tokenizer: Tokenizer, texts: Sequence[str], first: int) -> list[NDArray[np.int64]]:
    """Ids of the Chinese tokens of each text, counted from 0."""
    found = tokenizer.encode_batch(list(texts), add_special_tokens=False)
    arrays = (np.array(encoded.ids, dtype=np.int64) for encoded in found)
    return [ids[ids >= first] - first for ids in arrays]


def _parts(texts: Iterable[str], size: int) -> Iterator[list[str]]:
    part: list[str] = []
    for text in texts:
        part.append(text)
        if len(part) == size:
            yield part
            part = []
    if part:
        yield part
