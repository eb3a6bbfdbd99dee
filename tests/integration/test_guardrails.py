"""Through the gateway: nobody gets more than a cap, and what it cuts and credit pays is in the ledger."""

from __future__ import annotations

import asyncio
from collections import Counter as Total
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from billing import posted

from eb_contracts.ids import new_id
from eb_tools.client import ApiProblem, Json, wait_for
from eb_tools.invariants import PRICING, broken
from eb_tools.world import Member, World, event

CLIENTS = 200


async def prepaying_org(world: World, name: str) -> tuple[Member, str]:
    """An organisation that pays 0.10 a check, up to 1.00, of which it paid 0.45 before."""
    sku = await world.sku(f"check-{name.lower()}-{world.tag}")
    model = await world.model()
    plan = await world.plan(model, {sku: {"included_qty": "0", "overage_price": "0.10"}})
    member = await world.org(await world.person(), name)
    await world.assign(member.org_id, model, plan)
    money = {"org_id": member.org_id, "currency": "AUD"}
    budget = money | {"amount": "1.00", "hard_cap": True}
    await world.api.post("/pricing/budgets", budget, token=member.admin_token)
    await world.api.post(
        "/pricing/credits",
        money | {"amount": "0.45", "source": "top-up"},
        token=world.staff.finance_token,
        headers={"Idempotency-Key": str(new_id())},
    )

    async def known() -> bool:
        return (await ask(world, member, sku, "1"))["decision"] == "allow"

    await wait_for(known, "terms at pricing")
    return member, sku


async def ask(world: World, member: Member, sku: str, quantity: str, **more: Any) -> Json:
    """Ask whether checks may start; a 503 is an answer, too."""
    body = {"org_id": member.org_id, "sku": sku, "quantity": quantity, "request_id": str(new_id()), **more}
    try:
        return dict(await world.api.post("/pricing/authorize", body, token=member.admin_token))
    except ApiProblem as problem:
        if problem.code != "guardrail_unavailable":
            raise
        return {"decision": "none"}


async def test_two_hundred_clients_share_one_remaining_unit(world: World, owner: Any) -> None:
    member, sku = await prepaying_org(world, "Crowd")
    await world.send(member, [event(member, sku, datetime.now(UTC).isoformat(), "9")])
    await posted(owner, member, Decimal(9))
    barrier = asyncio.Barrier(CLIENTS)

    async def client() -> str:
        await barrier.wait()
        return str((await ask(world, member, sku, "1", hold=True))["decision"])

    outcomes = Total(await asyncio.gather(*(client() for _ in range(CLIENTS))))

    assert outcomes["allow"] <= 1
    assert outcomes["deny"] + outcomes["none"] >= CLIENTS - 1
    held = "SELECT count(*) FROM pricing.initiation WHERE org_id = $1::text::uuid AND hold_id IS NOT NULL"
    assert await owner.fetchval(held, member.org_id) == 1


async def test_a_hold_becomes_a_charge_and_the_rest_is_waived(world: World, owner: Any) -> None:
    member, sku = await prepaying_org(world, "Careful")
    hold = await ask(world, member, sku, "6", hold=True)
    assert (await ask(world, member, sku, "5"))["reason"] == "org_cap_reached"

    now = datetime.now(UTC).isoformat()
    named = event(member, sku, now, "6") | {"hold_id": hold["hold_id"]}
    await world.send(member, [named])
    await posted(owner, member, Decimal(6))
    assert (await ask(world, member, sku, "4"))["decision"] == "allow"
    await world.send(member, [event(member, sku, now, "8")])
    await posted(owner, member, Decimal(14))

    (balance,) = (
        await world.api.get("/ledger/balances", token=member.admin_token, query={"org_id": member.org_id})
    )["items"]
    assert (balance["amount_gross"], balance["waived_amount"], balance["credit_applied"]) == (
        "1.00",
        "0.40",
        "0.45",
    )
    usage = await world.api.get("/pricing/usage", token=member.admin_token, query={"org_id": member.org_id})
    assert (usage["items"][0]["charged"], usage["items"][0]["waived"]) == ("1.00", "0.40")
    assert usage["budgets"][0]["reached"] == [50, 80, 100]
    assert usage["credits"] == [{"currency": "AUD", "remaining": "0.00"}]
    assert await broken(owner, (*PRICING, "priced = in the ledger, per charge")) == {}
