"""Each charge becomes one line, whatever the bus does: twice, reordered, two at once, killed midway."""

from __future__ import annotations

import asyncio
import random
from datetime import UTC, datetime
from decimal import Decimal
from uuid import UUID

import pytest

from eb_contracts.ids import new_id
from eb_contracts.pricing import Charge
from eb_ledger.consumers import post_priced_charges
from eb_ledger.jobs import post_arrived

from .factories import a_charge, a_message, an_org
from .world import NOTHING_BROKEN, World, in_takes


def charges_of(org_id: UUID, many: int, gross: str = "0.07") -> list[Charge]:
    return [a_charge(charge_id=f"{org_id}:{n}", org_id=org_id, amount_gross=gross) for n in range(many)]


async def test_a_charge_delivered_twice_is_posted_once(shared_world: World) -> None:
    org_id = await shared_world.an_org_with_a_partner()
    charge = a_charge(org_id=org_id)

    await shared_world.deliver(charge)
    await shared_world.deliver(charge, charge)

    assert len(await shared_world.lines(org_id)) == 1
    assert await shared_world.parked(org_id) == []
    assert await shared_world.broken() == NOTHING_BROKEN


async def test_of_unlike_charges_with_one_id_the_first_stays_and_the_other_is_parked(
    shared_world: World,
) -> None:
    org_id = await shared_world.an_org_with_a_partner()

    await shared_world.deliver(a_charge(org_id=org_id, amount_gross="1.00"))
    await shared_world.deliver(a_charge(org_id=org_id, amount_gross="2.00"))
    await shared_world.deliver(a_charge(org_id=org_id, amount_gross="2.00"))

    assert [line["amount_gross"] for line in await shared_world.lines(org_id)] == [Decimal("1.00")]
    assert await shared_world.parked(org_id) == [("usage-1", "conflict")]


async def test_of_unlike_charges_in_one_take_the_first_stays(shared_world: World) -> None:
    org_id = await shared_world.an_org_with_a_partner()

    await shared_world.deliver(
        a_charge(org_id=org_id, amount_gross="1.00"), a_charge(org_id=org_id, amount_gross="2.00")
    )

    assert [line["amount_gross"] for line in await shared_world.lines(org_id)] == [Decimal("1.00")]
    assert await shared_world.parked(org_id) == [("usage-1", "conflict")]


async def test_two_orgs_may_use_one_charge_id(shared_world: World) -> None:
    first, second = await shared_world.org(), await shared_world.org()

    await shared_world.deliver(a_charge(org_id=first), a_charge(org_id=second))

    assert len(await shared_world.lines(first)) == len(await shared_world.lines(second)) == 1


async def test_eight_takes_at_once_of_shuffled_copies_post_each_charge_once(shared_world: World) -> None:
    org_id = await shared_world.an_org_with_a_partner()
    charges = charges_of(org_id, 500) * 3
    random.Random(21).shuffle(charges)
    barrier = asyncio.Barrier(8)

    async def consume(takes: list[list[Charge]]) -> None:
        await barrier.wait()
        for take in takes:
            await shared_world.deliver(*take)

    takes = in_takes(charges, 25)
    await asyncio.gather(*(consume(takes[n::8]) for n in range(8)))

    lines = await shared_world.lines(org_id)
    assert len(lines) == 500
    assert sum(line["amount_gross"] for line in lines) == Decimal("35.00")
    assert sum(line["partner_amount"] for line in lines) == Decimal("3.50")
    assert await shared_world.broken() == NOTHING_BROKEN


async def test_takes_at_once_over_many_keys_in_opposite_order_never_deadlock(shared_world: World) -> None:
    org_ids = [await shared_world.an_org_with_a_partner() for _ in range(5)]
    charges = [charge for org_id in org_ids for charge in charges_of(org_id, 40)]
    barrier = asyncio.Barrier(6)

    async def consume(seed: int) -> None:
        mine = random.Random(seed).sample(charges, len(charges))
        await barrier.wait()
        for take in in_takes(mine, 50):
            await shared_world.deliver(*take)

    await asyncio.gather(*(consume(seed) for seed in range(6)))

    assert len(await shared_world.lines(*org_ids)) == len(charges)
    assert await shared_world.broken() == NOTHING_BROKEN


