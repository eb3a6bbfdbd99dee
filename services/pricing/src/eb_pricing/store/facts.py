"""Facts of prices, their lock, and what the catalog announced."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any
from uuid import UUID

from eb_contracts.errors import NotFound
from eb_kit.tx import Tx

TERMS_LOCK = 7_020_250_920
"""Advisory lock: shared while usage is rated by the facts read, exclusive while facts change."""


async def lock_terms_shared(tx: Tx) -> None:
    """Keep the facts of prices as they are until `tx` ends; others may rate by them too."""
    await tx.execute("SELECT pg_advisory_xact_lock_shared($1)", TERMS_LOCK)


async def lock_terms(tx: Tx) -> None:
    """Wait until nobody rates by the facts as they were; who begins to rate waits until `tx` ends.

    So whatever was rated or parked by older facts is visible to whoever takes up what this tx marks as due.
    """
    await tx.execute("SELECT pg_advisory_xact_lock($1)", TERMS_LOCK)


async def list_terms_versions(tx: Tx, org_ids: Collection[UUID]) -> tuple[dict[str, int], dict[str, int]]:
    """Give the versions of these organisations' assignments, and of all retail defaults, by id."""
    rows = await tx.fetch(
        "SELECT entity, entity_id, version FROM known"
        " WHERE entity = 'org_terms' AND entity_id = ANY($1::text[]) AND NOT is_deleted"
        " UNION ALL SELECT entity, entity_id, version FROM known WHERE entity = 'retail_terms' AND NOT is_deleted",
        [str(org_id) for org_id in org_ids],
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


async def find_project_org(tx: Tx, project_id: UUID) -> UUID | None:
    """Give whose project this is; None where it isn't known."""
    facts = await list_facts(tx, "project", [str(project_id)])
    return UUID(facts[str(project_id)][1]["org_id"]) if facts else None


async def list_known_skus(tx: Tx, skus: Collection[str]) -> set[str]:
    """Give those of the SKUs that the catalog has announced."""
    return set(await list_facts(tx, "sku", skus))


async def get_terms_body(tx: Tx, terms_hash: str) -> dict[str, Any]:
    """Give the body of terms that a charge names, or raise NotFound."""
    facts = await list_facts(tx, "terms", [terms_hash])
    if terms_hash not in facts:
        raise NotFound
    body: dict[str, Any] = facts[terms_hash][1]["body"]
    return body
