"""Partners, commission rates, partners of record."""

from __future__ import annotations

from dataclasses import replace
from uuid import UUID

from aiohttp import web

from eb_contracts.errors import Fault, NotFound
from eb_contracts.ids import new_id
from eb_kit.access import reach
from eb_kit.inputs import Page
from eb_kit.problems import BodyInvalid
from eb_kit.tx import Tx, begin
from eb_kit.web import created, ok, page_of, path_uuid, read_body, read_cursor, read_query

from ..domain.attribution import PartnerOfRecord, check_range, por_status
from ..domain.errors import (
    AmountInvalid,
    OrgUnknown,
    PartnerUnknown,
    PctInvalid,
    PorOverlap,
    PorSubject,
    RangeEmpty,
    RateConflict,
)
from ..domain.partners import ALWAYS, CommissionRate, Partner, check_minima, check_pct, partner_fact
from ..store import accounts
from ..store import partners as store
from .routes import reach_list, routes
from .shapes import (
    CreatePartner,
    CreatePor,
    EndPor,
    PartnerView,
    PatchPartner,
    PorList,
    PorView,
    PutRate,
    RateList,
    RateView,
)

CLEARABLE = frozenset({"destination", "org_id"})
"""What of a partner a patch may take away."""


@routes.post(
    "/partners", body=CreatePartner, answer=PartnerView, status=201, errors=(AmountInvalid, OrgUnknown)
)
async def create_partner(request: web.Request) -> web.Response:
    """Create a partner with its first tier; 201 with it."""
    body = await read_body(request, CreatePartner)
    check_minima(body.min_payout)
    await _reach_org(request, body.org_id)
    async with begin(request) as tx:
        partner = Partner(
            partner_id=new_id(),
            name=body.name,
            tier=body.tier,
            tier_from=body.tier_from or ALWAYS,
            min_payout=body.min_payout,
            payout_provider=body.payout_provider,
            destination=body.destination,
            created_at=tx.now,
            org_id=body.org_id,
            version=1,
        )
        await store.insert_partner(tx, partner)
        await tx.announce(partner_fact(partner))
        return tx.answer(created(PartnerView.of(partner)))


async def _reach_org(request: web.Request, org_id: UUID | None) -> None:
    """Refuse an organisation that isn't there for the caller; raises OrgUnknown."""
    if org_id is None:
        return
    try:
        await reach(request, org_id)
    except NotFound:
        raise OrgUnknown.of(org_id) from None


@routes.get("/partners", query=Page, answer=list[PartnerView])
async def list_partners(request: web.Request) -> web.Response:
    """List partners, newest first."""
    query = read_query(request, Page)
    after = read_cursor(request, query) or {}
    async with begin(request) as tx:
        found = await store.list_partners(tx, after.get("partner_id"), query.limit + 1)
    return page_of(
        request, query, [PartnerView.of(one) for one in found], lambda v: {"partner_id": v.partner_id}
    )


@routes.patch(
    "/partners/{partner_id}", body=PatchPartner, answer=PartnerView, errors=(AmountInvalid, OrgUnknown)
)
async def patch_partner(request: web.Request) -> web.Response:
    """Change a partner; a new tier is effective-dated and leaves earlier charges alone."""
    body = await read_body(request, PatchPartner)
    _check_patch(body)
    await _reach_org(request, body.org_id)
    async with begin(request) as tx:
        partner = await store.lock_partner(tx, path_uuid(request, "partner_id"))
        if (patched := _patched(partner, body)) != partner:
            patched = replace(patched, version=partner.version + 1)
            await store.update_partner(tx, patched)
            await tx.announce(partner_fact(patched))
        if body.tier is not None:
            await store.put_tier(tx, partner.partner_id, body.tier, body.tier_from or tx.minute)
        return ok(PartnerView.of(await store.lock_partner(tx, partner.partner_id)))


def _check_patch(body: PatchPartner) -> None:
    """Refuse to remove what a partner must have, and an instant for no tier; raises BodyInvalid."""
    cleared = [name for name in body.model_fields_set - CLEARABLE if getattr(body, name) is None]
    if body.tier_from is not None and body.tier is None:
        cleared.append("tier")
    if cleared:
        faults = tuple(Fault(f"/{name}", "required", "Must have a value.") for name in sorted(set(cleared)))
        raise BodyInvalid(faults=faults)
    check_minima(body.min_payout or {})


