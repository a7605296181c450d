"""Settings of the whole assistant: default < preset or TOML file < environment < command line.

An environment variable is `PLUMBLINE_` + the path of the field, `__` between levels:
`PLUMBLINE_POLICY__BACKEND=remote`. A preset is a TOML file of presets/, a file of one's own is
given by `--config FILE`. An unknown key is an error that names the nearest known one.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic.fields import FieldInfo
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
)

from assistant._settings import merge, nearest, put, read
from assistant.cache_config import CacheSettings
from assistant.errors import ConfigError
from assistant.server.config import OperationSettings
from retrieval.config import RetrievalSettings
from safety.config import SafetySettings

PRESETS = Path(__file__).resolve().parent.parent / "presets"
PREFIX = "PLUMBLINE_"

#: The kind before the colon of a policy's short name, its backend, and how it is written.
POLICY_KINDS = {
    "hf": ("local", "hf:NAME"),
    "openai": ("remote", "openai:URL#MODEL"),
    "langchain": ("langchain", "langchain:PROVIDER:MODEL"),
}
POLICY_REMEDY = "write {}, {} or {}, or a policy that needs no more, such as extract".format(
    *(form for _, form in POLICY_KINDS.values())
)


class PolicySettings(BaseModel):
    """Which policy answers, and how."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    backend: str = Field("extract", description="a file of assistant/policy/")
    model: str = Field("", description="model name or folder (local, remote, langchain)")
    adapter: str = Field("", description="folder of a LoRA adapter (local)")
    url: str = Field("", description="base URL of the model's endpoint (remote, langchain)")
    api_key: SecretStr = Field(SecretStr(""), description="key of that endpoint")
    device: str = Field("cpu", description="torch device (local)")
    dtype: str = Field("auto", description="auto, float32, bfloat16 or float16 (local)")
    temperature: float = Field(0.0, ge=0, le=2, description="0 = greedy")
    top_p: float = Field(1.0, gt=0, le=1, description="nucleus mass")
    beams: int = Field(
        1, ge=1, le=64, description="answers kept side by side where nothing is drawn (quote)"
    )
    max_tokens: int = Field(512, ge=1, le=32_768, description="new tokens per answer")
    context_tokens: int = Field(4096, ge=256, description="prompt and answer together, tokens")
    cache_tokens: int = Field(
        8192, ge=0, description="tokens of the last prompt kept read for the next one (local)"
    )
    seconds: float = Field(120.0, gt=0, description="one whole generation, seconds")
    connect_seconds: float = Field(5.0, gt=0, description="connecting to the endpoint, seconds")
    retries: int = Field(2, ge=0, le=10, description="retries of a retryable endpoint error")
    passages: int = Field(8, ge=1, le=32, description="passages given as evidence")
    unsupported: Literal["drop", "flag"] = Field(
        "drop", description="what happens to a sentence no cited passage supports"
    )
    support: Literal["trained", "words"] = Field(
        "trained",
        description="what judges written sentences and whether passages answer: heads, or words",
    )
    quarantine: Literal["cut", "drop"] = Field(
        "cut", description="of a passage with planted instructions: drop them, or all of it"
    )
    min_confidence: float = Field(
        -1.0, ge=-1, le=1, description="abstain below this; -1 = the policy's calibrated threshold"
    )
    best_of: int = Field(
        1, ge=1, le=64, description="answers drawn, of which the reward model's best is given"
    )
    follow: bool = Field(True, description="a promoted candidate answers in this policy's place")


