"""Dead letters of events: listed with reason and count, replayed after a fix."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from uuid import UUID

from aiohttp import web

from eb_contracts.errors import Fault, NotFound
from eb_kit.access import caller, reach
from eb_kit.paging import page_of, read_cursor
from eb_kit.policy import PLATFORM_ROLES
from eb_kit.problems import BodyInvalid, ParameterInvalid
from eb_kit.service import ServiceContext
from eb_kit.tx import begin
from eb_kit.web import accepted, read_body, read_query

from .. import flows
from ..domain.letters import UNKNOWN_PROJECT, Letter
from ..domain.recording import Received
from ..store import letters
from .reading import check, window_of
from .routes import routes
from .shapes import LettersQuery, LettersReplayed, LetterView, ReplayLetters

MOST_AT_ONCE = 1000


@routes.get("/metering/dead-letters", query=LettersQuery, answer=LetterView)
async def list_letters(request: web.Request) -> web.Response:
    """List parked events, newest first. Those whose organisation can't be read are shown to Operators only."""
    query = read_query(request, LettersQuery)
    if query.org_id is not None:
        await reach(request, query.org_id)
    elif not caller(request).has_role("Operator"):
        raise ParameterInvalid(faults=(Fault("/org_id", "required", "Name the organisation."),))
    after = read_cursor(request, query)
    async with begin(request) as tx:
        rows = await letters.list_letters(
            tx,
            query.org_id,
            status=query.status,
            reason=query.reason,
            before=after["dead_letter_id"] if after else None,
            limit=query.limit + 1,
        )
    views = [LetterView(**dict(row)) for row in rows]
    return page_of(request, query, views, lambda last: {"dead_letter_id": last.dead_letter_id})


@routes.post(
    "/metering/dead-letters:replay",
    body=ReplayLetters,
    answer=LettersReplayed,
    status=202,
    errors=(BodyInvalid,),
)
async def replay_letters(request: web.Request) -> web.Response:
    """Record parked events that are valid by now; what was recorded before changes nothing.

    At most 1,000 at once: those left stay open.
    """
    body = await read_body(request, ReplayLetters)
    if (body.ids is None) == (body.filter is None):
        raise BodyInvalid(faults=(Fault("", "ids_or_filter", "Give either ids or filter."),))
    if body.filter is not None:
        await reach(request, body.filter.org_id)
    async with begin(request) as tx:
        if body.filter is not None:
            rows = await letters.lock_filtered(tx, body.filter.org_id, body.filter.reason, MOST_AT_ONCE)
        else:
            ids = (body.ids or [])[:MOST_AT_ONCE]
            await _reach_all(request, await letters.list_orgs(tx, ids))
            rows = await letters.lock_letters(tx, ids)
        replayed = await flows.take_up(tx, [_judged(tx.context, row) for row in rows])
        return tx.answer(accepted(LettersReplayed(replayed=replayed, still_bad=len(rows) - replayed)))


async def _reach_all(request: web.Request, org_ids: list[UUID | None]) -> None:
    """Refuse unless the caller may replay letters of all these organisations, of none for Operators only."""
    if not org_ids:
        raise NotFound
    for org_id in org_ids:
        if org_id is not None:
            await reach(request, org_id)
        elif caller(request).roles.isdisjoint(PLATFORM_ROLES):
            raise NotFound


def _judged(context: ServiceContext, row: Mapping[str, Any]) -> Letter:
    """Check a parked event once more, as of the day it came."""
    if row["reason"] == UNKNOWN_PROJECT:
        return flows.waiting_letter(row)
    event, _ = check(row["event"], window_of(context, row["first_at"]))
    is_same_org = event is not None and event.org_id == row["org_id"]
    received = Received(event, None, row["first_at"], row["trace_id"]) if event and is_same_org else None
    return flows.letter_of(row, received)
