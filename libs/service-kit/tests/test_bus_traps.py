"""Each known trap of the broker and its client, provoked on a real node that these tests may hurt."""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aio_pika
import asyncpg
import pytest

from eb_contracts.base import USAGE
from eb_contracts.metering import UsageRecorded
from eb_kit import topology, touch
from eb_kit.bus import BusUnavailable, Envelope
from eb_kit.bus.publisher import Outcome
from eb_kit.clock import Clock
from eb_kit.telemetry import new_trace
from eb_kit.testing_db import ClonedDatabase
from eb_kit.touch import CONSUME
from eb_tools.debian import find_programs
from eb_tools.rabbitmq import NODE, PrivateRabbitMQ

from .bus_world import consuming, pricing, publish, until, usage

TIERS_MS = {"5s": 100, "30s": 200, "5m": 300, "30m": 400}


@pytest.fixture(scope="module")
async def victim() -> AsyncIterator[PrivateRabbitMQ]:
    """A broker that tests stop, kill and starve."""
    with tempfile.TemporaryDirectory(prefix="eb-victim-", ignore_cleanup_errors=True) as folder:
        async with PrivateRabbitMQ(Path(folder)) as node:
            await topology.apply(node.admin_url, tiers_ms=TIERS_MS)
            yield node


class Seen:
    """A handler that remembers what it was given."""

    def __init__(self) -> None:
        self.ids: list[Any] = []

    async def take(self, tx: Any, messages: list[UsageRecorded]) -> None:
        self.ids += [message.usage[0].usage_id for message in messages]

    def has_all(self, messages: list[UsageRecorded]) -> bool:
        return {message.usage[0].usage_id for message in messages} <= set(self.ids)


async def ctl(node: PrivateRabbitMQ, *command: str) -> None:
    """Run rabbitmqctl against the node."""
    programs = find_programs()
    environment = programs.environment() | {
        "HOME": str(node.folder / "home"),
        "ERL_EPMD_PORT": str(node.ports.epmd),
        "RABBITMQ_NODENAME": NODE,
        "RABBITMQ_CONF_ENV_FILE": "/dev/null",
    }
    program = str(Path(programs.rabbitmq_server).with_name("rabbitmqctl"))
    running = await asyncio.create_subprocess_exec(program, *command, env=os.environ | environment)
    assert await running.wait() == 0


def wrapped(message: UsageRecorded, **changes: Any) -> Envelope:
    """The message with its id."""
    made = Envelope.of(message, trace=new_trace(), now=Clock.machine_now())
    return Envelope(**{name: getattr(made, name) for name in Envelope.__slots__} | changes)


async def test_relay_and_consumers_come_back_after_a_hung_broker_cancelled_their_calls(
    fresh_db: ClonedDatabase, victim: PrivateRabbitMQ
) -> None:
    seen = Seen()
    async with consuming(pricing(seen.take), fresh_db, f"{victim.amqp_url}?heartbeat=1") as client:
        await publish(client, first := usage())
        await until(lambda: seen.has_all([first]))
        victim.sigstop()
        try:
            more = [usage() for _ in range(50)]
            await publish(client, *more)
            await asyncio.sleep(9)
        finally:
            victim.sigcont()
        await until(lambda: seen.has_all(more), 30)

    assert len(seen.ids) == len(set(seen.ids)) == 51


async def test_a_direct_publish_into_a_hung_broker_fails_in_time_and_the_next_at_once(
    fresh_db: ClonedDatabase, victim: PrivateRabbitMQ
) -> None:
    seen = Seen()
    loop = asyncio.get_running_loop()
    async with consuming(pricing(seen.take), fresh_db, victim.amqp_url) as client:
        bus = client.context.bus
        await publish(client, first := usage())
        await until(lambda: seen.has_all([first]))
        envelope = bus.wrap(usage())
        victim.sigstop()
        try:
            started = loop.time()
            with pytest.raises(BusUnavailable):
                await bus.publish_now([envelope], 1.0)
            assert loop.time() - started < 1.5
            started = loop.time()
            with pytest.raises(BusUnavailable, match="silent"):
                await bus.publish_now([bus.wrap(usage())], 1.0)
            assert loop.time() - started < 0.1
        finally:
            victim.sigcont()

        async def sent_again() -> bool:
            try:
                await bus.publish_now([envelope], 1.0)
            except BusUnavailable:
                return False
            return True

        await until(sent_again)
        await until(lambda: len(seen.ids) == 2)
        await asyncio.sleep(0.3)
        assert len(seen.ids) == 2


