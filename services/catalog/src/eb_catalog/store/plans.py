"""Business models, plans, their draft SKUs and published versions."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any
from uuid import UUID

import asyncpg

from eb_contracts.catalog import PriceShape
from eb_contracts.errors import NotFound
from eb_kit.tx import Tx

from ..domain.errors import ModelCodeTaken
from ..domain.products import Model, Plan, Prices
from ..domain.terms import Price
from ..domain.timeline import Published

MODEL = "model_id, code, name, status, version, currency, default_plan_id, created_at"
PLAN = "plan_id, model_id, name, tier, status, notes, version, is_draft_open, created_at"


async def insert_model(tx: Tx, model: Model) -> None:
    """Keep a new business model; raises ModelCodeTaken."""
    try:
        await tx.execute(
            f"INSERT INTO business_model ({MODEL}) VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
            model.model_id,
            model.code,
            model.name,
            model.status,
            model.version,
            model.currency,
            model.default_plan_id,
            model.created_at,
        )
    except asyncpg.UniqueViolationError as error:
        if error.constraint_name == "business_model_code_key":
            raise ModelCodeTaken(code_of_model=model.code) from None
        raise


async def find_model(tx: Tx, model_id: UUID) -> Model | None:
    """Give a business model, or None."""
    row = await tx.fetchrow(f"SELECT {MODEL} FROM business_model WHERE model_id = $1", model_id)
    return Model(**row) if row else None


async def get_model(tx: Tx, model_id: UUID) -> Model:
    """Give a business model; raises NotFound."""
    model = await find_model(tx, model_id)
    if model is None:
        raise NotFound
    return model


async def lock_model(tx: Tx, model_id: UUID) -> Model:
    """Lock a business model until `tx` ends; raises NotFound."""
    row = await tx.fetchrow(f"SELECT {MODEL} FROM business_model WHERE model_id = $1 FOR UPDATE", model_id)
    if row is None:
        raise NotFound
    return Model(**row)


async def update_model(tx: Tx, model: Model) -> None:
    """Keep the name, status, default plan and version of a business model."""
    await tx.execute(
        "UPDATE business_model SET name = $2, status = $3, default_plan_id = $4, version = $5 WHERE model_id = $1",
        model.model_id,
        model.name,
        model.status,
        model.default_plan_id,
        model.version,
    )


async def list_models(tx: Tx, before: UUID | None, limit: int) -> list[Model]:
    """Give business models, the newest first."""
    rows = await tx.fetch(
        f"SELECT {MODEL} FROM business_model WHERE $1::uuid IS NULL OR model_id < $1"
        " ORDER BY model_id DESC LIMIT $2",
        before,
        limit,
    )
    return [Model(**row) for row in rows]


async def insert_plan(tx: Tx, plan: Plan) -> None:
    """Keep a new plan."""
    await tx.execute(
        f"INSERT INTO plan ({PLAN}) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
        plan.plan_id,
        plan.model_id,
        plan.name,
        plan.tier,
        plan.status,
        plan.notes,
        plan.version,
        plan.is_draft_open,
        plan.created_at,
    )


async def find_plan(tx: Tx, plan_id: UUID) -> Plan | None:
    """Give a plan, or None."""
    row = await tx.fetchrow(f"SELECT {PLAN} FROM plan WHERE plan_id = $1", plan_id)
    return Plan(**row) if row else None


async def get_plan(tx: Tx, plan_id: UUID) -> Plan:
    """Give a plan; raises NotFound."""
    plan = await find_plan(tx, plan_id)
    if plan is None:
        raise NotFound
    return plan


async def lock_plan(tx: Tx, plan_id: UUID) -> Plan:
    """Lock a plan until `tx` ends; raises NotFound."""
    row = await tx.fetchrow(f"SELECT {PLAN} FROM plan WHERE plan_id = $1 FOR UPDATE", plan_id)
    if row is None:
        raise NotFound
    return Plan(**row)


async def update_plan(tx: Tx, plan: Plan) -> None:
    """Keep what may change of a plan."""
    await tx.execute(
        "UPDATE plan SET name = $2, tier = $3, status = $4, notes = $5, version = $6, is_draft_open = $7"
        " WHERE plan_id = $1",
        plan.plan_id,
        plan.name,
        plan.tier,
        plan.status,
        plan.notes,
        plan.version,
        plan.is_draft_open,
    )


async def list_plans(
    tx: Tx, model_id: UUID | None, is_published_only: bool, before: UUID | None, limit: int
) -> list[Plan]:
    """Give plans, the newest first."""
    rows = await tx.fetch(
        f"SELECT {PLAN} FROM plan WHERE ($1::uuid IS NULL OR model_id = $1) AND (NOT $2 OR version > 0)"
        " AND ($3::uuid IS NULL OR plan_id < $3) ORDER BY plan_id DESC LIMIT $4",
        model_id,
        is_published_only,
        before,
        limit,
    )
    return [Plan(**row) for row in rows]


async def put_plan_sku(tx: Tx, plan_id: UUID, sku: str, price: Price) -> bool:
    """Keep a SKU's price in the plan's draft; say whether it is new there."""
    is_new: bool = await tx.fetchval(
        "INSERT INTO plan_sku (plan_id, sku, included_qty, overage_price, tiers) VALUES ($1, $2, $3, $4, $5)"
        " ON CONFLICT (plan_id, sku) DO UPDATE SET included_qty = excluded.included_qty,"
        " overage_price = excluded.overage_price, tiers = excluded.tiers RETURNING xmax = 0",
        plan_id,
        sku,
        price.included_qty,
        price.overage_price,
        plain_shape(price.tiers),
    )
    return is_new


async def delete_plan_sku(tx: Tx, plan_id: UUID, sku: str) -> None:
    """Take a SKU out of the plan's draft; raises NotFound."""
    if await tx.execute("DELETE FROM plan_sku WHERE plan_id = $1 AND sku = $2", plan_id, sku) == "DELETE 0":
        raise NotFound


