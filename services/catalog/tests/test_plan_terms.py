"""What is announced of plans, so that they can be compared (docs/rules/catalog.md, Terms of plans)."""

from __future__ import annotations

from eb_catalog import flows
from eb_catalog.store import orgs, plan_terms
from eb_contracts.catalog import OrgTermsAssigned, PlanTermsDefined, RetailTermsAssigned, TermsDefined

from .conftest import Catalog

PRICE = {"included_qty": "0", "overage_price": "0.15"}


async def facts(catalog: Catalog) -> list[PlanTermsDefined]:
    return await catalog.announced(PlanTermsDefined)


async def test_a_plan_is_announced_as_a_draft_and_with_its_terms_once_published(catalog: Catalog) -> None:
    await catalog.put_sku()
    plan_id = await catalog.plan(await catalog.model(), {"sms": PRICE})

    draft, published = await facts(catalog)

    assert (draft.status, draft.plan_version, draft.places) == ("draft", 0, {})
    assert (published.status, published.plan_version, published.currency) == ("published", 1, "AUD")
    assert str(published.plan_id) == published.entity_id == plan_id
    assert sorted(published.places) == ["*", "AU"]
    assert [one.version for one in (draft, published)] == [1, 2]


async def test_an_organisation_that_is_put_on_the_plan_has_those_very_terms(catalog: Catalog) -> None:
    await catalog.put_sku()
    model = await catalog.model()
    plan_id = await catalog.plan(model, {"sms": PRICE})
    home, abroad = await catalog.org(), await catalog.org(country="NZ")

    for org_id in (home, abroad):
        await catalog.assign(org_id, model, plan_id)

    places = (await facts(catalog))[-1].places
    here, there = (fact.assignments[-1] for fact in await catalog.announced(OrgTermsAssigned))
    assert here.hashes == places["AU"].assignments[-1].hashes
    assert there.hashes == places["*"].assignments[-1].hashes
    assert here.hashes != there.hashes
    assert here.effective_at >= places["AU"].assignments[0].effective_at


async def test_terms_and_retail_defaults_of_a_plan_are_announced_before_anybody_has_it(
    catalog: Catalog,
) -> None:
    await catalog.put_sku()
    await catalog.put_sku("fax", retail="0.50")
    await catalog.plan(await catalog.model(), {"sms": PRICE})

    defined = {fact.terms_hash for fact in await catalog.announced(TermsDefined)}
    retail = {fact.retail_key: fact for fact in await catalog.announced(RetailTermsAssigned)}
    fact = (await facts(catalog))[-1]

    assert {place.retail_key for place in fact.places.values()} == retail.keys() == {"AUD/*", "AUD/AU"}
    assert all("fax" in one.assignments[-1].hashes for one in retail.values())
    named = {
        terms_hash
        for place in (*fact.places.values(), *retail.values())
        for step in place.assignments
        for terms_hash in step.hashes.values()
    }
    assert named <= defined


async def test_overrides_of_a_plan_are_resolved_for_an_organisation_that_is_not_on_it(
    catalog: Catalog,
) -> None:
    await catalog.put_sku()
    model = await catalog.model()
    plan_id, org_id = await catalog.plan(model, {"sms": PRICE}), await catalog.org()
    overrides = {"overrides": {"sms": {"overage_price": "0.01"}}}

    await catalog.ask("PUT", f"/catalog/orgs/{org_id}/entitlements/{plan_id}", overrides)

    agreed = (await facts(catalog))[-1]
    assert (str(agreed.plan_id), agreed.org_id) == (plan_id, org_id)
    await catalog.assign(org_id, model, plan_id)
    assigned = (await catalog.announced(OrgTermsAssigned))[-1]
    assert assigned.assignments[-1].hashes == agreed.places["AU"].assignments[-1].hashes


async def test_new_versions_tax_rates_and_prices_are_announced_and_nothing_twice(catalog: Catalog) -> None:
    await catalog.put_sku()
    plan_id = await catalog.plan(await catalog.model(), {"sms": PRICE})
    counts = [len(await facts(catalog))]

    async def after(method: str, path: str, body: object = None) -> None:
        status, answer = await catalog.ask(method, path, body)
        assert status in (200, 201), answer
        counts.append(len(await facts(catalog)))

    rate = {"tax_code": "GST", "jurisdiction": "NZ", "rate": "0.15", "effective_at": "2026-12-01T00:00:00Z"}
    await after("PUT", "/catalog/tax-rates", rate)
    await after("PUT", "/catalog/tax-rates", rate)
    await after("PUT", f"/catalog/plans/{plan_id}/skus/sms", PRICE | {"overage_price": "0.16"})
    await after("POST", f"/catalog/plans/{plan_id}:publish")
    await after("PATCH", f"/catalog/plans/{plan_id}", {"notes": "x"})
    await after("PATCH", f"/catalog/plans/{plan_id}", {"status": "retired"})

    assert counts == [2, 3, 3, 3, 4, 4, 5]
    last = (await facts(catalog))[-1]
    assert (last.status, last.plan_version, sorted(last.places)) == ("retired", 2, ["*", "AU", "NZ"])
    assert len(last.places["NZ"].assignments) == 2


async def test_a_snapshot_tells_every_plan_as_it_was_announced_last(catalog: Catalog) -> None:
    await catalog.put_sku()
    model = await catalog.model()
    made = [await catalog.plan(model, {"sms": PRICE}, is_published=n > 0) for n in range(3)]
    last = {fact.entity_id: fact for fact in await facts(catalog)}

    async with catalog.client.context.begin("system:test") as tx:
        first = await plan_terms.list_plan_facts(tx, None, 2)
        rest = await plan_terms.list_plan_facts(tx, first[-1].entity_id, 2)

    assert [fact.entity_id for fact in (*first, *rest)] == sorted(made)
    assert [last[fact.entity_id] for fact in (*first, *rest)] == [*first, *rest]


async def test_plans_from_before_are_resolved_by_the_job(catalog: Catalog) -> None:
    """As after an upgrade: their rows are due, and nothing was ever announced."""
    await catalog.put_sku()
    plan_id = await catalog.plan(await catalog.model(), {"sms": PRICE})
    async with catalog.client.context.begin("system:test") as tx:
        await tx.execute("UPDATE plan_terms_state SET version = 0, body = NULL, due_at = $1", tx.now)

    async with catalog.client.context.begin("system:catalog") as tx:
        await orgs.lock_inputs(tx, alone=False)
        taken = [await flows.resolve_plans(tx), await flows.resolve_plans(tx)]

    assert taken == [1, 0]
    assert ((await facts(catalog))[-1].entity_id, (await facts(catalog))[-1].version) == (plan_id, 1)


async def test_a_changed_sku_is_resolved_in_the_plans_and_overrides_that_name_it(catalog: Catalog) -> None:
    for sku in ("sms", "fax", "page"):
        await catalog.put_sku(sku)
    model = await catalog.model()
    await catalog.plan(model, {"fax": PRICE})
    plan_id, org_id = await catalog.plan(model, {"sms": PRICE}), await catalog.org()
    overrides = {"overrides": {"page": {"overage_price": "0.01"}}}
    await catalog.ask("PUT", f"/catalog/orgs/{org_id}/entitlements/{plan_id}", overrides)
    count = len(await facts(catalog))

    await catalog.put_sku("page", tax_code="OTHER")
    await catalog.put_sku("sms", tax_code="OTHER")

    told = [fact.entity_id for fact in (await facts(catalog))[count:]]
    assert told == [f"{plan_id}/{org_id}", plan_id, f"{plan_id}/{org_id}"]
