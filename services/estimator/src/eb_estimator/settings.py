"""Settings of the estimator."""

from __future__ import annotations

from pydantic import Field

from eb_kit.settings import ServiceSettings


class Settings(ServiceSettings):
    """What the estimator is told."""

    estimate_kept_days: int = Field(
        30, ge=1, le=400, description="How long a cached estimate is kept, in days."
    )
    terms_wait_s: float = Field(
        2.0, ge=0, le=10, description="Longest wait for the terms of an organisation that has none yet."
    )
