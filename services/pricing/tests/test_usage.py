"""Each usage record becomes one charge, whatever the bus does: twice, reordered, at once, killed midway."""

from __future__ import annotations

import asyncio
import random
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest

from eb_contracts.ids import partition_of
from eb_contracts.metering import UsageRecord
from eb_pricing.consumers import price_usage

from .factories import AT, GRADUATED, message, terms, usage
from .world import NOTHING_BROKEN, World, total


async def test_usage_becomes_a_charge_with_its_own_id(shared_world: World) -> None:
    org_id = await shared_world.org()
    record = usage(org_id, "7", events=3)

    await shared_world.deliver(record)

    (charge,) = await shared_world.charges(org_id)
    assert charge["charge_id"] == str(record.usage_id)
    assert (charge["amount_gross"], charge["quantity"], charge["event_count"]) == (Decimal("0.70"), 7, 3)
    assert (charge["period"], charge["time"], charge["kind"]) == ("2026-11", AT, "usage")
    assert charge["trace_ids"] == list(record.trace_ids)


async def test_usage_delivered_twice_is_charged_once(shared_world: World) -> None:
    org_id = await shared_world.org()
    record = usage(org_id)

    await shared_world.deliver(record)
    await shared_world.deliver(record, record)

    assert len(await shared_world.charges(org_id)) == 1
    assert (await shared_world.counter(org_id))["quantity"] == 1


async def test_amounts_too_small_for_a_cent_each_are_charged_together(shared_world: World) -> None:
    org_id = await shared_world.org(terms(overage_price="0.004"))

    await shared_world.deliver(*(usage(org_id) for _ in range(5)))

    charges = await shared_world.charges(org_id)
    assert len(charges) == 5
    assert total(charges) == Decimal("0.02")


async def test_a_void_takes_back_what_its_units_cost_at_the_end(shared_world: World) -> None:
    org_id = await shared_world.org(terms(tiers=GRADUATED))
    await shared_world.deliver(usage(org_id, "100"), usage(org_id, "20"))

    await shared_world.deliver(usage(org_id, "-20", events=-1))

    charges = await shared_world.charges(org_id)
    assert charges[-1]["amount_gross"] == Decimal("-1.00")
    assert total(charges) == Decimal("10.00")


async def test_a_period_is_the_month_in_the_zone_of_the_organisation(shared_world: World) -> None:
    org_id = await shared_world.org()
    november_ends = datetime(2026, 11, 30, 13, tzinfo=UTC)

    await shared_world.deliver(
        usage(org_id, minute=november_ends - timedelta(minutes=1)), usage(org_id, minute=november_ends)
    )

    assert {charge["period"] for charge in await shared_world.charges(org_id)} == {"2026-11", "2026-12"}


async def test_a_charge_goes_out_in_the_message_of_its_partition(world: World) -> None:
    orgs = [await world.org() for _ in range(6)]

    await world.deliver(*(usage(org_id) for org_id in orgs for _ in range(2)))

    messages = await world.sent()
    assert sorted(one.partition for one in messages) == sorted({partition_of(org_id) for org_id in orgs})
    for one in messages:
        assert {partition_of(charge.org_id) for charge in one.charges} == {one.partition}
    (charge, *_) = messages[0].charges
    assert charge.counter.version == 1
    assert charge.amount_gross == charge.counter.charged == Decimal("0.10")
    assert await world.broken() == NOTHING_BROKEN


async def test_eight_takes_at_once_of_shuffled_copies_charge_each_record_once(shared_world: World) -> None:
    orgs = [await shared_world.org(terms(tiers=GRADUATED)) for _ in range(5)]
    records = [usage(org_id, str(n % 9 + 1)) for org_id in orgs for n in range(60)]
    barrier = asyncio.Barrier(8)

    async def consume(seed: int) -> None:
        mine = records * 2
        random.Random(seed).shuffle(mine)
        await barrier.wait()
        for start in range(0, len(mine), 100):
            await shared_world.deliver(*mine[start : start + 100])

    await asyncio.gather(*(consume(seed) for seed in range(8)))

    assert await shared_world.broken() == NOTHING_BROKEN
    for org_id in orgs:
        assert len(await shared_world.charges(org_id)) == 60
        assert (await shared_world.counter(org_id))["charged"] == Decimal("19.55")


