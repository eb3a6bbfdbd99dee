"""Clock doors of reconciliation: providers' logs are cleared away, compared with what was metered, and filled.

Rule: docs/rules/metering.md, Reconciliation.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import timedelta
from typing import Any
from uuid import UUID

import structlog
from prometheus_client import Counter, Gauge

from eb_contracts.ids import new_id
from eb_contracts.metering import DriftFound
from eb_kit.telemetry import current_trace
from eb_kit.tx import Tx

from .. import flows
from ..domain.reconciling import (
    Drift,
    Message,
    Metered,
    Span,
    clip,
    count_days,
    drifts_of_events,
    drifts_of_messages,
    event_of,
    gather,
    is_over,
    missing,
    span_of,
)
from ..domain.recording import Received
from ..store import provider_logs, reconciliations
from .doors import jobs

log = structlog.get_logger(__name__)

WESTERNMOST = timedelta(hours=12)
"""What is over there is over everywhere."""
AROUND = timedelta(days=35)
"""How far two logs' times of one message may lie apart."""
SLICES_AT_ONCE = 2_000
ANNOUNCE_AT_ONCE = 200
CLEAR_AT_ONCE = 10_000
GIVE_UP_AT_ONCE = 100
DRIFTS = Counter(
    "eb_metering_drift_messages_total", "Messages that differ from what was metered, by kind.", ["kind"]
)
OVER = Counter("eb_metering_drift_alerts_total", "Drifts that were more than is tolerated.")
LOG_AGE = Gauge(
    "eb_metering_newest_provider_log_seconds",
    "How long ago a provider's newest log was loaded; none for providers without logs.",
    ["provider"],
)


@jobs.every(seconds=30)
async def clear_logs(tx: Tx) -> int:
    """Give up logs that stopped loading, and take the rows of given-up ones away; give how many were looked at."""
    quiet = timedelta(seconds=tx.context.settings.provider_log_quiet_s)
    given_up = await provider_logs.abandon_quiet(tx, tx.now - quiet, GIVE_UP_AT_ONCE)
    return given_up + await provider_logs.clear_abandoned(tx, CLEAR_AT_ONCE)


@jobs.every(seconds=60)
async def measure_logs(tx: Tx) -> int:
    """Keep the gauge of the newest logs' age, for alerts; takes nothing. `any`: its lines name their provider."""
    newest = await provider_logs.list_newest(tx)
    LOG_AGE.clear()
    for provider, loaded_at in newest.items():
        LOG_AGE.labels(provider or "any").set((tx.now - loaded_at).total_seconds())
    return 0


@jobs.every(seconds=300)
async def begin_nightly(tx: Tx) -> int:
    """Ask for the comparison of the last days that are over everywhere, once a night; 0."""
    settings = tx.context.settings
    if tx.now.hour >= settings.reconcile_hour:
        end = (tx.now - WESTERNMOST).date()
        begin = end - timedelta(days=settings.reconcile_days)
        await reconciliations.insert_run(tx, new_id(), begin, end, nightly_on=tx.now.date())
    return 0


