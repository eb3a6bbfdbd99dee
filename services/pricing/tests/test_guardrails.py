"""Budgets, caps and credits: what is charged, waived, paid by credit and said about it."""

from __future__ import annotations

import asyncio
from decimal import Decimal
from typing import Any
from uuid import UUID

from eb_contracts.pricing import BudgetThresholdReached

from .factories import AT, PROJECT_ID, assigned, org_terms, terms, usage
from .world import World, someone, total

NOTHING = Decimal(0)


async def a_budget(world: World, org_id: UUID, amount: str, **values: Any) -> dict[str, Any]:
    """Make a hard cap in AUD."""
    body = {"org_id": str(org_id), "amount": amount, "currency": "AUD", "hard_cap": True, **values}
    status, made = await world.call("POST", "/pricing/budgets", body)
    assert status == 201, made
    return made


async def a_credit(world: World, org_id: UUID, amount: str, **values: Any) -> dict[str, Any]:
    """Grant a credit in AUD."""
    body = {"org_id": str(org_id), "amount": amount, "currency": "AUD", "source": "test", **values}
    status, made = await world.call(
        "POST", "/pricing/credits", body, roles=["Finance"], headers={"Idempotency-Key": str(someone())}
    )
    assert status == 201, made
    return made


async def parts(world: World, org_id: UUID) -> list[tuple[str, str, str]]:
    """Give gross, waived and credit of each charge, in the order they were made."""
    rows = await world.charges(org_id)
    return [
        tuple(f"{row[n]:.2f}" for n in ("amount_gross", "waived_amount", "credit_applied")) for row in rows
    ]


async def test_a_hard_cap_cuts_what_is_charged_and_says_so(shared_world: World) -> None:
    org_id = await shared_world.org()
    await a_budget(shared_world, org_id, "1.00")

    await shared_world.deliver(usage(org_id, "8"), usage(org_id, "7"), usage(org_id, "1"))

    assert await parts(shared_world, org_id) == [
        ("0.80", "0.00", "0.00"),
        ("0.20", "0.50", "0.00"),
        ("0.00", "0.10", "0.00"),
    ]
    counter = await shared_world.counter(org_id)
    assert (counter["charged"], counter["waived"]) == (Decimal("1.60"), Decimal("0.60"))


async def test_a_budget_starts_from_what_was_charged_so_far(shared_world: World) -> None:
    org_id = await shared_world.org()
    await shared_world.deliver(usage(org_id, "9"))

    made = await a_budget(shared_world, org_id, "1.00")
    await shared_world.deliver(usage(org_id, "9"))

    assert (made["charged"], made["remaining"], made["reached"]) == ("0.90", "0.10", [50, 80])
    assert (await parts(shared_world, org_id))[-1] == ("0.10", "0.80", "0.00")


async def test_a_void_lowers_the_total_first(shared_world: World) -> None:
    org_id = await shared_world.org()
    await a_budget(shared_world, org_id, "1.00")
    await shared_world.deliver(usage(org_id, "15"))

    await shared_world.deliver(usage(org_id, "-3", events=-1), usage(org_id, "-4", events=-1))

    assert await parts(shared_world, org_id) == [
        ("1.00", "0.50", "0.00"),
        ("0.00", "-0.30", "0.00"),
        ("-0.20", "-0.20", "0.00"),
    ]


async def test_a_lowered_cap_takes_nothing_back_and_a_raised_one_bills_by_the_same_formula(
    shared_world: World,
) -> None:
    org_id = await shared_world.org()
    made = await a_budget(shared_world, org_id, "1.00")
    path = f"/pricing/budgets/{made['budget_id']}"
    await shared_world.deliver(usage(org_id, "8"))

    await shared_world.call("PUT", path, {"amount": "0.50", "currency": "AUD", "hard_cap": True})
    await shared_world.deliver(usage(org_id, "4"))
    status, _ = await shared_world.call("PUT", path, {"amount": "2.00", "currency": "AUD", "hard_cap": True})
    assert status == 200
    await shared_world.deliver(usage(org_id, "1"))

    assert await parts(shared_world, org_id) == [
        ("0.80", "0.00", "0.00"),
        ("0.00", "0.40", "0.00"),
        ("0.50", "-0.40", "0.00"),
    ]


async def test_without_its_cap_what_was_waived_stays_waived(shared_world: World) -> None:
    org_id = await shared_world.org()
    made = await a_budget(shared_world, org_id, "1.00")
    await shared_world.deliver(usage(org_id, "15"))

    status, _ = await shared_world.call("DELETE", f"/pricing/budgets/{made['budget_id']}")
    assert status == 204
    await shared_world.deliver(usage(org_id, "2"), usage(org_id, "-17", events=-1))

    assert (await parts(shared_world, org_id))[1:] == [("0.20", "0.00", "0.00"), ("-1.20", "-0.50", "0.00")]


