"""What is estimated is what is billed, in the same bytes: every shape, in three currencies and two time zones.

Each organisation uses what it asked about, in two parts, and its period is closed; base fees, minimums and taxes
count.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from billing import Billed, billed_by_sku, posted, quantity_of

from eb_contracts.money import money_text
from eb_tools import clock_cli
from eb_tools.client import ApiProblem, Json, TimedOut, wait_for
from eb_tools.world import Member, World, event

CURRENCIES = ("JPY", "AUD", "KWD")
ZONES = ("Australia/Sydney", "America/Los_Angeles")
FIRST, MORE = 7, 3


def tiers(mode: str, *rows: tuple[str | None, str, str], member: str = "unit_price", **limits: Any) -> Json:
    """Write a tiered shape from (up_to, price, flat fee)."""
    written = []
    for up_to, price, flat_fee in rows:
        prices = {member: price} if member != "flat_fee" else {}
        written.append({"up_to": up_to, "flat_fee": flat_fee} | prices)
    return {"mode": mode, "tiers": written, **limits}


STEPS = (("10", "1.115", "0.25"), ("30.5", "0.333", "1.5"), (None, "0.0715", "0"))
RATES = (("10", "0.031", "0.25"), (None, "0.0175", "2"))
SHAPES: dict[str, tuple[str, str, Json]] = {
    "per_unit": ("3.37", "0", {"mode": "per_unit", "unit_price": "0.1234"}),
    "included": ("3.37", "20.5", {"mode": "per_unit", "unit_price": "1.05"}),
    "graduated": ("3.37", "1.25", tiers("graduated", *STEPS)),
    "volume": ("3.37", "0", tiers("volume", *STEPS)),
    "package": ("1.01", "2", {"mode": "package", "package_size": "2.5", "package_price": "1.115"}),
    "stairstep": ("2.5", "0", tiers("stairstep", *STEPS, member="flat_fee")),
    "stairstep_cumulative": ("4", "0", tiers("stairstep_cumulative", *STEPS, member="flat_fee")),
    "percentage": ("19.99", "0", {"mode": "percentage", "rate": "0.029", "fixed_fee": "0.30"}),
    "graduated_percentage": ("9.95", "3", tiers("graduated_percentage", *RATES, member="rate")),
    "at_most": ("3.37", "0", tiers("volume", *STEPS, maximum="5.5")),
    "at_least": ("1", "0", {"mode": "per_unit", "unit_price": "0.01", "minimum": "4.5"}),
    "unused_at_least": ("0", "0", tiers("stairstep", *STEPS, member="flat_fee", minimum="9.5")),
    "unused_due_at_once": ("0", "0", tiers("graduated", *STEPS, flat_on_zero=True)),
    "due_at_once": ("0.5", "5", tiers("volume", *STEPS, flat_on_zero=True)),
}
"""By name: uses per lead, what is included, and the price."""
BASE = "hosting"


@dataclass
class Buyer:
    """One organisation, in a currency and a time zone, and what it is told its usage will cost."""

    member: Member
    plan_id: str
    currency: str
    zone: str

    def period(self) -> str:
        return f"{datetime.now(ZoneInfo(self.zone)):%Y-%m}"

    def period_start(self) -> str:
        month = datetime.now(ZoneInfo(self.zone)).replace(day=1, hour=0, minute=0, second=0, microsecond=0)
        return month.astimezone(UTC).isoformat()


def names(world: World) -> dict[str, str]:
    return {name: f"{name.replace('_', '-')}-{world.tag}" for name in (*SHAPES, BASE)}


async def plan_in(world: World, currency: str) -> tuple[str, str]:
    """Make a model and a plan with every shape and a base fee; give their ids."""
    sku = names(world)
    prices: dict[str, Json] = {
        sku[name]: {"included_qty": included, "overage_price": "0", "tiers": shape}
        for name, (_, included, shape) in SHAPES.items()
    }
    prices[sku[BASE]] = {"included_qty": "0", "overage_price": "29.955"}
    model = await world.model(currency)
    return model, await world.plan(model, prices)


async def buyers(world: World) -> list[Buyer]:
    """Make SKUs (one without tax), a plan per currency, and an organisation per currency and time zone."""
    for name, sku in names(world).items():
        kind = "hosting" if name == BASE else "action"
        await world.sku(sku, kind=kind, tax_code=None if name == "package" else "GST")
    made, admin = [], await world.person()
    for currency in CURRENCIES:
        model, plan = await plan_in(world, currency)
        for zone in ZONES:
            member = await world.org(admin, f"Buyer {currency} {ZONES.index(zone)}", zone=zone)
            await world.assign(member.org_id, model, plan)
            made.append(Buyer(member, plan, currency, zone))
    return made


async def ask(world: World, buyer: Buyer, leads: int, **more: Any) -> Json:
    """Ask what so many leads cost."""
    skus = {names(world)[name]: uses for name, (uses, _, _) in SHAPES.items()}
    body = {"org_id": buyer.member.org_id, "skus": skus, "leads": leads, **more}
    return dict(await world.api.post("/pricing/estimate", body, token=buyer.member.api_key))


async def use(world: World, buyer: Buyer, leads: int) -> Decimal:
    """Use each SKU once per lead, the first at the very start of the period; give the quantity of it all."""
    now = datetime.now(UTC).isoformat()
    events = [
        event(buyer.member, names(world)[name], buyer.period_start() if lead == 0 else now, uses)
        for lead in range(leads)
        for name, (uses, _, _) in SHAPES.items()
        if uses != "0"
    ]
    await world.send(buyer.member, events)
    return quantity_of(events)


async def grown(world: World, buyer: Buyer, first: Json) -> Json:
    """Ask what more leads cost on top of those so far, once the estimator has heard of all of these."""
    so_far = [line["total"] for line in first["lines"]]

    async def look() -> Json | None:
        told = await ask(world, buyer, MORE, from_current_usage=True)
        return told if [line["already"] for line in told["lines"]] == so_far else None

    return dict(await wait_for(look, "the estimator to hear of the charges"))


async def close(world: World, buyer: Buyer, period: str) -> None:
    """Close a period of an organisation as the platform's finance staff, once the services' clocks are past it."""

    async def closed() -> Any:
        try:
            return await world.api.post(
                f"/pricing/periods/{period}:close",
                {"org_id": buyer.member.org_id},
                token=world.staff.finance_token,
                headers={"Idempotency-Key": secrets.token_hex(8)},
            )
        except ApiProblem as problem:
            if problem.code != "period_not_over":
                raise
            return None

    await wait_for(closed, "the period to be over")


def as_told(told: Json) -> dict[str, tuple[str, str]]:
    """Give totals and taxes by SKU as an estimate says them."""
    return {line["sku"]: (line["total"], line["tax"]) for line in (*told["base_lines"], *told["lines"])}


def as_billed(bill: dict[str, Billed], told: Json) -> dict[str, tuple[str, str]]:
    """Give totals and taxes by SKU as the ledger has them; what costs nothing unused has no line there."""
    skus = bill.keys() | as_told(told).keys()
    texts = {sku: bill.get(sku, Billed()) for sku in skus}
    currency = told["currency"]
    return {
        sku: (money_text(one.gross, currency), money_text(one.tax, currency)) for sku, one in texts.items()
    }


@pytest.fixture
def next_month(stack: Any) -> Any:
    """Move the platform's clock into the next month, wherever on earth; back again in the end."""
    file = stack.run_dir / "clock"
    now = datetime.now(UTC)
    start = (now.replace(day=1) + timedelta(days=32)).replace(day=1, hour=13, minute=0)
    yield lambda: clock_cli.set_to(file, start.isoformat(), datetime.now(UTC))
    clock_cli.run(file, datetime.now(UTC))
    time.sleep(0.3)  # services read the clock again every 100 ms: what comes next is to happen today


