"""Reading the ledger: lines by filters, one line, sums."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from uuid import UUID

from eb_contracts.errors import NotFound
from eb_kit.tx import Tx

from ..domain.entries import Entry

COLUMNS = ", ".join(Entry._fields)
CONDITIONS = {
    "org_id": "org_id = {}",
    "billing_account_id": "billing_account_id = {}",
    "partner_id": "partner_id = {}",
    "project_id": "project_id = {}",
    "sku": "sku = {}",
    "period": "period = {}",
    "kind": "kind = {}",
    "status": "status = {}",
    "charge_id": "entry_id IN (SELECT entry_id FROM charge_posting WHERE charge_id = {})",
    "created_from": "created_at >= {}",
    "created_to": "created_at < {}",
    "as_of": "created_at <= {}",
    "before": "entry_id < {}",
}
"""What lines may be picked by; only those asked for reach the statement, so that its plan fits them."""


@dataclass(frozen=True, slots=True)
class Balance:
    """Sums of lines of one currency."""

    currency: str
    amount_gross: Decimal
    waived_amount: Decimal
    credit_applied: Decimal
    tax_amount: Decimal
    partner_amount: Decimal
    net: Decimal
    lines: int


async def list_entries(tx: Tx, filters: Mapping[str, object], limit: int) -> list[Entry]:
    """Give lines, the last posted first; `filters` by the names of CONDITIONS, None ones left out."""
    where, values = _where(filters)
    rows = await tx.fetch(
        f"SELECT {COLUMNS} FROM ledger WHERE {where} ORDER BY entry_id DESC LIMIT {int(limit)}",
        *values,
    )
    return [Entry(*row) for row in rows]


async def get_entry(tx: Tx, entry_id: UUID) -> Entry:
    """Give a line, or raise NotFound."""
    row = await tx.fetchrow(f"SELECT {COLUMNS} FROM ledger WHERE entry_id = $1", entry_id)
    if row is None:
        raise NotFound
    return Entry(*row)


async def sum_entries(tx: Tx, filters: Mapping[str, object]) -> list[Balance]:
    """Sum lines, one item a currency; currencies are never added up."""
    where, values = _where(filters)
    rows = await tx.fetch(
        "SELECT currency, sum(amount_gross) AS amount_gross, sum(waived_amount) AS waived_amount,"
        " sum(credit_applied) AS credit_applied, sum(tax_amount) AS tax_amount,"
        " sum(partner_amount) AS partner_amount, sum(net) AS net, count(*) AS lines"
        f" FROM ledger WHERE {where} GROUP BY currency ORDER BY currency",
        *values,
    )
    return [Balance(**dict(row)) for row in rows]


def _where(filters: Mapping[str, object]) -> tuple[str, list[object]]:
    given = {name: value for name, value in filters.items() if value is not None}
    terms = [CONDITIONS[name].format(f"${place}") for place, name in enumerate(given, 1)]
    return " AND ".join(terms) or "true", list(given.values())
