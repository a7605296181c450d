from __future__ import annotations

import json
from contextlib import closing
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import LlamaConfig, LlamaForCausalLM

from assistant.build import build_policy
from assistant.config import GateSettings, PolicySettings, Settings, TrainSettings
from assistant.policy._promoted import settings_of, verify
from assistant.prompt import ABSTAIN
from assistant.schema import Sampling
from retrieval.config import EmbedSettings, RerankSettings, RetrievalSettings
from retrieval.knowledge import open_knowledge
from rlhf import _loop_status as status
from rlhf._loop_reward import CORRECT
from rlhf._loop_written import Written, of_lesson
from rlhf.errors import TrainingError
from rlhf.fit._causal import Writing
from rlhf.fit._pupils import Writes
from rlhf.fit.loop import run
from rlhf.preferences import PreferenceStore
from rlhf.registry import Registry
from rlhf.reward import WEIGHTS
from safety.config import SafetySettings
from tests.assistant.policies import make_tokenizer
from tests.rlhf.conftest import make_record
from tests.rlhf.cycle_parts import lesson
from tests.rlhf.lessons_made import put
from tests.rlhf.test_fit_pretrain import data as texts
from tests.rlhf.test_fit_sft import data

__all__ = ["data", "texts"]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random checkpoint of the hub's shape, with room for a prompt with its passages."""
    folder, tokenizer = tmp_path_factory.mktemp("hub"), make_tokenizer()
    torch.manual_seed(3)
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=48, num_hidden_layers=2,
        num_attention_heads=2, num_key_value_heads=2, max_position_embeddings=4096,
        eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id,
        bos_token_id=None, initializer_range=0.1,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def settings(home: Path, model: Path, **values: object) -> Settings:
    """An assistant whose answers that model writes, and a short run."""
    retrieval = RetrievalSettings(
        embed=EmbedSettings(backend="hashing"), rerank=RerankSettings(backend="none")
    )
    train = {"lessons": 40, "held": 4, "updates": 1, "episodes": 8, "answer_tokens": 8}
    return Settings(
        home=home,
        retrieval=retrieval,
        policy=PolicySettings(
            backend="local", model=str(model), support="words", context_tokens=4096
        ),
        safety=SafetySettings(moderators=("rules",)),
        train=TrainSettings.model_validate({**train, **values}),
        gates=GateSettings(least=2, rounds=200),
    )


@pytest.mark.parametrize("rank", [4, 0])
def test_the_same_command_trains_a_model_that_writes(
    data: Path, texts: Path, model: Path, tmp_path: Path, rank: int
) -> None:
    """By LoRA or whole, with plain text mixed in: the candidate is served as any other is."""
    home = tmp_path / "home"
    if not (data / "text").exists():
        (data / "text").symlink_to(texts / "text")
    store = PreferenceStore(home / "preferences.db")
    for number in range(12):
        store.add_turn(make_record(f"t{number}", f"c{number}", f"user{number}"))
    store.close()
    own = settings(home, model, adapter_rank=rank, pretraining=0.5)
    put(data, own)
    lines = list(run(data, tmp_path / "models" / "loop", None, own))
    (entry,) = Registry(home).entries()
    assert entry.manifest is not None
    named = {gate.name: gate for gate in entry.manifest.gates}
    assert named["modelling"].n > 0
    assert named["kl"].value is not None
    assert any("prompts to learn on" in line and " 0 of them users'" not in line for line in lines)
    (update,) = status.lines(status.runs(home)[0] / status.UPDATES)
    assert update["pretraining_loss"] > 0
    assert {"right", "wrong", "made_up"} <= update["terms"].keys()
    root = home / "policies"
    passport, _ = verify(root, entry.id)
    files = set(passport.files)
    assert ("adapter_model.safetensors" in files) == bool(rank)
    assert ("model.safetensors" in files) == (not rank)
    promoted = settings_of(passport, root / entry.id, own)
    with closing(open_knowledge(home, own.retrieval)) as knowledge:
        policy = build_policy(promoted, knowledge)
        task = of_lesson(lesson(1), Writing(own.policy, own.train).speech)
        assert task is not None
        deltas = [*policy.stream(task.prompt(), Sampling(max_tokens=6))]
        policy.close()
    assert deltas[-1].finish in ("stop", "length", "abstain")


