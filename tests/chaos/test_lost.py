"""Messages that the broker had confirmed and lost: they come again by themselves, from the outbox or from memory."""

from __future__ import annotations

import asyncio
import time

import pytest

from eb_kit import topology
from eb_tools import names
from eb_tools.files import read_json
from eb_tools.world import World

from .arena import Arena, eventually

pytestmark = pytest.mark.timeout(180)


@pytest.mark.parametrize(("sender", "reader"), [("metering-ingest", "pricing"), ("pricing", "ledger")])
async def test_a_purged_queue(arena: Arena, chaos_world: World, sender: str, reader: str) -> None:
    """The reader dies, and its queues are emptied again and again until it is back."""
    before = await arena.resent(sender)
    async with arena.trial(chaos_world, f"queues of {reader} purged"):
        killed = arena.control.kill(reader)
        until = time.monotonic() + 2.5
        while time.monotonic() < until:
            await arena.purge(reader)
        await arena.restarted(reader, killed)
    assert await arena.resent(sender) > before, "the purge lost nothing, and proves nothing"


async def test_purged_batches_while_their_door_lives(arena: Arena, chaos_world: World) -> None:
    """Batches have no outbox row: the process that had them confirmed keeps them until they are recorded."""
    before = await arena.resent("metering-ingest")
    async with arena.trial(chaos_world, "queues of batches purged, the door lives") as flow:
        flow.every_s = 0.03
        armed = arena.arm("metering-ingest", "batches.received", "sleep:7")
        await eventually(lambda: not armed.exists(), "a take that sleeps")
        await asyncio.sleep(5.5)
        await arena.purge("metering-ingest")
        flow.every_s = 0.2
        await asyncio.sleep(2)
    assert await arena.resent("metering-ingest") > before, "the purge lost nothing, and proves nothing"


async def test_a_node_that_forgot_everything(arena: Arena, chaos_world: World) -> None:
    """An operator brings the empty node back to the topology; that is the fault's end."""
    passwords = {name: read_json(arena.control.layout.secrets)[name] for name in names.NAMES}
    async with arena.trial(chaos_world, "broker reset to an empty node, topology applied again"):
        await arena.ctl("stop_app")
        await arena.ctl("reset")
        await arena.ctl("start_app")
        await topology.apply(arena.facts["rabbitmq_admin_url"], "/", passwords)
