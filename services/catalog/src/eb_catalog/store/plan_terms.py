"""What was announced of plans' terms, and which are to be resolved again."""

from __future__ import annotations

from uuid import UUID

from eb_contracts.catalog import PlanTermsDefined, plan_terms_id
from eb_kit.tx import Tx

from ..domain.plan_terms import DuePlan
from ..domain.products import Plan


async def put_due(tx: Tx, plan_id: UUID, org_id: UUID | None = None) -> None:
    """Have a plan's terms resolved, by themselves or with an organisation's overrides; the first time or again."""
    await tx.execute(
        "INSERT INTO plan_terms_state (plan_terms_id, plan_id, org_id, version, due_at) VALUES ($1, $2, $3, 0, $4)"
        " ON CONFLICT (plan_terms_id) DO UPDATE SET due_at = excluded.due_at",
        plan_terms_id(plan_id, org_id),
        plan_id,
        org_id,
        tx.now,
    )


async def mark_due(tx: Tx, plan_id: UUID | None = None, sku: str | None = None) -> None:
    """Have plans' terms resolved again: of all, of one plan, or of those that name a SKU."""
    await tx.execute(
        "UPDATE plan_terms_state AS s SET due_at = $1 WHERE ($2::uuid IS NULL OR plan_id = $2)"
        " AND ($3::text IS NULL"
        " OR EXISTS (SELECT FROM plan_version_sku AS v WHERE v.plan_id = s.plan_id AND v.sku = $3)"
        " OR EXISTS (SELECT FROM org_entitlement AS e"
        " WHERE (e.plan_id, e.org_id) = (s.plan_id, s.org_id) AND jsonb_exists(e.overrides, $3)))",
        tx.now,
        plan_id,
        sku,
    )


async def take_due(tx: Tx, limit: int) -> list[DuePlan]:
    """Take plans whose terms are to be resolved; none that another worker has in hand."""
    rows = await tx.fetch(
        "WITH due AS (UPDATE plan_terms_state SET due_at = NULL WHERE plan_terms_id IN ("
        "SELECT plan_terms_id FROM plan_terms_state WHERE due_at IS NOT NULL ORDER BY due_at, plan_terms_id"
        " LIMIT $1 FOR UPDATE SKIP LOCKED) RETURNING plan_terms_id, plan_id, org_id, version AS announced)"
        " SELECT d.plan_terms_id, d.org_id, d.announced, m.currency, v.published_at, e.overrides,"
        " p.plan_id, p.model_id, p.name, p.tier, p.status, p.notes, p.version, p.is_draft_open, p.created_at"
        " FROM due AS d JOIN plan AS p USING (plan_id) JOIN business_model AS m USING (model_id)"
        " LEFT JOIN plan_version AS v ON v.plan_id = p.plan_id AND v.version = p.version"
        " LEFT JOIN org_entitlement AS e ON e.plan_id = p.plan_id AND e.org_id = d.org_id"
        " ORDER BY d.plan_terms_id",
        limit,
    )
    return [
        DuePlan(
            plan=Plan(**{name: row[name] for name in Plan.__dataclass_fields__}),
            currency=row["currency"],
            published_at=row["published_at"],
            org_id=row["org_id"],
            overrides=row["overrides"] or {},
            version=row["announced"],
        )
        for row in rows
    ]


async def list_announced(tx: Tx, names: list[str]) -> dict[str, PlanTermsDefined]:
    """Give what was announced last, by name; what never was is left out."""
    rows = await tx.fetch(
        "SELECT plan_terms_id, body FROM plan_terms_state WHERE plan_terms_id = ANY($1) AND version > 0",
        names,
    )
    return {row["plan_terms_id"]: PlanTermsDefined.model_validate(row["body"]) for row in rows}


async def update_announced(tx: Tx, fact: PlanTermsDefined) -> None:
    """Keep what is announced."""
    await tx.execute(
        "UPDATE plan_terms_state SET version = $2, body = $3 WHERE plan_terms_id = $1",
        fact.entity_id,
        fact.version,
        fact.model_dump(mode="json"),
    )


async def list_plan_facts(tx: Tx, after: str | None, limit: int) -> list[PlanTermsDefined]:
    """Give what was announced of plans in the order of names, for snapshots."""
    rows = await tx.fetch(
        "SELECT body FROM plan_terms_state WHERE version > 0 AND plan_terms_id > $1 ORDER BY plan_terms_id LIMIT $2",
        after or "",
        limit,
    )
    return [PlanTermsDefined.model_validate(row["body"]) for row in rows]
