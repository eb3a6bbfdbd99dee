"""The close of a period: minimums, late usage, races (docs/rules/pricing.md, The close of a period)."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID, uuid4

import pytest

from eb_contracts.catalog import TermsDefined
from eb_contracts.ids import new_id
from eb_contracts.pricing import PeriodClosed
from eb_pricing import jobs
from eb_pricing.jobs import close_periods, settle_closed_periods

from .factories import NOVEMBER, assigned, org_terms, terms, usage
from .world import NOTHING_BROKEN, World, total

END = "2026-11-30T13:00:00Z"
CLOSES = "2026-12-03T13:00:00Z"
PER_UNIT = {"mode": "per_unit", "unit_price": "0.10"}
TAX = {"tax_code": "GST", "tax_rate": "0.1"}


def at_least(minimum: str = "5", sku: str = "sms", **values: Any) -> TermsDefined:
    return terms(sku, overage_price="0", tiers={**PER_UNIT, "minimum": minimum}, **values)


async def told(world: World, org_id: UUID) -> list[tuple[str, Decimal, str | None]]:
    return [(one["kind"], one["amount_gross"], one["reason"]) for one in await world.charges(org_id)]


async def closed_facts(world: World) -> list[PeriodClosed]:
    rows = await world.owner.fetch(
        "SELECT body FROM pricing.outbox WHERE type = $1 ORDER BY outbox_id", PeriodClosed.TYPE
    )
    return [PeriodClosed.from_bytes(row["body"]) for row in rows]


async def test_a_period_closes_72_hours_after_its_end_in_the_organisations_zone(world: World) -> None:
    org_id = await world.org(at_least())
    await world.deliver(usage(org_id, "3"))
    world.set_clock("2026-12-03T12:59:59Z")
    await world.close()
    assert await told(world, org_id) == [("usage", Decimal("0.30"), None)]

    world.set_clock(CLOSES)
    await world.close()
    await world.close()

    assert await told(world, org_id) == [
        ("usage", Decimal("0.30"), None),
        ("adjustment", Decimal("4.70"), "period_closed"),
    ]
    (fact,) = await closed_facts(world)
    assert (fact.entity_id, fact.charges) == (f"{org_id}/2026-11", 1)
    assert (fact.starts_at, fact.ends_at) == (NOVEMBER, datetime(2026, 11, 30, 13, tzinfo=UTC))
    closing = (await world.charges(org_id))[-1]
    assert (closing["time"], closing["period"]) == (fact.ends_at - timedelta(minutes=1), "2026-11")
    assert closing["created_at"] >= datetime(2026, 12, 3, 13, tzinfo=UTC)
    assert await world.broken() == NOTHING_BROKEN


async def test_what_was_not_used_is_charged_where_the_price_says_so(world: World) -> None:
    flat = {"mode": "graduated", "tiers": [{"up_to": None, "unit_price": "1", "flat_fee": "7"}]}
    org_id = await world.org(
        at_least("5", **TAX),
        terms("mail", overage_price="0", tiers={**flat, "flat_on_zero": True}),
        terms("fax", overage_price="0", tiers=flat),
        terms("letter"),
    )
    world.set_clock(CLOSES)
    await world.close()

    charges = await world.charges(org_id)
    assert {(one["sku"], one["amount_gross"], one["tax_amount"], one["quantity"]) for one in charges} == {
        ("sms", Decimal(5), Decimal("0.5"), Decimal(0)),
        ("mail", Decimal(7), Decimal(0), Decimal(0)),
    }
    assert {one["reason"] for one in charges} == {"period_closed"}
    assert await world.broken() == NOTHING_BROKEN


async def test_late_usage_makes_adjusting_charges_up_to_the_closed_target(world: World) -> None:
    org_id = await world.org(at_least("5"))
    await world.deliver(usage(org_id, "30"))
    world.set_clock(CLOSES)
    await world.close()

    late = usage(org_id, "25")
    await world.deliver(late)
    await world.deliver(late)
    await world.deliver(usage(org_id, "-50", events=-1), usage(org_id, "100", sku="fax"))

    charges = await world.charges(org_id)
    assert [one["amount_gross"] for one in charges] == [Decimal(n) for n in ("3", "2", "0.5", "-0.5")]
    assert charges[2]["kind"] == "usage"
    assert charges[2]["period"] == "2026-11"
    assert charges[2]["created_at"] > datetime(2026, 12, 3, tzinfo=UTC)
    assert await world.broken() == NOTHING_BROKEN


async def test_the_first_use_of_a_sku_may_come_after_the_close(world: World) -> None:
    org_id = await world.org(terms(), terms("mail", overage_price="0", tiers={**PER_UNIT, "maximum": "2"}))
    world.set_clock(CLOSES)
    await world.close()
    assert await world.charges(org_id) == []

    await world.deliver(usage(org_id, "1"), usage(org_id, "100", sku="mail"))

    assert (await world.counter(org_id))["is_closed"]
    assert total(await world.charges(org_id)) == Decimal("2.10")
    assert await world.broken() == NOTHING_BROKEN


async def test_changed_terms_leave_a_closed_period_alone(world: World) -> None:
    old, new = at_least("5"), terms(overage_price="1", **TAX)
    org_id = await world.org(old)
    await world.deliver(usage(org_id, "10"))
    world.set_clock(CLOSES)
    await world.close()

    await world.learn(new, org_terms(org_id, assigned(new), version=2))
    await world.sweep()
    await world.close()
    await world.deliver(usage(org_id, "60"))

    charges = await world.charges(org_id)
    assert [one["amount_gross"] for one in charges] == [Decimal(1), Decimal(4), Decimal(2)]
    assert {one["terms_hash"] for one in charges} == {old.terms_hash}
    assert await world.broken() == NOTHING_BROKEN


async def test_a_close_takes_changed_terms_along_in_one_charge(world: World) -> None:
    org_id = await world.org(terms(overage_price="1"))
    await world.deliver(usage(org_id, "10"))
    new = at_least("5", **TAX)
    await world.learn(new, org_terms(org_id, assigned(new), version=2))
    world.set_clock(CLOSES)
    await world.close()
    await world.sweep()

    charges = await world.charges(org_id)
    assert [(one["amount_gross"], one["tax_amount"]) for one in charges] == [
        (Decimal(10), Decimal(0)),
        (Decimal(-5), Decimal("0.5")),
    ]
    assert await world.broken() == NOTHING_BROKEN


async def test_a_sku_that_nothing_prices_any_more_closes_by_its_last_terms(world: World) -> None:
    org_id = await world.org(at_least("5"), terms("mail"))
    await world.deliver(usage(org_id, "10"))
    await world.learn(org_terms(org_id, assigned(terms("mail")), version=2))
    await world.sweep()
    world.set_clock(CLOSES)
    await world.close()

    assert total(await world.charges(org_id)) == Decimal(5)
    assert await world.broken() == NOTHING_BROKEN


async def test_base_fees_that_were_slept_through_come_before_the_close(world: World) -> None:
    org_id = await world.org(terms("site", sku_type="hosting", overage_price="30"), at_least("5"))
    world.set_clock(CLOSES)
    await world.run(close_periods, settle_closed_periods)
    assert await world.charges(org_id) == [], "no period was opened yet"

    await world.close()

    assert {(one["period"], one["kind"], one["amount_gross"]) for one in await world.charges(org_id)} == {
        ("2026-11", "base", Decimal(30)),
        ("2026-11", "adjustment", Decimal(5)),
        ("2026-12", "base", Decimal(30)),
    }
    assert await world.broken() == NOTHING_BROKEN


async def test_a_close_waits_for_terms_that_are_missing_and_others_go_on(world: World) -> None:
    missing = at_least("9", "mail")
    waiting, other = await world.client.org(), await world.org(at_least("5"))
    await world.learn(at_least("5"), org_terms(waiting, assigned(at_least("5"), missing)))
    world.set_clock(CLOSES)
    await world.close()
    assert total(await world.charges(other)) == Decimal(5)
    assert await world.charges(waiting) == []

    await world.learn(missing)
    world.set_clock("2026-12-03T14:00:00Z")
    await world.close()

    assert total(await world.charges(waiting)) == Decimal(14)
    assert await world.broken() == NOTHING_BROKEN


@pytest.mark.parametrize("zone", ["Australia/Lord_Howe", "Pacific/Chatham", "UTC", "Pacific/Apia"])
async def test_periods_of_every_zone_close_after_their_own_midnight(world: World, zone: str) -> None:
    price, org_id = at_least("5"), await world.client.org()
    since = datetime(2026, 10, 5, tzinfo=UTC)
    world.set_clock("2026-10-20T00:00:00Z")
    await world.learn(price, org_terms(org_id, assigned(price, since=since, time_zone=zone)))
    await world.close()
    ends_at = await world.owner.fetchval(
        "SELECT ends_at FROM pricing.billing_period WHERE period = '2026-10'"
    )

    world.set_clock((ends_at + timedelta(hours=72, seconds=-1)).isoformat())
    await world.close()
    assert await world.charges(org_id) == []
    world.set_clock((ends_at + timedelta(hours=72)).isoformat())
    await world.close()

    offsets = {"Australia/Lord_Howe": 11, "Pacific/Chatham": 13.75, "UTC": 0, "Pacific/Apia": 13}
    assert ends_at == datetime(2026, 11, 1, tzinfo=UTC) - timedelta(hours=offsets[zone])
    assert total(await world.charges(org_id)) == Decimal(5)


@pytest.mark.parametrize(
    ("currency", "digits", "amount"), [("JPY", 0, "5"), ("AUD", 2, "4.70"), ("KWD", 3, "4.700")]
)
async def test_currencies_close_to_their_own_decimals(
    shared_world: World, currency: str, digits: int, amount: str
) -> None:
    org_id = await shared_world.client.org()
    price = at_least("5", currency=currency, minor_digits=digits)
    await shared_world.learn(price, org_terms(org_id, assigned(price, currency=currency)))
    await shared_world.deliver(usage(org_id, "3"))
    shared_world.set_clock(CLOSES)
    await shared_world.close()

    closing = (await shared_world.charges(org_id))[-1]
    assert str(closing["amount_gross"]) == amount
    shared_world.set_clock("2026-11-05T00:00:30Z")


async def test_usage_that_races_with_the_close_is_charged_once_and_to_the_closed_target(world: World) -> None:
    orgs = [await world.org(at_least("5"), at_least("3", "mail"), terms("fax")) for _ in range(6)]
    world.set_clock("2026-12-03T12:00:00Z")
    await world.begin()
    world.set_clock(CLOSES)
    barrier = asyncio.Barrier(12)

    async def use(n: int) -> None:
        await barrier.wait()
        for turn in range(5):
            for org_id in orgs:
                sku = ("sms", "mail", "fax")[(n + turn) % 3]
                await world.deliver(usage(org_id, "7", sku=sku), usage(org_id, "-2", events=-1, sku=sku))

    async def close() -> None:
        await barrier.wait()
        for _ in range(5):
            await world.close()

    await asyncio.gather(*(use(n) for n in range(8)), *(close() for _ in range(4)))

    for org_id in orgs:
        charges = await world.charges(org_id)
        assert len([one for one in charges if one["kind"] == "usage"]) == 80
        assert sum(one["quantity"] for one in charges) == 200
    assert len(await closed_facts(world)) == len(orgs)
    assert await world.broken() == NOTHING_BROKEN


async def test_a_close_killed_midway_is_done_once_by_the_next(world: World) -> None:
    org_id = await world.org(at_least("5"))
    world.set_clock(CLOSES)
    await world.begin()
    await world.run(close_periods)

    with pytest.raises(ConnectionError):
        async with world.client.context.begin("system:pricing") as tx:
            await settle_closed_periods(tx)
            raise ConnectionError("killed before the commit")
    assert await world.charges(org_id) == []
    await world.deliver(usage(org_id, "10"))
    await world.close()
    await world.close()

    assert total(await world.charges(org_id)) == Decimal(5)
    assert len(await closed_facts(world)) == 1
    assert await world.broken() == NOTHING_BROKEN


def finance(key: str | None = None) -> dict[str, str]:
    return {"Idempotency-Key": key or str(new_id())}


async def test_finance_may_close_a_period_before_its_time(world: World) -> None:
    org_id = await world.org(at_least("5"))
    await world.deliver(usage(org_id, "3"))
    path, body = "/pricing/periods/2026-11:close", {"org_id": str(org_id)}

    assert (await world.post(path, body, {}))[1]["code"] == "idempotency_key_required"
    status, problem = await world.post(path, body, finance())
    assert (status, problem["code"], problem["ends_at"]) == (
        409,
        "period_not_over",
        "2026-11-30T13:00:00.000000Z",
    )
    world.set_clock(END)
    status, closed = await world.post(path, body, finance())
    again = await world.post(path, body, finance())

    assert status == 200
    entries = await world.owner.fetch(
        "SELECT action, entity, entity_id, actor FROM pricing.audit_entry WHERE org_id = $1", org_id
    )
    assert [tuple(row) for row in entries] == [
        ("update", "billing_period", f"{org_id}/2026-11", closed["closed_by"])
    ]
    assert closed["closed_at"].startswith("2026-11-30T13:00:0")
    assert (closed["period"], closed["charges"]) == ("2026-11", 1)
    assert closed["closed_by"].startswith("user:")
    assert again == (200, closed)
    assert total(await world.charges(org_id)) == Decimal(5)
    assert len(await closed_facts(world)) == 1
    assert await world.broken() == NOTHING_BROKEN


async def test_only_finance_may_close_and_only_what_there_is(world: World) -> None:
    org_id, bare = await world.org(), await world.client.org()
    world.set_clock(CLOSES)
    own = {"org_id": str(org_id)}

    assert (await world.post("/pricing/periods/2026-11:close", own, finance(), roles=["Operator"]))[0] == 403
    member = {"roles": ["Admin"], "org_id": org_id}
    assert (await world.post("/pricing/periods/2026-11:close", own, finance(), **member))[0] == 403
    assert (await world.post("/pricing/periods/2026-13:close", own, finance()))[0] == 404
    assert (await world.post("/pricing/periods/2026-10:close", own, finance()))[1]["code"] == "no_terms"
    nobody = {"org_id": str(uuid4())}
    assert (await world.post("/pricing/periods/2026-11:close", nobody, finance()))[0] == 404
    status, problem = await world.post("/pricing/periods/2026-11:close", {"org_id": str(bare)}, finance())
    assert (status, problem["code"]) == (409, "no_terms")


async def test_a_rerate_brings_a_closed_period_to_the_terms_now_in_force(world: World) -> None:
    old, new = at_least("5"), at_least("8", **TAX)
    org_id = await world.org(old, terms("mail"))
    await world.deliver(usage(org_id, "10"), usage(org_id, "10", sku="mail"))
    world.set_clock(CLOSES)
    await world.close()
    await world.learn(new, org_terms(org_id, assigned(new, terms("mail")), version=2))
    await world.sweep()
    body = {"org_id": str(org_id), "period": "2026-11", "reason": "agreed on the phone"}

    status, made = await world.post("/pricing/rerate", body, finance("one"))

    assert (status, made["charges"]) == (202, 1)
    charge = (await world.charges(org_id))[-1]
    assert (charge["amount_gross"], charge["tax_amount"]) == (Decimal(3), Decimal("0.8"))
    assert (charge["kind"], charge["reason"]) == ("adjustment", "agreed on the phone")
    assert charge["actor"].startswith("user:")
    assert charge["terms_hash"] == new.terms_hash
    status, again = await world.post("/pricing/rerate", body, finance("two"))
    assert (status, again["charges"]) == (202, 0)
    assert await world.broken() == NOTHING_BROKEN


async def test_the_key_of_a_rerate_is_kept_for_ever(world: World) -> None:
    org_id = await world.org(at_least("5"))
    body = {"org_id": str(org_id), "period": "2026-11", "reason": "a reason"}
    token = world.client.auth(roles=["Finance"])
    first = await world.post("/pricing/rerate", body, {**finance("key"), **token})
    world.set_clock("2027-06-01T00:00:00Z")
    await world.owner.execute("DELETE FROM pricing.idempotency_key")

    again = await world.post("/pricing/rerate", body, {**finance("key"), **token})
    other = await world.post("/pricing/rerate", {**body, "reason": "another"}, {**finance("key"), **token})

    assert first[0] == 202
    assert again == first
    assert (other[0], other[1]["code"]) == (422, "idempotency_key_reused")
    assert (await world.post("/pricing/rerate", body, {}))[1]["code"] == "idempotency_key_required"


async def test_a_rerate_charges_a_minimum_that_came_later_and_corrects_base_fees(world: World) -> None:
    site = terms("site", sku_type="hosting", overage_price="30")
    org_id = await world.org(site, terms())
    world.set_clock(CLOSES)
    await world.close()
    dearer = terms("site", sku_type="hosting", overage_price="45")
    await world.learn(dearer, at_least("5"), org_terms(org_id, assigned(dearer, at_least("5")), version=2))
    await world.sweep()
    await world.close()
    assert total([one for one in await world.charges(org_id) if one["period"] == "2026-11"]) == 30

    body = {"org_id": str(org_id), "period": "2026-11", "reason": "dearer from the start"}
    _, made = await world.post("/pricing/rerate", body, finance())

    assert made["charges"] == 2
    assert total([one for one in await world.charges(org_id) if one["period"] == "2026-11"]) == 50
    assert await world.broken() == NOTHING_BROKEN


async def test_overdue_closes_are_counted(world: World) -> None:
    await world.org(at_least())
    await world.begin()
    world.set_clock("2026-12-03T14:00:01Z")
    await world.run(jobs.measure_overdue_closes)
    assert jobs.OVERDUE._value.get() == 1
    await world.close()
    await world.run(jobs.measure_overdue_closes)
    assert jobs.OVERDUE._value.get() == 0
