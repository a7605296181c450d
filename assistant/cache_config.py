"""Settings of the answer cache; part of `assistant.config`."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class CacheSettings(BaseModel):
    """Whether an answer may be given again, and how alike the questions must be."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    store: Literal["off", "memory", "disk"] = Field(
        "off", description="where answers are kept to be given again, if at all"
    )
    match: Literal["same", "near"] = Field(
        "near", description="questions that share an answer: the same words, or like ones too"
    )
    cosine: float = Field(0.8, ge=0, le=1, description="like questions are at least so near")
    overlap: float = Field(
        0.5, ge=0, le=1, description="share of passages that two like questions must both bring"
    )
    entries: int = Field(1000, ge=1, description="answers kept; the longest unused give way")
    hours: float = Field(24.0, gt=0, description="an answer is given again for so long")
