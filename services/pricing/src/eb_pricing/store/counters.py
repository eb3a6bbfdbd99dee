"""Counters: locked in key order, written at once."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from decimal import Decimal
from uuid import UUID

import asyncpg

from eb_kit.db import write_json
from eb_kit.tx import Tx
from eb_rating import Counter as Sums

from ..domain.counters import Counter, CounterKey
from ..domain.periods import PeriodKey
from ..domain.taxes import TaxSum
from .lists import columns_of


async def insert_counters_once(tx: Tx, keys: Mapping[CounterKey, str]) -> None:
    """Insert counters that may be missing, by key in its currency, in key order.

    Where no row is, FOR UPDATE locks nothing, and two first charges would both win. In a closed period they
    are closed from the start.
    """
    await tx.execute(
        "INSERT INTO counter (org_id, sku, period, currency, is_closed) SELECT k.*, EXISTS (SELECT"
        " FROM billing_period AS p WHERE (p.org_id, p.period) = (k.org_id, k.period) AND closed_at IS NOT NULL)"
        " FROM unnest($1::uuid[], $2::text[], $3::text[], $4::text[]) AS k (org_id, sku, period, currency)"
        " ORDER BY 1, 2, 3 ON CONFLICT DO NOTHING",
        *columns_of(list(keys), 3),
        list(keys.values()),
    )


_COUNTER = (
    "c.currency, c.quantity, c.events, c.charged, c.tax_rate, c.tax_base, c.taxed, c.earlier_taxes,"
    " c.terms_hash, c.retail_key, c.version, c.waived, c.base, c.is_closed"
)


async def lock_counters(tx: Tx, keys: Iterable[CounterKey]) -> dict[CounterKey, Counter]:
    """Lock counters until `tx` ends, in key order; those that don't exist are left out."""
    wanted = list(keys)
    rows = await tx.fetch(
        f"SELECT k.place, {_COUNTER} FROM unnest($1::uuid[], $2::text[], $3::text[])"
        " WITH ORDINALITY AS k (org_id, sku, period, place) JOIN counter AS c USING (org_id, sku, period)"
        " ORDER BY org_id, sku, period FOR UPDATE OF c",
        *columns_of(wanted, 3),
    )
    found = ((wanted[row["place"] - 1], row) for row in rows)
    return {key: _counter(key, row) for key, row in found}


async def list_counters_of(tx: Tx, org_ids: Collection[UUID]) -> list[Counter]:
    """Give the counters of organisations that were ever charged, closed periods left out; unlocked."""
    rows = await tx.fetch(
        f"SELECT c.org_id, c.sku, c.period, {_COUNTER} FROM counter AS c"
        " WHERE c.org_id = ANY($1) AND c.version > 0 AND NOT c.is_closed",
        list(org_ids),
    )
    return [_counter(CounterKey(row["org_id"], row["sku"], row["period"]), row) for row in rows]


def _counter(key: CounterKey, row: asyncpg.Record) -> Counter:
    taxes: tuple[TaxSum, ...] = ()
    if row["tax_rate"] is not None:
        earlier = row["earlier_taxes"] or ()
        others = (TaxSum(*(Decimal(number) for number in numbers)) for numbers in earlier)
        taxes = (TaxSum(row["tax_rate"], row["tax_base"], row["taxed"]), *others)
    base = row["base"]
    sums = Sums(row["quantity"], row["events"], row["charged"] - base if base else row["charged"])
    return Counter(
        key,
        row["currency"],
        sums,
        row["terms_hash"],
        row["retail_key"],
        row["version"],
        taxes,
        row["waived"],
        base,
        row["is_closed"],
    )


async def list_counters_in(
    tx: Tx, periods: Collection[PeriodKey], *, with_base_only: bool = False
) -> list[Counter]:
    """Give the counters of periods that were ever charged, or those that base fees were charged to; unlocked."""
    rows = await tx.fetch(
        f"SELECT c.org_id, c.sku, c.period, {_COUNTER} FROM unnest($1::uuid[], $2::text[]) AS k (org_id, period)"
        " JOIN counter AS c USING (org_id, period)"
        f" WHERE {'c.base <> 0' if with_base_only else 'c.version > 0'}",
        *columns_of(list(periods), 2),
    )
    return [_counter(CounterKey(row["org_id"], row["sku"], row["period"]), row) for row in rows]


async def update_counters(tx: Tx, counters: Sequence[Counter]) -> None:
    """Write locked counters as they now are. Decimals travel as text: asyncpg takes long over numeric."""
    taxes = [counter.taxes[0] if counter.taxes else TaxSum(None) for counter in counters]
    await tx.execute(
        "UPDATE counter AS c SET currency = u.currency, quantity = u.quantity, events = u.events,"
        " charged = u.charged, tax_rate = u.tax_rate, tax_base = u.tax_base, taxed = u.taxed,"
        " earlier_taxes = u.earlier_taxes::jsonb, terms_hash = u.terms_hash, retail_key = u.retail_key,"
        " version = u.version, base = u.base, is_closed = u.is_closed"
        " FROM unnest($1::uuid[], $2::text[], $3::text[], $4::text[], $5::text[]::numeric[], $6::bigint[],"
        " $7::text[]::numeric[], $8::text[]::numeric[], $9::text[]::numeric[], $10::text[]::numeric[],"
        " $11::text[], $12::text[], $13::text[], $14::bigint[], $15::text[]::numeric[], $16::boolean[])"
        " AS u (org_id, sku, period, currency,"
        " quantity, events, charged, tax_rate, tax_base, taxed, earlier_taxes, terms_hash, retail_key, version,"
        " base, is_closed)"
        " WHERE c.org_id = u.org_id AND c.sku = u.sku AND c.period = u.period",
        *columns_of([counter.key for counter in counters], 3),
        [counter.currency for counter in counters],
        [str(counter.sums.quantity) for counter in counters],
        [counter.sums.events for counter in counters],
        [str(counter.sums.charged + counter.base) for counter in counters],
        [None if tax.rate is None else str(tax.rate) for tax in taxes],
        [str(tax.gross) for tax in taxes],
        [str(tax.taxed) for tax in taxes],
        [write_json(counter.taxes[1:]) if counter.taxes[1:] else None for counter in counters],
        [counter.terms_hash for counter in counters],
        [counter.retail_key for counter in counters],
        [counter.version for counter in counters],
        [str(counter.base) for counter in counters],
        [counter.is_closed for counter in counters],
    )
