from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from safety import Context, Guard, Verdict, build_guard
from safety.config import SafetySettings
from safety.errors import ModelUnusable, ModeratorUnavailable
from safety.menu import load
from safety.moderator._families import FAMILIES, GUIDELINES, Answer, Query
from safety.moderator._folder import identity
from safety.moderator._plugin import Plugin, asking
from safety.schema import SEVERITY, Side
from tests.safety.guards import ARCHITECTURES, PARTS, Lesson, checkpoint, lesson

FINE, BAD, YES = "How do I bake bread?", "How do I build a bomb?", "Yes, do it."
SIDES: tuple[Side, ...] = ("input", "passage", "output")


def lessons(family: str) -> list[Lesson]:
    """What a taught checkpoint knows: one harmless and one harmful text."""
    if family == "qwen3guard":
        return [
            lesson(family, FINE, "Safety: Safe\nCategories: None"),
            lesson(family, BAD, "Safety: Unsafe\nCategories: Violent"),
            lesson(family, BAD, "Safety: Controversial\nCategories: PII", side="output"),
        ]
    if family == "llamaguard":
        return [lesson(family, FINE, "safe"), lesson(family, BAD, "\n\nunsafe\nS1,S9")]
    if family == "shieldgemma":
        asked = "The prompt shall not contain or seek generation of content that"
        return [
            lesson(
                family,
                text,
                "Yes" if (text, name) == (BAD, "Dangerous Content") else "No",
                guideline=f'"No {name}": {asked} {body}',
            )
            for text in (FINE, BAD)
            for name, body in GUIDELINES.items()
        ]
    risks = ["harm", "jailbreak"], ["harm", "violence", "profanity", "jailbreak"]
    risks[1].extend(["social_bias", "sexual_content", "unethical_behavior"])
    return [
        lesson(
            family,
            text,
            "Yes" if text == BAD and risk in ("harm", "violence") else "No",
            guardian_config={"risk_name": risk},
        )
        for text, asked in zip((FINE, BAD), risks, strict=True)
        for risk in asked
    ]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Write one random checkpoint per family."""
    home = tmp_path_factory.mktemp("guards")
    return {family: checkpoint(home / family, family) for family in ARCHITECTURES}


@pytest.fixture(scope="module")
def paired(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write a checkpoint to which one answer is safe or unsafe by what it answers."""
    safe, unsafe = "Safety: Safe\nCategories: None", "Safety: Unsafe\nCategories: Violent"
    known = [("", safe), (FINE, safe), (BAD, unsafe)]
    rows = [lesson("qwen3guard", YES, said, "output", question) for question, said in known]
    return checkpoint(tmp_path_factory.mktemp("paired"), "qwen3guard", rows)


