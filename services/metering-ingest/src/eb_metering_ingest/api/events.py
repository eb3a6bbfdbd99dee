"""Reading: one event's way, lists of events, usage by window."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from aiohttp import web

from eb_contracts.errors import Fault, NotFound
from eb_kit.access import reach
from eb_kit.paging import page_of, read_cursor
from eb_kit.problems import ParameterInvalid
from eb_kit.service import CONTEXT
from eb_kit.tx import Tx, begin
from eb_kit.web import ok, path_text, read_query

from ..domain.errors import EventExpired
from ..domain.windows import window_bounds
from ..store import letters, reading, usage, voids
from .parked import parked_brief, parked_view
from .routes import routes
from .shapes import (
    ConflictView,
    EventBrief,
    EventQuery,
    EventsQuery,
    EventView,
    UsageQuery,
    UsageView,
    UsageWindow,
    VoidView,
)

MOST_DAYS = timedelta(days=400)
EARLIEST, LATEST = datetime(2000, 1, 1, tzinfo=UTC), datetime(2199, 1, 1, tzinfo=UTC)
BRIEF = tuple(name for name in EventBrief.model_fields if name != "dead_letter_id")
NARROWER = {name: name for name in ("request_id", "usage_id", "sku", "project_id")} | {
    "start": "from",
    "end": "to",
}


@routes.get("/metering/events/{request_id}", query=EventQuery, answer=EventView, errors=(EventExpired,))
async def get_event(request: web.Request) -> web.Response:
    """Follow one event: recorded, unrated, priced, ledgered, voided, or parked as a dead letter.

    404 until it is recorded or parked; 410 once its month has left: its request id stays used.
    """
    query = read_query(request, EventQuery)
    await reach(request, query.org_id)
    request_id = path_text(request, "request_id")
    async with begin(request) as tx:
        if key := await reading.find_key(tx, query.org_id, request_id):
            event = await reading.find_event(tx, query.org_id, key)
            if event is None:
                raise EventExpired(event_id=str(key["event_id"]))
            return ok(await _view(tx, event))
        letter = await letters.find_letter(tx, query.org_id, request_id)
        if letter is None:
            raise NotFound
        return ok(parked_view(letter))


async def _view(tx: Tx, event: Mapping[str, Any]) -> EventView:
    org_id, request_id = event["org_id"], event["request_id"]
    conflicts = await reading.list_conflicts(tx, org_id, request_id) if event["conflicts"] else []
    void = await voids.find_void(tx, org_id, event)
    return EventView(
        **_brief(event).model_dump(),
        conflicts=[ConflictView(**_members(conflict)) for conflict in conflicts],
        void=VoidView(**dict(void)) if void else None,
        trace_id=event["trace_id"],
    )


@routes.get("/metering/events", query=EventsQuery, answer=EventBrief)
async def list_events(request: web.Request) -> web.Response:
    """List events, last recorded first; with status `dead_lettered` those that wait as open dead letters."""
    query = read_query(request, EventsQuery)
    await reach(request, query.org_id)
    if query.status == "dead_lettered":
        return await _list_parked(request, query)
    after = read_cursor(request, query)
    async with begin(request) as tx:
        rows = await reading.list_events(tx, query.org_id, query.model_dump(), after, query.limit + 1)
    views = [_brief(row) for row in rows]
    return page_of(request, query, views, lambda last: {"event_id": last.event_id, "usage_id": last.usage_id})


async def _list_parked(request: web.Request, query: EventsQuery) -> web.Response:
    given = [shown for name, shown in NARROWER.items() if getattr(query, name) is not None]
    if given:
        faults = (
            Fault(f"/{name}", "not_with_status", "Dead letters are only listed whole.") for name in given
        )
        raise ParameterInvalid(faults=tuple(faults))
    after = read_cursor(request, query)
    async with begin(request) as tx:
        before = after["dead_letter_id"] if after else None
        picked = {"org_id": query.org_id, "status": "open"}
        rows = await letters.list_letters(tx, picked, before=before, limit=query.limit + 1)
    views = [parked_brief(row) for row in rows]
    return page_of(request, query, views, lambda last: {"dead_letter_id": last.dead_letter_id})


@routes.get("/metering/usage", query=UsageQuery, answer=UsageView)
async def get_usage(request: web.Request) -> web.Response:
    """Sum usage by hour (UTC), day or month (the organisation's time zone), right to the last event.

    Windows are whole ones, also where `from` or `to` lies inside; only what happened between is summed.
    """
    query = read_query(request, UsageQuery)
    is_short = timedelta(0) < query.end - query.start <= MOST_DAYS
    if not is_short or not EARLIEST <= query.start <= LATEST:
        fault = Fault("/to", "range_invalid", "Must lie after `from`, by 400 days at most, in 2000 to 2199.")
        raise ParameterInvalid(faults=(fault,))
    await reach(request, query.org_id)
    org = request.app[CONTEXT].directory.org(query.org_id)
    zone = org.default_timezone if org else "UTC"
    bounds = window_bounds(query.window, zone, query.start, query.end)
    async with begin(request) as tx:
        rows = await usage.sum_usage(
            tx, query.org_id, bounds, query.start, query.end, query.sku, query.project_id
        )
    return ok(UsageView(items=[_window(row, bounds) for row in rows]))


def _window(row: Mapping[str, Any], bounds: list[Any]) -> UsageWindow:
    place = row["place"]
    return UsageWindow(
        window_start=bounds[place - 1],
        window_end=bounds[place],
        sku=row["sku"],
        quantity=row["quantity"],
        events=row["events"],
    )


def _members(row: Mapping[str, Any]) -> dict[str, Any]:
    members = dict(row)
    members["time"] = members.pop("event_time")
    return members


def _brief(row: Mapping[str, Any]) -> EventBrief:
    members = _members(row)
    return EventBrief(**{name: members[name] for name in BRIEF})
