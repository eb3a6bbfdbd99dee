"""Large trees of organisations, put into a database by COPY as if they had been there for long: for tests, benches."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from random import Random
from typing import Any
from uuid import UUID

from eb_contracts.ids import new_id

Place = tuple[UUID, tuple[UUID, ...]]
"""An organisation, and all above it, the nearest first."""
QUIET = "ALTER TABLE auth.organization DISABLE TRIGGER audit"
LOUD = "ALTER TABLE auth.organization ENABLE TRIGGER audit"
KNOW = """
    INSERT INTO auth.known SELECT 'org', org_id::text, version, false, jsonb_build_object('version', version,
        'is_deleted', false, 'org_id', org_id, 'parent_org_id', parent_org_id, 'parent_links', '[]'::jsonb,
        'default_timezone', 'UTC', 'country', 'AU'), created_at
    FROM auth.organization WHERE org_id = ANY($1) ON CONFLICT DO NOTHING
"""


def a_child(parent: Place) -> Place:
    """Make a child of a place."""
    return new_id(), (parent[0], *parent[1])


def a_chain(top: Place, edges: int) -> list[Place]:
    """Make a chain of so many edges below a place, which is its first."""
    made = [top]
    for _ in range(edges):
        made.append(a_child(made[-1]))
    return made


def some_levels(top: Place, size: int, levels: int, chance: Random) -> list[Place]:
    """Make levels of equal size below a place; who is whose parent is chance."""
    found: list[Place] = []
    above = [top]
    for _ in range(levels):
        above = [a_child(chance.choice(above)) for _ in range(size // levels)]
        found += above
    return found


async def plant(owner: Any, places: Sequence[Place], now: datetime) -> None:
    """Put places into auth's tables and its read model, born an hour ago; `owner` is the owner's connection."""
    born = now - timedelta(hours=1)
    await owner.execute(
        "SET synchronous_commit = on"
    )  # VACUUM marks as visible only what has reached the log
    await owner.execute(QUIET)
    for table, columns, rows in (
        ("organization", ORGANIZATION, _organisations(places, born)),
        ("org_hierarchy", ("ancestor_org_id", "descendant_org_id", "depth"), _pairs(places)),
        ("org_parent_link", ("org_id", "effective_at", "parent_org_id"), _links(places, born)),
    ):
        await owner.copy_records_to_table(table, schema_name="auth", columns=columns, records=rows)
    await owner.execute(LOUD)
    await owner.execute(KNOW, [org_id for org_id, _ in places])
    await owner.execute("VACUUM (ANALYZE) auth.organization, auth.org_hierarchy, auth.org_parent_link")


ORGANIZATION = (
    "org_id", "legal_name", "org_slug", "billing_email", "default_timezone", "created_at", "parent_org_id",
)  # fmt: skip


def _organisations(places: Iterable[Place], born: datetime) -> Iterable[tuple[Any, ...]]:
    for org_id, above in places:
        parent = above[0] if above else None
        yield org_id, "Planted", f"p-{org_id.hex}", "b@example.org", "UTC", born, parent


def _pairs(places: Iterable[Place]) -> Iterable[tuple[Any, ...]]:
    return ((up, org_id, depth) for org_id, above in places for depth, up in enumerate((org_id, *above)))


def _links(places: Iterable[Place], born: datetime) -> Iterable[tuple[Any, ...]]:
    minute = born.replace(second=0, microsecond=0)
    return ((org_id, minute, above[0] if above else None) for org_id, above in places)
