"""Doors of the hierarchy of organisations."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from uuid import UUID

from aiohttp import web

from eb_contracts.errors import NotFound
from eb_kit.access import caller, reach
from eb_kit.paging import page_of, read_cursor
from eb_kit.tx import Tx, begin
from eb_kit.web import Page, body_of, created, path_uuid, read_json, read_query

from ..domain.errors import OrgSlugTaken
from ..domain.hierarchy import Relative, child_depth
from ..flows import organisations
from ..store import hierarchy, orgs
from .links import LINK_REFUSALS, link_child
from .orgs import new_org
from .routes import routes
from .shapes import CreateOrg, OrgView, RelativeView
from .tree_shapes import LinkOrg, OrgLinkView

Lister = Callable[[Tx, UUID, UUID | None, int], Awaitable[list[Relative]]]


@routes.post(
    "/orgs/{org_id}/children",
    body=CreateOrg | LinkOrg,
    answer=OrgView | RelativeView | OrgLinkView,
    status=201,
    other_statuses=(200, 202),
    errors=(*LINK_REFUSALS, OrgSlugTaken),
)
async def add_child(request: web.Request) -> web.Response:
    """Create an organisation below another (201 with it; its creator is its Admin), or link one that is a root.

    A link is 201 where the caller is Admin of both, else 202 with a request that the child's Admin answers, and 200
    where it is a child of this one already.
    """
    parent_id = path_uuid(request, "org_id")
    await reach(request, parent_id)
    value = await read_json(request)
    if isinstance(value, dict) and "link_org_id" in value:
        return await link_child(request, parent_id, body_of(value, LinkOrg).link_org_id)
    return await _create_child(request, parent_id, body_of(value, CreateOrg))


async def _create_child(request: web.Request, parent_id: UUID, body: CreateOrg) -> web.Response:
    """Create a child. Billing address and time zone come from the parent unless given, the country always."""
    user_id = caller(request).user_id
    assert user_id is not None
    async with begin(request) as tx:
        await hierarchy.lock_roots(tx, parent_id)
        child_depth(await hierarchy.get_depth(tx, parent_id))
        parent = await orgs.get_org(tx, parent_id)
        org = await organisations.found_org(tx, new_org(tx, body, parent.billing_email, parent), user_id)
        return tx.answer(created(OrgView.of(org)))


@routes.get("/orgs/{org_id}/children", query=Page, answer=list[RelativeView], errors=(NotFound,))
async def list_children(request: web.Request) -> web.Response:
    """List the organisations directly below one, newest first."""
    return await _page_below(request, hierarchy.list_children)


@routes.get("/orgs/{org_id}/descendants", query=Page, answer=list[RelativeView], errors=(NotFound,))
async def list_descendants(request: web.Request) -> web.Response:
    """List all organisations below one with their depth, newest first."""
    return await _page_below(request, hierarchy.list_descendants)


async def _page_below(request: web.Request, list_below: Lister) -> web.Response:
    org_id = path_uuid(request, "org_id")
    await reach(request, org_id)
    query = read_query(request, Page)
    last = read_cursor(request, query)
    async with begin(request) as tx:
        found = await list_below(tx, org_id, last["org_id"] if last else None, query.limit + 1)
    views = [RelativeView.of(relative) for relative in found]
    return page_of(request, query, views, lambda view: {"org_id": view.org_id})


@routes.get("/orgs/{org_id}/ancestors", query=Page, answer=list[RelativeView], errors=(NotFound,))
async def list_ancestors(request: web.Request) -> web.Response:
    """List the organisations above one with their distance, the nearest first."""
    org_id = path_uuid(request, "org_id")
    await reach(request, org_id)
    query = read_query(request, Page)
    last = read_cursor(request, query)
    async with begin(request) as tx:
        found = await hierarchy.list_ancestors(tx, org_id, last["depth"] if last else 0, query.limit + 1)
    views = [RelativeView.of(relative) for relative in found]
    return page_of(request, query, views, lambda view: {"depth": view.depth})
