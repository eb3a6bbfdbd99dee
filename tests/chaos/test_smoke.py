"""Kills and hangs while usage flows: nothing accepted is lost, nothing counts twice, and it heals by itself."""

from __future__ import annotations

import asyncio
import time
from decimal import Decimal
from typing import Any

import asyncpg
import pytest
from billing import billed_org, estimate, quantity_of, usage_of

from eb_tools.client import Json, wait_for
from eb_tools.invariants import broken, totals
from eb_tools.world import Member, World

from .doors import all_work

EVENTS = 50_000
BATCH = 100
VICTIMS = (
    "metering-ingest", "pricing", "ledger", "gateway", "auth", "catalog", "domain-verify", "estimator",
    "rabbitmq", "postgres",
)  # fmt: skip
HEALED_S = 30


async def flow(world: World, member: Member, events: list[Json], lasting_s: float) -> None:
    """Send all events evenly over this time, each batch until its 202; every fifth batch goes out twice."""
    batches = [events[start : start + BATCH] for start in range(0, len(events), BATCH)]
    started = time.monotonic()
    gate = asyncio.Semaphore(16)

    async def one(number: int, batch: list[Json]) -> None:
        async with gate:
            for _ in range(2 if number % 5 == 0 else 1):
                await world.send_batch(member.api_key, batch)

    async with asyncio.TaskGroup() as tasks:
        for number, batch in enumerate(batches):
            tasks.create_task(one(number, batch))
            ahead = started + lasting_s * number / len(batches) - time.monotonic()
            await asyncio.sleep(max(0.0, ahead))


async def look_again(dsn: str, member: Member) -> dict[str, Any] | None:
    """Give the totals, None while the database is away."""
    try:
        connection = await asyncpg.connect(dsn, timeout=3)
    except (OSError, asyncpg.PostgresError, TimeoutError):
        return None
    try:
        return await totals(connection, [member.org_id])
    finally:
        await connection.close()


async def settled(stack: Any, member: Member, quantity: Decimal, timeout_s: float) -> dict[str, Any]:
    """Wait until the ledger holds the quantity, over restarts of the database."""

    async def look() -> dict[str, Any] | None:
        found = await look_again(stack.facts["owner_dsn"], member)
        return found if found and found["posted"] >= quantity else None

    return dict(await wait_for(look, f"{quantity} in the ledger", timeout_s=timeout_s, every_s=0.5))


async def assert_exact(
    stack: Any, world: World, member: Member, events: list[Json], timeout_s: float
) -> None:
    quantity = quantity_of(events)
    found = await settled(stack, member, quantity, timeout_s)
    assert found["metered"] == found["priced"] == found["posted"] == quantity
    assert found["gross"] == Decimal((await estimate(world, member, events))["grand_total"])
    connection = await asyncpg.connect(stack.facts["owner_dsn"])
    try:
        assert await broken(connection) == {}
    finally:
        await connection.close()


@pytest.mark.timeout(300)
async def test_kill_9_of_every_process_in_turn_loses_and_doubles_nothing(stack: Any, world: World) -> None:
    member, skus, _ = await billed_org(world, "Chaos Kill")
    events = usage_of(member, skus, EVENTS)

    async def killer() -> None:
        for victim in VICTIMS:
            await asyncio.sleep(3)
            killed = stack.control.kill(victim)
            await asyncio.to_thread(stack.control.wait_for_new, victim, killed, 40)

    await asyncio.gather(flow(world, member, events, lasting_s=60), killer())
    await assert_exact(stack, world, member, events, timeout_s=HEALED_S + 30)


@pytest.mark.timeout(180)
async def test_a_broker_hung_for_30_s_is_survived_without_help(stack: Any, world: World) -> None:
    await all_work(world)
    member, skus, _ = await billed_org(world, "Chaos Hang")
    events = usage_of(member, skus, 3_000)
    sending = asyncio.create_task(flow(world, member, events, lasting_s=40))
    await asyncio.sleep(3)
    stack.control.stop_signal("rabbitmq")
    await asyncio.sleep(30)
    stack.control.continue_signal("rabbitmq")
    await sending

    await assert_exact(stack, world, member, events, timeout_s=HEALED_S + 30)
