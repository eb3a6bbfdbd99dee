"""Requests a minute per organisation, with limits on, at a real door."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import pytest
from aiohttp import web

from eb_contracts.ids import new_id
from eb_kit.access import Caller
from eb_kit.bus import Handlers
from eb_kit.clock import Clock
from eb_kit.limits import OrgLimit
from eb_kit.problems import RateLimited
from eb_kit.service import Service
from eb_kit.settings import ServiceSettings
from eb_kit.testing import Client, running
from eb_kit.web import Routes, ok

MOST = 5
NO_BROKER = "amqp://guest:guest@127.0.0.1:1/"


class StandingClock(Clock):
    """A clock that is set by hand."""

    second = 90.0

    def machine_now(self) -> datetime:
        return datetime.fromtimestamp(self.second, UTC)


def member(org_id: Any) -> Caller:
    return Caller("key", "key:x", org_id=org_id)


def test_an_organisation_has_its_share_of_each_minute() -> None:
    clock = StandingClock()
    limit, own, other = OrgLimit(clock, 2), member(new_id()), member(new_id())

    for _ in range(2):
        limit.count(own)
    with pytest.raises(RateLimited) as refused:
        limit.count(own)
    limit.count(other)

    assert refused.value.facts["retry_after_s"] == 30
    clock.second = 120
    limit.count(own)


def test_nobody_is_counted_without_an_organisation_or_with_limits_off() -> None:
    limit, off = OrgLimit(StandingClock(), 1), OrgLimit(StandingClock(), None)
    own = member(new_id())

    for _ in range(3):
        limit.count(None)
        limit.count(member(None))
        off.count(own)


@pytest.fixture
async def door(fresh_db: Any) -> AsyncIterator[Client]:
    routes = Routes("ledger")

    @routes.get("/ledger/entries")
    async def entries(request: web.Request) -> web.Response:
        """Answer."""
        return ok({})

    service = Service("ledger", "ledger", ServiceSettings, routes, Handlers())
    environ = {"EB_RATE_LIMITS": "on", "EB_ORG_REQUESTS": str(MOST)}
    async with running(service, fresh_db.dsn("ledger"), NO_BROKER, doors=("api",), environ=environ) as client:
        yield client


async def test_many_keys_of_an_organisation_share_one_limit(door: Client) -> None:
    if (second := datetime.now(UTC).second) > 50:
        await asyncio.sleep(61 - second)
    own, other = await door.org(), await door.org()
    keys = [await door.api_key(own, ["ledger:read"]) for _ in range(4)]
    keys += [await door.api_key(other, ["ledger:read"])]

    async def ask(key: str) -> tuple[str, int, Any]:
        headers = {"Authorization": f"Bearer {key}"}
        async with door.http.get(door.url("/ledger/entries"), headers=headers) as answer:
            return key, answer.status, (await answer.json(), answer.headers.get("Retry-After"))

    answers = [await ask(key) for key in keys[:4] * 3]
    assert Counter(status for _, status, _ in answers) == {200: MOST, 429: 12 - MOST}
    problem, retry_after = answers[-1][2]
    assert problem["code"] == "rate_limited"
    assert 1 <= int(retry_after) <= 60
    assert (await ask(keys[4]))[1] == 200
