"""Clock doors: the sweep of events that waited for their project."""

from __future__ import annotations

from datetime import timedelta

from eb_kit.jobs import Jobs
from eb_kit.tx import Tx

from . import flows
from .store import letters

jobs = Jobs()


@jobs.every(seconds=2)
async def record_arrived(tx: Tx) -> int:
    """Record parked events whose project is known by now."""
    rows = await letters.take_arrived(tx, tx.context.settings.sweep_batch)
    return await flows.take_up(tx, [flows.waiting_letter(row) for row in rows])


@jobs.every(seconds=600)
async def make_months(tx: Tx) -> int:
    """Have the months that events may name: from the oldest allowed to the next but one."""
    now, back = tx.now, timedelta(days=tx.context.settings.oldest_event_days)
    await flows.ensure_months(tx.context, now - back, now + timedelta(days=62))
    return 0
