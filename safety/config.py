"""Settings of safety."""

from __future__ import annotations

from typing import Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, SecretStr, model_validator

PersonalKind = Literal[
    "secret",
    "email",
    "phone",
    "resident_id",
    "card",
    "passport",
    "iban",
    "ip",
    "ssn",
    "person",
    "place",
]


class SafetySettings(BaseModel):
    """Which moderators judge, and where their decisions are written."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    moderators: tuple[str, ...] = Field(
        ("rules", "classifier"), description="files of safety/moderator/"
    )
    policy: str = Field(
        "default", description="levels of the classifier: a file of safety/packs/, or a path"
    )
    locale: str = Field("", description="region whose crisis lines are named, '' = by language")
    audit: bool = Field(True, description="write the hash-chained audit log")
    audit_allowed: bool = Field(False, description="audit decisions that allow the text too")
    audit_sync: bool = Field(True, description="fsync each audit append, so power loss keeps it")
    keep_texts_days: int = Field(
        0, ge=0, description="days that the text of a stopped input is kept for an appeal"
    )
    seconds: float = Field(5.0, gt=0, description="time one judgement may take, seconds")
    turns: int = Field(6, ge=0, description="earlier user texts weighed with the current one")
    cache: int = Field(4096, ge=0, description="verdicts remembered by text hash, rows")
    verdicts: int = Field(
        500_000, ge=0, description="verdicts on passages kept on disk by text hash, rows"
    )
    pii_mask: tuple[PersonalKind, ...] = Field(
        ("secret", "resident_id", "card"),
        description="kinds of personal data masked in answers, quotes and passages",
    )
    pii_block: tuple[PersonalKind, ...] = Field(
        (), description="kinds of personal data for which a sentence of an answer is stopped"
    )
    pii_logs: tuple[PersonalKind, ...] = Field(
        get_args(PersonalKind), description="kinds masked in logs and in redacted texts"
    )
    pii_regions: tuple[str, ...] = Field(
        ("CN", "US", "GB"), description="regions whose phone numbers are known without a +"
    )
    pii_presidio: tuple[str, ...] = Field(
        (), description="spaCy models with which Presidio looks for names too, language:model"
    )
    second: tuple[str, ...] = Field(
        (), description="moderators asked about texts that the first ones are not sure of"
    )
    second_always: bool = Field(False, description="ask the second moderators about every text")
    second_fails: Literal["closed", "open"] = Field(
        "closed", description="a grey text without a second opinion is stopped, or left as it was"
    )
    second_seconds: float = Field(
        20.0, gt=0, description="time one judgement of a second moderator may take, seconds"
    )
    guard_model: str = Field("", description="guard model: a folder, or the endpoint's model name")
    guard_url: str = Field("", description="base URL of the endpoint of openai and chat_guard")
    guard_key: SecretStr = Field(SecretStr(""), description="key of that endpoint")
    guard_family: Literal["qwen3guard", "llamaguard", "shieldgemma", "granite"] = Field(
        "qwen3guard", description="which guard model chat_guard talks to"
    )
    guard_device: str = Field("auto", description="torch device of a guard model")
    guard_low: float = Field(0.3, ge=0, le=1, description="a guard's score below it is safe")
    guard_high: float = Field(0.7, ge=0, le=1, description="a guard's score from it on is unsafe")
    guard_unsure: Literal["stop", "pass"] = Field(
        "stop", description="how a guard's unsure judgement is read, such as controversial"
    )
    guard_ignored: tuple[str, ...] = Field(
        ("S6", "S13"), description="MLCommons hazards for which a guard stops nothing"
    )

    @model_validator(mode="after")
    def _ordered(self) -> SafetySettings:
        if self.guard_low > self.guard_high:
            raise ValueError(
                f"guard_low={self.guard_low} is above guard_high={self.guard_high}; the grey band "
                "lies between them"
            )
        return self
