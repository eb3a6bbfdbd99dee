"""Reading: one event's way, lists of events, usage by window."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from aiohttp import web

from eb_contracts.errors import Fault, NotFound
from eb_kit.access import reach
from eb_kit.paging import page_of, read_cursor
from eb_kit.problems import ParameterInvalid
from eb_kit.service import CONTEXT
from eb_kit.tx import begin
from eb_kit.web import ok, path_text, read_query

from ..store import letters, reading
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
)

MOST_DAYS = timedelta(days=400)
BRIEF = tuple(EventBrief.model_fields)


@routes.get("/metering/events/{request_id}", query=EventQuery, answer=EventView)
async def get_event(request: web.Request) -> web.Response:
    """Follow one event: recorded, priced, ledgered or parked; 404 until it is recorded or parked."""
    query = read_query(request, EventQuery)
    await reach(request, query.org_id)
    request_id = path_text(request, "request_id")
    async with begin(request) as tx:
        row = await reading.find_event(tx, query.org_id, request_id)
        if row is None:
            letter = await letters.find_letter(tx, query.org_id, request_id)
            if letter is None:
                raise NotFound
            return ok(_parked_view(letter))
        conflicts = await reading.list_conflicts(tx, query.org_id, request_id) if row["conflicts"] else []
    return ok(_event_view(row, [_conflict_view(conflict) for conflict in conflicts]))


@routes.get("/metering/events", query=EventsQuery, answer=EventBrief)
async def list_events(request: web.Request) -> web.Response:
    """List recorded events, last recorded first."""
    query = read_query(request, EventsQuery)
    await reach(request, query.org_id)
    after = read_cursor(request, query)
    async with begin(request) as tx:
        rows = await reading.list_events(
            tx, query.org_id, query.model_dump(), after["event_id"] if after else None, query.limit + 1
        )
    return page_of(request, query, [_brief(row) for row in rows], lambda last: {"event_id": last.event_id})


@routes.get("/metering/usage", query=UsageQuery, answer=UsageView)
async def get_usage(request: web.Request) -> web.Response:
    """Sum usage by hour (UTC), day or month (the organisation's time zone), right to the last event."""
    query = read_query(request, UsageQuery)
    if not timedelta(0) < query.end - query.start <= MOST_DAYS:
        fault = Fault("/to", "range_invalid", "Must lie after `from`, by 400 days at most.")
        raise ParameterInvalid(faults=(fault,))
    await reach(request, query.org_id)
    org = request.app[CONTEXT].directory.org(query.org_id)
    zone = org.default_timezone if org and query.window != "hour" else "UTC"
    async with begin(request) as tx:
        rows = await reading.sum_usage(
            tx, query.org_id, query.window, zone, query.start, query.end, query.sku, query.project_id
        )
    return ok(UsageView(items=[UsageWindow(**dict(row)) for row in rows]))


def _members(row: Mapping[str, Any]) -> dict[str, Any]:
    members = dict(row)
    members["time"] = members.pop("event_time")
    return members


def _brief(row: Mapping[str, Any]) -> EventBrief:
    members = _members(row)
    return EventBrief(**{name: members[name] for name in BRIEF})


def _event_view(row: Mapping[str, Any], conflicts: list[ConflictView]) -> EventView:
    members = _members(row)
    known = {name: members[name] for name in BRIEF}
    return EventView(**known, conflicts=conflicts, dead_letter_id=None, trace_id=members["trace_id"])


def _conflict_view(row: Mapping[str, Any]) -> ConflictView:
    return ConflictView(**_members(row))


def _parked_view(letter: Mapping[str, Any]) -> EventView:
    """Show an event that waits as a dead letter; one whose members can't be read is not shown here."""
    event = letter["event"]
    try:
        return EventView(
            org_id=letter["org_id"],
            request_id=letter["request_id"],
            event_id=None,
            usage_id=None,
            sku=event["sku"],
            quantity=event["quantity"],
            project_id=event["project_id"],
            time=event["time"],
            source=event.get("source", "backend"),
            metadata=event.get("metadata"),
            recorded_at=None,
            status="dead_lettered",
            duplicates=0,
            charge_id=None,
            entry_ids=[],
            conflicts=[],
            dead_letter_id=letter["dead_letter_id"],
            trace_id=letter["trace_id"],
        )
    except (KeyError, ValueError, TypeError, AttributeError):
        raise NotFound from None
