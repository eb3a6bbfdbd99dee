"""Clock doors: the sweep of parked charges, partitions ahead, the checker of invariants."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta

import structlog
from prometheus_client import Gauge

from eb_kit.jobs import Jobs
from eb_kit.tx import Tx

from . import flows
from .domain.invariants import is_telescoped
from .domain.postings import REASONS
from .store import checks, parked, posting

log = structlog.get_logger(__name__)
jobs = Jobs()

PARKED = Gauge(
    "eb_ledger_parked_charges", "Charges that are no line yet; any conflict is an alarm.", ["reason"]
)
BREACHES = Gauge("eb_ledger_invariant_breaches", "Breaches found so far; any is an alarm.", ["invariant"])
SETTLED_AFTER = timedelta(seconds=10)
LONGEST_WINDOW = timedelta(seconds=60)


@jobs.every(seconds=2)
async def post_arrived(tx: Tx) -> int:
    """Post parked charges whose organisation is known by now."""
    return await flows.post_parked(tx, tx.context.settings.sweep_batch)


@jobs.every(seconds=600)
async def make_months(tx: Tx) -> int:
    """Have the coming months' partitions; each in a transaction of its own."""
    for month in await posting.list_missing_months(tx, tx.now, tx.context.settings.months_ahead):
        await flows.ensure_month(tx.context, month)
    return 0


@jobs.every(seconds=10)
async def count_parked(tx: Tx) -> int:
    """Show how many charges are parked, by reason."""
    counts = await parked.count_parked(tx)
    for reason in REASONS:
        PARKED.labels(reason).set(counts.get(reason, 0))
    return 0


@jobs.every(seconds=10)
async def check_splits(tx: Tx) -> int:
    """Every line: gross is the partner's part and the net."""
    return await check(tx, "split", checks.count_split_breaches)


@jobs.every(seconds=10)
async def check_postings(tx: Tx) -> int:
    """Every charge: one line."""
    return await check(tx, "once", checks.count_posting_breaches)


@jobs.every(seconds=30)
async def check_shares(tx: Tx) -> int:
    """Every commission key: the parts sum to the rounded share of the whole."""
    return await check(tx, "share", count_share_breaches)


async def count_share_breaches(tx: Tx, since: datetime, until: datetime) -> int:
    """Count the keys with lines of this window whose shares don't telescope."""
    sums = await checks.list_share_sums(tx, since, until)
    return sum(not is_telescoped(summed) for summed in sums)


async def check(tx: Tx, name: str, count: Callable[[Tx, datetime, datetime], Awaitable[int]]) -> int:
    """Look at the next window of posted lines, up to 10 s ago; 1 while there is more behind it."""
    latest = tx.context.clock.machine_now() - SETTLED_AFTER
    since = await checks.lock_mark(tx, name, latest - LONGEST_WINDOW)
    if since is None or since >= latest:
        return 0
    until = min(latest, since + LONGEST_WINDOW)
    breaches = await count(tx, since, until)
    if breaches:
        log.error("invariant broken", invariant=name, breaches=breaches, since=since, until=until)
    BREACHES.labels(name).set(await checks.update_mark(tx, name, until, breaches))
    return int(until < latest)