def _patched(partner: Partner, body: PatchPartner) -> Partner:
    """Apply what was sent; the tier is put apart."""
    sent = body.model_fields_set - {"tier", "tier_from"}
    return replace(partner, **{name: getattr(body, name) for name in sent})


@routes.put(
    "/commission-rates",
    body=PutRate,
    answer=RateView,
    other_statuses=(201,),
    errors=(PctInvalid, RateConflict),
)
async def put_rate(request: web.Request) -> web.Response:
    """Say what a tier gets of a SKU from an instant on; 201 if new, 200 if it was so, 409 if it was otherwise."""
    body = await read_body(request, PutRate)
    check_pct(body.pct)
    rate = CommissionRate(body.partner_tier, body.sku, body.pct, body.effective_at)
    async with begin(request) as tx:
        is_new = await store.insert_rate_once(tx, rate)
    return created(RateView.of(rate)) if is_new else ok(RateView.of(rate))


@routes.get("/commission-rates", query=RateList, answer=list[RateView])
async def list_rates(request: web.Request) -> web.Response:
    """List commission rates, the latest in force first."""
    query = read_query(request, RateList)
    after = read_cursor(request, query)
    before = (after["effective_at"], after["partner_tier"], after["sku"]) if after else None
    async with begin(request) as tx:
        found = await store.list_rates(tx, query.partner_tier, query.sku, before, query.limit + 1)
    return page_of(
        request,
        query,
        [RateView.of(rate) for rate in found],
        lambda v: {"effective_at": v.effective_at, "partner_tier": v.partner_tier, "sku": v.sku},
    )


@routes.post(
    "/partner-of-record",
    body=CreatePor,
    answer=PorView,
    status=201,
    errors=(PorSubject, PorOverlap, PartnerUnknown, RangeEmpty),
)
async def create_por(request: web.Request) -> web.Response:
    """Make a partner the one of record of an organisation or billing account for a range of time; 201 with it."""
    body = await read_body(request, CreatePor)
    if (body.org_id is None) == (body.billing_account_id is None):
        raise PorSubject
    check_range(body.start_at, body.end_at)
    if body.org_id is not None:
        await reach(request, body.org_id)
    async with begin(request) as tx:
        await _reach_account(request, tx, body.billing_account_id)
        por = PartnerOfRecord(
            por_id=new_id(),
            org_id=body.org_id,
            billing_account_id=body.billing_account_id,
            partner_id=body.partner_id,
            start_at=body.start_at,
            end_at=body.end_at,
            status=por_status(body.end_at, tx.now),
            created_at=tx.now,
        )
        await store.insert_por(tx, por)
        return tx.answer(created(PorView.of(por, tx.now)))


async def _reach_account(request: web.Request, tx: Tx, billing_account_id: UUID | None) -> None:
    if billing_account_id is not None:
        await reach(request, (await accounts.get_account(tx, billing_account_id)).owner_org_id)


@routes.get("/partner-of-record", query=PorList, answer=list[PorView])
async def list_pors(request: web.Request) -> web.Response:
    """List partners of record, newest first, of an organisation or a billing account; staff may ask for all."""
    query = read_query(request, PorList)
    after = read_cursor(request, query) or {}
    if query.billing_account_id is None or query.org_id is not None:
        await reach_list(request, query.org_id)
    async with begin(request) as tx:
        await _reach_account(request, tx, query.billing_account_id)
        found = await store.list_pors(
            tx,
            org_id=query.org_id,
            billing_account_id=query.billing_account_id,
            partner_id=query.partner_id,
            before=after.get("por_id"),
            limit=query.limit + 1,
        )
    return page_of(request, query, [PorView.of(por, tx.now) for por in found], lambda v: {"por_id": v.por_id})


@routes.post("/partner-of-record/{por_id}:end", body=EndPor, answer=PorView, errors=(RangeEmpty, PorOverlap))
async def end_por(request: web.Request) -> web.Response:
    """End a partner of record at an instant; 200 with it. Lines posted before stay as they are."""
    body = await read_body(request, EndPor)
    async with begin(request) as tx:
        por = await store.lock_por(tx, path_uuid(request, "por_id"))
        if por.org_id is not None:
            await reach(request, por.org_id)
        await _reach_account(request, tx, por.billing_account_id)
        check_range(por.start_at, body.end_at)
        ended = replace(por, end_at=body.end_at, status=por_status(body.end_at, tx.now))
        if por.status == "disputed":
            ended = replace(ended, status="disputed")
        await store.update_por_end(tx, ended)
        return tx.answer(ok(PorView.of(ended, tx.now)))
