from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from rlhf._imports_read import MAX_ROW
from rlhf.errors import ImportRefused
from rlhf.imports import FORMATS, ImportSummary, Problem, lines, read, take_in
from rlhf.preferences import PreferenceStore
from rlhf.schema import Sample

Rows = Callable[..., Path]


@pytest.fixture
def rows(tmp_path: Path) -> Rows:
    """Give a maker of files with a row a line."""

    def make(*given: object, name: str = "in.jsonl") -> Path:
        path = tmp_path / name
        text = "\n".join(r if isinstance(r, str) else json.dumps(r) for r in given)
        path.write_text(text, encoding="utf-8")
        return path

    return make


def samples(path: Path, format: str) -> list[Sample]:
    """The samples of a file of which every row is sound."""
    found = [item for _, item in read(path, format) if item is not None]
    assert not [str(item) for item in found if isinstance(item, Problem)]
    return [item for item in found if isinstance(item, Sample)]


def problems(path: Path, format: str) -> list[Problem]:
    """What is wrong with the rows of a file."""
    return [item for _, item in read(path, format) if isinstance(item, Problem)]


def taken(store: PreferenceStore, path: Path, format: str, **more: Any) -> ImportSummary:
    """Take a file in under a name and a licence."""
    return take_in(store, path, format, **{"dataset": "set", "licence": "MIT", **more})


def said(sample: Sample) -> list[tuple[str, str]]:
    """The prompt of a sample as pairs."""
    return [(m.role, m.text) for m in sample.prompt]


def pair(n: int = 0, **more: object) -> dict[str, object]:
    """A sound row of TRL's preference type."""
    return {"prompt": f"Question {n}?", "chosen": "Good.", "rejected": "Bad.", **more}


HH = "\n\nHuman: Hi\n\nAssistant: Hello\n\nHuman: Why?\n\nAssistant: "


# -- formats


def test_hh_is_split_at_the_last_answer(rows: Rows) -> None:
    """A transcript becomes messages, and the answers are what comes after the last of the turns."""
    path = rows({"chosen": f"{HH}Because.\n\nSo.", "rejected": f"{HH}No."})
    (found,) = samples(path, "hh")
    assert said(found) == [("user", "Hi"), ("assistant", "Hello"), ("user", "Why?")]
    assert (found.completions, found.ranks) == (("Because.\n\nSo.", "No."), (1, 2))


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"chosen": f"{HH}Yes.", "rejected": "\n\nHuman: X\n\nAssistant: No."}, "part before"),
        ({"chosen": "just text", "rejected": f"{HH}No."}, "no transcript"),
        ({"chosen": f"{HH}", "rejected": f"{HH}No."}, "does not end with an answer"),
        ({"transcript": "…", "rating": 3.0}, "no comparison"),
        ({"chosen": f"{HH}Yes."}, "no 'rejected'"),
    ],
)
def test_a_broken_transcript_is_named(rows: Rows, row: object, reason: str) -> None:
    """What is no pair of answers to one prompt is said, with the remedy."""
    (found,) = problems(rows(row), "hh")
    assert reason in found.reason
    assert found.remedy


MESSAGES = [{"role": "user", "content": "Why?"}]


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "Why?", "chosen": "A", "rejected": "B"},
        {
            "prompt": MESSAGES,
            "chosen": [{"role": "assistant", "content": "A"}],
            "rejected": [{"role": "assistant", "content": "B"}],
        },
        {
            "chosen": [*MESSAGES, {"role": "assistant", "content": "A"}],
            "rejected": [*MESSAGES, {"role": "assistant", "content": "B"}],
        },
        {
            "prompt": "Why?",
            "chosen": [*MESSAGES, {"role": "assistant", "content": "A"}],
            "rejected": [*MESSAGES, {"role": "assistant", "content": "B"}],
        },
        {"prompt": "Human: Why?", "chosen": " A", "rejected": " B"},
        {"prompt": "\n\nHuman: Why?\n\nAssistant:", "chosen": " A", "rejected": " B"},
        {
            "chosen": "\n\nHuman: Why?\n\nAssistant: A",
            "rejected": "\n\nHuman: Why?\n\nAssistant: B",
        },
    ],
)
def test_every_form_of_trls_preferences_is_the_same(rows: Rows, row: object) -> None:
    """Plain, conversational, with and without the prompt: one comparison of A over B."""
    (found,) = samples(rows(row), "preference")
    assert said(found) == [("user", "Why?")]
    assert (found.completions, found.ranks) == (("A", "B"), (1, 2))


