"""An Idempotency-Key on the real database: one effect, the same answer, and never a wait."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from eb_kit import idempotency
from eb_kit import web as kit
from eb_kit.db import open_pool
from eb_kit.inputs import Input
from eb_kit.routing import Route, Routes
from eb_kit.service import Service, ServiceContext
from eb_kit.settings import ServiceSettings
from eb_kit.testing import keep_in_touch
from eb_kit.testing_db import ClonedDatabase
from eb_kit.tx import begin

routes = Routes("catalog")
JSON = {"Content-Type": "application/json"}


class Count(Input):
    by: int


@routes.post("/counts", body=Count, status=201)
async def count(request: web.Request) -> web.Response:
    """Count up; the sum is what ran, not what was answered."""
    body = await kit.read_body(request, Count)
    async with begin(request) as tx:
        request.app[CALLS].append(body.by)
        await asyncio.sleep(0.2 if body.by == 7 else 0)
        if body.by < 0:
            raise ValueError("breaks after the effect")
        return tx.answer(kit.created({"calls": len(request.app[CALLS])}))


@routes.post("/secrets", stores_secret=True, status=201)
async def make_secret(request: web.Request) -> web.Response:
    """Answer a secret once."""
    await kit.read_body(request, Count)
    async with begin(request) as tx:
        return tx.answer(kit.created({"key": "s3cret"}))


@routes.post("/money", idempotency="required")
async def move_money(request: web.Request) -> web.Response:
    """Move it."""
    async with begin(request) as tx:
        return tx.answer(kit.ok({}))


CALLS: web.AppKey[list[int]] = web.AppKey("calls", list)


def public(route: Route) -> Route:
    copied = replace(route)
    copied.__dict__["names"] = frozenset({"public"})
    return copied


class Door:
    def __init__(
        self, context: ServiceContext, app: web.Application, base: str, http: aiohttp.ClientSession
    ) -> None:
        self.context, self.calls, self.base, self.http = context, app[CALLS], base, http

    async def post(self, path: str, key: str | None, body: Any = None) -> tuple[int, Any]:
        headers = JSON | ({"Idempotency-Key": key} if key is not None else {})
        async with self.http.post(self.base + path, json=body or {"by": 1}, headers=headers) as response:
            return response.status, await response.json()


@pytest.fixture
async def door(fresh_db: ClonedDatabase) -> AsyncIterator[Door]:
    settings = ServiceSettings.model_validate(
        {"DATABASE_URL": "unused", "AMQP_URL": "unused", "http_port": 1, "admin_port": 2, "EB_ENV": "local"}
    )
    service = Service("catalog", "catalog", ServiceSettings, routes, handlers=None)  # type: ignore[arg-type]
    context = ServiceContext(service, settings)
    keep_in_touch(context)
    context.pool = await open_pool(fresh_db.dsn("catalog"), 10)
    app = kit.make_app("catalog", [public(route) for route in routes], context)
    app[CALLS] = []
    runner = kit.Runner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    async with aiohttp.ClientSession() as http:
        yield Door(context, app, f"http://127.0.0.1:{runner.addresses[0][1]}", http)
    await runner.cleanup()
    context.pool.terminate()


async def test_the_same_request_again_gets_the_same_answer_and_has_one_effect(door: Door) -> None:
    first = await door.post("/counts", "k1")
    again = await door.post("/counts", "k1")

    assert first == again == (201, {"calls": 1})
    assert door.calls == [1]


async def test_without_a_key_each_request_counts(door: Door) -> None:
    await door.post("/counts", None)
    await door.post("/counts", None)

    assert door.calls == [1, 1]


async def test_another_body_under_the_key_answers_422(door: Door) -> None:
    await door.post("/counts", "k1", {"by": 1})
    status, members = await door.post("/counts", "k1", {"by": 2})

    assert (status, members["code"]) == (422, "idempotency_key_reused")
    assert door.calls == [1]


async def test_a_request_still_running_answers_409_without_waiting(door: Door) -> None:
    running = asyncio.create_task(door.post("/counts", "k1", {"by": 7}))
    while not door.calls:
        await asyncio.sleep(0.005)
    status, members = await door.post("/counts", "k1", {"by": 7})

    assert (status, members["code"]) == (409, "idempotency_key_in_progress")
    assert not running.done()
    assert await running == (201, {"calls": 1})


async def test_twenty_at_once_have_one_effect(door: Door) -> None:
    answers = await asyncio.gather(*(door.post("/counts", "k1", {"by": 7}) for _ in range(20)))

    assert sum(status == 201 for status, _ in answers) >= 1
    assert {status for status, _ in answers} <= {201, 409}
    assert door.calls == [7]


async def test_a_request_that_failed_keeps_nothing(door: Door) -> None:
    status, _ = await door.post("/counts", "k1", {"by": -1})
    again, _ = await door.post("/counts", "k1", {"by": -1})

    assert (status, again) == (500, 500)
    assert door.calls == [-1, -1]


async def test_a_secret_is_never_kept(door: Door) -> None:
    first, _ = await door.post("/secrets", "k1")
    again, members = await door.post("/secrets", "k1")
    other, other_members = await door.post("/secrets", "k1", {"by": 2})

    assert (first, again, members["code"]) == (201, 409, "answer_not_repeatable")
    assert (other, other_members["code"]) == (422, "idempotency_key_reused")
    assert (
        await door.context.pool.fetchval("SELECT count(*) FROM idempotency_key WHERE body IS NOT NULL") == 0
    )


@pytest.mark.parametrize(
    ("key", "code"),
    [
        (None, "idempotency_key_required"),
        ("", "idempotency_key_invalid"),
        ("a b", "idempotency_key_invalid"),
        ("x" * 256, "idempotency_key_invalid"),
    ],
)
async def test_a_missing_or_malformed_key_answers_400(door: Door, key: str | None, code: str) -> None:
    status, members = await door.post("/money", key)

    assert (status, members["code"]) == (400, code)


async def test_one_key_on_two_routes_is_two_keys(door: Door) -> None:
    assert (await door.post("/counts", "k1"))[0] == 201
    assert (await door.post("/money", "k1"))[0] == 200


async def test_keys_are_kept_24_hours(door: Door) -> None:
    await door.post("/counts", "k1")
    async with door.context.begin("system:test") as tx:
        await tx.execute(
            "UPDATE idempotency_key SET created_at = $1", tx.now - timedelta(hours=24, seconds=1)
        )
    again, members = await door.post("/counts", "k1")
    async with door.context.begin("system:test") as tx:
        kept = await idempotency.forget_old_keys(tx)
        await tx.execute(
            "UPDATE idempotency_key SET created_at = $1", tx.now - timedelta(hours=24, seconds=1)
        )
    async with door.context.begin("system:test") as tx:
        forgotten = await idempotency.forget_old_keys(tx)

    assert (again, members) == (201, {"calls": 2})
    assert (kept, forgotten) == (0, 1)
