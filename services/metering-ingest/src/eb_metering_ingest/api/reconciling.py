"""Reconciliations: asked for, listed with their drifts, and missing messages made events.

Rule: docs/rules/metering.md, Reconciliation.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any

from aiohttp import web

from eb_contracts.errors import Fault, NotFound
from eb_contracts.ids import new_id
from eb_kit.access import reach
from eb_kit.paging import read_cursor
from eb_kit.problems import BodyInvalid
from eb_kit.service import CONTEXT, ServiceContext
from eb_kit.tx import begin
from eb_kit.web import accepted, created, page_of, path_uuid, read_body, read_query

from ..domain.errors import ReconciliationRunning
from ..store import reconciliations as store
from .reconciling_shapes import (
    DayCounts,
    DriftsQuery,
    DriftView,
    Fill,
    KindSum,
    Reconcile,
    ReconciliationsQuery,
    ReconciliationView,
)
from .routes import routes

MOST_DAYS = timedelta(days=35)
AHEAD = timedelta(days=2)
"""The running day is over in two days at most, wherever it is."""


@routes.post(
    "/metering/reconciliations", body=Reconcile, answer=ReconciliationView, status=201, errors=(BodyInvalid,)
)
async def reconcile(request: web.Request) -> web.Response:
    """Compare providers' logs with what was metered on some days; 201 with the comparison, which is then under way."""
    body = await read_body(request, Reconcile)
    _refuse_days(body, request.app[CONTEXT])
    if body.org_id is not None:
        await reach(request, body.org_id)
    reconciliation_id = new_id()
    async with begin(request) as tx:
        await store.insert_run(
            tx,
            reconciliation_id,
            body.start,
            body.end,
            provider=body.provider,
            org_id=body.org_id,
            sku=body.sku,
        )
        return tx.answer(created(_view(await store.find_run(tx, reconciliation_id), [])))


def _refuse_days(body: Reconcile, context: ServiceContext) -> None:
    """Refuse days that are none, too many, still to come, or so long ago that rows of logs have left."""
    now = context.clock.now()
    oldest = now - timedelta(days=30 * context.settings.provider_log_months)
    faults = []
    if not timedelta(0) < body.end - body.start <= MOST_DAYS:
        faults.append(Fault("/to", "range_invalid", "Must lie after `from`, by 35 days at most."))
    if body.start < oldest.date():
        faults.append(Fault("/from", "time_too_old", f"Must not lie before {oldest.date()}."))
    if body.end > (now + AHEAD).date():
        faults.append(Fault("/to", "time_in_future", f"Must not lie after {(now + AHEAD).date()}."))
    if faults:
        raise BodyInvalid(faults=tuple(faults))


@routes.get("/metering/reconciliations", query=ReconciliationsQuery, answer=ReconciliationView)
async def list_reconciliations(request: web.Request) -> web.Response:
    """List comparisons, newest first, each with its drifts by kind."""
    query = read_query(request, ReconciliationsQuery)
    after = read_cursor(request, query)
    async with begin(request) as tx:
        before = after["reconciliation_id"] if after else None
        rows = await store.list_runs(tx, query.model_dump(), before, query.limit + 1)
        kinds = await store.sum_kinds(tx, [row["reconciliation_id"] for row in rows])
    views = [_view(row, kinds.get(row["reconciliation_id"], [])) for row in rows]
    return page_of(request, query, views, lambda last: {"reconciliation_id": last.reconciliation_id})


@routes.get("/metering/reconciliations/{reconciliation_id}/drifts", query=DriftsQuery, answer=DriftView)
async def list_drifts(request: web.Request) -> web.Response:
    """List the drifts of a comparison, newest first, with both sides' numbers and sample ids."""
    query = read_query(request, DriftsQuery)
    reconciliation_id = path_uuid(request, "reconciliation_id")
    after = read_cursor(request, query)
    async with begin(request) as tx:
        if await store.find_run(tx, reconciliation_id) is None:
            raise NotFound
        before = after["drift_id"] if after else None
        rows = await store.list_drifts(tx, reconciliation_id, query.model_dump(), before, query.limit + 1)
    return page_of(request, query, [_drift(row) for row in rows], lambda last: {"drift_id": last.drift_id})


@routes.post(
    "/metering/reconciliations/{reconciliation_id}:fill",
    body=Fill,
    answer=ReconciliationView,
    status=202,
    errors=(ReconciliationRunning, BodyInvalid),
)
async def fill_reconciliation(request: web.Request) -> web.Response:
    """Meter the messages that are still missing here, each once under its provider's id; 202, it is then under way.

    409 `reconciliation_running` while it is compared or filled. Messages without a project are left and counted.
    """
    body = await read_body(request, Fill)
    reconciliation_id = path_uuid(request, "reconciliation_id")
    if body.project_id is not None and body.org_id is None:
        raise BodyInvalid(faults=(Fault("/org_id", "required", "Name the project's organisation."),))
    if body.org_id is not None:
        await reach(request, body.org_id)
    async with begin(request) as tx:
        row = await store.lock_run(tx, reconciliation_id)
        if row is None:
            raise NotFound
        if row["status"] != "done":
            raise ReconciliationRunning(status_now=row["status"])
        await store.begin_filling(tx, reconciliation_id, body.org_id, body.sku, body.project_id)
        row = await store.find_run(tx, reconciliation_id)
        kinds = await store.sum_kinds(tx, [reconciliation_id])
        return tx.answer(accepted(_view(row, kinds.get(reconciliation_id, []))))


def _view(row: Any, kinds: Sequence[Any]) -> ReconciliationView:
    members = dict(row)
    members["start"], members["end"] = members.pop("from_on"), members.pop("to_on")
    return ReconciliationView(**members, drifts=[_kind(kind) for kind in kinds])


def _kind(row: Mapping[str, Any]) -> KindSum:
    return KindSum(kind=row["kind"], drifts=row["drifts"], messages=row["messages"])


def _drift(row: Mapping[str, Any]) -> DriftView:
    members = dict(row)
    told = DayCounts(messages=members.pop("day_messages"), quantity=members.pop("day_provider_quantity"))
    metered = DayCounts(messages=members.pop("day_events"), quantity=members.pop("day_metered_quantity"))
    return DriftView(**members, day_provider=told, day_metered=metered)
