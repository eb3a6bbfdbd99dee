"""What was sent and what was handled are compared; what got lost comes again, under the same id, by itself."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from typing import Any

import aiohttp
import asyncpg
import pytest

from eb_contracts.ids import new_id, partition_of
from eb_contracts.metering import BatchAccepted, UsageRecorded
from eb_kit import coherence, topology
from eb_kit.bus import Handlers, Poison
from eb_kit.bus.envelope import Envelope
from eb_kit.clock import Clock
from eb_kit.service import Service
from eb_kit.telemetry import new_trace
from eb_kit.testing import Client, running
from eb_kit.testing_db import ClonedDatabase
from eb_tools.rabbitmq import PrivateRabbitMQ

from .bus_world import pricing, publish, service, until, usage

QUICK = {
    "EB_COHERENCE_WINDOW_S": "1",
    "EB_COHERENCE_GRACE_S": "0.5",
    "EB_COHERENCE_CHECK_S": "0.2",
}
SENT = "SELECT count(*) FROM outbox WHERE sent_at IS NOT NULL AND type = $1"
FORGET = "DELETE FROM pricing.inbox WHERE queue LIKE '%usage%'"
OPEN = "SELECT count(*) FROM sent_window WHERE queue LIKE 'pricing.usage%'"


class Seen:
    """A handler that counts what it was given."""

    def __init__(self) -> None:
        self.ids: list[Any] = []

    async def take(self, tx: Any, messages: list[UsageRecorded]) -> None:
        self.ids += [message.usage[0].usage_id for message in messages]


@asynccontextmanager
async def quick(made: Service, database: ClonedDatabase, url: str, *doors: str) -> AsyncIterator[Client]:
    """Run a service that compares every fifth of a second."""
    doors = doors or ("consumers", "jobs")
    async with running(made, database.dsn(made.schema), url, doors=doors, environ=QUICK) as client:
        yield client


async def purge(broker: PrivateRabbitMQ, *services: str) -> None:
    """Empty the work queues of these services, as an operator's slip would."""
    async with aiohttp.ClientSession() as http:
        for name in services:
            for queue in topology.work_queues(name):
                await http.delete(f"{broker.admin_url}/api/queues/%2F/{queue}/contents")


async def sent(client: Client, count: int, type_: str = UsageRecorded.TYPE) -> None:
    """Wait until the relay has the confirms of so many."""

    async def look() -> bool:
        return bool(await client.context.pool.fetchval(SENT, type_) == count)

    await until(look)


async def agreed(client: Client) -> None:
    """Wait until everything sent to pricing so far was compared, and nothing is open."""
    now = Clock.machine_now()

    async def look() -> bool:
        compared_to = await client.context.pool.fetchval("SELECT compared_to FROM coherence_cursor")
        return compared_to > now and await client.context.pool.fetchval(OPEN) == 0

    await until(look)


def metering(handlers: Handlers | None = None) -> Service:
    return service("metering-ingest", handlers or Handlers())


async def test_what_a_purged_queue_lost_is_sent_again_and_handled_once(
    fresh_db: ClonedDatabase, fresh_bus: str, broker: PrivateRabbitMQ
) -> None:
    seen = Seen()
    async with AsyncExitStack() as stack:
        sender = await stack.enter_async_context(quick(metering(), fresh_db, fresh_bus))
        await publish(sender, *(lost := [usage() for _ in range(30)]))
        await sent(sender, 30)
        await purge(broker, "pricing")
        reader = await stack.enter_async_context(quick(pricing(seen.take), fresh_db, fresh_bus))
        await publish(sender, *(more := [usage() for _ in range(5)]))
        await until(lambda: len(seen.ids) == 35)
        await agreed(sender)
        assert sorted(seen.ids) == sorted(m.usage[0].usage_id for m in [*lost, *more])
        assert (
            await reader.context.pool.fetchval("SELECT count(*) FROM inbox WHERE queue LIKE '%usage%'") == 35
        )
        assert await reader.context.pool.fetch(
            "SELECT DISTINCT source FROM inbox WHERE queue LIKE '%usage%'"
        ) == [("metering-ingest",)]


async def test_what_was_handled_is_agreed_on_and_never_sent_twice(
    fresh_db: ClonedDatabase, fresh_bus: str
) -> None:
    seen = Seen()
    async with (
        quick(metering(), fresh_db, fresh_bus) as sender,
        quick(pricing(seen.take), fresh_db, fresh_bus),
    ):
        pool = sender.context.pool
        await publish(sender, *(usage() for _ in range(20)))
        await until(lambda: len(seen.ids) == 20)
        first = await pool.fetchval("SELECT max(sent_at) FROM outbox WHERE type = $1", UsageRecorded.TYPE)
        await agreed(sender)
        assert (
            await pool.fetchval("SELECT max(sent_at) FROM outbox WHERE type = $1", UsageRecorded.TYPE)
            == first
        )
        assert len(seen.ids) == 20


