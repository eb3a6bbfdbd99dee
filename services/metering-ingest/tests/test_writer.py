"""Recording once: many writers at the same ids, redelivery, a killed writer, an event the database refuses."""

from __future__ import annotations

import asyncio
import json
import os
import random
import sys
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

from eb_contracts.ids import new_id, partition_of
from eb_contracts.metering import AcceptedEvent, BatchAccepted
from eb_kit.testing_db import ClonedDatabase
from eb_metering_ingest import flows
from eb_metering_ingest.domain.progress import Progress
from eb_metering_ingest.domain.recording import Received
from eb_metering_ingest.store import progress

from .world import World, metering, until

USAGE = "SELECT convert_from(body, 'utf8') FROM outbox WHERE type = 'metering_ingest.usage.recorded.v1'"


def accepted(world: World, **members: Any) -> AcceptedEvent:
    """An event that passed the door."""
    return AcceptedEvent.model_validate(world.event(**members))


def batch(world: World, *events: AcceptedEvent) -> BatchAccepted:
    """A batch of one organisation."""
    return BatchAccepted.model_construct(
        partition=partition_of(world.org_id),
        batch_id=new_id(),
        received_at=datetime.now(UTC),
        trace_id=None,
        events=events,
    )


async def published(world: World) -> tuple[Decimal, int]:
    """What left as usage: quantity and events."""
    rows = await world.client.context.pool.fetch(USAGE)
    records = [record for row in rows for record in json.loads(row[0])["usage"]]
    return sum((Decimal(r["quantity"]) for r in records), Decimal(0)), sum(r["events"] for r in records)


async def recorded(world: World) -> tuple[Decimal, int]:
    """What is stored: quantity and events."""
    row = await world.client.context.pool.fetchrow(
        "SELECT coalesce(sum(quantity), 0), count(*) FROM metering_event"
    )
    return row[0], row[1]


async def test_fifty_writers_at_once_record_the_same_events_once(
    fresh_db: ClonedDatabase, fresh_bus: str
) -> None:
    pool = {"EB_POOL_SIZE": "60"}
    async with metering(fresh_db, fresh_bus, doors=("api",), environ=pool) as world:
        events = [Received(accepted(world), None, datetime.now(UTC), None) for _ in range(40)]
        barrier = asyncio.Barrier(50)

        async def write(seed: int) -> int:
            shuffled = random.Random(seed).sample(events, len(events))
            await barrier.wait()
            async with world.client.context.begin("system:test") as tx:
                return await flows.record_events(tx, shuffled)

        new = await asyncio.gather(*(write(seed) for seed in range(50)))
        assert sum(new) == 40
        assert await recorded(world) == await published(world) == (Decimal(40), 40)
        assert await world.fetchval("SELECT sum(duplicates) FROM event_key") == 49 * 40


async def test_unlike_events_at_once_leave_one_recorded_and_the_others_as_conflicts(
    fresh_db: ClonedDatabase, fresh_bus: str
) -> None:
    pool = {"EB_POOL_SIZE": "30"}
    async with metering(fresh_db, fresh_bus, doors=("api",), environ=pool) as world:
        event = accepted(world)

        async def write(quantity: int) -> int:
            unlike = event.model_copy(update={"quantity": Decimal(quantity)})
            async with world.client.context.begin("system:test") as tx:
                return await flows.record_events(tx, [Received(unlike, None, datetime.now(UTC), None)])

        assert sum(await asyncio.gather(*(write(quantity) for quantity in range(1, 21)))) == 1
        assert await world.fetchval("SELECT count(*) FROM event_conflict") == 19
        assert await recorded(world) == await published(world)


async def test_a_batch_that_arrives_again_changes_no_sum(fresh_db: ClonedDatabase, fresh_bus: str) -> None:
    async with metering(fresh_db, fresh_bus) as world:
        bus = world.client.context.bus
        await until(lambda: asyncio.sleep(0, bus._publishing.is_up))
        message = batch(world, *(accepted(world, quantity="2") for _ in range(10)))
        same_id = bus.wrap(message)
        await bus.publish_now([same_id, same_id])
        await bus.publish_now([bus.wrap(message)])
        await until(lambda: world.fetchval("SELECT sum(duplicates) >= 10 FROM event_key"))
        await asyncio.sleep(0.3)
        assert await recorded(world) == await published(world) == (Decimal(20), 10)
        assert await world.fetchval("SELECT sum(duplicates) FROM event_key") == 10


async def test_an_event_the_database_refuses_is_parked_and_its_neighbours_are_recorded(
    fresh_db: ClonedDatabase, fresh_bus: str
) -> None:
    async with metering(fresh_db, fresh_bus) as world:
        bus = world.client.context.bus
        await until(lambda: asyncio.sleep(0, bus._publishing.is_up))
        poison = accepted(world).model_copy(update={"quantity": Decimal("1e30")})
        nul = accepted(world).model_copy(update={"sku": "sms\0"})
        bad = batch(world, accepted(world), poison, nul, accepted(world))
        good = [batch(world, accepted(world)) for _ in range(5)]
        await bus.publish_now([*good[:3], bad, *good[3:]])
        await until(lambda: world.fetchval("SELECT count(*) = 7 FROM metering_event"))
        await until(
            lambda: world.fetchval("SELECT count(*) = 2 FROM dead_letter WHERE reason = 'unrecordable'")
        )
        assert await recorded(world) == await published(world) == (Decimal(7), 7)
        assert await world.fetchval("SELECT count(*) FROM bus_dead_letter") == 0


