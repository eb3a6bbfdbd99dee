"""Fifty writers send the same thousand request ids with differing contents: each counts once, and it is told."""

from __future__ import annotations

import asyncio
import gzip
import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import zstandard
from billing import billed_org
from hostile import CLOUD, JSON, cloud_of

from eb_tools.client import usage_status, wait_for
from eb_tools.invariants import broken, totals
from eb_tools.world import Member, World, event

WRITERS = 50
IDS = 1_000
FORMS: tuple[Mapping[str, str], ...] = (
    {"Content-Type": JSON},
    {"Content-Type": JSON, "Content-Encoding": "gzip"},
    {"Content-Type": CLOUD, "Content-Encoding": "zstd"},
    {"Content-Type": CLOUD},
    {"Content-Type": JSON, "Prefer": "handling=strict"},
    {"Content-Type": CLOUD, "Content-Encoding": "gzip", "Prefer": "handling=strict"},
    {"Content-Type": JSON, "Content-Encoding": "zstd"},
)
PACK = {"gzip": gzip.compress, "zstd": zstandard.compress}
COUNTS = """
    SELECT count(*) AS keys, sum(duplicates) AS duplicates, sum(conflicts) AS conflicts,
           count(DISTINCT duplicates + conflicts) AS kinds
      FROM metering_ingest.event_key WHERE org_id = $1
"""


def body_of(events: Sequence[Mapping[str, Any]], form: Mapping[str, str]) -> bytes:
    """A batch in one of the forms it may have."""
    members = [cloud_of(one) for one in events] if form["Content-Type"] == CLOUD else list(events)
    return PACK.get(form.get("Content-Encoding", ""), bytes)(json.dumps(members).encode())


async def write(
    world: World, member: Member, sku: str, writer: int, start: datetime, barrier: asyncio.Barrier
) -> int:
    """Send all ids with a quantity of this writer's own, and a time and an order too; give how many were accepted."""
    form = FORMS[writer % len(FORMS)]
    time = (start + timedelta(seconds=writer)).isoformat()
    events = [event(member, sku, time, str(writer + 1), f"same-{n}") for n in range(IDS)]
    events = events[writer * 20 :] + events[: writer * 20]
    headers = {**form, "Authorization": f"Bearer {member.api_key}"}
    await barrier.wait()
    url = world.api.base_url + "/metering/events"
    async with world.api.http.post(url, data=body_of(events, form), headers=headers) as answer:
        assert answer.status == 202, await answer.text()
        return int((await answer.json())["accepted"])


async def test_each_id_counts_once_and_the_others_are_conflicts(world: World, owner: Any) -> None:
    member, skus, _ = await billed_org(world, "Chorus")
    barrier, start = asyncio.Barrier(WRITERS), datetime.now(UTC) - timedelta(minutes=5)
    writers = (write(world, member, skus["form"], n, start, barrier) for n in range(WRITERS))
    assert await asyncio.gather(*writers) == [IDS] * WRITERS

    org_id = UUID(member.org_id)

    async def all_told() -> Any:
        row = await owner.fetchrow(COUNTS, org_id)
        return row if (row["conflicts"] or 0) == IDS * (WRITERS - 1) else None

    counts = await wait_for(all_told, "every conflict", timeout_s=90)
    assert (counts["keys"], counts["duplicates"], counts["kinds"]) == (IDS, 0, 1)
    first = await write(world, member, skus["form"], 0, start, asyncio.Barrier(1))
    assert first == IDS

    recorded = Decimal(
        await owner.fetchval(
            "SELECT sum(quantity) FROM metering_ingest.metering_event WHERE org_id = $1", org_id
        )
    )

    async def all_billed() -> Any:
        found = await totals(owner, [member.org_id])
        return found if found["posted"] == recorded else None

    found = await wait_for(all_billed, "the bill", timeout_s=60)
    assert found["metered"] == found["priced"] == found["posted"] == recorded
    await wait_for(lambda: _counted(owner, org_id), "the writer that came again")
    seen = await usage_status(world.api, member.api_key, member.org_id, "same-7")
    assert seen is not None
    quantities = {Decimal(conflict["quantity"]) for conflict in seen["conflicts"]} | {
        Decimal(seen["quantity"])
    }
    assert quantities == {Decimal(n + 1) for n in range(WRITERS)}
    assert seen["duplicates"] + len(seen["conflicts"]) == WRITERS
    assert await broken(owner) == {}


async def _counted(owner: Any, org_id: UUID) -> bool:
    row = await owner.fetchrow(COUNTS, org_id)
    return bool(row["duplicates"] + row["conflicts"] == IDS * WRITERS)
