"""The catalog's doors on PostgreSQL: SKUs, plans, assignments, overrides, and the terms that come of them."""

from __future__ import annotations

import asyncio
from datetime import datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest

from eb_catalog import flows
from eb_catalog.consumers import handlers
from eb_catalog.store import orgs
from eb_contracts.catalog import OrgTermsAssigned, RetailTermsAssigned, SkuChanged, TermsDefined
from eb_contracts.ids import new_id
from eb_contracts.pricing import PeriodClosed

from .conftest import Catalog

NOVEMBER, DECEMBER = "2026-10-31T13:00:00.000000Z", "2026-11-30T13:00:00.000000Z"
"""When these months begin in Sydney."""
PER_UNIT = {"included_qty": "100", "overage_price": "0.05"}
GRADUATED = {
    "included_qty": "10",
    "tiers": {
        "mode": "graduated",
        "tiers": [
            {"up_to": "1000", "unit_price": "0.10"},
            {"up_to": None, "unit_price": "0.080", "flat_fee": 1},
        ],
    },
}


async def assigned_org(catalog: Catalog, prices: dict[str, Any] | None = None) -> tuple[UUID, str, str]:
    await catalog.put_sku("sms")
    await catalog.put_sku("mail", retail="0.010")
    model_id = await catalog.model()
    plan_id = await catalog.plan(model_id, prices or {"sms": PER_UNIT})
    org_id = await catalog.org()
    await catalog.assign(org_id, model_id, plan_id)
    return org_id, model_id, plan_id


async def test_a_sku_is_created_once_and_then_changed(catalog: Catalog) -> None:
    body = {"type": "action", "unit": "message", "cost": 0.05, "retail": "0.200", "metadata": {"n": 1.10}}
    assert (await catalog.ask("PUT", "/catalog/skus/sms", body))[0] == 201
    status, answer = await catalog.ask("PUT", "/catalog/skus/sms", body | {"retail": "0.3"})
    assert status == 200
    assert answer["retail"] == "0.3"
    assert answer == (await catalog.ask("GET", "/catalog/skus/sms"))[1]
    assert [fact.version for fact in await catalog.announced(SkuChanged)] == [1, 2]


async def test_what_is_prepaid_only_is_announced_with_the_sku(catalog: Catalog) -> None:
    body = {"type": "action", "unit": "message", "metadata": {"prepaid_only": True}}
    assert (await catalog.ask("PUT", "/catalog/skus/check", body))[0] == 201
    status, problem = await catalog.ask(
        "PUT", "/catalog/skus/check", body | {"metadata": {"prepaid_only": "yes"}}
    )

    assert [fact.prepaid_only for fact in await catalog.announced(SkuChanged)] == [True]
    assert (status, problem["errors"][0]["pointer"]) == (422, "/metadata")


async def test_type_and_unit_of_a_sku_never_change(catalog: Catalog) -> None:
    await catalog.put_sku("sms")
    status, answer = await catalog.ask("PUT", "/catalog/skus/sms", {"type": "object", "unit": "message"})
    assert (status, answer["code"]) == (409, "sku_fixed")


@pytest.mark.parametrize("retail", ["-1", "NaN", "1e3", "1." + "0" * 19, "1234567890123", True])
async def test_a_price_that_is_none_is_refused_with_a_pointer(catalog: Catalog, retail: object) -> None:
    status, answer = await catalog.ask(
        "PUT", "/catalog/skus/sms", {"type": "action", "unit": "m", "retail": retail}
    )
    assert status == 422
    assert answer["errors"][0]["pointer"] == "/retail"


async def test_the_first_plan_holds_for_the_whole_running_period(catalog: Catalog) -> None:
    org_id, _, plan_id = await assigned_org(catalog)
    terms = await catalog.terms(org_id, "2026-11-01T00:00:00+11:00")
    assert (terms["plan_id"], terms["version"], terms["period"], terms["currency"]) == (
        plan_id,
        1,
        "2026-11",
        "AUD",
    )
    sms, mail = terms["skus"]["sms"], terms["skus"]["mail"]
    assert (sms["included_qty"], sms["overage_price"], sms["tax_rate"]) == ("100", "0.05", "0.1")
    assert (mail["included_qty"], mail["overage_price"]) == ("0", "0.01")
    status, _ = await catalog.ask("GET", f"/catalog/orgs/{org_id}/terms?at=2026-10-31T12:59:59Z")
    assert status == 404


