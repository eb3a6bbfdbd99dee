"""Bus doors: organisations that move to another time zone or country get their terms anew."""

from __future__ import annotations

from collections.abc import Sequence

from eb_contracts.auth import OrgChanged
from eb_contracts.catalog import SkuChanged
from eb_contracts.pricing import PeriodClosed
from eb_kit.bus import Handlers
from eb_kit.tx import Tx

from . import flows
from .store import orgs, plan_terms, products

handlers = Handlers()
handlers.keeps(PeriodClosed)


@handlers.keeps(OrgChanged)
async def follow_moves(tx: Tx, facts: list[OrgChanged]) -> None:
    """Assign terms anew from the next period on where the time zone or the country is another one.

    Twice is once (the timeline says so already); order is free (only newer facts come here).
    """
    await flows.follow_moves(tx, facts)


async def list_sku_facts(tx: Tx, after: str | None, limit: int) -> Sequence[SkuChanged]:
    """Give the SKUs' facts in the order of names."""
    return [product.fact() for product in await products.list_products_after(tx, after, limit)]


handlers.owns("sku", list_sku_facts)
handlers.owns("terms", orgs.list_terms_facts)
handlers.owns("org_terms", orgs.list_org_facts)
handlers.owns("retail_terms", orgs.list_retail_facts)
handlers.owns("plan_terms", plan_terms.list_plan_facts)
