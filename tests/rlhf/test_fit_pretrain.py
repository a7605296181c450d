from __future__ import annotations

import gzip
import json
import subprocess
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig

from assistant.config import PolicySettings
from assistant.policy import local
from assistant.policy._signs import LABELS, Sign, sign
from assistant.policy.base import Resources
from assistant.schema import Message, Prompt, Sampling
from retrieval.config import EmbedSettings
from retrieval.embed import hashing
from rlhf.errors import TrainingError
from rlhf.fit import _pack
from rlhf.fit._lookup import Stretch, lookups, stretches
from rlhf.fit._network import configuration, export, logits, loss, losses, network
from rlhf.fit._text import Document, documents
from rlhf.fit.pretrain import Plan, Trainer
from rlhf.fit.tokenizer import learn, load, revision, write

ENGLISH = [
    f"The pump number {n} is checked every {n + 3} days by the night crew." for n in range(9)
]
CHINESE = [f"第{n}号水泵每{n + 3}天由夜班人员检查一次并且记录。" for n in range(9)]
PLAN = Plan(
    steps=4, windows=4, at_once=2, context=64, warmup=1, rate=1e-2, save_every=1, check_every=2
)


def save(path: Path, rows: Sequence[Mapping[str, object]]) -> None:
    """Write a gzipped JSON-lines file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with gzip.open(path, "wt", encoding="utf-8") as file:
        file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a data folder with every file that is read, and rows that must not be."""
    folder = tmp_path_factory.mktemp("data")
    for lang, said in (("en", ENGLISH), ("zh", CHINESE)):
        joint = " " if lang == "en" else ""
        rows: list[dict[str, object]] = [
            {"id": f"{lang}{n}", "text": f"Title {n}\n\n{n}{joint}" + joint.join(said[n % 5 :])}
            for n in range(400)
        ]
        save(folder / "text" / f"{lang}-made.txt.gz", rows)
    qa = folder / "qa"
    base: dict[str, object] = {
        "id": "q",
        "title": "T",
        "question": "Who?",
        "answers": [],
        "lang": "en",
    }
    for name in ("squad/squad11_dev", "squad/squad2_dev", "squadshifts/new_wiki", "pubmedqa/pqal"):
        save(
            qa / f"{name}.jsonl.gz",
            [
                {**base, "context": f"Kept of {name}.", "split": "train"},
                {**base, "context": f"Test of {name}.", "split": "test"},
                {**base, "context": "Reported by a benchmark.", "split": "train"},
            ],
        )
    for name in ("cmrc2018/dev", "cmrc2018/trial", "drcd/test"):
        row = {**base, "lang": "zh", "para_id": "1", "context": f"文 {name}", "split": "train"}
        save(qa / f"{name}.jsonl.gz", [row])
    save(qa / "xquad" / "en.jsonl.gz", [{**base, "context": "Reported by a benchmark."}])
    save(qa / "covidqa" / "docs.jsonl.gz", [{"id": "c", "text": "An article."}])
    save(qa / "canard" / "dev.jsonl.gz", [{"rewrite": "Who was it?"}])
    for name in ("crosswoz", "kdconv", "topical_chat", "sgd"):
        turns = [{"text": "Hello?"}, {"text": "Yes."}]
        talks: list[dict[str, object]] = [
            {"id": split, "split": split, "turns": [{"text": split}, *turns]}
            for split in ("train", "test")
        ]
        save(folder / "sft" / name / "dialogues.jsonl.gz", talks)
    pair = {"id": "p", "prompt": "Ask", "response": "Say", "lang": "en"}
    for name in ("lfrqa/answers", "gsm8k/train", "oasst_zh/sft", "self_instruct/seed_tasks"):
        save(folder / "sft" / f"{name}.jsonl.gz", [pair])
    save(
        folder / "sft" / "chatterbot" / "pairs.jsonl.gz",
        [{"id": "b", "lang": "zh-Hant", "turns": ["你好", "好"]}],
    )
    return folder


@pytest.fixture(scope="module")
def made() -> Tokenizer:
    """Make a small tokenizer."""
    return learn([ENGLISH, CHINESE], 460)


