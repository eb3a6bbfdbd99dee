"""Billing accounts: made by people, and the default one of every organisation that was ever a root."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

import asyncpg

from eb_contracts.errors import NotFound
from eb_contracts.ids import new_id
from eb_kit.tx import Tx

from ..domain.partners import BillingAccount

COLUMNS = "billing_account_id, owner_org_id, name, currency, status, notes, is_default, created_at"
DEFAULT_NAME = "Default"


async def insert_default_accounts_once(tx: Tx, org_ids: Sequence[UUID]) -> None:
    """Give organisations a default account where they have none; in the order given, sorted everywhere."""
    await tx.execute(
        f"INSERT INTO billing_account ({COLUMNS})"
        " SELECT new.account_id, new.org_id, $3, NULL, 'active', NULL, true, $4"
        " FROM unnest($1::uuid[], $2::uuid[]) AS new (account_id, org_id)"
        " WHERE NOT EXISTS (SELECT 1 FROM billing_account b WHERE b.owner_org_id = new.org_id AND b.is_default)"
        " ON CONFLICT (owner_org_id) WHERE is_default DO NOTHING",
        [new_id() for _ in org_ids],
        list(org_ids),
        DEFAULT_NAME,
        tx.now,
    )


async def insert_account(tx: Tx, account: BillingAccount) -> None:
    """Keep a new billing account."""
    await tx.execute(
        f"INSERT INTO billing_account ({COLUMNS}) VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
        account.billing_account_id,
        account.owner_org_id,
        account.name,
        account.currency,
        account.status,
        account.notes,
        account.is_default,
        account.created_at,
    )


async def get_account(tx: Tx, billing_account_id: UUID) -> BillingAccount:
    """Give a billing account, or raise NotFound."""
    row = await tx.fetchrow(
        f"SELECT {COLUMNS} FROM billing_account WHERE billing_account_id = $1",
        billing_account_id,
    )
    if row is None:
        raise NotFound
    return _account(row)


async def list_accounts(
    tx: Tx, owner_org_id: UUID | None, before: UUID | None, limit: int
) -> list[BillingAccount]:
    """Give billing accounts, newest first: of one owner or of all, before an id."""
    rows = await tx.fetch(
        f"SELECT {COLUMNS} FROM billing_account"
        " WHERE ($1::uuid IS NULL OR owner_org_id = $1) AND ($2::uuid IS NULL OR billing_account_id < $2)"
        " ORDER BY billing_account_id DESC LIMIT $3",
        owner_org_id,
        before,
        limit,
    )
    return [_account(row) for row in rows]


def _account(row: asyncpg.Record) -> BillingAccount:
    return BillingAccount(**dict(row))
