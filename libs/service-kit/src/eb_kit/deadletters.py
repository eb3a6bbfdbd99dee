"""Dead letters: messages given up, imported from the broker into `bus_dead_letter`, shown, replayed, discarded.

Rule: docs/rules/bus.md, Dead letters.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any
from uuid import UUID

from eb_contracts.ids import new_id

from .bus import envelope as wire
from .bus.envelope import Delivery, Envelope
from .db import read_json, write_json
from .topology import RETRY, TIER_HEADER

if TYPE_CHECKING:
    from .tx import Tx

LONGEST_DETAIL = 500
REPLAY_TIER = "5s"

IMPORT = """
    INSERT INTO bus_dead_letter AS d (dead_letter_id, queue, message_id, type, headers, body, error_class, detail,
                                      fingerprint, attempts, first_at, last_at, trace_id, status)
    SELECT id, queue, message_id, type, headers::jsonb, body, error_class, detail, fingerprint, attempts,
           first_at, $13, trace_id, 'open'
      FROM unnest($1::uuid[], $2::text[], $3::uuid[], $4::text[], $5::text[], $6::bytea[], $7::text[], $8::text[],
                  $9::text[], $10::int[], $11::timestamptz[], $12::text[])
        AS l (id, queue, message_id, type, headers, body, error_class, detail, fingerprint, attempts,
              first_at, trace_id)
    ON CONFLICT (message_id, queue) WHERE status = 'open' DO UPDATE
       SET last_at = excluded.last_at, attempts = excluded.attempts, error_class = excluded.error_class,
           detail = excluded.detail, fingerprint = excluded.fingerprint
"""
LIST = """
    SELECT dead_letter_id, queue, message_id, type, error_class, detail, fingerprint, attempts, first_at, last_at,
           trace_id, status
      FROM bus_dead_letter
     WHERE status = $1 AND ($2::uuid IS NULL OR dead_letter_id < $2)
     ORDER BY dead_letter_id DESC LIMIT $3
"""
TAKE = """
    UPDATE bus_dead_letter SET status = $2 WHERE dead_letter_id = ANY($1) AND status = 'open'
    RETURNING queue, type, headers::text AS headers, body
"""


def fingerprint(queue: str, type_: str, error_class: str) -> str:
    """Give the same short text for letters that likely have one cause."""
    return hashlib.sha256(f"{queue.split('.p')[0]}|{type_}|{error_class}".encode()).hexdigest()[:16]


async def import_letters(connection: Any, letters: Sequence[Delivery], machine_now: datetime) -> None:
    """Write dead letters in one statement; one that is open already is counted again, not doubled."""
    rows: dict[tuple[UUID, str], tuple[object, ...]] = {}
    for letter in letters:
        row = _row(letter, machine_now)
        rows[letter.message_id or new_id(), str(row[1])] = row
    columns = [list(column) for column in zip(*rows.values(), strict=True)]
    await connection.execute(IMPORT, *columns, machine_now)


def _row(letter: Delivery, machine_now: datetime) -> tuple[object, ...]:
    headers = letter.headers
    queue = _text(headers.get(wire.QUEUE) or headers.get("x-first-death-queue") or letter.queue)
    reason = headers.get("x-first-death-reason") or "unknown"
    error_class = _text(headers.get(wire.ERROR_CLASS) or f"broker_{reason}")
    return (
        new_id(),
        queue,
        letter.message_id,
        _text(letter.type),
        _json(headers),
        letter.body,
        error_class,
        _text(headers.get(wire.ERROR_DETAIL) or "")[:LONGEST_DETAIL],
        fingerprint(queue, letter.type, error_class),
        letter.attempt,
        _instant(headers.get(wire.FIRST_AT)) or machine_now,
        letter.trace.trace_id if letter.trace else None,
    )


def _text(value: object) -> str:
    """Give text that PostgreSQL takes: without NUL."""
    return str(value).replace("\x00", "�")


def _json(headers: Mapping[str, Any]) -> str:
    return write_json({_text(k): v if isinstance(v, int) else _text(v) for k, v in headers.items()})


def _instant(value: object) -> datetime | None:
    try:
        found = datetime.fromisoformat(str(value))
    except ValueError:
        return None
    return found if found.tzinfo else None


async def list_letters(
    connection: Any, *, status: str = "open", before: UUID | None = None, limit: int = 50
) -> list[Any]:
    """Give a page of dead letters, newest first, without their bodies."""
    return list(await connection.fetch(LIST, status, before, limit))


async def get_body(connection: Any, dead_letter_id: UUID) -> bytes | None:
    """Give the body of a letter, to look at or to mend; None if there is no such letter."""
    body = await connection.fetchval(
        "SELECT body FROM bus_dead_letter WHERE dead_letter_id = $1", dead_letter_id
    )
    return bytes(body) if body is not None else None


async def put_body(connection: Any, dead_letter_id: UUID, body: bytes) -> None:
    """Replace the body of an open letter before it is replayed."""
    await connection.execute(
        "UPDATE bus_dead_letter SET body = $2 WHERE dead_letter_id = $1 AND status = 'open'",
        dead_letter_id,
        body,
    )


async def replay(tx: Tx, dead_letter_ids: Iterable[UUID]) -> int:
    """Send open letters to their queues once more, with new message ids; give how many.

    They pass through the first retry tier, so they arrive after 5 s.
    """
    rows = await tx.fetch(TAKE, list(dead_letter_ids), "replayed")
    tx.publish(*(_again(row, tx.context.clock.machine_now()) for row in rows))
    return len(rows)


async def discard(tx: Tx, dead_letter_ids: Iterable[UUID]) -> int:
    """Give letters up for good; their rows stay. Gives how many."""
    return len(await tx.fetch(TAKE, list(dead_letter_ids), "discarded"))


def _again(row: Any, machine_now: datetime) -> Envelope:
    headers = {k: v for k, v in read_json(row["headers"]).items() if isinstance(v, str | int)}
    headers |= {wire.ATTEMPT: 0, TIER_HEADER: REPLAY_TIER}
    message_id = new_id()
    headers["cloudEvents:id"] = str(message_id)
    return Envelope(
        message_id=message_id,
        exchange=RETRY,
        routing_key=row["queue"],
        type=row["type"] or "",
        subject="",
        body=bytes(row["body"]),
        created_at=machine_now,
        headers=headers,
    )
