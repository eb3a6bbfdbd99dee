"""Settings of pricing."""

from __future__ import annotations

from pydantic import Field

from eb_kit.settings import ServiceSettings


class Settings(ServiceSettings):
    """What pricing is told."""

    authorize_deadline_ms: int = Field(
        200,
        ge=10,
        le=5_000,
        description="Longest that an answer to authorize may take, in milliseconds; later it is 503"
        " `guardrail_unavailable`.",
    )
    sweep_orgs: int = Field(
        20, ge=1, le=500, description="Most organisations looked at again at once after their prices changed."
    )
    sweep_records: int = Field(
        200, ge=1, le=5_000, description="Most waiting usage records of one organisation rated at once."
    )
    latest_event_s: int = Field(
        300, ge=0, description="How far the time of a one-off charge may lie in the future, in seconds."
    )
    oldest_event_days: int = Field(
        35, ge=1, le=400, description="How many days back the time of a one-off charge may lie."
    )
    terms_wait_s: float = Field(
        1.0, ge=0, le=5, description="How long a one-off charge waits for terms or a project on their way."
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
