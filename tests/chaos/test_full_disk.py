"""The database's disk is full for a while; collected with EB_CHAOS_SMALL_DISK=1 only: a disk has to be mounted."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

from eb_tools.world import World

from .arena import Arena

pytestmark = pytest.mark.timeout(180)
MIB = 2**20


async def test_a_full_disk_under_the_database(arena: Arena, chaos_world: World) -> None:
    assert arena.disk is not None
    filler = arena.disk / "filler"
    async with arena.trial(chaos_world, "PostgreSQL's disk full for 8 s"):
        try:
            with contextlib.suppress(OSError), filler.open("wb", buffering=0) as file:
                while True:
                    file.write(b"x" * MIB)
            with contextlib.suppress(OSError), filler.open("ab", buffering=0) as file:
                while True:
                    file.write(b"x" * 4096)
            await asyncio.sleep(8)
        finally:
            filler.unlink()