async def test_the_projects_cap_comes_before_the_organisations(shared_world: World) -> None:
    org_id = await shared_world.org()
    other = someone()
    await shared_world.project(org_id, PROJECT_ID)
    await a_budget(shared_world, org_id, "1.00", project_id=str(PROJECT_ID))
    await a_budget(shared_world, org_id, "1.50")

    await shared_world.deliver(usage(org_id, "12"), usage(org_id, "9", project_id=other))

    assert await parts(shared_world, org_id) == [("1.00", "0.20", "0.00"), ("0.50", "0.40", "0.00")]
    _, page = await shared_world.get(f"/pricing/budgets?org_id={org_id}")
    assert [(one["charged"], one["waived"]) for one in page["items"]] == [("1.50", "0.40"), ("1.00", "0.20")]


async def test_thresholds_are_announced_once_each(world: World) -> None:
    org_id = await world.org()
    await a_budget(world, org_id, "1.00", hard_cap=False)

    for quantity in ("4", "1", "2", "9", "-12", "14"):
        await world.deliver(usage(org_id, quantity, events=1 if quantity[0] != "-" else -1))

    said = await world.sent_of(BudgetThresholdReached)
    assert [(one.threshold_pct, one.charged) for one in said] == [
        (50, Decimal("0.50")),
        (80, Decimal("1.60")),
        (100, Decimal("1.60")),
    ]


async def test_tax_is_on_what_is_charged(shared_world: World) -> None:
    org_id = await shared_world.org(terms(tax_code="GST", tax_rate="0.1"))
    await a_budget(shared_world, org_id, "1.00")

    await shared_world.deliver(usage(org_id, "8"), usage(org_id, "8"))

    assert total(await shared_world.charges(org_id), "tax_amount") == Decimal("0.10")


async def test_credits_are_drawn_by_priority_expiry_and_age_and_given_back_in_reverse(
    shared_world: World,
) -> None:
    org_id = await shared_world.org()
    oldest = await a_credit(shared_world, org_id, "0.10", priority=1)
    late = await a_credit(shared_world, org_id, "0.20", expires_at="2026-12-01T00:00:00Z")
    soon = await a_credit(shared_world, org_id, "0.30", expires_at="2026-11-20T00:00:00Z")
    await a_credit(shared_world, org_id, "9.00", sku_types=["hosting"])

    await shared_world.deliver(usage(org_id, "4"), usage(org_id, "5"), usage(org_id, "-6", events=-1))

    assert await parts(shared_world, org_id) == [
        ("0.40", "0.00", "0.40"),
        ("0.50", "0.00", "0.20"),
        ("-0.60", "0.00", "-0.60"),
    ]
    left = await left_of(shared_world, org_id)
    assert [left[one["credit_id"]] for one in (soon, late, oldest)] == ["0.30", "0.20", "0.10"]
    draws = await shared_world.owner.fetch(
        "SELECT credit_id, amount FROM pricing.credit_draw WHERE org_id = $1 AND amount > 0 ORDER BY amount DESC",
        org_id,
    )
    assert [(str(row["credit_id"]), row["amount"]) for row in draws][:1] == [
        (soon["credit_id"], Decimal("0.30"))
    ]


async def test_a_void_gives_back_what_its_own_sku_drew_and_everything_voided_gives_back_everything(
    shared_world: World,
) -> None:
    org_id = await shared_world.org(terms(), terms("disk", sku_type="hosting"))
    narrow = await a_credit(shared_world, org_id, "0.50", sku_types=["action"])
    wide = await a_credit(shared_world, org_id, "0.50", priority=1)
    await shared_world.deliver(usage(org_id, "5"), usage(org_id, "5", sku="disk"))

    await shared_world.deliver(usage(org_id, "-5", events=-1))
    assert await left_of(shared_world, org_id) == {narrow["credit_id"]: "0.50", wide["credit_id"]: "0.00"}

    await shared_world.deliver(usage(org_id, "-5", sku="disk", events=-1))
    assert await left_of(shared_world, org_id) == {narrow["credit_id"]: "0.50", wide["credit_id"]: "0.50"}


async def test_what_a_cap_moved_to_another_sku_comes_back_as_credit(shared_world: World) -> None:
    org_id = await shared_world.org(terms(), terms("disk", sku_type="hosting"))
    await a_budget(shared_world, org_id, "1.00")
    credit = await a_credit(shared_world, org_id, "0.50", sku_types=["action"])
    await shared_world.deliver(usage(org_id, "10"))
    await shared_world.deliver(usage(org_id, "10", sku="disk"))

    await shared_world.deliver(usage(org_id, "-10", events=-1))
    await shared_world.deliver(usage(org_id, "-10", sku="disk", events=-1))

    assert await parts(shared_world, org_id) == [
        ("1.00", "0.00", "0.50"),
        ("0.00", "1.00", "0.00"),
        ("0.00", "-1.00", "0.00"),
        ("-1.00", "0.00", "-0.50"),
    ]
    assert await left_of(shared_world, org_id) == {credit["credit_id"]: "0.50"}


async def left_of(world: World, org_id: UUID) -> dict[str, str]:
    """Give what is left of each credit."""
    _, page = await world.get(f"/pricing/credits?org_id={org_id}")
    return {one["credit_id"]: one["remaining"] for one in page["items"]}


