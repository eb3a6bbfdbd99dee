"""Usage without terms waits, and terms that come late or change end as if they had come first."""

from __future__ import annotations

import asyncio
import itertools
import random
from datetime import UTC, datetime
from decimal import Decimal

import pytest

from eb_contracts.base import EntityFact
from eb_contracts.catalog import SkuChanged
from eb_contracts.metering import UsageRecord
from eb_pricing import jobs

from .factories import AT, GRADUATED, assigned, org_terms, retail_terms, terms, usage
from .world import NOTHING_BROKEN, World, total

MID_NOVEMBER = datetime(2026, 11, 3, tzinfo=UTC)
TAX = {"tax_code": "GST"}


async def test_usage_without_terms_waits_and_is_rated_by_the_sweep_when_they_come(
    shared_world: World,
) -> None:
    org_id = await shared_world.client.org()
    record = usage(org_id)
    await shared_world.deliver(record)
    assert await shared_world.unrated(org_id) == ["unknown_sku"]
    assert await shared_world.charges(org_id) == []

    await shared_world.learn(terms(), org_terms(org_id, assigned(terms())))
    await shared_world.sweep()

    assert await shared_world.unrated(org_id) == []
    (charge,) = await shared_world.charges(org_id)
    assert (charge["charge_id"], charge["amount_gross"]) == (str(record.usage_id), Decimal("0.10"))
    assert await shared_world.broken() == NOTHING_BROKEN


async def test_why_usage_waits_is_said(shared_world: World) -> None:
    org_id, named = await shared_world.org(terms("mail")), terms("fax")
    await shared_world.learn(SkuChanged(version=1, sku="letter", type="action", unit="each"))
    other = await shared_world.client.org()
    await shared_world.learn(org_terms(other, assigned(named)))

    await shared_world.deliver(usage(org_id, sku="letter"))
    await shared_world.deliver(usage(org_id, sku="pigeon"))
    await shared_world.deliver(usage(other, sku="fax"))

    assert sorted(await shared_world.unrated(org_id)) == ["no_terms", "unknown_sku"]
    assert await shared_world.unrated(other) == ["terms_missing"]


async def test_how_long_the_oldest_usage_waits_is_measured(world: World) -> None:
    await world.run(jobs.measure_waiting)
    assert jobs.WAITING_AGE._value.get() == 0

    org_id = await world.org()
    await world.deliver(usage(org_id, "1", sku="mail"))
    world.set_clock("2026-11-05T01:00:30Z")
    await world.deliver(usage(await world.org(), "1", sku="mail"), usage(org_id, "1", sku="mail"))
    await world.run(jobs.measure_waiting)

    assert jobs.WAITING._value.get() == 3
    assert jobs.WAITING_AGE._value.get() == pytest.approx(3600, abs=60)


async def test_facts_and_usage_in_any_order_end_in_the_same_charge(shared_world: World) -> None:
    for n, order in enumerate(random.Random(7).sample(list(itertools.permutations(range(5))), 20)):
        org_id = await shared_world.client.org()
        key, price = f"AUD/{n}", Decimal(n + 1).scaleb(-2)
        by_plan, by_retail = terms(overage_price=str(price)), terms("mail", overage_price=str(price))
        steps: list[EntityFact | UsageRecord] = [
            by_plan,
            by_retail,
            org_terms(org_id, assigned(by_plan, retail_key=key)),
            retail_terms(by_retail, key=key),
            usage(org_id, "3"),
        ]
        for step in [steps[place] for place in order] + [usage(org_id, sku="mail")]:
            await (shared_world.deliver(step) if isinstance(step, UsageRecord) else shared_world.learn(step))
        await shared_world.sweep()

        assert await shared_world.unrated(org_id) == []
        assert {one["amount_gross"] for one in await shared_world.charges(org_id)} == {price * 3, price}
    assert await shared_world.broken() == NOTHING_BROKEN


