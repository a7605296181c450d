from __future__ import annotations

from itertools import pairwise

import pytest
import torch

from assistant.policy._decode import Reader, beam, sample, score
from assistant.policy._trie import Paths
from tests.assistant.quoters import network

END = 99
PROMPT = [3, 14, 15, 92, 65, 35, 89]
MODEL = network()
SEEDS = range(12)


def tree() -> Paths:
    """Pieces with shared beginnings and long forced runs."""
    options = [(1, 2), (1, 3, 4), (5, 6, 7, 8, 10, 11, 12)]
    return Paths(options, [(9,)], END, 2)


def test_probabilities_of_all_answers_sum_to_one() -> None:
    """Masked log-probs are those of a distribution over the tree's answers."""
    paths = list(tree().whole())
    with torch.inference_mode():
        found = score(MODEL, [PROMPT] * len(paths), paths, [tree()] * len(paths))
    chances = torch.stack([part.sum() for part in found]).exp()
    assert len(paths) > 8
    assert float(chances.sum()) == pytest.approx(1, abs=1e-5)
    assert float(chances.max()) < 0.99


@pytest.mark.parametrize("temperature", [0.7, 1.0, 1.8])
def test_generation_equals_scoring(temperature: float) -> None:
    """Log-probs of what was drawn, made token by token, are those of one pass over many rows."""
    prompts = [PROMPT[: 3 + seed % 4] for seed in SEEDS]
    drawn = [
        sample(Reader(MODEL, ids), tree(), temperature, 1.0, seed)
        for ids, seed in zip(prompts, SEEDS, strict=True)
    ]
    found = score(MODEL, prompts, [d.path for d in drawn], [tree()] * len(drawn), temperature)
    for answer, logprobs in zip(drawn, found, strict=True):
        assert logprobs.tolist() == pytest.approx(answer.logprobs, abs=1e-5)
    assert len({d.path for d in drawn}) > 3


def test_forced_tokens_are_certain_and_cost_one_forward() -> None:
    """As many passes as decisions, however long the runs between them are."""
    for seed in SEEDS:
        found = sample(Reader(MODEL, PROMPT), tree(), 1.0, 1.0, seed)
        allowed = [a for a, _ in zip(tree().along(found.path), found.path, strict=False)]
        for choices, logprob in zip(allowed, found.logprobs, strict=True):
            assert (logprob == 0) == (len(choices) == 1)
        assert found.forwards == sum(len(choices) > 1 for choices in allowed)


def test_the_same_seed_gives_the_same_answer() -> None:
    """And other seeds give others."""
    twice = [[sample(Reader(MODEL, PROMPT), tree(), 1.0, 1.0, s) for s in SEEDS] for _ in "ab"]
    assert twice[0] == twice[1]
    assert len({answer.path for answer in twice[0]}) > 3


def test_a_nucleus_is_of_allowed_tokens_only() -> None:
    """A tiny nucleus leaves the likeliest allowed token each time."""
    for seed in SEEDS:
        found = sample(Reader(MODEL, PROMPT), tree(), 1.0, 1e-6, seed)
        assert found.path == sample(Reader(MODEL, PROMPT), tree(), 0, 1.0, 0).path


def test_a_wide_beam_finds_the_likeliest_answer() -> None:
    """Against all answers of the tree scored; a beam never does worse than greed here."""
    for seed in range(4):
        model = network(seed)
        paths = list(tree().whole())
        found = score(model, [PROMPT] * len(paths), paths, [tree()] * len(paths))
        totals = [float(part.sum()) for part in found]
        best = beam(Reader(model, PROMPT), tree(), 16)
        assert sum(best.logprobs) == pytest.approx(max(totals), abs=1e-5)
        assert best.path == paths[totals.index(max(totals))]


