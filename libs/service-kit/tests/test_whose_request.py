"""Each answer tells the gateway in whose organisation the caller was verified to be."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp import web

from eb_contracts.errors import NotFound
from eb_kit.access import Forbidden
from eb_kit.bus import Handlers
from eb_kit.service import Service
from eb_kit.settings import ServiceSettings
from eb_kit.testing import Client, running
from eb_kit.web import ORG_HEADER, Routes, ok

NO_BROKER = "amqp://guest:guest@127.0.0.1:1/"


@pytest.fixture
async def door(fresh_db: Any) -> AsyncIterator[Client]:
    routes = Routes("ledger")

    @routes.get("/ledger/entries")
    async def entries(request: web.Request) -> web.StreamResponse:
        """Answer whole, in pieces, or not."""
        match request.query.get("how"):
            case "refused":
                raise Forbidden
            case "missing":
                raise NotFound
            case "streamed":
                response = web.StreamResponse()
                await response.prepare(request)
                await response.write(b"a piece")
                return response
        return ok({})

    service = Service("ledger", "ledger", ServiceSettings, routes, Handlers())
    async with running(service, fresh_db.dsn("ledger"), NO_BROKER, doors=("api",)) as client:
        yield client


async def told(door: Client, credential: str | None, how: str = "") -> tuple[int, str | None]:
    """Give the status, and whose request it was said to be."""
    headers = {"Authorization": f"Bearer {credential}"} if credential else {}
    async with door.http.get(door.url(f"/ledger/entries?how={how}"), headers=headers) as answer:
        return answer.status, answer.headers.get(ORG_HEADER)


async def test_every_answer_to_a_verified_caller_names_its_organisation(door: Client) -> None:
    org_id = await door.org()
    token = door.token(roles=["Admin"], org_id=org_id)
    key = await door.api_key(org_id, ["ledger:read"])

    for credential in (token, key):
        for how, status in (("", 200), ("streamed", 200), ("refused", 403), ("missing", 404)):
            assert await told(door, credential, how) == (status, str(org_id)), how


async def test_nobody_else_is_said_to_be_in_one(door: Client) -> None:
    org_id = await door.org()
    forged = door.token(roles=["Admin"], org_id=org_id)[:-4] + "AAAA"
    over = door.token(roles=["Admin"], org_id=org_id, exp=1, iat=0, nbf=0)

    assert await told(door, None) == (401, None)
    assert await told(door, forged) == (401, None)
    assert await told(door, over) == (401, None)
    assert await told(door, door.token(roles=["Finance"])) == (200, None)