async def test_usage_that_waits_arrives_again_and_is_still_charged_once(shared_world: World) -> None:
    org_id = await shared_world.client.org()
    record = usage(org_id)
    await shared_world.deliver(record)
    await shared_world.deliver(record)
    await shared_world.learn(terms(), org_terms(org_id, assigned(terms())))
    await shared_world.deliver(record)

    await shared_world.sweep()

    assert len(await shared_world.charges(org_id)) == 1
    assert await shared_world.unrated(org_id) == []
    assert await shared_world.broken() == NOTHING_BROKEN


async def test_immediately_changed_terms_make_one_adjusting_charge_per_changed_counter(
    shared_world: World,
) -> None:
    old_sms, mail = terms(), terms("mail")
    org_id = await shared_world.org(old_sms, mail)
    await shared_world.deliver(*(usage(org_id, "10") for _ in range(3)), usage(org_id, "10", sku="mail"))

    dearer = terms(overage_price="0.15")
    change = assigned(dearer, mail, since=MID_NOVEMBER)
    await shared_world.learn(dearer, org_terms(org_id, assigned(old_sms, mail), change, version=2))
    await shared_world.sweep()
    await shared_world.sweep()

    adjusting = [charge for charge in await shared_world.charges(org_id) if charge["kind"] == "adjustment"]
    assert [(one["sku"], one["amount_gross"], one["quantity"]) for one in adjusting] == [
        ("sms", Decimal("1.50"), 0)
    ]
    assert adjusting[0]["terms_hash"] == dearer.terms_hash
    assert adjusting[0]["time"] == datetime(2026, 11, 5, tzinfo=UTC)
    assert await shared_world.broken() == NOTHING_BROKEN


async def test_usage_that_meets_changed_terms_first_makes_the_adjusting_charge_itself(
    shared_world: World,
) -> None:
    old = terms()
    org_id = await shared_world.org(old)
    await shared_world.deliver(usage(org_id, "10"))
    cheaper = terms(overage_price="0.05")
    change = assigned(cheaper, since=MID_NOVEMBER)
    await shared_world.learn(cheaper, org_terms(org_id, assigned(old), change, version=2))

    await shared_world.deliver(usage(org_id, "10"), usage(org_id, "10"))
    await shared_world.sweep()

    charges = await shared_world.charges(org_id)
    assert [charge["kind"] for charge in charges] == ["usage", "adjustment", "usage", "usage"]
    assert [charge["amount_gross"] for charge in charges] == [
        Decimal(n) for n in ("1.00", "-0.50", "0.50", "0.50")
    ]
    assert await shared_world.broken() == NOTHING_BROKEN


async def test_a_change_from_the_next_period_leaves_this_one_alone(shared_world: World) -> None:
    old, new = terms(), terms(overage_price="0.20")
    org_id = await shared_world.org(old)
    await shared_world.deliver(usage(org_id))
    december = datetime(2026, 11, 30, 13, tzinfo=UTC)
    await shared_world.learn(new, org_terms(org_id, assigned(old), assigned(new, since=december), version=2))
    await shared_world.sweep()

    await shared_world.deliver(usage(org_id), usage(org_id, minute=december))

    charges = await shared_world.charges(org_id)
    assert [charge["amount_gross"] for charge in charges] == [Decimal(n) for n in ("0.10", "0.10", "0.20")]


