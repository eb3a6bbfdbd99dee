"""An estimate is what the same usage would be billed, and the same question gives the same bytes."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest

from eb_contracts.auth import ProjectChanged
from eb_contracts.catalog import RetailHashes, RetailTermsAssigned, SkuChanged
from eb_contracts.ids import new_id
from eb_estimator.jobs import forget_old_estimates
from eb_rating import from_plain, target_closed

from .world import World, a_charge, assigned, org_terms, terms

GRADUATED = {
    "mode": "graduated",
    "tiers": [
        {"up_to": "100", "unit_price": "0.10", "flat_fee": "2"},
        {"up_to": None, "unit_price": "0.05", "flat_fee": "1"},
    ],
}
SHAPES = {
    "per_unit": {"mode": "per_unit", "unit_price": "0.0333"},
    "graduated": GRADUATED,
    "volume": GRADUATED | {"mode": "volume"},
    "package": {"mode": "package", "package_size": "7", "package_price": "1.11"},
    "stairstep": {
        "mode": "stairstep",
        "tiers": [{"up_to": "90", "flat_fee": "5"}, {"up_to": None, "flat_fee": "7"}],
    },
    "stairstep_cumulative": {
        "mode": "stairstep_cumulative",
        "tiers": [{"up_to": "90", "flat_fee": "5"}, {"up_to": None, "flat_fee": "7"}],
    },
    "percentage": {"mode": "percentage", "rate": "0.029", "fixed_fee": "0.30"},
    "graduated_percentage": {
        "mode": "graduated_percentage",
        "tiers": [{"up_to": "90", "rate": "0.03"}, {"up_to": None, "rate": "0.02"}],
    },
}


async def test_an_estimate_says_what_is_included_and_what_is_over(world: World) -> None:
    org_id = await world.org(terms(included_qty="20", tiers=GRADUATED, tax_code="GST", tax_rate="0.1"))

    told = await world.estimate(org_id, {"sms": "2.5"}, 100)

    assert told["currency"] == "AUD"
    assert (told["base"], told["grand_total"], told["tax_total"]) == ("0.00", "19.50", "1.95")
    (line,) = told["lines"]
    assert {name: line[name] for name in ("sku", "quantity", "included", "overage", "total")} == {
        "sku": "sms",
        "quantity": "250",
        "included": "20",
        "overage": "230",
        "total": "19.50",
    }
    assert [(tier["quantity"], tier["amount"]) for tier in line["tiers"]] == [("100", "12"), ("130", "7.5")]


@pytest.mark.parametrize("mode", SHAPES)
@pytest.mark.parametrize(("currency", "digits"), [("AUD", 2), ("JPY", 0), ("KWD", 3)])
async def test_every_shape_is_estimated_as_the_library_bills_it(
    world: World, mode: str, currency: str, digits: int
) -> None:
    priced = terms(currency=currency, minor_digits=digits, tiers=SHAPES[mode] | {"minimum": "3"})
    org_id = await world.org(priced)

    for uses in ("0", "0.01", "1", "4.35"):
        told = await world.estimate(org_id, {"sms": uses}, 30)
        quantity = Decimal(uses) * 30
        billed = target_closed(quantity, 30 if quantity else 0, from_plain(priced.body.model_dump()))
        assert told["grand_total"] == str(billed)


async def test_the_same_question_gives_the_same_bytes_from_the_cache(world: World) -> None:
    org_id = await world.org(terms(tiers=GRADUATED), terms("mail"))

    first = await world.ask(org_id, {"sms": "1.50", "mail": 2}, 70)
    again = await world.ask(org_id, {"mail": "2", "sms": "1.5"}, 70)

    assert first == again
    assert await world.cached(org_id) == 1


async def test_changed_terms_never_answer_from_the_cache(world: World) -> None:
    old, new = terms(), terms(overage_price="0.20")
    org_id = await world.org(old)
    assert (await world.estimate(org_id, {"sms": 1}))["grand_total"] == "0.10"

    change = assigned(new, since=datetime(2026, 11, 2, tzinfo=UTC))
    await world.learn(new, org_terms(org_id, assigned(old), change, version=2))

    assert (await world.estimate(org_id, {"sms": 1}))["grand_total"] == "0.20"


async def test_from_current_usage_adds_to_what_was_used(world: World) -> None:
    org_id = await world.org(terms(included_qty="50", tiers=GRADUATED))
    await world.counted(a_charge(org_id, "140", version=3, events=9), a_charge(org_id, "70", version=2))

    told = await world.estimate(org_id, {"sms": 1}, 20, from_current_usage=True)

    (line,) = told["lines"]
    assert (line["already"], line["total"], line["included"], line["overage"]) == ("11.00", "2.50", "0", "20")
    assert told["grand_total"] == "2.50"


async def test_a_newer_counter_never_answers_from_the_cache_and_an_older_one_changes_nothing(
    world: World,
) -> None:
    org_id = await world.org(terms(included_qty="50"))
    asked = {"from_current_usage": True}
    totals = []
    for charge in (
        a_charge(org_id, "45", version=1),
        a_charge(org_id, "60", version=5),
        a_charge(org_id, "50", version=4),
    ):
        await world.counted(charge)
        totals.append((await world.estimate(org_id, {"sms": 10}, **asked))["grand_total"])

    assert totals == ["0.50", "1.00", "1.00"]


async def test_usage_of_another_period_does_not_count(world: World) -> None:
    org_id = await world.org(terms(included_qty="50"))
    await world.counted(a_charge(org_id, "45", version=1, period="2026-10"))

    told = await world.estimate(org_id, {"sms": 10}, from_current_usage=True)

    assert told["grand_total"] == "0.00"


async def test_what_the_plan_does_not_name_is_estimated_at_retail(world: World) -> None:
    org_id, retail = await world.client.org(), terms("fax", overage_price="0.30")
    await world.learn(
        retail,
        org_terms(org_id, assigned(retail_key="AUD/NZ")),
        RetailTermsAssigned(
            version=1,
            retail_key="AUD/NZ",
            assignments=(
                RetailHashes(
                    effective_at=datetime(2026, 1, 1, tzinfo=UTC), hashes={"fax": retail.terms_hash}
                ),
            ),
        ),
    )

    assert (await world.estimate(org_id, {"fax": 2}))["grand_total"] == "0.60"


async def test_skus_that_cannot_be_priced_are_pointed_at(world: World) -> None:
    org_id = await world.org()
    await world.learn(SkuChanged(version=1, sku="a/b", type="action", unit="each"))

    status, answer = await world.ask(org_id, {"sms": 1, "pigeon": 1, "a/b": 1})

    problem = json.loads(answer)
    assert (status, problem["code"]) == (422, "estimate_impossible")
    assert {(fault["pointer"], fault["code"]) for fault in problem["errors"]} == {
        ("/skus/pigeon", "unknown_sku"),
        ("/skus/a~1b", "no_terms"),
    }


async def test_an_organisation_without_a_plan_is_told_so(world: World) -> None:
    status, answer = await world.ask(await world.client.org(), {"sms": 1})

    assert (status, json.loads(answer)["code"]) == (422, "no_terms")


async def test_a_plan_that_is_on_its_way_is_waited_for(world: World) -> None:
    org_id = await world.client.org()
    asking = asyncio.create_task(world.estimate(org_id, {"sms": 1}))
    await asyncio.sleep(0.2)
    await world.learn(terms(), org_terms(org_id, assigned(terms())))

    assert (await asking)["grand_total"] == "0.10"


async def test_terms_whose_content_is_missing_are_asked_for_again_later(world: World) -> None:
    org_id = await world.client.org()
    await world.learn(org_terms(org_id, assigned(terms("telex"))))

    status, answer = await world.ask(org_id, {"telex": 1})

    assert (status, json.loads(answer)["code"]) == (503, "terms_not_here")


async def test_a_project_must_be_the_organisations(world: World) -> None:
    org_id, project_id, other = await world.org(), new_id(), await world.org()
    await world.learn(ProjectChanged(version=1, project_id=project_id, org_id=org_id))

    assert (await world.ask(org_id, {"sms": 1}, project_id=str(project_id)))[0] == 200
    assert (await world.ask(other, {"sms": 1}, project_id=str(project_id)))[0] == 404


async def test_quantities_are_exact_and_absurd_ones_refused(world: World) -> None:
    org_id = await world.org(terms(overage_price="0.000000000000000001"))

    told = await world.estimate(org_id, {"sms": "123456789.123456789123456789"}, 1_000_000_000)
    status, answer = await world.ask(org_id, {"sms": "999999999999"}, 1_000_000_000)

    assert told["lines"][0]["quantity"] == "123456789123456789.123456789"
    assert told["grand_total"] == "0.12"
    assert (status, json.loads(answer)["code"]) == (422, "estimate_too_large")


async def test_nonsense_is_refused_with_a_pointer(world: World) -> None:
    org_id = await world.org()
    for skus, leads, pointer in (
        ({"sms": "-1"}, 1, "/skus/sms"),
        ({"sms": "NaN"}, 1, "/skus/sms"),
        ({"sms": True}, 1, "/skus/sms"),
        ({"sms": 1}, -1, "/leads"),
        ({"sms": 1}, 1.5, "/leads"),
        ({"sms": 1}, 1_000_000_001, "/leads"),
        ({f"sku{n}": 1 for n in range(501)}, 1, "/skus"),
    ):
        status, answer = await world.ask(org_id, skus, leads)
        problem = json.loads(answer)
        assert status == 422, problem
        assert [fault["pointer"] for fault in problem["errors"]] == [pointer]


async def test_strangers_are_told_nothing_and_keys_need_the_scope(world: World) -> None:
    org_id = await world.org()
    stranger = world.client.auth(roles=["Admin"], org_id=await world.client.org())
    right, wrong = [
        await world.client.api_key(org_id, [scope]) for scope in ("pricing:estimate", "pricing:read")
    ]

    assert (await world.ask(org_id, {"sms": 1}, headers=stranger))[0] == 404
    assert (await world.ask(org_id, {"sms": 1}, headers={"Authorization": f"Bearer {right}"}))[0] == 200
    assert (await world.ask(org_id, {"sms": 1}, headers={"Authorization": f"Bearer {wrong}"}))[0] == 403


async def test_old_estimates_are_forgotten(world: World) -> None:
    org_id = await world.org()
    await world.estimate(org_id, {"sms": 1})
    await world.estimate(org_id, {"sms": 2})
    long_ago = datetime(2026, 11, 5, tzinfo=UTC) - timedelta(days=31)
    await world.owner.execute(
        "UPDATE estimator.pricing_estimate SET created_at = $1 WHERE org_id = $2 AND inputs -> 'skus' ->> 'sms' = '1'",
        long_ago,
        org_id,
    )

    async with world.client.context.begin("system:estimator") as tx:
        await forget_old_estimates(tx)

    assert await world.cached(org_id) == 1


async def test_a_minimum_that_is_due_anyway_is_no_part_of_what_more_usage_costs(world: World) -> None:
    org_id = await world.org(terms(tiers={"mode": "per_unit", "unit_price": "0.10", "minimum": "5"}))

    whole = await world.estimate(org_id, {"sms": 1}, 70)
    more = await world.estimate(org_id, {"sms": 1}, 70, from_current_usage=True)

    assert (whole["grand_total"], whole["lines"][0]["already"]) == ("7.00", "0.00")
    assert (more["grand_total"], more["lines"][0]["already"]) == ("2.00", "5.00")


async def test_an_estimate_of_many_skus_is_bounded(world: World) -> None:
    names = [f"sku-{n:03d}" for n in range(500)]
    org_id = await world.org(*(terms(name) for name in names))

    told = await world.estimate(org_id, dict.fromkeys(names, "1"), 3)
    large, _ = await world.ask(org_id, {f"{n:0128d}": "1" for n in range(10_000)})
    status, answer = await world.ask(org_id, {"x" * 129: "1"})

    assert (len(told["lines"]), told["grand_total"]) == (500, "150.00")
    assert large == 413
    assert (status, json.loads(answer)["code"]) == (422, "body_invalid")
