"""A process out of touch: what changes something waits, what reads and what says why goes on."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any, Self

import aiohttp
import asyncpg
import pytest
from aiohttp import web
from yarl import URL

from eb_kit import touch
from eb_kit.bus import Handlers
from eb_kit.routing import Route
from eb_kit.service import DOORS, Process, Service
from eb_kit.settings import ServiceSettings, load
from eb_kit.testing import Client, running
from eb_kit.testing_db import ClonedDatabase
from eb_kit.topology import STANDARD_FACTS
from eb_kit.touch import CONSUME, DATABASE, PUBLISH, Touch
from eb_kit.tx import begin
from eb_kit.web import Routes, no_content, ok

from .bus_world import until

routes = Routes("catalog")
STARTS_WITHIN_S = 15.0


@routes.post("/catalog/plans")
async def change(request: web.Request) -> web.Response:
    """Change something."""
    async with begin(request) as tx:
        assert await tx.fetchval("SELECT 1")
    return no_content()


@routes.get("/catalog/plans")
async def read(_: web.Request) -> web.Response:
    """Read from memory."""
    return ok({})


@routes.put("/catalog/skus/{sku}", goes_on="a test says so")
async def go_on(_: web.Request) -> web.Response:
    """Change something all the same."""
    return no_content()


def a_service(**options: Any) -> Service:
    return Service("catalog", "catalog", ServiceSettings, routes, Handlers(), **options)


class Gate:
    """A port in front of a server: `hang` lets nothing pass, `shut` lets nobody in, `heal` is as before."""

    def __init__(self, host: str, port: int) -> None:
        self._target = (host, port)
        self._passes = asyncio.Event()
        self._passes.set()
        self._is_shut = False
        self._open: set[asyncio.StreamWriter] = set()
        self.port = 0

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        self.shut()

    def hang(self) -> None:
        self._passes.clear()

    def shut(self) -> None:
        self._is_shut = True
        for writer in self._open:
            writer.close()

    def heal(self) -> None:
        self._is_shut = False
        self._passes.set()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._is_shut:
            return writer.close()
        far_reader, far_writer = await asyncio.open_connection(*self._target)
        self._open |= {writer, far_writer}
        try:
            await asyncio.gather(self._pump(reader, far_writer), self._pump(far_reader, writer))
        finally:
            self._open -= {writer, far_writer}

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            while data := await reader.read(65536):
                await self._passes.wait()
                writer.write(data)
                await writer.drain()
        writer.close()


@asynccontextmanager
async def gate_to(url: str) -> AsyncIterator[tuple[Gate, str]]:
    """Give a gate and the address through it."""
    there = URL(url)
    async with Gate(there.host or "127.0.0.1", there.port or 0) as gate:
        yield gate, str(there.with_host("127.0.0.1").with_port(gate.port))


async def ask(client: Client, method: str, path: str, **token: Any) -> tuple[int, str, str | None]:
    """Give status, problem code and Retry-After."""
    headers = client.auth(**({"roles": ["Operator"]} | token)) if token.get("roles") != () else {}
    async with client.http.request(method, client.url(path), headers=headers) as answer:
        code = (await answer.json())["code"] if answer.status >= 400 else ""
        return answer.status, code, answer.headers.get("Retry-After")


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two seconds instead of five, and one to settle."""
    monkeypatch.setattr(touch, "IN_TOUCH_S", 2.0)
    monkeypatch.setattr(touch, "SETTLED_S", 1.0)


def test_a_process_is_in_touch_while_every_source_was_heard_lately() -> None:
    found, now = Touch("test", {DATABASE, PUBLISH}), time.monotonic()
    assert not found.holds
    found.note(DATABASE, now)
    assert not found.holds
    found.note(PUBLISH, now - 4.5)
    assert found.holds
    time.sleep(0.6)
    assert not found.holds
    found.note(PUBLISH, time.monotonic())
    assert found.holds
    with pytest.raises(KeyError):
        found.note(CONSUME, now)


