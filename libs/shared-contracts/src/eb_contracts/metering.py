"""Messages of metering-ingest: accepted batches on their way to the writer, and recorded usage."""

from __future__ import annotations

from datetime import date, datetime
from typing import Any, Literal
from uuid import UUID

from .base import METERING, USAGE, Body, Message, Number, Partitioned, register


class AcceptedEvent(Body):
    """One usage event as accepted: form, key and organisation checked."""

    IS_CARRIED = True
    request_id: str
    sku: str
    quantity: Number
    org_id: UUID
    project_id: UUID
    time: datetime
    source: Literal["form_submit", "backend", "replay"] = "backend"
    metadata: dict[str, Any] | None = None
    hold_id: UUID | None = None


class AcceptedBatch(Body):
    """The events of one request that belong to one partition."""

    IS_CARRIED = True
    batch_id: UUID
    received_at: datetime
    trace_id: str | None = None
    events: tuple[AcceptedEvent, ...]


@register
class BatchAccepted(Partitioned):
    """The events of one request that belong to one partition; `more` came at the same time, and travels along."""

    IS_CARRIED = True
    TYPE = "metering_ingest.batch.accepted.v1"
    EXCHANGE = METERING
    KEY_PREFIX = ""
    batch_id: UUID
    received_at: datetime
    trace_id: str | None = None
    events: tuple[AcceptedEvent, ...]
    more: tuple[AcceptedBatch, ...] = ()

    @property
    def batches(self) -> tuple[BatchAccepted | AcceptedBatch, ...]:
        """Give each request's part."""
        return (self, *self.more)

    @property
    def weight(self) -> int:
        return sum(len(batch.events) for batch in self.batches)

    @property
    def traces(self) -> frozenset[str]:
        return frozenset(batch.trace_id for batch in self.batches if batch.trace_id)


class UsageRecord(Body):
    """Usage of one (org, project, SKU, minute of event time), summed over one take of the writer.

    `quantity` and `events` are negative for a void. `trace_ids` names at most 16 requests behind it;
    `hold_ids` what was authorized before its events and is used now, 1,000 at most.
    """

    IS_CARRIED = True
    usage_id: UUID
    org_id: UUID
    project_id: UUID
    sku: str
    minute: datetime
    quantity: Number
    events: int
    trace_ids: tuple[str, ...] = ()
    hold_ids: tuple[UUID, ...] = ()


@register
class UsageRecorded(Partitioned):
    """Usage that was stored; each record is to be charged exactly once."""

    IS_CARRIED = True
    TYPE = "metering_ingest.usage.recorded.v1"
    EXCHANGE = USAGE
    KEY_PREFIX = "usage."
    usage: tuple[UsageRecord, ...]

    @property
    def weight(self) -> int:
        return len(self.usage)

    @property
    def traces(self) -> frozenset[str]:
        return frozenset(trace for record in self.usage for trace in record.trace_ids)


DriftKind = Literal[
    "missing_here",
    "missing_there",
    "double_there",
    "double_here",
    "wrong_quantity",
    "wrong_day",
    "wrong_sku",
    "voided",
]


@register
class DriftFound(Message):
    """A provider's log and what was metered differ: messages of one organisation, SKU, day and kind.

    `day` and `metered_day` are days of the organisation's time zone; they differ for `wrong_day` only.
    """

    TYPE = "metering_ingest.drift.found.v1"
    drift_id: UUID
    reconciliation_id: UUID
    org_id: UUID
    sku: str
    day: date
    metered_day: date
    kind: DriftKind
    messages: int
    provider_quantity: Number
    metered_quantity: Number
    sample_ids: tuple[str, ...]
    is_over_tolerance: bool

    @property
    def subject(self) -> str:
        return str(self.org_id)


@register
class UsageAlertRaised(Message):
    """Usage of one organisation and SKU is unlike its past; `why` says it in a sentence. Quantities of `hour`."""

    TYPE = "metering_ingest.usage_alert.raised.v1"
    alert_id: UUID
    org_id: UUID
    sku: str
    kind: Literal["spike", "stop"]
    hour: datetime
    expected: Number
    seen: Number
    threshold: Number
    why: str

    @property
    def subject(self) -> str:
        return str(self.org_id)
