"""A void books the negative of an event at its own time, once."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from urllib.parse import quote

import pytest
from yarl import URL

from eb_contracts.ids import new_id
from eb_kit.testing_db import ClonedDatabase

from .world import World, metering

USAGE = "SELECT convert_from(body, 'utf8') FROM outbox WHERE type = 'metering_ingest.usage.recorded.v1'"


async def void(
    world: World, request_id: str, reason: str = "sent by mistake", **token: Any
) -> tuple[int, Any]:
    """Void as an Admin of the organisation."""
    who = token or {"roles": ["Admin"], "org_id": world.org_id}
    path = f"/metering/events/{quote(request_id, safe='')}:void?org_id={world.org_id}"
    url, headers = URL(world.client.url(path), encoded=True), world.client.auth(**who)
    async with world.client.http.post(url, json={"reason": reason}, headers=headers) as answer:
        return answer.status, await answer.json(content_type=None)


async def published(world: World) -> list[dict[str, Any]]:
    """All usage records that left."""
    rows = await world.client.context.pool.fetch(USAGE)
    return [record for row in rows for record in json.loads(row[0])["usage"]]


async def test_a_void_takes_back_quantity_and_count_at_the_time_of_the_event(
    fresh_db: ClonedDatabase, fresh_bus: str
) -> None:
    async with metering(fresh_db, fresh_bus) as world:
        time = datetime.now(UTC) - timedelta(days=3)
        event = world.event(quantity="2.5", time=time.isoformat(), hold_id=str(new_id()))
        await world.send([event, world.event(time=time.isoformat())])
        await world.recorded(event["request_id"])

        status, answer = await void(world, event["request_id"])
        assert (status, answer["request_id"], answer["status"]) == (200, event["request_id"], "voided")

        _, seen = await world.get(f"/metering/events/{event['request_id']}")
        assert (seen["status"], seen["void"]["reason"]) == ("voided", "sent by mistake")
        assert seen["quantity"] == "2.5"
        *_, taken_back = await published(world)
        minute = time.replace(second=0, microsecond=0).isoformat().replace("+00:00", "Z")
        assert (Decimal(taken_back["quantity"]), taken_back["events"]) == (Decimal("-2.5"), -1)
        assert (taken_back["minute"], taken_back["sku"]) == (minute, event["sku"])
        assert taken_back["project_id"] == event["project_id"]
        assert taken_back["hold_ids"] == []

        span = {"from": (time - timedelta(days=1)).isoformat(), "to": datetime.now(UTC).isoformat()}
        _, usage = await world.get("/metering/usage", **span)
        assert [(item["quantity"], item["events"]) for item in usage["items"]] == [("1", 1)]


async def test_fifty_voids_at_once_book_one(fresh_db: ClonedDatabase, fresh_bus: str) -> None:
    async with metering(fresh_db, fresh_bus) as world:
        event = world.event()
        await world.send([event])
        await world.recorded(event["request_id"])
        barrier = asyncio.Barrier(50)

        async def one(n: int) -> str:
            await barrier.wait()
            status, answer = await void(world, event["request_id"], f"reason {n}")
            assert status == 200
            return str(answer["void_event_id"])

        ids = Counter(await asyncio.gather(*(one(n) for n in range(50))))
        assert list(ids.values()) == [50]
        assert (
            await world.fetchval("SELECT count(*) FROM metering_event WHERE voids_event_id IS NOT NULL") == 1
        )
        assert sum(Decimal(record["quantity"]) for record in await published(world)) == 0


async def test_the_request_id_of_a_voided_event_stays_used(fresh_db: ClonedDatabase, fresh_bus: str) -> None:
    async with metering(fresh_db, fresh_bus) as world:
        event = world.event()
        await world.send([event])
        await world.recorded(event["request_id"])
        await void(world, event["request_id"])
        await world.send([event, world.event()])

        async def counted() -> Any:
            _, seen = await world.get(f"/metering/events/{event['request_id']}")
            return seen["duplicates"] == 1 and seen["status"] == "voided"

        async with asyncio.timeout(20):
            while not await counted():
                await asyncio.sleep(0.02)
        _, page = await world.get("/metering/events", status="voided")
        assert [item["request_id"] for item in page["items"]] == [event["request_id"]]


@pytest.mark.parametrize("request_id", ["a:b", "a/b", "x:void", "50%", "a b?c#d&e", "~:void/:void"])
async def test_a_request_id_may_hold_anything_printable(
    fresh_db: ClonedDatabase, fresh_bus: str, request_id: str
) -> None:
    async with metering(fresh_db, fresh_bus) as world:
        await world.send([world.event(request_id=request_id)])

        async def done() -> bool:
            return (await void(world, request_id))[0] == 200

        async with asyncio.timeout(20):
            while not await done():
                await asyncio.sleep(0.02)
        _, page = await world.get("/metering/events", request_id=request_id)
        assert [(item["request_id"], item["status"]) for item in page["items"]] == [(request_id, "voided")]


async def test_what_is_not_recorded_or_not_ones_own_can_not_be_voided(
    fresh_db: ClonedDatabase, fresh_bus: str
) -> None:
    async with metering(fresh_db, fresh_bus) as world:
        event = world.event()
        await world.send([event])
        await world.recorded(event["request_id"])
        assert (await void(world, "never-sent"))[0] == 404
        stranger = await world.client.org()
        assert (await void(world, event["request_id"], roles=["Admin"], org_id=stranger))[0] == 404
        assert (await void(world, event["request_id"], roles=["User"], org_id=world.org_id))[0] == 403
        assert (await void(world, event["request_id"], reason=""))[0] == 422
        assert (await void(world, event["request_id"], roles=["Finance"]))[0] == 200
