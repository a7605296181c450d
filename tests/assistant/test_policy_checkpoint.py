from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM

from assistant.errors import ConfigError, ModelNotFound
from tests.assistant.policies import ask, load, make_random, make_tokenizer, run, said


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Save two random models."""
    root = tmp_path_factory.mktemp("models")
    tokenizer = make_tokenizer()
    return {name: make_random(root / name, name, tokenizer) for name in ("llama", "qwen2")}


def test_the_card_names_the_very_weights(folders: dict[str, Path], tmp_path: Path) -> None:
    """One changed weight is another revision; a copy is the same."""
    card = load(folders["llama"]).card
    assert (card.name, card.model, card.dtype) == ("local", "llama", "float32")
    assert card.engine.startswith("transformers 5")
    copy = tmp_path / "copy"
    copy.mkdir()
    for path in folders["llama"].iterdir():
        (copy / path.name).write_bytes(path.read_bytes())
    assert load(copy).card.revision == card.revision
    weights = bytearray((copy / "model.safetensors").read_bytes())
    weights[len(weights) // 2] ^= 1
    (copy / "model.safetensors").write_bytes(weights)
    assert load(copy).card.revision != card.revision


def test_the_card_names_the_tokenizer(folders: dict[str, Path], tmp_path: Path) -> None:
    """Another chat template is another tokenizer; other weights, and other models, are not."""
    cards = [load(folders[name]).card for name in ("llama", "qwen2")]
    assert cards[0].tokenizer == cards[1].tokenizer
    assert cards[0].revision != cards[1].revision
    copy = tmp_path / "copy"
    copy.mkdir()
    for path in folders["llama"].iterdir():
        (copy / path.name).write_bytes(path.read_bytes())
    assert load(copy).card.tokenizer == cards[0].tokenizer
    template = copy / "chat_template.jinja"
    template.write_text(template.read_text("utf-8") + " ", encoding="utf-8")
    assert load(copy).card.tokenizer != cards[0].tokenizer


def test_an_adapter_changes_the_answer(folders: dict[str, Path], tmp_path: Path) -> None:
    """A LoRA adapter made with peft is loaded, named, and heard."""
    torch.manual_seed(1)
    base: Any = AutoModelForCausalLM.from_pretrained(folders["qwen2"])
    tuned = get_peft_model(
        base, LoraConfig(r=4, target_modules=["q_proj", "v_proj"], init_lora_weights=False)
    )
    tuned.save_pretrained(str(tmp_path / "lora"))
    with_adapter = load(folders["qwen2"], adapter=str(tmp_path / "lora"))
    without = load(folders["qwen2"])
    assert with_adapter.card.adapter.startswith("lora@")
    assert without.card.adapter == ""
    first = run(with_adapter, ask(), max_tokens=16)
    assert said(first) != said(run(without, ask(), max_tokens=16))


@pytest.mark.parametrize("model", ["./nowhere", "/nowhere/at/all", "nobody/nothing"])
def test_a_missing_model_is_named(model: str) -> None:
    """Neither a folder nor in the cache nor to be fetched: the error says which and what to do."""
    with pytest.raises(ModelNotFound, match=model):
        load(model)


def test_a_missing_adapter_is_named(folders: dict[str, Path], tmp_path: Path) -> None:
    """An adapter's folder must be there."""
    with pytest.raises(ModelNotFound, match="no adapter folder"):
        load(folders["llama"], adapter=str(tmp_path / "none"))


