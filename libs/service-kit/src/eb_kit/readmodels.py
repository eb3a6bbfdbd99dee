"""Read models: the public state of other services' entities, kept in the own table `known`.

Only a higher version is applied, and deletions stay as tombstones, so order and repetition don't matter.
A new or rebuilt reader asks the owner for a snapshot. Rule: docs/rules/bus.md, Read models.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, TypeVar

from eb_contracts.base import EntityFact
from eb_contracts.ids import new_id
from eb_contracts.snapshots import SnapshotCompleted, SnapshotRequested

if TYPE_CHECKING:
    from .bus.handlers import Lister
    from .tx import Tx

F = TypeVar("F", bound=EntityFact)

PAGE = 500
ASK_AGAIN = timedelta(seconds=30)

KEEP = """
    INSERT INTO known (entity, entity_id, version, is_deleted, body, changed_at)
    SELECT entity, entity_id, version, is_deleted, body::jsonb, $6
      FROM unnest($1::text[], $2::text[], $3::bigint[], $4::boolean[], $5::text[])
        AS f (entity, entity_id, version, is_deleted, body)
    ON CONFLICT (entity, entity_id) DO UPDATE
       SET version = excluded.version, is_deleted = excluded.is_deleted,
           body = excluded.body, changed_at = excluded.changed_at
     WHERE known.version < excluded.version
    RETURNING entity, entity_id
"""
ASK = """
    INSERT INTO read_model AS r (entity, snapshot_id, state, requested_at)
    SELECT entity, snapshot_id, 'loading', $3 FROM unnest($1::text[], $2::uuid[]) AS w (entity, snapshot_id)
    ON CONFLICT (entity) DO UPDATE SET requested_at = excluded.requested_at
     WHERE r.state = 'loading' AND r.requested_at < $4
    RETURNING entity, snapshot_id
"""
EXPECT = """
    UPDATE read_model SET expected = $3 WHERE entity = $1 AND snapshot_id = $2 AND state = 'loading'
"""
SETTLE = """
    UPDATE read_model AS r SET state = 'complete', completed_at = $1
     WHERE state = 'loading' AND expected <= (SELECT count(*) FROM known WHERE entity = r.entity)
"""
COMPLETE = "SELECT entity FROM read_model WHERE entity = ANY($1) AND state = 'complete'"
RESET = """
    INSERT INTO read_model (entity, snapshot_id, state, requested_at) VALUES ($1, $2, 'loading', $3)
    ON CONFLICT (entity) DO UPDATE SET snapshot_id = excluded.snapshot_id, state = 'loading',
       requested_at = excluded.requested_at, expected = NULL, completed_at = NULL
"""


async def keep(connection: Any, facts: Iterable[F], machine_now: datetime) -> list[F]:
    """Apply facts in one statement; give those that were newer than what was known.

    Locks the rows in key order until the transaction ends.
    """
    newest: dict[tuple[str, str], F] = {}
    for fact in facts:
        key = (fact.ENTITY, fact.entity_id)
        if key not in newest or newest[key].version < fact.version:
            newest[key] = fact
    keys = sorted(newest)
    rows = await connection.fetch(
        KEEP,
        [entity for entity, _ in keys],
        [entity_id for _, entity_id in keys],
        [newest[key].version for key in keys],
        [newest[key].is_deleted for key in keys],
        [newest[key].model_dump_json() for key in keys],
        machine_now,
    )
    return [newest[row["entity"], row["entity_id"]] for row in rows]


async def bodies(connection: Any, entity: str, entity_ids: Collection[str]) -> dict[str, Mapping[str, Any]]:
    """Give the live entities among these ids, by id. Sweeps of what waits for a fact ask with this."""
    rows = await connection.fetch(
        "SELECT entity_id, body FROM known WHERE entity = $1 AND entity_id = ANY($2) AND NOT is_deleted",
        entity,
        list(entity_ids),
    )
    return {row["entity_id"]: row["body"] for row in rows}


async def incomplete(connection: Any, entities: Collection[str]) -> list[str]:
    """Name the read models that haven't applied their snapshot yet."""
    rows = await connection.fetch(COMPLETE, list(entities))
    return sorted(set(entities) - {row["entity"] for row in rows})


async def ask_missing(tx: Tx, entities: Collection[str], machine_now: datetime) -> list[str]:
    """Ask the owners for what was never complete, again every 30 s; give what was asked for now."""
    names = sorted(entities)
    asked = await tx.fetch(ASK, names, [new_id() for _ in names], machine_now, machine_now - ASK_AGAIN)
    for row in asked:
        tx.publish(_request(tx, row["entity"], row["snapshot_id"]))
    return [row["entity"] for row in asked]


async def rebuild(tx: Tx, entity: str, machine_now: datetime) -> None:
    """Forget an entity's rows and ask its owner for all of them again; not ready until they are applied."""
    snapshot_id = new_id()
    await tx.execute("DELETE FROM known WHERE entity = $1", entity)
    await tx.execute(RESET, entity, snapshot_id, machine_now)
    tx.publish(_request(tx, entity, snapshot_id))


def _request(tx: Tx, entity: str, snapshot_id: Any) -> SnapshotRequested:
    return SnapshotRequested(entity=entity, reader=tx.context.service_name, snapshot_id=snapshot_id)


async def note_completed(tx: Tx, completed: Sequence[SnapshotCompleted], machine_now: datetime) -> None:
    """Note how many entities the owner sent; complete once that many are known."""
    for snapshot in completed:
        if snapshot.reader == tx.context.service_name:
            await tx.execute(EXPECT, snapshot.entity, snapshot.snapshot_id, snapshot.count)
    await settle(tx, machine_now)


async def settle(tx: Tx, machine_now: datetime) -> None:
    """Mark read models complete that know as many entities as the owner counted."""
    await tx.execute(SETTLE, machine_now)


async def send_snapshots(tx: Tx, requests: Sequence[SnapshotRequested], owned: Mapping[str, Lister]) -> None:
    """Send one page of each snapshot asked for, and ask oneself for the next, or tell the count.

    Of the same reader's first requests for an entity only the last is answered: it asked again while we
    were away.
    """
    latest = {
        (request.entity, request.reader, request.after): request
        for request in requests
        if request.entity in owned
    }
    for request in latest.values():
        await _send_page(tx, request, owned[request.entity])


async def _send_page(tx: Tx, request: SnapshotRequested, lister: Lister) -> None:
    facts = await lister(tx, request.after, PAGE)
    tx.publish(*facts)
    sent = request.sent + len(facts)
    if len(facts) < PAGE:
        tx.publish(
            SnapshotCompleted(
                entity=request.entity, reader=request.reader, snapshot_id=request.snapshot_id, count=sent
            )
        )
    else:
        tx.publish(request.model_copy(update={"after": facts[-1].entity_id, "sent": sent}))