async def test_credit_pays_charges_made_after_it_and_before_its_end(shared_world: World) -> None:
    org_id = await shared_world.org()
    await shared_world.deliver(usage(org_id, "1"))
    await a_credit(shared_world, org_id, "5.00", expires_at="2026-11-05T00:10:00Z")
    await shared_world.deliver(usage(org_id, "2"))
    shared_world.set_clock("2026-11-05T00:10:00Z")
    try:
        await shared_world.deliver(usage(org_id, "3"))
    finally:
        shared_world.set_clock("2026-11-05T00:00:30Z")

    assert [credit for _, _, credit in await parts(shared_world, org_id)] == ["0.00", "0.20", "0.00"]


async def test_changed_terms_meet_caps_and_credits_too(shared_world: World) -> None:
    old, new = terms(), terms(overage_price="0.30")
    org_id = await shared_world.org(old)
    await a_budget(shared_world, org_id, "1.00")
    await a_credit(shared_world, org_id, "0.50")
    await shared_world.deliver(usage(org_id, "5"))

    await shared_world.learn(new, org_terms(org_id, assigned(old), assigned(new, since=AT), version=2))
    await shared_world.sweep()

    assert await parts(shared_world, org_id) == [("0.50", "0.00", "0.50"), ("0.50", "0.50", "0.00")]


async def test_eight_takes_at_once_never_pass_a_cap_nor_overdraw_a_credit(shared_world: World) -> None:
    org_id = await shared_world.org(terms(), terms("mail"))
    await a_budget(shared_world, org_id, "5.00")
    await a_credit(shared_world, org_id, "3.00")
    records = [usage(org_id, "1", sku=sku) for sku in ("sms", "mail") for _ in range(40)]
    barrier = asyncio.Barrier(8)

    async def consume(start: int) -> None:
        await barrier.wait()
        for n in range(start, len(records), 8):
            await shared_world.deliver(records[n])

    await asyncio.gather(*(consume(start) for start in range(8)))

    rows = await shared_world.charges(org_id)
    sums = [total(rows, name) for name in ("amount_gross", "waived_amount", "credit_applied")]
    assert sums == [Decimal("5.00"), Decimal("3.00"), Decimal("3.00")]


async def test_caps_and_credits_are_explained_so_that_the_sum_can_be_redone(shared_world: World) -> None:
    org_id = await shared_world.org()
    await shared_world.project(org_id, PROJECT_ID)
    mine = await a_budget(shared_world, org_id, "1.00", project_id=str(PROJECT_ID))
    whole = await a_budget(shared_world, org_id, "0.80")
    credit = await a_credit(shared_world, org_id, "0.05")
    await shared_world.deliver(usage(org_id, "7"))
    record = usage(org_id, "8")
    await shared_world.deliver(record)

    _, told = await shared_world.get(f"/pricing/charges/{record.usage_id}/explain")

    assert [one["budget_id"] for one in told["caps"]] == [mine["budget_id"], whole["budget_id"]]
    for cap in told["caps"]:
        amount = {
            name: Decimal(text) for name, text in cap.items() if name not in ("budget_id", "project_id")
        }
        assert amount["total_before"] + amount["due"] == amount["total"]
        assert amount["granted"] == min(amount["total"], max(amount["cap"], amount["granted_before"]))
        assert amount["passed"] == amount["granted"] - amount["granted_before"]
    assert told["caps"][0]["due"] == told["arithmetic"]["amount_due"] == "0.80"
    assert told["caps"][0]["passed"] == told["caps"][1]["due"] == "0.30"
    assert told["caps"][1]["passed"] == told["charge"]["amount_gross"] == "0.10"
    assert (told["charge"]["waived_amount"], told["credits"], told["payable"]) == ("0.70", [], "0.10")
    _, page = await shared_world.get(f"/pricing/charges?org_id={org_id}")
    _, first = await shared_world.get(f"/pricing/charges/{page['items'][1]['charge_id']}/explain")
    assert first["credits"] == [{"credit_id": credit["credit_id"], "amount": "0.05"}]


async def test_usage_shows_what_budgets_and_credits_have_left(shared_world: World) -> None:
    org_id = await shared_world.org()
    await a_budget(shared_world, org_id, "1.00")
    await a_credit(shared_world, org_id, "0.30")
    await a_credit(shared_world, org_id, "2.00", currency="EUR")
    await shared_world.deliver(usage(org_id, "15"))

    _, page = await shared_world.get(f"/pricing/usage?org_id={org_id}")

    assert (page["items"][0]["charged"], page["items"][0]["waived"]) == ("1.00", "0.50")
    (budget,) = page["budgets"]
    assert (budget["charged"], budget["remaining"], budget["reached"]) == ("1.00", "0.00", [50, 80, 100])
    assert page["credits"] == [
        {"currency": "AUD", "remaining": "0.00"},
        {"currency": "EUR", "remaining": "2.00"},
    ]
