"""The chain of revisions: down one by one with data in every table, up again, rows compared."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import alembic.command
import asyncpg
import pytest
from alembic.config import Config

import kit_tables
from eb_contracts.ids import new_id
from eb_kit.testing_db import ClonedDatabase, migrate
from kit_tables import SCHEMAS

from .rows import Rows, Table, tables

FAR = datetime(2041, 1, 15, tzinfo=UTC)
"""In a month that no migration makes ahead."""
VERSIONS = Path(__file__).parents[1] / "versions"
REVISIONS = sorted((path.name[:11] for path in VERSIONS.glob("2*.py")), reverse=True)
KIT_NOT_KEPT = {
    "outbox", "inbox", "idempotency_key", "known", "read_model", "coherence_cursor", "sent_window",
}  # fmt: skip
NOT_KEPT = {
    "auth.session", "auth.refresh_token", "auth.login_code", "auth.signing_key", "auth.mail_waiting",
    "auth.attempt_window", "auth.oidc_attempt",
    "ledger.parked_charge", "ledger.invariant_check", "estimator.pricing_estimate",
    "estimator.counter",
}  # fmt: skip
"""What the revisions' docstrings say a downgrade can't keep."""


async def run(database: ClonedDatabase, command: str, revision: str) -> None:
    config = Config(str(Path(kit_tables.__file__).parent / "alembic.ini"))
    config.attributes["database_url"] = database.owner_dsn
    await asyncio.to_thread(getattr(alembic.command, command), config, revision)


async def all_rows(owner: asyncpg.Connection[Any]) -> dict[str, list[str]]:
    found = {}
    for table in await tables(owner, *SCHEMAS):
        rows = await owner.fetch(f"SELECT t::text AS row FROM {table.sql} AS t ORDER BY 1")
        found[table.full_name] = [row["row"] for row in rows]
    return found


def is_kept(name: str) -> bool:
    return name not in NOT_KEPT and name.split(".")[1] not in KIT_NOT_KEPT


async def test_data_survives_going_down_one_by_one_and_up_again(
    fresh_db: ClonedDatabase, owner: asyncpg.Connection[Any]
) -> None:
    rows = Rows(owner)
    for table in await tables(owner, *SCHEMAS):
        await rows.insert(table)
    for name, column in (("ledger.ledger", "created_at"), ("metering_ingest.metering_event", "event_time")):
        await owner.execute("SELECT platform.ensure_month($1, '2041-01-01')", name)
        await rows.insert(await table_of(owner, *name.split(".")), **{column: FAR})
    before = await all_rows(owner)
    assert all(before.values()), "a table without a row proves nothing"

    for at, revision in enumerate(REVISIONS):
        await run(fresh_db, "downgrade", "-1")
        expected = REVISIONS[at + 1] if at + 1 < len(REVISIONS) else None
        assert await owner.fetchval("SELECT max(version_num) FROM alembic_version") == expected, revision
    assert await tables(owner, *SCHEMAS, "platform") == []
    for _ in REVISIONS:
        await run(fresh_db, "upgrade", "+1")

    after = await all_rows(owner)
    lost = {name for name, kept in before.items() if is_kept(name) and not set(kept) <= set(after[name])}
    assert lost == set()
    assert {name for name in after if not is_kept(name) and after[name]} == set()
    assert await owner.fetch("SELECT 1 FROM pg_tables WHERE schemaname = 'kept'") == []


async def test_every_organisation_becomes_a_root_with_its_self_row_and_its_account(
    fresh_db: ClonedDatabase, owner: asyncpg.Connection[Any]
) -> None:
    await run(fresh_db, "downgrade", "20250920_04")
    organization = await table_of(owner, "auth", "organization")
    made = [(await Rows(owner).insert(organization, org_slug=f"org-{n}"))["org_id"] for n in range(3)]
    await run(fresh_db, "upgrade", "head")

    pairs = await owner.fetch("SELECT ancestor_org_id, descendant_org_id, depth FROM auth.org_hierarchy")
    assert {tuple(pair) for pair in pairs} == {(org_id, org_id, 0) for org_id in made}
    accounts = await owner.fetch("SELECT owner_org_id, is_default, currency FROM ledger.billing_account")
    assert {tuple(account) for account in accounts} == {(org_id, True, None) for org_id in made}
    assert await owner.fetchval("SELECT count(*) FROM auth.organization WHERE parent_org_id IS NOT NULL") == 0


async def test_parents_and_an_accounts_partner_come_back_with_the_hierarchy(
    fresh_db: ClonedDatabase, owner: asyncpg.Connection[Any]
) -> None:
    rows, organization = Rows(owner), await table_of(owner, "auth", "organization")
    parent = (await rows.insert(organization))["org_id"]
    child = (await rows.insert(organization, org_slug="child", parent_org_id=parent))["org_id"]
    account = await rows.insert(await table_of(owner, "ledger", "billing_account"))
    await rows.insert(await table_of(owner, "ledger", "partner"))
    por = await rows.insert(
        await table_of(owner, "ledger", "partner_of_record"),
        org_id=None,
        billing_account_id=account["billing_account_id"],
    )
    await run(fresh_db, "downgrade", "20250920_04")
    assert await owner.fetchval("SELECT count(*) FROM ledger.partner_of_record") == 0
    late = (await Rows(owner).insert(await table_of(owner, "auth", "organization"), org_slug="late"))[
        "org_id"
    ]
    await run(fresh_db, "upgrade", "head")

    assert (
        await owner.fetchval("SELECT parent_org_id FROM auth.organization WHERE org_id = $1", child) == parent
    )
    assert await owner.fetchval("SELECT por_id FROM ledger.partner_of_record") == por["por_id"]
    defaults = await owner.fetch("SELECT owner_org_id FROM ledger.billing_account WHERE is_default")
    assert late in {row["owner_org_id"] for row in defaults}
    assert child not in {row["owner_org_id"] for row in defaults}


async def table_of(owner: asyncpg.Connection[Any], schema: str, name: str) -> Table:
    (found,) = [table for table in await tables(owner, schema) if table.name == name]
    return found


async def test_two_migrations_at_once_wait_for_each_other(
    fresh_db: ClonedDatabase, owner: asyncpg.Connection[Any]
) -> None:
    await run(fresh_db, "downgrade", "20250920_05")
    await asyncio.gather(*(asyncio.to_thread(migrate, fresh_db.owner_dsn) for _ in range(2)))
    assert await owner.fetchval("SELECT version_num FROM alembic_version") == REVISIONS[0]


@pytest.mark.parametrize("status", ["pending", "verified"])
async def test_only_one_claim_holds_a_domain(owner: asyncpg.Connection[Any], status: str) -> None:
    claim = await table_of(owner, "domain_verify", "domain_claim")
    same = {"domain": "example.com", "organizational_domain": "example.com", "wildcard": False}
    await Rows(owner).insert(claim, status="verified", org_id=new_id(), **same)
    with pytest.raises(asyncpg.UniqueViolationError):
        await Rows(owner).insert(claim, status=status, org_id=new_id(), **same | {"domain": "EXAMPLE.com"})
    await Rows(owner).insert(claim, status="pending_conflict", org_id=new_id(), **same)


async def test_partners_of_record_never_overlap_whatever_their_status(owner: asyncpg.Connection[Any]) -> None:
    rows, por = Rows(owner), await table_of(owner, "ledger", "partner_of_record")
    await rows.insert(await table_of(owner, "ledger", "partner"))
    first = await rows.insert(por, status="expired")
    with pytest.raises(asyncpg.ExclusionViolationError):
        await rows.insert(por, org_id=first["org_id"], status="disputed")
