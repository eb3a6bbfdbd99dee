"""The way of a message: outbox, broker, take, inbox; on a real RabbitMQ and PostgreSQL."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from eb_contracts.metering import UsageRecorded
from eb_kit.bus import Poison
from eb_kit.testing_db import ClonedDatabase

from .bus_world import consuming, pricing, publish, until, usage


async def test_a_message_published_in_a_transaction_is_handled_once(
    fresh_db: ClonedDatabase, fresh_bus: str
) -> None:
    seen: list[Any] = []

    async def take(tx: Any, messages: list[UsageRecorded]) -> None:
        seen.extend(messages)

    async with consuming(pricing(take), fresh_db, fresh_bus) as client:
        messages = [usage() for _ in range(300)]
        await publish(client, *messages)
        await until(lambda: len(seen) >= 300)

        assert {m.usage[0].usage_id for m in seen} == {m.usage[0].usage_id for m in messages}
        unsent = "SELECT count(*) = 0 FROM outbox WHERE sent_at IS NULL"
        await until(lambda: client.context.pool.fetchval(unsent))
        assert (
            await client.context.pool.fetchval("SELECT count(*) FROM inbox WHERE queue LIKE 'pricing.usage%'")
            == 300
        )


async def test_a_rolled_back_transaction_publishes_nothing(fresh_db: ClonedDatabase, fresh_bus: str) -> None:
    async def take(tx: Any, messages: list[UsageRecorded]) -> None:
        raise AssertionError("nothing was to arrive")

    async with consuming(pricing(take), fresh_db, fresh_bus) as client:
        with pytest.raises(RuntimeError, match="on purpose"):
            async with client.context.begin("system:test") as tx:
                tx.publish(usage())
                raise RuntimeError("on purpose")
        left = await client.context.pool.fetchval(
            "SELECT count(*) FROM outbox WHERE type = $1", UsageRecorded.TYPE
        )
        assert left == 0


async def test_one_poison_in_a_take_is_a_dead_letter_and_its_neighbours_are_handled(
    fresh_db: ClonedDatabase, fresh_bus: str
) -> None:
    handled: list[Any] = []
    bad = usage(quantity="666")

    async def take(tx: Any, messages: list[UsageRecorded]) -> None:
        if any(m.usage[0].usage_id == bad.usage[0].usage_id for m in messages):
            raise Poison("can never work", code="cursed")
        handled.extend(messages)

    async with consuming(pricing(take, linger_s=0.2), fresh_db, fresh_bus) as client:
        await publish(client, *[usage() for _ in range(20)], bad, *[usage() for _ in range(20)])
        letter = await until(lambda: client.context.pool.fetchrow("SELECT * FROM bus_dead_letter"))
        await until(lambda: len(handled) == 40)

    assert letter["error_class"] == "cursed"
    assert letter["detail"] == "can never work"
    assert letter["queue"] == f"pricing.usage.p{bad.partition:02d}"
    assert letter["attempts"] == 1
    assert letter["trace_id"]


async def test_a_failing_message_goes_through_every_tier_and_then_to_the_dead_letters(
    fresh_db: ClonedDatabase, fresh_bus: str
) -> None:
    tries: list[int] = []

    async def take(tx: Any, messages: list[UsageRecorded]) -> None:
        tries.append(len(messages))
        raise RuntimeError("still broken")

    async with consuming(pricing(take), fresh_db, fresh_bus) as client:
        await publish(client, usage())
        letter = await until(lambda: client.context.pool.fetchrow("SELECT * FROM bus_dead_letter"))

    assert len(tries) == 5
    assert letter["attempts"] == 5
    assert letter["error_class"] == "RuntimeError"
    assert letter["first_at"] < letter["last_at"]


async def test_a_message_that_fails_once_succeeds_after_its_tier(
    fresh_db: ClonedDatabase, fresh_bus: str
) -> None:
    tries: list[int] = []

    async def take(tx: Any, messages: list[UsageRecorded]) -> None:
        tries.append(len(messages))
        if len(tries) == 1:
            raise RuntimeError("broken once")

    async with consuming(pricing(take), fresh_db, fresh_bus) as client:
        await publish(client, usage())
        await until(lambda: len(tries) == 2)
        await asyncio.sleep(0.3)
        assert len(tries) == 2
        assert await client.context.pool.fetchval("SELECT count(*) FROM bus_dead_letter") == 0
