from __future__ import annotations

from pathlib import Path

import pytest

from assistant.config import PRESETS, load
from assistant.errors import ConfigError


def toml(folder: Path, text: str) -> Path:
    """Write a settings file."""
    path = folder / "settings.toml"
    path.write_text(text, encoding="utf-8")
    return path


def refusal(**arguments: object) -> str:
    """Return the message with which settings are refused."""
    with pytest.raises(ConfigError) as caught:
        load(**arguments)  # type: ignore[arg-type]
    return str(caught.value)


def test_each_source_of_settings_wins_over_the_one_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Default < preset < file < environment < command line."""
    said = [load().policy.max_tokens]
    file = toml(tmp_path, "[policy]\nmax_tokens = 11\n")
    said.append(load(file=file).policy.max_tokens)
    monkeypatch.setenv("PLUMBLINE_POLICY__MAX_TOKENS", "12")
    said.append(load(file=file).policy.max_tokens)
    said.append(load(file=file, overrides={"policy.max_tokens": "13"}).policy.max_tokens)
    assert said == [512, 11, 12, 13]


def test_a_preset_wins_over_defaults_and_a_file_over_the_preset(tmp_path: Path) -> None:
    """A file is laid over the preset, key by key."""
    file = toml(tmp_path, '[policy]\nbackend = "echo"\n[memory]\nmax_turns = 3\n')
    settings = load("embedded", file)
    got = (settings.policy.backend, settings.memory.max_turns, settings.memory.window_tokens)
    assert got == ("echo", 3, 1200)


def test_a_sibling_of_an_overridden_key_keeps_its_value(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every source sets its own keys and leaves the others to the sources below."""
    file = toml(tmp_path, '[policy]\nmodel = "a"\nurl = "b"\nbackend = "remote"\n')
    monkeypatch.setenv("PLUMBLINE_POLICY__URL", "c")
    policy = load(file=file, overrides={"policy.backend": "echo"}).policy
    assert (policy.model, policy.url, policy.backend) == ("a", "c", "echo")


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        ("policy.bakend", "no setting 'policy.bakend'; did you mean 'backend'?"),
        ("polcy.backend", "no setting 'polcy.backend'; did you mean 'policy'?"),
        ("serve.prot", "no setting 'serve.prot'; did you mean 'port'?"),
        ("retrieval.embed.bakend", "no setting 'retrieval.embed.bakend'; did you mean 'backend'?"),
        ("hom", "no setting 'hom'; did you mean 'home'?"),
    ],
)
def test_an_unknown_key_names_the_nearest_known_one(key: str, expected: str) -> None:
    """A slip on the command line is answered with what was meant."""
    assert refusal(overrides={key: "1"}) == expected


def test_an_unknown_key_of_a_file_names_the_nearest_known_one(tmp_path: Path) -> None:
    """The same holds at any depth of a file."""
    file = toml(tmp_path, "[retrieval.embed]\nbatchsize = 3\n")
    expected = "no setting 'retrieval.embed.batchsize'; did you mean 'batch_size'?"
    assert refusal(file=file) == expected


