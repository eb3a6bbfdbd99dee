"""Billing periods and the calendar of what begins when; re-ratings that were asked for."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime
from uuid import UUID

from eb_contracts.errors import NotFound
from eb_contracts.pricing import PeriodClosed
from eb_kit.tx import Tx

from ..domain.periods import BillingPeriod, PeriodKey, Rerate, Visit
from .lists import columns_of


async def mark_calendar_due(tx: Tx, org_ids: Collection[UUID]) -> None:
    """Have the calendar of these organisations looked at now."""
    await tx.execute(
        "INSERT INTO org_calendar AS o (org_id, due_at) SELECT unnest($1::uuid[]), $2::timestamptz"
        " ON CONFLICT (org_id) DO UPDATE SET due_at = least(o.due_at, excluded.due_at)",
        sorted(set(org_ids)),
        tx.now,
    )


async def take_calendar(tx: Tx, limit: int) -> dict[UUID, str | None]:
    """Take organisations for which something begins; each with its first period that isn't opened yet."""
    rows = await tx.fetch(
        "SELECT org_id, next_period FROM org_calendar WHERE due_at <= $1"
        " ORDER BY due_at, org_id LIMIT $2 FOR UPDATE SKIP LOCKED",
        tx.now,
        limit,
    )
    return {row["org_id"]: row["next_period"] for row in rows}


async def update_calendar(tx: Tx, visits: Collection[Visit]) -> None:
    """Note when the next thing begins for organisations, and which periods they have."""
    await tx.execute(
        "UPDATE org_calendar AS o SET due_at = v.due_at, next_period = v.next_period"
        " FROM unnest($1::uuid[], $2::timestamptz[], $3::text[]) AS v (org_id, due_at, next_period)"
        " WHERE o.org_id = v.org_id",
        [visit.org_id for visit in visits],
        [visit.due_at for visit in visits],
        [visit.next_period for visit in visits],
    )


async def delete_calendar(tx: Tx, org_ids: Collection[UUID]) -> None:
    """Forget organisations that have no terms; their first assignment marks them again."""
    await tx.execute("DELETE FROM org_calendar WHERE org_id = ANY($1)", list(org_ids))


async def list_open_periods(tx: Tx, org_ids: Collection[UUID]) -> list[PeriodKey]:
    """Give the periods of organisations that began and aren't closed."""
    rows = await tx.fetch(
        "SELECT org_id, period FROM billing_period WHERE org_id = ANY($1) AND closed_at IS NULL",
        list(org_ids),
    )
    return [PeriodKey(*row) for row in rows]


async def put_periods(tx: Tx, periods: Sequence[BillingPeriod]) -> None:
    """Keep periods that began; a bound that moved with the time zone is moved while they are open."""
    await tx.execute(
        "INSERT INTO billing_period AS p (org_id, period, starts_at, ends_at)"
        " SELECT * FROM unnest($1::uuid[], $2::text[], $3::timestamptz[], $4::timestamptz[]) ORDER BY 1, 2"
        " ON CONFLICT (org_id, period) DO UPDATE SET starts_at = excluded.starts_at, ends_at = excluded.ends_at"
        " WHERE p.closed_at IS NULL AND (p.starts_at, p.ends_at) <> (excluded.starts_at, excluded.ends_at)",
        *columns_of([one.key for one in periods], 2),
        [one.starts_at for one in periods],
        [one.ends_at for one in periods],
    )


async def count_due_to_close(tx: Tx, ended_by: datetime, limit: int) -> int:
    """Count open periods that ended by then, up to `limit`."""
    count: int = await tx.fetchval(
        "SELECT count(*) FROM (SELECT 1 FROM billing_period WHERE closed_at IS NULL AND ends_at <= $1"
        " LIMIT $2) AS due",
        ended_by,
        limit,
    )
    return count


async def count_overdue(tx: Tx, ended_by: datetime, closed_by: datetime, limit: int) -> int:
    """Count periods that ended by then and are open, or were closed by then and aren't settled, up to `limit`."""
    count: int = await tx.fetchval(
        "SELECT count(*) FROM (SELECT 1 FROM billing_period WHERE closed_at IS NULL AND ends_at <= $1"
        " UNION ALL SELECT 1 FROM billing_period WHERE closed_at <= $2 AND settled_at IS NULL LIMIT $3) AS overdue",
        ended_by,
        closed_by,
        limit,
    )
    return count


async def close_periods(tx: Tx, ended_by: datetime, limit: int) -> int:
    """Close periods that ended by then; give how many. The terms must be locked alone."""
    tag = await tx.execute(
        "UPDATE billing_period AS p SET closed_at = $3, closed_by = $4 FROM (SELECT org_id, period"
        " FROM billing_period WHERE closed_at IS NULL AND ends_at <= $1 ORDER BY ends_at, org_id LIMIT $2"
        " FOR UPDATE SKIP LOCKED) AS due WHERE (p.org_id, p.period) = (due.org_id, due.period)",
        ended_by,
        limit,
        tx.now,
        tx.actor,
    )
    return int(tag.rpartition(" ")[2])


