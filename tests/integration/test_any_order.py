"""Order and repetition don't matter: each service ends in the same tables, however its messages come."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import pytest
from scenario import Scenario, a_scenario

import eb_estimator.app
import eb_ledger.app
import eb_metering_ingest.app
import eb_pricing.app
from eb_contracts.base import Message
from eb_kit.service import Service
from eb_kit.testing import Client, running
from eb_tools.client import TimedOut, wait_for

KNOWN = "SELECT entity, entity_id, version, is_deleted, body FROM known WHERE entity <> 'signing_key' ORDER BY 1, 2"
ENDS: dict[str, tuple[Service, tuple[str, ...]]] = {
    "pricing": (
        eb_pricing.app.SERVICE,
        (
            KNOWN,
            "SELECT org_id, sku, period, currency, quantity, events, charged, terms_hash FROM counter ORDER BY 1, 2, 3",
            "SELECT org_id, sku, period, sum(quantity), sum(amount_gross), sum(tax_amount) FROM charge"
            " GROUP BY 1, 2, 3 ORDER BY 1, 2, 3",
            "SELECT org_id, charge_id, quantity FROM charge WHERE kind = 'usage' ORDER BY 1, 2",
            "SELECT count(*) FROM unrated_usage",
        ),
    ),
    "ledger": (
        eb_ledger.app.SERVICE,
        (
            KNOWN,
            "SELECT org_id, charge_id, sku, quantity, amount_gross, net, status::text FROM ledger ORDER BY 1, 2",
            "SELECT owner_org_id, name FROM billing_account ORDER BY 1, 2",
            "SELECT count(*) FROM charge_posting",
            "SELECT count(*) FROM parked_charge WHERE resolved_at IS NULL",
        ),
    ),
    "metering-ingest": (eb_metering_ingest.app.SERVICE, (KNOWN,)),
    "estimator": (eb_estimator.app.SERVICE, (KNOWN,)),
}


def heard(service: str, told: Scenario) -> list[Message]:
    """Give what a service would hear of it."""
    work = {"pricing": told.usage_messages, "ledger": told.charge_messages}
    return [*told.facts, *work.get(service, [])]


async def deliver(client: Client, messages: Sequence[Message], *, unruly: bool) -> None:
    """Publish in order, or each one twice (once as the very same message, once anew) and shuffled."""
    envelopes = [client.context.bus.wrap(message) for message in messages]
    if unruly:
        envelopes += envelopes + [client.context.bus.wrap(message) for message in messages]
        random.shuffle(envelopes)
    for start in range(0, len(envelopes), 20):
        await client.context.bus.publish_now(envelopes[start : start + 20], timeout_s=10)


async def ends(client: Client, queries: Sequence[str]) -> list[list[tuple[Any, ...]]]:
    return [[tuple(row) for row in await client.context.pool.fetch(query)] for query in queries]


async def run(
    name: str, database: Any, amqp_url: str, told: Scenario, *, unruly: bool, wanted: Any = None
) -> list[list[tuple[Any, ...]]]:
    """Run the service over a fresh database until it ends as `wanted`, or until it has rested."""
    service, queries = ENDS[name]
    clone = await database.clone()
    try:
        async with running(
            service, clone.dsn(service.schema), amqp_url, doors=("consumers", "jobs")
        ) as client:
            await deliver(client, heard(name, told), unruly=unruly)
            return await settled(client, queries, wanted)
    finally:
        await database.drop(clone)


async def settled(client: Client, queries: Sequence[str], wanted: Any) -> list[list[tuple[Any, ...]]]:
    """Give the tables once they are as `wanted`, or have rested for four seconds."""
    last: list[Any] = []

    async def rested() -> Any:
        found = await ends(client, queries)
        if wanted is not None:
            return found if found == wanted else None
        last.append(found)
        return found if len(last) > 8 and all(one == found for one in last[-8:]) else None

    try:
        return list(await wait_for(rested, "the tables to rest", timeout_s=40, every_s=0.5))
    except TimedOut:
        assert await ends(client, queries) == wanted
        raise


@pytest.mark.timeout(180)
@pytest.mark.parametrize("name", ENDS)
async def test_delivered_twice_and_shuffled_ends_in_the_same_tables(
    name: str, database: Any, fresh_bus: str
) -> None:
    told = a_scenario()
    in_order = await run(name, database, fresh_bus, told, unruly=False)
    for query, rows in zip(ENDS[name][1], in_order, strict=True):
        assert rows, query

    await run(name, database, fresh_bus, told, unruly=True, wanted=in_order)