@jobs.every(seconds=1)
async def plan_reconciliations(tx: Tx) -> int:
    """Find the organisations and SKUs of a run that have anything to compare, a bounded number at once."""
    run = await reconciliations.take_run(tx, "planning")
    if run is None:
        return 0
    skus = await reconciliations.list_skus(tx, run)
    orgs = await reconciliations.list_orgs(tx, run, max(1, SLICES_AT_ONCE // max(1, len(skus))))
    spans = [
        Span(org_id, sku, zone, *clipped)
        for org_id, zone in orgs
        for sku, told in skus.items()
        if (clipped := clip(span_of(run["from_on"], run["to_on"], zone), told))
    ]
    await reconciliations.insert_slices(tx, run["reconciliation_id"], spans)
    is_whole = not skus or not orgs or run["org_id"] is not None
    await reconciliations.update_planned(
        tx, run["reconciliation_id"], orgs[-1][0] if orgs else None, is_whole=is_whole
    )
    return 1


@jobs.every(seconds=1)
async def walk_slices(tx: Tx) -> int:
    """Compare, or fill, the next messages of one organisation and SKU; give how many were looked at."""
    slice_ = await reconciliations.take_slice(tx)
    if slice_ is None:
        return 0
    step = {"rows": _compare_messages, "events": _compare_events, "fill": _fill_missing}[slice_["phase"]]
    return await step(tx, slice_) + 1


async def _compare_messages(tx: Tx, slice_: Mapping[str, Any]) -> int:
    rows, messages, metered = await _next_messages(tx, slice_)
    span = _span(slice_)
    await _note_drifts(tx, slice_, drifts_of_messages(messages, metered, span))
    told = count_days((span.day_of(one.time), one.quantity) for one in messages)
    await reconciliations.add_days(tx, slice_, told, is_metered=False)
    await _go_on(tx, slice_, rows, then="events")
    return len(rows)


async def _compare_events(tx: Tx, slice_: Mapping[str, Any]) -> int:
    limit = tx.context.settings.reconcile_batch
    events, span = await reconciliations.list_events(tx, slice_, limit), _span(slice_)
    told: dict[str, list[Message]] = {}
    for message in await _messages_of(tx, slice_, [event.message_id for event in events]):
        told.setdefault(message.message_id, []).append(message)
    await _note_drifts(tx, slice_, drifts_of_events(events, told, span))
    counted = count_days((span.day_of(one.time), one.quantity) for one in events if span.counts(one))
    await reconciliations.add_days(tx, slice_, counted, is_metered=True)
    last = events[-1] if len(events) == limit else None
    await reconciliations.update_slice(
        tx,
        slice_,
        "events" if last else "done",
        last.time if last else slice_["starts_at"],
        last.event_id if last else reconciliations.NEVER_BEFORE,
        0,
    )
    return len(events)


async def _fill_missing(tx: Tx, slice_: Mapping[str, Any]) -> int:
    rows, messages, metered = await _next_messages(tx, slice_)
    absent = missing(messages, metered)
    events = [
        event_of(message, project_id, slice_["reconciliation_id"])
        for message in absent
        if (project_id := message.project_id or slice_["fill_project_id"])
    ]
    trace_id = current_trace().trace_id
    new = await flows.record_events(tx, [Received(event, None, tx.now, trace_id) for event in events])
    await reconciliations.add_filled(tx, slice_["reconciliation_id"], new, len(absent) - new)
    await _go_on(tx, slice_, rows, then="done")
    return len(rows)


async def _next_messages(
    tx: Tx, slice_: Mapping[str, Any]
) -> tuple[list[Any], list[Message], dict[str, list[Metered]]]:
    """Give a slice's next rows, which of them count (the newest log's first word of a message), and their events."""
    rows = await reconciliations.list_rows(tx, slice_, tx.context.settings.reconcile_batch)
    places = {(row["log_id"], row["seq"]) for row in rows}
    messages = [
        one
        for one in await _messages_of(tx, slice_, [row["message_id"] for row in rows])
        if (one.log_id, one.seq) in places and slice_["provider"] in (None, one.provider)
    ]
    ids = {one.message_id for one in messages}
    return rows, messages, await reconciliations.list_metered(tx, slice_["org_id"], ids)


async def _messages_of(tx: Tx, slice_: Mapping[str, Any], ids: Iterable[str]) -> list[Message]:
    earliest, latest = slice_["starts_at"] - AROUND, slice_["ends_at"] + AROUND
    return await provider_logs.list_messages(tx, set(ids), earliest, latest)


async def _note_drifts(tx: Tx, slice_: Mapping[str, Any], drifts: Iterable[Drift]) -> None:
    if sums := gather(drifts):
        await reconciliations.add_drifts(tx, slice_, sums)


async def _go_on(tx: Tx, slice_: Mapping[str, Any], rows: Sequence[Any], *, then: str) -> None:
    """Note where the walk through the rows goes on, or that the next phase begins."""
    if len(rows) < tx.context.settings.reconcile_batch:
        place = (slice_["starts_at"], reconciliations.NEVER_BEFORE, 0)
        await reconciliations.update_slice(tx, slice_, then, *place)
    else:
        last = rows[-1]
        place = (last["message_time"], last["log_id"], last["seq"])
        await reconciliations.update_slice(tx, slice_, slice_["phase"], *place)


def _span(slice_: Mapping[str, Any]) -> Span:
    names = ("org_id", "sku", "zone", "starts_at", "ends_at", "provider", "only_sku")
    return Span(*(slice_[name] for name in names))


@jobs.every(seconds=1)
async def announce_drifts(tx: Tx) -> int:
    """Announce the drifts of a run that was walked through, a bounded number at once, then finish it."""
    run = await reconciliations.take_walked(tx)
    if run is None:
        return 0
    if run["status"] == "filling":
        await reconciliations.update_status(tx, run["reconciliation_id"], "done")
        return 1
    drifts = await reconciliations.take_drifts(tx, run["reconciliation_id"], ANNOUNCE_AT_ONCE)
    if not drifts:
        return await _finish(tx, run["reconciliation_id"])
    tolerated = tx.context.settings.drift_tolerance_pct
    over = {
        drift["drift_id"]: drift["kind"] != "voided"
        and is_over(drift["messages"], drift["told"], drift["metered"], tolerated)
        for drift in drifts
    }
    tx.publish(*(_found(drift, over[drift["drift_id"]]) for drift in drifts))
    await reconciliations.update_announced(tx, over)
    for drift in drifts:
        DRIFTS.labels(drift["kind"]).inc(drift["messages"])
        OVER.inc(over[drift["drift_id"]])
    return len(drifts)


async def _finish(tx: Tx, reconciliation_id: UUID) -> int:
    run = await reconciliations.update_totals(tx, reconciliation_id)
    say = log.error if run["is_over_tolerance"] else log.info
    say(
        "reconciled",
        reconciliation_id=str(reconciliation_id),
        provider_messages=run["provider_messages"],
        metered_events=run["metered_events"],
        drift_messages=run["drift_messages"],
        is_over_tolerance=run["is_over_tolerance"],
    )
    return 1


def _found(drift: Mapping[str, Any], is_over_tolerance: bool) -> DriftFound:
    names = DriftFound.model_fields.keys() - {"sample_ids", "is_over_tolerance"}
    return DriftFound(
        **{name: drift[name] for name in names},
        sample_ids=tuple(drift["sample_ids"]),
        is_over_tolerance=is_over_tolerance,
    )
