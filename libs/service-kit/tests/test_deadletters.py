"""Dead letters: listed, mended, replayed, discarded; one open letter per message."""

from __future__ import annotations

from typing import Any

from eb_contracts.ids import new_id
from eb_contracts.metering import UsageRecorded
from eb_kit import deadletters
from eb_kit.bus.envelope import Delivery
from eb_kit.testing_db import ClonedDatabase

from .bus_world import consuming, pricing, publish, until, usage


async def test_a_letter_is_mended_and_replayed_and_then_handled(
    fresh_db: ClonedDatabase, fresh_bus: str
) -> None:
    handled: list[Any] = []

    async def take(tx: Any, messages: list[UsageRecorded]) -> None:
        for message in messages:
            if message.usage[0].sku == "sms":
                raise RuntimeError("no price for sms")
            handled.append(message.usage[0].usage_id)

    async with consuming(pricing(take), fresh_db, fresh_bus) as client:
        message = usage()
        await publish(client, message)
        letter = await until(lambda: client.context.pool.fetchrow("SELECT * FROM bus_dead_letter"))
        letter_id = letter["dead_letter_id"]
        async with client.context.begin("system:test") as tx:
            (listed,) = await deadletters.list_letters(tx.connection)
            assert (listed["dead_letter_id"], listed["error_class"]) == (letter_id, "RuntimeError")
            body = await deadletters.get_body(tx.connection, letter_id)
            assert body == message.to_bytes()
            await deadletters.put_body(tx.connection, letter_id, body.replace(b'"sms"', b'"mail"'))
            assert await deadletters.replay(tx, [letter_id, new_id()]) == 1
        await until(lambda: handled == [message.usage[0].usage_id])
        async with client.context.begin("system:test") as tx:
            assert await deadletters.replay(tx, [letter_id]) == 0
            assert await deadletters.list_letters(tx.connection) == []


async def test_a_replayed_letter_that_fails_again_is_a_letter_again(
    fresh_db: ClonedDatabase, fresh_bus: str
) -> None:
    async def take(tx: Any, messages: list[UsageRecorded]) -> None:
        raise RuntimeError("for ever")

    async with consuming(pricing(take), fresh_db, fresh_bus) as client:
        await publish(client, usage())
        first = await until(
            lambda: client.context.pool.fetchval("SELECT dead_letter_id FROM bus_dead_letter")
        )
        async with client.context.begin("system:test") as tx:
            await deadletters.replay(tx, [first])
        again = "SELECT dead_letter_id FROM bus_dead_letter WHERE status = 'open'"
        second = await until(lambda: client.context.pool.fetchval(again))
        async with client.context.begin("system:test") as tx:
            assert await deadletters.discard(tx, [second]) == 1
        states = await client.context.pool.fetch("SELECT status FROM bus_dead_letter ORDER BY dead_letter_id")
        assert [row["status"] for row in states] == ["replayed", "discarded"]


async def test_hostile_headers_are_imported_and_the_same_letter_is_counted_once(
    fresh_db: ClonedDatabase, fresh_bus: str
) -> None:
    async def take(tx: Any, messages: list[UsageRecorded]) -> None:
        return

    hostile = Delivery(
        queue="pricing.dead",
        tag=1,
        message_id=new_id(),
        type="nul\x00type",
        body=b"\x00\xff",
        headers={
            "eb-error-class": "a\x00b",
            "eb-error-detail": "x" * 9000,
            "\x00": "\\u0000",
            "eb-first-at": "soon",
        },
        attempt=3,
        weight=1,
        trace=None,
    )
    async with consuming(pricing(take), fresh_db, fresh_bus) as client:
        for _ in range(2):
            async with client.context.begin("system:test") as tx:
                await deadletters.import_letters(
                    tx.connection, [hostile, hostile], client.context.clock.machine_now()
                )
        (row,) = await client.context.pool.fetch("SELECT * FROM bus_dead_letter")
    assert len(row["detail"]) == deadletters.LONGEST_DETAIL
    assert row["error_class"] == "a�b"
    assert bytes(row["body"]) == b"\x00\xff"


def test_letters_of_one_cause_share_a_fingerprint() -> None:
    one = deadletters.fingerprint("pricing.usage.p01", "t", "KeyError")
    assert one == deadletters.fingerprint("pricing.usage.p15", "t", "KeyError")
    assert one != deadletters.fingerprint("pricing.usage.p01", "t", "ValueError")
