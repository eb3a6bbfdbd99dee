"""Organisations, each with its first place in the hierarchy, and projects."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

import asyncpg

from eb_contracts.auth import OrgChanged, ParentLink, ProjectChanged
from eb_contracts.errors import NotFound
from eb_kit.tx import Tx

from ..domain.errors import OrgSlugTaken
from ..domain.orgs import Org, Project, org_fact, project_fact

ORG = (
    "org_id, legal_name, org_slug, billing_email, default_timezone, tax_id, visibility, country, parent_org_id,"
    " created_at, version, assist_policy"
)
PROJECT = "project_id, org_id, name, cost_center_id, created_at, version"


async def insert_org(tx: Tx, org: Org) -> None:
    """Keep a new organisation, its pairs in the closure table and its first parent link; raises OrgSlugTaken.

    The caller has locked the root of the parent (`hierarchy.lock_roots`), if there is a parent.
    """
    try:
        await tx.execute(
            f"INSERT INTO organization ({ORG}) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)",
            *(getattr(org, name.strip()) for name in ORG.split(",")),
        )
    except asyncpg.UniqueViolationError as error:
        if error.constraint_name == "organization_org_slug_key":
            raise OrgSlugTaken from None
        raise
    await _insert_pairs(tx, org)
    await tx.execute(
        "INSERT INTO org_parent_link (org_id, effective_at, parent_org_id) VALUES ($1, $2, $3)",
        org.org_id,
        tx.minute,
        org.parent_org_id,
    )


async def _insert_pairs(tx: Tx, org: Org) -> None:
    await tx.execute(
        "INSERT INTO org_hierarchy (ancestor_org_id, descendant_org_id, depth)"
        " SELECT ancestor_org_id, $1::uuid, depth + 1 FROM org_hierarchy WHERE descendant_org_id = $2::uuid"
        " UNION ALL SELECT $1::uuid, $1::uuid, 0",
        org.org_id,
        org.parent_org_id,
    )


async def get_org(tx: Tx, org_id: UUID) -> Org:
    """Give an organisation; raises NotFound."""
    row = await tx.fetchrow(f"SELECT {ORG} FROM organization WHERE org_id = $1", org_id)
    if row is None:
        raise NotFound
    return Org(*row)


async def is_partner(tx: Tx, org_id: UUID | None) -> bool:
    """Tell whether the organisation's members act for a partner."""
    return bool(
        await tx.fetchval(
            "SELECT EXISTS (SELECT 1 FROM known WHERE entity = 'partner' AND NOT is_deleted"
            " AND body ->> 'org_id' = $1)",
            str(org_id) if org_id else None,
        )
    )


async def lock_org(tx: Tx, org_id: UUID) -> Org:
    """Lock an organisation's row until `tx` ends; who changes its settings or its members holds it. Raises NotFound."""
    row = await tx.fetchrow(
        f"SELECT {ORG} FROM organization WHERE org_id = $1 FOR NO KEY UPDATE",
        org_id,
    )
    if row is None:
        raise NotFound
    return Org(*row)


async def update_org(tx: Tx, org_id: UUID, changes: Mapping[str, Any]) -> Org:
    """Change named columns of an organisation; raises OrgSlugTaken."""
    try:
        row = await _update(tx, "organization", "org_id", org_id, changes, ORG)
    except asyncpg.UniqueViolationError as error:
        if error.constraint_name == "organization_org_slug_key":
            raise OrgSlugTaken from None
        raise
    return Org(*row)


async def _update(
    tx: Tx, table: str, key: str, key_value: UUID, changes: Mapping[str, Any], columns: str
) -> asyncpg.Record:
    places = ", ".join(f"{name} = ${place}" for place, name in enumerate(changes, start=2))
    row = await tx.fetchrow(
        f"UPDATE {table} SET {places}, version = version + 1 WHERE {key} = $1 RETURNING {columns}",
        key_value,
        *changes.values(),
    )
    assert row is not None
    return row


async def list_billed_to(tx: Tx, email: str, limit: int) -> list[UUID]:
    """Give organisations whose billing address this is."""
    rows = await tx.fetch(
        "SELECT org_id FROM organization WHERE lower(billing_email) = lower($1) LIMIT $2", email, limit
    )
    return [row["org_id"] for row in rows]


async def get_org_fact(tx: Tx, org: Org) -> OrgChanged:
    """Give the public state of an organisation with the history of its parents."""
    return (await _facts_of(tx, [org]))[0]


async def list_org_facts(tx: Tx, after_id: str | None, limit: int) -> list[OrgChanged]:
    """Give organisations in the order of their ids, for a snapshot."""
    rows = await tx.fetch(
        f"SELECT {ORG} FROM organization WHERE $1::uuid IS NULL OR org_id > $1 ORDER BY org_id LIMIT $2",
        UUID(after_id) if after_id else None,
        limit,
    )
    return await _facts_of(tx, [Org(*row) for row in rows])


async def _facts_of(tx: Tx, orgs: Sequence[Org]) -> list[OrgChanged]:
    links: dict[UUID, list[ParentLink]] = {org.org_id: [] for org in orgs}
    for row in await tx.fetch(
        "SELECT org_id, effective_at, parent_org_id FROM org_parent_link WHERE org_id = ANY($1)"
        " ORDER BY org_id, effective_at",
        list(links),
    ):
        links[row["org_id"]].append(
            ParentLink(parent_org_id=row["parent_org_id"], effective_at=row["effective_at"])
        )
    return [org_fact(org, tuple(links[org.org_id])) for org in orgs]


async def insert_project(tx: Tx, project: Project) -> None:
    """Keep a new project."""
    await tx.execute(
        f"INSERT INTO project ({PROJECT}) VALUES ($1, $2, $3, $4, $5, $6)",
        project.project_id,
        project.org_id,
        project.name,
        project.cost_center_id,
        project.created_at,
        project.version,
    )


async def lock_project(tx: Tx, org_id: UUID, project_id: UUID) -> Project:
    """Lock a project of an organisation until `tx` ends; raises NotFound."""
    row = await tx.fetchrow(
        f"SELECT {PROJECT} FROM project WHERE project_id = $1 AND org_id = $2 FOR NO KEY UPDATE",
        project_id,
        org_id,
    )
    if row is None:
        raise NotFound
    return Project(*row)


async def update_project(tx: Tx, project_id: UUID, changes: Mapping[str, Any]) -> Project:
    """Change named columns of a project."""
    return Project(*await _update(tx, "project", "project_id", project_id, changes, PROJECT))


async def list_projects(tx: Tx, org_id: UUID, before: UUID | None, limit: int) -> list[Project]:
    """Give a page of an organisation's projects, newest first."""
    rows = await tx.fetch(
        f"SELECT {PROJECT} FROM project WHERE org_id = $1 AND ($2::uuid IS NULL OR project_id < $2)"
        " ORDER BY project_id DESC LIMIT $3",
        org_id,
        before,
        limit,
    )
    return [Project(*row) for row in rows]


async def list_project_facts(tx: Tx, after_id: str | None, limit: int) -> list[ProjectChanged]:
    """Give projects in the order of their ids, for a snapshot."""
    rows = await tx.fetch(
        f"SELECT {PROJECT} FROM project WHERE $1::uuid IS NULL OR project_id > $1 ORDER BY project_id LIMIT $2",
        UUID(after_id) if after_id else None,
        limit,
    )
    return [project_fact(Project(*row)) for row in rows]
