"""HTTP door of the estimator."""

from __future__ import annotations

from decimal import Decimal
from typing import Annotated
from uuid import UUID

from aiohttp import web
from pydantic import BeforeValidator, Field

from eb_contracts.errors import NotFound
from eb_kit.access import caller, reach
from eb_kit.inputs import Digits, Input, Money, Quantity, Text, View
from eb_kit.service import CONTEXT
from eb_kit.tx import begin
from eb_kit.web import Routes, ok, read_body

from . import flows
from .domain.errors import (
    CurrenciesDiffer,
    EstimateImpossible,
    EstimateTooLarge,
    NoTerms,
    PlanNotPublished,
    TermsNotHere,
)
from .domain.estimates import Inputs

routes = Routes("estimator")

MOST_SKUS = 500
MOST_LEADS = 1_000_000_000
UsesPerLead = Annotated[Decimal, BeforeValidator(Digits(18, 18))]


class EstimateBody(Input):
    """What to estimate: `skus` says how often each SKU is used per lead.

    The usage so far in the running period counts before it if `from_current_usage` is set. `plan_id` asks for the
    terms that the organisation would have on that plan, instead of its own.
    """

    org_id: UUID
    project_id: UUID | None = None
    skus: Annotated[dict[Annotated[str, Text(1, 128)], UsesPerLead], Field(max_length=MOST_SKUS)]
    leads: Annotated[int, Field(ge=0, le=MOST_LEADS)]
    from_current_usage: bool = False
    plan_id: UUID | None = None


class TierView(View):
    """One row of a line's sum: quantity × unit_price + flat_fee = amount, exact.

    For package the quantity counts packages; for percentages it is money and the unit price a rate.
    """

    tier: int
    above: Quantity
    up_to: Quantity | None
    quantity: Quantity
    unit_price: Quantity
    flat_fee: Quantity
    amount: Quantity


class LineView(View):
    """One SKU: `included` and `overage` are quantities. The tiers' amounts, cut by `limit` and rounded,
    less what usage so far costs `already`, are `total`.
    """

    sku: str
    quantity: Quantity
    included: Quantity
    overage: Quantity
    already: Money
    total: Money
    tax: Money
    limit: str | None
    terms_hash: str
    tiers: list[TierView]


class BaseLineView(View):
    """A base fee of the period, whether anything is used or not."""

    sku: str
    total: Money
    tax: Money
    terms_hash: str


class EstimateView(View):
    """An estimate: `grand_total` is `base` and all totals, before tax; `base` is the sum of `base_lines`."""

    currency: str
    base: Money
    base_lines: list[BaseLineView]
    lines: list[LineView]
    grand_total: Money
    tax_total: Money
    terms_hash: str


@routes.post(
    "/pricing/estimate",
    goes_on="a question: nothing is changed",
    body=EstimateBody,
    answer=EstimateView,
    idempotency="none",
    errors=(EstimateImpossible, EstimateTooLarge, NoTerms, TermsNotHere, CurrenciesDiffer, PlanNotPublished),
)
async def estimate_usage(request: web.Request) -> web.Response:
    """Estimate what usage costs in the running period, as at its close; the same question, the same bytes.

    422 for a SKU that is unknown or that nothing prices, pointing at it. With `plan_id` 404 for a plan that
    is unknown, 409 `plan_not_published`.
    """
    body = await read_body(request, EstimateBody)
    await reach(request, body.org_id)
    context = request.app[CONTEXT]
    if body.project_id is not None:
        await flows.must_own_project(context, body.org_id, body.project_id)
    inputs = Inputs(
        body.org_id, body.project_id, body.skus, body.leads, body.from_current_usage, body.plan_id
    )
    try:
        return await _answer(request, inputs)
    except NoTerms:
        await flows.wait_for_terms(context, body.org_id)
    except (NotFound, PlanNotPublished):
        if body.plan_id is not None:
            await flows.wait_for_plan(context, body.plan_id, body.org_id)
    return await _answer(request, inputs)


async def _answer(request: web.Request, inputs: Inputs) -> web.Response:
    sees_drafts = caller(request).has_role("Operator")
    async with begin(request) as tx:
        found = await flows.answer(tx, inputs, sees_drafts=sees_drafts)
    return ok(EstimateView.model_validate(found))
