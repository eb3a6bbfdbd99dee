"""Plans that an organisation doesn't have are estimated as if it had them; base fees are a part of it."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from eb_contracts.catalog import (
    PlaceTerms,
    PlanTermsDefined,
    RetailHashes,
    RetailTermsAssigned,
    SkuChanged,
    TermsDefined,
)
from eb_contracts.ids import new_id

from .world import NOVEMBER, World, a_charge, assigned, org_terms, terms

LONG_AGO = datetime(2026, 9, 1, tzinfo=UTC)
OLD_ID = UUID("01890000-0000-7000-8000-000000000001")


def priced(*defined: TermsDefined, key: str = "AUD/*", since: datetime = LONG_AGO) -> PlaceTerms:
    """Terms of a plan in one place."""
    hashes = {one.body.sku: one.terms_hash for one in defined}
    return PlaceTerms(retail_key=key, assignments=(RetailHashes(effective_at=since, hashes=hashes),))


def plan(plan_id: UUID, anywhere: PlaceTerms | None = None, **values: Any) -> PlanTermsDefined:
    """A published plan."""
    places = {"*": anywhere} if anywhere else {}
    plain = {"version": 1, "plan_version": 1, "status": "published", "currency": "AUD", "places": places}
    return PlanTermsDefined.model_validate({"plan_id": plan_id} | plain | values)


def hosting(price: str = "30", **values: Any) -> TermsDefined:
    """Terms of a base fee."""
    return terms("hosting", sku_type="hosting", overage_price=price, **values)


async def test_a_plan_is_estimated_as_it_would_be_billed_to_who_has_it(world: World) -> None:
    sms, page = (
        terms(included_qty="3", tax_code="GST", tax_rate="0.1"),
        hosting(tax_code="GST", tax_rate="0.1"),
    )
    with_it, without, plan_id = await world.org(sms, page), await world.client.org(), new_id()
    await world.learn(plan(plan_id, priced(sms, page)))

    theirs = await world.estimate(with_it, {"sms": "1.5"}, 40)
    compared = await world.estimate(without, {"sms": "1.5"}, 40, plan_id=str(plan_id))

    assert compared == theirs
    assert (compared["base"], compared["grand_total"], compared["tax_total"]) == ("30.00", "35.70", "3.57")


async def test_plans_are_compared_for_an_organisation_that_has_another(world: World) -> None:
    cheap = terms(overage_price="0.05")
    org_id, plan_id = await world.org(), new_id()
    await world.learn(cheap, plan(plan_id, priced(cheap)))
    await world.counted(a_charge(org_id, "100", version=1))

    now = await world.estimate(org_id, {"sms": 1}, 10)
    then = await world.estimate(org_id, {"sms": 1}, 10, plan_id=str(plan_id))
    more = await world.estimate(org_id, {"sms": 1}, 10, plan_id=str(plan_id), from_current_usage=True)

    assert (now["grand_total"], then["grand_total"]) == ("1.00", "0.50")
    assert (more["lines"][0]["already"], more["grand_total"]) == ("5.00", "0.50")


async def test_the_plan_that_an_organisation_has_is_its_own_terms(world: World) -> None:
    agreed, listed, plan_id = terms(overage_price="0.01"), terms(overage_price="0.09"), new_id()
    org_id = await world.client.org()
    await world.learn(
        agreed, listed, org_terms(org_id, assigned(agreed, plan_id=plan_id)), plan(plan_id, priced(listed))
    )

    told = await world.estimate(org_id, {"sms": 1}, 100, plan_id=str(plan_id))

    assert told["grand_total"] == "1.00"


async def test_overrides_that_were_agreed_for_a_plan_count(world: World) -> None:
    listed, agreed, plan_id = terms(overage_price="0.09"), terms(overage_price="0.02"), new_id()
    org_id, other = await world.client.org(), await world.client.org()
    await world.learn(
        listed, agreed, plan(plan_id, priced(listed)), plan(plan_id, priced(agreed), org_id=org_id)
    )

    assert (await world.estimate(org_id, {"sms": 1}, plan_id=str(plan_id)))["grand_total"] == "0.02"
    assert (await world.estimate(other, {"sms": 1}, plan_id=str(plan_id)))["grand_total"] == "0.09"


async def test_a_country_with_tax_rates_of_its_own_has_its_own_terms(world: World) -> None:
    taxed, untaxed, plan_id = terms(tax_code="GST", tax_rate="0.1"), terms(tax_code="GST"), new_id()
    places = {"*": priced(untaxed), "AU": priced(taxed, key="AUD/AU")}
    await world.learn(taxed, untaxed, plan(plan_id, places=places))
    home, abroad = await world.client.org(country="AU"), await world.client.org(country="NZ")

    told = [await world.estimate(one, {"sms": 10}, plan_id=str(plan_id)) for one in (home, abroad)]

    assert [(one["grand_total"], one["tax_total"]) for one in told] == [("1.00", "0.10"), ("1.00", "0.00")]


async def test_what_the_plan_does_not_name_has_the_retail_price_of_its_place(world: World) -> None:
    fax, plan_id = terms("fax", overage_price="0.30"), new_id()
    steps = (RetailHashes(effective_at=LONG_AGO, hashes={"fax": fax.terms_hash}),)
    await world.learn(
        fax,
        plan(plan_id, priced(key="AUD/**")),
        RetailTermsAssigned(version=1, retail_key="AUD/**", assignments=steps),
    )

    told = await world.estimate(await world.client.org(), {"fax": 2}, plan_id=str(plan_id))

    assert (told["grand_total"], told["base"]) == ("0.60", "0.00")


async def test_a_new_version_of_a_plan_never_answers_from_the_cache(world: World) -> None:
    old, new, plan_id, org_id = terms(), terms(overage_price="0.20"), new_id(), await world.client.org()
    await world.learn(old, new, plan(plan_id, priced(old)))
    totals = [(await world.estimate(org_id, {"sms": 1}, plan_id=str(plan_id)))["grand_total"]]

    await world.learn(plan(plan_id, priced(new), version=2, plan_version=2))
    totals.append((await world.estimate(org_id, {"sms": 1}, plan_id=str(plan_id)))["grand_total"])

    assert totals == ["0.10", "0.20"]


async def test_a_plan_that_nobody_can_be_put_on_is_refused(world: World) -> None:
    org_id, draft, retired = await world.client.org(), new_id(), new_id()
    await world.learn(
        plan(draft, status="draft", plan_version=0),
        plan(retired, priced(terms()), status="retired"),
    )
    admin = world.client.auth(roles=["Admin"], org_id=org_id)

    async def answer(plan_id: UUID, headers: Any = None) -> tuple[int, str]:
        status, body = await world.ask(org_id, {}, plan_id=str(plan_id), headers=headers)
        return status, json.loads(body)["code"]

    assert await answer(OLD_ID) == (404, "not_found")
    assert await answer(draft, admin) == (404, "not_found")
    assert await answer(draft) == (409, "plan_not_published")
    assert await answer(retired, admin) == (409, "plan_not_published")


async def test_a_plan_that_was_just_published_is_waited_for(world: World) -> None:
    org_id, plan_id = await world.client.org(), new_id()
    asking = asyncio.create_task(world.estimate(org_id, {"sms": 1}, plan_id=str(plan_id)))
    await asyncio.sleep(0.2)
    await world.learn(terms(), plan(plan_id, priced(terms())))

    assert (await asking)["grand_total"] == "0.10"


async def test_base_fees_are_told_by_sku_and_taxed_with_what_is_used_of_it(world: World) -> None:
    """Tax is rounded on the sum of fee and usage: 0.05 of 1.01 and 0.33 is 0.067, not 0.05 and 0.02."""
    tax = {"tax_code": "GST", "tax_rate": "0.05"}
    org_id = await world.org(
        hosting("1.01", **tax), terms("site", sku_type="hosting", overage_price="0.334", **tax), terms()
    )

    told = await world.estimate(org_id, {"site": 1, "sms": 1})

    assert [(line["sku"], line["total"], line["tax"]) for line in told["base_lines"]] == [
        ("hosting", "1.01", "0.05"),
        ("site", "0.33", "0.02"),
    ]
    assert [(line["sku"], line["total"], line["tax"]) for line in told["lines"]] == [
        ("site", "0.33", "0.01"),
        ("sms", "0.10", "0.00"),
    ]
    assert (told["base"], told["grand_total"], told["tax_total"]) == ("1.34", "1.77", "0.08")


async def test_from_current_usage_the_base_fee_was_charged_already(world: World) -> None:
    org_id = await world.org(hosting(), terms())

    told = await world.estimate(org_id, {"sms": 1}, from_current_usage=True)

    assert (told["base"], told["base_lines"], told["grand_total"]) == ("0.00", [], "0.10")


async def test_a_changed_base_fee_never_answers_from_the_cache(world: World) -> None:
    old, new = hosting("30"), hosting("31")
    org_id = await world.org(old, terms())
    before = await world.estimate(org_id, {"sms": 1})

    change = assigned(new, terms(), since=NOVEMBER)
    await world.learn(new, org_terms(org_id, change, version=2))

    assert (before["base"], (await world.estimate(org_id, {"sms": 1}))["base"]) == ("30.00", "31.00")


async def test_the_same_question_asked_by_many_at_once_has_one_answer(world: World) -> None:
    org_id = await world.org(terms(), hosting())

    answers = await asyncio.gather(*(world.ask(org_id, {"sms": "1.5"}, 7) for _ in range(24)))

    assert len(set(answers)) == 1
    assert answers[0][0] == 200
    assert await world.cached(org_id) == 1


async def test_every_change_of_what_an_answer_rests_on_is_another_question(world: World) -> None:
    """Terms, tax, base fee, counter and plan version change one after the other; nothing repeats an old answer."""
    plan_id, org_id = new_id(), await world.client.org()
    taxed = terms(tax_code="GST", tax_rate="0.1")
    await world.learn(SkuChanged(version=1, sku="sms", type="action", unit="each"))
    seen = []
    for number, made in enumerate((terms(), taxed, terms(overage_price="0.11"), terms(included_qty="1")), 1):
        await world.learn(made, plan(plan_id, priced(made), version=number, plan_version=number))
        seen.append(await world.ask(org_id, {"sms": 2}, plan_id=str(plan_id)))
    for version in (1, 2):
        await world.counted(a_charge(org_id, str(version), version=version))
        seen.append(await world.ask(org_id, {"sms": 2}, plan_id=str(plan_id), from_current_usage=True))

    assert len(set(seen)) == len(seen)