async def test_two_first_charges_at_once_share_one_counter(shared_world: World) -> None:
    for _ in range(5):
        org_id = await shared_world.org()
        await asyncio.gather(*(shared_world.deliver(usage(org_id)) for _ in range(8)))

        assert (await shared_world.counter(org_id))["charged"] == Decimal("0.80")
    assert await shared_world.broken() == NOTHING_BROKEN


async def test_a_take_that_dies_midway_leaves_nothing_and_comes_again(shared_world: World) -> None:
    org_id = await shared_world.org()
    records = [usage(org_id) for _ in range(10)]

    async def die() -> None:
        async with shared_world.client.context.begin("service:pricing") as tx:
            await price_usage(tx, [message(*records)])
            await tx.execute("SELECT pg_terminate_backend(pg_backend_pid())")

    with pytest.raises(Exception, match=r"terminat|closed"):
        await die()
    assert await shared_world.charges(org_id) == []

    await shared_world.deliver(*records)

    assert len(await shared_world.charges(org_id)) == 10
    assert await shared_world.broken() == NOTHING_BROKEN


async def test_any_order_of_any_batches_ends_in_the_same_sum(shared_world: World) -> None:
    shape = {
        "mode": "volume",
        "tiers": [{"up_to": "150", "unit_price": "1"}, {"up_to": None, "unit_price": "0.5"}],
    }
    ends = set()
    for seed in range(4):
        org_id = await shared_world.org(terms(tiers=shape))
        records = [usage(org_id, str(n)) for n in range(1, 21)]
        records += [usage(org_id, "-5", events=-1)]
        await deliver_in_pieces(shared_world, records, random.Random(seed))
        counter = await shared_world.counter(org_id)
        ends.add((counter["quantity"], counter["events"], counter["charged"]))

    assert ends == {(Decimal(205), 19, Decimal("102.50"))}
    assert await shared_world.broken() == NOTHING_BROKEN


async def deliver_in_pieces(world: World, records: list[UsageRecord], chance: random.Random) -> None:
    rest = chance.sample(records, len(records))
    while rest:
        size = chance.randint(1, 7)
        await world.deliver(*rest[:size])
        rest = rest[size:]


async def test_the_checker_sees_a_counter_that_is_off(world: World) -> None:
    org_id = await world.org()
    await world.deliver(usage(org_id))
    await world.owner.execute("UPDATE pricing.counter SET charged = charged + 0.01, quantity = quantity + 1")

    broken = await world.broken()

    assert broken["charges sum to the counter"] == 1
    assert broken["charges sum to what was charged"] == 1
    assert broken["charges = target(total)"] == 1


async def test_usage_beyond_all_bounds_is_parked_and_its_neighbours_are_charged(shared_world: World) -> None:
    org_id = await shared_world.org(terms(overage_price="20"))
    absurd = usage(org_id, "99999999999999999.5")

    await shared_world.deliver(usage(org_id), absurd, usage(org_id))

    assert total(await shared_world.charges(org_id)) == Decimal("40.00")
    assert await shared_world.unrated(org_id) == ["out_of_bounds"]


async def test_the_number_of_statements_of_a_take_does_not_depend_on_its_size(shared_world: World) -> None:
    orgs = [await shared_world.org() for _ in range(20)]
    await shared_world.deliver(*(usage(org_id) for org_id in orgs))

    few = await statements(shared_world, [usage(orgs[0])])
    many = await statements(shared_world, [usage(org_id) for org_id in orgs for _ in range(50)])

    assert few == many <= 9


async def statements(world: World, records: list[UsageRecord]) -> int:
    seen: list[str] = []
    async with world.client.context.begin("service:pricing") as tx:
        tx.connection.add_query_logger(lambda query: seen.append(query.query))
        await price_usage(tx, [message(*records)])
    return len(seen)
