"""A bad network between the services and what they stand on: slow, narrow, silent in one direction, reset, cut."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from eb_tools.world import World

from .arena import Arena

pytestmark = pytest.mark.timeout(180)
FAULTS: dict[str, tuple[dict[str, Any], float]] = {
    "slow, 100 ms a message": ({"delay_s": 0.1}, 6),
    "narrow, 100 kB/s": ({"bytes_per_s": 100_000}, 6),
    "nothing gets there (half-open)": ({"holds_up": True}, 12),
    "no answer comes back (half-open)": ({"holds_down": True}, 12),
    "reset after each 100 kB": ({"reset_after_bytes": 100_000}, 6),
}


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("server", ["database", "broker"])
async def test_a_bad_network(arena: Arena, chaos_world: World, server: str, fault: str) -> None:
    changes, lasting_s = FAULTS[fault]
    proxy = arena.database if server == "database" else arena.broker
    async with arena.trial(chaos_world, f"network to the {server}: {fault}"):
        proxy.suffer(**changes)
        try:
            await asyncio.sleep(lasting_s)
        finally:
            proxy.heal()


@pytest.mark.parametrize("server", ["database", "broker"])
async def test_a_cut_network(arena: Arena, chaos_world: World, server: str) -> None:
    proxy = arena.database if server == "database" else arena.broker
    async with arena.trial(chaos_world, f"network to the {server} cut for 8 s"):
        proxy.cut()
        try:
            await asyncio.sleep(8)
        finally:
            proxy.heal()