async def list_drafts(tx: Tx, plan_ids: Iterable[UUID]) -> dict[UUID, Prices]:
    """Give the prices of plans' drafts by plan."""
    rows = await tx.fetch(
        "SELECT plan_id, sku, included_qty, overage_price, tiers FROM plan_sku WHERE plan_id = ANY($1) ORDER BY sku",
        list(plan_ids),
    )
    prices: dict[UUID, dict[str, Price]] = {}
    for row in rows:
        prices.setdefault(row["plan_id"], {})[row["sku"]] = _price(row)
    return dict(prices)


async def insert_version(tx: Tx, published: Published) -> None:
    """Freeze the plan's draft as a version."""
    await tx.execute(
        "INSERT INTO plan_version (plan_id, version, apply, published_by, published_at) VALUES ($1, $2, $3, $4, $5)",
        published.plan_id,
        published.version,
        "immediate" if published.is_immediate else "next_period",
        tx.actor,
        published.published_at,
    )
    await tx.execute(
        "INSERT INTO plan_version_sku (plan_id, version, sku, included_qty, overage_price, tiers)"
        " SELECT plan_id, $2, sku, included_qty, overage_price, tiers FROM plan_sku WHERE plan_id = $1",
        published.plan_id,
        published.version,
    )


async def list_versions(tx: Tx, plan_ids: Iterable[UUID]) -> list[Published]:
    """Give the published versions of plans, oldest first."""
    rows = await tx.fetch(
        "SELECT plan_id, version, apply, published_at FROM plan_version WHERE plan_id = ANY($1) ORDER BY version",
        list(plan_ids),
    )
    return [Published(r["plan_id"], r["version"], r["apply"] == "immediate", r["published_at"]) for r in rows]


async def list_version_prices(tx: Tx, versions: Iterable[tuple[UUID, int]]) -> dict[tuple[UUID, int], Prices]:
    """Give the prices of published versions; a version without SKUs has none."""
    wanted = sorted(set(versions))
    rows = await tx.fetch(
        "SELECT plan_id, version, sku, included_qty, overage_price, tiers FROM plan_version_sku"
        " JOIN unnest($1::uuid[], $2::integer[]) AS wanted (plan_id, version) USING (plan_id, version) ORDER BY sku",
        [plan_id for plan_id, _ in wanted],
        [version for _, version in wanted],
    )
    prices: dict[tuple[UUID, int], dict[str, Price]] = {key: {} for key in wanted}
    for row in rows:
        prices[row["plan_id"], row["version"]][row["sku"]] = _price(row)
    return dict(prices)


def _price(row: asyncpg.Record) -> Price:
    shape = PriceShape.model_validate(row["tiers"]) if row["tiers"] is not None else None
    return Price(row["included_qty"], row["overage_price"], shape)


def plain_shape(shape: PriceShape | None) -> dict[str, Any] | None:
    """Write a shape as it was given: absent members stay absent, open ends null, numbers as text."""
    return None if shape is None else shape.model_dump(mode="json", exclude_unset=True)
