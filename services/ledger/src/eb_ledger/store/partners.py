"""Partners with their tiers, commission rates, and partners of record."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from uuid import UUID

import asyncpg

from eb_contracts.errors import NotFound
from eb_contracts.ledger import PartnerChanged
from eb_kit.tx import Tx

from ..domain.attribution import PartnerOfRecord
from ..domain.errors import PartnerUnknown, PorOverlap, RateConflict
from ..domain.partners import CommissionRate, Partner, partner_fact
from .lookups import POR_COLUMNS

OVERLAPS = (
    "partner_of_record_org_overlap",
    "partner_of_record_account_overlap",
    "partner_of_record_org_partner_start_key",
)
OVERLAPPED = (asyncpg.ExclusionViolationError, asyncpg.UniqueViolationError)
PARTNERS = (
    "SELECT p.partner_id, p.name, t.tier, t.effective_at AS tier_from, p.min_payout, p.payout_provider,"
    " p.destination, p.created_at, p.org_id, p.version FROM partner p"
    " CROSS JOIN LATERAL (SELECT tier, effective_at FROM partner_tier"
    " WHERE partner_id = p.partner_id ORDER BY effective_at DESC LIMIT 1) AS t"
)


async def insert_partner(tx: Tx, partner: Partner) -> None:
    """Keep a new partner with its first tier."""
    await tx.execute(
        "INSERT INTO partner (partner_id, name, min_payout, payout_provider, destination, created_at, org_id, version)"
        " VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
        partner.partner_id,
        partner.name,
        dict(partner.min_payout),
        partner.payout_provider,
        partner.destination,
        partner.created_at,
        partner.org_id,
        partner.version,
    )
    await put_tier(tx, partner.partner_id, partner.tier, partner.tier_from)


async def put_tier(tx: Tx, partner_id: UUID, tier: str, effective_at: datetime) -> None:
    """Give a partner a tier from an instant on; the same instant again keeps the later word."""
    await tx.execute(
        "INSERT INTO partner_tier (partner_id, effective_at, tier) VALUES ($1, $2, $3)"
        " ON CONFLICT (partner_id, effective_at) DO UPDATE SET tier = excluded.tier",
        partner_id,
        effective_at,
        tier,
    )


async def lock_partner(tx: Tx, partner_id: UUID) -> Partner:
    """Lock a partner until `tx` ends; raises NotFound."""
    row = await tx.fetchrow(f"{PARTNERS} WHERE p.partner_id = $1 FOR UPDATE OF p", partner_id)
    if row is None:
        raise NotFound
    return _partner(row)


async def update_partner(tx: Tx, partner: Partner) -> None:
    """Write name, minima, provider, destination, organisation and version of a locked partner."""
    await tx.execute(
        "UPDATE partner SET name = $2, min_payout = $3, payout_provider = $4, destination = $5, org_id = $6,"
        " version = $7 WHERE partner_id = $1",
        partner.partner_id,
        partner.name,
        dict(partner.min_payout),
        partner.payout_provider,
        partner.destination,
        partner.org_id,
        partner.version,
    )


async def list_partner_facts(tx: Tx, after_id: str | None, limit: int) -> list[PartnerChanged]:
    """Give partners in the order of their ids, for a snapshot."""
    rows = await tx.fetch(
        f"{PARTNERS} WHERE $1::uuid IS NULL OR p.partner_id > $1 ORDER BY p.partner_id LIMIT $2",
        UUID(after_id) if after_id else None,
        limit,
    )
    return [partner_fact(_partner(row)) for row in rows]


async def list_partners(tx: Tx, before: UUID | None, limit: int) -> list[Partner]:
    """Give partners, newest first, each with its newest tier."""
    rows = await tx.fetch(
        f"{PARTNERS} WHERE $1::uuid IS NULL OR p.partner_id < $1 ORDER BY p.partner_id DESC LIMIT $2",
        before,
        limit,
    )
    return [_partner(row) for row in rows]


def _partner(row: asyncpg.Record) -> Partner:
    values = dict(row)
    minima = {currency: Decimal(amount) for currency, amount in values.pop("min_payout").items()}
    return Partner(min_payout=minima, **values)


async def insert_rate_once(tx: Tx, rate: CommissionRate) -> bool:
    """Keep a rate; False if it was there. Raises RateConflict where the instant has another percentage."""
    is_new = await tx.fetchval(
        "INSERT INTO commission_rate (partner_tier, sku, pct, effective_at, created_at)"
        " VALUES ($1, $2, $3, $4, $5) ON CONFLICT DO NOTHING RETURNING true",
        rate.partner_tier,
        rate.sku,
        rate.pct,
        rate.effective_at,
        tx.now,
    )
    if is_new:
        return True
    pct = await tx.fetchval(
        "SELECT pct FROM commission_rate WHERE partner_tier = $1 AND sku = $2 AND effective_at = $3",
        rate.partner_tier,
        rate.sku,
        rate.effective_at,
    )
    if pct != rate.pct:
        raise RateConflict(f"It is {pct}.", pct=str(pct))
    return False


async def list_rates(
    tx: Tx,
    partner_tier: str | None,
    sku: str | None,
    before: tuple[datetime, str, str] | None,
    limit: int,
) -> list[CommissionRate]:
    """Give rates, the latest in force first, before (effective_at, tier, SKU)."""
    rows = await tx.fetch(
        "SELECT partner_tier, sku, pct, effective_at FROM commission_rate"
        " WHERE ($1::text IS NULL OR partner_tier = $1) AND ($2::text IS NULL OR sku = $2)"
        " AND ($3::timestamptz IS NULL OR (effective_at, partner_tier, sku) < ($3, $4::text, $5::text))"
        " ORDER BY effective_at DESC, partner_tier DESC, sku DESC LIMIT $6",
        partner_tier,
        sku,
        *(before or (None, None, None)),
        limit,
    )
    return [CommissionRate(**dict(row)) for row in rows]


async def insert_por(tx: Tx, por: PartnerOfRecord) -> None:
    """Keep a partner of record; raises PorOverlap or PartnerUnknown."""
    try:
        await tx.execute(
            f"INSERT INTO partner_of_record ({POR_COLUMNS}) VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
            por.por_id,
            por.org_id,
            por.billing_account_id,
            por.partner_id,
            por.start_at,
            por.end_at,
            por.status,
            por.created_at,
        )
    except OVERLAPPED as error:
        raise _overlap(error) from None
    except asyncpg.ForeignKeyViolationError:
        raise PartnerUnknown.of(por.partner_id) from None


async def lock_por(tx: Tx, por_id: UUID) -> PartnerOfRecord:
    """Lock a partner of record until `tx` ends; raises NotFound."""
    row = await tx.fetchrow(
        f"SELECT {POR_COLUMNS} FROM partner_of_record WHERE por_id = $1 FOR UPDATE",
        por_id,
    )
    if row is None:
        raise NotFound
    return PartnerOfRecord(**dict(row))


async def update_por_end(tx: Tx, por: PartnerOfRecord) -> None:
    """Write end and status; raises PorOverlap where a later end meets the next one."""
    try:
        await tx.execute(
            "UPDATE partner_of_record SET end_at = $2, status = $3 WHERE por_id = $1",
            por.por_id,
            por.end_at,
            por.status,
        )
    except OVERLAPPED as error:
        raise _overlap(error) from None


def _overlap(error: asyncpg.IntegrityConstraintViolationError) -> Exception:
    return PorOverlap() if error.constraint_name in OVERLAPS else error


async def list_pors(
    tx: Tx,
    *,
    org_id: UUID | None,
    billing_account_id: UUID | None,
    partner_id: UUID | None,
    before: UUID | None,
    limit: int,
) -> list[PartnerOfRecord]:
    """Give partners of record, newest first, by whom they are of and who they are."""
    rows = await tx.fetch(
        f"SELECT {POR_COLUMNS} FROM partner_of_record"
        " WHERE ($1::uuid IS NULL OR org_id = $1) AND ($2::uuid IS NULL OR billing_account_id = $2)"
        " AND ($3::uuid IS NULL OR partner_id = $3) AND ($4::uuid IS NULL OR por_id < $4)"
        " ORDER BY por_id DESC LIMIT $5",
        org_id,
        billing_account_id,
        partner_id,
        before,
        limit,
    )
    return [PartnerOfRecord(**dict(row)) for row in rows]
