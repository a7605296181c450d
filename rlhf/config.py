"""Settings of learning from feedback. Every field says its unit."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field, model_validator


class PreferenceSettings(BaseModel):
    """How the preference log is kept."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    retention_days: float = Field(
        default=365.0, gt=0, description="a turn is purged after this, days"
    )
    dev_fraction: float = Field(
        default=0.1, ge=0, lt=1, description="users held out for development"
    )
    test_fraction: float = Field(
        default=0.1, ge=0, lt=1, description="users held out for the gates"
    )
    edit_weight: float = Field(
        default=0.5, gt=0, le=1, description="weight of a pair made from an edit; a pick weighs 1"
    )
    busy_seconds: float = Field(default=30.0, gt=0, description="wait for another writer, seconds")
    page: int = Field(default=256, ge=1, description="feedback events read per transaction")

    @model_validator(mode="after")
    def _leaves_training_users(self) -> PreferenceSettings:
        if self.dev_fraction + self.test_fraction >= 1:
            raise ValueError("dev_fraction + test_fraction must stay below 1; lower one of them")
        return self