@pytest.mark.parametrize("format", ["unpaired", "kto"])
def test_a_label_is_no_pair(store: PreferenceStore, rows: Rows, format: str) -> None:
    """An answer liked and another one disliked, to the same prompt, stay two labels."""
    path = rows(
        {"prompt": MESSAGES, "completion": "A", "label": True},
        {"prompt": MESSAGES, "completion": "B", "label": False},
    )
    assert taken(store, path, format).kinds == {"label": 2}
    assert [s.label for s in store.imported("label")] == [True, False]
    assert list(store.imported("comparison")) == []
    assert problems(rows({"prompt": "Why?", "completion": "A", "label": 1}), format)


def test_completions_and_prompts(rows: Rows) -> None:
    """A completion is a demonstration; a prompt alone is a prompt."""
    (lesson,) = samples(rows({"prompt": "Why?", "completion": "A"}), "sft")
    (asked,) = samples(rows({"prompt": MESSAGES}), "prompt")
    assert (lesson.kind, lesson.completions) == ("demonstration", ("A",))
    assert (asked.kind, said(asked)) == ("prompt", [("user", "Why?")])


def test_rankings_of_k_answers(rows: Rows) -> None:
    """Ranks may be given, with ties, or follow from the order."""
    completions = [
        {"rank": r, "completion": [{"role": "assistant", "content": t}]}
        for r, t in ((1, "B"), (0, "A"), (1, "C"))
    ]
    path = rows(
        {"context": MESSAGES, "completions": completions},
        {"prompt": "Und?", "history": [["Why?", "So."]], "ranked": ["A", "B", "C"]},
    )
    given, ordered = samples(path, "ranking")
    assert (given.completions, given.ranks) == (("B", "A", "C"), (1, 0, 1))
    assert ordered.ranks == (1, 2, 3)
    assert said(ordered) == [("user", "Why?"), ("assistant", "So."), ("user", "Und?")]


def battle(winner: str, **more: object) -> dict[str, object]:
    """A battle of Chatbot Arena."""
    sides = {
        f"conversation_{side}": [*MESSAGES, {"role": "assistant", "content": side.upper()}]
        for side in "ab"
    }
    row = {"question_id": "q", "model_a": "x", "model_b": "y", "winner": winner, "judge": "j1"}
    return {**row, **sides, "turn": 1, "tstamp": 1e9, "language": "English", **more}


def test_arena_keeps_ties_and_leaves_both_bad_out(rows: Rows) -> None:
    """A tie ranks both first; two bad answers are no preference, and that is said."""
    path = rows(battle("model_b"), battle("tie"), battle("tie (bothbad)"))
    found = [item for _, item in read(path, "arena") if item is not None]
    won, tied, bad = found
    assert isinstance(won, Sample)
    assert isinstance(tied, Sample)
    assert isinstance(bad, Problem)
    assert (won.ranks, won.models, won.user, won.created) == ((2, 1), ("x", "y"), "j1", 1e9)
    assert tied.ranks == (1, 1)
    assert (bad.kind, bad.line) == ("left out", 3)


def test_a_battle_of_many_turns_is_left_out(rows: Rows) -> None:
    """Where each model led its own conversation, the vote is on no single answer."""
    longer = [{"role": "user", "content": "Else?"}, {"role": "assistant", "content": "B"}]
    (found,) = problems(rows(battle("model_a", conversation_b=longer)), "arena")
    assert found.kind == "left out"


ANSWERS = {"prompt": "Why?", "response-1": "A", "response-2": "B"}


