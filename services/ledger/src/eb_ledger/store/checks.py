"""The online checker: what was posted lately is looked at again, by the order of entry ids."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from eb_kit.tx import Tx

from ..domain.commission import CommissionKey
from ..domain.invariants import ShareSum

MOST_KEYS = 200


def id_floor(at: datetime) -> UUID:
    """Give the smallest UUIDv7 of an instant: entry ids are made by the machine's clock."""
    return UUID(int=int(at.timestamp() * 1000) << 80)


async def lock_mark(tx: Tx, name: str, first: datetime) -> datetime | None:
    """Lock how far an invariant is checked until `tx` ends; None while another process checks it."""
    await tx.execute(
        "INSERT INTO invariant_check (name, checked_until, breaches) VALUES ($1, $2, 0) ON CONFLICT DO NOTHING",
        name,
        first,
    )
    mark: datetime | None = await tx.fetchval(
        "SELECT checked_until FROM invariant_check WHERE name = $1 FOR UPDATE SKIP LOCKED", name
    )
    return mark


async def update_mark(tx: Tx, name: str, until: datetime, breaches: int) -> int:
    """Write how far it is checked now; give all breaches found so far."""
    total: int = await tx.fetchval(
        "UPDATE invariant_check SET checked_until = $2, breaches = breaches + $3 WHERE name = $1"
        " RETURNING breaches",
        name,
        until,
        breaches,
    )
    return total


async def count_split_breaches(tx: Tx, since: datetime, until: datetime) -> int:
    """Count lines whose gross isn't the partner's part and the net together."""
    found: int = await tx.fetchval(
        "SELECT count(*) FROM ledger WHERE entry_id >= $1 AND entry_id < $2"
        " AND amount_gross IS DISTINCT FROM partner_amount + net",
        id_floor(since),
        id_floor(until),
    )
    return found


async def count_posting_breaches(tx: Tx, since: datetime, until: datetime) -> int:
    """Count lines of charges that are not the one line their charge was posted as."""
    found: int = await tx.fetchval(
        "SELECT count(*) FROM ledger l WHERE l.entry_id >= $1 AND l.entry_id < $2 AND l.charge_id IS NOT NULL"
        " AND NOT EXISTS (SELECT 1 FROM charge_posting c WHERE c.charge_id = l.charge_id AND c.org_id = l.org_id"
        " AND c.entry_id = l.entry_id)",
        id_floor(since),
        id_floor(until),
    )
    return found


async def list_share_sums(tx: Tx, since: datetime, until: datetime) -> list[ShareSum]:
    """Sum all lines of the commission keys that got lines lately, up to 200 keys."""
    rows = await tx.fetch(
        "SELECT partner_id, org_id, sku, period, currency, partner_pct, sum(amount_gross), sum(partner_amount)"
        " FROM ledger JOIN (SELECT DISTINCT partner_id, org_id, sku, period, currency, partner_pct FROM ledger"
        " WHERE entry_id >= $1 AND entry_id < $2 AND partner_pct > 0 AND charge_id IS NOT NULL LIMIT $3) AS lately"
        " USING (partner_id, org_id, sku, period, currency, partner_pct)"
        " WHERE charge_id IS NOT NULL GROUP BY 1, 2, 3, 4, 5, 6",
        id_floor(since),
        id_floor(until),
        MOST_KEYS,
    )
    return [ShareSum(CommissionKey(*row[:6]), row[6], row[7]) for row in map(tuple, rows)]
