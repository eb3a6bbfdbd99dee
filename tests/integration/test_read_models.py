"""A read model that is dropped while the platform runs comes back equal to its source, and nobody is refused."""

from __future__ import annotations

import asyncio
from typing import Any

from billing import billed_org, posted, quantity_of, usage_of

from eb_kit import topology
from eb_tools.client import wait_for
from eb_tools.invariants import broken
from eb_tools.world import World

ROWS = "SELECT entity_id, version, is_deleted, body FROM {}.known WHERE entity = $1 ORDER BY 1"


async def kept(owner: Any) -> list[tuple[str, str, str]]:
    """Give (reading schema, entity, owning schema) for every read model of the platform."""
    owners = {fact.ENTITY: fact.TYPE.split(".")[0] for facts in topology.FACTS.values() for fact in facts}
    found = []
    for service in topology.FACTS:
        schema = service.replace("-", "_")
        rows = await owner.fetch(
            f"SELECT entity FROM {schema}.read_model WHERE state = 'complete' ORDER BY 1"
        )
        found += [(schema, row["entity"], owners[row["entity"]]) for row in rows]
    return found


async def drop(owner: Any, schema: str, entity: str) -> None:
    async with owner.transaction():
        await owner.execute(f"DELETE FROM {schema}.known WHERE entity = $1", entity)
        await owner.execute(f"DELETE FROM {schema}.read_model WHERE entity = $1", entity)


async def equal(owner: Any, schema: str, entity: str, source: str) -> bool:
    mine = await owner.fetch(ROWS.format(schema), entity)
    theirs = await owner.fetch(ROWS.format(source), entity)
    return [tuple(row) for row in mine] == [tuple(row) for row in theirs]


async def test_every_read_model_is_rebuilt_while_usage_flows(world: World, owner: Any) -> None:
    member, skus, _ = await billed_org(world)
    events = usage_of(member, skus, 400)
    models = await kept(owner)
    assert len(models) >= 20

    async def dropping() -> None:
        for schema, entity, _ in models:
            await drop(owner, schema, entity)
            await asyncio.sleep(0.05)

    await asyncio.gather(world.send(member, events, size=20), dropping())
    for schema, entity, source in models:
        await wait_for(
            lambda s=schema, e=entity, o=source: equal(owner, s, e, o),
            f"{schema} to know every {entity} again",
            timeout_s=60,
        )

    totals = await posted(owner, member, quantity_of(events))
    assert totals["metered"] == totals["priced"] == totals["posted"]
    assert await broken(owner) == {}