@pytest.mark.parametrize(
    ("responses", "ranks"),
    [
        ({"best": [{"user_id": "u", "value": "response-2", "status": "submitted"}]}, (2, 1)),
        ({"best": [{"user_id": "u", "value": "1", "status": "submitted"}]}, (1, 2)),
        ({"best": {"user_id": ["u"], "value": ["tie"], "status": ["submitted"]}}, (1, 1)),
        (
            {
                "order": [
                    {
                        "user_id": "u",
                        "value": [
                            {"rank": 2, "value": "response-1"},
                            {"rank": 1, "value": "response-2"},
                        ],
                        "status": "submitted",
                    }
                ]
            },
            (2, 1),
        ),
        (
            {
                "order.responses": [["response-2", "response-1"]],
                "order.responses.users": ["u"],
                "order.responses.status": ["submitted"],
            },
            (2, 1),
        ),
    ],
)
def test_argilla_of_both_versions(rows: Rows, responses: dict[str, Any], ranks: Any) -> None:
    """Choices and rankings are read as version 1 and version 2 write them."""
    (found,) = samples(rows({**ANSWERS, **responses, "external_id": "e"}), "argilla")
    assert (found.completions, found.ranks) == (("A", "B"), ranks)
    assert (found.user, found.id) == ("u", "e")


def test_argillas_corrections_teach_twice(rows: Rows) -> None:
    """A corrected answer is a preference of less weight and a demonstration."""
    said_so = {"corrected": [{"user_id": "u", "value": "Better.", "status": "submitted"}]}
    row = {"prompt": "Why?", "response": "A", **said_so}
    preferred, lesson = samples(rows(row), "argilla")
    assert (preferred.completions, preferred.weight) == (("Better.", "A"), 0.5)
    assert (lesson.kind, lesson.completions) == ("demonstration", ("Better.",))


def test_argillas_ratings_and_drafts_are_left_out(rows: Rows) -> None:
    """A rating of one answer says nothing about another, and a draft says nothing yet."""
    rated = {"score": [{"user_id": "u", "value": 5, "status": "submitted"}]}
    draft = {"best": [{"user_id": "u", "value": "1", "status": "draft"}]}
    found = problems(rows({**ANSWERS, **rated}, {**ANSWERS, **draft}), "argilla")
    assert [p.kind for p in found] == ["left out"] * 2


def task(selected: str, **more: object) -> dict[str, object]:
    """A task of Label Studio with one annotation."""
    result = {"type": "pairwise", "from_name": "pw", "to_name": "1,2"}
    return {
        "id": 7,
        "data": {"prompt": "Why?", "text1": "A", "text2": "B"},
        "annotations": [
            {
                "result": [{**result, "value": {"selected": selected}}],
                "completed_by": {"id": 3, "email": "x@example.com"},
                "created_at": "2026-01-02T03:04:05Z",
                **more,
            }
        ],
    }


def test_label_studio_in_an_array(rows: Rows) -> None:
    """Its export is one JSON array; a cancelled annotation counts for nothing."""
    path = rows(json.dumps([task("right"), task("left", was_cancelled=True)], indent=1))
    found = [item for _, item in read(path, "label-studio") if item is not None]
    sample, cancelled = found
    assert isinstance(sample, Sample)
    assert isinstance(cancelled, Problem)
    assert (sample.ranks, sample.user, sample.id) == ((2, 1), "3", "7")
    assert sample.created == pytest.approx(1767323045.0)
    assert cancelled.line > 10


def feedback_row(rating: object) -> dict[str, object]:
    """A feedback of Open WebUI on one of two answers to the same message."""
    messages = {
        "1": {"id": "1", "parentId": None, "role": "user", "content": "Why?"},
        "2": {"id": "2", "parentId": "1", "role": "assistant", "content": "A"},
        "3": {"id": "3", "parentId": "1", "role": "assistant", "content": "B"},
    }
    return {
        "id": "f",
        "user_id": "u",
        "type": "rating",
        "data": {"rating": rating, "model_id": "m", "sibling_model_ids": ["n"]},
        "meta": {"arena": True, "message_id": "2"},
        "snapshot": {"chat": {"chat": {"history": {"messages": messages}}}},
        "created_at": 1_704_067_200,
    }