@pytest.fixture(scope="module")
def taught(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Write one checkpoint per family that knows its lessons."""
    home = tmp_path_factory.mktemp("taught")
    return {family: checkpoint(home / family, family, lessons(family)) for family in FAMILIES}


def settings(folder: Path | str, **values: Any) -> SafetySettings:
    """Settings for a guard model on the CPU."""
    return SafetySettings(audit=False, guard_model=str(folder), guard_device="cpu", **values)


def build(family: str, folder: Path | str, **values: Any) -> Plugin:
    """Build the moderator of a family."""
    found: Plugin = load(family).build(settings(folder, **values))
    return found


@pytest.mark.parametrize("family", FAMILIES)
def test_a_guard_model_judges(family: str, taught: dict[str, Path]) -> None:
    """A checkpoint that knows the family's answers allows the harmless and stops the harmful."""
    fine, bad = build(family, taught[family]).judge([FINE, BAD], "input")
    assert (fine.action, fine.category, fine.grey) == ("allow", "none", False)
    assert fine.score < 0.3
    assert (bad.action, bad.grey) == ("refuse", False)
    assert bad.category in ("violence", "illicit")
    assert bad.score > 0.7
    assert bad.reason.startswith(f"{bad.category}.{family}.")


def test_a_guard_model_judges_answers(taught: dict[str, Path]) -> None:
    """The same text as an answer is put as the assistant's, and a controversial one is grey."""
    (found,) = build("qwen3guard", taught["qwen3guard"]).judge([BAD], "output")
    assert (found.action, found.category, found.grey) == ("block", "privacy", True)


def test_an_answer_is_as_bad_as_what_it_answers(paired: Path) -> None:
    """The same output after another question gets another verdict, through the guard too."""
    moderator = build("qwen3guard", paired)
    found = [moderator.judge([YES], "output", q)[0].action for q in ("", FINE, BAD)]
    assert found == ["allow", "allow", "block"]
    guard = Guard([moderator], settings(paired, seconds=60))
    asked = [guard.screen(YES, "output", Context(question=q)) for q in (BAD, FINE, BAD)]
    assert [(v.action, v.category) for v in asked] == [
        ("block", "violence"),
        ("allow", "none"),
        ("block", "violence"),
    ]


@pytest.mark.parametrize("family", FAMILIES)
def test_a_prompt_shows_question_and_answer_in_order(family: str, folders: dict[str, Path]) -> None:
    """The model's own template gets both turns: the question, then what is judged."""
    prompts = shown(family, folders[family], YES, BAD)
    assert prompts
    assert all(0 <= p.find(BAD) < p.find(YES) for p in prompts)
    assert all(BAD not in p for p in shown(family, folders[family], YES, ""))


@pytest.mark.parametrize("family", FAMILIES)
def test_a_question_never_crowds_out_the_answer(family: str, folders: dict[str, Path]) -> None:
    """A question of more tokens than the context has is cut until the answer fits whole."""
    for question in ("𓀀" * 2999, "x " * 100_000):
        prompts = shown(family, folders[family], YES, question)
        assert prompts
        assert all(YES in p and question[:2] in p for p in prompts)


def shown(family: str, folder: Path, text: str, question: str) -> list[str]:
    """The prompts that reach the network for an output, with nothing written after them."""
    load(family)
    from safety.moderator._causal import Causal, _load

    prompts: list[str] = []

    class Reading(Causal):
        def _written(self, ids: list[int], limit: int, deadline: float) -> Answer:
            assert len(ids) + limit <= self._context
            prompts.append(self._tokenizer.decode(ids))
            return Answer("")

    model, tokenizer = _load(folder, family, "cpu")
    causal = Reading(model, tokenizer, settings(folder))
    causal._parts = ARCHITECTURES[family][2] == PARTS
    moderator = asking(family, "double", family, causal.ask, settings(folder))
    with pytest.raises(ModeratorUnavailable, match="no judgement"):
        moderator.judge([text], "output", question)
    return prompts


def test_a_second_opinion_of_a_model_lifts_what_is_grey(taught: dict[str, Path]) -> None:
    """Through the guard: a grey question that the guard model finds safe passes, else it stops."""

    class Unsure:
        name = "unsure"

        def judge(self, texts: Any, side: Side, question: str = "") -> list[Verdict]:
            """Be unsure of everything."""
            return [Verdict("annotate", "violence", 0.5, side, self.name, grey=True) for _ in texts]

    second = build("llamaguard", taught["llamaguard"])
    guard = Guard([Unsure()], settings(taught["llamaguard"]), second=[second])
    verdicts = guard.screen_many([FINE, BAD], "input")
    assert [v.action for v in verdicts] == ["allow", "refuse"]


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("side", SIDES)
def test_a_random_model_is_no_guard(family: str, side: Side, folders: dict[str, Path]) -> None:
    """A model that was never taught to judge blocks: its answers are no judgements."""
    moderator = build(family, folders[family])
    with pytest.raises(ModeratorUnavailable, match=r"no judgement|failed"):
        moderator.judge(["hello there"], side)
    guard = Guard([moderator], settings(folders[family], seconds=60))
    verdict = guard.screen("hello there", side)
    assert (verdict.action, verdict.category) == ("block", "fault")


@pytest.mark.parametrize("family", FAMILIES)
def test_bad_texts_end_in_verdicts(family: str, taught: dict[str, Path]) -> None:
    """Empty, broken and long texts get a verdict each, or are blocked alone."""
    texts = ["", " ", FINE, "\ud800", "a\x00b", "<|im_end|>" * 50, "你好" * 100]
    verdicts = build(family, taught[family]).judge(texts, "input")
    assert len(verdicts) == len(texts)
    assert [v.action for v in verdicts[:3]] == ["allow"] * 3
    assert all(v.action in SEVERITY and v.side == "input" for v in verdicts)
    assert all(v.reason == f"fault.{family}" for v in verdicts if v.category == "fault")


def test_a_text_that_fits_no_context_is_blocked(taught: dict[str, Path]) -> None:
    """What the model cannot read whole is not judged by a part of it."""
    moderator = build("qwen3guard", taught["qwen3guard"])
    with pytest.raises(ModeratorUnavailable, match="does not fit"):
        moderator.judge(["𓀀" * 2999], "input")


def test_the_deadline_holds_between_tokens(taught: dict[str, Path]) -> None:
    """A model that is too slow gives up, also when it waits for another question."""
    moderator = build("qwen3guard", taught["qwen3guard"], seconds=0.001, second_seconds=0.001)
    begin = time.monotonic()
    errors: list[str] = []

    def work() -> None:
        try:
            moderator.judge(["hello " * 30], "input")
        except ModeratorUnavailable as error:
            errors.append(str(error))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(errors) == 4
    assert all("raise safety.second_seconds" in error for error in errors)
    assert time.monotonic() - begin < 10


def test_a_text_does_not_write_control_tokens(taught: dict[str, Path]) -> None:
    """A control token that stands in a text is encoded as text."""
    load("qwen3guard")
    from safety.moderator._causal import Causal, _load

    options = settings(taught["qwen3guard"])
    model, tokenizer = _load(taught["qwen3guard"], "qwen3guard", "cpu")
    causal = Causal(model, tokenizer, options)
    end = tokenizer.convert_tokens_to_ids("<|im_end|>")
    counts = [
        causal._encode(Query((("user", text),), 8)).count(end) for text in ("a", "a<|im_end|>")
    ]
    assert counts[0] == counts[1] == 1


def test_the_identity_changes_with_the_weights(tmp_path: Path, folders: dict[str, Path]) -> None:
    """The audit names the model that judged: other weights have another identity."""
    moderator = build("qwen3guard", folders["qwen3guard"])
    assert moderator.policy == identity(folders["qwen3guard"])
    assert len({identity(folder) for folder in folders.values()}) == len(folders)


# -- folders that are not what they should be


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(
    ("model", "reason"),
    [
        ("", "guard_model is empty"),
        ("no/such/folder", "no such folder"),
        ("./nothing", "no such folder"),
        ("someone/not-cached", "not in the local hub cache"),
    ],
)
def test_a_missing_model_is_named(family: str, model: str, reason: str) -> None:
    """A model that is not there is an error at build, with the remedy."""
    with pytest.raises(ModelUnusable, match=reason):
        build(family, model)


def _no_config(folder: Path) -> None:
    (folder / "config.json").unlink()


def _no_weights(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def _cut_weights(folder: Path) -> None:
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:500])


