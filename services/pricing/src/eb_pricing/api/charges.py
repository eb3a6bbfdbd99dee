"""Reading charges and counters; explaining a charge."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from aiohttp import web

from eb_contracts.errors import NotFound
from eb_contracts.money import money_text
from eb_kit.access import reach
from eb_kit.tx import Tx, begin
from eb_kit.web import ok, page_members, page_of, path_text, read_cursor, read_query
from eb_rating import from_plain
from eb_rating.base_fees import base_price

from .. import store
from ..domain.charges import KeptCharge, redo
from ..flows import guards
from .guard_shapes import BudgetView, CreditLeftView, UsagePage
from .routes import reach_list, routes
from .shapes import (
    ArithmeticView,
    BaseFeesView,
    CapView,
    ChargeQuery,
    ChargeView,
    DrawView,
    ExplainView,
    TaxView,
    TermsView,
    UsageQuery,
    UsageView,
    payable,
    usage_link,
)

MOST_BUDGETS = 200


@routes.get("/pricing/charges", query=ChargeQuery, answer=list[ChargeView])
async def list_charges(request: web.Request) -> web.Response:
    """List charges, newest first; only platform staff may leave out `org_id`."""
    query = read_query(request, ChargeQuery)
    after = read_cursor(request, query)
    await reach_list(request, query.org_id)
    filters = query.model_dump(exclude={"limit", "cursor"})
    async with begin(request) as tx:
        found = await store.list_charges(tx, filters, after, query.limit + 1)
    return page_of(request, query, [ChargeView.of(charge) for charge in found], _charge_place)


@routes.get("/pricing/usage", query=UsageQuery, answer=UsagePage)
async def list_usage(request: web.Request) -> web.Response:
    """List what was used and charged per SKU and period, newest period first; what budgets and credits have left.

    Only platform staff may leave out `org_id`; budgets and credits are shown with it only. Budgets stand as in
    `period`, or in the running one.
    """
    query = read_query(request, UsageQuery)
    after = read_cursor(request, query)
    await reach_list(request, query.org_id)
    filters = query.model_dump(exclude={"limit", "cursor"})
    async with begin(request) as tx:
        found = await store.list_usage(tx, filters, after, query.limit + 1)
        beside = await _guards(tx, query.org_id, query.period)
    page = page_members(request, query, [UsageView.of(usage) for usage in found], _usage_place)
    return ok(page | beside)


async def _guards(tx: Tx, org_id: UUID | None, period: str | None) -> dict[str, Any]:
    if org_id is None:
        return {"budgets": [], "credits": []}
    budgets = await store.list_budgets(tx, {"org_id": org_id}, None, MOST_BUDGETS)
    states = await guards.states_of(tx, budgets, period)
    left = await store.list_credit_left(tx, org_id)
    return {
        "budgets": [BudgetView.of(one).model_dump() for one in states],
        "credits": [CreditLeftView.of(one).model_dump() for one in left],
    }


@routes.get("/pricing/charges/{charge_id}/explain", answer=ExplainView)
async def explain_charge(request: web.Request) -> web.Response:
    """Tell everything behind a charge, so that a person can redo the sum from the answer alone."""
    async with begin(request) as tx:
        found = await store.find_charges(tx, path_text(request, "charge_id"))
        charge = await _first_reached(request, found)
        terms_body = await store.get_terms_body(tx, charge.terms_hash)
        cuts = await store.list_cuts_of(tx, charge)
        draws = await store.list_draws_of(tx, charge)
    caps = [CapView.of(cut, charge.currency) for cut in cuts]
    return ok(_explained(charge, terms_body, caps, [DrawView.of(draw, charge.currency) for draw in draws]))


def _explained(
    charge: KeptCharge, terms_body: dict[str, Any], caps: list[CapView], draws: list[DrawView]
) -> ExplainView:
    terms = from_plain(terms_body)
    told, tax_sums = redo(charge, terms)
    is_base = charge.kind == "base"
    return ExplainView(
        charge=ChargeView.of(charge),
        usage=usage_link(charge),
        terms=TermsView(terms_hash=charge.terms_hash, body=terms_body),
        arithmetic=None if is_base else ArithmeticView.of(told, charge, terms.minor_digits),
        base_fees=BaseFeesView.of(charge, base_price(terms) if is_base else None),
        caps=caps,
        tax=TaxView.of(tax_sums, charge),
        credits=draws,
        payable=money_text(payable(charge), charge.currency),
        trace_ids=list(charge.trace_ids),
    )


async def _first_reached(request: web.Request, charges: Sequence[KeptCharge]) -> KeptCharge:
    """Give the charge of an organisation that the caller sees: ids are unique per organisation only."""
    for charge in charges:
        try:
            await reach(request, charge.org_id)
        except NotFound:
            continue
        return charge
    raise NotFound


def _charge_place(view: ChargeView) -> dict[str, object]:
    return {"created_at": view.created_at, "charge_id": view.charge_id, "org_id": view.org_id}


def _usage_place(view: UsageView) -> dict[str, object]:
    return {"period": view.period, "org_id": view.org_id, "sku": view.sku}
