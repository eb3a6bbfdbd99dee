"""SKUs and tax rates."""

from __future__ import annotations

import re

from aiohttp import web

from eb_contracts.errors import NotFound
from eb_kit.inputs import Page
from eb_kit.tx import begin
from eb_kit.web import answer, ok, page_of, path_text, read_body, read_cursor, read_query

from .. import flows
from ..domain.errors import PastRate, SkuFixed
from ..domain.products import Product
from ..domain.terms import TaxRate
from ..store import orgs, products
from .routes import routes
from .shapes import PutSku, PutTaxRate, SkuView, TaxRateList, TaxRateView

SKU_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}\Z")


@routes.put("/catalog/skus/{sku}", body=PutSku, answer=SkuView, other_statuses=(201,), errors=(SkuFixed,))
async def put_sku(request: web.Request) -> web.Response:
    """Create or change a SKU; 201 if new. Price and tax code of a known one change from the next period.

    409 `sku_fixed` for another type or unit.
    """
    sku = sku_of(request)
    body = await read_body(request, PutSku)
    async with begin(request) as tx:
        await orgs.lock_inputs(tx, alone=True)
        known = await products.find_product(tx, sku)
        wanted = Product(
            sku=sku,
            version=known.version + 1 if known else 1,
            created_at=known.created_at if known else tx.now,
            **body.model_dump(),
        )
        await flows.put_product(tx, known, wanted)
    return answer(SkuView.of(wanted), 200 if known else 201)


def sku_of(request: web.Request) -> str:
    """Give the SKU in the path; NotFound for what can't be one."""
    sku = path_text(request, "sku")
    if not SKU_NAME.match(sku):
        raise NotFound
    return sku


@routes.get("/catalog/skus/{sku}", answer=SkuView)
async def get_sku(request: web.Request) -> web.Response:
    """Give a SKU."""
    async with begin(request) as tx:
        return ok(SkuView.of(await products.get_product(tx, path_text(request, "sku"))))


@routes.get("/catalog/skus", query=Page, answer=list[SkuView])
async def list_skus(request: web.Request) -> web.Response:
    """List SKUs, the newest first."""
    query = read_query(request, Page)
    after = read_cursor(request, query)
    before = (after["created_at"], after["sku"]) if after else None
    async with begin(request) as tx:
        found = await products.list_products(tx, before, query.limit + 1)
    views = [SkuView.of(product) for product in found]
    return page_of(request, query, views, lambda v: {"created_at": v.created_at, "sku": v.sku})


@routes.put(
    "/catalog/tax-rates", body=PutTaxRate, answer=TaxRateView, other_statuses=(201,), errors=(PastRate,)
)
async def put_tax_rate(request: web.Request) -> web.Response:
    """Set a tax rate from an instant on; 201 if new.

    422 `effective_in_past` where a rate is in force already and the instant lies before this minute.
    """
    body = await read_body(request, PutTaxRate)
    rate = TaxRate(**body.model_dump())
    async with begin(request) as tx:
        await orgs.lock_inputs(tx, alone=True)
        is_new = await flows.put_rate(tx, rate)
    return answer(TaxRateView.of(rate), 201 if is_new else 200)


@routes.get("/catalog/tax-rates", query=TaxRateList, answer=list[TaxRateView])
async def list_tax_rates(request: web.Request) -> web.Response:
    """List tax rates, the latest to come into force first."""
    query = read_query(request, TaxRateList)
    after = read_cursor(request, query)
    before = (after["effective_at"], after["tax_code"], after["jurisdiction"]) if after else None
    async with begin(request) as tx:
        found = await products.page_rates(tx, query.tax_code, query.jurisdiction, before, query.limit + 1)
    return page_of(
        request,
        query,
        [TaxRateView.of(rate) for rate in found],
        lambda v: {"effective_at": v.effective_at, "tax_code": v.tax_code, "jurisdiction": v.jurisdiction},
    )
