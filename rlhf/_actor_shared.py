"""Several answers to one prompt, looked at in one reading of it.

A prompt is read once; its answers stand behind it side by side, each in the places that it has by
itself, and none sees another. So k answers cost little more than one where prompts are long and
answers short, with gradients too.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from rlhf.schema import Rollout


def shares(rollouts: Sequence[Rollout]) -> bool:
    """Whether some prompt has several answers."""
    return len({r.prompt for r in rollouts}) < len(rollouts)


def states(
    model: Any, rollouts: Sequence[Rollout], places: Sequence[tuple[int, int]]
) -> Tensor | None:
    """States in which the tokens at `places` (row, token) were chosen, (places, width).

    Args:
        model: a causal network of transformers, with its attention by torch's own function.
        rollouts: answers.
        places: of actions.

    Returns:
        None where the network keeps something else of a prompt than the keys and values of all
        its tokens, or a prompt has one token; then each answer must be read by itself.
    """
    groups: dict[tuple[int, ...], list[int]] = {}
    for row, rollout in enumerate(rollouts):
        groups.setdefault(rollout.prompt, []).append(row)
    if model.config._attn_implementation != "sdpa" or min(map(len, groups)) < 2:
        return None
    device, base = model.device, model.base_model
    longest = max(map(len, groups)) - 1
    heads = [(*prompt[:-1], *[0] * (longest + 1 - len(prompt))) for prompt in groups]
    cache = base(input_ids=torch.tensor(heads, device=device), use_cache=True).past_key_values
    kinds = {type(layer).__name__ for layer in getattr(cache, "layers", (None,))}
    if kinds != {"DynamicLayer"}:  # a sliding window, a state, or something else
        return None
    ids, mask, positions, begins = _behind(rollouts, groups, longest)
    out = base(
        input_ids=ids.to(device),
        attention_mask=mask[:, None].to(device),
        position_ids=positions.to(device),
        past_key_values=cache,
        use_cache=True,
    )
    rows = torch.tensor([begins[row][0] for row, _ in places], device=device)
    at = torch.tensor([begins[row][1] + token for row, token in places], device=device)
    found: Tensor = out.last_hidden_state[rows, at]
    return found


def _behind(
    rollouts: Sequence[Rollout], groups: dict[tuple[int, ...], list[int]], longest: int
) -> tuple[Tensor, Tensor, Tensor, dict[int, tuple[int, int]]]:
    """What is read behind the prompts, each from its last token on.

    Returns:
        Ids (prompts, width); what each place sees, bool (prompts, width, longest + width);
        positions (prompts, width); and of each rollout its prompt and where it begins.
    """
    tails = {
        row: (prompt[-1], *rollouts[row].completion[:-1])
        for prompt, rows in groups.items()
        for row in rows
    }
    width = max(sum(len(tails[row]) for row in rows) for rows in groups.values())
    ids, positions = torch.zeros(2, len(groups), width, dtype=torch.long)
    mask = torch.zeros(len(groups), width, longest + width, dtype=torch.bool)
    begins: dict[int, tuple[int, int]] = {}
    for number, (prompt, rows) in enumerate(groups.items()):
        start, head = 0, len(prompt) - 1
        for row in rows:
            size = len(tails[row])
            mine = slice(start, start + size)
            ids[number, mine] = torch.tensor(tails[row])
            positions[number, mine] = torch.arange(head, head + size)
            mask[number, mine, :head] = True
            seen = torch.ones(size, size, dtype=torch.bool).tril()
            mask[number, mine, longest + start : longest + start + size] = seen
            begins[row] = (number, start)
            start += size
        rest = torch.arange(start, width)
        mask[number, rest, longest + rest] = True  # padding sees itself: nothing would be NaN
    return ids, mask, positions, begins