async def test_terms_are_announced_before_and_by_the_hash_that_is_read(catalog: Catalog) -> None:
    org_id, _, _ = await assigned_org(catalog, {"sms": GRADUATED})
    terms = await catalog.terms(org_id)
    defined = {fact.terms_hash: fact.body for fact in await catalog.announced(TermsDefined)}
    (assigned,) = await catalog.announced(OrgTermsAssigned)
    retail = (await catalog.announced(RetailTermsAssigned))[-1]
    assert assigned.assignments[0].hashes == {"sms": terms["skus"]["sms"]["terms_hash"]}
    assert retail.retail_key == "AUD/AU"
    assert retail.assignments[-1].hashes["mail"] == terms["skus"]["mail"]["terms_hash"]
    body = defined[terms["skus"]["sms"]["terms_hash"]]
    assert body.tiers is not None
    assert body.tiers.tiers is not None
    assert body.tiers.tiers[1].unit_price == Decimal("0.08")
    assert body.tax_rate == Decimal("0.1")


async def test_a_later_plan_holds_from_the_next_period(catalog: Catalog) -> None:
    org_id, model_id, first = await assigned_org(catalog)
    second = await catalog.plan(model_id, {"sms": PER_UNIT | {"overage_price": "1"}})
    answer = await catalog.assign(org_id, model_id, second)
    assert answer["effective_at"] == DECEMBER
    assert (await catalog.terms(org_id))["plan_id"] == first
    later = await catalog.terms(org_id, "2026-12-01T00:00:00+11:00")
    assert (later["plan_id"], later["period"]) == (second, "2026-12")


async def test_an_immediate_plan_holds_for_the_running_period(catalog: Catalog) -> None:
    org_id, model_id, _ = await assigned_org(catalog)
    second = await catalog.plan(model_id, {"sms": PER_UNIT | {"overage_price": "1"}})
    answer = await catalog.assign(org_id, model_id, second, apply="immediate")
    assert answer["effective_at"] == NOVEMBER
    assert (await catalog.terms(org_id, "2026-11-01T00:00:00+11:00"))["plan_id"] == second


async def test_another_currency_starts_with_the_next_period_only(catalog: Catalog) -> None:
    org_id, _, _ = await assigned_org(catalog)
    dollars = await catalog.model("us", "USD")
    plan_id = await catalog.plan(dollars, {"sms": PER_UNIT})
    body = {"model_id": dollars, "plan_id": plan_id, "apply": "immediate"}
    status, answer = await catalog.ask("PUT", f"/catalog/orgs/{org_id}/business-model", body)
    assert (status, answer["code"]) == (409, "currency_change_immediate")
    await catalog.assign(org_id, dollars, plan_id)
    assert (await catalog.terms(org_id))["currency"] == "AUD"
    assert (await catalog.terms(org_id, "2026-12-02T00:00:00Z"))["currency"] == "USD"


async def test_an_unpublished_plan_can_not_be_assigned(catalog: Catalog) -> None:
    await catalog.put_sku("sms")
    model_id = await catalog.model()
    plan_id = await catalog.plan(model_id, {"sms": PER_UNIT}, is_published=False)
    body = {"model_id": model_id, "plan_id": plan_id}
    status, answer = await catalog.ask("PUT", f"/catalog/orgs/{await catalog.org()}/business-model", body)
    assert (status, answer["code"]) == (409, "plan_not_published")


async def test_children_inherit_no_terms(catalog: Catalog) -> None:
    parent, _, _ = await assigned_org(catalog)
    child = await catalog.org(parent_org_id=parent)
    assert (await catalog.ask("GET", f"/catalog/orgs/{child}/terms"))[0] == 404


async def test_a_published_version_stands_and_the_next_one_counts_from_the_next_period(
    catalog: Catalog,
) -> None:
    org_id, _, plan_id = await assigned_org(catalog)
    path = f"/catalog/plans/{plan_id}/skus/sms"
    status, answer = await catalog.ask("PUT", path, PER_UNIT | {"overage_price": "0.5"})
    assert (status, answer["draft_version"]) == (200, 2)
    assert (await catalog.terms(org_id, "2027-01-01T00:00:00Z"))["version"] == 1
    assert await catalog.publish(plan_id) == 2
    assert (await catalog.terms(org_id))["version"] == 1
    december = await catalog.terms(org_id, "2026-12-01T00:00:00Z")
    assert (december["version"], december["skus"]["sms"]["overage_price"]) == (2, "0.5")
    status, again = await catalog.ask("POST", f"/catalog/plans/{plan_id}:publish")
    assert (status, again) == (200, {"plan_id": plan_id, "version": 2})