def test_code_of_a_checkpoint_is_never_run(folders: dict[str, Path]) -> None:
    """A configuration that asks for its own code is refused before anything is loaded."""
    path = folders["llama"].parent / "remote-code"
    path.mkdir()
    for source in folders["llama"].iterdir():
        (path / source.name).write_bytes(source.read_bytes())
    config = json.loads((path / "config.json").read_text())
    config["auto_map"] = {"AutoModelForCausalLM": "evil.Model"}
    (path / "config.json").write_text(json.dumps(config))
    (path / "evil.py").write_text("raise SystemExit('ran')")
    with pytest.raises(ModelNotFound, match="auto_map"):
        load(path)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("model.safetensors", None, "no .safetensors file"),
        ("config.json", None, "no config.json"),
        ("config.json", b"{", "cannot read"),
        ("config.json", b'{"model_type": "nonesuch"}', "cannot load"),
        ("model.safetensors", b"\x08\x00\x00\x00\x00\x00\x00\x00{}      ", "cannot load|lacks"),
        ("model.safetensors", b"garbage" * 9, "cannot load"),
    ],
)
def test_a_damaged_checkpoint_is_named(
    folders: dict[str, Path], tmp_path: Path, name: str, content: bytes | None, message: str
) -> None:
    """A missing, broken or unknown part is an error of ours, never a random model."""
    path = tmp_path / "damaged"
    path.mkdir()
    for source in folders["llama"].iterdir():
        (path / source.name).write_bytes(source.read_bytes())
    if content is None:
        (path / name).unlink()
    else:
        (path / name).write_bytes(content)
    with pytest.raises(ModelNotFound, match=message):
        load(path)


def test_another_models_tokenizer_is_noticed(folders: dict[str, Path], tmp_path: Path) -> None:
    """A tokenizer with tokens that the model does not know is refused before any question."""
    path = tmp_path / "mixed"
    path.mkdir()
    for source in folders["llama"].iterdir():
        (path / source.name).write_bytes(source.read_bytes())
    larger = make_tokenizer()
    larger.add_tokens([f"word{n}" for n in range(50)])
    found = json.loads((path / "tokenizer.json").read_text())
    words = found["model"]["vocab"]
    words.update({f"word{n}": len(larger) + n for n in range(50)})
    (path / "tokenizer.json").write_text(json.dumps(found))
    with pytest.raises(ModelNotFound, match=r"tokenizer in .* and the model"):
        load(path)


def test_a_checkpoint_without_a_tokenizer_is_named(
    folders: dict[str, Path], tmp_path: Path
) -> None:
    """Weights alone are no policy."""
    path = tmp_path / "bare"
    path.mkdir()
    for name in ("config.json", "model.safetensors"):
        (path / name).write_bytes((folders["llama"] / name).read_bytes())
    with pytest.raises(ModelNotFound, match="bare"):
        load(path)


def test_pickled_weights_are_not_read(folders: dict[str, Path], tmp_path: Path) -> None:
    """A folder with a pickle beside its configuration is refused by name, unopened."""
    path = tmp_path / "pickled"
    path.mkdir()
    for source in folders["llama"].iterdir():
        if source.suffix != ".safetensors":
            (path / source.name).write_bytes(source.read_bytes())
    (path / "pytorch_model.bin").write_bytes(b"cos\nsystem\n(S'exit 1'\ntR.")
    with pytest.raises(ModelNotFound, match="pickled weights are not read"):
        load(path)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"dtype": "int4"}, "float32, bfloat16, float16"),
        ({"device": "warp"}, r"policy\.device"),
        ({"model": ""}, r"policy\.model"),
    ],
)
def test_a_wrong_setting_is_named(
    folders: dict[str, Path], settings: dict[str, Any], message: str
) -> None:
    """Dtype, device and model are checked when the policy is built."""
    with pytest.raises(ConfigError, match=message):
        load(settings.pop("model", folders["llama"]), **settings)


def test_a_processor_without_half_precision_gets_none(folders: dict[str, Path]) -> None:
    """Left to itself, the dtype is the device's: float32 where there is no graphics card."""
    assert load(folders["llama"]).card.dtype == "float32"


def test_bfloat16_answers(folders: dict[str, Path]) -> None:
    """A smaller dtype is used as told and named in the card."""
    policy = load(folders["llama"], dtype="bfloat16")
    assert policy.card.dtype == "bfloat16"
    assert sum(len(d.token_ids) for d in run(policy, ask(), max_tokens=4)) > 0
