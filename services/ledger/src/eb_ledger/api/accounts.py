"""Billing accounts."""

from __future__ import annotations

from aiohttp import web

from eb_contracts.ids import new_id
from eb_kit.access import reach
from eb_kit.tx import begin
from eb_kit.web import created, ok, page_of, path_uuid, read_body, read_cursor, read_query

from ..domain.partners import BillingAccount
from ..store import accounts as store
from .routes import reach_list, routes
from .shapes import AccountList, AccountView, CreateAccount


@routes.post("/billing-accounts", body=CreateAccount, answer=AccountView, status=201)
async def create_account(request: web.Request) -> web.Response:
    """Create a billing account of an organisation; 201 with it."""
    body = await read_body(request, CreateAccount)
    await reach(request, body.owner_org_id)
    async with begin(request) as tx:
        account = BillingAccount(
            billing_account_id=new_id(),
            owner_org_id=body.owner_org_id,
            name=body.name,
            currency=body.currency,
            status="active",
            notes=body.notes,
            is_default=False,
            created_at=tx.now,
        )
        await store.insert_account(tx, account)
        return tx.answer(created(AccountView.of(account)))


@routes.get("/billing-accounts", query=AccountList, answer=list[AccountView])
async def list_accounts(request: web.Request) -> web.Response:
    """List the billing accounts that an organisation owns, newest first; staff may ask for all."""
    query = read_query(request, AccountList)
    after = read_cursor(request, query) or {}
    await reach_list(request, query.org_id)
    async with begin(request) as tx:
        found = await store.list_accounts(tx, query.org_id, after.get("billing_account_id"), query.limit + 1)
    return page_of(
        request,
        query,
        [AccountView.of(account) for account in found],
        lambda v: {"billing_account_id": v.billing_account_id},
    )


@routes.get("/billing-accounts/{billing_account_id}", answer=AccountView)
async def get_account(request: web.Request) -> web.Response:
    """Give a billing account."""
    async with begin(request) as tx:
        account = await store.get_account(tx, path_uuid(request, "billing_account_id"))
    await reach(request, account.owner_org_id)
    return ok(AccountView.of(account))