def test_what_is_measured_is_what_was_written(model: Path, tmp_path: Path) -> None:
    """Weights are read back from the files, and the one before answers as it did."""
    own = settings(tmp_path, model, adapter_rank=4)
    pupil = Writing(own.policy, own.train)
    task = of_lesson(lesson(1), pupil.speech)
    assert task is not None
    before = pupil.before().answer(task)
    with torch.no_grad():
        for parameter in pupil.actor.policy.values():
            parameter.add_(torch.randn(parameter.shape) * 0.3)
    pupil.save(tmp_path / "out")
    kept = {name: p.detach().clone() for name, p in pupil.actor.policy.items()}
    after = pupil.side(tmp_path / "out").answer(task)
    with torch.no_grad():
        for parameter in pupil.actor.policy.values():
            parameter.zero_()
    pupil.take_over(tmp_path / "out")
    assert all(torch.equal(kept[name], p) for name, p in pupil.actor.policy.items())
    assert pupil.side(tmp_path / "out").answer(task) == after
    assert pupil.before().answer(task) == before
    assert before != after
    assert load_file(tmp_path / "out" / "adapter_model.safetensors")


def test_an_adapter_that_is_there_already_is_refused(model: Path, tmp_path: Path) -> None:
    """A candidate is one adapter over the model that the settings name."""
    own = settings(tmp_path, model)
    laid = own.policy.model_copy(update={"adapter": "somewhere"})
    with pytest.raises(TrainingError, match="merge the adapter"):
        Writing(laid, own.train)


def test_an_answer_is_right_where_it_says_one_that_is_known(model: Path, tmp_path: Path) -> None:
    """Case and blanks aside; to abstain is right where there is none, and wrong where there is."""
    own = settings(tmp_path, model)
    speech = Writing(own.policy, own.train).speech
    there, gone = of_lesson(lesson(1), speech), of_lesson(lesson(2, right=()), speech)
    assert isinstance(there, Written)
    assert isinstance(gone, Written)
    assert [there.correct(x) for x in ("It is 3  HOURS [1].", "No.", ABSTAIN)] == [1.0, 0.0, 0.0]
    assert [gone.correct(x) for x in ("3 hours [1].", ABSTAIN)] == [0.0, 1.0]
    assert [row["number"] for row in there.shown("3 hours [1].")] == [1]
    stop = next(iter(speech.stops))
    assert there.allowed((5, 6)) is None
    assert there.allowed((5, stop)) == ()
    assert there.ended((5, stop))
    assert json.dumps(there.shown("3 hours [1]."))


def test_a_lesson_whose_passages_do_not_fit_is_left_out(model: Path, tmp_path: Path) -> None:
    """What answers would be cut off, and the label would be wrong."""
    own = settings(tmp_path, model)
    short = own.policy.model_copy(update={"context_tokens": 256})
    assert of_lesson(lesson(1), Writing(short, own.train).speech) is None


def test_d2_an_answer_that_is_cut_off_is_worth_less_than_a_wrong_one(
    model: Path, tmp_path: Path
) -> None:
    """Else a model would rather run on than say something that is wrong."""
    own = settings(tmp_path, model)
    least = Writes(Writing(own.policy, own.train)).ppo["missing_end"]
    wrong = CORRECT["wrong"] + WEIGHTS["length"] + WEIGHTS["format"]
    assert least < wrong - 1.645 * WEIGHTS["preference"]  # of mean 0 and deviation 1
