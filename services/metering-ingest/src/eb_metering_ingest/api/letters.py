"""Dead letters of events: listed with reason and count, corrected, replayed after a fix."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from uuid import UUID

from aiohttp import web

from eb_contracts.errors import Fault, NotFound
from eb_contracts.ids import new_id
from eb_kit.access import caller, reach
from eb_kit.paging import page_of, read_cursor
from eb_kit.problems import BodyInvalid, ParameterInvalid
from eb_kit.tx import Tx, begin
from eb_kit.web import accepted, ok, path_uuid, read_body, read_query

from .. import flows
from ..domain.checks import without_denied
from ..domain.errors import LetterClosed, LetterExists
from ..store import letters
from .judging import LETTERS_AT_ONCE, judged, judged_anew
from .routes import routes
from .shapes import (
    CorrectLetter,
    LetterFilter,
    LettersQuery,
    LettersReplayed,
    LetterView,
    ReplayLetters,
)


@routes.get("/metering/dead-letters", query=LettersQuery, answer=LetterView)
async def list_letters(request: web.Request) -> web.Response:
    """List parked events, newest first; without `org_id` for platform staff.

    Those whose organisation can't be read are shown to Operators only.
    """
    query = read_query(request, LettersQuery)
    if query.org_id is not None:
        await reach(request, query.org_id)
    elif not caller(request).has_role("Operator", "Support"):
        raise ParameterInvalid(faults=(Fault("/org_id", "required", "Name the organisation."),))
    after = read_cursor(request, query)
    async with begin(request) as tx:
        rows = await letters.list_letters(
            tx,
            query.model_dump(include={"org_id", "status", "reason"}),
            before=after["dead_letter_id"] if after else None,
            limit=query.limit + 1,
            is_whole=caller(request).has_role("Operator"),
        )
    views = [LetterView(**dict(row)) for row in rows]
    return page_of(request, query, views, lambda last: {"dead_letter_id": last.dead_letter_id})


@routes.patch(
    "/metering/dead-letters/{dead_letter_id}",
    body=CorrectLetter,
    answer=LetterView,
    errors=(LetterClosed, LetterExists),
)
async def correct_letter(request: web.Request) -> web.Response:
    """Put another event, whole, in the place of one that was parked; `errors` says what is wrong with it now.

    It is recorded by a replay only. 409 where the letter isn't open, or another one holds the same event.
    """
    body = await read_body(request, CorrectLetter)
    async with begin(request) as tx:
        row = await letters.lock_letter(tx, path_uuid(request, "dead_letter_id"))
        await _reach(request, row["org_id"])
        if row["status"] != "open":
            raise LetterClosed(status=row["status"])
        letter = await judged_anew(tx, row, without_denied(body.event))
        if letter.org_id is not None and row["org_id"] is None:
            await reach(request, letter.org_id)
        return tx.answer(ok(LetterView(**dict(await letters.update_event(tx, letter)))))


@routes.post(
    "/metering/dead-letters:replay",
    body=ReplayLetters,
    answer=LettersReplayed,
    status=202,
    errors=(BodyInvalid,),
)
async def replay_letters(request: web.Request) -> web.Response:
    """Record parked events that are valid by now; what was recorded before changes nothing.

    By filter, the first 1,000 are done when this answers; the others that were open then follow by themselves.
    """
    body = await read_body(request, ReplayLetters)
    if (body.ids is None) == (body.filter is None):
        raise BodyInvalid(faults=(Fault("", "ids_or_filter", "Give either ids or filter."),))
    if body.filter is not None:
        await reach(request, body.filter.org_id)
    async with begin(request) as tx:
        rows = await _lock(request, tx, body)
        replayed = await flows.take_up(tx, [judged(tx, row) for row in rows])
        return tx.answer(accepted(LettersReplayed(replayed=replayed, still_bad=len(rows) - replayed)))


async def _lock(request: web.Request, tx: Tx, body: ReplayLetters) -> list[Mapping[str, Any]]:
    """Lock the letters that are done at once, and leave the others to the job."""
    if body.filter is not None:
        return await _lock_filtered(tx, body.filter)
    ids = body.ids or []
    org_ids = await letters.list_orgs(tx, ids)
    if not org_ids:
        raise NotFound
    for org_id in org_ids:
        await _reach(request, org_id)
    return await letters.lock_letters(tx, ids)


async def _lock_filtered(tx: Tx, picked: LetterFilter) -> list[Mapping[str, Any]]:
    last = new_id()
    rows = await letters.lock_filtered(
        tx, picked.org_id, picked.reason, flows.FIRST_ID, last, LETTERS_AT_ONCE
    )
    if len(rows) == LETTERS_AT_ONCE:
        await letters.insert_replay(tx, picked.org_id, picked.reason, rows[-1]["dead_letter_id"], last)
    return rows


async def _reach(request: web.Request, org_id: UUID | None) -> None:
    """Refuse unless the caller may change letters of this organisation; those of none are for Operators only."""
    if org_id is not None:
        await reach(request, org_id)
    elif not caller(request).has_role("Operator"):
        raise NotFound
