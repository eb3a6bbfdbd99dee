"""From the 204 that ends a session to the first 401 of its token, in every service; a bench does it 1,000 times."""

from __future__ import annotations

import statistics
from typing import Any

from revocation import ASKED, run

TIMES = 20
SOON_S, ALWAYS_S = 1.0, 5.0


async def test_a_session_that_ended_is_refused_everywhere_in_time(stack: Any) -> None:
    found = await run(stack.run_dir, TIMES, at_once=2)

    assert {name: len(latencies) for name, latencies in found.items()} == dict.fromkeys(ASKED, TIMES)
    assert max(max(latencies) for latencies in found.values()) <= ALWAYS_S
    assert max(statistics.median(latencies) for latencies in found.values()) <= SOON_S
