"""Upkeep that every service needs: partitions made ahead and dropped behind, old Idempotency-Keys forgotten,
audit entries sent to auth.

Partitions follow the machine's time, which is what stands in the ids. Rule: docs/rules/bus.md, Outbox.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from . import coherence
from .audit import send_audit_entries
from .idempotency import forget_old_keys
from .jobs import Jobs
from .outbox import REDRIVE

if TYPE_CHECKING:
    from .service import ServiceContext
    from .tx import Tx

OUTBOX_AHEAD = timedelta(days=7)
INBOX_AHEAD = timedelta(days=62)
INBOX_KEPT = timedelta(days=93)
NIGHT_HOUR = 3
A_DAY, A_MINUTE = timedelta(days=1), timedelta(minutes=1)
ENSURE = "SELECT platform.ensure_id_partitions($1, $2, $3, $4)"
DROP = "SELECT platform.drop_id_partitions($1, $2, $3)"

upkeep = Jobs()
upkeep.every(60)(forget_old_keys)
upkeep.every(1)(send_audit_entries)


async def make_partitions(context: ServiceContext) -> None:
    """Make the partitions of outbox and inbox that the coming days need; those that are there stay."""
    now = context.clock.machine_now()
    async with context.pool.acquire() as connection:
        await connection.execute(
            ENSURE, context.schema, "outbox", now - timedelta(days=1), now + OUTBOX_AHEAD
        )
        await connection.execute(ENSURE, context.schema, "inbox", now - timedelta(days=31), now + INBOX_AHEAD)


@upkeep.every(3600)
async def keep_partitions(tx: Tx) -> int:
    """Make partitions ahead, drop the outbox after its redrive time and the inbox after three months; 0."""
    await make_partitions(tx.context)
    now = tx.context.clock.machine_now()
    await tx.fetchval(DROP, tx.context.schema, "outbox", now - REDRIVE)
    await tx.fetchval(DROP, tx.context.schema, "inbox", now - INBOX_KEPT)
    return 0


@upkeep.every(3600)
async def compare_the_last_day(tx: Tx) -> int:
    """At night have a whole day of messages compared again, also those that were agreed on once; 0."""
    now = tx.context.clock.machine_now()
    if now.hour == NIGHT_HOUR:
        await coherence.look_back(tx.connection, coherence.floor(now - A_DAY, A_MINUTE))
    return 0