async def test_of_a_poison_batch_of_a_thousand_only_the_bad_three_are_parked(
    fresh_db: ClonedDatabase, fresh_bus: str
) -> None:
    async with metering(fresh_db, fresh_bus) as world:
        bus = world.client.context.bus
        await until(lambda: asyncio.sleep(0, bus._publishing.is_up))
        events = [accepted(world, quantity=str(n + 1)) for n in range(1_000)]
        poison = {
            137: {"quantity": Decimal("1e30")},
            500: {"metadata": {"text": "\0"}},
            999: {"time": datetime(9999, 12, 31, tzinfo=UTC)},
        }
        for at, members in poison.items():
            events[at] = events[at].model_copy(update=members)
        neighbours = [batch(world, accepted(world, quantity="2000")) for _ in range(4)]
        await bus.publish_now([*neighbours[:2], batch(world, *events), *neighbours[2:]])

        await until(lambda: world.fetchval("SELECT count(*) = 1001 FROM metering_event"))
        parked = await world.client.context.pool.fetch("SELECT request_id, reason FROM dead_letter")
        assert {row["request_id"] for row in parked} == {events[at].request_id for at in poison}
        assert {row["reason"] for row in parked} == {"unrecordable"}
        good = sum(n + 1 for n in range(1_000) if n not in poison) + 4 * 2000
        assert await recorded(world) == await published(world) == (Decimal(good), 1001)
        assert await world.fetchval("SELECT count(*) FROM bus_dead_letter") == 0
        far = "SELECT count(*) FROM pg_class WHERE relname = 'metering_event_p9999_12'"
        assert await world.fetchval(far) == 0


async def test_a_batch_of_nothing_but_poison_is_parked_whole(
    fresh_db: ClonedDatabase, fresh_bus: str
) -> None:
    async with metering(fresh_db, fresh_bus) as world:
        bus = world.client.context.bus
        await until(lambda: asyncio.sleep(0, bus._publishing.is_up))
        poison = {"metadata": {"text": "\0"}}
        events = [accepted(world).model_copy(update=poison) for _ in range(1_000)]
        await bus.publish_now([batch(world, *events), batch(world, accepted(world))])
        await until(lambda: world.fetchval("SELECT count(*) = 1000 FROM dead_letter"))
        await until(lambda: world.fetchval("SELECT count(*) = 1 FROM metering_event"))


async def test_a_writer_killed_again_and_again_loses_and_doubles_nothing(
    fresh_db: ClonedDatabase, fresh_bus: str
) -> None:
    async with metering(fresh_db, fresh_bus, doors=("api",)) as world:
        for _ in range(40):
            status, _ = await world.send([world.event(quantity="1.5") for _ in range(100)])
            assert status == 202
        environ = os.environ | {
            "EB_ENV": "local",
            "DATABASE_URL": fresh_db.dsn("metering_ingest"),
            "AMQP_URL": fresh_bus,
            "EB_HTTP_PORT": "0",
            "EB_ADMIN_PORT": "0",
        }
        command = (sys.executable, "-m", "eb_metering_ingest", "--doors", "consumers")
        devnull = asyncio.subprocess.DEVNULL
        for pause_s in (0.05, 0.1, 0.2):
            writer = await asyncio.create_subprocess_exec(*command, env=environ, stdout=devnull)
            before = await world.fetchval("SELECT count(*) FROM inbox")
            await until(lambda before=before: world.fetchval("SELECT count(*) > $1 FROM inbox", before))  # type: ignore[misc]
            await asyncio.sleep(pause_s)
            writer.kill()
            await writer.wait()
            if await world.fetchval("SELECT count(*) = 4000 FROM metering_event"):
                break
        writer = await asyncio.create_subprocess_exec(*command, env=environ, stdout=devnull)
        await until(lambda: world.fetchval("SELECT count(*) = 4000 FROM metering_event"))
        writer.terminate()
        await writer.wait()
        assert await recorded(world) == await published(world) == (Decimal(6000), 4000)
        assert await world.fetchval("SELECT sum(duplicates) FROM event_key") == 0


async def test_an_event_is_followed_to_its_charge_and_its_entries_whatever_comes_first(
    fresh_db: ClonedDatabase, fresh_bus: str
) -> None:
    async with metering(fresh_db, fresh_bus) as world:
        event = world.event()
        await world.send([event])
        usage_id = (await world.recorded(event["request_id"]))["usage_id"]
        entry_id = new_id()
        charged = {(world.org_id, UUID(usage_id)): Progress(usage_id, is_priced=True)}
        posted = {(world.org_id, UUID(usage_id)): Progress(usage_id, entry_ids=[entry_id])}
        for news, status in (
            (charged, "priced"),
            (posted, "ledgered"),
            (charged, "ledgered"),
            (posted, "ledgered"),
        ):
            async with world.client.context.begin("system:test") as tx:
                await progress.update_progress(tx, news)
            seen = await world.recorded(event["request_id"], status)
            assert seen["charge_id"] == usage_id
        assert seen["entry_ids"] == [str(entry_id)]
        _, page = await world.get("/metering/events", status="ledgered")
        assert [item["request_id"] for item in page["items"]] == [event["request_id"]]
