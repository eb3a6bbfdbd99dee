"""The inbox: which messages a queue's handler has had; written in the transaction of their effect.

Rule: docs/rules/bus.md, Delivery.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

ENTER = """
    INSERT INTO inbox (message_id, queue, handled_at)
    SELECT id, queue, $3 FROM unnest($1::uuid[], $2::text[]) AS m (id, queue)
    ON CONFLICT DO NOTHING RETURNING message_id, queue
"""


async def enter(
    connection: Any, messages: Sequence[tuple[UUID, str]], machine_now: datetime
) -> set[tuple[UUID, str]]:
    """Enter (message id, queue) pairs in one statement; give those that are new.

    Waits for another transaction that is just handling one of them, then takes it as seen.
    """
    rows = sorted(set(messages))
    ids, queues = [row[0] for row in rows], [row[1] for row in rows]
    found = await connection.fetch(ENTER, ids, queues, machine_now)
    return {(UUID(int=row["message_id"].int), row["queue"]) for row in found}