async def test_a_version_published_at_once_counts_for_the_running_period(catalog: Catalog) -> None:
    org_id, _, plan_id = await assigned_org(catalog)
    await catalog.ask("PUT", f"/catalog/plans/{plan_id}/skus/sms", PER_UNIT | {"overage_price": "0.5"})
    assert await catalog.publish(plan_id, "immediate") == 2
    assert (await catalog.terms(org_id, "2026-11-01T00:00:00+11:00"))["version"] == 2


async def test_readers_see_published_prices_and_no_drafts(catalog: Catalog) -> None:
    _, model_id, plan_id = await assigned_org(catalog)
    await catalog.ask("DELETE", f"/catalog/plans/{plan_id}/skus/sms")
    draft = await catalog.plan(model_id, {"sms": PER_UNIT}, is_published=False)
    reader = catalog.client.auth(roles=["User"], org_id=await catalog.org())
    status, answer = await catalog.ask("GET", f"/catalog/plans/{plan_id}", headers=reader)
    assert (status, list(answer["skus"]), answer["draft_version"]) == (200, ["sms"], None)
    assert (await catalog.ask("GET", f"/catalog/plans/{draft}", headers=reader))[0] == 404
    status, answer = await catalog.ask("GET", "/catalog/plans", headers=reader)
    assert [plan["plan_id"] for plan in answer["items"]] == [plan_id]
    assert (await catalog.ask("GET", f"/catalog/plans/{plan_id}"))[1]["skus"] == {}


async def test_overrides_replace_the_plans_members(catalog: Catalog) -> None:
    org_id, _, plan_id = await assigned_org(catalog, {"sms": GRADUATED})
    path = f"/catalog/orgs/{org_id}/entitlements/{plan_id}"
    body = {
        "overrides": {"sms": {"included_qty": 500}, "mail": {"overage_price": "0.002"}},
        "apply": "immediate",
    }
    status, answer = await catalog.ask("PUT", path, body)
    assert (status, answer["effective_at"]) == (200, NOVEMBER)
    assert answer["overrides"] == {"sms": {"included_qty": "500"}, "mail": {"overage_price": "0.002"}}
    skus = (await catalog.terms(org_id))["skus"]
    assert (skus["sms"]["included_qty"], skus["sms"]["tiers"]["mode"]) == ("500", "graduated")
    assert skus["mail"]["overage_price"] == "0.002"


async def test_an_override_is_rounded_up_to_a_periods_start(catalog: Catalog) -> None:
    org_id, _, plan_id = await assigned_org(catalog)
    path = f"/catalog/orgs/{org_id}/entitlements/{plan_id}"
    body = {"overrides": {"sms": {"included_qty": 7}}, "effective_at": "2026-12-05T00:00:00Z"}
    _, answer = await catalog.ask("PUT", path, body)
    assert answer["effective_at"] == "2026-12-31T13:00:00.000000Z"
    assert (await catalog.terms(org_id, "2026-12-30T00:00:00Z"))["skus"]["sms"]["included_qty"] == "100"
    assert (await catalog.terms(org_id, "2027-01-01T00:00:00Z"))["skus"]["sms"]["included_qty"] == "7"


@pytest.mark.parametrize(
    ("body", "pointer", "code"),
    [
        ({"overrides": {"nope": {"included_qty": 1}}}, "/overrides/nope", "unknown_sku"),
        ({"overrides": {"sms": {"included_qty": None}}}, "/overrides/sms/included_qty", "required"),
        (
            {"overrides": {"sms": {"tiers": {"mode": "volume", "tiers": []}}}},
            "/overrides/sms/tiers/tiers",
            "no_open_end",
        ),
        ({"overrides": {"sms": {"tiers": None}}}, "/overrides/sms/overage_price", "required"),
        ({"effective_at": "2026-12-05T00:00:30Z"}, "/effective_at", "not_a_whole_minute"),
        ({"effective_at": "2026-08-31T00:00:00Z", "apply": "immediate"}, "/effective_at", "too_far_back"),
    ],
)
async def test_a_malformed_override_is_refused_with_a_pointer(
    catalog: Catalog, body: dict[str, Any], pointer: str, code: str
) -> None:
    org_id, _, plan_id = await assigned_org(catalog)
    status, answer = await catalog.ask("PUT", f"/catalog/orgs/{org_id}/entitlements/{plan_id}", body)
    assert status == 422
    assert (answer["errors"][0]["pointer"], answer["errors"][0]["code"]) == (pointer, code)


