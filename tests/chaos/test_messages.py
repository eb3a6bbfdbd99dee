"""Messages twice, in another order, poisoned, or far too many from one organisation."""

from __future__ import annotations

import asyncio
import json
import random
from typing import Any
from uuid import UUID

import aio_pika
import asyncpg
import pytest
from billing import usage_of

from eb_contracts.ids import new_id, partition_of
from eb_contracts.metering import BatchAccepted
from eb_tools.client import wait_for
from eb_tools.world import World

from .arena import TAKEN, Arena

pytestmark = pytest.mark.timeout(180)
RECENT = """
    SELECT * FROM {0}.outbox WHERE sent_at IS NOT NULL AND exchange = 'eb.usage' ORDER BY outbox_id DESC LIMIT 400
"""


async def deliver(arena: Arena, rows: list[Any], source: str) -> None:
    """Publish outbox rows as they were sent, past the service."""
    async with await aio_pika.connect(arena.facts["amqp_url"]) as connection:
        channel = await connection.channel()
        for row in rows:
            exchange = await channel.get_exchange(row["exchange"], ensure=False)
            identifier = str(row["outbox_id"])
            message = aio_pika.Message(
                row["body"],
                message_id=identifier,
                type=row["type"],
                headers={
                    **json.loads(row["headers"]),
                    "cloudEvents:id": identifier,
                    "cloudEvents:source": source,
                },
                delivery_mode=aio_pika.DeliveryMode.PERSISTENT,
            )
            await exchange.publish(message, row["routing_key"])


@pytest.mark.parametrize("service", ["metering-ingest", "pricing"])
async def test_everything_again_in_another_order(arena: Arena, chaos_world: World, service: str) -> None:
    async with arena.trial(chaos_world, f"400 messages of {service} again, twice, shuffled"):
        owner = await asyncpg.connect(arena.facts["owner_dsn"])
        rows = list(await owner.fetch(RECENT.format(service.replace("-", "_")))) * 2
        await owner.close()
        random.shuffle(rows)
        await deliver(arena, rows, f"/eb/{service}")


async def test_three_bad_events_in_a_batch_of_a_thousand(arena: Arena, chaos_world: World) -> None:
    """Past the door, which would have refused them: a NUL, a quantity over the bound, a project nobody knows."""
    events = usage_of(arena.member, arena.skus, 1_000)
    bad = {3: {"sku": "sms\x00"}, 500: {"quantity": "9" * 30}, 999: {"project_id": str(new_id())}}
    batch_id, partition = new_id(), partition_of(UUID(arena.member.org_id))
    body = {
        "partition": partition,
        "batch_id": str(batch_id),
        "received_at": events[0]["time"],
        "trace_id": "0" * 32,
        "events": [{**event, **bad.get(number, {})} for number, event in enumerate(events)],
    }
    row = {
        "exchange": BatchAccepted.EXCHANGE,
        "routing_key": f"p{partition:02d}",
        "type": BatchAccepted.TYPE,
        "outbox_id": new_id(),
        "body": json.dumps(body).encode(),
        "headers": json.dumps({"eb-weight": 1000}),
    }
    owner = await asyncpg.connect(arena.facts["owner_dsn"])
    letters = "SELECT count(*) FROM metering_ingest.dead_letter WHERE org_id = $1"
    before = await owner.fetchval(letters, UUID(arena.member.org_id))
    async with arena.trial(chaos_world, "a batch of 1,000 with 3 bad events"):
        await deliver(arena, [row], "/eb/metering-ingest")
        arena.sent += [event for number, event in enumerate(events) if number not in bad]

        async def parked() -> bool:
            return bool(await owner.fetchval(letters, UUID(arena.member.org_id)) - before == 3)

        await wait_for(parked, "three dead letters", timeout_s=30)
    await owner.close()


async def test_one_organisation_sends_a_hundred_times_as_much(arena: Arena, chaos_world: World) -> None:
    async with arena.trial(chaos_world, "40,000 events of one organisation at once") as flow:
        gate = asyncio.Semaphore(4)

        async def one() -> None:
            batch = usage_of(arena.member, arena.skus, 1_000)
            async with gate:
                while await flow.post(batch) not in TAKEN:
                    await asyncio.sleep(0.2)
            flow.accepted += batch

        async with asyncio.TaskGroup() as tasks:
            for _ in range(40):
                tasks.create_task(one())
