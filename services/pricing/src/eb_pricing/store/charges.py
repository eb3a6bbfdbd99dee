"""Charges: inserted at COPY speed, listed, found."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from operator import attrgetter
from typing import Any
from uuid import UUID

import asyncpg

from eb_contracts.metering import UsageRecord
from eb_kit.tx import Tx

from ..domain.charges import KeptCharge
from ..domain.counters import Counter, CounterKey, Rated
from .lists import columns_of, list_rows


async def find_charged(tx: Tx, usage: Sequence[UsageRecord]) -> set[UUID]:
    """Give the ids of those usage records that have a charge."""
    rows = await tx.fetch(
        "SELECT k.place FROM unnest($1::text[], $2::uuid[]) WITH ORDINALITY AS k (charge_id, org_id, place)"
        " JOIN charge AS c USING (charge_id, org_id)",
        [str(record.usage_id) for record in usage],
        [record.org_id for record in usage],
    )
    return {usage[row["place"] - 1].usage_id for row in rows}


SAME_IN_MESSAGE = (
    "charge_id", "org_id", "project_id", "sku", "period", "time", "kind", "quantity", "event_count", "currency",
    "amount_gross", "tax_amount", "tax_code", "terms_hash", "reason", "actor", "trace_ids",
)  # fmt: skip

BESIDE = (
    "tax_rate", "tax_base", "counter_quantity", "counter_events", "counter_charged", "counter_version", "created_at",
    "is_closed", "base_due", "counter_base", "days_left", "days",
)  # fmt: skip

BY_GUARDS = ("waived_amount", "credit_applied")
"""Columns that are 0 by default: where nothing guards any charge of a take, they aren't sent."""

CHARGE_COLUMNS = (*SAME_IN_MESSAGE, *BESIDE, *BY_GUARDS)

_same_in_message = attrgetter(*SAME_IN_MESSAGE)
_by_guards = attrgetter(*BY_GUARDS)


async def insert_charges(tx: Tx, rated: Sequence[Rated]) -> None:
    """Insert charges at COPY speed; a charge that is there already ends the transaction."""
    rows = [_charge_row(one, tx.now) for one in rated]
    if any(one.settled for one in rated):
        guarded = [(*row, *_by_guards(one.charge)) for row, one in zip(rows, rated, strict=True)]
        await tx.copy("charge", CHARGE_COLUMNS, guarded)
    else:
        await tx.copy("charge", (*SAME_IN_MESSAGE, *BESIDE), rows)


def _charge_row(rated: Rated, now: datetime) -> tuple[object, ...]:
    counter, tax = rated.charge.counter, rated.tax
    state = (counter.quantity, counter.events, counter.charged, counter.version)
    basis = rated.basis
    proration = basis.proration or NOT_PRORATED
    beside = (now, basis.is_closed, basis.base_due, basis.base, *proration)
    return (*_same_in_message(rated.charge), tax.rate, tax.gross, *state, *beside)


NOT_PRORATED = (None, None)


async def find_made(tx: Tx, ids: Collection[tuple[str, UUID]]) -> set[tuple[str, UUID]]:
    """Give those of these charges (id, organisation) that exist."""
    rows = await tx.fetch(
        "SELECT charge_id, org_id FROM unnest($1::text[], $2::uuid[]) AS k (charge_id, org_id)"
        " JOIN charge AS c USING (charge_id, org_id)",
        *columns_of(list(ids), 2),
    )
    return {(row["charge_id"], row["org_id"]) for row in rows}


async def list_gross_by_time(
    tx: Tx, counters: Collection[Counter]
) -> dict[CounterKey, list[tuple[datetime, Decimal]]]:
    """Give the gross amounts charged to counters in their currency, summed by the charges' time."""
    rows = await tx.fetch(
        "SELECT c.org_id, c.sku, c.period, c.time, sum(c.amount_gross) AS gross"
        " FROM unnest($1::uuid[], $2::text[], $3::text[], $4::text[]) AS k (org_id, sku, period, currency)"
        " JOIN charge AS c USING (org_id, sku, period, currency) GROUP BY 1, 2, 3, 4 ORDER BY c.time",
        *columns_of([counter.key for counter in counters], 3),
        [counter.currency for counter in counters],
    )
    found: dict[CounterKey, list[tuple[datetime, Decimal]]] = {counter.key: [] for counter in counters}
    for row in rows:
        found[CounterKey(row["org_id"], row["sku"], row["period"])].append((row["time"], row["gross"]))
    return found


CHARGE_CONDITIONS = {
    "org_id": "org_id = {}",
    "sku": "sku = {}",
    "project_id": "project_id = {}",
    "period": "period = {}",
    "kind": "kind = {}",
    "other_kind": "kind <> 'usage' AND kind = {}",
    "status": "is_closed = ({}::text = 'closed')",
    "charge_id": "charge_id = {}",
    "created_from": "created_at >= {}",
    "created_to": "created_at < {}",
}


async def list_charges(
    tx: Tx, filters: Mapping[str, object], after: Mapping[str, Any] | None, limit: int
) -> list[KeptCharge]:
    """Give charges, newest first: of one organisation by their creation, of all by their ids, which are in time."""
    if filters["kind"] not in (None, "usage"):
        filters = {**filters, "kind": None, "other_kind": filters["kind"]}
    place = ("created_at", "charge_id") if filters["org_id"] is not None else ("charge_id", "org_id")
    rows = await list_rows(tx, "charge", CHARGE_COLUMNS, CHARGE_CONDITIONS, filters, place, after, limit)
    return [_kept(row) for row in rows]


async def lock_charge_id(tx: Tx, org_id: UUID, charge_id: str) -> None:
    """Let nobody else make a one-off charge of this id until `tx` ends."""
    await tx.execute("SELECT pg_advisory_xact_lock(hashtextextended($1, 0))", f"one_off/{org_id}/{charge_id}")


async def find_charge(tx: Tx, org_id: UUID, charge_id: str) -> KeptCharge | None:
    """Find an organisation's charge."""
    row = await tx.fetchrow(
        f"SELECT {', '.join(CHARGE_COLUMNS)} FROM charge WHERE charge_id = $1 AND org_id = $2",
        charge_id,
        org_id,
    )
    return None if row is None else _kept(row)


async def find_charges(tx: Tx, charge_id: str) -> list[KeptCharge]:
    """Give the charges of this id: one per organisation at most."""
    rows = await tx.fetch(
        f"SELECT {', '.join(CHARGE_COLUMNS)} FROM charge WHERE charge_id = $1",
        charge_id,
    )
    return [_kept(row) for row in rows]


def _kept(row: asyncpg.Record) -> KeptCharge:
    return KeptCharge(**{**dict(row), "trace_ids": tuple(row["trace_ids"])})
