"""Every kind of charge is explained so that its sum can be redone by hand (docs/rules/pricing.md, Explaining)."""

from __future__ import annotations

from fractions import Fraction
from typing import Any
from urllib.parse import quote
from uuid import UUID

from eb_contracts.ids import new_id

from .factories import AT, GRADUATED, assigned, org_terms, terms, usage
from .world import World

TAX = {"tax_code": "GST", "tax_rate": "0.1"}


async def explained(world: World, org_id: UUID) -> list[dict[str, Any]]:
    """Give the explanations of an organisation's charges, oldest first, each redone by hand."""
    told = []
    for charge in await world.charges(org_id):
        status, one = await world.get(f"/pricing/charges/{quote(charge['charge_id'], safe='')}/explain")
        assert status == 200
        redo(one)
        told.append(one)
    return told


def redo(told: dict[str, Any]) -> None:
    """Redo a sum from nothing but its explanation."""
    charge, sums, base = told["charge"], told["arithmetic"], told["base_fees"]
    due = Fraction(0)
    if sums is not None:
        rows = [
            Fraction(row["quantity"]) * Fraction(row["unit_price"]) + Fraction(row["flat_fee"])
            for row in sums["tiers"]
        ]
        price, shape = sum(rows, Fraction(0)), told["terms"]["body"]["tiers"] or {}
        assert price == Fraction(sums["price"])
        if sums["limit"] is not None:
            price = Fraction(shape[sums["limit"]])
        if sums["not_due"]:
            price = Fraction(0)
        assert rounded(price, sums["minor_digits"]) == Fraction(sums["target"])
        due += Fraction(sums["target"]) - Fraction(sums["charged_before"])
        assert due == Fraction(sums["amount_due"])
    if base is not None:
        fee = Fraction(base["after"]) - Fraction(base["before"])
        if base["price"] is not None:
            exact = Fraction(base["price"]) * base["days_left"] / base["days"]
            assert charge["quantity"] in ("1", "-1")
            assert rounded(exact, 2) * int(charge["quantity"]) == fee
        assert fee == Fraction(base["due"])
        due += fee
    assert due == Fraction(charge["amount_gross"]) + Fraction(charge["waived_amount"])
    moved = charge["counter"]
    assert Fraction(moved["after"]["charged"]) - Fraction(moved["before"]["charged"]) == due


def rounded(exact: Fraction, digits: int) -> Fraction:
    """Round half up, as the terms of these tests say."""
    scale = 10**digits
    return Fraction((exact * scale * 2 + 1) // 2, scale)


async def test_every_kind_of_charge_can_be_redone(world: World) -> None:
    tiers = {**GRADUATED, "minimum": "20.5", "maximum": "1000"}
    sms, site = (
        terms(overage_price="0", tiers=tiers, **TAX),
        terms("site", sku_type="hosting", overage_price="31", **TAX),
    )
    org_id = await world.client.org()
    await world.learn(sms, site, org_terms(org_id, assigned(sms), assigned(sms, site, since=AT)))
    await world.begin()
    await world.deliver(usage(org_id, "33.333333"), usage(org_id, "2", sku="site"))
    one_off = {
        "charge_id": "one/off",
        "org_id": str(org_id),
        "sku": "sms",
        "quantity": "70",
        "time": "2026-11-04T02:00:00Z",
    }
    assert (await world.post("/billing/charges", one_off))[0] == 202
    dearer = terms("site", sku_type="hosting", overage_price="62", **TAX)
    await world.learn(dearer, org_terms(org_id, assigned(sms), assigned(sms, dearer, since=AT), version=2))
    await world.sweep()
    await world.begin()
    world.set_clock("2026-12-03T13:00:00Z")
    await world.close()
    await world.deliver(usage(org_id, "200"), usage(org_id, "-1", events=-1))
    rerate = {"org_id": str(org_id), "period": "2026-11", "reason": "half the price"}
    cheaper = terms("site", sku_type="hosting", overage_price="15.5", **TAX)
    await world.learn(cheaper, org_terms(org_id, assigned(sms), assigned(sms, cheaper, since=AT), version=3))
    await world.sweep()
    assert (await world.post("/pricing/rerate", rerate, {"Idempotency-Key": str(new_id())}))[1][
        "charges"
    ] == 1

    told = [one for one in await explained(world, org_id) if one["charge"]["period"] == "2026-11"]

    by_kind = [(one["charge"]["kind"], one["charge"]["status"], one["charge"]["reason"]) for one in told]
    assert sorted(by_kind, key=str) == sorted(
        [
            ("base", "open", None),
            ("usage", "open", None),
            ("usage", "open", None),
            ("one_off", "open", None),
            ("adjustment", "open", "terms_changed"),  # what the hosting's use costs
            ("adjustment", "open", "terms_changed"),  # its base fee
            ("adjustment", "closed", "period_closed"),
            ("usage", "closed", None),
            ("usage", "closed", None),
            ("adjustment", "closed", "half the price"),
        ],
        key=str,
    )
    (base,) = [one for one in told if one["charge"]["kind"] == "base"]
    assert base["base_fees"]["days_left"] == 27
    assert (
        base["base_fees"]["charges_url"]
        == f"/pricing/charges?org_id={org_id}&sku=site&period=2026-11&kind=base"
    )
    (closing,) = [one for one in told if one["charge"]["reason"] == "period_closed"]
    assert (closing["arithmetic"]["limit"], closing["arithmetic"]["target"]) == ("minimum", "20.50")
    assert closing["arithmetic"]["is_closed"] is True
    assert closing["tax"]["rate"] == "0.1"


async def test_what_is_taken_back_with_its_currency_is_told(world: World) -> None:
    org_id = await world.org(terms(), terms("site", sku_type="hosting", overage_price="31"))
    await world.begin()
    await world.deliver(usage(org_id, "5"), usage(org_id, "1", sku="site"))
    yen = terms(currency="JPY", minor_digits=0, overage_price="11")
    site = terms("site", sku_type="hosting", currency="JPY", minor_digits=0, overage_price="3100")
    await world.learn(yen, site, org_terms(org_id, assigned(yen, site, currency="JPY"), version=2))
    await world.sweep()
    await world.begin()

    told = await explained(world, org_id)

    back = [one for one in told if one["charge"]["reason"] == "currency_changed"]
    assert {one["arithmetic"]["not_due"] for one in back} == {"withdrawn"}
    assert len(back) == 2


async def test_charges_are_picked_by_status(world: World) -> None:
    org_id = await world.org(
        terms(overage_price="0", tiers={"mode": "per_unit", "unit_price": "1", "minimum": "5"})
    )
    await world.deliver(usage(org_id))
    world.set_clock("2026-12-03T13:00:00Z")
    await world.close()

    for status, kinds in (("open", ["usage"]), ("closed", ["adjustment"])):
        _, page = await world.get(f"/pricing/charges?org_id={org_id}&status={status}")
        assert [(item["kind"], item["status"]) for item in page["items"]] == [
            (kind, status) for kind in kinds
        ]
    assert (await world.get(f"/pricing/charges?org_id={org_id}&status=settled"))[0] == 400
