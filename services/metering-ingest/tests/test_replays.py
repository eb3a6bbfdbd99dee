"""Replays send recorded usage again with the same ids and sums; old months leave, the keys of their events stay."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from eb_contracts.ids import new_id
from eb_kit.testing_db import ClonedDatabase
from eb_metering_ingest import flows
from eb_metering_ingest.jobs import months
from eb_metering_ingest.store import events, replays

from .test_voids import void
from .world import World, metering, until

USAGE = """
    SELECT convert_from(body, 'utf8') FROM outbox WHERE type = 'metering_ingest.usage.recorded.v1' ORDER BY outbox_id
"""
ALWAYS_SAME = ("org_id", "project_id", "sku", "minute", "events")


async def published(world: World) -> list[dict[str, Any]]:
    """All usage records that left, in order."""
    rows = await world.client.context.pool.fetch(USAGE)
    return [record for row in rows for record in json.loads(row[0])["usage"]]


def by_usage(records: list[dict[str, Any]]) -> dict[str, tuple[Any, ...]]:
    """What each usage record says."""
    assert len({record["usage_id"] for record in records}) == len(records)
    return {
        record["usage_id"]: (Decimal(record["quantity"]), *(record[name] for name in ALWAYS_SAME))
        for record in records
    }


def some(world: World, count: int) -> Iterator[dict[str, Any]]:
    """Events of several SKUs and minutes, the first of them half a minute before the hour."""
    start = datetime.now(UTC).replace(minute=0, second=0, microsecond=0) - timedelta(hours=5, seconds=30)
    for n in range(count):
        time = start + timedelta(seconds=7 * (n // 3))
        yield world.event(sku=f"sku-{n % 3}", time=time.isoformat(), quantity=f"{n + 1}.25")


async def ask(world: World, start: datetime, end: datetime) -> tuple[int, Any]:
    """Ask for a replay, as an Operator."""
    body = {"org_id": str(world.org_id), "from": start.isoformat(), "to": end.isoformat()}
    return await world.staff("POST", "/metering/replays", body)


async def done(world: World, replay_id: str) -> Any:
    """The replay, once it is done."""

    async def look() -> Any:
        _, seen = await world.staff("GET", f"/metering/replays/{replay_id}")
        return seen if seen["status"] == "done" else None

    return await until(look)


async def test_a_replay_sends_the_same_usage_again(fresh_db: ClonedDatabase, fresh_bus: str) -> None:
    async with metering(fresh_db, fresh_bus, environ={"EB_REPLAY_BATCH": "20"}) as world:
        sent = list(some(world, 200))
        for at in range(0, 200, 50):
            await world.send(sent[at : at + 50])
        await until(lambda: world.fetchval("SELECT count(*) = 200 FROM metering_event"))
        await void(world, sent[7]["request_id"])
        first = await published(world)

        start = datetime.fromisoformat(sent[0]["time"])
        status, answer = await ask(world, start - timedelta(days=1), datetime.now(UTC))
        assert (status, answer["events"], answer["status"]) == (202, 201, "running")
        seen = await done(world, answer["replay_id"])
        assert (seen["events"], seen["sent_events"], seen["sent_records"]) == (201, 201, len(first))
        assert by_usage((await published(world))[len(first) :]) == by_usage(first)


async def test_a_replay_takes_whole_minutes_of_one_organisation(
    fresh_db: ClonedDatabase, fresh_bus: str
) -> None:
    async with metering(fresh_db, fresh_bus) as world:
        sent = list(some(world, 90))
        await world.send(sent)
        await until(lambda: world.fetchval("SELECT count(*) = 90 FROM metering_event"))
        first = await published(world)
        start = datetime.fromisoformat(sent[0]["time"]) + timedelta(seconds=40)
        _, answer = await ask(world, start, start + timedelta(seconds=61))
        await done(world, answer["replay_id"])
        again = (await published(world))[len(first) :]
        minutes = {datetime.fromisoformat(record["minute"]) for record in again}
        assert minutes == {start.replace(second=0) + timedelta(minutes=n) for n in range(2)}
        assert by_usage(again).items() <= by_usage(first).items()


async def test_a_replay_that_is_cut_off_anywhere_goes_on(fresh_db: ClonedDatabase, fresh_bus: str) -> None:
    async with metering(fresh_db, fresh_bus, doors=("api", "consumers")) as world:
        sent = list(some(world, 120))
        await world.send(sent)
        await until(lambda: world.fetchval("SELECT count(*) = 120 FROM metering_event"))
        first = await published(world)
        start = datetime.fromisoformat(sent[0]["time"])
        _, answer = await ask(world, start, datetime.now(UTC))
        step, context = 0, world.client.context
        while True:
            step += 1
            try:
                async with context.begin("system:test") as tx:
                    replay = await replays.take_replay(tx)
                    if replay is None:
                        break
                    await flows.replay_some(tx, replay, 10)
                    if step % 2:
                        raise ConnectionResetError
            except ConnectionResetError:
                continue
        assert (await done(world, answer["replay_id"]))["sent_events"] == 120
        assert by_usage((await published(world))[len(first) :]) == by_usage(first)


@pytest.mark.parametrize("days", [0, -1, 401])
async def test_a_range_that_is_none_is_refused(fresh_db: ClonedDatabase, fresh_bus: str, days: int) -> None:
    async with metering(fresh_db, fresh_bus, doors=("api",)) as world:
        start = datetime(2026, 1, 1, tzinfo=UTC)
        assert (await ask(world, start, start + timedelta(days=days)))[0] == 422
        assert (await ask(world, start.replace(year=1), start.replace(year=2)))[0] == 422
        assert (await world.staff("GET", f"/metering/replays/{new_id()}"))[0] == 404
        body = {"org_id": str(world.org_id), "from": start.isoformat(), "to": "2026-02-01T00:00:00Z"}
        assert (await world.staff("POST", "/metering/replays", body, "Finance"))[0] == 403


async def test_a_month_that_leaves_leaves_its_keys(fresh_db: ClonedDatabase, fresh_bus: str) -> None:
    async with metering(fresh_db, fresh_bus) as world:
        event, voided = world.event(quantity="2"), world.event()
        await world.send([event, voided])
        await world.recorded(event["request_id"])
        await world.recorded(voided["request_id"])
        _, gone = await void(world, voided["request_id"])
        async with world.client.context.begin("system:test") as tx:
            while await events.drop_month(tx, datetime.now(UTC) + timedelta(days=62)):
                pass
        assert await world.fetchval("SELECT count(*) FROM metering_event") == 0
        assert await world.fetchval("SELECT count(*) FROM event_key") == 2

        status, problem = await world.get(f"/metering/events/{event['request_id']}")
        assert (status, problem["code"]) == (410, "event_expired")
        assert (await void(world, event["request_id"]))[0] == 410
        assert await void(world, voided["request_id"]) == (200, gone)
        world.client.context.extras["event_months"].clear()
        await world.send([event, world.event()])
        await until(lambda: world.fetchval("SELECT max(duplicates) = 1 FROM event_key"))
        assert await world.fetchval("SELECT count(*) FROM metering_event") == 1


async def test_months_are_only_dropped_past_their_retention(fresh_db: ClonedDatabase, fresh_bus: str) -> None:
    async with metering(fresh_db, fresh_bus, doors=("api",)) as world:
        context = world.client.context
        old = datetime.now(UTC) - timedelta(days=40 * 31)
        await flows.ensure_months(context, old, old + timedelta(days=62))
        before = await world.fetchval(PARTITIONS)
        blocker = await context.pool.acquire()
        transaction = blocker.transaction()
        await transaction.start()
        await blocker.fetch("SELECT 1 FROM metering_event LIMIT 1")
        async with context.begin("system:test") as tx:
            async with asyncio.timeout(2):
                assert await months.drop_old_months(tx) == 0
        await transaction.rollback()
        await context.pool.release(blocker)
        dropped = 0
        while True:
            async with context.begin("system:test") as tx:
                if not await months.drop_old_months(tx):
                    break
            dropped += 1
        assert dropped == 3
        assert await world.fetchval(PARTITIONS) == before - 3


PARTITIONS = """
    SELECT count(*) FROM pg_inherits WHERE inhparent = 'metering_ingest.metering_event'::regclass
"""


async def test_usage_counts_what_is_left_after_voids(fresh_db: ClonedDatabase, fresh_bus: str) -> None:
    async with metering(fresh_db, fresh_bus) as world:
        sent = list(some(world, 9))
        await world.send(sent)
        await until(lambda: world.fetchval("SELECT count(*) = 9 FROM metering_event"))
        for event in sent[::3]:
            assert (await void(world, event["request_id"]))[0] == 200
        span = {"from": sent[0]["time"], "to": datetime.now(UTC).isoformat()}
        _, usage = await world.get("/metering/usage", window="month", **span)
        totals = {item["sku"]: (Decimal(item["quantity"]), item["events"]) for item in usage["items"]}
        assert totals == {
            "sku-1": (Decimal("2.25") + Decimal("5.25") + Decimal("8.25"), 3),
            "sku-2": (Decimal("3.25") + Decimal("6.25") + Decimal("9.25"), 3),
        }
