"""The preference log -> samples of one kind: users' own, and of imported data sets where named."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import combinations

from rlhf.preferences import PreferenceStore
from rlhf.schema import Sample, SampleKind, Split


def gather(
    store: PreferenceStore,
    kind: SampleKind,
    split: Split | None = None,
    *,
    raw: bool = False,
    datasets: Sequence[str] = (),
) -> Iterator[Sample]:
    """Users' own samples of a kind, oldest first, then those of the data sets named.

    Only of users who allow training now. Texts are the redacted ones unless `raw`; those of data
    sets always are.
    """
    yield from own(store, kind, split, raw=raw)
    if datasets:
        yield from store.imported(kind, split, datasets)


def own(
    store: PreferenceStore, kind: SampleKind, split: Split | None = None, *, raw: bool = False
) -> Iterator[Sample]:
    """Users' own samples of a kind, oldest first."""
    if kind == "comparison":
        yield from store.comparisons(split, raw=raw)
    elif kind == "prompt":
        yield from store.prompts(split, raw=raw)
    elif kind == "label":
        for thumb in store.thumbs(split, raw=raw):
            yield Sample(
                "label",
                thumb.prompt,
                (thumb.completion,),
                label=thumb.label,
                models=(thumb.policy.model,),
                id=thumb.origin.event_id,
                turn=thumb.origin.turn_id,
                user=thumb.origin.user,
                language=thumb.origin.language,
                created=thumb.origin.created,
                source="thumb",
                split=thumb.origin.split,
            )
    else:
        for edit in store.edits(split, raw=raw):
            yield Sample(
                "demonstration",
                edit.prompt,
                (edit.edited,),
                id=edit.origin.event_id,
                turn=edit.origin.turn_id,
                user=edit.origin.user,
                language=edit.origin.language,
                created=edit.origin.created,
                source="edit",
                split=edit.origin.split,
            )


def decided(sample: Sample) -> list[tuple[int, int]]:
    """The pairs of a comparison that decide something, as (better, worse) places; ties give none.

    Of K answers there are up to C(K, 2); to give each comparison the same say, weigh each by one
    over their number (InstructGPT, arXiv 2203.02155, §3.5).
    """
    ranks = sample.ranks
    return [
        (a, b) if ranks[a] < ranks[b] else (b, a)
        for a, b in combinations(range(len(ranks)), 2)
        if ranks[a] != ranks[b]
    ]
