"""Settings of safety."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class SafetySettings(BaseModel):
    """Which moderators judge, and where their decisions are written."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    moderators: tuple[str, ...] = Field(("rules",), description="files of safety/moderator/")
    locale: str = Field("", description="region whose crisis lines are named, '' = by language")
    audit: bool = Field(True, description="write the hash-chained audit log")
    audit_allowed: bool = Field(False, description="audit decisions that allow the text too")
    audit_sync: bool = Field(True, description="fsync each audit append, so power loss keeps it")
    seconds: float = Field(5.0, gt=0, description="time one judgement may take, seconds")
    turns: int = Field(6, ge=0, description="earlier user texts weighed with the current one")
    cache: int = Field(4096, ge=0, description="verdicts remembered by text hash, rows")
