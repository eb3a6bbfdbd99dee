"""Clock doors of storage: months that come, and what is kept no longer."""

from __future__ import annotations

from datetime import timedelta

import structlog

from eb_kit.tx import Tx

from .. import flows
from ..domain.alerts import LONGEST
from ..domain.retention import months_before
from ..store import alerts, events, provider_logs, reconciliations
from .doors import jobs

log = structlog.get_logger(__name__)

FORGET_AT_ONCE = 100


@jobs.every(seconds=600)
async def make_months(tx: Tx) -> int:
    """Have the months that events may name: from the oldest allowed to the next but one."""
    now, back = tx.now, timedelta(days=tx.context.settings.oldest_event_days)
    await flows.ensure_months(tx.context, now - back, now + timedelta(days=62))
    return 0


@jobs.every(seconds=600)
async def make_other_months(tx: Tx) -> int:
    """Have the months of hourly sums and of providers' rows that come next."""
    ahead = tx.now + timedelta(days=62)
    for ensure_month in (alerts.ensure_month, provider_logs.ensure_month):
        await flows.ensure_months_of(tx.context, ensure_month, tx.now - LONGEST, ahead)
    return 0


@jobs.every(seconds=3600)
async def drop_old_months(tx: Tx) -> int:
    """Drop the oldest month of events that is past its retention; the keys of its events stay. Gives how many."""
    dropped = await events.drop_month(tx, months_before(tx.now, tx.context.settings.event_retention_months))
    if dropped:
        log.info("a month of events left", partition=dropped)
    return 1 if dropped else 0


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
