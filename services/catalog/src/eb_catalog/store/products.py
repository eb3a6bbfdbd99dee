"""SKUs with their history, and tax rates."""

from __future__ import annotations

from datetime import datetime

import asyncpg

from eb_contracts.errors import NotFound
from eb_kit.tx import Tx

from ..domain.products import Product
from ..domain.terms import Sku, SkuStep, TaxRate

PRODUCT = "sku, type::text, unit, cost, retail, tax_code, metadata, version, created_at"


def _product(row: asyncpg.Record) -> Product:
    return Product(**row)


async def find_product(tx: Tx, sku: str) -> Product | None:
    """Give a SKU, or None."""
    row = await tx.fetchrow(f"SELECT {PRODUCT} FROM product_sku WHERE sku = $1", sku)
    return _product(row) if row else None


async def get_product(tx: Tx, sku: str) -> Product:
    """Give a SKU; raises NotFound."""
    product = await find_product(tx, sku)
    if product is None:
        raise NotFound
    return product


async def list_products(tx: Tx, before: tuple[datetime, str] | None, limit: int) -> list[Product]:
    """Give SKUs, the newest first."""
    created_at, sku = before or (None, None)
    rows = await tx.fetch(
        f"SELECT {PRODUCT} FROM product_sku WHERE $1::timestamptz IS NULL OR (created_at, sku) < ($1, $2)"
        " ORDER BY created_at DESC, sku DESC LIMIT $3",
        created_at,
        sku,
        limit,
    )
    return [_product(row) for row in rows]


async def list_products_after(tx: Tx, sku: str | None, limit: int) -> list[Product]:
    """Give SKUs in the order of their names, for snapshots."""
    rows = await tx.fetch(
        f"SELECT {PRODUCT} FROM product_sku WHERE sku > $1 ORDER BY sku LIMIT $2", sku or "", limit
    )
    return [_product(row) for row in rows]


async def put_product(tx: Tx, product: Product) -> None:
    """Keep a SKU, new or changed."""
    await tx.execute(
        "INSERT INTO product_sku (sku, type, unit, cost, retail, tax_code, metadata, version, created_at)"
        " VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9) ON CONFLICT (sku) DO UPDATE SET cost = excluded.cost,"
        " retail = excluded.retail, tax_code = excluded.tax_code, metadata = excluded.metadata,"
        " version = excluded.version",
        product.sku,
        product.type,
        product.unit,
        product.cost,
        product.retail,
        product.tax_code,
        product.metadata,
        product.version,
        product.created_at,
    )


async def put_step(tx: Tx, sku: str, step: SkuStep) -> None:
    """Keep a step of a SKU's history; a later word for the same instant replaces the earlier."""
    await tx.execute(
        "INSERT INTO sku_version (sku, effective_at, retail, tax_code) VALUES ($1, $2, $3, $4)"
        " ON CONFLICT (sku, effective_at) DO UPDATE SET retail = excluded.retail, tax_code = excluded.tax_code",
        sku,
        step.effective_at,
        step.retail,
        step.tax_code,
    )


async def list_skus(tx: Tx, names: list[str] | None = None) -> dict[str, Sku]:
    """Give SKUs with their whole history, by name; all of them without `names`."""
    rows = await tx.fetch(
        "SELECT sku, p.type::text, v.effective_at, v.retail, v.tax_code"
        " FROM product_sku AS p JOIN sku_version AS v USING (sku)"
        " WHERE $1::text[] IS NULL OR sku = ANY($1) ORDER BY sku, v.effective_at",
        names,
    )
    steps: dict[str, list[SkuStep]] = {}
    types = {row["sku"]: row["type"] for row in rows}
    for row in rows:
        steps.setdefault(row["sku"], []).append(SkuStep(row["effective_at"], row["retail"], row["tax_code"]))
    return {sku: Sku(sku, types[sku], tuple(found)) for sku, found in steps.items()}


async def list_unknown(tx: Tx, names: list[str]) -> list[str]:
    """Give those names that are no SKU."""
    rows = await tx.fetch(
        "SELECT name FROM unnest($1::text[]) AS name WHERE name NOT IN (SELECT sku FROM product_sku) ORDER BY name",
        names,
    )
    return [row["name"] for row in rows]


async def list_rates(tx: Tx) -> tuple[TaxRate, ...]:
    """Give all tax rates."""
    rows = await tx.fetch("SELECT tax_code, jurisdiction, rate, effective_at FROM tax_rate")
    return tuple(TaxRate(**row) for row in rows)


async def page_rates(
    tx: Tx,
    tax_code: str | None,
    jurisdiction: str | None,
    before: tuple[datetime, str, str] | None,
    limit: int,
) -> list[TaxRate]:
    """Give tax rates, the latest to come into force first."""
    rows = await tx.fetch(
        "SELECT tax_code, jurisdiction, rate, effective_at FROM tax_rate"
        " WHERE ($1::text IS NULL OR tax_code = $1) AND ($2::text IS NULL OR jurisdiction = $2)"
        " AND ($3::timestamptz IS NULL OR (effective_at, tax_code, jurisdiction) < ($3, $4, $5))"
        " ORDER BY effective_at DESC, tax_code DESC, jurisdiction DESC LIMIT $6",
        tax_code,
        jurisdiction,
        *(before or (None, None, None)),
        limit,
    )
    return [TaxRate(**row) for row in rows]


async def put_rate(tx: Tx, rate: TaxRate) -> bool:
    """Keep a tax rate; say whether it is new."""
    is_new: bool = await tx.fetchval(
        "INSERT INTO tax_rate (tax_code, jurisdiction, rate, effective_at) VALUES ($1, $2, $3, $4)"
        " ON CONFLICT (tax_code, jurisdiction, effective_at) DO UPDATE SET rate = excluded.rate"
        " RETURNING xmax = 0",
        rate.tax_code,
        rate.jurisdiction,
        rate.rate,
        rate.effective_at,
    )
    return is_new
