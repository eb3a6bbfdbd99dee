"""Credentials and organisations that were just made: they are waited for, however many ask, and nobody learns more."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID

import pytest
from aiohttp import web

from eb_contracts.ids import new_id
from eb_kit.access import Caller, reach
from eb_kit.bus import Handlers
from eb_kit.directory import MOST_WAITING_EACH
from eb_kit.service import Service
from eb_kit.settings import ServiceSettings
from eb_kit.testing import Client, running
from eb_kit.web import Routes, ok, path_uuid

NOBODY = "amqp://nobody@127.0.0.1:1/"
SECRET = "s" * 43


def service() -> Service:
    routes = Routes("ledger")

    @routes.get("/ledger/entries/{entry_id}")
    async def org(request: web.Request) -> web.Response:
        """Reach an organisation."""
        await reach(request, path_uuid(request, "entry_id"))
        return ok({})

    return Service("ledger", "ledger", ServiceSettings, routes, Handlers())


@pytest.fixture
async def door(fresh_db: Any) -> AsyncIterator[Client]:
    async with running(service(), fresh_db.dsn("ledger"), NOBODY, doors=("api",)) as client:
        yield client


async def ask(door: Client, org_id: UUID, credential: str) -> tuple[int, float]:
    began = time.monotonic()
    headers = {"Authorization": f"Bearer {credential}"}
    async with door.http.get(door.url(f"/ledger/entries/{org_id}"), headers=headers) as answer:
        return answer.status, time.monotonic() - began


async def test_a_client_may_use_a_new_key_with_any_number_of_connections_at_once(door: Client) -> None:
    org = await door.org()
    made = await door.api_key(org, ["ledger:read"])
    key = door.context.directory.key_by_digest
    digest = next(iter(door.context.directory._keys))
    assert key(digest) is not None
    row = await door.context.pool.fetchrow("DELETE FROM known WHERE entity = 'api_key' RETURNING *")
    door.context.directory._keys.clear()
    door.context.directory._digests.clear()

    asking = [asyncio.create_task(ask(door, org, made)) for _ in range(4 * MOST_WAITING_EACH)]
    await asyncio.sleep(0.4)
    assert not any(task.done() for task in asking)
    await door.context.pool.execute(
        "INSERT INTO known VALUES ($1, $2, $3, $4, $5, $6)",
        *(row[name] for name in ("entity", "entity_id", "version", "is_deleted", "body", "changed_at")),
    )
    assert {status for status, _ in await asyncio.gather(*asking)} == {200}
    assert door.context.directory._awaited == {}
    assert door.context.directory._waiting == {}


@pytest.mark.parametrize(("roles", "waits"), [(("Admin",), False), (("User", "GroupAdmin"), True)])
async def test_hidden_and_unknown_young_organisations_take_as_long(
    door: Client, roles: tuple[str, ...], waits: bool
) -> None:
    own, hidden = await door.org(), await door.org()
    token = door.token(roles=roles, org_id=own)

    answers = await asyncio.gather(ask(door, hidden, token), ask(door, new_id(), token))

    assert [status for status, _ in answers] == [404, 404]
    assert {seconds > 1.5 for _, seconds in answers} == {waits}


async def test_a_right_that_comes_while_a_request_waits_is_seen(door: Client) -> None:
    own, young = await door.org(), await door.org()
    token = door.token(roles=("User", "GroupBilling"), org_id=own)
    asking = asyncio.create_task(ask(door, young, token))
    await asyncio.sleep(0.3)
    await door.context.pool.execute("DELETE FROM known WHERE entity_id = $1", str(young))
    await door.org(parent=own, org_id=young)

    status, seconds = await asking
    assert (status, seconds < 1.5) == (200, True)


def test_who_might_have_a_right_somewhere() -> None:
    own, other = new_id(), new_id()

    def may(kind: str = "user", **more: Any) -> bool:
        return Caller(kind=kind, actor="x", org_id=own, **more).may_reach(other)

    assert not may(roles=frozenset({"Admin"}))
    assert may(roles=frozenset({"GroupSupport"}))
    assert may(roles=frozenset({"Operator"}))
    assert not may("key", scopes=frozenset({"ledger:read"}))
    assert may("key", scopes=frozenset({"ledger:read:tree"}))
    assert not may("assist", roles=frozenset({"assist_ro"}))
    assert may("service")
    assert Caller(kind="user", actor="x", org_id=own, roles=frozenset({"Admin"})).may_reach(own)