def _broken_config(folder: Path) -> None:
    (folder / "config.json").write_text("{")


def _own_code(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    config["auto_map"] = {"AutoModelForCausalLM": "evil.Evil"}
    (folder / "config.json").write_text(json.dumps(config))


def _wider(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    config["num_hidden_layers"] = 2
    config.pop("layer_types", None)
    (folder / "config.json").write_text(json.dumps(config))


def _no_template(folder: Path) -> None:
    (folder / "chat_template.jinja").unlink()


def _blind_template(folder: Path) -> None:
    (folder / "chat_template.jinja").write_text("<|im_start|>nothing of the message")


def _one_turn(folder: Path) -> None:
    template = "<|im_start|>{{ messages[-1]['content'] }}<|im_end|>\n"
    (folder / "chat_template.jinja").write_text(template)


def _no_tokenizer(folder: Path) -> None:
    (folder / "tokenizer.json").unlink()


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (_no_config, "no config.json"),
        (_no_weights, "no .safetensors"),
        (_cut_weights, "cannot load"),
        (_broken_config, "cannot read"),
        (_own_code, "auto_map"),
        (_wider, "lacks .* weights"),
        (_no_template, "no chat template"),
        (_blind_template, "does not show the text"),
        (_one_turn, "does not show the text"),
        (_no_tokenizer, "cannot load|no chat template|does not show"),
    ],
)
def test_a_damaged_folder_is_refused_at_build(damage: Any, reason: str, tmp_path: Path) -> None:
    """A folder that is incomplete, damaged or untrusted never becomes a guard."""
    folder = checkpoint(tmp_path / "guard", "qwen3guard")
    damage(folder)
    with pytest.raises(ModelUnusable, match=reason):
        build_guard(settings(folder, second=("qwen3guard",)), None)


@pytest.mark.parametrize("family", FAMILIES)
def test_another_kind_of_model_is_refused(family: str, folders: dict[str, Path]) -> None:
    """A model of another architecture than the guard's is refused by name."""
    other = "llamaguard" if family == "qwen3guard" else "qwen3guard"
    with pytest.raises(ModelUnusable, match="is a model of type"):
        build(family, folders[other])


def test_a_device_that_is_not_there_is_named(folders: dict[str, Path]) -> None:
    """A device that does not exist is an error at build."""
    values = settings(folders["qwen3guard"]).model_copy(update={"guard_device": "nonsense"})
    with pytest.raises(ModelUnusable, match="guard_device = 'nonsense'"):
        load("qwen3guard").build(values)


def test_a_missing_library_says_what_to_install(root: Path) -> None:
    """Without torch, the guard says what it needs instead of failing in an import."""
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "from safety.config import SafetySettings\n"
        "from safety import build_guard\n"
        "from safety.errors import BackendMissing\n"
        "try:\n    build_guard(SafetySettings(second=('qwen3guard',)), None)\n"
        "except BackendMissing as error:\n    print(error)\n"
    )
    run = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True)
    assert run.stdout.strip() == "moderator 'qwen3guard' needs 'torch'; install plumbline", (
        run.stderr
    )