async def test_usage_and_changes_of_terms_shuffled_end_in_the_same_sums(shared_world: World) -> None:
    first, second, third = terms(), terms(overage_price="0.07"), terms(tiers=GRADUATED)
    since = [datetime(2026, 11, day, tzinfo=UTC) for day in (1, 2, 3)]
    ends = set()
    for seed in range(6):
        org_id = await shared_world.client.org()
        changes = [assigned(one, since=at) for one, at in zip((first, second, third), since, strict=True)]
        steps: list[EntityFact | UsageRecord] = [usage(org_id, str(n * 7)) for n in range(1, 9)]
        steps += [org_terms(org_id, *changes[: n + 1], version=n + 1) for n in range(3)]
        steps += [first, second, third]
        random.Random(seed).shuffle(steps)
        for step in steps:
            await (shared_world.deliver(step) if isinstance(step, UsageRecord) else shared_world.learn(step))
        await shared_world.sweep()
        counter = await shared_world.counter(org_id)
        ends.add((counter["quantity"], counter["events"], counter["charged"], counter["terms_hash"]))

    assert ends == {(Decimal(252), 8, Decimal("17.60"), third.terms_hash)}
    assert await shared_world.broken() == NOTHING_BROKEN


async def test_changes_of_terms_and_usage_at_the_same_moment_never_miss_each_other(
    shared_world: World,
) -> None:
    for price in range(1, 11):
        org_id = await shared_world.client.org()
        old, new = terms(overage_price=f"0.{price:02d}"), terms(overage_price=f"1.{price:02d}")
        await shared_world.learn(old, new, org_terms(org_id, assigned(old)))
        change = org_terms(org_id, assigned(old), assigned(new, since=MID_NOVEMBER), version=2)
        barrier = asyncio.Barrier(5)

        async def use(org_id=org_id, barrier=barrier) -> None:
            await barrier.wait()
            for _ in range(4):
                await shared_world.deliver(usage(org_id, "10"))

        async def change_terms(change=change, barrier=barrier) -> None:
            await barrier.wait()
            await shared_world.learn(change)

        await asyncio.gather(*(use() for _ in range(4)), change_terms())
        await shared_world.sweep()

        assert (await shared_world.counter(org_id))["charged"] == 160 * new.body.overage_price
    assert await shared_world.broken() == NOTHING_BROKEN


async def test_a_changed_currency_takes_back_the_old_amount_whole(shared_world: World) -> None:
    aud, kwd = terms(**TAX, tax_rate="0.1"), terms(currency="KWD", minor_digits=3, overage_price="0.0125")
    org_id = await shared_world.org(aud)
    await shared_world.deliver(usage(org_id, "10"))

    change = assigned(kwd, since=MID_NOVEMBER, currency="KWD")
    await shared_world.learn(kwd, org_terms(org_id, assigned(aud), change, version=2))
    await shared_world.sweep()

    charges = await shared_world.charges(org_id)
    assert [(one["currency"], one["amount_gross"], one["tax_amount"]) for one in charges] == [
        ("AUD", Decimal("1.00"), Decimal("0.10")),
        ("AUD", Decimal("-1.00"), Decimal("-0.10")),
        ("KWD", Decimal("0.125"), Decimal(0)),
    ]
    assert await shared_world.broken() == NOTHING_BROKEN


async def test_tax_of_a_counter_sums_to_the_tax_of_its_sum(shared_world: World) -> None:
    org_id = await shared_world.org(terms(overage_price="0.07", **TAX, tax_rate="0.1"))

    for _ in range(10):
        await shared_world.deliver(usage(org_id))

    charges = await shared_world.charges(org_id)
    assert total(charges) == Decimal("0.70")
    assert total(charges, "tax_amount") == Decimal("0.07")


async def test_tax_is_at_the_rate_in_force_at_the_charges_own_time(shared_world: World) -> None:
    untaxed, taxed = terms(overage_price="1"), terms(overage_price="1", **TAX, tax_rate="0.1")
    org_id = await shared_world.org(untaxed, terms("mail"))
    change = assigned(taxed, since=MID_NOVEMBER)
    await shared_world.learn(taxed, org_terms(org_id, assigned(untaxed), change, version=2))

    await shared_world.deliver(
        usage(org_id, "10", minute=datetime(2026, 11, 2, tzinfo=UTC)), usage(org_id, "10")
    )

    assert [charge["tax_amount"] for charge in await shared_world.charges(org_id)] == [Decimal(0), Decimal(1)]


