"""Dead letters of events."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from eb_kit.db import write_json
from eb_kit.tx import Tx

from ..domain.letters import Letter

COLUMNS = (
    "dead_letter_id, org_id, request_id, event, errors, reason, count, first_at, last_at, status, trace_id"
)


async def insert_letters(tx: Tx, found: Sequence[Letter]) -> None:
    """Park events; one that is parked already is counted again and open again."""
    once = {(one.org_id, one.request_id, one.content_hash): one for one in found}
    rows = sorted(once.values(), key=lambda one: (str(one.org_id), str(one.request_id), one.content_hash))
    await tx.execute(
        "INSERT INTO dead_letter AS d (dead_letter_id, org_id, request_id, content_hash, event, errors, reason, count,"
        " first_at, last_at, status, trace_id)"
        " SELECT id, org_id, request_id, content_hash, event::jsonb, errors::jsonb, reason, 1, $8, $8, 'open', trace_id"
        " FROM unnest($1::uuid[], $2::uuid[], $3::text[], $4::bytea[], $5::text[], $6::text[], $7::text[], $9::text[])"
        " AS n (id, org_id, request_id, content_hash, event, errors, reason, trace_id)"
        " ON CONFLICT (org_id, request_id, content_hash) DO UPDATE"
        " SET count = d.count + 1, last_at = excluded.last_at, status = 'open', errors = excluded.errors,"
        " reason = excluded.reason",
        [one.dead_letter_id for one in rows],
        [one.org_id for one in rows],
        [_storable(one.request_id) for one in rows],
        [one.content_hash for one in rows],
        [write_json(_storable(one.event)) for one in rows],
        [write_json([_fault(fault) for fault in one.errors]) for one in rows],
        [one.reason for one in rows],
        tx.now,
        [one.trace_id for one in rows],
    )


def _storable(value: Any) -> Any:
    """Give a value that PostgreSQL takes: texts without NUL."""
    if isinstance(value, str):
        return value.replace("\0", "\ufffd")
    if isinstance(value, dict):
        return {_storable(key): _storable(member) for key, member in value.items()}
    return [_storable(item) for item in value] if isinstance(value, list) else value


def _fault(fault: Any) -> dict[str, str]:
    return {"pointer": fault.pointer, "code": fault.code, "detail": fault.detail}


async def list_letters(
    tx: Tx,
    org_id: UUID | None,
    *,
    status: str | None = None,
    reason: str | None = None,
    before: UUID | None = None,
    limit: int,
) -> list[Any]:
    """Give a page of an organisation's letters, newest first; without org_id everybody's."""
    return await tx.fetch(
        f"SELECT {COLUMNS} FROM dead_letter WHERE ($1::uuid IS NULL OR org_id = $1)"
        " AND ($2::text IS NULL OR status = $2) AND ($3::text IS NULL OR reason = $3)"
        " AND ($4::uuid IS NULL OR dead_letter_id < $4) ORDER BY dead_letter_id DESC LIMIT $5",
        org_id,
        status,
        reason,
        before,
        limit,
    )


async def find_letter(tx: Tx, org_id: UUID, request_id: str) -> Any | None:
    """Give the newest open letter of an event, or None."""
    return await tx.fetchrow(
        f"SELECT {COLUMNS} FROM dead_letter WHERE org_id = $1 AND request_id = $2 AND status = 'open'"
        " ORDER BY dead_letter_id DESC LIMIT 1",
        org_id,
        request_id,
    )


async def lock_letters(tx: Tx, dead_letter_ids: Collection[UUID]) -> list[Any]:
    """Give these letters as far as they are open, locked in order of their ids."""
    return await tx.fetch(
        f"SELECT {COLUMNS} FROM dead_letter WHERE dead_letter_id = ANY($1) AND status = 'open'"
        " ORDER BY dead_letter_id FOR UPDATE",
        list(dead_letter_ids),
    )


async def lock_filtered(tx: Tx, org_id: UUID, reason: str | None, limit: int) -> list[Any]:
    """Give open letters of an organisation, locked in order of their ids."""
    return await tx.fetch(
        f"SELECT {COLUMNS} FROM dead_letter WHERE org_id = $1 AND status = 'open'"
        " AND ($2::text IS NULL OR reason = $2) ORDER BY dead_letter_id LIMIT $3 FOR UPDATE",
        org_id,
        reason,
        limit,
    )


async def take_arrived(tx: Tx, limit: int) -> list[Any]:
    """Take letters that waited for a project which is known now; what another process takes is skipped."""
    return await tx.fetch(
        f"SELECT {COLUMNS} FROM dead_letter AS d WHERE status = 'open' AND reason = 'unknown_project'"
        " AND EXISTS (SELECT 1 FROM known WHERE entity = 'project' AND entity_id = d.event->>'project_id'"
        " AND NOT is_deleted AND body->>'org_id' = d.org_id::text)"
        " ORDER BY dead_letter_id LIMIT $1 FOR UPDATE SKIP LOCKED",
        limit,
    )


async def update_replayed(tx: Tx, dead_letter_ids: Collection[UUID]) -> None:
    """Close letters whose events are on their way again."""
    await tx.execute(
        "UPDATE dead_letter SET status = 'replayed', last_at = $2 WHERE dead_letter_id = ANY($1)",
        list(dead_letter_ids),
        tx.now,
    )


async def list_orgs(tx: Tx, dead_letter_ids: Collection[UUID]) -> list[UUID | None]:
    """Name the organisations of these letters."""
    rows = await tx.fetch(
        "SELECT DISTINCT org_id FROM dead_letter WHERE dead_letter_id = ANY($1)", list(dead_letter_ids)
    )
    return [row["org_id"] for row in rows]


def first_seen(row: Any) -> datetime:
    """Give when a letter was first parked."""
    found: datetime = row["first_at"]
    return found
