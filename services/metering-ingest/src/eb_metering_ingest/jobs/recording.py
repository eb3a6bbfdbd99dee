"""Clock doors of recording: events that waited for their project, and replays."""

from __future__ import annotations

from prometheus_client import Gauge

from eb_kit.tx import Tx

from .. import flows
from ..api.judging import LETTERS_AT_ONCE, judged
from ..store import letters, replays
from .doors import jobs

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


@jobs.every(seconds=1)
async def replay_usage(tx: Tx) -> int:
    """Go on with the oldest replay of recorded usage; killed at any step, it goes on where it was."""
    replay = await replays.take_replay(tx)
    return await flows.replay_some(tx, replay, tx.context.settings.replay_batch) if replay else 0


@jobs.every(seconds=15)
async def measure_letters(tx: Tx) -> int:
    """Keep the gauge of open dead letters, for alerts; takes nothing."""
    found = await letters.count_open(tx, MOST_MEASURED)
    LETTERS.clear()
    for reason, count in found.items():
        LETTERS.labels(reason).set(count)
    return 0
