"""The hierarchy of organisations: its closure table, its history of parents, and requests to link."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from uuid import UUID

from eb_contracts.errors import NotFound
from eb_kit.tx import Tx

from ..domain.hierarchy import OrgLink, Relative, Shape
from ..domain.orgs import Org
from .orgs import ORG

RELATIVE = "o.org_id, o.parent_org_id, o.legal_name, h.depth"
LINK = (
    "org_link_id, parent_org_id, child_org_id, status, requested_by, requested_at, expires_at,"
    " decided_by, decided_at"
)
GATE = 0x7EEE
PATIENCE = "2s"
MOST_OVERTAKEN = 3
ENTER = f"SELECT set_config('lock_timeout', '{PATIENCE}', true), pg_advisory_xact_lock_shared({GATE})"
ENTER_ALONE = f"SELECT set_config('lock_timeout', '{PATIENCE}', true), pg_advisory_xact_lock({GATE})"
LAST_ID = UUID(int=2**128 - 1)
"""Pages begin before it: a bound that is always there lets every page be read from an index."""


async def lock_roots(tx: Tx, *org_ids: UUID) -> None:
    """Lock the hierarchies around these organisations until `tx` ends. Raises NotFound.

    Whoever changes a hierarchy first locks its root and the organisations themselves, all in the order of their
    ids: somebody else may still take one of them for the root that it was. The roots are read again under the
    locks: where one changed while we waited, all locks are given back before the next try, since keeping them
    would break that order. Who was overtaken three times has the next try alone: others wait at the gate, which
    all pass before the first row. Nobody waits longer than two seconds for one lock.
    """
    overtaken = 0
    while not await _try_to_lock(tx, org_ids, alone=overtaken >= MOST_OVERTAKEN):
        overtaken += 1


async def _try_to_lock(tx: Tx, org_ids: tuple[UUID, ...], *, alone: bool) -> bool:
    attempt = tx.connection.transaction()
    await attempt.start()
    await tx.execute(ENTER_ALONE if alone else ENTER)
    roots = await _roots_of(tx, org_ids)
    await tx.execute(
        "SELECT 1 FROM organization WHERE org_id = ANY($1) ORDER BY org_id FOR NO KEY UPDATE",
        sorted({*roots.values(), *org_ids}),
    )
    if await _roots_of(tx, org_ids) == roots:
        await attempt.commit()
        return True
    await attempt.rollback()
    return False


async def _roots_of(tx: Tx, org_ids: tuple[UUID, ...]) -> Mapping[UUID, UUID]:
    rows = await tx.fetch(
        "SELECT DISTINCT ON (descendant_org_id) descendant_org_id, ancestor_org_id FROM org_hierarchy"
        " WHERE descendant_org_id = ANY($1) ORDER BY descendant_org_id, depth DESC",
        list(org_ids),
    )
    if len(rows) != len(set(org_ids)):
        raise NotFound
    return {row["descendant_org_id"]: row["ancestor_org_id"] for row in rows}


async def get_depth(tx: Tx, org_id: UUID) -> int:
    """Give the edges from an organisation up to its root."""
    depth: int = await tx.fetchval(
        "SELECT max(depth) FROM org_hierarchy WHERE descendant_org_id = $1", org_id
    )
    return depth


async def get_shape(tx: Tx, org_id: UUID, parent_id: UUID | None) -> Shape:
    """Tell how a subtree would hang below a new parent (None: below none); hold the roots for it to stay true."""
    row = await tx.fetchrow(
        "SELECT coalesce(new.depth, -1) AS depth, sub.height, sub.is_below,"
        " sub.size * (old.depth + coalesce(new.depth + 1, 0)) AS pairs"
        " FROM (SELECT max(depth) AS height, count(*) AS size,"
        " coalesce(bool_or(descendant_org_id = $2), false) AS is_below"
        " FROM org_hierarchy WHERE ancestor_org_id = $1) sub,"
        " (SELECT max(depth) AS depth FROM org_hierarchy WHERE descendant_org_id = $1) old,"
        " (SELECT max(depth) AS depth FROM org_hierarchy WHERE descendant_org_id = $2) new",
        org_id,
        parent_id,
    )
    assert row is not None
    return Shape(**row)


async def update_parent(tx: Tx, org_id: UUID, parent_id: UUID | None) -> Org:
    """Hang a subtree below another parent (None: make it a tree of its own); hold the roots of both.

    Parent, closure table and history change together.
    """
    await _delete_pairs(tx, org_id, parent_id)
    await _insert_pairs(tx, org_id, parent_id)
    await _insert_parent_link(tx, org_id, parent_id)
    row = await tx.fetchrow(
        f"UPDATE organization SET parent_org_id = $2, version = version + 1 WHERE org_id = $1 RETURNING {ORG}",
        org_id,
        parent_id,
    )
    assert row is not None
    return Org(*row)


async def _delete_pairs(tx: Tx, org_id: UUID, parent_id: UUID | None) -> None:
    """Take a subtree's pairs with all above it, but for those that stand as far above the new parent's children."""
    await tx.execute(
        "DELETE FROM org_hierarchy h USING org_hierarchy above, org_hierarchy sub"
        " WHERE above.descendant_org_id = $1 AND above.depth > 0 AND sub.ancestor_org_id = $1"
        " AND NOT EXISTS (SELECT FROM org_hierarchy kept WHERE kept.descendant_org_id = $2"
        " AND kept.ancestor_org_id = above.ancestor_org_id AND kept.depth + 1 = above.depth)"
        " AND h.ancestor_org_id = above.ancestor_org_id AND h.descendant_org_id = sub.descendant_org_id",
        org_id,
        parent_id,
    )


async def _insert_pairs(tx: Tx, org_id: UUID, parent_id: UUID | None) -> None:
    """Pair a subtree with its new parent and all above it, but for those whose pairs were kept."""
    await tx.execute(
        "INSERT INTO org_hierarchy (ancestor_org_id, descendant_org_id, depth)"
        " SELECT above.ancestor_org_id, sub.descendant_org_id, above.depth + sub.depth + 1"
        " FROM org_hierarchy above CROSS JOIN org_hierarchy sub"
        " WHERE above.descendant_org_id = $2 AND sub.ancestor_org_id = $1"
        " AND NOT EXISTS (SELECT FROM org_hierarchy kept WHERE kept.descendant_org_id = $1"
        " AND kept.ancestor_org_id = above.ancestor_org_id)",
        org_id,
        parent_id,
    )


async def _insert_parent_link(tx: Tx, org_id: UUID, parent_id: UUID | None) -> None:
    """Let a parent hold from this minute on; of changes within one minute the last stands.

    Never before the newest link: a local run's clock may go back.
    """
    await tx.execute(
        "INSERT INTO org_parent_link (org_id, effective_at, parent_org_id)"
        " SELECT $1, greatest($2, max(effective_at)), $3 FROM org_parent_link WHERE org_id = $1"
        " ON CONFLICT (org_id, effective_at) DO UPDATE SET parent_org_id = excluded.parent_org_id",
        org_id,
        tx.minute,
        parent_id,
    )


async def list_children(tx: Tx, org_id: UUID, before: UUID | None, limit: int) -> list[Relative]:
    """Give a page of an organisation's children, newest first."""
    return await _list_below(tx, "SELECT descendant_org_id, 1 AS depth", "depth = 1", org_id, before, limit)


