"""Claims: make, show, list, renew, revoke."""

from __future__ import annotations

from uuid import UUID

from aiohttp import web

from eb_contracts.errors import Fault
from eb_kit.access import caller, reach
from eb_kit.problems import ParameterInvalid
from eb_kit.service import CONTEXT
from eb_kit.tx import begin
from eb_kit.web import created, no_content, ok, page_of, path_uuid, read_body, read_cursor, read_query

from .. import flows
from ..domain.errors import (
    ClaimExists,
    ClaimNotPending,
    DomainInvalid,
    DomainIsAddress,
    DomainIsFreeMail,
    DomainIsPlatform,
    DomainIsPublicSuffix,
    DomainSingleLabel,
    DomainUnderscore,
    WildcardNotOrganizational,
)
from ..store import claims as store
from .routes import routes
from .shapes import ClaimList, ClaimView, CreateClaim

STAFF = ("Operator", "Finance", "Support")
CLAIMANTS = frozenset({"Admin", "GroupAdmin", "Operator"})
REFUSED_DOMAINS = (
    DomainInvalid,
    DomainUnderscore,
    DomainSingleLabel,
    DomainIsAddress,
    DomainIsPublicSuffix,
    DomainIsFreeMail,
    DomainIsPlatform,
)


def _may_claim(request: web.Request, org_id: UUID) -> bool:
    """Say whether the caller may claim for the organisation, and so may see how to prove."""
    names = caller(request).names_in(org_id, request.app[CONTEXT].directory)
    return not names.isdisjoint(CLAIMANTS)


@routes.post(
    "/verify/claims",
    body=CreateClaim,
    answer=ClaimView,
    status=201,
    stores_secret=True,
    errors=(*REFUSED_DOMAINS, WildcardNotOrganizational, ClaimExists),
)
async def create_claim(request: web.Request) -> web.Response:
    """Claim a domain for an organisation; 201 with the claim and its token, also where others claim it too."""
    body = await read_body(request, CreateClaim)
    await reach(request, body.org_id)
    async with begin(request) as tx:
        record, token = await flows.make_claim(tx, body.org_id, body.domain, body.wildcard)
        return tx.answer(created(ClaimView.of(record, may_claim=True, token=token)))


@routes.get("/verify/claims", query=ClaimList, answer=list[ClaimView])
async def list_claims(request: web.Request) -> web.Response:
    """List claims of an organisation, newest first; staff may leave it out."""
    query = read_query(request, ClaimList)
    after = read_cursor(request, query) or {}
    if query.org_id is not None:
        await reach(request, query.org_id)
    elif not caller(request).has_role(*STAFF):
        raise ParameterInvalid(faults=(Fault("/org_id", "required", "Say of which organisation."),))
    async with begin(request) as tx:
        found = await store.list_claims(
            tx, query.org_id, query.status, after.get("claim_id"), query.limit + 1
        )
    views = [ClaimView.of(one, may_claim=_may_claim(request, one.claim.org_id)) for one in found]
    return page_of(request, query, views, lambda view: {"claim_id": view.claim_id})


@routes.get("/verify/claims/{claim_id}", answer=ClaimView)
async def show_claim(request: web.Request) -> web.Response:
    """Show a claim; how to prove it only to who may claim."""
    async with begin(request) as tx:
        record = await store.get_claim(tx, path_uuid(request, "claim_id"))
    await reach(request, record.claim.org_id)
    return ok(ClaimView.of(record, may_claim=_may_claim(request, record.claim.org_id)))


@routes.delete("/verify/claims/{claim_id}")
async def revoke_claim(request: web.Request) -> web.Response:
    """Revoke a claim, verified or not; 204, also when it was revoked already."""
    async with begin(request) as tx:
        record = await store.get_claim(tx, path_uuid(request, "claim_id"))
        await reach(request, record.claim.org_id)
        await flows.revoke_claim(tx, record.claim)
    return no_content()


@routes.post(
    "/verify/claims/{claim_id}:resend", answer=ClaimView, stores_secret=True, errors=(ClaimNotPending,)
)
async def renew_challenge(request: web.Request) -> web.Response:
    """Give an open claim a new token and address; the old ones prove nothing any more."""
    async with begin(request) as tx:
        record = await store.get_claim(tx, path_uuid(request, "claim_id"))
        await reach(request, record.claim.org_id)
        record, token = await flows.renew_challenge(tx, record.claim.claim_id)
        return tx.answer(ok(ClaimView.of(record, may_claim=True, token=token)))
