"""Settings of running a server; part of `assistant.config`."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class OperationSettings(BaseModel):
    """What an operator sees of the HTTP API, and how it goes down."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    admin_port: int = Field(
        0, ge=0, le=65_535, description="loopback port of metrics and state; 0 = none"
    )
    warm: bool = Field(True, description="everything runs once before it is ready")
    max_lag: int = Field(
        10_000, ge=0, description="changes the index may be behind before it is not ready"
    )
    notice_seconds: float = Field(
        2.0, ge=0, description="told to end, it still says for so long that it is not ready"
    )
    drain_seconds: float = Field(
        30.0, ge=0, description="answers under way may go on for so long after that"
    )
    logs: Literal["plain", "json"] = Field(
        "plain", description="plain: warnings as lines; json: those and each request, as JSON"
    )
    traces: str = Field("", description="address that traces go to by OTLP over HTTP; else none")
