"""Doors that change who stands below whom: link with consent, detach, move."""

from __future__ import annotations

from uuid import UUID

from aiohttp import web

from eb_contracts.errors import NotFound
from eb_contracts.ids import new_id
from eb_kit.access import names_anywhere_in, reach
from eb_kit.policy import row_of
from eb_kit.tx import Tx, begin
from eb_kit.web import accepted, created, ok, path_uuid, read_body

from ..domain.errors import (
    AlreadyHasParent,
    AlreadyRoot,
    Cycle,
    LinkNotPending,
    MaxDepth,
    SelfParent,
    SubtreeTooLarge,
)
from ..domain.hierarchy import (
    LINK_LIFETIME,
    OrgLink,
    Relative,
    check_link,
    check_place,
    check_size,
    is_open,
)
from ..domain.mails import ORG_LINK
from ..domain.orgs import Org
from ..flows import mails, organisations
from ..settings import settings_of
from ..store import hierarchy, orgs
from .rights import must_hold, must_reach_all, must_reach_one
from .routes import routes
from .shapes import OrgView, RelativeView
from .tree_shapes import MoveOrg, OrgLinkView

PLACE_REFUSALS = (NotFound, SelfParent, Cycle, MaxDepth, SubtreeTooLarge)
LINK_REFUSALS = (*PLACE_REFUSALS, AlreadyHasParent)
DECIDERS = row_of("auth", "POST", "/org-links/{org_link_id}:accept")


async def link_child(request: web.Request, parent_id: UUID, child_id: UUID) -> web.Response:
    """Link an existing root below a parent that the caller may change: 201 with consent, else 202 and a request.

    Any root may be asked, also one that the caller can't see; what has another parent is there only for who
    sees it. The same parent again is 200 and changes nothing.
    """
    async with begin(request) as tx:
        names = await names_anywhere_in(request, child_id, tx.connection)
        child = await _lock_child(tx, parent_id, child_id, is_visible=bool(names))
        if child.parent_org_id == parent_id:
            return tx.answer(ok(_view(child, names)))
        await _check_link(tx, child, parent_id)
        if names & DECIDERS:
            return tx.answer(created(OrgView.of(await organisations.move_org(tx, child_id, parent_id))))
        return tx.answer(accepted(OrgLinkView.of(await _ask(tx, parent_id, child))))


async def _lock_child(tx: Tx, parent_id: UUID, child_id: UUID, *, is_visible: bool) -> Org:
    """Lock both trees and give the child; NotFound where a hidden one stands below somebody else."""
    await hierarchy.lock_roots(tx, parent_id, child_id)
    child = await orgs.get_org(tx, child_id)
    if not is_visible and child.parent_org_id not in (None, parent_id):
        raise NotFound
    return child


async def _check_link(tx: Tx, child: Org, parent_id: UUID) -> None:
    shape = await hierarchy.get_shape(tx, child.org_id, parent_id)
    check_link(child.org_id, child.parent_org_id, parent_id, shape, settings_of(tx).most_moved_pairs)


async def _ask(tx: Tx, parent_id: UUID, child: Org) -> OrgLink:
    """Ask the child's Admins, unless they are asked already; they hear of it by mail."""
    expires_at = tx.now + LINK_LIFETIME
    asked = OrgLink(
        new_id(),
        parent_id,
        child.org_id,
        "pending",
        tx.actor,
        tx.now,
        expires_at,
        decided_by=None,
        decided_at=None,
    )
    link, is_new = await hierarchy.insert_link_once(tx, asked)
    if is_new:
        parent = await orgs.get_org(tx, parent_id)
        facts = {
            "org_name": child.legal_name,
            "parent_name": parent.legal_name,
            "org_link_id": str(link.org_link_id),
            "expires_at": f"{expires_at:%Y-%m-%d %H:%M} UTC",
        }
        await mails.queue_for_admins(tx, child.org_id, ORG_LINK, facts, expires_at)
    return link


def _view(org: Org, names: frozenset[str]) -> OrgView | RelativeView:
    """Show an organisation whole only to who has a right there."""
    if names:
        return OrgView.of(org)
    return RelativeView.of(Relative(org.org_id, org.parent_org_id, org.legal_name, 1))


