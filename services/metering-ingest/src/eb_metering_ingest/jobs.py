"""Clock doors: events that waited for their project, replays, months that come and leave."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import structlog
from prometheus_client import Counter, Gauge

from eb_contracts.ids import new_id
from eb_contracts.metering import DriftFound, UsageAlertRaised
from eb_kit.jobs import Jobs
from eb_kit.telemetry import current_trace
from eb_kit.tx import Tx

from . import flows
from .api.judging import LETTERS_AT_ONCE, judged
from .domain.alerts import (
    HOUR,
    LONGEST,
    STOP_HOURS,
    WEEK,
    Finding,
    Rule,
    floor_hour,
    hours_needed,
    is_highest,
    judge,
    next_hour,
)
from .domain.reconciling import (
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
from .domain.recording import Received
from .domain.retention import months_before
from .store import alerts, events, letters, provider_logs, reconciliations, replays

log = structlog.get_logger(__name__)

log = structlog.get_logger(__name__)
jobs = Jobs()

WESTERNMOST = timedelta(hours=12)
"""What is over there is over everywhere."""
AROUND = timedelta(days=35)
"""How far two logs' times of one message may lie apart."""
SLICES_AT_ONCE = 2_000
ANNOUNCE_AT_ONCE = 200
CLEAR_AT_ONCE = 10_000
FORGET_AT_ONCE = 100
LOOK_AT_ONCE = 10_000
DRIFTS = Counter(
    "eb_metering_drift_messages_total", "Messages that differ from what was metered, by kind.", ["kind"]
)
OVER = Counter("eb_metering_drift_alerts_total", "Drifts that were more than is tolerated.")
ALERTS = Counter("eb_metering_usage_alerts_total", "Usage alerts raised, by kind.", ["kind"])
MOST_MEASURED = 100_000
LETTERS = Gauge("eb_metering_dead_letters_open", "Open dead letters by reason, 100,000 at most.", ["reason"])


@jobs.every(seconds=2)
async def record_arrived(tx: Tx) -> int:
    """Record parked events whose project is known by now."""
    return await flows.take_arrived(tx)


@jobs.every(seconds=1)
async def replay_letters(tx: Tx) -> int:
    """Go on with replays of dead letters by filter, a bounded batch at once; give how many were looked at."""
    replay = await letters.take_replay(tx)
    if replay is None:
        return 0
    rows = await letters.lock_filtered(
        tx, replay["org_id"], replay["reason"], replay["after_id"], replay["last_id"], LETTERS_AT_ONCE
    )
    await flows.take_up(tx, [judged(tx, row) for row in rows])
    if len(rows) < LETTERS_AT_ONCE:
        await letters.delete_replay(tx, replay["letter_replay_id"])
    else:
        await letters.update_replay(tx, replay["letter_replay_id"], rows[-1]["dead_letter_id"])
    return len(rows)


@jobs.every(seconds=600)
async def make_months(tx: Tx) -> int:
    """Have the months that events may name: from the oldest allowed to the next but one."""
    now, back = tx.now, timedelta(days=tx.context.settings.oldest_event_days)
    await flows.ensure_months(tx.context, now - back, now + timedelta(days=62))
    return 0


@jobs.every(seconds=1)
async def replay_usage(tx: Tx) -> int:
    """Go on with the oldest replay of recorded usage; killed at any step, it goes on where it was."""
    replay = await replays.take_replay(tx)
    return await flows.replay_some(tx, replay, tx.context.settings.replay_batch) if replay else 0


@jobs.every(seconds=3600)
async def drop_old_months(tx: Tx) -> int:
    """Drop the oldest month of events that is past its retention; the keys of its events stay. Gives how many."""
    dropped = await events.drop_month(tx, months_before(tx.now, tx.context.settings.event_retention_months))
    if dropped:
        log.info("a month of events left", partition=dropped)
    return 1 if dropped else 0


@jobs.every(seconds=15)
async def measure_letters(tx: Tx) -> int:
    """Keep the gauge of open dead letters, for alerts; takes nothing."""
    found = await letters.count_open(tx, MOST_MEASURED)
    LETTERS.clear()
    for reason, count in found.items():
        LETTERS.labels(reason).set(count)
    return 0


@jobs.every(seconds=600)
async def make_other_months(tx: Tx) -> int:
    """Have the months of hourly sums and of providers' rows that come next."""
    ahead = tx.now + timedelta(days=62)
    for ensure_month in (alerts.ensure_month, provider_logs.ensure_month):
        await flows.ensure_months_of(tx.context, ensure_month, tx.now - LONGEST, ahead)
    return 0


