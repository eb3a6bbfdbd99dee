"""The service's own facts in its own read model."""

from __future__ import annotations

from eb_kit import readmodels
from eb_kit.tx import Tx

from ..store import facts

FACTS_A_PAGE = 500


async def recall(tx: Tx, entity: str, after_id: str | None) -> str | None:
    """Put a page of an entity's facts into the own read model; give the last id, None when all are known."""
    if after_id is None and not await facts.is_unknown(tx, entity):
        return None
    page = await facts.LISTERS[entity](tx, after_id, FACTS_A_PAGE)
    await readmodels.keep(tx.connection, page, tx.context.clock.machine_now())
    return page[-1].entity_id if page else None
