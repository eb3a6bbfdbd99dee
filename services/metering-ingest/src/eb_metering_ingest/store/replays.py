"""Replays of recorded usage: what was asked for, how far each has come, and the usage as its events sum to."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any
from uuid import UUID

from eb_contracts.errors import NotFound
from eb_contracts.ids import new_id
from eb_contracts.metering import UsageRecord
from eb_kit.tx import Tx

from ..domain.recording import MOST_TRACES
from ..domain.replays import MOST_HOLDS, Place

COLUMNS = (
    "replay_id, org_id, from_at, to_at, status, events, sent_events, sent_records, created_at, finished_at"
)
RANGE = "org_id = $1 AND event_time >= $2 AND event_time < $3"


async def count_events(tx: Tx, org_id: UUID, start: datetime, end: datetime, most: int) -> int:
    """Count what is recorded in a range, up to `most`."""
    count: int = await tx.fetchval(
        f"SELECT count(*) FROM (SELECT 1 FROM metering_event WHERE {RANGE} LIMIT $4) AS found",
        *(org_id, start, end, most),
    )
    return count


async def insert_replay(tx: Tx, org_id: UUID, start: datetime, end: datetime, events: int) -> Any:
    """Note what is to be sent again."""
    return await tx.fetchrow(
        "INSERT INTO usage_replay (replay_id, org_id, from_at, to_at, status, events, after_at, requested_by,"
        f" created_at) VALUES ($1, $2, $3, $4, 'running', $5, $3, $6, $7) RETURNING {COLUMNS}",
        *(new_id(), org_id, start, end, events, tx.actor, tx.now),
    )


async def get_replay(tx: Tx, replay_id: UUID) -> Any:
    """Give a replay, or raise NotFound."""
    row = await tx.fetchrow(f"SELECT {COLUMNS} FROM usage_replay WHERE replay_id = $1", replay_id)
    if row is None:
        raise NotFound
    return row


async def take_replay(tx: Tx) -> Any | None:
    """Take the oldest replay that runs; what another process works on is skipped."""
    return await tx.fetchrow(
        f"SELECT {COLUMNS}, after_sku, after_at FROM usage_replay WHERE status = 'running'"
        " ORDER BY replay_id LIMIT 1 FOR UPDATE SKIP LOCKED"
    )


async def find_place(tx: Tx, replay: Mapping[str, Any], ahead: int) -> Place | None:
    """Give the SKU and time of the event that is `ahead` of a replay's place, None where fewer are left."""
    row = await tx.fetchrow(
        f"SELECT sku, event_time FROM metering_event WHERE {RANGE} AND (sku, event_time) >= ($4, $5)"
        " ORDER BY sku, event_time OFFSET $6 LIMIT 1",
        *_range(replay),
        ahead,
    )
    return Place(row["sku"], row["event_time"]) if row else None


async def list_usage(tx: Tx, replay: Mapping[str, Any], until: Place | None) -> list[UsageRecord]:
    """Sum the events from a replay's place to before `until`, by the usage record they were published in.

    All events of a record share its minute, and places are whole minutes: no record is cut.
    """
    before = "" if until is None else " AND (sku, event_time) < ($6, $7)"
    rows = await tx.fetch(
        "SELECT usage_id, project_id, sku, date_trunc('minute', min(event_time), 'UTC') AS minute,"
        " sum(quantity) AS quantity, count(*) - 2 * count(voids_event_id) AS events,"
        " array_agg(DISTINCT trace_id) FILTER (WHERE trace_id IS NOT NULL) AS traces,"
        " array_agg(DISTINCT hold_id) FILTER (WHERE hold_id IS NOT NULL) AS holds"
        f" FROM metering_event WHERE {RANGE} AND (sku, event_time) >= ($4, $5){before}"
        " GROUP BY usage_id, project_id, sku ORDER BY usage_id",
        *_range(replay),
        *(until or ()),
    )
    return [_record(replay["org_id"], row) for row in rows]


def _range(replay: Mapping[str, Any]) -> tuple[Any, ...]:
    return (replay["org_id"], replay["from_at"], replay["to_at"], replay["after_sku"], replay["after_at"])


def _record(org_id: UUID, row: Any) -> UsageRecord:
    return UsageRecord(
        usage_id=row["usage_id"],
        org_id=org_id,
        project_id=row["project_id"],
        sku=row["sku"],
        minute=row["minute"],
        quantity=row["quantity"],
        events=row["events"],
        trace_ids=tuple(row["traces"] or ())[:MOST_TRACES],
        hold_ids=tuple(row["holds"] or ())[:MOST_HOLDS],
    )


async def update_replay(tx: Tx, replay_id: UUID, events: int, records: int, until: Place | None) -> None:
    """Note what was sent, and the place where a replay goes on; None: it is done."""
    await tx.execute(
        "UPDATE usage_replay SET sent_events = sent_events + $2, sent_records = sent_records + $3,"
        " after_sku = coalesce($4, after_sku), after_at = coalesce($5, after_at),"
        " status = CASE WHEN $4::text IS NULL THEN 'done' ELSE 'running' END,"
        " events = CASE WHEN $4::text IS NULL THEN sent_events + $2 ELSE greatest(events, sent_events + $2) END,"
        " finished_at = CASE WHEN $4::text IS NULL THEN $6::timestamptz END WHERE replay_id = $1",
        *(replay_id, events, records, *(until or (None, None)), tx.now),
    )