@pytest.fixture(scope="module")
def packed(data: Path, made: Tokenizer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pack the data folder."""
    folder = tmp_path_factory.mktemp("packed")
    assert len(list(_pack.pack(data, folder, made, "r", 7))) == 2
    return folder


def small(made: Tokenizer) -> LlamaConfig:
    """Return a network that is trained in no time."""
    return configuration(made, width=32, layers=2, heads=2, inner=64, context=PLAN.context)


def contained(text: str, found: list[Document]) -> bool:
    """Whether any document has the text."""
    return any(text in part for document in found for part in document.parts)


def test_only_rows_for_training_are_read(data: Path) -> None:
    """Test rows and paragraphs that benchmarks report on are left out."""
    found = [*documents(data)]
    assert contained("Kept of squad/squad11_dev.", found)
    assert not contained("Test of", found)
    assert not contained("Reported by a benchmark", found)
    assert not any("test" in part for d in found if d.source == "sgd" for part in d.parts)
    assert {d.lang for d in found} == {"en", "zh"}


def test_a_missing_file_is_named(tmp_path: Path, made: Tokenizer) -> None:
    """A folder without text is refused before anything is written."""
    with pytest.raises(TrainingError, match="name the data folder"):
        list(_pack.pack(tmp_path, tmp_path / "out", made, "r", 7))
    assert not (tmp_path / "out" / "packed.json").exists()


def cut(tokens: _pack.Tokens, made: Tokenizer) -> Counter[bytes]:
    """Count the documents of a packed file."""
    starts = [*np.flatnonzero(tokens == sign(made, "bos")), len(tokens)]
    return Counter(np.asarray(tokens[a:b]).tobytes() for a, b in pairwise(starts))


@pytest.mark.parametrize("lang", ["en", "zh"])
def test_packing_loses_no_token(data: Path, made: Tokenizer, packed: Path, lang: str) -> None:
    """A file holds every document whole, once, and lookup documents besides."""
    kept = [d for d in documents(data) if d.lang == lang and not d.held_out]
    whole = Counter(tokens.tobytes() for tokens in _pack.ids(made, kept))
    found = cut(_pack.mapped(packed / f"{lang}.bin"), made)
    assert not whole - found
    mark = np.uint16(sign(made, "evidence"))
    extra = [np.frombuffer(raw, dtype=np.uint16) for raw in (found - whole).elements()]
    assert all(mark in tokens for tokens in extra)
    share = sum(map(len, extra)) / len(_pack.mapped(packed / f"{lang}.bin"))
    assert 0.1 < share < 0.25


@pytest.mark.parametrize("lang", ["en", "zh"])
def test_held_out_documents_are_never_trained_on(
    data: Path, made: Tokenizer, packed: Path, lang: str
) -> None:
    """Neither whole nor as sentences of a lookup document."""
    held = [d for d in documents(data) if d.lang == lang and d.held_out]
    assert held
    trained = made.decode(_pack.mapped(packed / f"{lang}.bin").tolist())
    checked = made.decode(_pack.mapped(packed / f"held-{lang}.bin").tolist())
    for document in held:
        assert document.text not in trained
        assert document.text in checked


def test_packing_is_repeated_only_for_a_change(
    data: Path, made: Tokenizer, packed: Path, tmp_path: Path
) -> None:
    """The same data and tokenizer are not packed again; another tokenizer's are, alike."""
    assert list(_pack.pack(data, packed, made, "r", 7)) == []
    assert len(list(_pack.pack(data, tmp_path, made, "other", 7))) == 2
    for name in ("en.bin", "zh.bin", "held-en.bin", "lookup-zh.bin"):
        assert (tmp_path / name).read_bytes() == (packed / name).read_bytes()


@pytest.mark.parametrize(("size", "context"), [(103, 10), (100, 10), (7, 3)])
def test_an_epoch_has_every_token_as_a_target(size: int, context: int) -> None:
    """The windows of an epoch cover the file, in another order in every epoch."""
    tokens = np.arange(size, dtype=np.uint16)
    each = -(-size // context)
    epochs = [
        [_pack.window(tokens, context, 1, n).tolist() for n in range(e * each, (e + 1) * each)]
        for e in range(2)
    ]
    for windows in epochs:
        targets = Counter(t for w in windows for t in w[1:])
        assert set(targets) == set(range(size))
        assert sum(targets.values()) - size < context
    assert epochs[0] != epochs[1]


def test_a_step_reads_what_seed_and_step_say() -> None:
    """Whatever was read before, and as much of each language."""
    files = [np.arange(50, dtype=np.uint16), np.arange(100, 400, dtype=np.uint16)]
    found = [_pack.rows(files, 8, 4, 3, step) for step in range(20)]
    for step in (13, 2):
        assert (_pack.rows(files, 8, 4, 3, step) == found[step]).all()
    assert all((rows[:2] < 50).all() and (rows[2:] >= 100).all() for rows in found)
    assert not (_pack.rows(files, 8, 4, 4, 0) == found[0]).all()


def test_places_begin_with_the_document() -> None:
    """A token's place counts from its document's beginning, or the window's."""
    ids = np.array([[5, 6, 1, 7, 8, 1, 9], [1, 5, 5, 5, 1, 1, 5]])
    found = _pack.positions(ids, 1)
    assert found.tolist() == [[0, 1, 0, 1, 2, 0, 1], [0, 1, 2, 3, 0, 0, 1]]


def test_a_document_attends_only_to_itself(made: Tokenizer) -> None:
    """What stands before a document in its window changes nothing in it, in any row."""
    model = network(small(made), 1, "cpu")
    first = sign(made, "bos")
    ids = np.random.default_rng(0).integers(0, 300, (3, 40))
    ids[:, [0, 15]] = first
    other = ids.copy()
    other[:, 1:15] = 7
    with torch.inference_mode():
        left, right = (
            logits(
                model,
                torch.from_numpy(rows),
                torch.from_numpy(_pack.positions(rows, first)),
                torch.float32,
            )
            for rows in (ids, other)
        )
        alone = model(torch.from_numpy(ids[:, 15:])).logits
    assert torch.allclose(left[:, 15:], right[:, 15:], atol=1e-5)
    assert torch.allclose(left[:, 15:], alone, atol=1e-5)
    assert not torch.allclose(left[:, 14], right[:, 14], atol=1e-2)


def test_the_loss_in_chunks_is_the_loss(made: Tokenizer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Value and every gradient are those of plain cross-entropy."""
    monkeypatch.setattr("rlhf.fit._network.CHUNK", 7)
    model = network(small(made), 1, "cpu")
    ids = torch.randint(0, 300, (2, 21), generator=torch.Generator().manual_seed(0))
    places = torch.arange(20).expand(2, -1)
    found = []
    for value in (
        loss(model, ids, places, torch.float32) / 40,
        losses(model, ids, places, torch.float32).mean(),
    ):
        model.zero_grad()
        torch.autograd.backward(value)
        grads = [p.grad.clone() for p in model.parameters() if p.grad is not None]
        found.append((float(value.detach()), grads))
    assert found[0][0] == pytest.approx(found[1][0], rel=1e-5)
    assert len(found[0][1]) == len([*model.parameters()])
    for left, right in zip(found[0][1], found[1][1], strict=True):
        assert torch.allclose(left, right, atol=1e-6)


def trained(packed: Path, made: Tokenizer, stop: int | None = None) -> Trainer:
    """Train to the end, or until `stop`; the checkpoint lies in `packed`."""
    trainer = Trainer(packed, made, small(made), PLAN, "cpu")
    for _ in trainer.run():
        if trainer.loop.step == stop:
            break
    return trainer


def test_training_goes_on_where_it_stopped(packed: Path, made: Tokenizer) -> None:
    """An interrupted run ends with the weights of one that was not, bit for bit."""
    whole = trained(packed, made)
    whole.path.unlink()
    trained(packed, made, stop=2)
    again = trained(packed, made)
    for left, right in zip(whole.model.parameters(), again.model.parameters(), strict=True):
        assert torch.equal(left, right)
    again.path.unlink()


def test_a_step_in_parts_is_the_step(packed: Path, made: Tokenizer) -> None:
    """How many windows are read at once changes the memory needed and nothing else."""
    found = []
    for at_once in (1, 4):
        plan = replace(PLAN, at_once=at_once, steps=1)
        trainer = Trainer(packed, made, small(made), plan, "cpu")
        assert list(trainer.run())
        found.append([p.detach() for p in trainer.model.parameters()])
        trainer.path.unlink()
    for left, right in zip(*found, strict=True):
        assert float((left - right).abs().mean()) < 1e-4  # Adam magnifies rounding


def test_training_learns(packed: Path, made: Tokenizer) -> None:
    """Bits a byte of held-out text fall."""
    plan = replace(PLAN, steps=40, save_every=40, check_every=40)
    trainer = Trainer(packed, made, small(made), plan, "cpu")
    held = _pack.mapped(packed / "held-en.bin")
    with torch.inference_mode():
        before = trainer.bits(held)
    assert any("sentence found" in line for line in trainer.run())
    with torch.inference_mode():
        assert trainer.bits(held) < 0.7 * before
    trainer.path.unlink()


def test_another_plan_is_another_run(packed: Path, made: Tokenizer) -> None:
    """A checkpoint is taken up by the plan, network and tokenizer it belongs to, and no other."""
    plans = (PLAN, replace(PLAN, seed=8))
    names = {Trainer(packed, made, small(made), plan, "cpu").path.name for plan in plans}
    names.add(Trainer(packed, made, small(made), PLAN, "cpu", "another").path.name)
    assert len(names) == 3


def test_lookups_ask_for_what_stands_there(made: Tokenizer) -> None:
    """A cited label is one of the evidence's, and its sentence shares words with the query."""
    found = [Stretch("Head", tuple(ENGLISH[n : n + 4])) for n in range(5)]
    texts = [*lookups(found, "en", 50, 1)]
    assert texts == [*lookups(found, "en", 50, 1)]
    cited = 0
    for document in texts:
        parts = document.parts
        labels = {
            str(part): parts[at + 1]
            for at, part in enumerate(parts[:-1])
            if isinstance(part, Sign) and not isinstance(parts[at + 1], Sign)
        }
        for at, part in enumerate(parts):
            if isinstance(part, Sign) and part == "cite":
                assert set(parts[at - 3].rstrip("?").split()) & set(
                    labels[parts[at + 1]].rstrip(".").split()
                )
                cited += 1
        count = sum(isinstance(p, Sign) and p[1:].isdigit() for p in parts)
        assert count - parts.count("cite") <= LABELS
    assert cited > 50


def test_stretches_are_prose() -> None:
    """Headings, code and very long lines are no sentences to ask for."""
    text = "A heading\n\n" + " ".join(ENGLISH[:3]) + "\nx = f(y)\n" + "long " * 200
    (found,) = stretches(Document("d", "en", "s", (Sign("en"), text)))
    assert found == Stretch("A heading", tuple(ENGLISH[:3]))


def test_what_is_shipped_loads_without_our_code(made: Tokenizer, tmp_path: Path) -> None:
    """Transformers loads network and tokenizer by themselves; the product's policy answers."""
    model = network(replace_context(small(made)), 1, "cpu")
    export(model, tmp_path)
    write(made, tmp_path)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    ids = tokenizer(ENGLISH[0], return_tensors="pt")["input_ids"]
    with torch.inference_mode():
        assert torch.allclose(loaded(ids).logits, model(ids).logits, atol=5e-3)
    assert load(tmp_path).get_vocab_size() == loaded.config.vocab_size
    stored = (tmp_path / "model.safetensors").stat().st_size
    assert stored < 2.1 * sum(p.numel() for p in model.parameters())
    ends = {sign(made, "eos"), sign(made, "end")}
    assert {*loaded.generation_config.eos_token_id} == ends
    resources = Resources(hashing.build(EmbedSettings()), lambda terms: [1.0] * len(terms))
    policy = local.build(PolicySettings(backend="local", model=str(tmp_path)), resources)
    prompt = Prompt((Message("user", "Which pump?"),), "Which pump?", (), "en", "mark")
    deltas = [*policy.stream(prompt, Sampling(max_tokens=8))]
    assert deltas[-1].finish in ("stop", "length")
    assert revision(tmp_path) == revision(tmp_path)


def replace_context(config: LlamaConfig) -> LlamaConfig:
    """Give the network room for a prompt and an answer."""
    config.max_position_embeddings = 512
    return config


def test_training_needs_no_serving_library() -> None:
    """Machines that only train have no index, no chat page and no LangChain."""
    code = (
        "import sys, rlhf; assert not any(m.startswith('rlhf.fit') for m in sys.modules);"
        "import rlhf.fit.pretrain, rlhf.fit.tokenizer;"
        "serving = {'faiss', 'gradio', 'langchain', 'langchain_core', 'trl'};"
        "print(sorted(serving & sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.stdout.strip(), done.stderr) == ("[]", "")
