"""What the database itself refuses: foreign tables, DDL, unaudited writes, changed lines, numbers that are none."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import date, datetime
from decimal import Decimal
from typing import Any

import asyncpg
import pytest

from eb_kit.testing_db import ClonedDatabase, TestDatabase
from kit_tables import SCHEMAS

from .rows import Rows, Table, numeric_columns, tables

FOREIGN = (*SCHEMAS, "platform", "kept", "public")
CHANGES = ("ALTER TABLE {} ADD x text", "TRUNCATE {}", "DROP TABLE {}", "ALTER TABLE {} DISABLE TRIGGER ALL")
REFUSED = (asyncpg.InsufficientPrivilegeError,)
SEED_AUDITED = (
    "domain_verify.domain_claim", "catalog.org_business_model", "catalog.plan_sku", "catalog.org_entitlement",
    "ledger.commission_rate",
)  # fmt: skip


@pytest.fixture(scope="module")
async def shared_db(database: TestDatabase) -> AsyncIterator[ClonedDatabase]:
    """One database for the tests that are refused everything and so change nothing."""
    clone = await database.clone()
    yield clone
    await database.drop(clone)


@asynccontextmanager
async def as_service(database: ClonedDatabase, schema: str) -> AsyncIterator[asyncpg.Connection[Any]]:
    connection = await asyncpg.connect(database.dsn(schema))
    await connection.execute("SET eb.actor = 'service:test'")
    yield connection
    await connection.close()


async def all_tables(owner: asyncpg.Connection[Any], *schemas: str) -> dict[str, Table]:
    return {table.full_name: table for table in await tables(owner, *(schemas or SCHEMAS))}


async def filled(owner: asyncpg.Connection[Any]) -> Rows:
    rows = Rows(owner)
    for table in await tables(owner, *SCHEMAS):
        await rows.insert(table)
    return rows


@pytest.mark.parametrize("schema", SCHEMAS)
async def test_a_services_role_is_refused_at_every_foreign_table(
    shared_db: ClonedDatabase, schema: str
) -> None:
    owner = await asyncpg.connect(shared_db.owner_dsn)
    foreign = [table for table in await tables(owner, *FOREIGN) if table.schema != schema]
    await owner.close()
    assert len(foreign) > 60
    async with as_service(shared_db, schema) as service:
        for table in foreign:
            for touch in (
                "SELECT 1 FROM {}",
                "DELETE FROM {}",
                "INSERT INTO {} DEFAULT VALUES",
                "TRUNCATE {}",
            ):
                with pytest.raises(REFUSED):
                    await service.execute(touch.format(table.sql))


@pytest.mark.parametrize("schema", SCHEMAS)
async def test_a_service_has_no_rights_to_change_the_schema(shared_db: ClonedDatabase, schema: str) -> None:
    owner = await asyncpg.connect(shared_db.owner_dsn)
    own = await tables(owner, schema)
    await owner.close()
    async with as_service(shared_db, schema) as service:
        for make in (f"CREATE TABLE {schema}.x ()", "CREATE TABLE public.x ()", "CREATE SCHEMA x"):
            with pytest.raises(REFUSED):
                await service.execute(make)
        for table in own:
            for change in (
                "ALTER TABLE {} ADD x text",
                "TRUNCATE {}",
                "DROP TABLE {}",
                "ALTER TABLE {} DISABLE TRIGGER ALL",
            ):
                with pytest.raises(REFUSED):
                    await service.execute(change.format(table.sql))


@pytest.mark.parametrize("schema", SCHEMAS)
async def test_a_service_can_not_change_what_was_audited(shared_db: ClonedDatabase, schema: str) -> None:
    async with as_service(shared_db, schema) as service:
        for write in ("UPDATE audit_entry SET actor = 'x'", "DELETE FROM audit_entry"):
            with pytest.raises(REFUSED):
                await service.execute(write)
        assert await service.fetch("SELECT * FROM audit_entry LIMIT 1") is not None


@pytest.mark.parametrize("name", SEED_AUDITED)
async def test_a_write_without_an_actor_is_refused_and_with_one_leaves_its_entry(
    owner: asyncpg.Connection[Any], name: str
) -> None:
    await filled(owner)
    table = (await all_tables(owner))[name]
    key = await owner.fetchval(
        "SELECT tgargs FROM pg_trigger WHERE tgrelid = $1 AND tgname = 'audit'", table.oid
    )
    column = bytes(key).split(b"\0")[0].decode().split(",")[0]
    update = f"UPDATE {table.sql} SET {column} = {column}"
    await owner.execute("RESET eb.actor")
    with pytest.raises(asyncpg.PostgresError) as refused:
        await owner.execute(update)
    assert refused.value.sqlstate == "EB001"
    async with owner.transaction():
        await owner.execute("SET LOCAL eb.actor = 'user:psql'; SET LOCAL eb.request_id = 'r1'")
        await owner.execute(update)
    entries = await owner.fetch(
        f"SELECT * FROM {table.schema}.audit_entry WHERE entity = $1 AND actor = 'user:psql'", table.name
    )
    assert [(entry["action"], entry["request_id"]) for entry in entries] == [("update", "r1")]
    assert entries[0]["before"] == entries[0]["after"]
    assert column in entries[0]["after"]
    assert entries[0]["session_user_name"] == "eb_owner"


async def test_each_kind_of_write_is_audited(owner: asyncpg.Connection[Any]) -> None:
    rate = (await all_tables(owner))["ledger.commission_rate"]
    await Rows(owner).insert(rate)
    await owner.execute("UPDATE ledger.commission_rate SET pct = 3")
    await owner.execute("DELETE FROM ledger.commission_rate")
    entries = await owner.fetch(
        "SELECT action, before ->> 'pct' AS before, after ->> 'pct' AS after FROM ledger.audit_entry ORDER BY audit_id"
    )
    assert [tuple(e) for e in entries] == [
        ("insert", None, "1.50"),
        ("update", "1.50", "3.00"),
        ("delete", "3.00", None),
    ]
    await owner.execute("RESET eb.actor")
    with pytest.raises(asyncpg.PostgresError) as refused:
        await Rows(owner).insert(rate)
    assert refused.value.sqlstate == "EB001"


async def test_no_audited_table_can_be_emptied_without_a_trace(owner: asyncpg.Connection[Any]) -> None:
    names = await owner.fetch("SELECT tgrelid::regclass::text AS name FROM pg_trigger WHERE tgname = 'audit'")
    assert {row["name"] for row in names} >= set(SEED_AUDITED)
    for row in names:
        with pytest.raises(asyncpg.PostgresError) as refused:
            await owner.execute(f"TRUNCATE {row['name']} CASCADE")
        assert refused.value.sqlstate == "EB002"


async def test_no_numeric_column_takes_nan_or_infinity(owner: asyncpg.Connection[Any]) -> None:
    rows = await filled(owner)
    tried = 0
    for table in await tables(owner, *SCHEMAS):
        for column in await numeric_columns(owner, table):
            for number in ("NaN", "Infinity", "-Infinity"):
                with pytest.raises((asyncpg.CheckViolationError, asyncpg.NumericValueOutOfRangeError)):
                    await rows.insert(table, **{column: Decimal(number)})
                tried += 1
    assert tried > 60


async def test_a_ledger_line_stands(owner: asyncpg.Connection[Any]) -> None:
    await filled(owner)
    partition = await owner.fetchval("SELECT tableoid::regclass::text FROM ledger.ledger")
    for table in ("ledger.ledger", partition):
        for write in ("UPDATE {} SET amount_gross = 2, net = 0.5", "DELETE FROM {}", "TRUNCATE {}"):
            with pytest.raises(asyncpg.PostgresError) as refused:
                await owner.execute(write.format(table))
            assert refused.value.sqlstate == "EB002"
    await owner.execute("UPDATE ledger.ledger SET status = 'settled'")


async def test_a_missing_month_is_made_on_demand_and_stands_too(
    fresh_db: ClonedDatabase, owner: asyncpg.Connection[Any]
) -> None:
    far = datetime.fromisoformat("2041-03-31T23:59:59.999999+00:00")
    table = (await all_tables(owner))["ledger.ledger"]
    with pytest.raises(asyncpg.CheckViolationError):
        await Rows(owner).insert(table, created_at=far)
    async with as_service(fresh_db, "ledger") as one, as_service(fresh_db, "ledger") as two:
        ensure = "SELECT platform.ensure_month('ledger.ledger', $1)"
        made = await asyncio.gather(*(each.fetchval(ensure, date(2041, 3, 15)) for each in (one, two)))
        assert sorted(made) == [False, True]
    await Rows(owner).insert(table, created_at=far)
    with pytest.raises(asyncpg.PostgresError) as refused:
        await owner.execute("TRUNCATE ledger.ledger_p2041_03")
    assert refused.value.sqlstate == "EB002"


async def test_a_month_is_made_while_a_transaction_inserts(
    fresh_db: ClonedDatabase, owner: asyncpg.Connection[Any]
) -> None:
    table = (await all_tables(owner))["metering_ingest.metering_event"]
    async with owner.transaction(), as_service(fresh_db, "metering_ingest") as service:
        await Rows(owner).insert(table)
        ensure = "SELECT platform.ensure_month('metering_ingest.metering_event', '2040-01-01')"
        assert await service.fetchval(ensure, timeout=3)


@pytest.mark.parametrize(
    "call",
    [
        "platform.ensure_month('ledger.ledger', '2040-01-01')",
        "platform.ensure_month('pricing.counter', '2040-01-01')",
        "platform.ensure_id_partitions('ledger', 'outbox', '2040-01-01', '2040-01-02')",
        "platform.ensure_id_partitions('pricing', 'charge', '2040-01-01', '2040-01-02')",
        "platform.drop_id_partitions('ledger', 'outbox', '2040-01-01')",
        "platform.keep('x', 'auth', 'user')",
        "platform.restore('x', 'auth', 'user')",
        "platform.attach_partition('pricing', 'outbox', 'x', 'a', 'b')",
    ],
)
async def test_a_service_makes_partitions_of_its_own_tables_only(
    shared_db: ClonedDatabase, call: str
) -> None:
    async with as_service(shared_db, "pricing") as service:
        with pytest.raises(REFUSED):
            await service.execute(f"SELECT {call}")


async def test_old_partitions_go_but_never_unsent_messages(
    fresh_db: ClonedDatabase, owner: asyncpg.Connection[Any]
) -> None:
    outbox = (await all_tables(owner))["auth.outbox"]
    await Rows(owner).insert(outbox, sent_at=None)
    async with as_service(fresh_db, "auth") as service:
        drop = "SELECT platform.drop_id_partitions('auth', 'outbox', '2100-01-01')"
        left = "SELECT count(*) FROM pg_inherits WHERE inhparent = 'auth.outbox'::regclass"
        await service.execute(drop)
        assert await owner.fetchval(left) == 1
        await service.execute(
            "UPDATE outbox SET sent_at = $1", datetime.fromisoformat("2026-01-01T00:00:00+00:00")
        )
        await service.execute(drop)
        assert await owner.fetchval(left) == 0
