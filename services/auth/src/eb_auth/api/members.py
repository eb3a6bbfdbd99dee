"""Doors of an organisation's members."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from aiohttp import web

from eb_contracts.errors import NotFound
from eb_kit.access import caller, reach, require_recent_sign_in
from eb_kit.paging import page_of, read_cursor
from eb_kit.tx import Tx, begin
from eb_kit.web import Page, no_content, ok, path_uuid, read_body, read_query

from ..domain.errors import LastAdmin
from ..domain.members import Member, keep_an_admin
from ..flows import assisting, revoking
from ..store import members, orgs, sign_in
from .routes import routes
from .shapes import MemberView, UpdateMember

OTHERS_ROLES = frozenset({"Admin", "GroupAdmin", "Operator"})


@routes.get("/orgs/{org_id}/members", query=Page, answer=list[MemberView], errors=(NotFound,))
async def list_members(request: web.Request) -> web.Response:
    """List an organisation's members, newest first."""
    org_id = path_uuid(request, "org_id")
    await reach(request, org_id)
    query = read_query(request, Page)
    last = read_cursor(request, query)
    before: tuple[datetime, UUID] | None = (last["created_at"], last["user_id"]) if last else None
    async with begin(request) as tx:
        found = await members.list_members(tx, org_id, before, query.limit + 1)
    views = [MemberView.of(member) for member in found]
    return page_of(
        request, query, views, lambda view: {"created_at": view.created_at, "user_id": view.user_id}
    )


@routes.patch(
    "/orgs/{org_id}/members/{user_id}",
    body=UpdateMember,
    answer=MemberView,
    errors=(NotFound, LastAdmin),
    step_up=True,
)
async def update_member(request: web.Request) -> web.Response:
    """Give a member another role; 200 with the member. Tokens with the old role are void."""
    org_id = path_uuid(request, "org_id")
    await reach(request, org_id)
    body = await read_body(request, UpdateMember)
    async with begin(request) as tx:
        member = await _lock_for_change(tx, org_id, path_uuid(request, "user_id"), body.role)
        if member.role != body.role:
            await tx.announce(await members.update_member_role(tx, org_id, member.user_id, body.role))
            await revoking.void_tokens(tx, f"member:{org_id}:{member.user_id}")
            member = await members.lock_member(tx, org_id, member.user_id)
        return tx.answer(ok(MemberView.of(member)))


@routes.delete("/orgs/{org_id}/members/{user_id}", errors=(NotFound, LastAdmin), may_step_up=True)
async def remove_member(request: web.Request) -> web.Response:
    """End a membership and void its tokens; 204. A User may remove only themselves, and without a recent sign-in."""
    org_id, user_id = path_uuid(request, "org_id"), path_uuid(request, "user_id")
    is_own = user_id == caller(request).user_id
    await reach(request, org_id, roles=None if is_own else OTHERS_ROLES)
    if not is_own:
        require_recent_sign_in(request)
    async with begin(request) as tx:
        await _lock_for_change(tx, org_id, user_id, None)
        await tx.announce(await members.delete_member(tx, org_id, user_id))
        await sign_in.clear_default_org(tx, user_id, org_id)
        await revoking.void_tokens(tx, f"member:{org_id}:{user_id}")
        await assisting.end_lost_assists(tx, user_id)
        return tx.answer(no_content())


async def _lock_for_change(tx: Tx, org_id: UUID, user_id: UUID, new_role: str | None) -> Member:
    """Lock the organisation, then the membership, and refuse to take its last Admin; NotFound, LastAdmin.

    The organisation's row makes two Admins who demote each other take turns.
    """
    await orgs.lock_org(tx, org_id)
    member = await members.lock_member(tx, org_id, user_id)
    keep_an_admin(await members.list_admin_ids(tx, org_id), user_id, new_role)
    return member
