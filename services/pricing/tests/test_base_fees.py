"""Base fees: each charged once, at its time, by the calendar (docs/rules/pricing.md, Base fees)."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest

from eb_contracts.catalog import TermsDefined

from .factories import AT, NOVEMBER, assigned, org_terms, terms, usage
from .world import NOTHING_BROKEN, World

TAX = {"tax_code": "GST", "tax_rate": "0.1"}
MID_NOVEMBER = datetime(2026, 11, 15, 2, 30, tzinfo=UTC)


def hosting(price: str = "30", **values: Any) -> TermsDefined:
    return terms("site", sku_type="hosting", overage_price=price, **values)


async def fees(world: World, org_id: UUID) -> list[tuple[str, Decimal, Decimal, str]]:
    """Give kind, quantity, amount and time of an organisation's charges."""
    return [
        (one["kind"], one["quantity"], one["amount_gross"], f"{one['time']:%m-%d %H:%M}")
        for one in await world.charges(org_id)
    ]


async def test_each_period_is_charged_once_at_its_start(world: World) -> None:
    org_id = await world.org(hosting("49.90", **TAX), terms())
    for now in (
        "2026-11-05T00:00:00Z",
        "2026-11-30T12:59:59Z",
        "2026-11-30T13:00:00Z",
        "2027-01-02T00:00:00Z",
    ):
        world.set_clock(now)
        await world.begin()
        await world.begin()

    charges = await world.charges(org_id)
    assert [(one["period"], one["amount_gross"], one["tax_amount"]) for one in charges] == [
        (period, Decimal("49.90"), Decimal("4.99")) for period in ("2026-11", "2026-12", "2027-01")
    ]
    assert [f"{one['time']:%m-%d %H:%M}" for one in charges] == ["10-31 13:00", "11-30 13:00", "12-31 13:00"]
    assert {(one["kind"], one["sku"], one["quantity"], one["event_count"]) for one in charges} == {
        ("base", "site", Decimal(1), 0)
    }
    counter = await world.counter(org_id, "site", "2026-12")
    assert (counter["quantity"], counter["charged"], counter["base"]) == (
        0,
        Decimal("49.90"),
        Decimal("49.90"),
    )
    assert await world.broken() == NOTHING_BROKEN


async def test_a_start_within_a_period_is_prorated_and_an_end_gives_the_rest_back(world: World) -> None:
    org_id, fee = await world.client.org(), hosting("30")
    await world.learn(fee, terms(), org_terms(org_id, assigned(fee, since=AT)))
    world.set_clock("2026-11-04T02:00:00Z")
    await world.begin()
    await world.learn(
        org_terms(org_id, assigned(fee, since=AT), assigned(terms(), since=MID_NOVEMBER), version=2)
    )
    await world.begin()
    assert len(await world.charges(org_id)) == 1, "an end that is still to come gives nothing back"

    world.set_clock("2026-11-16T00:00:00Z")
    await world.begin()

    assert await fees(world, org_id) == [
        ("base", Decimal(1), Decimal(27), "11-04 02:00"),
        ("base", Decimal(-1), Decimal(-16), "11-15 02:30"),
    ]
    assert await world.broken() == NOTHING_BROKEN


async def test_an_immediate_change_makes_one_adjusting_charge(world: World) -> None:
    org_id = await world.org(hosting("30"))
    await world.begin()

    await world.learn(hosting("45"), org_terms(org_id, assigned(hosting("45")), version=2))
    await world.begin()
    await world.learn(terms(), org_terms(org_id, assigned(terms()), version=3))
    await world.sweep()
    await world.begin()

    charges = await world.charges(org_id)
    assert [(one["kind"], one["amount_gross"], one["reason"]) for one in charges] == [
        ("base", Decimal(30), None),
        ("adjustment", Decimal(15), "terms_changed"),
        ("adjustment", Decimal(-45), "terms_changed"),
    ]
    assert await world.broken() == NOTHING_BROKEN


async def test_another_currency_takes_back_what_was_charged(world: World) -> None:
    org_id = await world.org(hosting("30", **TAX))
    await world.begin()
    await world.deliver(usage(org_id, "2", sku="site"))

    yen = hosting("4000", currency="JPY", minor_digits=0)
    await world.learn(yen, org_terms(org_id, assigned(yen, currency="JPY"), version=2))
    await world.sweep()
    await world.begin()

    charges = await world.charges(org_id)
    assert [(one["kind"], one["currency"], one["amount_gross"]) for one in charges] == [
        ("base", "AUD", Decimal(30)),
        ("usage", "AUD", Decimal(60)),
        ("adjustment", "AUD", Decimal(-90)),
        ("adjustment", "JPY", Decimal(8000)),
        ("adjustment", "JPY", Decimal(4000)),
    ]
    assert sum(one["tax_amount"] for one in charges) == 0
    assert await world.broken() == NOTHING_BROKEN


