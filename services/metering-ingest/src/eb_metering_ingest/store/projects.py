"""Projects, from the read model."""

from __future__ import annotations

from collections.abc import Collection
from uuid import UUID

from eb_kit import readmodels
from eb_kit.tx import Tx


async def list_owners(tx: Tx, project_ids: Collection[UUID]) -> dict[UUID, UUID]:
    """Give the organisation of each of these projects that is known."""
    found = await readmodels.bodies(tx, "project", [str(project_id) for project_id in project_ids])
    return {UUID(project_id): UUID(body["org_id"]) for project_id, body in found.items()}
