"""Recording: keys once, events, what came again."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import date, datetime
from typing import Any
from uuid import UUID

import asyncpg

from eb_contracts.ids import new_id
from eb_kit.tx import Tx

from ..domain.errors import TimeTooFar
from ..domain.recording import Again, EventKey, Offer

REFUSED = (asyncpg.DataError, asyncpg.IntegrityConstraintViolationError, TimeTooFar)
"""What is said to an event that no form check caught."""

EVENT_COLUMNS = (
    "event_id", "org_id", "project_id", "sku", "quantity", "source", "event_time", "request_id", "metadata",
    "usage_id", "batch_id", "hold_id", "recorded_at", "trace_id",
)  # fmt: skip


async def ensure_month(tx: Tx, month: date) -> None:
    """Have the partition of a month; nothing happens if it is there."""
    await tx.execute("SELECT platform.ensure_month('metering_ingest.metering_event', $1)", month)


FEWEST_TO_COPY = 200
KEY_COLUMNS = ("org_id", "request_id", "event_id", "event_time", "content_hash")


async def drop_month(tx: Tx, before: datetime) -> str | None:
    """Drop the oldest month that ends at or before an instant's month, and name it; None where there is none.

    None, too, where somebody is just using the table: then it is tried the next time.
    """
    try:
        async with tx.connection.transaction():
            dropped: str | None = await tx.fetchval(
                "SELECT platform.drop_month('metering_ingest.metering_event', $1)", before
            )
            return dropped
    except asyncpg.LockNotAvailableError:
        return None


async def insert_keys_once(tx: Tx, offers: Mapping[EventKey, Offer]) -> set[EventKey]:
    """Take keys that nobody has; give those. Waits, in key order, for writers who are just taking one.

    COPY takes half the time of INSERT, and fails as a whole where one key is taken: then it is undone, and
    INSERT goes over the rest. For a few keys its two statements more don't pay.
    """
    rows = [_key_row(offers[key]) for key in sorted(offers)]
    if len(rows) < FEWEST_TO_COPY:
        return await _insert_new_keys(tx, rows)
    try:
        async with tx.connection.transaction():
            await tx.copy("event_key", KEY_COLUMNS, rows)
    except asyncpg.UniqueViolationError:
        return await _insert_new_keys(tx, rows)
    return set(offers)


def _key_row(offer: Offer) -> tuple[object, ...]:
    event = offer.received.event
    return event.org_id, event.request_id, offer.event_id, event.time, offer.content_hash


async def _insert_new_keys(tx: Tx, rows: Sequence[tuple[object, ...]]) -> set[EventKey]:
    found = await tx.fetch(
        "INSERT INTO event_key (org_id, request_id, event_id, event_time, content_hash)"
        " SELECT * FROM unnest($1::uuid[], $2::text[], $3::uuid[], $4::timestamptz[], $5::bytea[])"
        " ON CONFLICT DO NOTHING RETURNING org_id, request_id",
        *(list(column) for column in zip(*rows, strict=True)),
    )
    return {_key(row) for row in found}


async def list_contents(tx: Tx, keys: Collection[EventKey]) -> dict[EventKey, bytes]:
    """Give the recorded content of taken keys."""
    rows = await tx.fetch(
        "SELECT k.org_id, k.request_id, k.content_hash FROM event_key AS k"
        " JOIN unnest($1::uuid[], $2::text[]) AS w (org_id, request_id)"
        " ON k.org_id = w.org_id AND k.request_id = w.request_id",
        [UUID(int=key.org) for key in keys],
        [key.request_id for key in keys],
    )
    return {_key(row): bytes(row["content_hash"]) for row in rows}


def _key(row: Any) -> EventKey:
    return EventKey(row["org_id"].int, row["request_id"])


async def update_repeats(tx: Tx, again: Mapping[EventKey, Again]) -> None:
    """Count duplicates and conflicts on their keys; locks them in key order."""
    keys = sorted(again)
    await tx.execute(
        "WITH w AS (SELECT * FROM unnest($1::uuid[], $2::text[], $3::int[], $4::int[])"
        " AS w (org_id, request_id, duplicates, conflicts)), locked AS ("
        " SELECT k.org_id, k.request_id, w.duplicates, w.conflicts FROM event_key AS k"
        " JOIN w ON k.org_id = w.org_id AND k.request_id = w.request_id"
        " ORDER BY k.org_id, k.request_id FOR UPDATE OF k)"
        " UPDATE event_key AS k SET duplicates = k.duplicates + l.duplicates, conflicts = k.conflicts + l.conflicts"
        " FROM locked AS l WHERE k.org_id = l.org_id AND k.request_id = l.request_id",
        [UUID(int=key.org) for key in keys],
        [key.request_id for key in keys],
        [again[key].duplicates for key in keys],
        [len(again[key].conflicts) for key in keys],
    )


async def insert_conflicts(tx: Tx, again: Mapping[EventKey, Again]) -> None:
    """Keep what was unlike the recorded event of its key."""
    found = [received for one in again.values() for received in one.conflicts]
    if not found:
        return
    await tx.execute(
        "INSERT INTO event_conflict (conflict_id, org_id, request_id, received_at, sku, quantity, project_id,"
        " event_time) SELECT * FROM unnest($1::uuid[], $2::uuid[], $3::text[], $4::timestamptz[], $5::text[],"
        " $6::numeric[], $7::uuid[], $8::timestamptz[])",
        [new_id() for _ in found],
        [one.event.org_id for one in found],
        [one.event.request_id for one in found],
        [one.received_at for one in found],
        [one.event.sku for one in found],
        [one.event.quantity for one in found],
        [one.event.project_id for one in found],
        [one.event.time for one in found],
    )


async def insert_events(tx: Tx, rows: Sequence[tuple[Offer, UUID]]) -> None:
    """COPY new events, each with its usage id, into their months."""
    await tx.copy("metering_event", EVENT_COLUMNS, [_row(tx, offer, usage_id) for offer, usage_id in rows])


def _row(tx: Tx, offer: Offer, usage_id: UUID) -> tuple[object, ...]:
    event, batch_id, _, trace_id = offer.received
    return (
        offer.event_id, event.org_id, event.project_id, event.sku, event.quantity, event.source, event.time,
        event.request_id, event.metadata, usage_id, batch_id, event.hold_id, tx.now, trace_id,
    )  # fmt: skip