async def list_descendants(tx: Tx, org_id: UUID, before: UUID | None, limit: int) -> list[Relative]:
    """Give a page of all organisations below one, newest first."""
    return await _list_below(tx, "SELECT descendant_org_id, depth", "depth > 0", org_id, before, limit)


async def _list_below(
    tx: Tx, pairs: str, which: str, org_id: UUID, before: UUID | None, limit: int
) -> list[Relative]:
    """Cut the page out of an index of the pairs, then look up its organisations."""
    page = (
        f"{pairs} FROM org_hierarchy WHERE ancestor_org_id = $1 AND {which} AND descendant_org_id < $2"
        " ORDER BY descendant_org_id DESC LIMIT $3"
    )
    rows = await tx.fetch(
        f"SELECT {RELATIVE} FROM ({page}) h JOIN organization o ON o.org_id = h.descendant_org_id"
        " ORDER BY h.descendant_org_id DESC",
        org_id,
        before or LAST_ID,
        limit,
    )
    return [Relative(*row) for row in rows]


async def list_ancestors(tx: Tx, org_id: UUID, above: int, limit: int) -> list[Relative]:
    """Give the organisations more than `above` edges above one, the nearest first."""
    rows = await tx.fetch(
        f"SELECT {RELATIVE} FROM org_hierarchy h JOIN organization o ON o.org_id = h.ancestor_org_id"
        " WHERE h.descendant_org_id = $1 AND h.depth > $2 ORDER BY h.depth LIMIT $3",
        org_id,
        above,
        limit,
    )
    return [Relative(*row) for row in rows]


async def insert_link_once(tx: Tx, link: OrgLink) -> tuple[OrgLink, bool]:
    """Keep a request to link, or find the one that is pending between the two; tell whether it was new.

    One that is too old to be answered is asked again. The caller holds the roots of both.
    """
    row = await tx.fetchrow(
        f"SELECT {LINK} FROM org_link WHERE child_org_id = $1 AND parent_org_id = $2 AND status = 'pending'",
        link.child_org_id,
        link.parent_org_id,
    )
    if row is None:
        values = (getattr(link, name.strip()) for name in LINK.split(","))
        places = "$1, $2, $3, $4, $5, $6, $7, $8, $9"
        await tx.execute(f"INSERT INTO org_link ({LINK}) VALUES ({places})", *values)
        return link, True
    if row["expires_at"] > link.requested_at:
        return OrgLink(*row), False
    return await _renew_link(tx, row["org_link_id"], link), True


async def _renew_link(tx: Tx, org_link_id: UUID, link: OrgLink) -> OrgLink:
    row = await tx.fetchrow(
        "UPDATE org_link SET requested_by = $2, requested_at = $3, expires_at = $4 WHERE org_link_id = $1"
        f" RETURNING {LINK}",
        org_link_id,
        link.requested_by,
        link.requested_at,
        link.expires_at,
    )
    assert row is not None
    return OrgLink(*row)


async def get_link(tx: Tx, org_link_id: UUID) -> OrgLink:
    """Give a request to link; raises NotFound."""
    row = await tx.fetchrow(f"SELECT {LINK} FROM org_link WHERE org_link_id = $1", org_link_id)
    if row is None:
        raise NotFound
    return OrgLink(*row)


async def update_link(tx: Tx, org_link_id: UUID, status: str, decided_at: datetime) -> OrgLink:
    """Keep how a request to link was answered, and by whom."""
    row = await tx.fetchrow(
        "UPDATE org_link SET status = $2, decided_by = $3, decided_at = $4 WHERE org_link_id = $1"
        f" RETURNING {LINK}",
        org_link_id,
        status,
        tx.actor,
        decided_at,
    )
    assert row is not None
    return OrgLink(*row)