class PreferenceSettings(BaseModel):
    """How the preference log is kept, and what of it may be learnt from."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    consent: Literal["asked", "never"] = Field(
        "asked", description="asked: what users allow is trained on; never: nothing is"
    )
    retention_days: float = Field(365.0, gt=0, description="a turn is purged after this, days")
    dev_fraction: float = Field(0.1, ge=0, lt=1, description="users held out for development")
    test_fraction: float = Field(0.1, ge=0, lt=1, description="users held out for the gates")
    split_users: int = Field(
        20, ge=1, description="users met while fewer are known are split by conversation"
    )
    edit_weight: float = Field(
        0.5, gt=0, le=1, description="weight of a pair made from an edit; a pick weighs 1"
    )
    busy_seconds: float = Field(30.0, gt=0, description="wait for another writer, seconds")
    page: int = Field(256, ge=1, description="feedback events read per transaction")

    @model_validator(mode="after")
    def _leaves_training_users(self) -> PreferenceSettings:
        if self.dev_fraction + self.test_fraction >= 1:
            raise ValueError("dev_fraction + test_fraction must stay below 1; lower one of them")
        return self


class PromotionSettings(BaseModel):
    """What the registry of candidates keeps."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    keep: int = Field(5, ge=1, description="candidates kept beside those that answer")
    busy_seconds: float = Field(30.0, gt=0, description="wait for another writer, seconds")


class CanarySettings(BaseModel):
    """When a candidate on trial is promoted or taken back, by the thumbs of its conversations."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    automatic: bool = Field(True, description="each new thumb may decide; else `policy canary`")
    share: float = Field(0.2, gt=0, lt=1, description="conversations that get the candidate")
    alpha: float = Field(0.05, gt=0, lt=0.5, description="chance that any decision is wrong")
    margin: float = Field(
        0.1, ge=0, lt=1, description="promoted once its share of thumbs up is surely no worse"
    )
    least: int = Field(20, ge=1, description="votes on each side before anything is decided")
    most: int = Field(5000, ge=1, description="votes on the candidate after which it is taken back")
    per_user: int = Field(20, ge=1, description="votes of one user that count on each side")


class GateSettings(BaseModel):
    """What a candidate must show on held-out users and prompts; see `rlhf.gates`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    level: float = Field(0.95, gt=0.5, lt=1, description="confidence of the intervals")
    rounds: int = Field(2000, ge=200, description="bootstrap draws")
    least: int = Field(100, ge=2, description="rows below which a gate is not computed")
    win_margin: float = Field(0.0, ge=0, lt=0.5, description="win rate's lower bound may lie below")
    reward_margin: float = Field(0.01, ge=0, description="accuracy the reward model may lose")
    ece: float = Field(0.1, gt=0, le=1, description="calibration error of the reward model at most")
    safety_margin: float = Field(0.01, ge=0, description="violation rate may surely rise by less")
    refusal_margin: float = Field(0.02, ge=0, description="over-refusal may surely rise by less")
    grounded_margin: float = Field(0.02, ge=0, description="groundedness may surely fall by less")
    answers_margin: float = Field(0.02, ge=0, description="accuracy may surely fall by less")
    length_low: float = Field(0.8, gt=0, description="mean length against live, at least")
    length_high: float = Field(1.25, gt=0, description="mean length against live, at most")
    kl: float = Field(10.0, gt=0, description="KL to the reference at most, nats an answer")
    modelling_margin: float = Field(0.05, ge=0, description="loss on plain text may rise, nats")
    optional: tuple[str, ...] = Field(
        ("modelling",), description="gates that may be missing; any other then counts as failed"
    )


class TrainSettings(BaseModel):
    """How a run of `train loop` learns from feedback; see `rlhf.loop`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    data: Path = Field(Path("data"), description="training files of runs begun on the Train page")
    run: str = Field("", description="run to go on with; empty = the last one where broken off")
    method: Literal["ppo", "feedme"] = Field("ppo", description="PPO, or imitate the best answers")
    comparisons: int = Field(2000, ge=1, description="own comparisons for a fresh reward model")
    refit: int = Field(200, ge=1, description="own comparisons to fit the shipped one's head to")
    lessons: int = Field(3000, ge=0, description="questions of the training files to learn on")
    held: int = Field(400, ge=1, description="held-out prompts that the gates look at")
    updates: int = Field(100, ge=1, description="updates of PPO")
    episodes: int = Field(64, ge=8, description="answers drawn for an update")
    answers: int = Field(4, ge=1, description="of these, to one prompt, which is read once")
    rate: float = Field(1.5e-4, gt=0, description="learning rate of the policy")
    kl: float = Field(6.0, gt=0, description="KL that PPO aims at, nats an answer")
    pretraining: float = Field(0.0, ge=0, description="weight of the loss on plain text (PPO-ptx)")
    adapter_rank: int = Field(16, ge=0, description="LoRA rank of a model that writes; 0 = none")
    answer_tokens: int = Field(96, ge=8, description="answers that a model writes, at most")
    seed: int = Field(7, description="of all that is drawn")


class MemorySettings(BaseModel):
    """How much of a conversation is remembered in the prompt."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    window_tokens: int = Field(1200, ge=0, description="history in the prompt, tokens")
    max_turns: int = Field(12, ge=0, description="turns in the prompt at most")
    summary_tokens: int = Field(
        160, ge=0, description="summary of the turns before them, tokens; 0 = none"
    )
    user_facts: bool = Field(False, description="what users say about themselves is remembered")
    facts_tokens: int = Field(120, ge=0, description="those facts in the prompt, tokens")
    max_facts: int = Field(50, ge=1, description="facts kept of a user; the oldest give way")