async def close_period(tx: Tx, key: PeriodKey) -> None:
    """Close a period that is open. The terms must be locked alone."""
    await tx.execute(
        "UPDATE billing_period SET closed_at = $3, closed_by = $4"
        " WHERE org_id = $1 AND period = $2 AND closed_at IS NULL",
        *key,
        tx.now,
        tx.actor,
    )


async def take_unsettled(tx: Tx, limit: int) -> list[BillingPeriod]:
    """Take periods whose counters are to be brought to their closed targets, those closed first before others."""
    rows = await tx.fetch(
        f"SELECT {_PERIOD} FROM billing_period WHERE closed_at IS NOT NULL AND settled_at IS NULL"
        " AND (retry_at IS NULL OR retry_at <= $1) ORDER BY closed_at, org_id LIMIT $2 FOR UPDATE SKIP LOCKED",
        tx.now,
        limit,
    )
    return [BillingPeriod.of(**dict(row)) for row in rows]


_PERIOD = "org_id, period, starts_at, ends_at, closed_at, closed_by, settled_at, charges"


async def get_period(tx: Tx, key: PeriodKey) -> BillingPeriod:
    """Give a period, or raise NotFound."""
    row = await tx.fetchrow(f"SELECT {_PERIOD} FROM billing_period WHERE org_id = $1 AND period = $2", *key)
    if row is None:
        raise NotFound
    return BillingPeriod.of(**dict(row))


async def settle_periods(tx: Tx, charges: Mapping[PeriodKey, int]) -> None:
    """Note that the counters of periods stand at their closed targets, and how many charges that took."""
    await tx.execute(
        "UPDATE billing_period AS p SET settled_at = $4, charges = s.charges"
        " FROM unnest($1::uuid[], $2::text[], $3::integer[]) AS s (org_id, period, charges)"
        " WHERE (p.org_id, p.period) = (s.org_id, s.period)",
        *columns_of(list(charges), 2),
        list(charges.values()),
        tx.now,
    )


async def postpone_periods(tx: Tx, keys: Collection[PeriodKey], retry_at: datetime) -> None:
    """Leave closed periods alone until then: terms that they need are missing."""
    await tx.execute(
        "UPDATE billing_period AS p SET retry_at = $3 FROM unnest($1::uuid[], $2::text[]) AS k (org_id, period)"
        " WHERE (p.org_id, p.period) = (k.org_id, k.period)",
        *columns_of(list(keys), 2),
        retry_at,
    )


async def list_closed(tx: Tx, keys: Iterable[PeriodKey]) -> set[PeriodKey]:
    """Give those of these periods that are closed."""
    rows = await tx.fetch(
        "SELECT p.org_id, p.period FROM unnest($1::uuid[], $2::text[]) AS k (org_id, period)"
        " JOIN billing_period AS p USING (org_id, period) WHERE p.closed_at IS NOT NULL",
        *columns_of(list(keys), 2),
    )
    return {PeriodKey(*row) for row in rows}


async def list_period_facts(tx: Tx, after: str | None, limit: int) -> list[PeriodClosed]:
    """Give the facts of closed periods in the order of their ids."""
    org_id, _, period = (after or "/").partition("/")
    rows = await tx.fetch(
        f"SELECT {_PERIOD} FROM billing_period WHERE settled_at IS NOT NULL"
        " AND ($1::uuid IS NULL OR (org_id, period) > ($1, $2)) ORDER BY org_id, period LIMIT $3",
        UUID(org_id) if org_id else None,
        period,
        limit,
    )
    return [BillingPeriod.of(**dict(row)).fact() for row in rows]


async def find_rerate(tx: Tx, key_scope: str, idempotency_key: str) -> Rerate | None:
    """Find what was re-rated under an Idempotency-Key, however long ago."""
    row = await tx.fetchrow(
        "SELECT rerate_id, org_id, period, reason, actor, charges FROM rerate"
        " WHERE key_scope = $1 AND idempotency_key = $2",
        key_scope,
        idempotency_key,
    )
    return None if row is None else Rerate(**dict(row))


async def insert_rerate(tx: Tx, rerate: Rerate, key_scope: str, idempotency_key: str) -> None:
    """Keep what was re-rated, with its Idempotency-Key for ever."""
    await tx.execute(
        "INSERT INTO rerate (rerate_id, org_id, period, reason, actor, charges, key_scope, idempotency_key,"
        " created_at) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
        *rerate,
        key_scope,
        idempotency_key,
        tx.now,
    )
