"""What stands in the log of requests that were refused for their shape, however many there are."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
import structlog
from aiohttp import web
from prometheus_client import REGISTRY
from structlog.testing import capture_logs

from eb_contracts.ids import new_id
from eb_kit import refused
from eb_kit.bus import Handlers
from eb_kit.service import Service
from eb_kit.settings import ServiceSettings
from eb_kit.testing import Client, running
from eb_kit.web import Input, Page, Routes, ok, read_body, read_query

HOSTILE = "'; DROP TABLE entries; -- somebody@example.org"


class Entry(Input):
    """A body."""

    note: str


def service() -> Service:
    routes = Routes("ledger")

    @routes.get("/ledger/entries", query=Page)
    async def entries(request: web.Request) -> web.Response:
        """List."""
        read_query(request, Page)
        return ok({})

    @routes.post("/billing-accounts", body=Entry)
    async def create(request: web.Request) -> web.Response:
        """Take a body."""
        await read_body(request, Entry)
        return ok({})

    return Service("ledger", "ledger", ServiceSettings, routes, Handlers())


@pytest.fixture
def lines() -> Iterator[list[Any]]:
    """Capture what is logged at level info, whatever other tests configured."""
    level = structlog.get_config()["wrapper_class"]
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.INFO))
    try:
        with capture_logs() as captured:
            yield captured
    finally:
        structlog.configure(wrapper_class=level)


@pytest.fixture
async def door(fresh_db: Any, fresh_bus: str) -> AsyncIterator[Client]:
    async with running(service(), fresh_db.dsn("ledger"), fresh_bus, doors=("api",)) as client:
        yield client


def told(lines: list[Any]) -> list[Any]:
    return [line for line in lines if line["event"] == "requests refused for their shape"]


async def until(lines: list[Any], count: int) -> list[Any]:
    async with asyncio.timeout(10):
        while len(told(lines)) < count:
            await asyncio.sleep(0.02)
    return told(lines)


async def send(door: Client, token: str, body: Any = None) -> None:
    """Send a body of the wrong shape."""
    headers = {"Authorization": f"Bearer {token}"}
    sent = body if body is not None else {HOSTILE: HOSTILE}
    async with door.http.post(door.url("/billing-accounts"), headers=headers, json=sent) as answer:
        assert answer.status == 422


async def test_a_caller_makes_one_line_a_minute_that_holds_nothing_it_sent(
    door: Client, lines: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(refused, "WINDOW_S", 1.5)
    before = REGISTRY.get_sample_value("eb_http_refused_total", {"code": "body_invalid"}) or 0
    org, user = await door.org(), new_id()
    token = door.token(user_id=user, org_id=org, roles=["Operator"])
    for _ in range(40):
        await send(door, token)
    headers = {"Authorization": f"Bearer {token}"}
    async with door.http.get(door.url("/ledger/entries"), headers=headers, params={"q": HOSTILE}) as answer:
        assert answer.status == 400

    [line] = await until(lines, 1)

    assert (line["actor"], line["org_id"], line["count"]) == (f"user:{user}", str(org), 41)
    assert line["codes"] == {"body_invalid": 40, "parameter_invalid": 1}
    assert line["routes"] == ["POST /billing-accounts", "GET /ledger/entries"]
    assert line["first_request_id"]
    assert len(line["trace_id"]) == 32
    assert not any(word in str(line) for word in ("DROP", "somebody", "127.0.0.1", token))
    after = REGISTRY.get_sample_value("eb_http_refused_total", {"code": "body_invalid"})
    assert after == before + 40


async def test_many_callers_share_a_line_beyond_the_first(
    door: Client, lines: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(refused, "WINDOW_S", 1.0)
    monkeypatch.setattr(refused, "MOST_CALLERS", 2)
    for _ in range(5):
        await send(door, door.token(user_id=new_id(), org_id=None, roles=["Operator"]))

    found = await until(lines, 3)

    assert [(line["actor"] == "others", line["count"]) for line in found] == [
        (False, 1),
        (False, 1),
        (True, 3),
    ]


async def test_a_service_that_ends_writes_its_last_lines(
    fresh_db: Any, fresh_bus: str, lines: list[Any]
) -> None:
    async with running(service(), fresh_db.dsn("ledger"), fresh_bus, doors=("api",)) as client:
        await send(client, client.token(user_id=new_id(), org_id=None, roles=["Operator"]))
        assert told(lines) == []

    assert len(told(lines)) == 1
