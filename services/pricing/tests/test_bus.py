"""Over the real broker: facts and usage in any order, sent twice, end in one charge each."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

import asyncpg

from eb_contracts.ids import new_id
from eb_kit.testing import running
from eb_kit.testing_db import ClonedDatabase
from eb_pricing.app import SERVICE
from eb_tools.invariants import PRICING, broken

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


async def test_usage_over_the_bus_meets_caps_credits_and_holds_once(
    fresh_db: ClonedDatabase, fresh_bus: str
) -> None:
    owner = await asyncpg.connect(fresh_db.owner_dsn)
    async with running(SERVICE, fresh_db.dsn("pricing"), fresh_bus) as client:
        org_id, sms = await client.org(), terms()
        bus = client.context.bus
        for fact in (sms, org_terms(org_id, assigned(sms, since=datetime(2025, 1, 1, tzinfo=UTC)))):
            await until(lambda fact=fact: sent(bus.publish_now([fact], 30)))
        known = "SELECT count(*) FROM pricing.known WHERE entity = 'org_terms'"
        await until(lambda: has(owner.fetchval(known), 1))

        async def post(path: str, body: dict[str, Any], **token: Any) -> dict[str, Any]:
            headers = client.auth(**token) | {"Idempotency-Key": str(new_id())}
            async with client.http.post(client.url(path), json=body, headers=headers) as answer:
                made: dict[str, Any] = await answer.json()
                assert answer.status < 300, made
                return made

        of_org = {"org_id": str(org_id)}
        money = of_org | {"currency": "AUD"}
        await post("/pricing/budgets", money | {"amount": "1.00", "hard_cap": True}, roles=["Operator"])
        await post("/pricing/credits", money | {"amount": "0.30", "source": "test"}, roles=["Finance"])
        action = of_org | {"sku": "sms", "quantity": "6", "request_id": "r", "hold": True}
        hold = await post("/pricing/authorize", action, roles=["User"], org_id=org_id)
        assert hold["decision"] == "allow"
        now = client.context.clock.now().replace(second=0, microsecond=0)
        used = [
            message(usage(org_id, "6", minute=now, hold_ids=(UUID(hold["hold_id"]),))),
            message(usage(org_id, "9", minute=now)),
        ]
        for one in used * 2:
            await until(lambda one=one: sent(bus.publish_now([one], 30)))
        handled = "SELECT count(*) FROM pricing.inbox WHERE queue LIKE 'pricing.usage.%'"
        await until(lambda: has(owner.fetchval(handled), 4))
        unsent = "SELECT count(*) FROM pricing.outbox WHERE type LIKE 'pricing.%' AND sent_at IS NULL"
        await until(lambda: has(owner.fetchval(unsent), 0))

    sums = await owner.fetchrow(
        "SELECT sum(amount_gross) AS gross, sum(waived_amount) AS waived, sum(credit_applied) AS credit"
        " FROM pricing.charge"
    )
    assert tuple(sums) == (Decimal("1.00"), Decimal("0.50"), Decimal("0.30"))
    said = "SELECT count(*) FROM pricing.outbox WHERE type = 'pricing.budget.threshold_reached.v1'"
    assert await owner.fetchval(said) == 3
    assert await owner.fetchval("SELECT count(*) FROM pricing.initiation WHERE released_at IS NOT NULL") == 1
    assert await broken(owner, PRICING) == {}
    await owner.close()
