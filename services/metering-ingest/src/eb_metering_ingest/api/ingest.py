"""`POST /metering/events`: checked from memory, durably queued, then answered.

Rule: docs/rules/metering.md, Batches and The fallback.
"""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

import structlog
from aiohttp import web

from eb_contracts.errors import Fault
from eb_kit import failpoints, strictjson
from eb_kit.access import caller
from eb_kit.service import CONTEXT
from eb_kit.telemetry import current_trace
from eb_kit.web import accepted, answer, read_raw

from ..domain.errors import BatchInvalid, BatchSize, IngestUnavailable, NotABatch, OrgForbidden
from ..domain.letters import parked
from ..store import letters
from . import plain
from .plain import PlainBatch
from .reading import (
    CLOUDEVENTS,
    Batch,
    Rejected,
    as_sent,
    events_in,
    org_of,
    prefers_strict,
    refuse_foreign,
    refuse_orgs,
    sort_out,
    window_of,
)
from .routes import routes
from .sending import EVENTS, commit_soon, parts_of, sender_of
from .shapes import BatchPartlyTaken, BatchTaken, EventIn, FaultView, RejectedEvent

log = structlog.get_logger(__name__)

MOST_BYTES = 4 * 1024 * 1024


@routes.post(
    "/metering/events",
    goes_on="usage can't be metered later; it waits in the broker or in the database, whichever is there",
    body=list[EventIn],
    answer=BatchTaken,
    status=202,
    other_statuses=(207,),
    idempotency="none",
    raw_body=True,
    media_type=("application/json", CLOUDEVENTS),
    encodings=("gzip", "zstd"),
    body_limit=MOST_BYTES,
    errors=(NotABatch, BatchSize, BatchInvalid, OrgForbidden, IngestUnavailable),
)
async def take_batch(request: web.Request) -> web.Response:
    """Queue 1 to 1,000 events durably; 202, or 207 naming those that aren't valid.

    `Prefer: handling=strict` takes all or none. 403 `org_forbidden` beats everything but a broken body; 422
    where no event is valid; 503 within 2 s where nothing could keep the batch.
    """
    context = request.app[CONTEXT]
    body, window = await read_raw(request, MOST_BYTES), window_of(context)
    if failpoints.points:
        await failpoints.reach("ingest.received")
    if request.content_type != CLOUDEVENTS and (found := plain.read(body, window)) is not None:
        return await _take_plain(request, found)
    value = strictjson.parse(body)
    events = events_in(value, request.content_type)
    refuse_foreign(request, events)
    batch = sort_out(events, window)
    told = as_sent(batch.rejected, value)
    if told and prefers_strict(request.headers.getall("Prefer", ())):
        EVENTS.labels("refused").inc(len(events))
        raise _invalid(told)
    if told:
        await _park(request, batch.rejected)
    if not batch.valid:
        raise _invalid(told)
    batch_id = await sender_of(context).keep(parts_of(batch.valid))
    return _taken(batch._replace(rejected=told), batch_id)


async def _take_plain(request: web.Request, batch: PlainBatch) -> web.Response:
    """Queue a batch that is valid as it is: what was sent travels on, byte by byte where it is of one partition."""
    refuse_orgs(request, batch.org_ids)
    batch_id = await sender_of(request.app[CONTEXT]).keep(batch.parts())
    EVENTS.labels("accepted").inc(len(batch.events))
    return accepted({"accepted": len(batch.events), "batch_id": batch_id})


def _taken(batch: Batch, batch_id: UUID) -> web.Response:
    EVENTS.labels("accepted").inc(len(batch.valid))
    if not batch.rejected:
        return accepted({"accepted": len(batch.valid), "batch_id": batch_id})
    rejected = [
        RejectedEvent(index=one.at, request_id=one.request_id, errors=_views(one.faults))
        for one in batch.rejected
    ]
    return answer(BatchPartlyTaken(accepted=len(batch.valid), batch_id=batch_id, rejected=rejected), 207)


def _views(faults: Sequence[Fault]) -> list[FaultView]:
    return [FaultView(pointer=f.pointer, code=f.code, detail=f.detail) for f in faults]


def _invalid(rejected: Sequence[Rejected]) -> BatchInvalid:
    """Point at each fault within the body."""
    faults = [
        Fault(f"/{one.at}{fault.pointer}", fault.code, fault.detail)
        for one in rejected
        for fault in one.faults
    ]
    return BatchInvalid(faults=tuple(faults))


async def _park(request: web.Request, rejected: Sequence[Rejected]) -> None:
    """Keep what isn't valid as dead letters before anything is answered; raises IngestUnavailable."""
    context, trace_id = request.app[CONTEXT], current_trace().trace_id
    found = [parked(one.event, org_of(one.event), one.faults, trace_id) for one in rejected]
    actor = caller(request).actor

    async def insert() -> None:
        async with context.begin(actor) as tx:
            await letters.insert_letters(tx, found)

    await commit_soon(insert(), context.settings.spool_timeout_s)
    EVENTS.labels("parked").inc(len(found))
