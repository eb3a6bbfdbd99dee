"""Over the real broker: facts and charges in any order, sent twice, end in one line each."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import asyncpg

from eb_contracts.ids import new_id
from eb_kit.testing import running
from eb_kit.testing_db import ClonedDatabase
from eb_ledger.app import SERVICE

from .factories import a_charge, a_message, an_org

PATIENCE_S = 60


async def until(is_so: Callable[[], Awaitable[bool]]) -> None:
    """Wait for a condition."""
    async with asyncio.timeout(PATIENCE_S):
        while not await is_so():
            await asyncio.sleep(0.05)


async def test_charges_that_come_twice_and_before_their_org_are_posted_once(
    fresh_db: ClonedDatabase, fresh_bus: str
) -> None:
    early, late = new_id(), new_id()
    charges = [
        a_charge(org_id=org_id, charge_id=f"{org_id}/{n}") for org_id in (early, late) for n in range(20)
    ]
    owner = await asyncpg.connect(fresh_db.owner_dsn)

    async def count(sql: str) -> int:
        found: int = await owner.fetchval(sql)
        return found

    async with running(SERVICE, fresh_db.dsn("ledger"), fresh_bus) as client:
        bus = client.context.bus
        await until(lambda: _sent(bus.publish_now([an_org(early)], 5)))
        for charge in charges * 2:
            await bus.publish_now([a_message(charge)], 30)
        waiting = (
            "SELECT count(*) FROM ledger.parked_charge WHERE reason = 'org_unknown' AND resolved_at IS NULL"
        )
        await until(lambda: _is(count(waiting), 20))
        await bus.publish_now([an_org(late)], 30)
        await until(lambda: _is(count("SELECT count(*) FROM ledger.ledger"), 40))
        await until(lambda: _is(count(waiting), 0))
        handled = "SELECT count(*) FROM ledger.inbox WHERE queue LIKE 'ledger.charges.%'"
        await until(lambda: _is(count(handled), 80))

    assert await count("SELECT count(DISTINCT charge_id) FROM ledger.ledger") == 40
    assert await count("SELECT count(*) FROM ledger.billing_account WHERE is_default") == 2
    await owner.close()


async def _is(found: Awaitable[int], expected: int) -> bool:
    return await found == expected


async def _sent(publishing: Awaitable[None]) -> bool:
    await publishing
    return True
