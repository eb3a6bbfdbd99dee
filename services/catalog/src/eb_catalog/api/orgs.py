"""What organisations have: entitlements, business model, resolved terms."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

from aiohttp import web

from eb_contracts.errors import NotFound
from eb_kit.access import reach
from eb_kit.inputs import Page
from eb_kit.tx import Tx, begin
from eb_kit.web import answer, ok, page_of, path_uuid, read_body, read_cursor, read_query

from .. import flows
from ..domain.errors import CurrencyChangeImmediate, PeriodIsClosed, PlanNotPublished, Unacceptable
from ..domain.in_force import in_force
from ..domain.products import Model, Plan
from ..domain.requests import must_know, override_from
from ..store import orgs, plans, products
from .routes import routes
from .shapes import (
    EntitlementView,
    OrgModelView,
    PutEntitlement,
    PutOrgModel,
    TermsAt,
    TermsView,
    sku_terms,
)


@routes.put(
    "/catalog/orgs/{org_id}/business-model",
    body=PutOrgModel,
    answer=OrgModelView,
    other_statuses=(201,),
    errors=(PlanNotPublished, CurrencyChangeImmediate),
)
async def put_org_model(request: web.Request) -> web.Response:
    """Put an organisation on a plan; 201 the first time, which holds for the whole running period.

    A later one holds from the next period unless `apply` is immediate. 409 `plan_not_published`,
    `currency_change_immediate`.
    """
    org_id = path_uuid(request, "org_id")
    body = await read_body(request, PutOrgModel)
    await reach(request, org_id)
    async with begin(request) as tx:
        await orgs.lock_inputs(tx, alone=False)
        model, plan = await _wanted(tx, body)
        assigned, is_new = await flows.assign(
            tx, org_id, model, plan, body.notes, is_immediate=body.apply == "immediate"
        )
    return answer(OrgModelView.of(assigned), 201 if is_new else 200)


async def _wanted(tx: Tx, body: PutOrgModel) -> tuple[Model, Plan]:
    model = await plans.find_model(tx, body.model_id)
    if model is None or model.status == "retired":
        raise Unacceptable.at("/model_id", "unknown_model", "There is no such active business model.")
    plan_id = body.plan_id or model.default_plan_id
    plan = await plans.find_plan(tx, plan_id) if plan_id else None
    if plan is None or plan.model_id != model.model_id:
        raise Unacceptable.at("/plan_id", "unknown_plan", "The model has no such plan.")
    if plan.status != "published":
        raise PlanNotPublished
    return model, plan


@routes.get("/catalog/orgs/{org_id}/business-model", answer=OrgModelView)
async def get_org_model(request: web.Request) -> web.Response:
    """Give the plan that an organisation was put on last."""
    org_id = path_uuid(request, "org_id")
    await reach(request, org_id)
    async with begin(request) as tx:
        return ok(OrgModelView.of(await orgs.get_org_model(tx, org_id)))


@routes.put(
    "/catalog/orgs/{org_id}/entitlements/{plan_id}",
    body=PutEntitlement,
    answer=EntitlementView,
    other_statuses=(201,),
    errors=(PeriodIsClosed, PlanNotPublished),
)
async def put_entitlement(request: web.Request) -> web.Response:
    """Set an organisation's overrides of a plan; 201 if new. They count while it is on that plan.

    422 points at each fault of an override; `too_far_back` beyond two periods. 409 `period_closed` where a period
    from then on is closed: it changes by a re-rate only.
    """
    org_id, plan_id = path_uuid(request, "org_id"), path_uuid(request, "plan_id")
    body = await read_body(request, PutEntitlement)
    overrides = _overrides(body)
    await reach(request, org_id)
    async with begin(request) as tx:
        await orgs.lock_inputs(tx, alone=False)
        plan = await plans.get_plan(tx, plan_id)
        if not plan.version:
            raise PlanNotPublished
        must_know(await products.list_unknown(tx, list(overrides)))
        entitlement, is_new = await flows.override(
            tx, org_id, plan_id, overrides, body.effective_at, is_immediate=body.apply == "immediate"
        )
    return answer(EntitlementView.of(entitlement), 201 if is_new else 200)


def _overrides(body: PutEntitlement) -> dict[str, dict[str, Any]]:
    kept = {}
    for sku, override in body.overrides.items():
        sent = {name: getattr(override, name) for name in override.model_fields_set}
        kept[sku] = override_from(sent, override.tiers.shape() if override.tiers else None, sku)
    return kept


@routes.get("/catalog/orgs/{org_id}/entitlements/{plan_id}", answer=EntitlementView)
async def get_entitlement(request: web.Request) -> web.Response:
    """Give an organisation's entitlement to a plan."""
    org_id, plan_id = path_uuid(request, "org_id"), path_uuid(request, "plan_id")
    await reach(request, org_id)
    async with begin(request) as tx:
        entitlement = await orgs.find_entitlement(tx, org_id, plan_id)
    if entitlement is None:
        raise NotFound
    return ok(EntitlementView.of(entitlement))


@routes.get("/catalog/orgs/{org_id}/entitlements", query=Page, answer=list[EntitlementView])
async def list_entitlements(request: web.Request) -> web.Response:
    """List an organisation's entitlements, the latest to come into force first."""
    org_id = path_uuid(request, "org_id")
    query = read_query(request, Page)
    after = read_cursor(request, query)
    await reach(request, org_id)
    before = (after["effective_at"], after["plan_id"]) if after else None
    async with begin(request) as tx:
        found = await orgs.list_entitlements(tx, org_id, before, query.limit + 1)
    views = [EntitlementView.of(entitlement) for entitlement in found]
    return page_of(request, query, views, lambda v: {"effective_at": v.effective_at, "plan_id": v.plan_id})


@routes.get("/catalog/orgs/{org_id}/terms", query=TermsAt, answer=TermsView)
async def get_terms(request: web.Request) -> web.Response:
    """Give what an organisation pays at an instant: its plan's SKUs, overrides on top, retail for the rest."""
    org_id = path_uuid(request, "org_id")
    query = read_query(request, TermsAt)
    await reach(request, org_id)
    async with begin(request) as tx:
        return ok(await _terms_at(tx, org_id, query.at or tx.now))


async def _terms_at(tx: Tx, org_id: UUID, instant: datetime) -> TermsView:
    announced = await orgs.get_announced(tx, org_id)
    keys = {assignment.retail_key for assignment in announced.assignments}
    found = in_force(announced, await orgs.list_retail(tx, keys), instant)
    bodies = await orgs.list_terms(tx, {*found.priced_by.values(), *found.taxed_by.values()})
    return TermsView(
        org_id=org_id,
        plan_id=found.plan_id,
        version=found.version,
        period=found.period,
        currency=found.currency,
        skus={
            sku: sku_terms(terms_hash, bodies[terms_hash], bodies[found.taxed_by[sku]].tax_rate)
            for sku, terms_hash in found.priced_by.items()
        },
    )