async def test_unlike_charges_at_once_leave_one_line_and_one_conflict(shared_world: World) -> None:
    org_id = await shared_world.an_org_with_a_partner()
    for n in range(20):
        ids = {"charge_id": f"race-{n}", "org_id": org_id}
        await asyncio.gather(
            shared_world.deliver(a_charge(**ids, amount_gross="1.00")),
            shared_world.deliver(a_charge(**ids, amount_gross="2.00")),
        )

    assert len(await shared_world.lines(org_id)) == 20
    assert await shared_world.parked(org_id) == sorted((f"race-{n}", "conflict") for n in range(20))
    assert await shared_world.broken() == NOTHING_BROKEN


async def test_a_take_killed_midway_leaves_nothing_and_posts_when_it_comes_again(shared_world: World) -> None:
    org_id = await shared_world.an_org_with_a_partner()
    charges = charges_of(org_id, 30)
    context = shared_world.client.context

    with pytest.raises(ConnectionError):
        async with context.begin("service:ledger") as tx:
            await post_priced_charges(tx, [a_message(*charges)])
            raise ConnectionError("killed before the commit")
    assert await shared_world.lines(org_id) == []

    await shared_world.deliver(*charges)

    assert len(await shared_world.lines(org_id)) == 30
    assert await shared_world.broken() == NOTHING_BROKEN


async def test_a_charge_of_an_unknown_org_waits_and_is_posted_once_when_it_arrives(
    shared_world: World,
) -> None:
    org_id = new_id()
    await shared_world.deliver(a_charge(org_id=org_id))
    await shared_world.deliver(a_charge(org_id=org_id))
    assert await shared_world.parked(org_id) == [("usage-1", "org_unknown")]
    assert await sweep(shared_world) == 0

    await shared_world.learn(an_org(org_id))

    assert await sweep(shared_world) == 1
    assert await sweep(shared_world) == 0
    await shared_world.deliver(a_charge(org_id=org_id))
    assert len(await shared_world.lines(org_id)) == 1
    assert await shared_world.parked(org_id) == []
    assert await shared_world.broken() == NOTHING_BROKEN


async def test_a_charge_of_a_child_waits_for_its_unknown_parent(shared_world: World) -> None:
    parent_id, child_id = new_id(), new_id()
    await shared_world.learn(an_org(child_id, parent_id))

    await shared_world.deliver(a_charge(org_id=child_id))
    assert await shared_world.parked(child_id) == [("usage-1", "org_unknown")]
    await shared_world.learn(an_org(parent_id))

    assert await sweep(shared_world) == 1
    line = (await shared_world.lines(child_id))[0]
    assert line["billing_account_id"] == await default_account(shared_world, parent_id)


async def test_sweeps_at_once_and_the_message_again_post_a_waiting_charge_once(shared_world: World) -> None:
    org_ids = [new_id() for _ in range(10)]
    for org_id in org_ids:
        await shared_world.deliver(*charges_of(org_id, 10))
    await shared_world.learn(*(an_org(org_id) for org_id in org_ids))

    again = [shared_world.deliver(*charges_of(org_id, 10)) for org_id in org_ids]
    await asyncio.gather(*(sweep(shared_world) for _ in range(4)), *again)
    while await sweep(shared_world):
        pass

    assert len(await shared_world.lines(*org_ids)) == 100
    assert await shared_world.parked(*org_ids) == []
    assert await shared_world.broken() == NOTHING_BROKEN


async def test_a_waiting_charge_that_was_posted_with_other_content_becomes_a_conflict(
    shared_world: World,
) -> None:
    org_id = new_id()
    await shared_world.deliver(a_charge(org_id=org_id, amount_gross="1.00"))
    await shared_world.learn(an_org(org_id))
    await shared_world.deliver(a_charge(org_id=org_id, amount_gross="2.00"))

    await sweep(shared_world)

    assert await shared_world.parked(org_id) == [("usage-1", "conflict")]
    assert [line["amount_gross"] for line in await shared_world.lines(org_id)] == [Decimal("2.00")]


async def test_a_charge_beside_a_bad_one_is_posted(shared_world: World) -> None:
    org_id = await shared_world.org()

    await shared_world.deliver(
        a_charge(charge_id="good", org_id=org_id),
        a_charge(charge_id="fine", org_id=org_id, amount_gross="0.001"),
        a_charge(charge_id="coin", org_id=org_id, currency="ZZZ"),
        a_charge(charge_id="huge", org_id=org_id, amount_gross="1e18"),
    )

    assert [line["charge_id"] for line in await shared_world.lines(org_id)] == ["good"]
    assert await shared_world.parked(org_id) == [
        ("coin", "currency_unknown"),
        ("fine", "amount_precision"),
        ("huge", "amount_range"),
    ]


