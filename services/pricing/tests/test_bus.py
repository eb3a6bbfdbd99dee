"""Over the real broker: facts and usage in any order, sent twice, end in one charge each."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable

import asyncpg

from eb_contracts.ids import new_id
from eb_kit.testing import running
from eb_kit.testing_db import ClonedDatabase
from eb_pricing.app import SERVICE

from .factories import assigned, message, org_terms, retail_terms, terms, usage

PATIENCE_S = 60


async def until(is_so: Callable[[], Awaitable[bool]]) -> None:
    """Wait for a condition."""
    async with asyncio.timeout(PATIENCE_S):
        while not await is_so():
            await asyncio.sleep(0.05)


async def test_usage_and_facts_that_come_twice_and_shuffled_end_in_one_charge_each(
    fresh_db: ClonedDatabase, fresh_bus: str
) -> None:
    orgs = [new_id() for _ in range(4)]
    sms, mail = terms(), terms("mail")
    facts = [sms, mail, retail_terms(mail), *(org_terms(org_id, assigned(sms)) for org_id in orgs)]
    used = [message(usage(org_id, sku=sku)) for org_id in orgs for sku in ("sms", "mail") for _ in range(10)]
    messages = [*facts, *used] * 2
    random.Random(3).shuffle(messages)
    owner = await asyncpg.connect(fresh_db.owner_dsn)

    async def count(sql: str) -> int:
        found: int = await owner.fetchval(sql)
        return found

    async with running(SERVICE, fresh_db.dsn("pricing"), fresh_bus) as client:
        bus = client.context.bus
        for one in messages:
            await until(lambda one=one: sent(bus.publish_now([one], 30)))
        await until(lambda: has(count("SELECT count(*) FROM pricing.charge"), len(used)))
        handled = "SELECT count(*) FROM pricing.inbox WHERE queue LIKE 'pricing.usage.%'"
        await until(lambda: has(count(handled), 2 * len(used)))
        unsent = "SELECT count(*) FROM pricing.outbox WHERE type LIKE 'pricing.%' AND sent_at IS NULL"
        await until(lambda: has(count(unsent), 0))
        await until(lambda: has(count("SELECT count(*) FROM pricing.terms_due"), 0))

    assert await count("SELECT count(*) FROM pricing.unrated_usage") == 0
    assert await count("SELECT count(*) FROM pricing.charge") == len(used)
    assert await count("SELECT count(*) FROM pricing.counter WHERE charged = 1 AND quantity = 10") == 8
    await owner.close()


async def has(found: Awaitable[int], expected: int) -> bool:
    """Tell whether a count is as expected."""
    return await found == expected


async def sent(publishing: Awaitable[None]) -> bool:
    """Wait for the broker's confirm."""
    await publishing
    return True
