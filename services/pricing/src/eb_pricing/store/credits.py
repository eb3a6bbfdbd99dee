"""Credits as people grant and see them; what charges drew."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from uuid import UUID

import asyncpg

from eb_kit.idempotency import Claim
from eb_kit.tx import Tx

from ..domain.budgets import Credit, CreditLeft
from .lists import list_rows

CREDIT_COLUMNS = (
    "credit_id", "org_id", "amount", "currency", "sku_types", "priority", "expires_at", "source", "actor", "created_at",
)  # fmt: skip
_CREDIT = ", ".join(f"c.{name}" for name in CREDIT_COLUMNS) + ", u.drawn"
CONDITIONS = {"org_id": "org_id = {}"}


def _credit(row: asyncpg.Record) -> Credit:
    plain = {name: row[name] for name in (*CREDIT_COLUMNS, "drawn")}
    sku_types = row["sku_types"]
    return Credit(**{**plain, "sku_types": None if sku_types is None else tuple(sku_types)})


async def insert_credit(tx: Tx, credit: Credit, claim: Claim) -> None:
    """Insert a credit with its key, which is kept for ever. `tx` holds the key, so nobody else inserts it."""
    await tx.execute(
        "INSERT INTO credit (credit_id, org_id, amount, currency, sku_types, priority, expires_at, source, actor,"
        " created_at, key_scope, idempotency_key, request_sha256)"
        " VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)",
        *(getattr(credit, name) for name in CREDIT_COLUMNS),
        claim.scope,
        claim.key,
        claim.fingerprint,
    )
    await tx.execute("INSERT INTO credit_use (credit_id, drawn) VALUES ($1, 0)", credit.credit_id)


async def find_credit_by_key(tx: Tx, claim: Claim) -> tuple[Credit, bytes] | None:
    """Give the credit that a key granted, and the fingerprint of its request."""
    row = await tx.fetchrow(
        f"SELECT {_CREDIT}, c.request_sha256 FROM credit AS c JOIN credit_use AS u USING (credit_id)"
        " WHERE c.key_scope = $1 AND c.idempotency_key = $2",
        claim.scope,
        claim.key,
    )
    return None if row is None else (_credit(row), bytes(row["request_sha256"]))


async def list_credits(
    tx: Tx, filters: Mapping[str, object], after: Mapping[str, Any] | None, limit: int
) -> list[Credit]:
    """Give credits, newest first."""
    columns = (
        *CREDIT_COLUMNS,
        "(SELECT drawn FROM credit_use WHERE credit_use.credit_id = credit.credit_id)",
    )
    rows = await list_rows(tx, "credit", columns, CONDITIONS, filters, ("credit_id",), after, limit)
    return [_credit(row) for row in rows]


async def list_credit_left(tx: Tx, org_id: UUID) -> list[CreditLeft]:
    """Sum what an organisation's live credits still hold, per currency."""
    rows = await tx.fetch(
        "SELECT c.currency, sum(c.amount - u.drawn) AS remaining"
        " FROM credit AS c JOIN credit_use AS u USING (credit_id)"
        " WHERE c.org_id = $1 AND (c.expires_at IS NULL OR c.expires_at > $2) GROUP BY 1 ORDER BY 1",
        org_id,
        tx.minute,
    )
    return [CreditLeft(**dict(row)) for row in rows]
