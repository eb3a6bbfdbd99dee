"""Reading the ledger: lines and balances."""

from __future__ import annotations

from datetime import timedelta

from aiohttp import web

from eb_contracts.errors import Fault
from eb_kit.access import reach
from eb_kit.problems import ParameterInvalid
from eb_kit.tx import begin
from eb_kit.web import ok, page_of, path_uuid, read_cursor, read_query

from ..store import accounts, reading
from .routes import must_settle, reach_list, routes
from .shapes import BalanceItem, BalanceQuery, BalanceView, EntryList, EntryView

SUBJECTS = ("org_id", "billing_account_id", "partner_id")
STABLE_AFTER = timedelta(seconds=10)
"""Write transactions are cut at 5 s: a sum up to an older instant than this doesn't change any more."""


@routes.get("/ledger/entries", query=EntryList, answer=list[EntryView])
async def list_entries(request: web.Request) -> web.Response:
    """List ledger lines, the last posted first; only platform staff may leave out `org_id`."""
    query = read_query(request, EntryList)
    after = read_cursor(request, query) or {}
    await reach_list(request, query.org_id)
    filters = query.model_dump(exclude={"limit", "cursor"}) | {"before": after.get("entry_id")}
    async with begin(request) as tx:
        found = await reading.list_entries(tx, filters, query.limit + 1)
    return page_of(
        request, query, [EntryView.of(entry) for entry in found], lambda v: {"entry_id": v.entry_id}
    )


@routes.get("/ledger/entries/{entry_id}", answer=EntryView)
async def get_entry(request: web.Request) -> web.Response:
    """Give a ledger line."""
    async with begin(request) as tx:
        entry = await reading.get_entry(tx, path_uuid(request, "entry_id"))
    await reach(request, entry.org_id)
    return ok(EntryView.of(entry))


@routes.get("/ledger/balances", query=BalanceQuery, answer=BalanceView)
async def get_balances(request: web.Request) -> web.Response:
    """Sum the lines of an organisation, a billing account or a partner, one item a currency.

    `as_of` is cut to ten seconds ago, from where on sums stand; without it everything posted counts.
    By partner: Finance and Operator only.
    """
    query = read_query(request, BalanceQuery)
    await _reach_subject(request, query)
    async with begin(request) as tx:
        as_of = min(query.as_of, tx.now - STABLE_AFTER) if query.as_of else None
        found = await reading.sum_entries(tx, query.model_dump() | {"as_of": as_of})
    return ok(BalanceView(items=[BalanceItem.of(balance) for balance in found], as_of=as_of or tx.now))


async def _reach_subject(request: web.Request, query: BalanceQuery) -> None:
    if sum(getattr(query, name) is not None for name in SUBJECTS) != 1:
        raise ParameterInvalid(faults=(Fault("", "required", f"Name exactly one of {', '.join(SUBJECTS)}."),))
    if query.partner_id is not None:
        must_settle(request)
    elif query.billing_account_id is not None:
        async with begin(request) as tx:
            account = await accounts.get_account(tx, query.billing_account_id)
        await reach(request, account.owner_org_id)
    elif query.org_id is not None:
        await reach(request, query.org_id)
