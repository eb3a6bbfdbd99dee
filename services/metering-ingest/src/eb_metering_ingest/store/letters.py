"""Dead letters of events."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from typing import Any
from uuid import UUID

import asyncpg

from eb_contracts.errors import NotFound
from eb_contracts.ids import new_id
from eb_kit.db import write_json
from eb_kit.tx import Tx

from ..domain.errors import LetterExists
from ..domain.letters import Letter

COLUMNS = (
    "dead_letter_id, org_id, request_id, event, errors, reason, count, first_at, last_at, status, trace_id"
)


async def insert_letters(tx: Tx, found: Sequence[Letter]) -> None:
    """Park events; one that is parked already is counted again and open again. All or none."""
    times = Counter((one.org_id, one.request_id, one.content_hash) for one in found)
    once = {(one.org_id, one.request_id, one.content_hash): one for one in found}
    rows = sorted(once.values(), key=lambda one: (str(one.org_id), str(one.request_id), one.content_hash))
    await tx.execute(
        "INSERT INTO dead_letter AS d (dead_letter_id, org_id, request_id, content_hash, event, errors, reason, count,"
        " first_at, last_at, status, trace_id, waits_for_project_id)"
        " SELECT id, org_id, request_id, content_hash, event::jsonb, errors::jsonb, reason, times, $8, $8, 'open',"
        " trace_id, waits_for FROM unnest($1::uuid[], $2::uuid[], $3::text[], $4::bytea[], $5::text[], $6::text[],"
        " $7::text[], $9::text[], $10::int[], $11::uuid[])"
        " AS n (id, org_id, request_id, content_hash, event, errors, reason, trace_id, times, waits_for)"
        " ON CONFLICT (org_id, request_id, content_hash) DO UPDATE"
        " SET count = d.count + excluded.count, last_at = excluded.last_at, status = 'open', errors = excluded.errors,"
        " reason = excluded.reason, waits_for_project_id = excluded.waits_for_project_id",
        [one.dead_letter_id for one in rows],
        [one.org_id for one in rows],
        [_storable(one.request_id) for one in rows],
        [one.content_hash for one in rows],
        [write_json(_storable(one.event)) for one in rows],
        [write_json([_fault(fault) for fault in one.errors]) for one in rows],
        [one.reason for one in rows],
        tx.now,
        [one.trace_id for one in rows],
        [times[one.org_id, one.request_id, one.content_hash] for one in rows],
        [one.waits_for_project_id for one in rows],
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


CONDITIONS = {"org_id": "org_id = {}", "status": "status = {}", "reason": "reason = {}"}
"""What lists may be picked by; only what is asked for reaches the statement, so that its plan fits."""


async def list_letters(
    tx: Tx, picked: Mapping[str, Any], *, before: UUID | None, limit: int, is_whole: bool = False
) -> list[Any]:
    """Give a page of letters, newest first; those whose organisation can't be read only where `is_whole`."""
    given = {name: value for name, value in picked.items() if value is not None}
    where = [CONDITIONS[name].format(f"${n}") for n, name in enumerate(given, 1)]
    values = list(given.values())
    if not is_whole:
        where.append("org_id IS NOT NULL")
    if before is not None:
        values.append(before)
        where.append(f"dead_letter_id < ${len(values)}")
    return await tx.fetch(
        f"SELECT {COLUMNS} FROM dead_letter WHERE {' AND '.join(where) or 'true'}"
        f" ORDER BY dead_letter_id DESC LIMIT {limit:d}",
        *values,
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


async def lock_filtered(
    tx: Tx, org_id: UUID, reason: str | None, after: UUID, last: UUID, limit: int
) -> list[Any]:
    """Give the next open letters of an organisation behind `after` up to `last`, locked in order of their ids.

    Planned anew each time: a plan for any reason walks through all letters to find the few of a rare one.
    """
    await tx.execute("SET LOCAL plan_cache_mode = force_custom_plan")
    picked = "" if reason is None else " AND reason = $5"
    return await tx.fetch(
        f"SELECT {COLUMNS} FROM dead_letter WHERE org_id = $1 AND status = 'open'{picked}"
        " AND dead_letter_id > $2 AND dead_letter_id <= $3 ORDER BY dead_letter_id LIMIT $4 FOR UPDATE",
        *(org_id, after, last, limit, *([] if reason is None else [reason])),
    )


async def lock_letter(tx: Tx, dead_letter_id: UUID) -> Any:
    """Lock a letter until `tx` ends, or raise NotFound."""
    row = await tx.fetchrow(
        f"SELECT {COLUMNS} FROM dead_letter WHERE dead_letter_id = $1 FOR UPDATE",
        dead_letter_id,
    )
    if row is None:
        raise NotFound
    return row


async def update_event(tx: Tx, letter: Letter) -> Any:
    """Replace a locked letter's event and what is wrong with it; LetterExists where another one holds it."""
    try:
        return await tx.fetchrow(
            "UPDATE dead_letter SET org_id = $2, request_id = $3, content_hash = $4, event = $5::text::jsonb,"
            " errors = $6::text::jsonb, reason = $7, waits_for_project_id = $8, last_at = $9"
            f" WHERE dead_letter_id = $1 RETURNING {COLUMNS}",
            letter.dead_letter_id,
            letter.org_id,
            letter.request_id,
            letter.content_hash,
            write_json(letter.event),
            write_json([_fault(fault) for fault in letter.errors]),
            letter.reason,
            letter.waits_for_project_id,
            tx.now,
        )
    except asyncpg.UniqueViolationError as error:
        if error.constraint_name != "dead_letter_content_key":
            raise
        raise LetterExists from None


NEXT_WAITING = """
    SELECT waits_for_project_id FROM dead_letter
     WHERE status = 'open' AND waits_for_project_id IS NOT NULL AND waits_for_project_id > {}
     ORDER BY waits_for_project_id LIMIT 1
"""
AWAITED = f"""
    WITH RECURSIVE awaited AS (
        ({NEXT_WAITING.format("$1")})
        UNION ALL
        SELECT ({NEXT_WAITING.format("a.waits_for_project_id")})
          FROM awaited AS a WHERE a.waits_for_project_id IS NOT NULL
    ) SELECT waits_for_project_id FROM awaited WHERE waits_for_project_id IS NOT NULL LIMIT $2
"""


async def list_awaited(tx: Tx, after: UUID, limit: int) -> list[UUID]:
    """Name the next projects that letters wait for, in order; each is one look into the index."""
    return [row[0] for row in await tx.fetch(AWAITED, after, limit)]


async def take_arrived(tx: Tx, owners: Mapping[UUID, UUID], limit: int) -> list[Any]:
    """Take letters that wait for these projects of these organisations; what another process takes is skipped."""
    return await tx.fetch(
        f"SELECT {COLUMNS} FROM unnest($1::uuid[], $2::uuid[]) AS w (project_id, owner_id)"
        " JOIN dead_letter AS d ON d.waits_for_project_id = w.project_id AND d.org_id = w.owner_id"
        " WHERE d.status = 'open' AND d.waits_for_project_id IS NOT NULL LIMIT $3 FOR UPDATE OF d SKIP LOCKED",
        list(owners),
        list(owners.values()),
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


async def count_open(tx: Tx, most: int) -> dict[str, int]:
    """Count open letters by reason, `most` of them at most."""
    rows = await tx.fetch(
        "SELECT reason, count(*) FROM (SELECT reason FROM dead_letter WHERE status = 'open' LIMIT $1) AS open_ones"
        " GROUP BY reason",
        most,
    )
    return {row[0]: row[1] for row in rows}


async def insert_replay(tx: Tx, org_id: UUID, reason: str | None, after: UUID, last: UUID) -> None:
    """Leave the rest of a replay by filter to the job: letters behind `after` up to `last`."""
    await tx.execute(
        "INSERT INTO letter_replay (letter_replay_id, org_id, reason, after_id, last_id, requested_by, created_at)"
        " VALUES ($1, $2, $3, $4, $5, $6, $7)",
        new_id(),
        org_id,
        reason,
        after,
        last,
        tx.actor,
        tx.now,
    )


async def take_replay(tx: Tx) -> Any | None:
    """Take the oldest replay with letters left; what another process works on is skipped."""
    return await tx.fetchrow(
        "SELECT letter_replay_id, org_id, reason, after_id, last_id FROM letter_replay"
        " ORDER BY letter_replay_id LIMIT 1 FOR UPDATE SKIP LOCKED"
    )


async def update_replay(tx: Tx, letter_replay_id: UUID, after: UUID) -> None:
    """Note how far a replay has come."""
    await tx.execute(
        "UPDATE letter_replay SET after_id = $2 WHERE letter_replay_id = $1", letter_replay_id, after
    )


async def delete_replay(tx: Tx, letter_replay_id: UUID) -> None:
    """Forget a replay that is done."""
    await tx.execute("DELETE FROM letter_replay WHERE letter_replay_id = $1", letter_replay_id)
