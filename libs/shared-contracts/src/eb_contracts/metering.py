"""Messages of metering-ingest: accepted batches on their way to the writer, and recorded usage."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal
from uuid import UUID

from .base import METERING, USAGE, Body, Number, Partitioned, register


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


@register
class BatchAccepted(Partitioned):
    """The events of one request that belong to one partition."""

    IS_CARRIED = True
    TYPE = "metering_ingest.batch.accepted.v1"
    EXCHANGE = METERING
    KEY_PREFIX = ""
    batch_id: UUID
    received_at: datetime
    trace_id: str | None = None
    events: tuple[AcceptedEvent, ...]

    @property
    def weight(self) -> int:
        return len(self.events)

    @property
    def traces(self) -> frozenset[str]:
        return frozenset((self.trace_id,)) if self.trace_id else frozenset()


class UsageRecord(Body):
    """Usage of one (org, project, SKU, minute of event time), summed over one take of the writer.

    `quantity` and `events` are negative for a void. `trace_ids` names at most 16 requests behind it.
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
