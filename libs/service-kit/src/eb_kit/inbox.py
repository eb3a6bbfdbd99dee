"""The inbox: which messages a queue's handler has had; written in the transaction of their effect.

Rule: docs/rules/bus.md, Delivery.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any
from uuid import UUID

ENTER = """
    INSERT INTO inbox (message_id, queue, source, handled_at)
    SELECT id, queue, source, $4 FROM unnest($1::uuid[], $2::text[], $3::text[]) AS m (id, queue, source)
    ON CONFLICT DO NOTHING RETURNING message_id, queue
"""


async def enter(
    connection: Any, sources: Mapping[tuple[UUID, str], str], machine_now: datetime
) -> set[tuple[UUID, str]]:
    """Enter (message id, queue) pairs with who sent each, in one statement; give those that are new.

    Waits for another transaction that is just handling one of them, then takes it as seen.
    """
    rows = sorted(sources)
    ids, queues = [row[0] for row in rows], [row[1] for row in rows]
    found = await connection.fetch(ENTER, ids, queues, [sources[row] for row in rows], machine_now)
    return {(UUID(int=row["message_id"].int), row["queue"]) for row in found}