@jobs.every(seconds=3600)
async def forget_months(tx: Tx) -> int:
    """Drop a month of providers' rows, or of hourly sums, that nobody asks for any more; give how many."""
    rows_before = tx.now - timedelta(days=31 * tx.context.settings.provider_log_months)
    dropped = [
        await provider_logs.forget_old(tx, "provider_row", rows_before),
        await provider_logs.forget_old(tx, "usage_hour", tx.now - LONGEST),
    ]
    forgotten = await provider_logs.forget_logs(tx, rows_before, FORGET_AT_ONCE)
    forgotten += await reconciliations.forget_runs(tx, rows_before)
    forgotten += await alerts.forget_series(tx, tx.now - LONGEST, FORGET_AT_ONCE)
    return sum(name is not None for name in dropped) + forgotten


@jobs.every(seconds=30)
async def clear_logs(tx: Tx) -> int:
    """Give up logs that stopped loading, and take the rows of given-up ones away; give how many were looked at."""
    quiet = timedelta(seconds=tx.context.settings.provider_log_quiet_s)
    given_up = await provider_logs.abandon_quiet(tx, tx.now - quiet, FORGET_AT_ONCE)
    return given_up + await provider_logs.clear_abandoned(tx, CLEAR_AT_ONCE)


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


@jobs.every(seconds=60)
async def judge_usage(tx: Tx) -> int:
    """Judge the next hour of series that are due, a bounded number at once; give how many."""
    settings = tx.context.settings
    latest = floor_hour(tx.now - timedelta(seconds=settings.alert_settle_s)) - HOUR
    rows = await alerts.take_series(tx, latest, settings.alert_batch)
    if not rows:
        return 0
    rule = _rule(tx)
    due = {
        (row["org_id"], row["sku"]): (
            next_hour(row["judged_hour"], row["first_hour"], latest, rule),
            row["first_hour"],
        )
        for row in rows
    }
    wanted = [(*key, at) for key, (hour, _) in due.items() for at in hours_needed(hour, rule)]
    hours = await alerts.list_hours(tx, wanted)
    open_or_last = await alerts.list_latest(tx, list(due))
    for key, (hour, first_hour) in due.items():
        series = {at: hours[*key, at] for at in hours_needed(hour, rule) if (*key, at) in hours}
        await _settle(tx, key, hour, judge(hour, first_hour, series, rule), open_or_last.get(key))
    await alerts.update_judged(tx, {key: hour for key, (hour, _) in due.items()})
    return len(rows)


def _rule(tx: Tx) -> Rule:
    settings = tx.context.settings
    return Rule(settings.alert_weeks, settings.alert_least_weeks, settings.alert_least_events)


async def _settle(
    tx: Tx, key: tuple[UUID, str], hour: datetime, finding: Finding | None, last: Any | None
) -> None:
    """Raise an alert for a finding that holds, unless one is open or was lately; close it where all is well."""
    is_open = last is not None and last["closed_at"] is None
    if finding is None:
        if is_open:
            await alerts.close_alert(tx, last["alert_id"])  # type: ignore[index]
        return
    if is_open or _is_cooling(tx, last) or not await _holds(tx, key, hour, finding):
        return
    alert_id = new_id()
    if await alerts.insert_alert_once(tx, alert_id, *key, hour, finding):
        tx.publish(
            UsageAlertRaised(alert_id=alert_id, org_id=key[0], sku=key[1], hour=hour, **finding._asdict())
        )
        ALERTS.labels(finding.kind).inc()
        log.warning("usage alert", org_id=str(key[0]), sku=key[1], kind=finding.kind, why=finding.why)


def _is_cooling(tx: Tx, last: Any | None) -> bool:
    cooldown = timedelta(seconds=tx.context.settings.alert_cooldown_s)
    return last is not None and (last["closed_at"] or last["raised_at"]) + cooldown > tx.now


async def _holds(tx: Tx, key: tuple[UUID, str], hour: datetime, finding: Finding) -> bool:
    """Look closer before an alert: at the ordinary highs of all hours, or at the events themselves, since sums lag
    behind them where pricing does.
    """
    if finding.kind == "spike":
        rule = _rule(tx)
        return is_highest(finding, await alerts.get_past(tx, *key, hour - rule.weeks * WEEK, hour), rule)
    begin = hour - (STOP_HOURS - 1) * HOUR
    recorded = await alerts.sum_recorded(tx, *key, begin, hour + HOUR, LOOK_AT_ONCE)
    return recorded < finding.threshold