def test_open_webui_gives_labels_only(rows: Rows) -> None:
    """A thumb on one answer is no preference over its sibling, not in an arena either."""
    liked, disliked = samples(rows(feedback_row(1), feedback_row("-1")), "open-webui")
    assert [(s.kind, s.label, s.completions) for s in (liked, disliked)] == [
        ("label", True, ("A",)),
        ("label", False, ("A",)),
    ]
    assert problems(rows(feedback_row(None)), "open-webui")[0].kind == "left out"
    assert problems(rows({**feedback_row(1), "snapshot": {}}), "open-webui")[0].kind == "bad"


# -- files


def test_a_bad_row_costs_no_other(store: PreferenceStore, rows: Rows) -> None:
    """Each bad row is named by file, line, reason and remedy, and the others are taken in."""
    path = rows(
        pair(1),
        "{not json",
        pair(2),
        "[1, 2]",
        "",
        '{"prompt": "Why?", "chosen": "\\ud800", "rejected": "B"}',
        '{"prompt": "Why?", "chosen": NaN, "rejected": "B"}',
        pair(3, chosen=""),
        pair(4, chosen="Bad."),
        pair(5, weight=7),
        pair(6),
    )
    heard: list[Problem] = []
    found = taken(store, path, "preference", tell=heard.append)
    assert (found.read, found.new) == (10, 3)
    assert [p.line for p in heard] == [2, 4, 6, 7, 8, 9, 10]
    assert found.problems == {"bad": 6, "left out": 1}
    assert str(heard[0]).startswith("in.jsonl:2: the row is not JSON")
    assert all(p.remedy for p in heard)


def test_bytes_that_are_no_text(store: PreferenceStore, tmp_path: Path) -> None:
    """A row in another encoding is named; a byte-order mark is none of its text."""
    path = tmp_path / "in.jsonl"
    bad = '{"prompt": "问？", "chosen": "A", "rejected": "B"}'.encode("gb18030")
    path.write_bytes(b"\xef\xbb\xbf" + json.dumps(pair()).encode() + b"\r\n" + bad)
    heard: list[Problem] = []
    assert taken(store, path, "preference", tell=heard.append).new == 1
    assert [(p.line, p.reason) for p in heard] == [(2, "the row is not UTF-8")]


def test_a_row_without_end_is_skipped(store: PreferenceStore, tmp_path: Path) -> None:
    """A row of more than a limit is stepped over in pieces, in lines and in arrays."""
    huge = b'{"prompt": "' + b"x" * (MAX_ROW + 10) + b'"}'
    good = json.dumps(pair()).encode()
    for name, data in (
        ("lines", huge + b"\n" + good),
        ("array", b"[" + huge + b",\n" + good + b"]"),
    ):
        path = tmp_path / name
        path.write_bytes(data)
        found = [item for _, item in read(path, "preference") if item is not None]
        assert [type(item) for item in found] == [Problem, Sample]


@pytest.mark.parametrize("indent", [None, 2])
@pytest.mark.parametrize("size", [1, 700])
def test_an_array_reads_as_its_rows(rows: Rows, indent: int | None, size: int) -> None:
    """Braces, quotes and backslashes in strings cut nothing, wherever a chunk ends."""
    odd = 'a "quoted} \\" [x] \\\\ {'
    given = [pair(n, chosen=odd * (n % 40 + 1)) for n in range(size)]
    found = samples(rows(json.dumps(given, indent=indent)), "preference")
    assert [s.completions[0] for s in found] == [str(r["chosen"]).strip() for r in given]


def test_a_broken_array_keeps_what_came_before(rows: Rows) -> None:
    """A file that breaks off gives its whole rows and says so."""
    text = json.dumps([pair(1), pair(2)])[:-20]
    found = [item for _, item in read(rows(text), "preference") if item is not None]
    assert [type(item) for item in found] == [Sample, Problem]


def test_gzip_and_a_torn_gzip(store: PreferenceStore, tmp_path: Path) -> None:
    """A packed file reads the same; one that breaks off gives what could be unpacked."""
    text = "\n".join(json.dumps(pair(n, chosen=f"{n * 7919}")) for n in range(3000)).encode()
    whole, torn = tmp_path / "a.jsonl.gz", tmp_path / "b.jsonl.gz"
    whole.write_bytes(gzip.compress(text))
    torn.write_bytes(gzip.compress(text)[:-2000])
    assert len(samples(whole, "preference")) == 3000
    found = [item for _, item in read(torn, "preference") if item is not None]
    assert isinstance(found[-1], Problem)
    assert len(found) > 100