def test_what_was_decided_before_is_kept() -> None:
    """Tokens given have the log-probs of decisions, in a beam as in a sample."""
    drawn = sample(Reader(MODEL, PROMPT), tree(), 0, 1.0, 0, (9,))
    assert drawn == beam(Reader(MODEL, PROMPT), tree(), 4, (9,))
    assert drawn.path == (9, END)
    assert drawn.logprobs[0] < 0


def test_it_goes_on_where_a_further_piece_is_probable_enough() -> None:
    """At every bar the answer ends where not to end is less probable; what is drawn has no bar."""
    tree = Paths([(1, 2), (1, 3), (1, 4), (1, 5)], [(9,)], END, 3)
    lengths = []
    for more in (-1.0, 0.1, 0.5, 0.9, 1.0):
        found = sample(Reader(MODEL, PROMPT), tree, 0, 1.0, 0, (1,), more)
        pieces = tree.pieces(found.path)
        lengths.append(len(pieces))
        for _, _, at in pieces[:2]:
            ends = torch.tensor(found.logprobs[at]).exp()
            going = float(1 - ends if found.path[at] == END else ends)
            assert (going > more) == (found.path[at] != END)
            if found.path[at] == END:
                break
    assert lengths[0] == 3
    assert lengths[-1] == 1
    assert lengths == sorted(lengths, reverse=True)
    greedy = sample(Reader(MODEL, PROMPT), tree, 0, 1.0, 0, (1,))
    assert greedy == sample(Reader(MODEL, PROMPT), tree, 0, 1.0, 0, (1,), 0.5)
    drawn = sample(Reader(MODEL, PROMPT), tree, 1.0, 1.0, 3, (1,))
    assert drawn == sample(Reader(MODEL, PROMPT), tree, 1.0, 1.0, 3, (1,), 1.0)


def test_reading_on_equals_reading_anew() -> None:
    """What is kept of earlier passes changes no logits, whether a path goes on or starts over."""
    reader = Reader(MODEL, PROMPT)
    for path in [(), (1,), (1, 3), (1, 3, 4, 5), (1, 2), (), (5, 6), (5, 6)]:
        assert torch.allclose(reader.after(path), Reader(MODEL, PROMPT).after(path), atol=1e-5)
    each = reader.after_each([(1, 2), (), (5, 6, 7)])
    for row, path in zip(each, [(1, 2), (), (5, 6, 7)], strict=True):
        assert torch.allclose(row, Reader(MODEL, PROMPT).after(path), atol=1e-5)
    assert torch.allclose(reader.after((1,)), Reader(MODEL, PROMPT).after((1,)), atol=1e-5)


def test_scores_do_not_depend_on_the_rows_beside() -> None:
    """Padding changes nothing (at most 1e-5), and the pad is never looked at."""
    paths = list(tree().whole())
    together = score(MODEL, [PROMPT] * len(paths), paths, [tree()] * len(paths))
    for path, logprobs in zip(paths, together, strict=True):
        (single,) = score(MODEL, [PROMPT], [path], [tree()])
        assert logprobs.tolist() == pytest.approx(single.tolist(), abs=1e-5)


def test_gradients_reach_the_network() -> None:
    """Scoring is what training descends on; two passes in training mode are the same."""
    model = network().train()
    path = max(tree().whole(), key=len)
    first, second = (score(model, [PROMPT], [path], [tree()])[0].sum() for _ in range(2))
    assert float(first) == float(second)
    torch.autograd.backward(first)
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.parameters())


def test_longer_forced_runs_are_read_at_once() -> None:
    """A model without labels quotes whole sentences: passes stay as many as decisions."""
    rows = [tuple(range(20 * n, 20 * n + 18)) for n in range(1, 4)]
    paths = Paths(rows, [(5,)], END + 150, 3)
    found = sample(Reader(MODEL, PROMPT), paths, 1.0, 1.0, 3)
    assert found.forwards <= 4
    for a, b in pairwise(paths.pieces(found.path)):
        assert a[2] == b[1]