@pytest.mark.timeout(300)
async def test_an_estimate_is_the_bill_in_every_shape_currency_and_time_zone(
    world: World, owner: Any, next_month: Callable[[], datetime]
) -> None:
    everybody = await buyers(world)
    periods = [buyer.period() for buyer in everybody]
    whole = [await ask(world, buyer, FIRST + MORE) for buyer in everybody]
    for buyer, told in zip(everybody, whole, strict=True):
        first = await ask(world, buyer, FIRST)
        sent = await use(world, buyer, FIRST)
        await posted(owner, buyer.member, sent + 1)
        more = await grown(world, buyer, first)
        await posted(owner, buyer.member, sent + await use(world, buyer, MORE) + 1)
        assert [add(*pair) for pair in zip(first["lines"], more["lines"], strict=True)] == [
            (Decimal(line["total"]), Decimal(line["tax"])) for line in told["lines"]
        ]
    await same_plans_cost_the_same(world, everybody)

    next_month()
    await asyncio.gather(*(close(world, *pair) for pair in zip(everybody, periods, strict=True)))

    for buyer, period, told in zip(everybody, periods, whole, strict=True):
        await must_be_billed(world, buyer, period, told)


async def must_be_billed(world: World, buyer: Buyer, period: str, told: Json) -> None:
    """Wait until the ledger says of a period what was told, SKU by SKU and in sum; show the difference if not."""

    async def bill() -> dict[str, tuple[str, str]]:
        return as_billed(await billed_by_sku(world, buyer.member, period), told)

    async def is_as_told() -> bool:
        return await bill() == as_told(told)

    with contextlib.suppress(TimedOut):
        await wait_for(is_as_told, "the close in the ledger", timeout_s=20, every_s=0.3)
    assert await bill() == as_told(told)
    query = {"org_id": buyer.member.org_id, "period": period}
    found = await world.api.get("/ledger/balances", token=buyer.member.admin_token, query=query)
    assert [(one["amount_gross"], one["tax_amount"]) for one in found["items"]] == [
        (told["grand_total"], told["tax_total"])
    ]


def add(one: Json, other: Json) -> tuple[Decimal, Decimal]:
    """Sum the totals and taxes of two lines."""
    total = Decimal(one["total"]) + Decimal(other["total"])
    return total, Decimal(one["tax"]) + Decimal(other["tax"])


async def same_plans_cost_the_same(world: World, everybody: list[Buyer]) -> None:
    """What an organisation is told of a plan that it doesn't have is what those are told who have it."""
    by_place = {(buyer.currency, buyer.zone): buyer for buyer in everybody}
    for (currency, zone), buyer in by_place.items():
        other = by_place[CURRENCIES[CURRENCIES.index(currency) - 1], zone]
        compared = await ask(world, buyer, FIRST, plan_id=other.plan_id)
        assert compared == await ask(world, other, FIRST)
