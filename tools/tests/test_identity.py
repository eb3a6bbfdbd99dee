"""Platform roles, trusted systems' credentials and staff tokens, as the database's owner makes them."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from eb_auth.app import SERVICE
from eb_kit.testing import Client, running
from eb_kit.testing_db import ClonedDatabase
from eb_tools import identity, staff
from eb_tools.trouble import Trouble

NO_BROKER = "amqp://guest:guest@127.0.0.1:1/"


@pytest.fixture
async def client(fresh_db: ClonedDatabase, tmp_path: Path) -> AsyncIterator[Client]:
    """A running auth service."""
    settings = {"EB_MAILBOX_DIR": str(tmp_path)}
    async with running(SERVICE, fresh_db.dsn("auth"), NO_BROKER, doors=("api",), environ=settings) as made:
        yield made


async def get(client: Client, path: str, credential: str) -> tuple[int, Any]:
    """GET with a credential, after the service has seen what was committed."""
    await client.context.directory.refresh()
    headers = {"Authorization": f"Bearer {credential}"}
    async with client.http.get(client.url(path), headers=headers) as answer:
        return answer.status, await answer.json()


async def test_a_staff_token_works_and_lives_twelve_hours(fresh_db: ClonedDatabase, client: Client) -> None:
    token = await staff.mint_staff_token(fresh_db.owner_dsn, "Operator")

    status, me = await get(client, "/auth/me", token)

    assert status == 200
    assert me["roles"] == ["Operator"]
    payload = token.split(".")[1]
    claims = json.loads(identity_payload(payload))
    assert claims["exp"] - claims["iat"] == 12 * 3600


def identity_payload(part: str) -> bytes:
    """Decode one part of a JWT."""
    import base64

    return base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))


async def test_staff_tokens_may_be_made_before_the_service_ever_ran(fresh_db: ClonedDatabase) -> None:
    tokens = [await staff.mint_staff_token(fresh_db.owner_dsn, r) for r in ("Finance", "Support", "Finance")]

    owner = await asyncpg.connect(fresh_db.owner_dsn)
    assert len(set(tokens)) == 3
    assert await owner.fetchval("SELECT count(*) FROM auth.signing_key") == 1
    assert await owner.fetchval('SELECT count(*) FROM auth."user"') == 2
    assert (
        await owner.fetchval("SELECT count(*) FROM auth.outbox WHERE type = 'auth.signing_key.changed.v1'")
        == 1
    )
    await owner.close()


async def test_production_makes_no_staff_tokens(fresh_db: ClonedDatabase) -> None:
    with pytest.raises(Trouble):
        await staff.mint_staff_token(fresh_db.owner_dsn, "Operator", {"EB_ENV": "production"})


async def test_a_platform_role_is_granted_once_audited_and_taken_back(
    fresh_db: ClonedDatabase, client: Client
) -> None:
    dsn = fresh_db.owner_dsn
    assert await identity.grant_platform_role(dsn, "Ops@Example.org", "Operator", {})
    assert not await identity.grant_platform_role(dsn, "ops@example.org", "Operator", {})
    owner = await asyncpg.connect(dsn)
    user_id = await owner.fetchval("SELECT user_id FROM auth.platform_role")
    token = client.token(roles=["Operator"], user_id=user_id)
    assert (await get(client, "/auth/me", token))[0] == 200

    assert await identity.revoke_platform_role(dsn, "ops@example.org", "Operator", {})

    assert (await get(client, "/auth/me", token))[0] == 401
    entries = await owner.fetch(
        "SELECT action, actor, session_user_name FROM auth.audit_entry WHERE entity = 'platform_role'"
        " ORDER BY audit_id"
    )
    assert [tuple(e) for e in entries] == [
        ("insert", "system:cli", "eb_owner"),
        ("delete", "system:cli", "eb_owner"),
    ]
    await owner.close()


async def test_a_role_that_is_none_and_an_address_that_is_none_are_refused(fresh_db: ClonedDatabase) -> None:
    with pytest.raises(Trouble):
        await identity.grant_platform_role(fresh_db.owner_dsn, "ops@example.org", "Admin", {})
    with pytest.raises(Trouble):
        await identity.grant_platform_role(fresh_db.owner_dsn, "ops", "Operator", {})


async def test_service_credentials_overlap_and_are_revoked_one_by_one(
    fresh_db: ClonedDatabase, client: Client
) -> None:
    dsn = fresh_db.owner_dsn
    old, old_text = await identity.create_service_credential(dsn, "crm", {})
    _, new_text = await identity.create_service_credential(dsn, "crm", {})
    assert (await get(client, "/auth/me", old_text))[0] == 403
    assert (await get(client, "/auth/me", new_text))[0] == 403

    await identity.revoke_service_credential(dsn, old.key_id, {})

    assert (await get(client, "/auth/me", old_text))[0] == 401
    assert (await get(client, "/auth/me", new_text))[0] == 403
    listed = await identity.list_service_credentials(dsn, {})
    assert [(key.name, key.revoked_at is None) for key in listed] == [("crm", True), ("crm", False)]


async def test_the_service_itself_gives_nobody_a_platform_role(fresh_db: ClonedDatabase) -> None:
    service = await asyncpg.connect(fresh_db.dsn("auth"))
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await service.execute("DELETE FROM platform_role")
    await service.close()


def test_the_module_is_reachable_from_the_command_line() -> None:
    from eb_tools.cli import parser

    options = parser().parse_args(["platform-role", "grant", "ops@example.org", "Operator"])
    assert options.role == "Operator"
