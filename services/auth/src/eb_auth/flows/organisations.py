"""Organisations and who belongs to them. Rule: docs/rules/identity.md, Hierarchy."""

from __future__ import annotations

from uuid import UUID

from eb_kit.tx import Tx

from ..domain.orgs import Org
from ..store import assist, hierarchy, members, orgs, sign_in
from . import assisting


async def found_org(tx: Tx, org: Org, user_id: UUID) -> Org:
    """Keep a new organisation with its creator as Admin, and announce it; raises OrgSlugTaken."""
    await orgs.insert_org(tx, org)
    member = await members.insert_member(tx, org.org_id, user_id, "Admin")
    await sign_in.update_default_org(tx, user_id, org.org_id)
    await tx.announce(await orgs.get_org_fact(tx, org), member)
    return org


async def join(tx: Tx, org_id: UUID, user_id: UUID, role: str) -> None:
    """Make somebody a member, unless they are one; the caller holds the organisation's row."""
    if await members.lock_role(tx, org_id, user_id) is None:
        await tx.announce(await members.insert_member(tx, org_id, user_id, role))
        await sign_in.update_default_org(tx, user_id, org_id)


async def move_org(tx: Tx, org_id: UUID, parent_id: UUID | None) -> Org:
    """Hang a subtree below another parent, or below none; the caller holds the roots and has checked the place.

    Assist sessions by a group role end where the group is left.
    """
    org = await announce_org(tx, await hierarchy.update_parent(tx, org_id, parent_id))
    await assisting._void_assists(tx, await assist.update_lost_below(tx, org_id))
    return org


async def announce_org(tx: Tx, org: Org) -> Org:
    """Announce the state of an organisation that changed."""
    await tx.announce(await orgs.get_org_fact(tx, org))
    return org
