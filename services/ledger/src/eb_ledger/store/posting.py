"""Posting charges: once per charge, sums under row locks, lines by COPY. Each is one statement for a take."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import date, datetime
from decimal import Decimal
from uuid import UUID

from eb_kit.tx import Tx

from ..domain.commission import CommissionKey
from ..domain.entries import Entry
from ..domain.postings import ChargeKey, Offer


async def ensure_month(tx: Tx, month: date) -> None:
    """Have the ledger's partition of this month (UTC); call it in a transaction of its own."""
    await tx.execute("SELECT platform.ensure_month('ledger.ledger', $1)", month)


async def insert_postings_once(
    tx: Tx, offers: Mapping[ChargeKey, Offer], entry_ids: Mapping[ChargeKey, UUID]
) -> set[ChargeKey]:
    """Claim each charge for its entry; give the keys that were new.

    The rows are locked in the order of `offers`, which must be the same everywhere (sorted): so two takes
    of the same charges wait for each other and never deadlock.
    """
    rows = await tx.fetch(
        "INSERT INTO charge_posting (charge_id, org_id, content_hash, entry_id, created_at)"
        " SELECT charge_id, org_id, content_hash, entry_id, $5"
        " FROM unnest($1::text[], $2::uuid[], $3::bytea[], $4::uuid[])"
        " AS offered (charge_id, org_id, content_hash, entry_id)"
        " ON CONFLICT DO NOTHING RETURNING charge_id, org_id",
        [key.charge_id for key in offers],
        [key.org_id for key in offers],
        [offer.content_hash for offer in offers.values()],
        [entry_ids[key] for key in offers],
        tx.now,
    )
    return {ChargeKey(*row) for row in rows}


async def list_posted_hashes(tx: Tx, keys: Sequence[ChargeKey]) -> dict[ChargeKey, bytes]:
    """Give the content hash under which each of these charges was posted."""
    rows = await tx.fetch(
        "SELECT charge_id, org_id, content_hash FROM charge_posting"
        " JOIN unnest($1::text[], $2::uuid[]) AS asked (charge_id, org_id) USING (charge_id, org_id)",
        [key.charge_id for key in keys],
        [key.org_id for key in keys],
    )
    return {ChargeKey(row[0], row[1]): row[2] for row in rows}


async def add_to_commission_counters(
    tx: Tx, added: Mapping[CommissionKey, Decimal]
) -> dict[CommissionKey, Decimal]:
    """Add gross to each key's counter; give the gross of each after it.

    Locks the rows in the order of `added` (sorted by the caller) until `tx` ends.
    """
    rows = await tx.fetch(
        "INSERT INTO commission_counter AS c (partner_id, org_id, sku, period, currency, pct, gross)"
        " SELECT * FROM unnest($1::uuid[], $2::uuid[], $3::text[], $4::text[], $5::text[],"
        " $6::numeric[], $7::numeric[])"
        " ON CONFLICT (partner_id, org_id, sku, period, currency, pct)"
        " DO UPDATE SET gross = c.gross + excluded.gross"
        " RETURNING partner_id, org_id, sku, period, currency, pct, gross",
        *(list(column) for column in zip(*added, strict=True)),
        list(added.values()),
    )
    return {CommissionKey(*row[:6]): row[6] for row in map(tuple, rows)}


async def insert_entries(tx: Tx, entries: Iterable[Entry]) -> None:
    """COPY lines; the partition of their month must be there."""
    await tx.copy("ledger", Entry._fields, entries)


async def list_missing_months(tx: Tx, first: datetime, months: int) -> list[date]:
    """Give the first days of those of the coming months (UTC) that have no partition yet."""
    rows = await tx.fetch(
        "SELECT month::date AS month FROM generate_series(date_trunc('month', $1::timestamptz, 'UTC'),"
        " $1::timestamptz + make_interval(months => $2), interval '1 month') AS month"
        " WHERE to_regclass('ledger.ledger_p' || to_char(month AT TIME ZONE 'UTC', 'YYYY_MM')) IS NULL",
        first,
        months,
    )
    return [row["month"] for row in rows]
