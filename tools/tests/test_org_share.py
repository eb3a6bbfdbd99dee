"""A real service behind a real gateway: what the one says of its callers is what the other counts by."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

from aiohttp import web

from eb_kit.bus import Handlers
from eb_kit.service import Service
from eb_kit.settings import ServiceSettings
from eb_kit.testing import running
from eb_kit.web import Routes, ok
from eb_tools.client import wait_for
from eb_tools.gateway import Backend, Options, read_routes, render
from eb_tools.haproxy import Gateway
from eb_tools.ports import free_port

MOST = 8


async def is_open(port: int) -> bool:
    try:
        (await asyncio.open_connection("127.0.0.1", port))[1].close()
    except OSError:
        return False
    return True


async def test_keys_of_an_organisation_share_and_forged_ones_take_nothing(
    fresh_db: Any, tmp_path: Path
) -> None:
    routes = Routes("ledger")

    @routes.get("/ledger/entries")
    async def entries(request: web.Request) -> web.Response:
        """Answer."""
        return ok({})

    service = Service("ledger", "ledger", ServiceSettings, routes, Handlers())
    table = read_routes()
    table = replace(table, rates=dict(table.rates) | {"org": replace(table.rates["org"], limit=MOST)})
    async with running(service, fresh_db.dsn("ledger"), "amqp://x@127.0.0.1:1/", doors=("api",)) as client:
        port, door = free_port(0), client.base_url.removeprefix("http://")
        admin_port = int(client.admin_url.rpartition(":")[2])
        backends = {entry.service: Backend(door, admin_port) for entry in table.entries}
        (tmp_path / "logs").mkdir()
        config = render(table, backends, Options(bind=f"127.0.0.1:{port}", has_rate_limits=True))
        unit = Gateway(tmp_path / "gateway", config)
        await unit.start()
        try:
            await wait_for(lambda: is_open(port), "the gateway")
            org_id = await client.org()
            keys = [await client.api_key(org_id, ["ledger:read"]) for _ in range(4)]

            async def ask(credential: str) -> int:
                headers = {"Authorization": f"Bearer {credential}"}
                url = f"http://127.0.0.1:{port}/ledger/entries"
                async with client.http.get(url, headers=headers) as answer:
                    assert "X-EB-Org" not in answer.headers
                    return answer.status

            forged = client.token(roles=["Admin"], org_id=org_id)[:-6] + "AAAAAA"
            assert Counter([await ask(forged) for _ in range(20)]) == {401: 20}
            assert [await ask(key) for key in keys * 3] == [200] * MOST + [429] * 4
        finally:
            await unit.stop()
