"""Clock doors of pricing: what became due because prices changed, and what the calendar brings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from uuid import UUID

from prometheus_client import Counter, Gauge

from eb_contracts.metering import UsageRecord
from eb_kit.jobs import Jobs
from eb_kit.tx import Tx

from . import store
from .flows import guards, periods, rating, rerating

jobs = Jobs()

WAITING = Gauge("eb_pricing_unrated_usage", "Usage records that wait for terms; counted up to 10,000.")
WAITING_AGE = Gauge(
    "eb_pricing_oldest_unrated_seconds",
    "How long the oldest usage record waits for terms; looked for in 1,000 organisations.",
)
CLOSED = Counter("eb_pricing_periods_closed_total", "Billing periods closed and settled.")
OVERDUE = Gauge(
    "eb_pricing_overdue_closes",
    "Billing periods that should have been closed or settled an hour ago; counted up to 10,000.",
)
AN_HOUR = timedelta(hours=1)


@jobs.every(seconds=2)
async def rate_what_became_due(tx: Tx) -> int:
    """Rate waiting usage of organisations whose prices changed, and re-rate their counters; give how many.

    Whatever was parked or rated by older facts is visible here (store.lock_terms), so nothing is missed;
    the arrival of a fact only marks. Rule: docs/rules/pricing.md, Usage without terms.
    """
    settings = tx.context.settings
    await store.lock_terms_shared(tx)
    due = await store.take_due(tx, settings.sweep_orgs)
    parked = await store.list_unrated_after(tx, due, settings.sweep_records) if due else {}
    if parked:
        await _rate_parked(tx, parked)
    elif due:
        await store.delete_due(tx, await rerating.rerate_orgs(tx, list(due)))
    return len(due)


async def _rate_parked(tx: Tx, parked: Mapping[UUID, Sequence[UsageRecord]]) -> None:
    """Rate parked usage as far as it now can be. Counters are re-rated only when none is left to look at,
    in another transaction: one set of counters is locked in one transaction, or two could wait for each other.
    """
    records = [record for some in parked.values() for record in some]
    waiting = {one.usage.usage_id for one in await rating.rate_records(tx, records)}
    rated = [(one.org_id, one.usage_id) for one in records if one.usage_id not in waiting]
    await store.delete_unrated(tx, rated)
    await store.update_due(tx, {org_id: some[-1].usage_id for org_id, some in parked.items()})


@jobs.every(seconds=15)
async def measure_waiting(tx: Tx) -> int:
    """Keep the gauges of usage that waits, for alerts; takes nothing."""
    WAITING.set(await store.count_unrated(tx, 10_000))
    oldest = await store.find_oldest_unrated(tx, 1_000)
    WAITING_AGE.set((tx.now - oldest).total_seconds() if oldest else 0)
    return 0


@jobs.every(seconds=5)
async def begin_periods(tx: Tx) -> int:
    """Open the billing periods that began and charge the base fees due; give of how many organisations.

    Rule: docs/rules/pricing.md, Base fees.
    """
    await store.lock_terms_shared(tx)
    due = await store.take_calendar(tx, tx.context.settings.calendar_orgs)
    if due:
        await periods.visit(tx, due)
    return len(due)


@jobs.every(seconds=5)
async def close_periods(tx: Tx) -> int:
    """Close the billing periods that ended long enough ago; give how many. Their counters are settled next.

    Whoever rates holds the lock of the terms, shared: after this nobody makes an open counter in a closed
    period. The lock is taken only where something is due. Rule: docs/rules/pricing.md, The close of a period.
    """
    ended_by = _ended_by(tx)
    if not await store.count_due_to_close(tx, ended_by, 1):
        return 0
    await store.lock_terms(tx)
    return await store.close_periods(tx, ended_by, tx.context.settings.close_periods)


def _ended_by(tx: Tx) -> datetime:
    return tx.now - timedelta(hours=tx.context.settings.period_close_delay_h)


@jobs.every(seconds=2)
async def settle_closed_periods(tx: Tx) -> int:
    """Bring the counters of closed periods to their closed targets and announce the periods; give how many."""
    await store.lock_terms_shared(tx)
    closed = await store.take_unsettled(tx, tx.context.settings.settle_periods)
    if closed:
        CLOSED.inc(len(await periods.settle(tx, closed)))
    return len(closed)


@jobs.every(seconds=30)
async def measure_overdue_closes(tx: Tx) -> int:
    """Keep the gauge of closes that are overdue, for alerts; takes nothing."""
    OVERDUE.set(await store.count_overdue(tx, _ended_by(tx) - AN_HOUR, tx.now - AN_HOUR, 10_000))
    return 0


@jobs.every(seconds=60)
async def forget_answers(tx: Tx) -> int:
    """Forget answers to authorize after 24 hours; give how many."""
    return await guards.forget_answers(tx)
