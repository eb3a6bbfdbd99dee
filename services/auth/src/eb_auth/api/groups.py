"""Doors of group roles: they reach an organisation and every one below it."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from aiohttp import web

from eb_contracts.errors import Fault, NotFound
from eb_kit.access import reach
from eb_kit.paging import page_of, read_cursor
from eb_kit.problems import BodyInvalid
from eb_kit.tx import Tx, begin
from eb_kit.web import Page, created, no_content, ok, path_uuid, read_body, read_query

from ..flows import assisting, revoking
from ..store import members, orgs
from .routes import routes
from .tree_shapes import GiveGroupRole, GroupRoleView

NOT_A_MEMBER = Fault("/user_id", "not_a_member", "Must be a member of this organisation.")


@routes.post(
    "/groups/{ancestor_org_id}/roles",
    body=GiveGroupRole,
    answer=GroupRoleView,
    status=201,
    other_statuses=(200,),
    errors=(NotFound,),
    step_up=True,
)
async def give_group_role(request: web.Request) -> web.Response:
    """Give a member a group role: 201 with it; in the place of another one 200. Tokens with the old one are void."""
    org_id = path_uuid(request, "ancestor_org_id")
    await reach(request, org_id)
    body = await read_body(request, GiveGroupRole)
    async with begin(request) as tx:
        before = await _lock(tx, org_id, body.user_id)
        if before is None or before.role != body.role:
            await tx.announce(await members.update_group_role(tx, org_id, body.user_id, body.role))
        if before is not None and before.role != body.role:
            await _void(tx, org_id, body.user_id)
        given = await members.find_group_role(tx, org_id, body.user_id)
        assert given is not None
        view = GroupRoleView.of(given)
        return tx.answer(ok(view) if before else created(view))


async def _lock(tx: Tx, org_id: UUID, user_id: UUID) -> members.GroupRole | None:
    """Lock an organisation and a membership and give its group role; BodyInvalid where there is no membership."""
    await orgs.lock_org(tx, org_id)
    try:
        await members.lock_member(tx, org_id, user_id)
    except NotFound:
        raise BodyInvalid(faults=(NOT_A_MEMBER,)) from None
    return await members.find_group_role(tx, org_id, user_id)


async def _void(tx: Tx, org_id: UUID, user_id: UUID) -> None:
    """Void what hangs on a role that was taken: tokens, and assist sessions begun by it."""
    await revoking.void_tokens(tx, f"member:{org_id}:{user_id}")
    await assisting.end_lost_assists(tx, user_id)


@routes.get("/groups/{ancestor_org_id}/roles", query=Page, answer=list[GroupRoleView], errors=(NotFound,))
async def list_group_roles(request: web.Request) -> web.Response:
    """List the group roles given on an organisation itself, newest first."""
    org_id = path_uuid(request, "ancestor_org_id")
    await reach(request, org_id)
    query = read_query(request, Page)
    last = read_cursor(request, query)
    before: tuple[datetime, UUID] | None = (last["created_at"], last["user_id"]) if last else None
    async with begin(request) as tx:
        found = await members.list_group_roles(tx, org_id, before, query.limit + 1)
    views = [GroupRoleView.of(role) for role in found]
    return page_of(
        request, query, views, lambda view: {"created_at": view.created_at, "user_id": view.user_id}
    )


@routes.delete("/groups/{ancestor_org_id}/roles/{user_id}", errors=(NotFound,), step_up=True)
async def take_group_role(request: web.Request) -> web.Response:
    """Take a group role and void its tokens; 204."""
    org_id, user_id = path_uuid(request, "ancestor_org_id"), path_uuid(request, "user_id")
    await reach(request, org_id)
    async with begin(request) as tx:
        await orgs.lock_org(tx, org_id)
        await members.lock_member(tx, org_id, user_id)
        if await members.find_group_role(tx, org_id, user_id) is None:
            raise NotFound
        await tx.announce(await members.delete_group_role(tx, org_id, user_id))
        await _void(tx, org_id, user_id)
        return tx.answer(no_content())
