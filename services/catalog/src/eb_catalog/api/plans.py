"""Plans: drafts, their SKUs, and publishing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from uuid import UUID

from aiohttp import web

from eb_contracts.errors import NotFound
from eb_contracts.ids import new_id
from eb_kit.access import caller
from eb_kit.tx import Tx, begin
from eb_kit.web import answer, created, no_content, ok, page_of, path_uuid, read_body, read_cursor, read_query

from .. import flows
from ..domain.errors import PlanNotPublished, Unacceptable
from ..domain.products import Plan, Prices
from ..domain.requests import price_from
from ..domain.terms import Price
from ..store import orgs, plans, products
from .products import sku_of
from .routes import routes
from .shapes import (
    CreatePlan,
    PatchPlan,
    PlanList,
    PlanSkuView,
    PlanView,
    Publish,
    PublishedView,
    PutPlanSku,
    plain_price,
)


def sees_drafts(request: web.Request) -> bool:
    """Tell whether the caller sees plans that aren't published."""
    return caller(request).has_role("Operator")


async def show(tx: Tx, request: web.Request, found: Sequence[Plan]) -> list[PlanView]:
    """Show plans with their draft's prices to operators, with the published ones to everybody else."""
    if sees_drafts(request):
        drafts = await plans.list_drafts(tx, [plan.plan_id for plan in found])
        return [PlanView.of(plan, drafts.get(plan.plan_id, {})) for plan in found]
    keys = [(plan.plan_id, plan.version) for plan in found]
    prices: dict[tuple[UUID, int], Prices] = await plans.list_version_prices(tx, keys)
    return [
        PlanView.of(replace(plan, is_draft_open=False), prices[key])
        for plan, key in zip(found, keys, strict=True)
    ]


@routes.post("/catalog/plans", body=CreatePlan, answer=PlanView, status=201)
async def create_plan(request: web.Request) -> web.Response:
    """Create a plan, a draft without SKUs; 201 with it."""
    body = await read_body(request, CreatePlan)
    async with begin(request) as tx:
        await orgs.lock_inputs(tx, alone=False)
        if await plans.find_model(tx, body.model_id) is None:
            raise Unacceptable.at("/model_id", "unknown_model", "There is no such business model.")
        plan = Plan(
            plan_id=new_id(),
            status="draft",
            version=0,
            is_draft_open=True,
            created_at=tx.now,
            **body.model_dump(),
        )
        await plans.insert_plan(tx, plan)
        await flows.describe_plan(tx, plan)
        return tx.answer(created(PlanView.of(plan, {})))


@routes.get("/catalog/plans", query=PlanList, answer=list[PlanView])
async def list_plans(request: web.Request) -> web.Response:
    """List plans, the newest first; unpublished ones to operators only."""
    query = read_query(request, PlanList)
    after = read_cursor(request, query) or {}
    async with begin(request) as tx:
        found = await plans.list_plans(
            tx, query.model_id, not sees_drafts(request), after.get("plan_id"), query.limit + 1
        )
        views = await show(tx, request, found)
    return page_of(request, query, views, lambda v: {"plan_id": v.plan_id})


@routes.get("/catalog/plans/{plan_id}", answer=PlanView)
async def get_plan(request: web.Request) -> web.Response:
    """Give a plan with its prices."""
    async with begin(request) as tx:
        plan = await plans.get_plan(tx, path_uuid(request, "plan_id"))
        if not plan.version and not sees_drafts(request):
            raise NotFound
        return ok((await show(tx, request, [plan]))[0])


@routes.patch("/catalog/plans/{plan_id}", body=PatchPlan, answer=PlanView, errors=(PlanNotPublished,))
async def patch_plan(request: web.Request) -> web.Response:
    """Change a plan's name, tier, notes, or retire it; prices change by a new version only."""
    plan_id = path_uuid(request, "plan_id")
    body = await read_body(request, PatchPlan)
    sent = {name: getattr(body, name) for name in body.model_fields_set}
    for name in ("name", "tier", "status"):
        if name in sent and sent[name] is None:
            raise Unacceptable.at(f"/{name}", "required", "Must not be null.")
    async with begin(request) as tx:
        await orgs.lock_inputs(tx, alone=False)
        plan = await plans.lock_plan(tx, plan_id)
        if "status" in sent and not plan.version:
            raise PlanNotPublished
        changed = replace(plan, **sent)
        await plans.update_plan(tx, changed)
        if changed.status != plan.status:
            await flows.describe_plan(tx, changed)
        return ok((await show(tx, request, [changed]))[0])


@routes.put("/catalog/plans/{plan_id}/skus/{sku}", body=PutPlanSku, answer=PlanSkuView, other_statuses=(201,))
async def put_plan_sku(request: web.Request) -> web.Response:
    """Set what the plan's draft asks for a SKU; 201 if new there. The first change after a publish opens the draft.

    422 points at each fault of malformed tiers.
    """
    plan_id, sku = path_uuid(request, "plan_id"), sku_of(request)
    body = await read_body(request, PutPlanSku)
    price = price_from(body.included_qty, body.overage_price, body.tiers.shape() if body.tiers else None)
    async with begin(request) as tx:
        plan = await _open_draft(tx, plan_id)
        await products.get_product(tx, sku)
        is_new = await plans.put_plan_sku(tx, plan_id, sku, price)
    return answer(_plan_sku(plan, sku, price), 201 if is_new else 200)


def _plan_sku(plan: Plan, sku: str, price: Price) -> PlanSkuView:
    return PlanSkuView(plan_id=plan.plan_id, sku=sku, draft_version=plan.version + 1, **plain_price(price))


async def _open_draft(tx: Tx, plan_id: UUID) -> Plan:
    plan = await plans.lock_plan(tx, plan_id)
    if not plan.is_draft_open:
        plan = replace(plan, is_draft_open=True)
        await plans.update_plan(tx, plan)
    return plan


@routes.delete("/catalog/plans/{plan_id}/skus/{sku}")
async def delete_plan_sku(request: web.Request) -> web.Response:
    """Take a SKU out of the plan's draft; its retail price holds once that is published."""
    plan_id, sku = path_uuid(request, "plan_id"), sku_of(request)
    async with begin(request) as tx:
        await _open_draft(tx, plan_id)
        await plans.delete_plan_sku(tx, plan_id, sku)
    return no_content()


@routes.post("/catalog/plans/{plan_id}:publish", body=Publish, answer=PublishedView)
async def publish_plan(request: web.Request) -> web.Response:
    """Freeze the draft as the next version, for every organisation on the plan from its next period (or at once).

    The body may be left out. Without an open draft nothing changes and the version that stands is given.
    """
    plan_id = path_uuid(request, "plan_id")
    body = await read_body(request, Publish) if request.can_read_body else Publish()
    async with begin(request) as tx:
        await orgs.lock_inputs(tx, alone=True)
        plan = await plans.lock_plan(tx, plan_id)
        version = plan.version
        if plan.is_draft_open:
            version = await flows.publish(tx, plan, is_immediate=body.apply == "immediate")
        return tx.answer(ok(PublishedView(plan_id=plan_id, version=version)))
