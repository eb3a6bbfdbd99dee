"""Reading events and usage."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any
from uuid import UUID

from eb_kit.tx import Tx

EVENT = """
    SELECT e.org_id, e.request_id, e.event_id, e.usage_id, e.sku, e.quantity, e.project_id, e.event_time, e.source,
           e.metadata, e.recorded_at, e.trace_id, k.duplicates, k.conflicts,
           coalesce(u.status, 'recorded') AS status, u.charge_id, coalesce(u.entry_ids, '{}') AS entry_ids
      FROM metering_event AS e
      JOIN event_key AS k ON k.org_id = e.org_id AND k.request_id = e.request_id AND k.event_id = e.event_id
      LEFT JOIN usage_record AS u ON u.org_id = e.org_id AND u.usage_id = e.usage_id
"""


async def find_event(tx: Tx, org_id: UUID, request_id: str) -> Any | None:
    """Give the recorded event of a request id, or None."""
    key = await tx.fetchrow(
        "SELECT event_id, event_time FROM event_key WHERE org_id = $1 AND request_id = $2", org_id, request_id
    )
    if key is None:
        return None
    return await tx.fetchrow(
        EVENT + " WHERE e.org_id = $1 AND e.event_id = $2 AND e.event_time = $3",
        org_id,
        key["event_id"],
        key["event_time"],
    )


async def list_conflicts(tx: Tx, org_id: UUID, request_id: str) -> list[Any]:
    """Give what came under the same request id with other content, oldest first; 100 at most."""
    return await tx.fetch(
        "SELECT received_at, sku, quantity, project_id, event_time FROM event_conflict"
        " WHERE org_id = $1 AND request_id = $2 ORDER BY conflict_id LIMIT 100",
        org_id,
        request_id,
    )


async def list_events(
    tx: Tx, org_id: UUID, filters: Mapping[str, object], before: UUID | None, limit: int
) -> list[Any]:
    """Give a page of an organisation's events, last recorded first."""
    return await tx.fetch(
        EVENT
        + " WHERE e.org_id = $1 AND ($2::text IS NULL OR e.request_id = $2) AND ($3::uuid IS NULL OR e.usage_id = $3)"
        " AND ($4::text IS NULL OR e.sku = $4) AND ($5::uuid IS NULL OR e.project_id = $5)"
        " AND ($6::timestamptz IS NULL OR e.event_time >= $6) AND ($7::timestamptz IS NULL OR e.event_time < $7)"
        " AND ($8::text IS NULL OR coalesce(u.status, 'recorded') = $8)"
        " AND ($9::uuid IS NULL OR e.event_id < $9) ORDER BY e.event_id DESC LIMIT $10",
        org_id,
        filters["request_id"],
        filters["usage_id"],
        filters["sku"],
        filters["project_id"],
        filters["start"],
        filters["end"],
        filters["status"],
        before,
        limit,
    )


async def sum_usage(
    tx: Tx,
    org_id: UUID,
    window: str,
    zone: str,
    start: datetime,
    end: datetime,
    sku: str | None,
    project_id: UUID | None,
) -> list[Any]:
    """Sum events by window and SKU, right to the last committed one; windows are cut in `zone`."""
    return await tx.fetch(
        "SELECT w AT TIME ZONE $3 AS window_start, (w + ('1 ' || $2)::interval) AT TIME ZONE $3 AS window_end,"
        " sku, quantity, events FROM (SELECT date_trunc($2, event_time AT TIME ZONE $3) AS w, sku,"
        " sum(quantity) AS quantity, count(*) AS events FROM metering_event"
        " WHERE org_id = $1 AND event_time >= $4 AND event_time < $5 AND ($6::text IS NULL OR sku = $6)"
        " AND ($7::uuid IS NULL OR project_id = $7) GROUP BY 1, 2) AS sums ORDER BY w, sku",
        org_id,
        window,
        zone,
        start,
        end,
        sku,
        project_id,
    )
