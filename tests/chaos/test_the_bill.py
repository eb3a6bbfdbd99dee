"""After everything else: the faults together have changed no amount."""

from __future__ import annotations

import pytest

from eb_tools.world import World

from .arena import Arena

pytestmark = pytest.mark.timeout(120)


async def test_the_bill_is_what_it_would_have_been_without_any_fault(
    arena: Arena, chaos_world: World
) -> None:
    await arena.assert_estimate(chaos_world)
