"""Providers' logs: read as they arrive, in constant memory, and compared only once they are whole.

Rule: docs/rules/metering.md, Provider logs.
"""

from __future__ import annotations

import hashlib
from contextlib import suppress
from datetime import timedelta
from typing import Any
from uuid import UUID

import structlog
from aiohttp import web
from prometheus_client import Counter

from eb_contracts.errors import Fault, NotFound
from eb_contracts.ids import made_at, new_id
from eb_kit.access import caller, reach, waiter_of
from eb_kit.db import WEATHER
from eb_kit.directory import YOUNG
from eb_kit.paging import page_of, read_cursor
from eb_kit.problems import ParameterInvalid
from eb_kit.service import CONTEXT, ServiceContext
from eb_kit.streaming import stream_body
from eb_kit.tx import begin
from eb_kit.web import accepted, ok, path_uuid, read_query

from .. import flows
from ..domain.errors import LogEmpty, LogGivenUp
from ..domain.provider_logs import Place, Reject, Row, Terms, rows_of
from ..domain.records import READERS, Csv, Reader, Record
from ..store import provider_logs as store
from .reconciling_shapes import LogLoaded, LogQuery, LogsQuery, LogView, LogWithRejects, RejectView
from .routes import routes

log = structlog.get_logger(__name__)

GIB = 1024**3
PIECE_BYTES = 64 * 1024
CHUNK_ROWS = 5_000
MOST_PLACES = 64
AHEAD = timedelta(days=1)
ROWS = Counter(
    "eb_metering_provider_rows_total", "Lines of providers' logs by what became of them.", ["outcome"]
)


@routes.post(
    "/metering/provider-logs",
    goes_on="evidence to compare with; no money moves before somebody fills what is missing",
    query=LogQuery,
    answer=LogLoaded,
    status=202,
    idempotency="none",
    raw_body=True,
    media_type=tuple(READERS),
    encodings=("gzip", "zstd"),
    body_limit=GIB,
    errors=(LogEmpty, LogGivenUp),
)
async def load_log(request: web.Request) -> web.Response:
    """Load a provider's log: CSV, JSON lines or JSON, in our columns or the provider's format; 202 once it is whole.

    Read as it arrives, up to 1 GiB. Lines that are no rows are counted and kept with their reason. A log cut off counts
    for nothing; the same log again is the same log.
    """
    query = read_query(request, LogQuery)
    terms = await _terms(request, query)
    loading = _Loading(request, query, terms)
    try:
        async for piece in stream_body(request):
            for at in range(0, len(piece), PIECE_BYTES):
                await loading.take(piece[at : at + PIECE_BYTES])
        loaded = await loading.finish()
    except BaseException:
        await loading.abandon()
        raise
    return accepted(LogLoaded(log_id=loaded["log_id"], rows=loaded["rows"], rejected=loaded["rejected"]))


async def _terms(request: web.Request, query: LogQuery) -> Terms:
    """Give how the log is read; NotFound for organisations that the caller may not name."""
    context: ServiceContext = request.app[CONTEXT]
    if (query.sku or query.project_id) and not query.org_id:
        raise ParameterInvalid(faults=(Fault("/org_id", "required", "Name the organisation, too."),))
    whole = Place(query.org_id, query.sku, query.project_id) if query.org_id else None
    places = _places(query.places)
    for org_id in {place.org_id for place in (*places.values(), *([whole] if whole else []))}:
        await reach(request, org_id)
    now, months = context.clock.now(), context.settings.provider_log_months
    return Terms(
        earliest=now - timedelta(days=30 * months),
        latest=now + AHEAD,
        is_known=lambda org_id: context.directory.org(org_id) is not None or _is_young(context, org_id),
        whole=whole,
        places=places,
        counts_messages=query.count == "messages",
    )


def _is_young(context: ServiceContext, org_id: UUID) -> bool:
    """Tell whether an organisation may have been made so lately that it wasn't heard of here."""
    made = made_at(org_id)
    return made is not None and abs(context.clock.machine_now() - made) < YOUNG


def _places(text: str | None) -> dict[str, Place]:
    places: dict[str, Place] = {}
    for entry in text.split(",") if text else ():
        try:
            key, org_id, sku, *project = entry.split(":")
            (project_id,) = map(UUID, project) if project else (None,)
            places[key] = Place(UUID(org_id), sku or None, project_id)
        except ValueError:
            fault = Fault(
                "/places", "wrong_format", "Must be KEY:org_id:sku or KEY:org_id:sku:project_id, with commas."
            )
            raise ParameterInvalid(faults=(fault,)) from None
    if len(places) > MOST_PLACES:
        fault = Fault("/places", "too_long", f"Must hold at most {MOST_PLACES} places.")
        raise ParameterInvalid(faults=(fault,))
    return places