def test_after_a_longer_silence_what_was_said_meanwhile_has_time_to_arrive(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = 1000.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    found = Touch("test", {PUBLISH})
    found.note(PUBLISH, now)
    now += 6
    found.note(PUBLISH, now)
    assert not found.holds
    now += 4
    found.note(PUBLISH, now)
    assert not found.holds
    now += 1
    assert found.holds


def test_every_route_that_changes_something_waits_unless_it_says_why_not() -> None:
    async def handler(_: web.Request) -> web.Response:
        return no_content()

    for method in ("POST", "PUT", "PATCH", "DELETE"):
        assert Route("catalog", method, "/x", handler).needs_touch
        assert not Route("catalog", method, "/x", handler, goes_on="why").needs_touch
    assert not Route("catalog", "GET", "/x", handler).needs_touch


@pytest.mark.parametrize("doors", [("api",), tuple(sorted(DOORS))])
async def test_while_the_broker_hangs_changes_wait_and_the_rest_goes_on(
    fresh_db: ClonedDatabase, fresh_bus: str, doors: tuple[str, ...], soon: None
) -> None:
    async with (
        gate_to(fresh_bus) as (gate, amqp_url),
        running(a_service(), fresh_db.dsn("catalog"), amqp_url, doors=doors) as client,
    ):
        assert (await ask(client, "POST", "/catalog/plans"))[0] == 204
        gate.hang()
        began = time.monotonic()
        assert (await ask(client, "POST", "/catalog/plans"))[0] == 204, "a short silence is none"
        await until(lambda: not client.context.touch.holds)
        assert time.monotonic() - began <= 2.5

        assert await ask(client, "POST", "/catalog/plans") == (503, "unavailable", "2")
        assert await ask(client, "POST", "/catalog/plans", roles=("Finance",)) == (403, "forbidden", None)
        assert await ask(client, "POST", "/catalog/plans", roles=()) == (401, "token_invalid", None)
        assert await ask(client, "POST", "/catalog/nothing") == (404, "not_found", None)
        assert (await ask(client, "PUT", "/catalog/skus/x"))[0] == 204
        assert (await ask(client, "GET", "/catalog/plans"))[0] == 200
        gate.heal()
        await until(lambda: client.context.touch.holds, 30)
        assert (await ask(client, "POST", "/catalog/plans"))[0] == 204


async def test_a_connection_lost_and_made_again_refuses_nothing(
    fresh_db: ClonedDatabase, fresh_bus: str
) -> None:
    async with (
        gate_to(fresh_bus) as (gate, amqp_url),
        running(a_service(), fresh_db.dsn("catalog"), amqp_url) as client,
    ):
        gate.shut()
        gate.heal()
        ends = time.monotonic() + 3
        while time.monotonic() < ends:
            assert (await ask(client, "POST", "/catalog/plans"))[0] == 204
            await asyncio.sleep(0.05)
        assert client.context.bus._publishing.is_up


async def test_a_broker_that_stays_away_stops_changes_and_not_the_door(
    fresh_db: ClonedDatabase, fresh_bus: str, soon: None
) -> None:
    async with gate_to(fresh_bus) as (gate, amqp_url):
        gate.shut()
        async with running(a_service(), fresh_db.dsn("catalog"), amqp_url) as client:
            assert await ask(client, "POST", "/catalog/plans") == (503, "unavailable", "2")
            assert (await ask(client, "GET", "/catalog/plans"))[0] == 200
            gate.heal()
            await until(lambda: client.context.touch.holds, 30)


@pytest.mark.parametrize("how", ["hang", "shut"])
async def test_while_the_database_is_away_changes_are_refused_at_once(
    fresh_db: ClonedDatabase, fresh_bus: str, how: str, soon: None
) -> None:
    async with (
        gate_to(fresh_db.dsn("catalog")) as (gate, dsn),
        running(a_service(), dsn, fresh_bus) as client,
    ):
        assert (await ask(client, "POST", "/catalog/plans"))[0] == 204
        getattr(gate, how)()
        await until(lambda: not client.context.touch.holds)
        began = time.monotonic()
        assert await ask(client, "POST", "/catalog/plans") == (503, "unavailable", "2")
        assert time.monotonic() - began < 0.5
        assert (await ask(client, "GET", "/catalog/plans"))[0] == 200
        gate.heal()
        await until(lambda: client.context.touch.holds, 30)
        assert (await ask(client, "POST", "/catalog/plans"))[0] == 204


async def complete_read_models(database: ClonedDatabase) -> None:
    """Have the standard facts be there, as if their owners had sent them."""
    owner = await asyncpg.connect(database.owner_dsn)
    await owner.execute(
        "INSERT INTO catalog.read_model (entity, snapshot_id, state, requested_at)"
        " SELECT unnest($1::text[]), gen_random_uuid(), 'complete', '2026-11-01T00:00:00Z'",
        sorted(fact.ENTITY for fact in STANDARD_FACTS),
    )
    await owner.close()


async def readyz(http: aiohttp.ClientSession, port: int) -> tuple[int, dict[str, bool]]:
    async with http.get(f"http://127.0.0.1:{port}/readyz", timeout=aiohttp.ClientTimeout(2)) as answer:
        return answer.status, (await answer.json())["checks"]


@pytest.mark.parametrize("how", ["hang", "shut"])
@pytest.mark.parametrize("outlives", [False, True])
async def test_only_a_service_that_has_work_without_the_database_stays_ready_without_it(
    fresh_db: ClonedDatabase, fresh_bus: str, how: str, outlives: bool
) -> None:
    service = a_service(outlives_database=outlives)
    await complete_read_models(fresh_db)
    async with gate_to(fresh_db.dsn("catalog")) as (gate, dsn), running(service, dsn, fresh_bus) as client:
        port = URL(client.admin_url).port or 0

        async def is_ready() -> bool:
            return (await readyz(client.http, port))[0] == 200

        await until(is_ready)
        getattr(gate, how)()
        status, checks = await readyz(client.http, port)
        assert not checks["database"]
        assert status == (200 if outlives else 503)
        gate.heal()
        await until(is_ready, 30)


@pytest.mark.parametrize("how", ["hang", "shut"])
async def test_a_process_started_without_the_database_isnt_ready_until_it_is_there(
    fresh_db: ClonedDatabase, fresh_bus: str, how: str
) -> None:
    await complete_read_models(fresh_db)
    async with gate_to(fresh_db.dsn("catalog")) as (gate, dsn), aiohttp.ClientSession() as http:
        getattr(gate, how)()
        told = {
            "EB_ENV": "local", "DATABASE_URL": dsn, "AMQP_URL": fresh_bus, "EB_HTTP_PORT": "0", "EB_ADMIN_PORT": "0",
        }  # fmt: skip
        process = Process(a_service(outlives_database=True), load(ServiceSettings, told), frozenset({"api"}))
        starting = asyncio.create_task(process.start())
        try:
            await until(lambda: process.admin_port)
            await asyncio.sleep(0.6)
            assert (await readyz(http, process.admin_port))[0] == 503
            assert process.http_port == 0
            gate.heal()
            await asyncio.wait_for(starting, STARTS_WITHIN_S)

            async def is_ready() -> bool:
                return (await readyz(http, process.admin_port))[0] == 200

            await until(is_ready)
        finally:
            await process.stop()