async def test_a_move_counts_from_the_next_period(catalog: Catalog) -> None:
    org_id, _, _ = await assigned_org(catalog)
    await catalog.org(org_id, 2, default_timezone="Pacific/Auckland", country="NZ")
    now, later = await catalog.terms(org_id), await catalog.terms(org_id, "2026-12-10T00:00:00Z")
    assert now["skus"]["sms"]["tax_rate"] == "0.1"
    assert later["skus"]["sms"]["tax_rate"] is None
    last = (await catalog.announced(OrgTermsAssigned))[-1].assignments[-1]
    assert (last.time_zone, last.retail_key) == ("Pacific/Auckland", "AUD/NZ")
    await catalog.org(org_id, 2, default_timezone="Pacific/Auckland", country="NZ")
    assert len(await catalog.announced(OrgTermsAssigned)) == 2


async def test_a_new_retail_price_counts_from_the_next_period(catalog: Catalog) -> None:
    org_id, _, _ = await assigned_org(catalog)
    await catalog.put_sku("mail", retail="0.5")
    assert (await catalog.terms(org_id))["skus"]["mail"]["overage_price"] == "0.01"
    assert (await catalog.terms(org_id, "2026-12-10T00:00:00Z"))["skus"]["mail"]["overage_price"] == "0.5"


async def test_a_new_sku_has_its_retail_price_at_once(catalog: Catalog) -> None:
    org_id, _, _ = await assigned_org(catalog)
    await catalog.put_sku("push", retail="0.001")
    terms = await catalog.terms(org_id, "2026-11-01T00:00:00+11:00")
    assert terms["skus"]["push"]["overage_price"] == "0.001"


async def test_a_tax_rate_counts_from_its_instant(catalog: Catalog) -> None:
    org_id, _, _ = await assigned_org(catalog)
    body = {"tax_code": "GST", "jurisdiction": "AU", "rate": "0.125", "effective_at": "2026-11-20T00:00:00Z"}
    assert (await catalog.ask("PUT", "/catalog/tax-rates", body))[0] == 201
    assert (await catalog.ask("PUT", "/catalog/tax-rates", body))[0] == 200
    before = await catalog.terms(org_id, "2026-11-19T23:59:59Z")
    after = await catalog.terms(org_id, "2026-11-20T00:00:00Z")
    for sku in ("sms", "mail"):
        assert before["skus"][sku]["tax_rate"] == "0.1"
        assert after["skus"][sku]["tax_rate"] == "0.125"
    status, answer = await catalog.ask(
        "PUT", "/catalog/tax-rates", body | {"effective_at": "2026-10-01T00:00:00Z"}
    )
    assert (status, answer["code"]) == (422, "effective_in_past")


async def test_terms_of_another_tenant_are_hidden_and_a_key_needs_its_scope(catalog: Catalog) -> None:
    org_id, _, _ = await assigned_org(catalog)
    path = f"/catalog/orgs/{org_id}/terms"
    stranger = catalog.client.auth(roles=["Admin"], org_id=await catalog.org())
    assert (await catalog.ask("GET", path, headers=stranger))[0] == 404
    for scope, expected in (("catalog:read", 200), ("metering:write", 403)):
        key = await catalog.client.api_key(org_id, [scope])
        assert (await catalog.ask("GET", path, headers={"Authorization": f"Bearer {key}"}))[0] == expected
    admin = catalog.client.auth(roles=["Admin"], org_id=org_id)
    body = {"model_id": str(new_id()), "plan_id": str(new_id())}
    assert (await catalog.ask("PUT", f"/catalog/orgs/{org_id}/business-model", body, headers=admin))[0] == 403


async def test_every_change_leaves_its_audit_entry_with_the_actor(catalog: Catalog) -> None:
    org_id, _, plan_id = await assigned_org(catalog)
    rows = await catalog.client.context.pool.fetch(
        "SELECT entity, entity_id, org_id, actor, action FROM audit_entry"
    )
    found = {(row["entity"], row["entity_id"]) for row in rows}
    assert {("org_business_model", str(org_id)), ("org_entitlement", f"{org_id}/{plan_id}")} <= found
    assert ("plan_sku", f"{plan_id}/sms") in found
    assert {row["actor"].split(":")[0] for row in rows if row["entity"] != "tax_rate"} == {"user"}


async def test_more_organisations_than_a_batch_are_resolved_by_the_job(catalog: Catalog) -> None:
    object.__setattr__(catalog.client.context.settings, "resolve_batch", 1)
    first, model_id, plan_id = await assigned_org(catalog)
    second = await catalog.org()
    await catalog.assign(second, model_id, plan_id)
    await catalog.ask("PUT", f"/catalog/plans/{plan_id}/skus/sms", PER_UNIT | {"overage_price": "0.5"})
    await catalog.publish(plan_id)
    async with catalog.client.context.begin("system:catalog") as tx:
        await orgs.lock_inputs(tx, alone=False)
        assert [await flows.resolve_due(tx) for _ in range(2)] == [1, 0]
    versions = {
        (await catalog.terms(org_id, "2026-12-10T00:00:00Z"))["version"] for org_id in (first, second)
    }
    assert versions == {2}