@pytest.mark.parametrize(
    ("variable", "expected"),
    [
        ("PLUMBLINE_POLICY__BAKEND", "no setting 'policy.bakend'; did you mean 'backend'?"),
        (
            "PLUMBLINE_POLCY__BACKEND",
            "no setting 'polcy' (variable PLUMBLINE_POLCY__BACKEND); did you mean 'policy'?",
        ),
    ],
)
def test_an_unknown_variable_names_the_nearest_known_key(
    variable: str, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A slip in the environment is not passed over in silence."""
    monkeypatch.setenv(variable, "echo")
    assert refusal() == expected


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("policy.temperature", "5"),
        ("policy.max_tokens", "many"),
        ("policy.unsupported", "keep"),
        ("serve.port", "70000"),
        ("docs", "perhaps"),
        ("memory.max_turns", "-1"),
    ],
)
def test_a_bad_value_names_key_and_value(key: str, value: str) -> None:
    """Who reads the message knows what to change."""
    said = refusal(overrides={key: value})
    assert (f"setting {key!r}: " in said, f"(got {value!r})" in said) == (True, True)


def test_every_mistake_of_a_file_is_named_at_once(tmp_path: Path) -> None:
    """Two slips take one attempt to find."""
    file = toml(tmp_path, "[policy]\ntop_p = 2.0\nretries = 99\n")
    said = refusal(file=file)
    assert [key in said for key in ("'policy.top_p'", "'policy.retries'")] == [True, True]


@pytest.mark.parametrize("how", ["repr", "str", "dump"])
def test_a_secret_never_shows(how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A key in the settings does not reach a log by way of their representation."""
    monkeypatch.setenv("PLUMBLINE_POLICY__API_KEY", "sk-verysecret")
    settings = load(overrides={"serve.port": "0"})
    shown = {"repr": repr(settings), "str": str(settings), "dump": settings.model_dump_json()}
    got = ("verysecret" in shown[how], settings.policy.api_key.get_secret_value())
    assert got == (False, "sk-verysecret")


def test_a_malformed_secret_does_not_show_either(tmp_path: Path) -> None:
    """The message on a bad value leaves a secret's value out."""
    file = toml(tmp_path, "[policy]\napi_key = 31415926\n")
    assert "31415926" not in refusal(file=file)


def test_a_missing_preset_names_those_there_are() -> None:
    """A preset that does not exist is answered with the list of those that do."""
    known = ", ".join(sorted(path.stem for path in PRESETS.glob("*.toml")))
    assert refusal(preset="embeded") == f"no preset 'embeded'; there are: {known}"


@pytest.mark.parametrize("text", ["[policy\n", "= 1\n"])
def test_a_file_that_is_no_toml_is_named(text: str, tmp_path: Path) -> None:
    """A broken file is a setting error with the file's name."""
    file = toml(tmp_path, text)
    assert refusal(file=file).startswith(f"cannot read settings from {file}: ")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    """So is one that does not exist."""
    file = tmp_path / "none.toml"
    assert refusal(file=file).startswith(f"cannot read settings from {file}: ")


def test_a_byte_order_mark_is_no_mistake(tmp_path: Path) -> None:
    """A file saved by a Windows editor reads like any other."""
    file = toml(tmp_path, '\ufeff[policy]\nbackend = "echo"\n')
    assert load(file=file).policy.backend == "echo"


def test_a_variable_that_is_no_json_is_a_setting_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """A whole section given as a variable must be JSON; else the section is named."""
    monkeypatch.setenv("PLUMBLINE_POLICY", "{echo")
    assert '"policy"' in refusal()


@pytest.mark.parametrize("value", ["rules,other", "rules, other", '["rules", "other"]'])
def test_a_list_can_be_given_on_the_command_line(value: str) -> None:
    """Names are separated by commas, with or without TOML's brackets."""
    settings = load(overrides={"safety.moderators": value})
    assert settings.safety.moderators == ("rules", "other")


def test_the_tilde_is_the_users_home(tmp_path: Path) -> None:
    """A file may say `~`, which no shell replaces there."""
    file = toml(tmp_path, 'home = "~/answers"\n')
    assert load(file=file).home == Path.home() / "answers"


def test_settings_do_not_change() -> None:
    """What was read stays as it was read."""
    settings = load()
    with pytest.raises(ValueError, match="frozen"):
        settings.policy.backend = "echo"  # type: ignore[misc]
    assert settings.policy.backend == "extract"


@pytest.mark.parametrize(
    ("word", "backend", "model", "url"),
    [
        ("extract", "extract", "", ""),
        ("quote", "quote", "", ""),
        ("hf:Qwen/Qwen3-4B", "local", "Qwen/Qwen3-4B", ""),
        ("hf:C:/models/qwen", "local", "C:/models/qwen", ""),
        ("openai:http://h:1/v1#org/m:latest", "remote", "org/m:latest", "http://h:1/v1"),
        ("langchain:ollama:qwen3:4b", "langchain", "ollama:qwen3:4b", ""),
        (" extract ", "extract", "", ""),
    ],
)
def test_one_word_names_the_policy(
    word: str, backend: str, model: str, url: str, tmp_path: Path
) -> None:
    """All that says who answers is set by it; nothing of another policy's settings remains."""
    file = toml(tmp_path, '[policy]\nbackend = "remote"\nmodel = "a"\nurl = "b"\nadapter = "c"\n')
    policy = load(file=file, policy=word).policy
    assert (policy.backend, policy.model, policy.url) == (backend, model, url)
    assert policy.adapter == ""


def test_a_setting_goes_before_the_word() -> None:
    """What is set by its own name stays so."""
    policy = load(overrides={"policy.adapter": "lora"}, policy="hf:m").policy
    assert (policy.model, policy.adapter) == ("m", "lora")


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("hf:", "'hf:' is incomplete; write hf:NAME"),
        ("openai:http://h/v1", "write openai:URL#MODEL"),
        ("openai:#m", "write openai:URL#MODEL"),
        ("langchain:openai", "write langchain:PROVIDER:MODEL"),
        ("langchain:openai: ", "write langchain:PROVIDER:MODEL"),
        ("langchain", "write langchain:PROVIDER:MODEL"),
        ("local", "'local' names no model; write hf:NAME"),
        ("remote", "openai:URL#MODEL"),
        ("ollama:qwen3", "'ollama:qwen3' is of no known kind; write hf:NAME"),
        (":m", "no known kind"),
        (" ", "no known kind"),
    ],
)
def test_a_word_that_names_no_policy_is_explained(word: str, said: str) -> None:
    """The message holds the word, what is wrong with it, and how to write it."""
    message = refusal(policy=word)
    assert said in message
    assert repr(word) in message
