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
    period_close_delay_h: int = Field(
        72, ge=0, le=720, description="How long after its end a billing period is closed by itself, in hours."
    )
    calendar_orgs: int = Field(
        50, ge=1, le=1_000, description="Most organisations whose periods and base fees begin at once."
    )
    close_periods: int = Field(500, ge=1, le=10_000, description="Most billing periods closed at once.")
    settle_periods: int = Field(
        20,
        ge=1,
        le=500,
        description="Most closed periods whose counters are brought to their closed targets at once.",
    )
