"""Every SQL statement of the estimator: facts of prices, counters as last told, cached estimates."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from eb_contracts.catalog import plan_terms_id
from eb_contracts.errors import NotFound
from eb_contracts.ids import new_id
from eb_contracts.pricing import Charge
from eb_kit.tx import Tx

from .domain.estimates import CounterState
from .domain.plans import Home


async def list_terms_versions(tx: Tx, org_id: UUID) -> tuple[dict[str, int], dict[str, int]]:
    """Give the version of an organisation's assignments (none: it has none), and of all retail defaults, by id."""
    rows = await tx.fetch(
        "SELECT entity, entity_id, version FROM known"
        " WHERE entity = 'org_terms' AND entity_id = $1 AND NOT is_deleted"
        " UNION ALL SELECT entity, entity_id, version FROM known WHERE entity = 'retail_terms' AND NOT is_deleted",
        str(org_id),
    )
    orgs = {row["entity_id"]: row["version"] for row in rows if row["entity"] == "org_terms"}
    retail = {row["entity_id"]: row["version"] for row in rows if row["entity"] == "retail_terms"}
    return orgs, retail


async def list_facts(
    tx: Tx, entity: str, entity_ids: Collection[str] | None = None
) -> dict[str, tuple[int, Mapping[str, Any]]]:
    """Give version and body of an entity's facts by id; all of them without `entity_ids`."""
    rows = await tx.fetch(
        "SELECT entity_id, version, body FROM known WHERE entity = $1 AND NOT is_deleted"
        " AND ($2::text[] IS NULL OR entity_id = ANY($2))",
        entity,
        None if entity_ids is None else list(entity_ids),
    )
    return {row["entity_id"]: (row["version"], row["body"]) for row in rows}


async def find_plan_terms(tx: Tx, plan_id: UUID, org_id: UUID) -> tuple[str, int, Mapping[str, Any]] | None:
    """Give name, version and fact of a plan, with the organisation's overrides where it has some; or None."""
    row = await tx.fetchrow(
        "SELECT entity_id, version, body FROM known WHERE entity = 'plan_terms' AND entity_id = ANY($1)"
        " AND NOT is_deleted ORDER BY length(entity_id) DESC LIMIT 1",
        [plan_terms_id(plan_id, org_id), plan_terms_id(plan_id)],
    )
    return (row["entity_id"], row["version"], row["body"]) if row else None


async def get_home(tx: Tx, org_id: UUID) -> Home:
    """Give where an organisation is, as last heard; raises NotFound."""
    facts = await list_facts(tx, "org", [str(org_id)])
    if str(org_id) not in facts:
        raise NotFound
    _, org = facts[str(org_id)]
    return Home(org["default_timezone"], org["country"])


async def find_project_org(tx: Tx, project_id: UUID) -> UUID | None:
    """Give the organisation of a project, or None."""
    facts = await list_facts(tx, "project", [str(project_id)])
    found = facts.get(str(project_id))
    return UUID(found[1]["org_id"]) if found else None


async def list_counters(tx: Tx, org_id: UUID, period: str, skus: Collection[str]) -> dict[str, CounterState]:
    """Give an organisation's counters in a period, by SKU; those that nothing was charged to are left out."""
    rows = await tx.fetch(
        "SELECT sku, quantity, events, version FROM counter WHERE org_id = $1 AND period = $2 AND sku = ANY($3)",
        org_id,
        period,
        list(skus),
    )
    return {row["sku"]: CounterState(row["quantity"], row["events"], row["version"]) for row in rows}


async def update_counters(tx: Tx, newest: Sequence[Charge]) -> None:
    """Take counters as these charges left them, where they are newer; in key order, one charge a counter."""
    await tx.execute(
        "INSERT INTO counter AS c (org_id, sku, period, quantity, events, charged, version)"
        " SELECT * FROM unnest($1::uuid[], $2::text[], $3::text[], $4::numeric[], $5::bigint[], $6::numeric[],"
        " $7::bigint[])"
        " ON CONFLICT (org_id, sku, period) DO UPDATE SET quantity = excluded.quantity, events = excluded.events,"
        " charged = excluded.charged, version = excluded.version WHERE c.version < excluded.version",
        [charge.org_id for charge in newest],
        [charge.sku for charge in newest],
        [charge.period for charge in newest],
        [charge.counter.quantity for charge in newest],
        [charge.counter.events for charge in newest],
        [charge.counter.charged for charge in newest],
        [charge.counter.version for charge in newest],
    )


async def find_estimate(tx: Tx, org_id: UUID, cache_key: bytes) -> dict[str, Any] | None:
    """Give the cached answer, or None."""
    found: dict[str, Any] | None = await tx.fetchval(
        "SELECT result FROM pricing_estimate WHERE org_id = $1 AND cache_key = $2", org_id, cache_key
    )
    return found


async def insert_estimate_once(
    tx: Tx, cache_key: bytes, inputs: Mapping[str, Any], result: Mapping[str, Any]
) -> None:
    """Keep an answer; kept by somebody else meanwhile, it is the same.

    The commit doesn't wait for the disk: an answer that is lost is computed again.
    """
    await tx.execute(
        "WITH hurried AS (SELECT set_config('synchronous_commit', 'off', true))"
        " INSERT INTO pricing_estimate (estimate_id, org_id, project_id, inputs, result, created_at, cache_key)"
        " SELECT $1, $2, $3, $4, $5, $6, $7 FROM hurried ON CONFLICT (org_id, cache_key) DO NOTHING",
        new_id(),
        inputs["org_id"],
        inputs["project_id"],
        inputs,
        result,
        tx.now,
        cache_key,
    )


async def delete_estimates(tx: Tx, before: datetime, limit: int) -> int:
    """Forget the oldest cached answers made before an instant; give how many."""
    done = await tx.execute(
        "DELETE FROM pricing_estimate WHERE estimate_id IN (SELECT estimate_id FROM pricing_estimate"
        " WHERE created_at < $1 ORDER BY created_at LIMIT $2 FOR UPDATE SKIP LOCKED)",
        before,
        limit,
    )
    return int(done.rpartition(" ")[2])
