"""Budgets: made, read, changed, deleted."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from decimal import Decimal
from functools import partial
from uuid import UUID

from aiohttp import web

from eb_contracts.ids import made_at, new_id
from eb_contracts.money import minor_digits
from eb_kit.access import reach
from eb_kit.service import CONTEXT
from eb_kit.tx import Tx, begin
from eb_kit.web import created, no_content, ok, page_of, path_uuid, read_body, read_cursor, read_query

from .. import store
from ..domain.budgets import Budget, BudgetState
from ..domain.errors import BudgetExists, Unacceptable
from ..flows import guards
from .guard_shapes import BudgetQuery, BudgetView, CreateBudget, PutBudget
from .routes import reach_list, routes

WAIT_S = 2.0
POLL_S = 0.05
YOUNG_S = 10.0


@routes.post(
    "/pricing/budgets", body=CreateBudget, answer=BudgetView, status=201, errors=(BudgetExists, Unacceptable)
)
async def create_budget(request: web.Request) -> web.Response:
    """Make a budget; it starts from what was charged so far in the running period. 201 with it."""
    body = await read_body(request, CreateBudget)
    await reach(request, body.org_id)
    must_fit(body.amount, body.currency)
    if body.project_id is not None:
        await _must_be_project(request, body.project_id, body.org_id)
    async with begin(request) as tx:
        make = partial(_new, tx, body)
        state = await guards.make_budget(tx, body.org_id, body.project_id, make)
        return tx.answer(created(BudgetView.of(state)))


def _new(tx: Tx, body: CreateBudget, period: str) -> Budget:
    return Budget(
        budget_id=new_id(),
        first_period=period,
        created_at=tx.now,
        updated_at=tx.now,
        **body.model_dump(),
    )


@routes.get("/pricing/budgets", query=BudgetQuery, answer=list[BudgetView])
async def list_budgets(request: web.Request) -> web.Response:
    """List budgets, newest first; only platform staff may leave out `org_id`."""
    query = read_query(request, BudgetQuery)
    after = read_cursor(request, query)
    await reach_list(request, query.org_id)
    filters = query.model_dump(exclude={"limit", "cursor"})
    async with begin(request) as tx:
        budgets = await store.list_budgets(tx, filters, after, query.limit + 1)
        states = await guards.states_of(tx, budgets)
    return page_of(request, query, [BudgetView.of(one) for one in states], _place)


def _place(view: BudgetView) -> dict[str, object]:
    return {"budget_id": view.budget_id}


@routes.get("/pricing/budgets/{budget_id}", answer=BudgetView)
async def get_budget(request: web.Request) -> web.Response:
    """Show a budget and how it stands."""
    async with begin(request) as tx:
        budget = await store.get_budget(tx, path_uuid(request, "budget_id"))
        await reach(request, budget.org_id)
        return ok(BudgetView.of(await _state_of(tx, budget)))


async def _state_of(tx: Tx, budget: Budget) -> BudgetState:
    states: Sequence[BudgetState] = await guards.states_of(tx, [budget])
    return states[0]


@routes.put("/pricing/budgets/{budget_id}", body=PutBudget, answer=BudgetView, errors=(Unacceptable,))
async def put_budget(request: web.Request) -> web.Response:
    """Change a budget's amount, currency, thresholds and cap. What was charged stays charged."""
    body = await read_body(request, PutBudget)
    must_fit(body.amount, body.currency)
    async with begin(request) as tx:
        budget_id = path_uuid(request, "budget_id")
        await reach(request, (await store.get_budget(tx, budget_id)).org_id)
        budget = await store.lock_budget(tx, budget_id)
        _must_stay(body, budget)
        changed = body.model_dump(include={"amount", "currency", "thresholds", "hard_cap"})
        state = await guards.change_budget(tx, budget, replace(budget, updated_at=tx.now, **changed))
        return ok(BudgetView.of(state))


@routes.delete("/pricing/budgets/{budget_id}")
async def delete_budget(request: web.Request) -> web.Response:
    """Delete a budget; what its cap cut stays cut. 204."""
    async with begin(request) as tx:
        budget_id = path_uuid(request, "budget_id")
        await reach(request, (await store.get_budget(tx, budget_id)).org_id)
        await store.lock_budget(tx, budget_id)
        await store.delete_budget(tx, budget_id)
    return no_content()


def must_fit(amount: Decimal, currency: str) -> None:
    """Refuse an amount that is finer than its currency's minor unit."""
    if amount != amount.quantize(Decimal(1).scaleb(-minor_digits(currency))):
        raise Unacceptable.at("/amount", "too_fine", f"{currency} has no amounts as fine as this.")


def _must_stay(body: PutBudget, budget: Budget) -> None:
    """Refuse a change of what a budget is about."""
    for name in ("org_id", "project_id"):
        if name in body.model_fields_set and getattr(body, name) != getattr(budget, name):
            raise Unacceptable.at(f"/{name}", "fixed", "A budget stays with its organisation and project.")


async def _must_be_project(request: web.Request, project_id: UUID, org_id: UUID) -> None:
    """Refuse a project that isn't the organisation's; waits up to 2 s for one that was just made."""
    context = request.app[CONTEXT]
    born = made_at(project_id)
    is_young = born is not None and (context.clock.machine_now() - born).total_seconds() < YOUNG_S
    tries = int(WAIT_S / POLL_S) if is_young else 1
    for _ in range(tries):
        async with context.begin(actor="system:pricing") as tx:
            if await store.is_project_of(tx, project_id, org_id):
                return
        await asyncio.sleep(POLL_S if is_young else 0)
    raise Unacceptable.at("/project_id", "project_unknown", "The organisation has no such project.")