async def test_a_tax_rate_that_comes_late_is_made_good_by_one_charge(shared_world: World) -> None:
    untaxed, taxed = terms(overage_price="1"), terms(overage_price="1", **TAX, tax_rate="0.1")
    higher = terms(overage_price="1", **TAX, tax_rate="0.15")
    org_id = await shared_world.org(untaxed)
    await shared_world.deliver(
        usage(org_id, "10", minute=datetime(2026, 11, 2, tzinfo=UTC)), usage(org_id, "20")
    )

    steps = [assigned(untaxed), assigned(taxed, since=MID_NOVEMBER), assigned(higher, since=AT)]
    await shared_world.learn(taxed, higher, org_terms(org_id, *steps, version=2))
    await shared_world.sweep()
    await shared_world.sweep()

    charges = await shared_world.charges(org_id)
    assert [(one["kind"], one["amount_gross"], one["tax_amount"]) for one in charges[2:]] == [
        ("adjustment", Decimal(0), Decimal(3))
    ]
    await shared_world.deliver(usage(org_id, "-20", events=-1))
    assert total(await shared_world.charges(org_id), "tax_amount") == 0
    assert await shared_world.broken() == NOTHING_BROKEN


async def test_a_first_retail_price_rates_usage_that_waits_and_a_changed_one_waits_itself(
    shared_world: World,
) -> None:
    org_id, key = await shared_world.client.org(), "AUD/FIRST"
    await shared_world.learn(org_terms(org_id, assigned(terms("mail"), retail_key=key)))
    await shared_world.deliver(usage(org_id))
    first, second = terms(overage_price="0.30"), terms(overage_price="0.40")
    await shared_world.learn(first, second, retail_terms(first, key=key))
    await shared_world.sweep()
    assert total(await shared_world.charges(org_id)) == Decimal("0.30")

    later = retail_terms(first, key=key).assignments + retail_terms(second, since=MID_NOVEMBER).assignments
    await shared_world.learn(
        retail_terms(first, key=key, version=2).model_copy(update={"assignments": later})
    )
    await shared_world.sweep()
    await shared_world.deliver(usage(org_id), usage(org_id, minute=datetime(2026, 12, 3, tzinfo=UTC)))

    charges = await shared_world.charges(org_id)
    assert [charge["amount_gross"] for charge in charges] == [Decimal(n) for n in ("0.30", "0.30", "0.40")]
    assert await shared_world.broken() == NOTHING_BROKEN


async def test_a_pile_of_waiting_usage_is_worked_off_piece_by_piece(shared_world: World) -> None:
    org_id = await shared_world.client.org()
    await shared_world.deliver(
        *(usage(org_id) for _ in range(450)), *(usage(org_id, sku="fax") for _ in range(50))
    )

    await shared_world.learn(terms(), org_terms(org_id, assigned(terms())))
    await shared_world.sweep()

    assert (await shared_world.counter(org_id))["charged"] == Decimal("45.00")
    assert await shared_world.unrated(org_id) == ["unknown_sku"] * 50
    assert await shared_world.owner.fetchval("SELECT count(*) FROM pricing.terms_due") == 0
    assert await shared_world.broken() == NOTHING_BROKEN


async def test_no_counter_changes_while_assignments_are_read_in_anew(shared_world: World) -> None:
    org_id = await shared_world.org()
    await shared_world.deliver(usage(org_id))
    facts = org_terms(org_id, assigned(terms()))
    await shared_world.owner.execute("DELETE FROM pricing.known WHERE entity_id = $1", str(org_id))
    await shared_world.owner.execute("INSERT INTO pricing.terms_due (org_id) VALUES ($1)", org_id)
    await shared_world.sweep()
    await shared_world.deliver(usage(org_id))

    await shared_world.learn(facts)
    await shared_world.sweep()

    assert [charge["kind"] for charge in await shared_world.charges(org_id)] == ["usage", "usage"]
    assert await shared_world.broken() == NOTHING_BROKEN
