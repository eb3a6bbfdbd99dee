"""Voiding events: the key is locked, the negative event is written beside the original."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from eb_kit.tx import Tx

from ..domain.voids import Void


async def lock_key(tx: Tx, org_id: UUID, request_id: str) -> Any | None:
    """Lock the key of a recorded event until `tx` ends: who voids the same one waits. None if there is none."""
    return await tx.fetchrow(
        "SELECT event_id, event_time, void_event_id FROM event_key WHERE org_id = $1 AND request_id = $2 FOR UPDATE",
        org_id,
        request_id,
    )


async def insert_void(tx: Tx, org_id: UUID, key: Any, void: Void, trace_id: str) -> Any | None:
    """Write the negative of an event at its own time; give it, or None where the event's month has left."""
    return await tx.fetchrow(
        "INSERT INTO metering_event (event_id, org_id, project_id, sku, quantity, source, event_time, request_id,"
        " usage_id, voids_event_id, reason, recorded_at, trace_id)"
        " SELECT $4, org_id, project_id, sku, -quantity, source, event_time, request_id, $5, event_id, $6, $7, $8"
        " FROM metering_event WHERE org_id = $1 AND event_id = $2 AND event_time = $3"
        " RETURNING org_id, project_id, sku, quantity, event_time",
        org_id,
        key["event_id"],
        key["event_time"],
        void.event_id,
        void.usage_id,
        void.reason,
        tx.now,
        trace_id,
    )


async def update_key(tx: Tx, org_id: UUID, request_id: str, void: Void) -> None:
    """Note on a locked key which event voids it."""
    await tx.execute(
        "UPDATE event_key SET void_event_id = $3 WHERE org_id = $1 AND request_id = $2",
        org_id,
        request_id,
        void.event_id,
    )


async def find_void(tx: Tx, org_id: UUID, event: Any) -> Any | None:
    """Give reason and instant of an event's void, or None."""
    if event["void_event_id"] is None:
        return None
    return await tx.fetchrow(
        "SELECT reason, recorded_at AS at FROM metering_event"
        " WHERE org_id = $1 AND event_id = $2 AND event_time = $3",
        org_id,
        event["void_event_id"],
        event["event_time"],
    )
