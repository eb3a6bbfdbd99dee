"""Base fees, one-off charges, closes and re-ratings through the gateway, to their ledger lines."""

from __future__ import annotations

import secrets
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from eb_tools.client import ApiProblem, Json, wait_for
from eb_tools.invariants import broken
from eb_tools.world import Member, World

ZONE = ZoneInfo("Australia/Sydney")


async def hosted_org(world: World) -> tuple[Member, str, str]:
    """Give an organisation on a plan with a base fee of 49.90 and 0.25 a message, and both SKUs."""
    site = await world.sku(f"site-{world.tag}", kind="hosting", tax_code="GST")
    sms = await world.sku(f"sms-{world.tag}")
    model = await world.model()
    plan = await world.plan(
        model,
        {
            site: {"included_qty": "0", "overage_price": "49.90"},
            sms: {"included_qty": "0", "overage_price": "0.25"},
        },
    )
    member = await world.org(await world.person(), "Harbour Events")
    await world.assign(member.org_id, model, plan)
    return member, site, sms


async def lines(world: World, member: Member, count: int, **query: str) -> list[Json]:
    """Wait until the ledger has so many lines, and give them."""

    async def look() -> list[Json] | None:
        found = await world.api.everything(
            "/ledger/entries", token=member.admin_token, query={"org_id": member.org_id, **query}
        )
        return found if len(found) == count else None

    return list(await wait_for(look, f"{count} lines", timeout_s=60))


async def finance(world: World, path: str, body: Json) -> Any:
    """Post as Finance, under a key of its own."""
    key = {"Idempotency-Key": secrets.token_hex(8)}
    return await world.api.post(path, body, token=world.staff.finance_token, headers=key)


async def test_a_plans_base_fee_is_in_the_ledger_by_itself(world: World, owner: Any) -> None:
    member, site, _ = await hosted_org(world)

    (line,) = await lines(world, member, 1, kind="base")

    assert (line["sku"], line["amount_gross"], line["tax_amount"]) == (site, "49.90", "4.99")
    told = await world.api.get(f"/pricing/charges/{line['charge_id']}/explain", token=member.admin_token)
    assert told["base_fees"]["price"] == "49.9"
    assert told["payable"] == "54.89"
    assert await broken(owner) == {}


async def test_a_one_off_charge_leads_to_its_line_once(world: World, owner: Any) -> None:
    member, _, sms = await hosted_org(world)
    body = {
        "charge_id": f"letter-{world.tag}",
        "org_id": member.org_id,
        "project_id": member.project_id,
        "sku": sms,
        "quantity": "12",
        "time": datetime.now(UTC).isoformat(),
    }

    made = await world.api.post("/billing/charges", body, token=world.staff.finance_token)
    again = await world.api.post("/billing/charges", body, token=world.staff.service_token)
    with pytest.raises(ApiProblem) as refused:
        await world.api.post("/billing/charges", {**body, "quantity": "13"}, token=world.staff.finance_token)

    assert made == again
    assert refused.value.code == "charge_id_taken"
    path, _, query = made["entries_url"].partition("?")
    asked = dict(pair.split("=") for pair in query.split("&"))
    assert path == "/ledger/entries"
    (line,) = await lines(world, member, 1, charge_id=asked["charge_id"])
    assert (line["kind"], line["amount_gross"], line["quantity"]) == ("one_off", "3.00", "12")
    assert await broken(owner) == {}


async def test_finance_closes_what_is_over_and_re_rates_with_a_reason(world: World, owner: Any) -> None:
    member, _, _ = await hosted_org(world)
    await lines(world, member, 1, kind="base")
    now = datetime.now(UTC).astimezone(ZONE)
    period, before = f"{now:%Y-%m}", f"{now.replace(day=1) - timedelta(days=1):%Y-%m}"

    for named, code in ((period, "period_not_over"), (before, "no_terms")):
        with pytest.raises(ApiProblem) as refused:
            await finance(world, f"/pricing/periods/{named}:close", {"org_id": member.org_id})
        assert refused.value.code == code
    made = await finance(
        world, "/pricing/rerate", {"org_id": member.org_id, "period": period, "reason": "just to be sure"}
    )

    assert made["charges"] == 0
    assert await broken(owner) == {}
