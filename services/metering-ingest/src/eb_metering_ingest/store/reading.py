"""Reading events: one by its request id, and lists by what they are picked for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from uuid import UUID

from eb_kit.tx import Tx

COLUMNS = """
    e.org_id, e.request_id, e.event_id, e.usage_id, e.sku, e.quantity, e.project_id, e.event_time, e.source,
    e.metadata, e.recorded_at, e.trace_id, k.duplicates, k.conflicts, k.void_event_id,
    CASE WHEN k.void_event_id IS NOT NULL AND e.voids_event_id IS NULL THEN 'voided'
         ELSE coalesce(u.status, 'recorded') END AS status,
    u.charge_id, coalesce(u.entry_ids, '{}') AS entry_ids
"""
KEY = "JOIN event_key AS k ON k.org_id = e.org_id AND k.request_id = e.request_id"
USAGE = "LEFT JOIN usage_record AS u ON u.org_id = e.org_id AND u.usage_id = e.usage_id"

EVENTS = f"metering_event AS e {KEY} {USAGE}"
WAITING = (
    f"usage_record AS u JOIN metering_event AS e ON e.org_id = u.org_id AND e.usage_id = u.usage_id {KEY}"
)
VOIDED = f"""
    metering_event AS v JOIN metering_event AS e
        ON e.org_id = v.org_id AND e.event_id = v.voids_event_id AND e.event_time = v.event_time {KEY} {USAGE}
"""
CONDITIONS = {
    "request_id": "e.event_id = (SELECT event_id FROM event_key WHERE org_id = $1 AND request_id = {})",
    "usage_id": "e.usage_id = {}",
    "sku": "e.sku = {}",
    "project_id": "e.project_id = {}",
    "start": "e.event_time >= {}",
    "end": "e.event_time < {}",
}
"""What lists may be picked by; only what is asked for reaches the statement, so that its plan fits."""


async def find_key(tx: Tx, org_id: UUID, request_id: str) -> Any | None:
    """Give what a request id was recorded as, or None; it outlives the event."""
    return await tx.fetchrow(
        "SELECT event_id, event_time, void_event_id FROM event_key WHERE org_id = $1 AND request_id = $2",
        org_id,
        request_id,
    )


async def find_event(tx: Tx, org_id: UUID, key: Any) -> Any | None:
    """Give the event of a key; None once its month has left."""
    return await tx.fetchrow(
        f"SELECT {COLUMNS} FROM {EVENTS} WHERE e.org_id = $1 AND e.event_id = $2 AND e.event_time = $3",
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
    tx: Tx, org_id: UUID, filters: Mapping[str, Any], after: Mapping[str, Any] | None, limit: int
) -> list[Any]:
    """Give an organisation's events, last recorded first; those that wait by their usage, last recorded first.

    A void is an event of its own only where its usage record is asked for. Those that wait or are voided are few,
    and found by an index of their own.
    """
    where, values = _where(org_id, filters)
    source, order, later = EVENTS, "e.event_id DESC", "e.event_id < {0}"
    status = filters["status"]
    if status == "unrated":
        source, order = WAITING, "u.usage_id DESC, e.event_id DESC"
        later = "u.usage_id <= {1} AND (u.usage_id < {1} OR e.event_id < {0})"
        where += ["u.org_id = $1", "u.status = 'unrated'", "k.void_event_id IS NULL"]
    elif status == "voided":
        source = VOIDED
        where += ["v.org_id = $1", "v.voids_event_id IS NOT NULL"]
    elif status is not None:
        values.append(status)
        where += [f"coalesce(u.status, 'recorded') = ${len(values)}", "k.void_event_id IS NULL"]
    if filters["usage_id"] is None:
        where.append("e.voids_event_id IS NULL")
    if after is not None:
        keys = [after["event_id"], after["usage_id"]][: 1 + ("{1}" in later)]
        where.append(later.format(*(f"${len(values) + n}" for n in range(1, len(keys) + 1))))
        values += keys
    return await tx.fetch(
        f"SELECT {COLUMNS} FROM {source} WHERE {' AND '.join(where)} ORDER BY {order} LIMIT {limit:d}",
        *values,
    )


def _where(org_id: UUID, filters: Mapping[str, Any]) -> tuple[list[str], list[Any]]:
    where: list[str] = ["e.org_id = $1"]
    values: list[Any] = [org_id]
    for name, condition in CONDITIONS.items():
        if filters[name] is not None:
            values.append(filters[name])
            where.append(condition.format(f"${len(values)}"))
    return where, values
