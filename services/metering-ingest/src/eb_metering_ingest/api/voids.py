"""`POST /metering/events/{request_id}:void`: the negative of an event, booked once."""

from __future__ import annotations

from typing import Annotated
from uuid import UUID

from aiohttp import web

from eb_kit.access import reach
from eb_kit.inputs import Input, Text, View
from eb_kit.tx import begin
from eb_kit.web import ok, path_text, read_body, read_query

from .. import flows
from ..domain.errors import EventExpired
from .routes import routes
from .shapes import EventQuery


class VoidEvent(Input):
    """Why an event shall not count."""

    reason: Annotated[str, Text(1, 500)]


class EventVoided(View):
    """The voided event; `void_event_id` is the event that takes it back."""

    request_id: str
    void_event_id: UUID
    status: str = "voided"


@routes.post(
    "/metering/events/{request_id}:void",
    body=VoidEvent,
    query=EventQuery,
    answer=EventVoided,
    errors=(EventExpired,),
)
async def void_event(request: web.Request) -> web.Response:
    """Take a recorded event back: its negative quantity is booked at its own time, once.

    Again: the same answer, the first reason stands. 404 while the event isn't recorded; its request id stays used.
    """
    query = read_query(request, EventQuery)
    request_id = path_text(request, "request_id")
    await reach(request, query.org_id)
    body = await read_body(request, VoidEvent)
    async with begin(request) as tx:
        void_event_id = await flows.void_event(tx, query.org_id, request_id, body.reason)
        return tx.answer(ok(EventVoided(request_id=request_id, void_event_id=void_event_id)))
