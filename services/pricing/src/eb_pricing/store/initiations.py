"""Answers to authorize, and holds."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import astuple
from datetime import datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

from eb_contracts.errors import NotFound
from eb_kit.tx import Tx
from eb_rating.caps import Spend
from eb_rating.credits import Grant

from ..domain.initiations import Action, CapState, Held, Initiation, Standing

COLUMNS = tuple(Initiation.__dataclass_fields__)
AUTHORIZE_LOCK = 702_025_092
ZERO = Decimal(0)


async def lock_initiations(tx: Tx, org_id: UUID) -> None:
    """Have no other answer about this organisation given until `tx` ends.

    Answers wait for each other and for nothing else: charges that are under way are seen as they were before.
    """
    await tx.execute("SELECT pg_advisory_xact_lock($1, hashtext($2))", AUTHORIZE_LOCK, str(org_id))


async def find_initiations(tx: Tx, org_id: UUID, request_ids: Collection[str]) -> dict[str, Initiation]:
    """Give the answers to earlier questions, by their request ids."""
    rows = await tx.fetch(
        "SELECT * FROM initiation WHERE org_id = $1 AND request_id = ANY($2)", org_id, list(request_ids)
    )
    return {row["request_id"]: Initiation(**dict(row)) for row in rows}


_STANDING = """
    WITH open AS (
        SELECT project_id, sku, period, quantity, amount, needs_credit FROM initiation
        WHERE org_id = $1 AND hold_id IS NOT NULL AND released_at IS NULL AND expires_at > $5 AND currency = $4),
    held AS (
        SELECT coalesce(sum(quantity) FILTER (WHERE sku = $2 AND period = $3), 0) AS quantity,
               count(*) FILTER (WHERE sku = $2 AND period = $3) AS count,
               coalesce(sum(amount) FILTER (WHERE needs_credit), 0) AS credit
        FROM open),
    caps AS (
        SELECT b.project_id, b.amount, coalesce(s.total, 0) AS total, coalesce(s.granted, 0) AS granted,
               (SELECT coalesce(sum(greatest(o.amount, 0)), 0) FROM open AS o WHERE o.period = $3
                AND (b.project_id IS NULL OR o.project_id = b.project_id)) AS held
        FROM budget AS b LEFT JOIN budget_spend AS s ON s.budget_id = b.budget_id AND s.period = $3
        WHERE b.org_id = $1 AND b.hard_cap AND b.currency = $4 AND b.first_period <= $3
          AND (b.project_id IS NULL OR b.project_id = $6)),
    grants AS (
        SELECT c.credit_id, c.currency, c.amount, u.drawn, c.priority, c.created_at, c.expires_at, c.sku_types
        FROM credit AS c JOIN credit_use AS u USING (credit_id)
        WHERE c.org_id = $1 AND c.currency = $4 AND (c.expires_at IS NULL OR c.expires_at > $5))
    SELECT (SELECT quantity FROM counter WHERE (org_id, sku, period) = ($1, $2, $3)) AS quantity,
           (SELECT events FROM counter WHERE (org_id, sku, period) = ($1, $2, $3)) AS events,
           held.quantity AS held_quantity, held.count AS held_count, held.credit AS held_credit,
           coalesce((SELECT (body ->> 'prepaid_only')::boolean FROM known
                     WHERE entity = 'sku' AND entity_id = $2 AND NOT is_deleted), false) AS is_prepaid_only,
           ARRAY(SELECT caps FROM caps ORDER BY project_id NULLS LAST) AS caps,
           ARRAY(SELECT grants FROM grants) AS grants
    FROM held
"""


async def read_standing(tx: Tx, action: Action, period: str, currency: str) -> Standing:
    """Read all that an answer depends on in one statement: one snapshot.

    A charge releases its hold and moves its budget in one transaction, so it is seen on one side or the
    other, never on neither.
    """
    row = await tx.fetchrow(_STANDING, action.org_id, action.sku, period, currency, tx.now, action.project_id)
    assert row is not None
    return Standing(
        quantity=row["quantity"] or ZERO,
        events=row["events"] or 0,
        held=Held(quantity=row["held_quantity"], actions=row["held_count"]),
        caps=tuple(_cap(one) for one in row["caps"]),
        is_prepaid_only=row["is_prepaid_only"],
        grants=tuple(_grant(one) for one in row["grants"]),
        held_credit=row["held_credit"],
    )


def _cap(row: Sequence[Any]) -> CapState:
    project_id, cap, total, granted, held = row
    return CapState(project_id, cap, Spend(total, granted), held)


def _grant(row: Sequence[Any]) -> Grant:
    credit_id, currency, amount, drawn, priority, created_at, expires_at, sku_types = row
    pays_for = None if sku_types is None else frozenset(sku_types)
    return Grant(str(credit_id), currency, amount, drawn, priority, created_at, expires_at, pays_for)


async def insert_initiations(tx: Tx, answers: Sequence[Initiation]) -> None:
    """Keep answers. Without a hold among them they needn't outlive a crash of the machine: their commit doesn't
    wait for the disk, since asking again does no harm.
    """
    await tx.copy("initiation", COLUMNS, [astuple(one) for one in answers])
    if not any(one.hold_id for one in answers):
        await tx.execute("SET LOCAL synchronous_commit = off")


async def get_hold(tx: Tx, hold_id: UUID) -> Initiation:
    """Give a hold; raises NotFound."""
    row = await tx.fetchrow("SELECT * FROM initiation WHERE hold_id = $1", hold_id)
    if row is None:
        raise NotFound
    return Initiation(**dict(row))


async def release_holds(tx: Tx, holds: Collection[tuple[UUID, UUID]]) -> int:
    """Release holds by (organisation, hold), in order of their ids; give how many were open."""
    released: int = await tx.fetchval(
        "WITH found AS (SELECT i.hold_id FROM unnest($1::uuid[], $2::uuid[]) AS h (org_id, hold_id)"
        " JOIN initiation AS i USING (org_id, hold_id) WHERE i.released_at IS NULL AND i.expires_at > $3"
        " ORDER BY i.hold_id FOR UPDATE OF i),"
        " done AS (UPDATE initiation SET released_at = $3 WHERE hold_id IN (SELECT hold_id FROM found) RETURNING 1)"
        " SELECT count(*) FROM done",
        [org_id for org_id, _ in holds],
        [hold_id for _, hold_id in holds],
        tx.now,
    )
    return released


async def delete_old_initiations(tx: Tx, before: datetime, limit: int) -> int:
    """Forget answers older than `before`; give how many."""
    tag = await tx.execute(
        "DELETE FROM initiation WHERE (org_id, request_id) IN (SELECT org_id, request_id FROM initiation"
        " WHERE created_at < $1 ORDER BY created_at LIMIT $2 FOR UPDATE SKIP LOCKED)",
        before,
        limit,
    )
    return int(tag.rpartition(" ")[2])
