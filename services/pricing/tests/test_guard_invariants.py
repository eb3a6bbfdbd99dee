"""The invariants of guardrails: they hold whatever comes, and each check sees it when one is broken."""

from __future__ import annotations

import random

import pytest

from eb_tools.invariants import PRICING, broken

from .factories import AT, PROJECT_ID, assigned, org_terms, terms, usage
from .test_guardrails import a_budget, a_credit
from .world import World, someone

BREAKS = {
    "charges of a counter telescope": "UPDATE pricing.counter SET waived = waived + 0.01",
    "credit pays a part of gross, with its sign": "UPDATE pricing.charge SET credit_applied = amount_gross + 1",
    "an organisation's credit in a period is no more than its gross": "UPDATE pricing.charge SET amount_gross = 0.1",
    "what caps cut of a charge is what was waived": "UPDATE pricing.cap_cut SET granted = granted + 0.01",
    "a budget was charged the sum of its charges": "UPDATE pricing.budget_spend SET charged = charged + 0.01",
    "nothing is granted above a cap": "UPDATE pricing.budget_spend SET granted = ceiling + 1, total = ceiling + 1",
    "a credit's draws are what was drawn, and no more than it holds": "UPDATE pricing.credit_use SET drawn = 3",
    "a charge's credit is the sum of its draws": "UPDATE pricing.charge SET credit_applied = credit_applied / 2",
}


def test_each_invariant_has_a_way_to_break_it() -> None:
    assert set(BREAKS) == set(PRICING)


@pytest.mark.parametrize("name", PRICING)
async def test_a_broken_invariant_is_seen(world: World, name: str) -> None:
    org_id = await world.org()
    await a_budget(world, org_id, "1.00")
    await a_credit(world, org_id, "0.50")
    await world.deliver(usage(org_id, "15"))
    assert await broken(world.owner, PRICING) == {}

    await world.owner.execute(BREAKS[name])

    assert name in await broken(world.owner, PRICING)


async def test_they_hold_whatever_comes_in_whatever_order(world: World) -> None:
    for seed in range(4):
        await live(world, random.Random(seed))

    assert await broken(world.owner, PRICING) == {}


async def live(world: World, chance: random.Random) -> None:
    """Let an organisation use, void, budget, prepay and change its prices, in an order of chance."""
    sms = terms(tax_code="GST", tax_rate="0.1")
    mail = terms("mail", overage_price="0.25", sku_type="hosting")
    org_id = await world.org(sms, mail)
    await world.project(org_id, PROJECT_ID)
    budgets: list[str] = []
    used: list[tuple[str, int]] = []
    prices = [assigned(sms, mail)]

    async def use() -> None:
        sku, quantity = chance.choice(("sms", "mail")), chance.randrange(1, 9)
        used.append((sku, quantity))
        project_id = chance.choice((PROJECT_ID, someone()))
        await world.deliver(usage(org_id, str(quantity), sku=sku, project_id=project_id))

    async def void() -> None:
        if used:
            sku, quantity = used.pop(chance.randrange(len(used)))
            await world.deliver(usage(org_id, f"-{quantity}", sku=sku, events=-1))

    async def budget() -> None:
        body = {"amount": f"{chance.randrange(0, 600) / 100:.2f}", "currency": "AUD"}
        body["hard_cap"] = chance.random() < 0.8
        if budgets and chance.random() < 0.6:
            await world.call("PUT", f"/pricing/budgets/{chance.choice(budgets)}", body)
        elif budgets and chance.random() < 0.5:
            await world.call("DELETE", f"/pricing/budgets/{budgets.pop()}")
        else:
            project = {"project_id": str(PROJECT_ID)} if chance.random() < 0.5 else {}
            status, made = await world.call(
                "POST", "/pricing/budgets", {"org_id": str(org_id), **body, **project}
            )
            if status == 201:
                budgets.append(made["budget_id"])

    async def prepay() -> None:
        types = chance.choice(({}, {"sku_types": ["action"]}, {"sku_types": ["hosting"]}))
        amount = f"{chance.randrange(1, 200) / 100:.2f}"
        await a_credit(world, org_id, amount, priority=chance.randrange(3), **types)

    async def reprice() -> None:
        dearer = terms(overage_price=f"0.{chance.randrange(1, 50):02}", tax_code="GST", tax_rate="0.1")
        prices.append(assigned(dearer, mail, since=AT))
        del prices[1:-1]
        version = chance.randrange(10**6) + 10 * len(used) + 2
        await world.learn(dearer, org_terms(org_id, *prices, version=version))
        await world.sweep()

    for act in chance.choices((use, void, budget, prepay, reprice), (8, 3, 3, 2, 1), k=40):
        await act()