async def test_an_unroutable_message_is_returned_and_never_taken_for_sent(
    fresh_db: ClonedDatabase, victim: PrivateRabbitMQ
) -> None:
    async with await aio_pika.connect(victim.amqp_url) as admin:
        channel = await admin.channel()
        await channel.declare_exchange("nobody.listens", durable=False)
        async with consuming(pricing(Seen().take), fresh_db, victim.amqp_url) as client:
            await until(lambda: client.context.bus._publishing.is_up)
            lost = wrapped(usage(), exchange="nobody.listens")
            assert await client.context.bus._aside.send([lost]) == [Outcome.RETURNED]
            async with client.context.begin("system:test") as tx:
                tx.publish(lost, fine := usage())
            sent = "SELECT count(*) FROM outbox WHERE sent_at IS NOT NULL AND exchange = $1"
            await until(lambda: client.context.pool.fetchval(sent, fine.EXCHANGE))
            assert await client.context.pool.fetchval(sent, "nobody.listens") == 0


async def test_what_no_queue_wants_is_kept_by_the_alternate_exchange(
    fresh_db: ClonedDatabase, victim: PrivateRabbitMQ
) -> None:
    async with consuming(pricing(Seen().take), fresh_db, victim.amqp_url) as client:
        await until(lambda: client.context.bus._publishing.is_up)
        stray = wrapped(usage(), routing_key="usage.p99", exchange=USAGE)
        await client.context.bus.publish_now([stray])
    async with await aio_pika.connect(victim.amqp_url) as admin:
        channel = await admin.channel()
        queue = await channel.get_queue(topology.UNROUTED)
        found = await queue.get(timeout=5, fail=True)
        assert found is not None
        assert found.message_id == str(stray.message_id)
        await found.ack()


