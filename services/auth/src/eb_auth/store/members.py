"""Memberships and platform roles."""

from __future__ import annotations

from datetime import datetime
from typing import NamedTuple
from uuid import UUID

import asyncpg

from eb_contracts.auth import MemberChanged
from eb_contracts.errors import NotFound
from eb_kit.tx import Tx

from ..domain.members import Member

MEMBER = "m.org_id, m.user_id, u.email, m.role, m.status, m.created_at"
FACTS = (
    "SELECT v.org_id, v.user_id, v.version, m.role, g.role AS group_role FROM member_version v"
    " LEFT JOIN membership m ON m.org_id = v.org_id AND m.user_id = v.user_id AND m.status = 'active'"
    " LEFT JOIN group_role_membership g ON g.ancestor_org_id = m.org_id AND g.user_id = m.user_id"
)
FIRST_MEMBER = f"{UUID(int=0)}:{UUID(int=0)}"
JOINED = 'membership m JOIN "user" u ON u.user_id = m.user_id'


class OwnMembership(NamedTuple):
    """A membership as its user sees it."""

    org_id: UUID
    org_slug: str
    legal_name: str
    role: str


async def insert_member(tx: Tx, org_id: UUID, user_id: UUID, role: str) -> MemberChanged:
    """Make a user an active member; give the fact."""
    await tx.execute(
        "INSERT INTO membership (org_id, user_id, role, status, created_at) VALUES ($1, $2, $3, 'active', $4)",
        org_id,
        user_id,
        role,
        tx.now,
    )
    return await _next_fact(tx, org_id, user_id)


async def _next_fact(tx: Tx, org_id: UUID, user_id: UUID) -> MemberChanged:
    """Count a change of somebody's roles in an organisation, and give what they are now as a fact.

    Versions go on where a membership ends and begins again.
    """
    await tx.execute(
        "INSERT INTO member_version AS v (org_id, user_id, version) VALUES ($1, $2, 1)"
        " ON CONFLICT (org_id, user_id) DO UPDATE SET version = v.version + 1",
        org_id,
        user_id,
    )
    row = await tx.fetchrow(f"{FACTS} WHERE v.org_id = $1 AND v.user_id = $2", org_id, user_id)
    assert row is not None
    return _fact(row)


def _fact(row: asyncpg.Record) -> MemberChanged:
    return MemberChanged.model_validate({**dict(row), "is_deleted": row["role"] is None})


async def list_member_facts(tx: Tx, after_id: str | None, limit: int) -> list[MemberChanged]:
    """Give memberships, ended ones too, in the order of their ids, for a snapshot."""
    org_id, user_id = (UUID(part) for part in (after_id or FIRST_MEMBER).split(":"))
    rows = await tx.fetch(
        f"{FACTS} WHERE (v.org_id, v.user_id) > ($1, $2) ORDER BY v.org_id, v.user_id LIMIT $3",
        org_id,
        user_id,
        limit,
    )
    return [_fact(row) for row in rows]


async def lock_member(tx: Tx, org_id: UUID, user_id: UUID) -> Member:
    """Lock a membership until `tx` ends; raises NotFound."""
    row = await tx.fetchrow(
        f"SELECT {MEMBER} FROM {JOINED} WHERE m.org_id = $1 AND m.user_id = $2 FOR UPDATE OF m",
        org_id,
        user_id,
    )
    if row is None:
        raise NotFound
    return Member(*row)


async def list_admin_ids(tx: Tx, org_id: UUID) -> frozenset[UUID]:
    """Give the active Admins; hold the organisation's row (`orgs.lock_org`) for the answer to stay true."""
    rows = await tx.fetch(
        "SELECT user_id FROM membership WHERE org_id = $1 AND role = 'Admin' AND status = 'active'", org_id
    )
    return frozenset(row["user_id"] for row in rows)


async def update_member_role(tx: Tx, org_id: UUID, user_id: UUID, role: str) -> MemberChanged:
    """Give a member another role; give the fact."""
    await tx.execute(
        "UPDATE membership SET role = $3 WHERE org_id = $1 AND user_id = $2", org_id, user_id, role
    )
    return await _next_fact(tx, org_id, user_id)


async def delete_member(tx: Tx, org_id: UUID, user_id: UUID) -> MemberChanged:
    """End a membership, and the group role that needs it; give the fact."""
    await tx.execute(
        "DELETE FROM group_role_membership WHERE ancestor_org_id = $1 AND user_id = $2", org_id, user_id
    )
    await tx.execute("DELETE FROM membership WHERE org_id = $1 AND user_id = $2", org_id, user_id)
    return await _next_fact(tx, org_id, user_id)


async def list_members(
    tx: Tx, org_id: UUID, before: tuple[datetime, UUID] | None, limit: int
) -> list[Member]:
    """Give a page of an organisation's members, newest first."""
    joined_before, user_before = before or (None, None)
    rows = await tx.fetch(
        f"SELECT {MEMBER} FROM {JOINED} WHERE m.org_id = $1"
        " AND ($2::timestamptz IS NULL OR (m.created_at, m.user_id) < ($2, $3::uuid))"
        " ORDER BY m.created_at DESC, m.user_id DESC LIMIT $4",
        org_id,
        joined_before,
        user_before,
        limit,
    )
    return [Member(*row) for row in rows]