async def test_the_same_wish_twice_announces_once(catalog: Catalog) -> None:
    org_id, model_id, plan_id = await assigned_org(catalog)
    await catalog.assign(org_id, model_id, plan_id)
    assert len(await catalog.announced(OrgTermsAssigned)) == 1


async def test_organisations_assigned_at_once_while_a_version_is_published_all_end_on_it(
    catalog: Catalog,
) -> None:
    _, model_id, plan_id = await assigned_org(catalog)
    await catalog.ask("PUT", f"/catalog/plans/{plan_id}/skus/sms", PER_UNIT | {"overage_price": "0.5"})
    made = [await catalog.org() for _ in range(8)]
    await asyncio.gather(
        *(catalog.assign(org_id, model_id, plan_id) for org_id in made[:4]),
        catalog.publish(plan_id),
        catalog.put_sku("mail", retail="0.7"),
        *(catalog.assign(org_id, model_id, plan_id) for org_id in made[4:]),
    )
    for org_id in made:
        assert (await catalog.terms(org_id, "2026-12-10T00:00:00Z"))["version"] == 2
    facts = await catalog.announced(OrgTermsAssigned)
    keys = [(fact.org_id, fact.version) for fact in facts]
    assert len(keys) == len(set(keys))
    hashes = [fact.terms_hash for fact in await catalog.announced(TermsDefined)]
    assert len(hashes) == len(set(hashes))


async def test_two_first_plans_at_once_leave_one_in_force(catalog: Catalog) -> None:
    await catalog.put_sku("sms")
    model_id = await catalog.model()
    plans = [await catalog.plan(model_id, {"sms": PER_UNIT | {"overage_price": str(n)}}) for n in range(3)]
    org_id = await catalog.org()
    answers = await asyncio.gather(*(catalog.assign(org_id, model_id, plan_id) for plan_id in plans))
    assert sorted(answer["effective_at"] for answer in answers) == [NOVEMBER, DECEMBER, DECEMBER]
    (first,) = [answer["plan_id"] for answer in answers if answer["effective_at"] == NOVEMBER]
    assert (await catalog.terms(org_id))["plan_id"] == first
    newest = (await catalog.announced(OrgTermsAssigned))[-1]
    assert [step.effective_at.month for step in newest.assignments] == [10, 11]


async def test_a_rebuilt_reader_gets_every_fact_again_page_by_page(catalog: Catalog) -> None:
    await assigned_org(catalog)
    lists = handlers.owned
    async with catalog.client.context.begin("system:catalog") as tx:
        for entity, fact in (
            ("sku", SkuChanged),
            ("terms", TermsDefined),
            ("org_terms", OrgTermsAssigned),
            ("retail_terms", RetailTermsAssigned),
        ):
            sent = {one.entity_id: one for one in await catalog.announced(fact)}
            again: list[Any] = []
            while page := await lists[entity](tx, again[-1].entity_id if again else None, 1):
                again += page
            assert {one.entity_id: one for one in again} == sent


async def test_an_override_reaches_back_only_while_nothing_there_is_closed(catalog: Catalog) -> None:
    org_id, _, plan_id = await assigned_org(catalog)
    path = f"/catalog/orgs/{org_id}/entitlements/{plan_id}"
    october = {
        "overrides": {"sms": {"included_qty": 7}},
        "effective_at": "2026-10-05T00:00:00Z",
        "apply": "immediate",
    }
    assert (await catalog.ask("PUT", path, october))[0] == 200
    at = datetime.fromisoformat("2026-10-31T13:00:00+00:00")
    closed = PeriodClosed(
        version=1, org_id=org_id, period="2026-10", starts_at=at, ends_at=at, closed_at=at, charges=0
    )
    await catalog.client.seed(closed)

    status, answer = await catalog.ask("PUT", path, october)
    september = {**october, "effective_at": "2026-09-05T00:00:00Z"}
    november = {**october, "effective_at": "2026-11-03T00:00:00Z"}

    assert (status, answer["code"]) == (409, "period_closed")
    assert (await catalog.ask("PUT", path, september))[1]["code"] == "period_closed"
    assert (await catalog.ask("PUT", path, november))[0] == 200