class _Loading:
    """One log on its way into the database, a few thousand rows at once."""

    def __init__(self, request: web.Request, query: LogQuery, terms: Terms) -> None:
        self._context: ServiceContext = request.app[CONTEXT]
        self._actor, self._waiter = caller(request).actor, waiter_of(request)
        self._query, self._terms = query, terms
        self._reader: Reader = READERS.get(request.content_type, Csv)()  # stream_body refuses other types
        self._content = hashlib.sha256(query.model_dump_json().encode())
        self._log_id = new_id()
        self._is_begun = False
        self._rows: list[Row] = []
        self._rejects: list[Reject] = []
        self._skipped = 0
        self._counted = {"rows": 0, "rejected": 0, "skipped": 0}

    async def take(self, piece: bytes) -> None:
        """Read a piece, and store what has come together."""
        self._content.update(piece)
        await self._keep(self._reader.feed(piece))

    async def _keep(self, records: list[Record]) -> None:
        for found in rows_of(records, self._query.format, self._terms):
            if isinstance(found, Row):
                self._rows.append(found)
            elif found is None:
                self._skipped += 1
            else:
                self._rejects.append(found)
            if len(self._rows) + len(self._rejects) >= CHUNK_ROWS:
                await self._flush()

    async def _flush(self) -> None:
        await self._begin()
        await self._refuse_unknown()
        rows, rejects, skipped = self._rows, self._rejects, self._skipped
        self._rows, self._rejects, self._skipped = [], [], 0
        if rows:
            times = [row.time for row in rows]
            await flows.ensure_months_of(self._context, store.ensure_month, min(times), max(times))
        left = max(0, store.MOST_REJECTS - self._counted["rejected"])
        async with self._context.begin(self._actor) as tx:
            await store.insert_rows(tx, self._log_id, self._counted["rows"], rows)
            await store.insert_rejects(tx, self._log_id, rejects[:left])
            counts = {"rows": len(rows), "rejected": len(rejects), "skipped": skipped}
            if not await store.update_progress(tx, self._log_id, **counts):
                raise LogGivenUp
        for name, count in counts.items():
            self._counted[name] += count
            ROWS.labels(name).inc(count)

    async def _refuse_unknown(self) -> None:
        """Reject rows of organisations that aren't known even after waiting for young ones."""
        directory = self._context.directory
        unknown = {
            org_id
            for org_id in {row.org_id for row in self._rows}
            if directory.org(org_id) is None and await directory.find_org(org_id, self._waiter) is None
        }
        if unknown:
            self._rejects += [
                Reject(row.line, "org_id_unknown") for row in self._rows if row.org_id in unknown
            ]
            self._rows = [row for row in self._rows if row.org_id not in unknown]

    async def _begin(self) -> None:
        if not self._is_begun:
            provider = self._query.format if self._query.format != "rows" else None
            async with self._context.begin(self._actor) as tx:
                await store.insert_log(tx, self._log_id, provider, self._query.format)
            self._is_begun = True

    async def finish(self) -> Any:
        """Make the log count, and give it; the one that was loaded before, if it is the same."""
        await self._keep(self._reader.finish())
        await self._flush()
        if not any(self._counted.values()):
            raise LogEmpty
        async with self._context.begin(self._actor) as tx:
            same = await store.find_same(tx, self._content.digest())
            if same is not None:
                await store.update_abandoned(tx, self._log_id)
                return same
            loaded = await store.update_loaded(tx, self._log_id, self._content.digest())
            if loaded is None:
                raise LogGivenUp
        log.info("provider log loaded", log_id=str(self._log_id), **self._counted)
        return loaded

    async def abandon(self) -> None:
        """Give the log up; if the database is away, a sweep does it later."""
        if self._is_begun:
            with suppress(*WEATHER):
                async with self._context.begin(self._actor) as tx:
                    await store.update_abandoned(tx, self._log_id)


@routes.get("/metering/provider-logs", query=LogsQuery, answer=LogView)
async def list_logs(request: web.Request) -> web.Response:
    """List providers' logs, newest first."""
    query = read_query(request, LogsQuery)
    after = read_cursor(request, query)
    async with begin(request) as tx:
        rows = await store.list_logs(tx, query.provider, after["log_id"] if after else None, query.limit + 1)
    return page_of(
        request, query, [LogView(**dict(row)) for row in rows], lambda last: {"log_id": last.log_id}
    )


@routes.get("/metering/provider-logs/{log_id}", answer=LogWithRejects)
async def get_log(request: web.Request) -> web.Response:
    """Show a log with the lines that are no rows, 1,000 at most."""
    log_id = path_uuid(request, "log_id")
    async with begin(request) as tx:
        row = await store.find_log(tx, log_id)
        if row is None:
            raise NotFound
        rejects = [RejectView(**dict(reject)) for reject in await store.list_rejects(tx, log_id)]
    return ok(LogWithRejects(**dict(row), rejects=rejects))
