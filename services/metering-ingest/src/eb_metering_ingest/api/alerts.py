"""Usage alerts, listed. Rule: docs/rules/metering.md, Alerts."""

from __future__ import annotations

from aiohttp import web

from eb_contracts.errors import Fault
from eb_kit.access import caller, reach
from eb_kit.paging import page_of, read_cursor
from eb_kit.policy import PLATFORM_ROLES
from eb_kit.problems import ParameterInvalid
from eb_kit.tx import begin
from eb_kit.web import read_query

from ..store import alerts as store
from .reconciling_shapes import AlertsQuery, AlertView
from .routes import routes


@routes.get("/metering/alerts", query=AlertsQuery, answer=AlertView)
async def list_alerts(request: web.Request) -> web.Response:
    """List usage that was unlike its past, newest first; `is_open=true` gives what still is."""
    query = read_query(request, AlertsQuery)
    if query.org_id is not None:
        await reach(request, query.org_id)
    elif not caller(request).has_role(*PLATFORM_ROLES):
        raise ParameterInvalid(faults=(Fault("/org_id", "required", "Name the organisation."),))
    after = read_cursor(request, query)
    async with begin(request) as tx:
        before = after["alert_id"] if after else None
        rows = await store.list_alerts(tx, query.org_id, query.model_dump(), before, query.limit + 1)
    return page_of(
        request, query, [AlertView(**dict(row)) for row in rows], lambda last: {"alert_id": last.alert_id}
    )