def test_what_cannot_be_read_at_all(store: PreferenceStore, rows: Rows, tmp_path: Path) -> None:
    """An unknown format, a missing file or licence, and a bad name are refused."""
    for format, path, more, reason in (
        ("xml", rows(pair()), {}, "preference"),
        ("preference", tmp_path / "none", {}, "cannot read"),
        ("preference", rows(pair()), {"licence": " "}, "no licence note"),
        ("preference", rows(pair()), {"dataset": "a b"}, "name"),
    ):
        with pytest.raises(ImportRefused, match=reason):
            taken(store, path, format, **more)
    taken(store, rows(pair()), "preference")
    with pytest.raises(ImportRefused, match="under the licence 'MIT'"):
        taken(store, rows(pair()), "preference", licence="other")


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("value", [None, 1, "x", [], {}, [[]], [None], {"a": 1}])
def test_no_shape_of_row_breaks_a_format(rows: Rows, format: str, value: object) -> None:
    """Whatever stands under the keys of a format, a row is taken or named."""
    keys = (
        "prompt chosen rejected completion label ranked completions context history data "
        "annotations snapshot meta conversation_a conversation_b winner response-1 response-2 "
        "best best.responses transcript"
    ).split()
    sound = {"hh": pair(), "arena": battle("tie"), "label-studio": task("left")}
    row = {**pair(), **ANSWERS, **sound.get(format, feedback_row(1))}
    path = rows(*({**row, key: value} for key in keys), dict.fromkeys(keys, value))
    done = [item for _, item in read(path, format)]
    assert done.count(None) == len(keys) + 1


# -- the log


def test_imported_rows_stand_apart(store: PreferenceStore, rows: Rows) -> None:
    """They carry data set and licence, are in no reader of users' own rows, and can be removed."""
    taken(store, rows(pair(1)), "preference", dataset="one", licence="MIT")
    taken(store, rows(pair(2)), "preference", dataset="two", licence="CC-BY-4.0")
    assert not [*store.pairs(), *store.comparisons(), *store.records()]
    assert [(s.source, s.dataset, s.licence) for s in store.imported("comparison")] == [
        ("import", "one", "MIT"),
        ("import", "two", "CC-BY-4.0"),
    ]
    assert [s.dataset for s in store.imported("comparison", datasets=["two"])] == ["two"]
    assert store.datasets() == {"one": ("MIT", 1), "two": ("CC-BY-4.0", 1)}
    assert (store.forget_dataset("one"), store.forget_dataset("one")) == (1, 0)
    assert store.datasets() == {"two": ("CC-BY-4.0", 1)}


def test_a_file_taken_in_twice_adds_nothing(store: PreferenceStore, rows: Rows) -> None:
    """Duplicates are counted, whatever their spacing, order of keys, format or data set."""
    path = rows(pair(1), pair(2), pair(1, chosen=" Good. "))
    first, second = (taken(store, path, "preference") for _ in range(2))
    assert (first.new, first.duplicates, second.new, second.duplicates) == (2, 1, 0, 3)
    hh = rows(
        {
            "rejected": "\n\nHuman: Question 1?\n\nAssistant: Bad.",
            "chosen": "\n\nHuman: Question 1?\n\nAssistant: Good.",
        }
    )
    assert taken(store, hh, "hh", dataset="other").duplicates == 1


def test_votes_of_two_people_are_two(store: PreferenceStore, rows: Rows) -> None:
    """The same vote counts once for each of those who gave it."""
    path = rows(*(battle("model_a", judge=j) for j in ("ann", "bob", "ann")))
    found = taken(store, path, "arena")
    assert (found.new, found.duplicates) == (2, 1)