async def test_a_message_that_was_given_up_is_explained_and_not_sent_again(
    fresh_db: ClonedDatabase, fresh_bus: str
) -> None:
    tries = []

    async def refuse(tx: Any, messages: list[UsageRecorded]) -> None:
        tries.append(len(messages))
        raise Poison("never")

    async with (
        quick(metering(), fresh_db, fresh_bus) as sender,
        quick(pricing(refuse), fresh_db, fresh_bus) as reader,
    ):
        await publish(sender, usage())
        letters = "SELECT count(*) FROM bus_dead_letter"

        async def dead() -> bool:
            return await reader.context.pool.fetchval(letters) == 1

        await until(dead)
        await agreed(sender)
        assert tries == [1]


async def test_looking_back_finds_what_an_older_window_lacks(
    fresh_db: ClonedDatabase, fresh_bus: str
) -> None:
    """As after a reader's database was restored from a backup: what it had handled is gone."""
    seen = Seen()
    async with (
        quick(metering(), fresh_db, fresh_bus) as sender,
        quick(pricing(seen.take), fresh_db, fresh_bus),
    ):
        await publish(sender, *(usage() for _ in range(10)))
        await until(lambda: len(seen.ids) == 10)
        now = Clock.machine_now()
        await agreed(sender)
        await (owner := await asyncpg.connect(fresh_db.owner_dsn)).execute(FORGET)
        await owner.close()
        async with sender.context.begin("system:test") as tx:
            await coherence.look_back(
                tx.connection, coherence.floor(now, timedelta(seconds=1)) - timedelta(seconds=9)
            )
        await until(lambda: len(seen.ids) == 20)


class Recorder:
    """A writer of batches that can be told to wait."""

    def __init__(self) -> None:
        self.ids: list[Any] = []

    async def take(self, tx: Any, messages: list[BatchAccepted]) -> None:
        self.ids += [message.batch_id for message in messages]

    @property
    def service(self) -> Service:
        handlers = Handlers()
        handlers.consumes(BatchAccepted, queue="batches")(self.take)
        return metering(handlers)


def batch() -> BatchAccepted:
    org_id = new_id()
    return BatchAccepted.trusted(
        partition=partition_of(org_id),
        batch_id=new_id(),
        received_at=Clock.machine_now(),
        trace_id="0" * 32,
        events=(),
    )


async def direct(client: Client, count: int) -> None:
    """Publish past the outbox, once the broker can be reached."""

    async def can() -> bool:
        return bool(client.context.bus._publishing.is_up)

    await until(can)
    await client.context.bus.publish_now([batch() for _ in range(count)])


async def test_a_batch_sent_past_the_outbox_survives_a_purge_while_its_process_lives(
    fresh_db: ClonedDatabase, fresh_bus: str, broker: PrivateRabbitMQ
) -> None:
    recorder = Recorder()
    async with quick(metering(), fresh_db, fresh_bus, "api") as door:
        await direct(door, 12)
        assert len(door.context.bus.kept) == 12
        await purge(broker, "metering-ingest")
        async with quick(recorder.service, fresh_db, fresh_bus, "consumers"):
            await until(lambda: len(recorder.ids) == 12)
            await until(lambda: len(door.context.bus.kept) == 0)
        assert len(set(recorder.ids)) == 12


async def test_a_process_that_handles_its_own_batches_keeps_none(
    fresh_db: ClonedDatabase, fresh_bus: str
) -> None:
    recorder = Recorder()
    async with quick(recorder.service, fresh_db, fresh_bus, "api", "consumers") as client:
        await direct(client, 12)
        await until(lambda: len(recorder.ids) == 12)
        await until(lambda: len(client.context.bus.kept) == 0)


async def test_a_process_that_drains_leaves_unhandled_batches_to_the_outbox(
    fresh_db: ClonedDatabase, fresh_bus: str, broker: PrivateRabbitMQ
) -> None:
    recorder = Recorder()
    async with quick(metering(), fresh_db, fresh_bus, "api") as door:
        await direct(door, 7)
    await purge(broker, "metering-ingest")
    async with quick(recorder.service, fresh_db, fresh_bus):
        async with quick(metering(), fresh_db, fresh_bus, "api") as door:
            assert (
                await door.context.pool.fetchval(
                    "SELECT count(*) FROM outbox WHERE type = $1", BatchAccepted.TYPE
                )
                == 7
            )
        await until(lambda: len(set(recorder.ids)) == 7)


async def test_memory_for_kept_messages_is_bounded(fresh_db: ClonedDatabase, fresh_bus: str) -> None:
    async with quick(metering(), fresh_db, fresh_bus, "api") as door:
        kept = door.context.bus.kept
        large = [
            replace(Envelope.of(batch(), trace=new_trace(), now=Clock.machine_now()), body=b"x" * 2**20)
            for _ in range(100)
        ]
        kept.add(large)
        assert len(kept) == 64
        kept.forget([one.message_id for one in large])
        assert len(kept) == kept._bytes == 0


@pytest.mark.parametrize("count", [0, 1, 1000])
async def test_both_sides_digest_the_same_ids_alike(
    fresh_db: ClonedDatabase, fresh_bus: str, count: int
) -> None:
    ids = [new_id() for _ in range(count)]
    expected = 0
    for one in ids:
        expected ^= int.from_bytes(one.bytes[8:], signed=True)
    async with quick(metering(), fresh_db, fresh_bus, "api") as client:
        sql = f"SELECT coalesce({coherence.DIGEST.format('id')}, 0) FROM unnest($1::uuid[]) AS m (id)"
        assert await client.context.pool.fetchval(sql, ids) == expected
