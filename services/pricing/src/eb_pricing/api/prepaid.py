"""Prepaid credits: granted, read."""

from __future__ import annotations

from aiohttp import web

from eb_contracts.ids import new_id
from eb_kit.access import reach
from eb_kit.idempotency import KeyRequired, KeyReused
from eb_kit.tx import Tx, begin
from eb_kit.web import created, page_of, read_body, read_cursor, read_query

from .. import store
from ..domain.budgets import Credit
from ..domain.errors import Unacceptable
from .budgets import must_fit
from .guard_shapes import CreateCredit, CreditQuery, CreditView
from .routes import reach_list, routes


@routes.post(
    "/pricing/credits",
    body=CreateCredit,
    answer=CreditView,
    status=201,
    idempotency="required",
    errors=(Unacceptable,),
)
async def create_credit(request: web.Request) -> web.Response:
    """Grant a credit; it pays charges made from now on. 201 with it.

    The Idempotency-Key is kept for ever: the same request again answers with the credit as it then is.
    """
    body = await read_body(request, CreateCredit)
    await reach(request, body.org_id)
    must_fit(body.amount, body.currency)
    async with begin(request) as tx:
        return tx.answer(created(CreditView.of(await _grant_once(tx, body))))


async def _grant_once(tx: Tx, body: CreateCredit) -> Credit:
    """Grant the credit, or give the one that the request's key granted before."""
    claim = tx.replay
    if claim is None:
        raise KeyRequired
    credit = Credit(
        credit_id=new_id(), drawn=body.amount * 0, actor=tx.actor, created_at=tx.now, **body.model_dump()
    )
    if (found := await store.find_credit_by_key(tx, claim)) is None:
        if body.expires_at is not None and body.expires_at <= tx.now:
            raise Unacceptable.at("/expires_at", "in_the_past", "Must lie in the future.")
        await store.insert_credit(tx, credit, claim)
        return credit
    if found[1] != claim.fingerprint:
        raise KeyReused
    return found[0]


@routes.get("/pricing/credits", query=CreditQuery, answer=list[CreditView])
async def list_credits(request: web.Request) -> web.Response:
    """List credits, newest first; only platform staff may leave out `org_id`."""
    query = read_query(request, CreditQuery)
    after = read_cursor(request, query)
    await reach_list(request, query.org_id)
    filters = query.model_dump(exclude={"limit", "cursor"})
    async with begin(request) as tx:
        found = await store.list_credits(tx, filters, after, query.limit + 1)
    return page_of(
        request, query, [CreditView.of(one) for one in found], lambda v: {"credit_id": v.credit_id}
    )
