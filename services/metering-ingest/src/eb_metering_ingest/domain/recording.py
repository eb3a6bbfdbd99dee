"""From accepted events to what is stored: content, duplicates and conflicts, usage records.

Rule: docs/rules/metering.md, Once and Usage records.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from typing import NamedTuple
from uuid import UUID

from eb_contracts.ids import new_id, partition_of
from eb_contracts.metering import AcceptedEvent, BatchAccepted, UsageRecord, UsageRecorded

MOST_TRACES = 16
MOST_HOLDS = 1_000
"""More holds than these on one usage record end by themselves."""


class EventKey(NamedTuple):
    """What an event counts once by; `org` is the organisation's id as a number.

    A UUID hashes and compares in Python code, and each event is looked up and sorted by its key.
    """

    org: int
    request_id: str


class Received(NamedTuple):
    """An accepted event with where it came from."""

    event: AcceptedEvent
    batch_id: UUID | None
    received_at: datetime
    trace_id: str | None

    @property
    def key(self) -> EventKey:
        """Give what it counts once by."""
        return EventKey(self.event.org_id.int, self.event.request_id)


def content_hash(event: AcceptedEvent) -> bytes:
    """Give 16 bytes of SHA-256 over what makes two events the same: SKU, project, quantity, instant."""
    text = f"{event.sku}\n{event.project_id.int:x}\n{event.quantity.normalize()}\n{event.time.timestamp()!r}"
    return hashlib.sha256(text.encode()).digest()[:16]


class Offer(NamedTuple):
    """An event that would be recorded under its key: `event_id` is used if it is the first."""

    received: Received
    event_id: UUID
    content_hash: bytes


@dataclass(slots=True)
class Again:
    """What came again under a key that was taken: how often alike, and what was unlike."""

    duplicates: int = 0
    conflicts: list[Received] = field(default_factory=list)

    def count(self, received: Received, is_alike: bool) -> None:
        """Count one more."""
        if is_alike:
            self.duplicates += 1
        else:
            self.conflicts.append(received)


@dataclass(frozen=True, slots=True)
class Screened:
    """A take by key: the first of each, and what came again within the take."""

    offers: dict[EventKey, Offer]
    again: dict[EventKey, Again]


def screen(events: Iterable[Received]) -> Screened:
    """Find the first event of each key, in order; of unlike ones the first stands."""
    offers: dict[EventKey, Offer] = {}
    again: dict[EventKey, Again] = {}
    for received in events:
        key, content = received.key, content_hash(received.event)
        first = offers.get(key)
        if first is None:
            offers[key] = Offer(received, new_id(), content)
        else:
            again.setdefault(key, Again()).count(received, content == first.content_hash)
    return Screened(offers, again)


def compare(
    screened: Screened, new: set[EventKey], recorded: Mapping[EventKey, bytes]
) -> dict[EventKey, Again]:
    """Compare what was recorded before with what came now; give what came again, by key.

    `recorded` holds the content of the keys that aren't new. What in the take is unlike its first may yet
    be like the recorded one, so all are compared with that.
    """
    again = {key: found for key, found in screened.again.items() if key in new}
    for key, offer in screened.offers.items():
        if key in new:
            continue
        found = again.setdefault(key, Again())
        found.count(offer.received, offer.content_hash == recorded[key])
        if inside := screened.again.get(key):
            for _ in range(inside.duplicates):
                found.count(offer.received, offer.content_hash == recorded[key])
            for received in inside.conflicts:
                found.count(received, content_hash(received.event) == recorded[key])
    return again


@dataclass(slots=True)
class _Sum:
    usage_id: UUID
    first: AcceptedEvent
    quantity: Decimal = Decimal(0)
    events: int = 0
    traces: dict[str, None] = field(default_factory=dict)
    holds: dict[UUID, None] = field(default_factory=dict)

    def add(self, quantity: Decimal, trace_id: str | None) -> None:
        self.quantity += quantity
        self.events += 1
        if trace_id and len(self.traces) < MOST_TRACES:
            self.traces[trace_id] = None


class Recorded(NamedTuple):
    """New events of a take: each with its usage id, and the usage records they were summed into."""

    rows: list[tuple[Offer, UUID]]
    usage: list[UsageRecord]


def record(offers: Iterable[Offer]) -> Recorded:
    """Sum new events into one usage record per organisation, project, SKU and minute of event time."""
    sums: dict[tuple[int, int, str, int], _Sum] = {}
    rows = []
    for offer in offers:
        event = offer.received.event
        minute = int(event.time.timestamp() // 60)
        key = (event.org_id.int, event.project_id.int, event.sku, minute)
        total = sums.get(key)
        if total is None:
            total = sums[key] = _Sum(new_id(), event)
        total.add(event.quantity, offer.received.trace_id)
        if event.hold_id is not None and len(total.holds) < MOST_HOLDS:
            total.holds[event.hold_id] = None
        rows.append((offer, total.usage_id))
    return Recorded(rows, [_usage_record(sums[key]) for key in sorted(sums)])


def _usage_record(total: _Sum) -> UsageRecord:
    first = total.first
    return UsageRecord.trusted(
        usage_id=total.usage_id,
        org_id=first.org_id,
        project_id=first.project_id,
        sku=first.sku,
        minute=first.time.astimezone(UTC).replace(second=0, microsecond=0),
        quantity=total.quantity,
        events=total.events,
        trace_ids=tuple(total.traces),
        hold_ids=tuple(total.holds),
    )


def messages_of(usage: Iterable[UsageRecord]) -> list[UsageRecorded]:
    """Give one message per partition."""
    by_partition: dict[int, list[UsageRecord]] = {}
    for record_ in usage:
        by_partition.setdefault(partition_of(record_.org_id), []).append(record_)
    return [
        UsageRecorded.trusted(partition=partition, usage=tuple(records))
        for partition, records in sorted(by_partition.items())
    ]


def batches_of(left: Iterable[Received]) -> list[BatchAccepted]:
    """Give events of one batch as a batch again, in two messages, so that what fails together gets smaller."""
    received = list(left)
    halves = (received[: len(received) // 2], received[len(received) // 2 :])
    return [
        BatchAccepted.trusted(
            partition=partition_of(half[0].event.org_id),
            batch_id=half[0].batch_id or new_id(),
            received_at=half[0].received_at,
            trace_id=half[0].trace_id,
            events=tuple(one.event for one in half),
        )
        for half in halves
        if half
    ]
