"""Settings of metering-ingest."""

from __future__ import annotations

from decimal import Decimal

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
    provider_log_months: int = Field(
        13,
        ge=2,
        le=14,
        description="How many months back a provider's log may reach; older rows leave by month, before events do.",
    )
    provider_log_quiet_s: int = Field(
        600,
        ge=60,
        description="After this long without progress a provider's log that is loading is given up.",
    )
    reconcile_hour: int = Field(
        13,
        ge=0,
        le=23,
        description="Hour (UTC) after which the nightly reconciliation of the last days begins.",
    )
    reconcile_days: int = Field(
        3, ge=1, le=35, description="How many whole days a nightly reconciliation compares."
    )
    reconcile_batch: int = Field(2_000, ge=100, le=10_000, description="Most messages compared at once.")
    drift_tolerance_pct: Decimal = Field(
        Decimal("0.5"),
        ge=0,
        le=100,
        description="Share of a day's messages, in percent, that may drift before it is an alert.",
    )
    alert_settle_s: int = Field(
        900, ge=0, description="How long after an hour's end its usage is judged, in seconds."
    )
    alert_weeks: int = Field(6, ge=3, le=12, description="How many weeks back usage is compared with.")
    alert_least_weeks: int = Field(
        3, ge=2, le=12, description="Fewest weeks of history before usage is judged at all."
    )
    alert_least_events: int = Field(
        50, ge=1, description="Fewest events, seen or expected, that are worth an alert."
    )
    alert_cooldown_s: int = Field(
        86_400, ge=0, description="Shortest time between two alerts of one organisation and SKU, in seconds."
    )
    alert_batch: int = Field(200, ge=1, le=1_000, description="Most series of usage judged at once.")
