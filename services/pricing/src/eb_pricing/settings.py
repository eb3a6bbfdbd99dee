"""Settings of pricing."""

from __future__ import annotations

from pydantic import Field

from eb_kit.settings import ServiceSettings


class Settings(ServiceSettings):
    """What pricing is told."""

    sweep_orgs: int = Field(
        20, ge=1, le=500, description="Most organisations looked at again at once after their prices changed."
    )
    sweep_records: int = Field(
        200, ge=1, le=5_000, description="Most waiting usage records of one organisation rated at once."
    )
