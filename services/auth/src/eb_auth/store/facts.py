"""Auth's entities as facts: for readers who ask for all of them, and for its own read model."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

from eb_contracts.base import EntityFact
from eb_kit.tx import Tx

from . import credentials, members, orgs, sessions

Lister = Callable[[Tx, str | None, int], Awaitable[Sequence[EntityFact]]]

LISTERS: dict[str, Lister] = {
    "org": orgs.list_org_facts,
    "member": members.list_member_facts,
    "project": orgs.list_project_facts,
    "api_key": credentials.list_key_facts,
    "signing_key": credentials.list_signing_key_facts,
    "revocation": sessions.list_revocation_facts,
}
"""Each gives a page of facts after an id, in the order of their ids."""

ROWS = {
    "org": ("organization", "org_id"),
    "member": ("member_version", "org_id || ':' || r.user_id"),
    "project": ("project", "project_id"),
    "api_key": ("api_key", "key_id"),
    "signing_key": ("signing_key", "kid"),
    "revocation": ("access_revocation", "subject_key"),
}


async def is_unknown(tx: Tx, entity: str) -> bool:
    """Tell whether the own read model misses a row of this entity, as after a restore of the tables alone."""
    table, key = ROWS[entity]
    return bool(
        await tx.fetchval(
            f"SELECT EXISTS (SELECT 1 FROM {table} AS r WHERE NOT EXISTS"
            f" (SELECT 1 FROM known AS k WHERE k.entity = $1 AND k.entity_id = r.{key}::text))",
            entity,
        )
    )
