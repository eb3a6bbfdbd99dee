"""Settings of metering-ingest."""

from __future__ import annotations

from pydantic import Field

from eb_kit.settings import ServiceSettings


class Settings(ServiceSettings):
    """What metering-ingest is told."""

    latest_event_s: int = Field(
        300, ge=0, description="How far an event's time may lie in the future, in seconds."
    )
    oldest_event_days: int = Field(
        35, ge=1, le=400, description="How many days back an event's time may lie."
    )
    publish_timeout_s: float = Field(
        0.9,
        gt=0,
        le=1.5,
        description="Longest wait for the broker's confirm before the batch goes to the database.",
    )
    spool_timeout_s: float = Field(
        0.9, gt=0, le=1.5, description="Longest wait for the database to keep a batch the broker didn't take."
    )
    event_retention_months: int = Field(
        36,
        ge=15,
        le=1_200,
        description="How many whole months of events are kept; older ones leave, the keys of their events stay.",
    )
    replay_batch: int = Field(5_000, ge=1, le=20_000, description="Most events of a replay summed at once.")
    sweep_batch: int = Field(500, ge=1, le=5_000, description="Most waiting dead letters taken up at once.")