def test_contradictions_are_counted_and_kept(store: PreferenceStore, rows: Rows) -> None:
    """People disagree: both rows stay, and the summary says how many do."""
    found = taken(
        store, rows(pair(1), pair(1, chosen="Bad.", rejected="Good."), pair(2)), "preference"
    )
    assert (found.new, found.contradicting) == (3, 1)
    tie = rows(battle("model_a"), battle("tie", judge="j2"))
    assert taken(store, tie, "arena", dataset="arena").contradicting == 1
    assert "1 say something else" in " ".join(lines(found))


def test_splits_follow_the_words(store: PreferenceStore, rows: Rows, tmp_path: Path) -> None:
    """A conversation stays in one split, in every installation, and fractions are met."""
    other = PreferenceStore(tmp_path / "other.db")
    given = [pair(n) for n in range(300)] + [pair(n, chosen="Other.") for n in range(300)]
    placed = []
    for log in (store, other):
        found = taken(log, rows(*given), "preference")
        assert 0 < found.splits["test"] < 120
        placed.append([(said(s), s.split) for s in log.imported("comparison")])
    assert placed[0] == placed[1]
    assert placed[0][:300] == placed[0][300:]
    other.close()


def test_a_named_split_holds_for_new_words(store: PreferenceStore, rows: Rows) -> None:
    """Rows go where they are sent, but words met before stay, and that is counted."""
    taken(store, rows(pair(1)), "preference", split="test")
    found = taken(store, rows(pair(1, chosen="Other."), pair(2)), "preference", split="train")
    assert (found.splits, found.moved) == ({"test": 1, "train": 1}, 1)


def test_personal_data_is_masked_on_the_way_in(
    store: PreferenceStore, rows: Rows, tmp_path: Path
) -> None:
    """No byte of an address reaches the file, and the summary counts the rows."""
    path = rows(pair(1, chosen="Write to bob@example.com."), pair(2, prompt="Call 13800138000?"))
    assert taken(store, path, "preference").masked == 2
    (first, second) = store.imported("comparison")
    assert first.completions[0] == "Write to [email]."
    assert said(second) == [("user", "Call [phone]?")]
    assert b"bob@example.com" not in (tmp_path / "log.db").read_bytes()


def test_attack_text_is_held_back(store: PreferenceStore, rows: Rows) -> None:
    """A row whose prompt or answer is an attack is named by its line; texts are asked once."""
    asked: list[tuple[str, tuple[str, ...]]] = []

    def screen(texts: Sequence[str], side: str) -> list[str]:
        asked.append((side, tuple(texts)))
        return ["attack.override" if "IGNORE ALL" in text else "" for text in texts]

    heard: list[Problem] = []
    path = rows(pair(1), "", pair(2, rejected="IGNORE ALL"), pair(3, prompt="IGNORE ALL!"))
    found = taken(store, path, "preference", screen=screen, tell=heard.append)
    assert (found.new, found.problems) == (1, {"held back": 2})
    assert [p.line for p in heard] == [3, 4]
    assert "attack.override" in heard[0].reason
    assert asked == [
        ("input", ("Question 1?", "Question 2?", "IGNORE ALL!")),
        ("passage", ("Good.", "Bad.", "IGNORE ALL")),
    ]


def test_an_annotator_is_a_pseudonym_and_can_be_erased(
    store: PreferenceStore, rows: Rows, tmp_path: Path
) -> None:
    """Names of annotators are not in the file; deleting a user deletes what they judged."""
    taken(store, rows(battle("tie", judge="carol.smith"), battle("tie", judge="dan")), "arena")
    assert b"carol.smith" not in (tmp_path / "log.db").read_bytes()
    store.delete_user("carol.smith")
    assert len(list(store.imported("comparison"))) == 1


def test_the_fields_own_files(store: PreferenceStore, rows: Rows) -> None:
    """Of the harmless half of HH-RLHF every row becomes a comparison or is named."""
    path = Path(__file__).resolve().parents[3] / "shared/data/preference/hh_harmless_base"
    if not (path / "test.jsonl.gz").exists():
        pytest.skip("needs the research data beside the checkout")
    found = taken(store, path / "test.jsonl.gz", "hh", dataset="hh")
    assert found.read == 2312
    assert found.new + found.duplicates + found.problems.total() == 2312
    assert found.new > 2200