class ServeSettings(BaseModel):
    """Where the chat listens."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    host: str = Field("127.0.0.1", description="address; other than loopback needs a gateway")
    port: int = Field(7860, ge=0, le=65_535, description="TCP port, 0 = any free one")
    language: str = Field("auto", description="language of the UI: en, zh, or auto (browser)")
    max_upload_mb: int = Field(64, ge=1, description="largest uploaded file, MiB")
    open_browser: bool = Field(True, description="open the page once it is ready")


class ServerSettings(BaseModel):
    """Where the HTTP API listens, and how much of it one key may use."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    host: str = Field("127.0.0.1", description="address; other than loopback needs a key")
    port: int = Field(8000, ge=0, le=65_535, description="TCP port, 0 = any free one")
    url: str = Field("", description="public address for links in citations; else the request's")
    models: tuple[str, ...] = Field((), description="further model names that are answered to")
    workers: int = Field(2, ge=1, le=64, description="answers made at once")
    queue: int = Field(64, ge=0, description="requests that may wait for a worker, of all keys")
    queue_seconds: float = Field(20.0, gt=0, description="a request waits so long at most")
    seconds: float = Field(120.0, gt=0, description="one request from admission to its end")
    send_seconds: float = Field(20.0, gt=0, description="a reader takes nothing for so long")
    key_concurrency: int = Field(8, ge=1, description="requests of one key at once, and waiting")
    user_concurrency: int = Field(4, ge=1, description="of these, of one user the key acts for")
    key_requests: int = Field(120, ge=1, description="requests of one key a minute")
    key_tokens: int = Field(200_000, ge=1, description="tokens of one key a minute")
    max_body_kb: int = Field(1024, ge=1, description="largest JSON body, KiB")
    ui: bool = Field(False, description="the chat is served too, at /ui")
    ui_hours: float = Field(12.0, gt=0, le=720, description="a session of the chat ends after that")
    keep_days: float = Field(90.0, gt=0, description="citations and ids of answers are kept")


class Settings(BaseSettings):
    """Everything that can be set."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, env_nested_delimiter="__", extra="forbid", frozen=True
    )

    home: Path = Field(Path(".plumbline"), description="folder of databases and logs")
    docs: bool = Field(True, description="answer questions on plumbline itself from its own docs")
    retrieval: RetrievalSettings = RetrievalSettings()
    safety: SafetySettings = SafetySettings()
    policy: PolicySettings = PolicySettings()
    preferences: PreferenceSettings = PreferenceSettings()
    promotion: PromotionSettings = PromotionSettings()
    canary: CanarySettings = CanarySettings()
    gates: GateSettings = GateSettings()
    train: TrainSettings = TrainSettings()
    memory: MemorySettings = MemorySettings()
    cache: CacheSettings = CacheSettings()
    serve: ServeSettings = ServeSettings()
    server: ServerSettings = ServerSettings()
    operation: OperationSettings = OperationSettings()

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Only what `load` has merged: the environment must not win over the command line."""
        return (init_settings,)

    @field_validator("home")
    @classmethod
    def _at_home(cls, path: Path) -> Path:
        """`~` is the user's home, also where no shell has replaced it."""
        return path.expanduser()