async def test_publishing_pauses_while_an_alarm_blocks_and_consuming_goes_on(
    fresh_db: ClonedDatabase, victim: PrivateRabbitMQ, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(touch, "IN_TOUCH_S", 2.0)
    monkeypatch.setattr(touch, "SETTLED_S", 1.0)
    seen = Seen()
    async with consuming(pricing(seen.take), fresh_db, victim.amqp_url) as client:
        bus = client.context.bus
        await publish(client, first := usage())
        await until(lambda: seen.has_all([first]) and client.context.touch.holds)
        await ctl(victim, "set_vm_memory_high_watermark", "0.00001")
        try:

            async def is_blocked() -> bool:
                try:
                    await bus.publish_now([bus.wrap(usage())], 0.3)
                except BusUnavailable as error:
                    return "blocks" in str(error)
                return False

            await until(is_blocked)
            assert bus._consuming.is_up
            assert not bus._consuming.is_blocked
            await publish(client, *(held := [usage() for _ in range(10)]))
            await asyncio.sleep(0.5)
            assert not seen.has_all(held)
            await until(lambda: not client.context.touch.holds)
            assert client.context.touch.silence_s(CONSUME) < 2.0
        finally:
            await ctl(victim, "set_vm_memory_high_watermark", "0.6")
        await until(lambda: seen.has_all(held) and client.context.touch.holds, 30)


async def test_nothing_is_lost_or_handled_twice_over_a_killed_broker(
    fresh_db: ClonedDatabase, victim: PrivateRabbitMQ
) -> None:
    seen = Seen()
    async with consuming(pricing(seen.take), fresh_db, victim.amqp_url) as client:
        messages = [usage() for _ in range(400)]
        for start in range(0, 200, 20):
            await publish(client, *messages[start : start + 20])
        await victim.kill()
        for start in range(200, 400, 20):
            await publish(client, *messages[start : start + 20])
        await victim.restart()
        await until(lambda: seen.has_all(messages), 60)
        unsent = "SELECT count(*) = 0 FROM outbox WHERE sent_at IS NULL"
        await until(lambda: client.context.pool.fetchval(unsent), 30)

    assert len(seen.ids) == len(set(seen.ids))


async def test_a_message_delivered_twice_is_handled_once(
    fresh_db: ClonedDatabase, victim: PrivateRabbitMQ
) -> None:
    seen = Seen()
    async with consuming(pricing(seen.take), fresh_db, victim.amqp_url) as client:
        bus = client.context.bus
        await until(lambda: bus._publishing.is_up)
        envelope = bus.wrap(usage())
        for _ in range(3):
            await bus.publish_now([envelope, envelope])
        await publish(client, last := usage())
        await until(lambda: seen.has_all([last]))
        await asyncio.sleep(0.3)
        assert len(seen.ids) == 2


@pytest.mark.parametrize(
    ("changes", "error_class"),
    [
        ({"body": b"{not json"}, "unreadable"),
        ({"body": b'{"partition": 0, "usage": [{"sku": 1}]}'}, "unreadable"),
        ({"body": b"\x00\xff"}, "unreadable"),
        ({"type": "pricing.nonsense.v1"}, "unknown_type"),
        (
            {"headers": {"traceparent": "nonsense", "eb-attempt": "many", "eb-weight": -7}, "body": b"[]"},
            "unreadable",
        ),
    ],
)
async def test_a_message_that_cannot_be_read_is_a_dead_letter_at_once(
    fresh_db: ClonedDatabase, victim: PrivateRabbitMQ, changes: dict[str, Any], error_class: str
) -> None:
    seen = Seen()
    async with consuming(pricing(seen.take), fresh_db, victim.amqp_url) as client:
        await until(lambda: client.context.bus._publishing.is_up)
        bad, good = wrapped(usage(), **changes), wrapped(usage())
        await client.context.bus.publish_now([bad, good])
        letter = await until(lambda: client.context.pool.fetchrow("SELECT * FROM bus_dead_letter"))
        await until(lambda: len(seen.ids) == 1)
    assert letter["error_class"] == error_class
    assert bytes(letter["body"]) == bad.body
    assert 'sku": 1' not in letter["detail"]


async def test_a_message_without_a_usable_id_is_a_dead_letter(
    fresh_db: ClonedDatabase, victim: PrivateRabbitMQ
) -> None:
    async with (
        consuming(pricing(Seen().take), fresh_db, victim.amqp_url) as client,
        await aio_pika.connect(victim.amqp_url) as admin,
    ):
        channel = await admin.channel()
        exchange = await channel.get_exchange(USAGE, ensure=False)
        body = usage().to_bytes()
        for message_id in (None, "not-a-uuid", "00000000-0000-4000-8000-000000000000"):
            stray = aio_pika.Message(body, message_id=message_id, type=UsageRecorded.TYPE)
            await exchange.publish(stray, "usage.p03")
        count = "SELECT count(*) = 3 FROM bus_dead_letter WHERE error_class = 'message_id_invalid'"
        await until(lambda: client.context.pool.fetchval(count))


async def test_what_the_broker_gave_up_is_imported_too(
    fresh_db: ClonedDatabase, victim: PrivateRabbitMQ
) -> None:
    async with await aio_pika.connect(victim.amqp_url) as admin:
        channel = await admin.channel()
        queue = await channel.get_queue("pricing.usage.p05")
        exchange = await channel.get_exchange(USAGE, ensure=False)
        envelope = wrapped(usage())
        properties = envelope.properties("test")
        await exchange.publish(
            aio_pika.Message(
                envelope.body,
                message_id=properties.message_id,
                type=envelope.type,
                headers=properties.headers,
            ),
            "usage.p05",
        )
        for _ in range(topology.DELIVERY_LIMIT + 1):
            found = await queue.get(timeout=5, fail=False)
            assert found is not None
            await found.nack(requeue=True)
            await asyncio.sleep(0.02)
    async with consuming(pricing(Seen().take), fresh_db, victim.amqp_url) as client:
        letter = await until(lambda: client.context.pool.fetchrow("SELECT * FROM bus_dead_letter"))
    assert letter["error_class"] == "broker_delivery_limit"
    assert letter["queue"] == "pricing.usage.p05"


async def test_bad_weather_of_the_database_holds_messages_and_consumes_no_attempt(
    fresh_db: ClonedDatabase, victim: PrivateRabbitMQ
) -> None:
    done: list[int] = []
    storms = [
        asyncpg.DeadlockDetectedError("deadlock"),
        asyncpg.SerializationError("serialization"),
        asyncpg.ConnectionDoesNotExistError("gone"),
        TimeoutError(),
    ]

    async def take(tx: Any, messages: list[UsageRecorded]) -> None:
        if storms:
            raise storms.pop()
        done.append(len(messages))

    async with consuming(pricing(take), fresh_db, victim.amqp_url) as client:
        await publish(client, usage(), usage())
        await until(lambda: sum(done) == 2)
        assert await client.context.pool.fetchval("SELECT count(*) FROM bus_dead_letter") == 0


async def test_a_take_whose_database_connection_is_killed_is_handled_again(
    fresh_db: ClonedDatabase, victim: PrivateRabbitMQ
) -> None:
    tries: list[int] = []

    async def take(tx: Any, messages: list[UsageRecorded]) -> None:
        tries.append(len(messages))
        if len(tries) == 1:
            await tx.execute("SELECT pg_terminate_backend(pg_backend_pid())")

    async with consuming(pricing(take), fresh_db, victim.amqp_url) as client:
        await publish(client, usage())
        await until(lambda: len(tries) == 2)
        handled = "SELECT count(*) FROM inbox WHERE queue LIKE 'pricing.usage%'"
        await until(lambda: client.context.pool.fetchval(handled))


async def test_a_message_whose_weather_never_clears_waits_elsewhere_and_its_neighbours_are_handled(
    fresh_db: ClonedDatabase, victim: PrivateRabbitMQ
) -> None:
    cursed, fine = usage(), [usage() for _ in range(6)]
    seen, tries = Seen(), []

    async def take(tx: Any, messages: list[UsageRecorded]) -> None:
        if any(m.usage[0].usage_id == cursed.usage[0].usage_id for m in messages):
            tries.append(len(messages))
            if len(tries) < 20:
                raise asyncpg.DeadlockDetectedError("always")
        await seen.take(tx, messages)

    async with consuming(pricing(take, linger_s=0.3), fresh_db, victim.amqp_url) as client:
        await publish(client, *fine[:3], cursed, *fine[3:])
        await until(lambda: seen.has_all(fine), 60)
        assert await client.context.pool.fetchval("SELECT count(*) FROM bus_dead_letter") == 0


async def test_a_queue_made_anew_under_a_consumer_is_consumed_again(
    fresh_db: ClonedDatabase, victim: PrivateRabbitMQ
) -> None:
    seen = Seen()
    async with consuming(pricing(seen.take), fresh_db, victim.amqp_url) as client:
        await publish(client, first := usage())
        await until(lambda: seen.has_all([first]))
        async with await aio_pika.connect(victim.amqp_url) as admin:
            channel = await admin.channel()
            for queue in topology.streams_of("pricing")["usage"].queues:
                await channel.queue_delete(queue)
        await topology.apply(victim.admin_url, tiers_ms=TIERS_MS)
        await publish(client, *(more := [usage() for _ in range(20)]))
        await until(lambda: seen.has_all(more), 30)


async def test_draining_finishes_the_take_in_hand_and_returns_the_rest_in_order(
    fresh_db: ClonedDatabase, victim: PrivateRabbitMQ
) -> None:
    begun, finish = asyncio.Event(), asyncio.Event()
    seen = Seen()

    async def slow(tx: Any, messages: list[UsageRecorded]) -> None:
        begun.set()
        await finish.wait()
        await seen.take(tx, messages)

    messages = [usage() for _ in range(30)]
    for message in messages:
        object.__setattr__(message, "partition", 7)
    async with consuming(pricing(slow, max_messages=5, linger_s=0.2), fresh_db, victim.amqp_url) as client:
        await publish(client, *messages)
        await begun.wait()
        asyncio.get_running_loop().call_later(0.3, finish.set)
    assert len(seen.ids) == 5

    rest = Seen()
    async with consuming(pricing(rest.take), fresh_db, victim.amqp_url):
        await until(lambda: len(rest.ids) == 25)
    assert seen.ids + rest.ids == [message.usage[0].usage_id for message in messages]


async def test_several_relays_and_consumers_share_the_work_and_nothing_is_handled_twice(
    fresh_db: ClonedDatabase, victim: PrivateRabbitMQ
) -> None:
    one, two = Seen(), Seen()
    async with (
        consuming(pricing(one.take), fresh_db, victim.amqp_url) as client,
        consuming(pricing(two.take), fresh_db, victim.amqp_url) as other,
    ):
        messages = [usage() for _ in range(1000)]
        for start in range(0, 1000, 50):
            await publish(client if start % 100 else other, *messages[start : start + 50])
        await until(lambda: len(one.ids) + len(two.ids) >= 1000, 30)
        await asyncio.sleep(0.3)
    assert sorted(one.ids + two.ids) == sorted(message.usage[0].usage_id for message in messages)
    assert one.ids
    assert two.ids