async def list_own_memberships(tx: Tx, user_id: UUID, limit: int) -> list[OwnMembership]:
    """Give the newest organisations that a user is an active member of."""
    rows = await tx.fetch(
        "SELECT m.org_id, o.org_slug, o.legal_name, m.role FROM membership m JOIN organization o USING (org_id)"
        " WHERE m.user_id = $1 AND m.status = 'active' ORDER BY m.org_id DESC LIMIT $2",
        user_id,
        limit,
    )
    return [OwnMembership(*row) for row in rows]


class GroupRole(NamedTuple):
    """A role of a member that also reaches every organisation below."""

    ancestor_org_id: UUID
    user_id: UUID
    email: str
    role: str
    created_at: datetime


GROUP_ROLE = (
    "SELECT g.ancestor_org_id, g.user_id, u.email, g.role, g.created_at FROM group_role_membership g"
    ' JOIN "user" u ON u.user_id = g.user_id WHERE g.ancestor_org_id = $1'
)


async def find_group_role(tx: Tx, org_id: UUID, user_id: UUID) -> GroupRole | None:
    """Give somebody's group role on an organisation itself; hold their membership (`lock_member`) for it to stay."""
    row = await tx.fetchrow(f"{GROUP_ROLE} AND g.user_id = $2", org_id, user_id)
    return GroupRole(*row) if row else None


async def list_group_roles(
    tx: Tx, org_id: UUID, before: tuple[datetime, UUID] | None, limit: int
) -> list[GroupRole]:
    """Give a page of the group roles on an organisation, newest first."""
    given_before, user_before = before or (None, None)
    rows = await tx.fetch(
        f"{GROUP_ROLE} AND ($2::timestamptz IS NULL OR (g.created_at, g.user_id) < ($2, $3::uuid))"
        " ORDER BY g.created_at DESC, g.user_id DESC LIMIT $4",
        org_id,
        given_before,
        user_before,
        limit,
    )
    return [GroupRole(*row) for row in rows]


async def update_group_role(tx: Tx, org_id: UUID, user_id: UUID, role: str) -> MemberChanged:
    """Give a member a group role in the place of the one they have, if any; give the fact."""
    await tx.execute(
        "INSERT INTO group_role_membership (ancestor_org_id, user_id, role, created_at) VALUES ($1, $2, $3, $4)"
        " ON CONFLICT (ancestor_org_id, user_id) DO UPDATE SET role = excluded.role",
        org_id,
        user_id,
        role,
        tx.now,
    )
    return await _next_fact(tx, org_id, user_id)


async def delete_group_role(tx: Tx, org_id: UUID, user_id: UUID) -> MemberChanged:
    """Take a group role; give the fact."""
    await tx.execute(
        "DELETE FROM group_role_membership WHERE ancestor_org_id = $1 AND user_id = $2", org_id, user_id
    )
    return await _next_fact(tx, org_id, user_id)


async def list_admin_emails(tx: Tx, org_id: UUID, limit: int) -> list[str]:
    """Give the addresses of an organisation's Admins, who were so first."""
    rows = await tx.fetch(
        f"SELECT u.email FROM {JOINED} WHERE m.org_id = $1 AND m.role = 'Admin' AND m.status = 'active'"
        " ORDER BY m.created_at, m.user_id LIMIT $2",
        org_id,
        limit,
    )
    return [row["email"] for row in rows]


async def lock_role(tx: Tx, org_id: UUID, user_id: UUID) -> str | None:
    """Give a user's role in an organisation and keep it from changing until `tx` ends; None without one."""
    role: str | None = await tx.fetchval(
        "SELECT role FROM membership WHERE org_id = $1 AND user_id = $2 AND status = 'active' FOR SHARE",
        org_id,
        user_id,
    )
    return role


async def lock_platform_roles(tx: Tx, user_id: UUID) -> list[str]:
    """Give a user's platform roles, in order, and keep them until `tx` ends: who changes them locks the user."""
    await tx.execute('SELECT 1 FROM "user" WHERE user_id = $1 FOR SHARE', user_id)
    return await list_platform_roles(tx, user_id)


async def list_platform_roles(tx: Tx, user_id: UUID) -> list[str]:
    """Give a user's platform roles, in order."""
    rows = await tx.fetch("SELECT role FROM platform_role WHERE user_id = $1 ORDER BY role", user_id)
    return [row["role"] for row in rows]


async def insert_platform_role_once(tx: Tx, user_id: UUID, role: str) -> bool:
    """Give a user a platform role; tell whether it was new. Only the database's owner may: services can't."""
    tag = await tx.execute(
        "INSERT INTO platform_role (user_id, role, granted_by, granted_at) VALUES ($1, $2, $3, $4)"
        " ON CONFLICT DO NOTHING",
        user_id,
        role,
        tx.actor,
        tx.now,
    )
    return tag == "INSERT 0 1"


async def delete_platform_role(tx: Tx, user_id: UUID, role: str) -> bool:
    """Take a platform role from a user; tell whether they had it. Only the database's owner may."""
    await tx.execute('SELECT 1 FROM "user" WHERE user_id = $1 FOR UPDATE', user_id)
    tag = await tx.execute("DELETE FROM platform_role WHERE user_id = $1 AND role = $2", user_id, role)
    return tag == "DELETE 1"


async def update_invitation_email(tx: Tx, email: str, replacement: str) -> None:
    """Put another address in the place of one in all invitations; open ones end as revoked."""
    await tx.execute(
        "UPDATE invitation SET email = $2, consumed_at = coalesce(consumed_at, $3),"
        " outcome = coalesce(outcome, 'revoked')"
        " WHERE email = $1",
        email,
        replacement,
        tx.now,
    )
