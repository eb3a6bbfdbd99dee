"""Assist sessions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple
from uuid import UUID

from eb_contracts.errors import NotFound
from eb_kit.tx import Tx

from ..domain.assist import AssistSession

ASSIST = (
    "assist_session_id, org_id, user_id, session_id, via_org_id, mode, purpose, reason, ticket, ttl_minutes, status,"
    " requested_at, decided_by, decided_at, begun_at, expires_at, ended_by, ended_at"
)
END = (
    "UPDATE assist_session a SET status = 'ended', ended_by = $1, ended_at = $2"
    " WHERE status IN ('pending', 'approved', 'active')"
)
RIGHT_IS_GONE = (
    " AND NOT CASE WHEN via_org_id IS NULL"
    " THEN EXISTS (SELECT 1 FROM platform_role p WHERE p.user_id = a.user_id AND p.role = 'Support')"
    " ELSE EXISTS (SELECT 1 FROM org_hierarchy h JOIN group_role_membership g ON g.ancestor_org_id = h.ancestor_org_id"
    " WHERE h.ancestor_org_id = a.via_org_id AND h.descendant_org_id = a.org_id AND g.user_id = a.user_id"
    " AND g.role = 'GroupSupport') END"
)


class ShownAssist(NamedTuple):
    """An assist session as the organisation's list shows it, with the helper's address."""

    assist: AssistSession
    email: str


async def insert_assist(tx: Tx, assist: AssistSession) -> None:
    """Keep a new assist session."""
    names = [name.strip() for name in ASSIST.split(",")]
    places = ", ".join(f"${place}" for place in range(1, len(names) + 1))
    await tx.execute(
        f"INSERT INTO assist_session ({ASSIST}) VALUES ({places})", *(getattr(assist, name) for name in names)
    )


async def lock_assist(tx: Tx, assist_session_id: UUID) -> AssistSession:
    """Lock an assist session until `tx` ends; raises NotFound."""
    row = await tx.fetchrow(
        f"SELECT {ASSIST} FROM assist_session WHERE assist_session_id = $1 FOR UPDATE", assist_session_id
    )
    if row is None:
        raise NotFound
    return AssistSession(*row)


async def lock_same_request(tx: Tx, asked: AssistSession) -> AssistSession | None:
    """Lock the helper's own request of the same content that is pending or approved, None without one."""
    row = await tx.fetchrow(
        f"SELECT {ASSIST} FROM assist_session WHERE user_id = $1 AND org_id = $2 AND mode = $3 AND purpose = $4"
        " AND reason = $5 AND ticket IS NOT DISTINCT FROM $6 AND ttl_minutes = $7 AND expires_at > $8"
        " AND status IN ('pending', 'approved') ORDER BY assist_session_id LIMIT 1 FOR UPDATE",
        asked.user_id,
        asked.org_id,
        asked.mode,
        asked.purpose,
        asked.reason,
        asked.ticket,
        asked.ttl_minutes,
        asked.requested_at,
    )
    return AssistSession(*row) if row else None


async def update_assist(tx: Tx, assist_session_id: UUID, changes: Mapping[str, Any]) -> AssistSession:
    """Change named columns of a locked assist session."""
    places = ", ".join(f"{name} = ${place}" for place, name in enumerate(changes, start=2))
    row = await tx.fetchrow(
        f"UPDATE assist_session SET {places} WHERE assist_session_id = $1 RETURNING {ASSIST}",
        assist_session_id,
        *changes.values(),
    )
    assert row is not None
    return AssistSession(*row)


async def update_begun(tx: Tx, begun: AssistSession) -> None:
    """Keep that an approved session has begun."""
    names = ("status", "session_id", "begun_at", "expires_at")
    await update_assist(tx, begun.assist_session_id, {name: getattr(begun, name) for name in names})


async def update_session_ended(tx: Tx, session_id: UUID) -> list[UUID]:
    """End the assist sessions of a helper's own session; give their ids."""
    return await _end(tx, " AND session_id = $3", session_id)


async def update_org_ended(tx: Tx, org_id: UUID) -> list[UUID]:
    """End all assist sessions in an organisation; give their ids."""
    return await _end(tx, " AND org_id = $3", org_id)


async def update_lost_of_user(tx: Tx, user_id: UUID) -> list[UUID]:
    """End a helper's assist sessions whose role is gone; give their ids."""
    return await _end(tx, f" AND user_id = $3{RIGHT_IS_GONE}", user_id)


async def update_lost_below(tx: Tx, org_id: UUID) -> list[UUID]:
    """End the assist sessions in a subtree that left the helper's group; give their ids."""
    below = "SELECT descendant_org_id FROM org_hierarchy WHERE ancestor_org_id = $3"
    return await _end(tx, f" AND via_org_id IS NOT NULL AND org_id IN ({below}){RIGHT_IS_GONE}", org_id)


async def _end(tx: Tx, condition: str, value: UUID) -> list[UUID]:
    rows = await tx.fetch(f"{END}{condition} RETURNING assist_session_id", tx.actor, tx.now, value)
    return sorted(row["assist_session_id"] for row in rows)


async def list_assists(tx: Tx, org_id: UUID, before: UUID | None, limit: int) -> list[ShownAssist]:
    """Give a page of an organisation's assist sessions, newest first."""
    columns = ", ".join(f"a.{name.strip()}" for name in ASSIST.split(","))
    rows = await tx.fetch(
        f'SELECT {columns}, u.email FROM assist_session a JOIN "user" u ON u.user_id = a.user_id'
        " WHERE a.org_id = $1 AND ($2::uuid IS NULL OR a.assist_session_id < $2)"
        " ORDER BY a.assist_session_id DESC LIMIT $3",
        org_id,
        before,
        limit,
    )
    return [ShownAssist(AssistSession(*row[:-1]), row[-1]) for row in (tuple(row) for row in rows)]


async def get_policy(tx: Tx, org_id: UUID) -> tuple[str, str]:
    """Give an organisation's assist policy, which stays until `tx` ends, and its name; raises NotFound."""
    row = await tx.fetchrow(
        "SELECT assist_policy, legal_name FROM organization WHERE org_id = $1 FOR SHARE", org_id
    )
    if row is None:
        raise NotFound
    return row["assist_policy"], row["legal_name"]
