"""Every export, loaded as TRL loads it: by `datasets` from the file, and by the trainer itself."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from rlhf.exports import export, write
from rlhf.imports import take_in
from rlhf.preferences import PreferenceStore

trl = pytest.importorskip("trl", reason="needs TRL; install plumbline[bench]")
datasets = pytest.importorskip("datasets", reason="needs datasets; install plumbline[bench]")

MakeRecord = Any
MakeFeedback = Any

TEMPLATE = (
    "{% for m in messages %}<{{ m['role'] }}> {{ m['content'] }}\n{% endfor %}"
    "{% if add_generation_prompt %}<assistant> {% endif %}"
)
FORMATS = ("preference", "unpaired", "kto", "sft", "prompt", "hh", "ranking", "arena", "argilla")


@pytest.fixture
def filled(
    store: PreferenceStore, record: MakeRecord, feedback: MakeFeedback, tmp_path: Path
) -> PreferenceStore:
    """Four turns with picks, edits and thumbs, and an imported ranking."""
    for n in range(4):
        for name in "ab":
            store.add_turn(record(f"t{n}", f"{name}{n}", text=f"{name} 答 {n}", passages=0))
        ids = (f"a{n}", f"b{n}")
        store.add_feedback(feedback("ab_pick", f"t{n}", candidate_ids=ids, value=n % 2))
        store.add_feedback(feedback("edit", f"t{n}", candidate_ids=ids[:1], text=f"改 {n}"))
        store.add_feedback(feedback("thumb", f"t{n}", candidate_ids=ids[:1], value=1 - n % 2 * 2))
    path = tmp_path / "in.jsonl"
    path.write_text(json.dumps({"prompt": "Q?", "ranked": ["A", "B", "C"]}), "utf-8")
    take_in(store, path, "ranking", dataset="set", licence="MIT")
    return store


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    """Write a random model with a tokenizer of single bytes and a chat template."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {t: n for n, t in enumerate(["<pad>", "<eos>", *letters])}
    base = Tokenizer(models.BPE(vocabulary, []))
    base.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    make: Any = PreTrainedTokenizerFast  # untyped
    tokenizer = make(
        tokenizer_object=base, pad_token="<pad>", eos_token="<eos>", chat_template=TEMPLATE
    )
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(vocabulary),
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=1,
        num_key_value_heads=1,
        pad_token_id=0,
        eos_token_id=1,
    )
    folder = tmp_path / "tiny"
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def loaded(store: PreferenceStore, tmp_path: Path, format: Any, plain: bool = False) -> Any:
    """Export and load the file as a user of TRL does."""
    path = tmp_path / f"{format}.jsonl"
    written = write(export(store, format, plain=plain, datasets=_sets(format)), path)
    found = datasets.load_dataset(
        "json", data_files=str(path), split="train", cache_dir=str(tmp_path / "cache")
    )
    assert len(found) == written > 0
    return found


def _sets(format: str) -> tuple[str, ...]:
    return ("set",) if format in ("preference", "hh", "ranking", "arena", "argilla") else ()


@pytest.mark.parametrize("format", FORMATS)
def test_datasets_reads_every_export(filled: PreferenceStore, tmp_path: Path, format: str) -> None:
    """The loader finds one table with one type a column in each file."""
    assert loaded(filled, tmp_path, format).column_names


@pytest.mark.parametrize("format", ["preference", "unpaired", "kto", "sft", "prompt"])
def test_trl_knows_messages_from_text(filled: PreferenceStore, tmp_path: Path, format: str) -> None:
    """Messages are conversational for TRL and plain lines are not; its template renders them."""
    chat = loaded(filled, tmp_path, format)
    assert trl.data_utils.is_conversational(chat[0])
    plain = loaded(filled, tmp_path, format, plain=True)
    assert not trl.data_utils.is_conversational(plain[0])


TRAINERS = [
    ("preference", "Reward", False),
    ("preference", "Reward", True),
    ("hh", "Reward", True),
    ("preference", "DPO", False),
    ("preference", "DPO", True),
    ("unpaired", "KTO", False),
    ("kto", "KTO", True),
    ("sft", "SFT", False),
    ("sft", "SFT", True),
]


@pytest.mark.parametrize(("format", "trainer", "plain"), TRAINERS)
def test_trls_trainer_takes_a_step(
    filled: PreferenceStore, tmp_path: Path, tiny: Path, format: str, trainer: str, plain: bool
) -> None:
    """The trainer prepares the file by itself and takes an optimiser step on it."""
    import torch
    from transformers import (
        AutoModelForCausalLM,
        AutoModelForSequenceClassification,
        AutoTokenizer,
    )

    torch.set_num_threads(1)
    rows = loaded(filled, tmp_path, format, plain=plain and format != "hh")
    if trainer == "Reward":
        model = AutoModelForSequenceClassification.from_pretrained(tiny, num_labels=1)
    else:
        model = AutoModelForCausalLM.from_pretrained(tiny)
    settings = getattr(trl, f"{trainer}Config")(
        output_dir=str(tmp_path / "run"),
        max_steps=1,
        per_device_train_batch_size=4,
        report_to="none",
        use_cpu=True,
        bf16=False,
        save_strategy="no",
        max_length=4096,
        gradient_checkpointing=False,
    )
    run = getattr(trl, f"{trainer}Trainer")(
        model=model,
        args=settings,
        train_dataset=rows,
        processing_class=AutoTokenizer.from_pretrained(tiny),
    )
    assert len(run.train_dataset) == len(rows)
    done = run.train()
    assert done.global_step == 1
    assert done.training_loss == done.training_loss  # not a number is not equal to itself