async def test_the_fact_of_a_take_names_every_line_of_it(world: World) -> None:
    org_id = await world.org()
    await world.deliver(*charges_of(org_id, 3))
    await world.deliver(*charges_of(org_id, 4))

    bodies = await world.owner.fetch(
        "SELECT convert_from(body, 'UTF8')::jsonb AS body FROM ledger.outbox"
        " WHERE type = 'ledger.entries.posted.v1' ORDER BY outbox_id"
    )
    told = await world.owner.fetch(
        "SELECT e ->> 'entry_id' AS entry_id FROM ledger.outbox, jsonb_array_elements(convert_from(body, 'UTF8')::jsonb"
        " -> 'entries') AS e WHERE type = 'ledger.entries.posted.v1'"
    )
    assert len(bodies) == 2
    assert sorted(row["entry_id"] for row in told) == sorted(
        str(x["entry_id"]) for x in await world.lines(org_id)
    )


async def test_a_take_needs_the_same_number_of_statements_for_one_charge_and_for_many(
    shared_world: World,
) -> None:
    one, many = await shared_world.an_org_with_a_partner(), await shared_world.an_org_with_a_partner()
    await shared_world.deliver(a_charge(org_id=one, charge_id="warm"))

    few, lots = (
        await statements_of(shared_world, charges_of(one, 1)),
        await statements_of(shared_world, charges_of(many, 300)),
    )

    assert 5 <= few == lots <= 10


async def test_lines_of_a_month_without_a_partition_get_one(world: World) -> None:
    org_id = await world.org()
    world.set_clock("2033-02-14T00:00:00+00:00")

    await asyncio.gather(*(world.deliver(a_charge(org_id=org_id, charge_id=f"c{n}")) for n in range(8)))

    assert len(await world.lines(org_id)) == 8
    assert await world.owner.fetchval("SELECT count(*) FROM ledger.ledger_p2033_02") == 8


async def test_an_org_keeps_its_account_when_it_is_linked_and_gets_one_when_detached(
    shared_world: World,
) -> None:
    root, other, born_child = await shared_world.org(), await shared_world.org(), new_id()
    linked = datetime(2026, 6, 1, tzinfo=UTC)
    await shared_world.learn(an_org(born_child, root))
    assert await default_account(shared_world, born_child) is None
    before = await default_account(shared_world, other)

    await shared_world.learn(an_org(other, version=2, later=((linked, root),)))
    await shared_world.learn(an_org(born_child, root, version=2, later=((linked, None),)))

    assert await default_account(shared_world, other) == before
    assert await default_account(shared_world, born_child) is not None


async def test_a_root_that_has_no_account_yet_gets_it_with_its_first_charge(shared_world: World) -> None:
    root, child = new_id(), new_id()
    await shared_world.client.seed(an_org(root), an_org(child, root))

    await shared_world.deliver(a_charge(org_id=child))

    line = (await shared_world.lines(child))[0]
    assert line["billing_account_id"] == await default_account(shared_world, root)


async def test_facts_at_once_make_one_default_account(shared_world: World) -> None:
    org_ids = [new_id() for _ in range(20)]

    await asyncio.gather(
        *(
            shared_world.learn(*(an_org(i, version=v) for i in random.Random(v).sample(org_ids, 20)))
            for v in range(1, 7)
        )
    )

    owners = await shared_world.owner.fetch(
        "SELECT owner_org_id FROM ledger.billing_account WHERE is_default AND owner_org_id = ANY($1)", org_ids
    )
    assert sorted(row["owner_org_id"] for row in owners) == sorted(org_ids)


async def sweep(world: World) -> int:
    async with world.client.context.begin("system:ledger") as tx:
        return await post_arrived(tx)


async def default_account(world: World, org_id: UUID) -> UUID | None:
    found: UUID | None = await world.owner.fetchval(
        "SELECT billing_account_id FROM ledger.billing_account WHERE owner_org_id = $1 AND is_default", org_id
    )
    return found


async def statements_of(world: World, charges: list[Charge]) -> int:
    """Count the statements that a take of these charges sends."""
    queries: list[str] = []
    async with world.client.context.begin("service:ledger") as tx:
        with tx.connection.query_logger(lambda record: queries.append(record.query)):
            await post_priced_charges(tx, [a_message(*charges)])
    return len(queries)
