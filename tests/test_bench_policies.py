from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from transformers import AutoTokenizer

from assistant.policy.local import encode
from assistant.prompt import render
from assistant.schema import Delta, PolicyCard, Prompt, Sampling
from bench import answers, decode, shapes
from tests.bench_files import last_line, write

DOCUMENT = """# Places

## Harbour of Varnholm

The harbour of Varnholm was built in 1874 by Erik Lund. It has three piers.

## Lighthouse of Kelso

The lighthouse of Kelso is 41 metres tall and painted red. Its lamp was lit in 1903.
"""


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("PLUMBLINE_RETRIEVAL__EMBED__BACKEND", "hashing")
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def asked(right: bool, *, abstained: bool = False, present: bool = True) -> answers.Asked:
    """Make what came of a question."""
    return answers.Asked(present, False, abstained, right, right, right, 1, 0.1)


def test_a_difference_is_of_pairs_and_signed() -> None:
    """The second less the first; equal answers leave no doubt about zero."""
    one = [asked(n < 5) for n in range(20)]
    other = [asked(n < 15) for n in range(20)]
    gap = answers.difference(one, other, "right")
    assert gap is not None
    value, low, high = gap
    assert (value, 0 < low < value < high) == (0.5, True)
    assert answers.difference(one, one, "right") == (0.0, 0.0, 0.0)


def test_a_difference_of_no_questions_is_none() -> None:
    """Nothing was absent, so nothing can be said about absent ones."""
    one = [asked(True)]
    assert answers.difference(one, one, "refused_right") is None


@pytest.fixture
def questions(tmp_path: Path) -> Path:
    """Return two answerable questions of two splits, and an unanswerable one."""
    text = "The harbour of Varnholm was built in 1874."
    row = {"question": "When was the harbour built?", "title": "Varnholm", "context": text}
    gold = {"answers": [{"text": "1874", "start": text.index("1874")}]}
    path = tmp_path / "tiny.jsonl.gz"
    unknown = {**row, "id": "c", "answers": [], "is_impossible": True, "split": "test"}
    unknown["question"] = "Who painted the harbour?"
    write(path, [row | gold | {"id": s, "split": s} for s in ("train", "test")] + [unknown])
    return path


def test_policies_stand_side_by_side(questions: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Each has the values it has alone; at the top stand the first one's."""
    answers.main(["--qa", str(questions), "--policy", "echo,extract"])
    found = last_line(capsys)
    assert list(found["policies"]) == ["echo", "extract"]
    top = {key: found[key] for key in found["policies"]["echo"]}
    assert (top, top["right"]) == (found["policies"]["echo"], 1.0)
    value, low, high = found["difference"]["extract"]["right"]
    assert (value, low <= value <= high) == (found["policies"]["extract"]["right"] - 1.0, True)


def test_a_split_and_unanswerable_questions(
    questions: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One answerable and one unanswerable question of the split are asked, and counted apart."""
    given = ["--qa", str(questions), "--policy", "echo", "--split", "test", "--impossible"]
    answers.main(given)
    found = last_line(capsys)
    got = [found[name] for name in ("n", "right", "refused_wrong", "refused_impossible")]
    assert got == [2, 1.0, 0.0, 0.0]


def test_an_unknown_split_names_the_known_ones(questions: Path) -> None:
    """Nothing is measured by mistake."""
    with pytest.raises(SystemExit, match="no question of split 'dev'; known: test, train"):
        answers.main(["--qa", str(questions), "--policy", "echo", "--split", "dev"])


@pytest.mark.parametrize("policy", ["local", "echo"])
def test_decoding_is_measured_beside_generate(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], policy: str
) -> None:
    """Whatever the policy, the same prompts go through both, one by one and in batches."""
    document = tmp_path / "harbour.md"
    document.write_text(DOCUMENT, encoding="utf-8")
    given = ["--shape", "tiny", "--tokens", "6", "--batches", "1,2", "--paths", str(document)]
    decode.main([*given, "--policy", policy])
    found = last_line(capsys)
    times = ("ttft_p50_ms", "ttft_p95_ms", "total_p50_ms", "total_p95_ms", "ratio_to_generate")
    assert all(found[name] > 0 for name in (*times, "prefill_ms"))
    assert found["ttft_p50_ms"] <= found["total_p50_ms"]
    assert (found["n"], list(found["tokens_per_s"])) == (2, ["1", "2"])
    assert (found["policy"], found["model"]) == (policy, "random weights, tiny")


class Quoting:
    """A double that quotes five words, in two pieces."""

    card = PolicyCard("quoting", "")

    def stream(self, prompt: Prompt, sampling: Sampling) -> Iterator[Delta]:
        """Quote, and stop."""
        yield Delta("two words", quote=(1, 0, 9), token_ids=(1,))
        yield Delta(" and three more", quote=(1, 9, 24))
        yield Delta("", finish="stop", token_ids=(2,))

    def count_tokens(self, text: str) -> int:
        """Count words."""
        return len(text.split())

    def close(self) -> None:
        """Do nothing."""


def test_a_quote_counts_by_its_words_and_not_by_its_steps() -> None:
    """`generate` has to write what is quoted, not the few tokens that chose it."""
    answer = decode.answered(Quoting(), Prompt((), "", (), "en"), Sampling())
    assert (answer.tokens, 0 < answer.first <= answer.total) == (5, True)


def test_generate_writes_exactly_as_many_tokens_as_asked(tmp_path: Path) -> None:
    """Prompts of different lengths are padded, and no end token cuts an answer short."""
    folder = shapes.make("tiny", tmp_path / "tiny", "cpu", "float32")
    plain = decode.Plain(folder, "cpu", "float32")
    made: list[torch.Tensor] = []
    inner = plain.model.generate

    def kept(**options: object) -> torch.Tensor:
        made.append(inner(**options))
        return made[-1]

    plain.model.generate = kept
    prompts = [decode_prompt("short"), decode_prompt("much longer " * 5)]
    plain.run(prompts, 7)
    before = max(len(encode(plain.tokenizer, p.messages)) for p in prompts)
    assert made[0].shape == (2, before + 7)


def decode_prompt(text: str) -> Prompt:
    """Render a question without passages."""
    return render(text, [], (), "en", mark="bcdfghjk")


def test_every_id_of_a_shape_has_letters(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A vocabulary larger than the tokenizer's is filled up, and texts are cut as before."""
    architecture, sizes = shapes.SHAPES["tiny"]
    large = {**shapes.SHAPES, "large": (architecture, {**sizes, "vocab_size": 20_000})}
    monkeypatch.setattr(shapes, "SHAPES", large)
    folder = shapes.make("large", tmp_path / "large", "cpu", "float32")
    filled = AutoTokenizer.from_pretrained(folder)
    known = AutoTokenizer.from_pretrained(shapes.TOKENIZER)
    assert filled.decode([19_999]) == "w19999"
    assert filled("w19999 und 中文").input_ids == known("w19999 und 中文").input_ids


def test_an_unknown_shape_is_named(tmp_path: Path) -> None:
    """The error names those there are."""
    with pytest.raises(SystemExit, match="no shape 'huge'; there are: tiny"):
        shapes.make("huge", tmp_path, "cpu", "float32")
