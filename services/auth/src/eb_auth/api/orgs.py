"""Doors of organisations and their projects."""

from __future__ import annotations

from typing import Any

from aiohttp import web

from eb_contracts.errors import NotFound
from eb_contracts.ids import new_id
from eb_kit.access import Caller, ContextMismatch, Forbidden, caller, reach, require_recent_sign_in
from eb_kit.paging import page_of, read_cursor
from eb_kit.tx import Tx, begin
from eb_kit.web import Page, created, ok, path_uuid, read_body, read_query

from ..domain.errors import OrgSlugTaken, TooManyAttempts
from ..domain.orgs import DEFAULT_COUNTRY, DEFAULT_TIMEZONE, Org, Project, project_fact
from ..flows import assisting, limits, organisations
from ..store import orgs, sign_in
from .routes import routes
from .shapes import (
    CreateOrg,
    CreateProject,
    OrgView,
    ProjectView,
    PublicOrgView,
    UpdateOrg,
    UpdateProject,
)

COST_CENTER_ROLES = frozenset({"Admin", "GroupBilling", "Operator"})
PROJECT_ROLES = frozenset({"User", "Admin", "GroupAdmin", "Operator", "assist_rw"})
OWN_ADMINS = frozenset({"Admin"})


@routes.post("/orgs", body=CreateOrg, answer=OrgView, status=201, errors=(OrgSlugTaken, TooManyAttempts))
async def create_org(request: web.Request) -> web.Response:
    """Create an organisation that is a root; 201 with it. Its creator is its Admin."""
    body = await read_body(request, CreateOrg)
    user_id = caller(request).user_id
    assert user_id is not None
    async with begin(request) as tx:
        await limits.count(tx, "orgs", f"user {user_id}", limits.ORGS_PER_USER)
        user = await sign_in.get_user(tx, user_id)
        org = await organisations.found_org(tx, new_org(tx, body, user.email), user_id)
        return tx.answer(created(OrgView.of(org)))


def new_org(tx: Tx, body: CreateOrg, billing_email: str, parent: Org | None = None) -> Org:
    """Make the organisation a request describes; what it leaves out comes from its parent, if it has one."""
    return Org(
        org_id=new_id(),
        legal_name=body.legal_name,
        org_slug=body.org_slug,
        billing_email=body.billing_email or billing_email,
        default_timezone=body.default_timezone or (parent.default_timezone if parent else DEFAULT_TIMEZONE),
        tax_id=body.tax_id,
        visibility=body.visibility,
        country=parent.country if parent else DEFAULT_COUNTRY,
        parent_org_id=parent.org_id if parent else None,
        created_at=tx.now,
        version=1,
    )


@routes.get("/orgs/{org_id}", answer=OrgView | PublicOrgView, errors=(NotFound,))
async def get_org(request: web.Request) -> web.Response:
    """Give an organisation; of one that shows itself to them a stranger who is signed in sees name and slug.

    `public` shows it to everybody, `partners` to whose context is the organisation of a partner.
    """
    org_id = path_uuid(request, "org_id")
    refusal: NotFound | ContextMismatch | None = None
    try:
        await reach(request, org_id)
    except (NotFound, ContextMismatch) as outside:
        refusal = outside
    async with begin(request) as tx:
        # before it is known whether there is such an organisation: the time tells nothing
        shown = await _shown_to(tx, caller(request)) if refusal else ()
        org = await orgs.get_org(tx, org_id)
    if refusal is None:
        return ok(OrgView.of(org))
    if org.visibility not in shown:
        raise refusal
    return ok(PublicOrgView.of(org))


async def _shown_to(tx: Tx, who: Caller) -> tuple[str, ...]:
    """Name the visibilities that show an organisation to a stranger: people only, not keys or helpers."""
    if who.kind != "user":
        return ()
    return ("public", "partners") if await orgs.is_partner(tx, who.org_id) else ("public",)


@routes.patch(
    "/orgs/{org_id}", body=UpdateOrg, answer=OrgView, errors=(NotFound, OrgSlugTaken), may_step_up=True
)
async def update_org(request: web.Request) -> web.Response:
    """Change an organisation's settings; 200 with it. The country is the Operator's to change.

    Whether and how it may be assisted is for its own Admins, recently signed in; `off` ends what is running.
    """
    org_id = path_uuid(request, "org_id")
    await reach(request, org_id)
    body = await read_body(request, UpdateOrg)
    if "country" in body.model_fields_set and not caller(request).has_role("Operator"):
        raise Forbidden("Only the platform's Operator changes the country.")
    if "assist_policy" in body.model_fields_set:
        await reach(request, org_id, roles=OWN_ADMINS)
        require_recent_sign_in(request)
    async with begin(request) as tx:
        org = await orgs.lock_org(tx, org_id)
        if changes := _changes(org, body):
            org = await organisations.announce_org(tx, await orgs.update_org(tx, org_id, changes))
            if changes.get("assist_policy") == "off":
                await assisting.end_assists_in(tx, org_id)
        return tx.answer(ok(OrgView.of(org)))


def _changes(before: Any, body: UpdateOrg | UpdateProject) -> dict[str, Any]:
    """Give the members of the patch that differ from what is."""
    given = {name: getattr(body, name) for name in sorted(body.model_fields_set)}
    return {name: value for name, value in given.items() if getattr(before, name) != value}


@routes.post(
    "/orgs/{org_id}/projects", body=CreateProject, answer=ProjectView, status=201, errors=(NotFound,)
)
async def create_project(request: web.Request) -> web.Response:
    """Create a project; 201 with it."""
    org_id = path_uuid(request, "org_id")
    await reach(request, org_id)
    body = await read_body(request, CreateProject)
    async with begin(request) as tx:
        project = Project(new_id(), org_id, body.name, None, tx.now, 1)
        await orgs.insert_project(tx, project)
        await tx.announce(project_fact(project))
        return tx.answer(created(ProjectView.of(project)))


@routes.get("/orgs/{org_id}/projects", query=Page, answer=list[ProjectView], errors=(NotFound,))
async def list_projects(request: web.Request) -> web.Response:
    """List an organisation's projects, newest first."""
    org_id = path_uuid(request, "org_id")
    await reach(request, org_id)
    query = read_query(request, Page)
    last = read_cursor(request, query)
    async with begin(request) as tx:
        found = await orgs.list_projects(tx, org_id, last["project_id"] if last else None, query.limit + 1)
    views = [ProjectView.of(project) for project in found]
    return page_of(request, query, views, lambda view: {"project_id": view.project_id})


@routes.patch(
    "/orgs/{org_id}/projects/{project_id}", body=UpdateProject, answer=ProjectView, errors=(NotFound,)
)
async def update_project(request: web.Request) -> web.Response:
    """Change a project; 200 with it. Who may set the cost center and who the rest differ."""
    org_id = path_uuid(request, "org_id")
    await reach(request, org_id)
    body = await read_body(request, UpdateProject)
    if "cost_center_id" in body.model_fields_set:
        await reach(request, org_id, roles=COST_CENTER_ROLES)
    if body.model_fields_set - {"cost_center_id"}:
        await reach(request, org_id, roles=PROJECT_ROLES)
    async with begin(request) as tx:
        project = await orgs.lock_project(tx, org_id, path_uuid(request, "project_id"))
        if changes := _changes(project, body):
            project = await orgs.update_project(tx, project.project_id, changes)
            await tx.announce(project_fact(project))
        return tx.answer(ok(ProjectView.of(project)))