async def test_use_of_a_hosting_sku_and_its_base_fee_leave_each_other_alone(world: World) -> None:
    org_id = await world.org(hosting("30", **TAX))
    await world.deliver(usage(org_id, "2", sku="site"))
    await world.begin()
    await world.deliver(usage(org_id, "1", sku="site"), usage(org_id, "-2", events=-1, sku="site"))

    counter = await world.counter(org_id, "site")
    assert (counter["quantity"], counter["charged"], counter["base"]) == (1, Decimal(60), Decimal(30))
    assert await world.broken() == NOTHING_BROKEN


async def test_terms_that_are_missing_are_waited_for(world: World) -> None:
    org_id, fee = await world.client.org(), hosting("30")
    await world.learn(org_terms(org_id, assigned(fee)))
    await world.begin()
    assert await world.charges(org_id) == []

    await world.learn(fee)
    await world.begin()

    assert [one[2] for one in await fees(world, org_id)] == [Decimal(30)]


async def test_periods_that_were_slept_through_are_charged_each(world: World) -> None:
    fee, org_id = hosting("30"), await world.client.org()
    await world.learn(fee, org_terms(org_id, assigned(fee, since=datetime(2024, 1, 1, tzinfo=UTC))))

    await world.begin()

    assert len(await world.charges(org_id)) == 35
    assert await world.owner.fetchval("SELECT count(*) FROM pricing.org_calendar WHERE due_at <= $1", AT) == 0


async def test_two_at_once_charge_once(world: World) -> None:
    orgs = [await world.org(hosting("30"), terms()) for _ in range(12)]

    async def begin_often() -> None:
        for _ in range(4):
            await world.begin()

    async def use() -> None:
        for org_id in orgs:
            await world.deliver(usage(org_id, sku="site"), usage(org_id))

    await asyncio.gather(*(begin_often() for _ in range(4)), use(), use())

    for org_id in orgs:
        assert [one["kind"] for one in await world.charges(org_id)].count("base") == 1
    assert await world.broken() == NOTHING_BROKEN


@pytest.mark.parametrize(
    ("zone", "now", "starts"),
    [
        ("Australia/Lord_Howe", "2026-11-02T00:00:00Z", "10-31 13:00"),
        ("Pacific/Chatham", "2026-10-02T00:00:00Z", "09-30 10:15"),
        ("UTC", "2026-11-02T00:00:00Z", "11-01 00:00"),
        ("Australia/Sydney", "2026-10-02T00:00:00Z", "09-30 14:00"),
    ],
)
async def test_a_period_starts_at_its_midnight(world: World, zone: str, now: str, starts: str) -> None:
    fee, org_id = hosting("30"), await world.client.org()
    world.set_clock(now)
    since = datetime(2026, 9, 1, tzinfo=UTC)
    await world.learn(fee, org_terms(org_id, assigned(fee, since=since, time_zone=zone)))

    await world.begin()

    assert (await fees(world, org_id))[-1] == ("base", Decimal(1), Decimal(30), starts)


async def test_an_org_that_moves_pays_each_period_once(world: World) -> None:
    fee, org_id = hosting("30"), await world.client.org()
    december = datetime(2026, 12, 1, tzinfo=UTC)
    moved = (
        assigned(fee, since=NOVEMBER),
        assigned(fee, since=december, time_zone="UTC"),
    )
    await world.learn(fee, org_terms(org_id, *moved))
    for now in (
        "2026-11-05T00:00:00Z",
        "2026-11-30T20:00:00Z",
        "2026-12-01T01:00:00Z",
        "2027-01-01T00:00:00Z",
    ):
        world.set_clock(now)
        await world.begin()

    charges = await world.charges(org_id)
    assert [(one["period"], f"{one['time']:%m-%d %H:%M}") for one in charges] == [
        ("2026-11", "10-31 13:00"),
        ("2026-12", "11-30 13:00"),
        ("2027-01", "01-01 00:00"),
    ]
    periods = await world.owner.fetch("SELECT * FROM pricing.billing_period ORDER BY period")
    assert [(one["starts_at"], one["ends_at"]) for one in periods] == [
        (NOVEMBER, datetime(2026, 11, 30, 13, tzinfo=UTC)),
        (datetime(2026, 11, 30, 13, tzinfo=UTC), datetime(2027, 1, 1, tzinfo=UTC)),
        (datetime(2027, 1, 1, tzinfo=UTC), datetime(2027, 2, 1, tzinfo=UTC)),
    ]
