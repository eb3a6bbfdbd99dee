"""The service on a real bus: its facts leave; and what its own read model lost is there again after a start."""

from __future__ import annotations

import asyncio
from pathlib import Path

import asyncpg

from eb_auth.app import SERVICE
from eb_kit.testing import running
from eb_kit.testing_db import ClonedDatabase

from .conftest import NO_BROKER, AuthService, Person

KNOWN = "SELECT entity, entity_id, version, body FROM auth.known ORDER BY entity, entity_id"


async def until(connection: asyncpg.Connection[object], sql: str, wanted: object) -> None:
    """Wait until a query gives this value."""
    async with asyncio.timeout(30):
        while await connection.fetchval(sql) != wanted:
            await asyncio.sleep(0.1)


async def leave_one_of_each(person: Person) -> None:
    """Make an organisation with a project, and a revocation."""
    org = await person.found_org()
    await person.call("POST", f"/orgs/{org['org_id']}/projects", {"name": "P"})
    await person.call("DELETE", f"/auth/sessions/{person.tokens['session_id']}")


async def test_facts_leave(fresh_db: ClonedDatabase, fresh_bus: str, tmp_path: Path) -> None:
    owner = await asyncpg.connect(fresh_db.owner_dsn)
    settings = {"EB_MAILBOX_DIR": str(tmp_path)}
    async with running(
        SERVICE, fresh_db.dsn("auth"), fresh_bus, doors=("api", "consumers"), environ=settings
    ) as client:
        await leave_one_of_each(await AuthService(client, tmp_path, owner, fresh_db.owner_dsn).sign_in())

        await until(owner, "SELECT count(*) FROM auth.outbox WHERE sent_at IS NULL", 0)
        async with client.http.get(f"{client.admin_url}/readyz") as answer:
            assert answer.status == 200
    types = await owner.fetch("SELECT DISTINCT type FROM auth.outbox")
    assert {row["type"] for row in types} == {
        "auth.org.changed.v1",
        "auth.member.changed.v1",
        "auth.project.changed.v1",
        "auth.signing_key.changed.v1",
        "auth.access.revoked.v1",
        "kit.snapshot.requested.v1",  # of partners, which are the ledger's
    }
    await owner.close()


async def test_a_lost_read_model_is_there_again_after_a_start(
    fresh_db: ClonedDatabase, tmp_path: Path
) -> None:
    owner = await asyncpg.connect(fresh_db.owner_dsn)
    settings = {"EB_MAILBOX_DIR": str(tmp_path)}
    dsn = fresh_db.dsn("auth")
    async with running(SERVICE, dsn, NO_BROKER, doors=("api",), environ=settings) as client:
        await leave_one_of_each(await AuthService(client, tmp_path, owner, fresh_db.owner_dsn).sign_in())
        known = [row for row in await owner.fetch(KNOWN) if not row["entity_id"].startswith("test-")]
    assert {row["entity"] for row in known} == {"org", "member", "project", "signing_key", "revocation"}

    await owner.execute("TRUNCATE auth.known")
    async with running(SERVICE, dsn, NO_BROKER, doors=("api",), environ=settings):
        again = [row for row in await owner.fetch(KNOWN) if not row["entity_id"].startswith("test-")]

    assert again == known
    await owner.close()