@routes.post("/org-links/{org_link_id}:accept", answer=OrgLinkView, errors=(*LINK_REFUSALS, LinkNotPending))
async def accept_link(request: web.Request) -> web.Response:
    """Agree to become a child: the child's Admin; 200 with the request, again too."""
    async with begin(request) as tx:
        link = await _lock_link(request, tx)
        if is_open(link, "accepted", tx.now):
            child = await orgs.get_org(tx, link.child_org_id)
            if child.parent_org_id != link.parent_org_id:
                await _check_link(tx, child, link.parent_org_id)
                await organisations.move_org(tx, child.org_id, link.parent_org_id)
            link = await hierarchy.update_link(tx, link.org_link_id, "accepted", tx.now)
        return tx.answer(ok(OrgLinkView.of(link)))


@routes.post("/org-links/{org_link_id}:decline", answer=OrgLinkView, errors=(NotFound, LinkNotPending))
async def decline_link(request: web.Request) -> web.Response:
    """Refuse to become a child: the child's Admin; 200 with the request, again too."""
    async with begin(request) as tx:
        link = await _lock_link(request, tx)
        if is_open(link, "declined", tx.now):
            link = await hierarchy.update_link(tx, link.org_link_id, "declined", tx.now)
        return tx.answer(ok(OrgLinkView.of(link)))


async def _lock_link(request: web.Request, tx: Tx) -> OrgLink:
    """Give a request that the caller may answer, with both trees locked: who asks and answers takes turns."""
    link = await hierarchy.get_link(tx, path_uuid(request, "org_link_id"))
    await reach(request, link.child_org_id)
    await hierarchy.lock_roots(tx, link.parent_org_id, link.child_org_id)
    return await hierarchy.get_link(tx, link.org_link_id)


@routes.post(
    "/orgs/{org_id}:detach", answer=OrgView | RelativeView, errors=(NotFound, AlreadyRoot, SubtreeTooLarge)
)
async def detach_org(request: web.Request) -> web.Response:
    """Make an organisation, with all below it, a tree of its own: its own Admin or its parent's; 200 with it."""
    org_id = path_uuid(request, "org_id")
    async with begin(request) as tx:
        before = await orgs.get_org(tx, org_id)
        await _must_detach(request, tx, before)
        await hierarchy.lock_roots(tx, org_id)
        org = await orgs.get_org(tx, org_id)
        if org.parent_org_id != before.parent_org_id:
            await _must_detach(request, tx, org)
        if org.parent_org_id is None:
            raise AlreadyRoot
        check_size(await hierarchy.get_shape(tx, org_id, None), settings_of(tx).most_moved_pairs)
        names = await names_anywhere_in(request, org_id, tx.connection)
        return tx.answer(ok(_view(await organisations.move_org(tx, org_id, None), names)))


async def _must_detach(request: web.Request, tx: Tx, org: Org) -> None:
    """Refuse who may change neither side: before the locks, and under them where the parent became another."""
    sides = [each for each in (org.org_id, org.parent_org_id) if each is not None]
    await must_reach_one(request, sides, tx.connection)


@routes.post("/orgs/{org_id}:move", body=MoveOrg, answer=OrgView, errors=PLACE_REFUSALS)
async def move_org(request: web.Request) -> web.Response:
    """Hang an organisation, with all below it, below another parent; 200 with it, again too.

    Needs rights on the organisation, its old parent and the new one.
    """
    org_id = path_uuid(request, "org_id")
    await must_hold(request, org_id)
    body = await read_body(request, MoveOrg)
    async with begin(request) as tx:
        before = await orgs.get_org(tx, org_id)
        await _must_move(request, tx, before, body.parent_org_id)
        await hierarchy.lock_roots(tx, org_id, body.parent_org_id)
        org = await orgs.get_org(tx, org_id)
        if org.parent_org_id != before.parent_org_id:
            await _must_move(request, tx, org, body.parent_org_id)
        if org.parent_org_id != body.parent_org_id:
            shape = await hierarchy.get_shape(tx, org_id, body.parent_org_id)
            check_place(org_id, body.parent_org_id, shape, settings_of(tx).most_moved_pairs)
            org = await organisations.move_org(tx, org_id, body.parent_org_id)
        return tx.answer(ok(OrgView.of(org)))


async def _must_move(request: web.Request, tx: Tx, org: Org, parent_id: UUID) -> None:
    """Refuse who may not change all three places: before the locks, and under them where one became another."""
    places = {each for each in (org.org_id, org.parent_org_id, parent_id) if each is not None}
    await must_reach_all(request, places, tx.connection)
