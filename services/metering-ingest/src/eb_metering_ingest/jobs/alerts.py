"""Clock door of usage alerts: each hour of each series is judged by its past.

Rule: docs/rules/metering.md, Alerts.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import structlog
from prometheus_client import Counter

from eb_contracts.ids import new_id
from eb_contracts.metering import UsageAlertRaised
from eb_kit.tx import Tx

from ..domain.alerts import (
    HOUR,
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
from ..store import alerts
from .doors import jobs

log = structlog.get_logger(__name__)

LOOK_AT_ONCE = 10_000
ALERTS = Counter("eb_metering_usage_alerts_total", "Usage alerts raised, by kind.", ["kind"])


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