def load(
    preset: str = "embedded",
    file: Path | None = None,
    overrides: Mapping[str, str] | None = None,
    policy: str = "",
) -> Settings:
    """Read the settings.

    Args:
        preset: name of a file of presets/ (without .toml).
        file: a TOML file of one's own, laid over the preset.
        overrides: dotted keys from the command line, `{"policy.backend": "remote"}`.
        policy: who answers, in one word as `policy_values` takes it; overrides go before it.

    Raises:
        ConfigError: unknown preset, unreadable file, unknown key or a value out of range.
    """
    overrides = {**(policy_values(policy) if policy else {}), **(overrides or {})}
    values = read(_preset_path(preset))
    if file is not None:
        merge(values, read(file))
    merge(values, _environment())
    try:
        settings = Settings(**values)
        if overrides:
            merged = settings.model_dump(mode="python")
            for key, value in overrides.items():
                put(merged, key, value)
            settings = Settings.model_validate(merged)
    except ValidationError as error:
        raise ConfigError(_explain(error)) from error
    return settings


def policy_values(text: str) -> dict[str, str]:
    """The settings that one word for a policy stands for.

    `hf:NAME` (a folder or a hub name), `openai:URL#MODEL`, `langchain:PROVIDER:MODEL`, or the name
    of a policy that needs no more, such as `extract`. All settings that say who answers are given,
    so that nothing of another policy's settings remains, and nothing promoted answers instead.

    Raises:
        ConfigError: a part is missing, or the kind is unknown.
    """
    kind, colon, rest = text.strip().partition(":")
    backend, form = POLICY_KINDS.get(kind, (kind, ""))
    if not kind or (colon and not form):
        raise ConfigError(f"policy {text!r} is of no known kind; {POLICY_REMEDY}")
    if kind in (name for name, _ in POLICY_KINDS.values() if name not in POLICY_KINDS):
        raise ConfigError(f"policy {text!r} names no model; {POLICY_REMEDY}")
    url, _, model = rest.partition("#") if kind == "openai" else ("", "", rest)
    parts = {"openai": (url, model), "langchain": model.partition(":")[::2]}.get(kind, (model,))
    if form and not all(part.strip() for part in parts):
        raise ConfigError(f"policy {text!r} is incomplete; write {form}")
    return {
        "policy.backend": backend,
        "policy.model": model,
        "policy.url": url,
        "policy.adapter": "",
        "policy.follow": "false",  # who is named answers, whatever was promoted
    }


def _preset_path(name: str) -> Path:
    path = PRESETS / f"{name}.toml"
    if not path.is_file():
        known = ", ".join(sorted(p.stem for p in PRESETS.glob("*.toml")))
        raise ConfigError(f"no preset {name!r}; there are: {known}")
    return path


def _environment() -> dict[str, Any]:
    """Values of the PLUMBLINE_ variables, nested like the settings."""
    for name in os.environ:
        if name.upper().startswith(PREFIX):
            key = name[len(PREFIX) :].lower().split("__")[0]
            if key not in Settings.model_fields:
                known = Settings.model_fields
                raise ConfigError(f"no setting {key!r} (variable {name}){nearest(key, known)}")
    try:
        return EnvSettingsSource(Settings)()
    except SettingsError as error:
        raise ConfigError(f"cannot read the {PREFIX} variables: {error}; write JSON") from error


def _explain(error: ValidationError) -> str:
    lines = []
    for item in error.errors():
        where = ".".join(str(part) for part in item["loc"])
        if item["type"] == "extra_forbidden":
            lines.append(f"no setting {where!r}{nearest(where.split('.')[-1], _fields(item))}")
        else:
            lines.append(f"setting {where!r}: {item['msg']}{_got(item)}")
    return "; ".join(lines)


def _got(item: Any) -> str:
    field = _fields(item).get(str(item["loc"][-1]))
    return "" if field and field.annotation is SecretStr else f" (got {item['input']!r})"


def _fields(item: Any) -> Mapping[str, FieldInfo]:
    model: type[BaseModel] = Settings
    for part in item["loc"][:-1]:
        field = model.model_fields.get(str(part))
        kind = field.annotation if field else None
        if not (isinstance(kind, type) and issubclass(kind, BaseModel)):
            break
        model = kind
    return model.model_fields
