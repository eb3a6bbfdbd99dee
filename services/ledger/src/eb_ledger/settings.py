"""Settings of the ledger."""

from __future__ import annotations

from pydantic import Field

from eb_kit.settings import ServiceSettings


class Settings(ServiceSettings):
    """What the ledger is told."""

    months_ahead: int = Field(12, ge=1, le=120, description="How many months of partitions are made ahead.")
    sweep_batch: int = Field(500, ge=1, le=10_000, description="Most parked charges taken up at once.")
