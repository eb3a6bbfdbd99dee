"""From the answer that takes a credential away to its first refusal, in every service, for each kind of credential.

    python bench/revocation.py --run-dir .run --kinds session,api_key --count 200

Each service is asked directly, on its own port, every 10 ms, until it refuses what it took before. Sessions are ended
1,000 times, the other kinds 200 times; each kind is a line of its own, so that they can be measured one by one.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import aiohttp
from common import record, world_at
from revocable import KINDS, Ask, Maker, Revocable, maker_at

PAUSE_S = 0.01
GIVE_UP_S = 10.0
SLICE = 100
TARGET_MS = 1_000
LONG_COUNTS = {"session": 1_000}
Latencies = dict[str, list[float]]


class Doors:
    """The services' own ports."""

    def __init__(self, http: aiohttp.ClientSession, ports: dict[str, int]) -> None:
        self._http = http
        self._ports = ports

    async def ask(self, service: str, ask: Ask, credential: str) -> tuple[int, str]:
        """Ask; give the status and, of a problem, the code."""
        url = f"http://127.0.0.1:{self._ports[service]}{ask.path}"
        headers = {"Authorization": f"Bearer {credential}"}
        async with self._http.request(ask.method, url, json=ask.body, headers=headers) as answer:
            code = (await answer.json())["code"] if answer.status >= 400 else ""
            await answer.read()
            return answer.status, code

    async def must_take(self, one: Revocable) -> None:
        """Wait until every service takes the credential; SystemExit for one that doesn't."""
        for service, ask in one.asks.items():
            until = time.perf_counter() + GIVE_UP_S
            while (found := await self.ask(service, ask, one.credential)) == one.refused or (
                ask.is_route and found[0] in (401, 403) and found[1] != "signature_invalid"
            ):
                if time.perf_counter() > until:
                    raise SystemExit(f"{service} answers {found} to {ask} with a good credential")
                await asyncio.sleep(PAUSE_S)

    async def until_refused(self, service: str, one: Revocable, since: float) -> float:
        """Ask until it is refused; give the seconds from the revocation to the question."""
        while time.perf_counter() - since < GIVE_UP_S:
            asked_at = time.perf_counter()
            if await self.ask(service, one.asks[service], one.credential) == one.refused:
                return max(0.0, asked_at - since)
            await asyncio.sleep(PAUSE_S)
        raise SystemExit(f"{service} still takes what was revoked after {GIVE_UP_S} s")


async def measure(doors: Doors, ones: Sequence[Revocable], at_once: int, found: Latencies) -> None:
    """Revoke each, so many side by side; add the latencies (s) by service."""
    gate = asyncio.Semaphore(at_once)

    async def one(revocable: Revocable) -> None:
        async with gate:
            await doors.must_take(revocable)
            await revocable.revoke()
            since = time.perf_counter()
            latencies = await asyncio.gather(
                *(doors.until_refused(service, revocable, since) for service in revocable.asks)
            )
            for service, latency in zip(revocable.asks, latencies, strict=True):
                found.setdefault(service, []).append(latency)

    await asyncio.gather(*(one(revocable) for revocable in ones))


async def measured(
    maker: Maker, doors: Doors, kind: str, count: int, at_once: int
) -> tuple[Latencies, list[str]]:
    """Measure one kind; give the latencies by service, and where no route takes the kind."""
    found: Latencies = {}
    recognised: list[str] = []
    for start in range(0, count, SLICE):
        ones = await maker.some(kind, min(SLICE, count - start))
        recognised = [service for service, ask in ones[0].asks.items() if not ask.is_route]
        await measure(doors, ones, at_once, found)
    return found, recognised


def quantiles_ms(latencies: Sequence[float]) -> dict[str, float]:
    """Give the middle, the 99th of a hundred and the longest, in milliseconds."""
    cuts = statistics.quantiles(latencies, n=100, method="inclusive")
    return {
        "p50_ms": round(cuts[49] * 1000, 1),
        "p99_ms": round(cuts[98] * 1000, 1),
        "max_ms": round(max(latencies) * 1000, 1),
    }


def summary(kind: str, found: Latencies, recognised: Sequence[str]) -> dict[str, Any]:
    """Give a line of the results."""
    every = [latency for latencies in found.values() for latency in latencies]
    return {
        "kind": kind,
        "count": len(every) // len(found),
        **quantiles_ms(every),
        "services": {name: quantiles_ms(latencies) for name, latencies in found.items()},
        "recognised_only": list(recognised),
    }


async def run(run_dir: Path, kinds: Sequence[str], count: int | None, at_once: int) -> float:
    """Measure and record these kinds, `count` times each (None: as often as the long form); give the worst p99 (ms)."""
    ports, worst = json.loads((run_dir / "stack.json").read_text())["ports"], 0.0
    async with world_at(run_dir) as world, maker_at(run_dir, world) as maker, aiohttp.ClientSession() as http:
        for kind in kinds:
            times = count or LONG_COUNTS.get(kind, 200)
            line = summary(kind, *await measured(maker, Doors(http, ports), kind, times, at_once))
            record("revocation", {"at_once": at_once, **line})
            worst = max(worst, line["p99_ms"])
    return worst


def main() -> int:
    """Read the options and run; 1 where a kind's p99 is over a second."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--run-dir", type=Path, default=Path(".run"))
    parser.add_argument("--kinds", type=lambda text: text.split(","), default=list(KINDS))
    parser.add_argument("--count", type=int, help="how often; 1,000 sessions and 200 of each other kind")
    parser.add_argument("--at-once", type=int, default=6)
    options = parser.parse_args()
    return int(asyncio.run(run(options.run_dir, options.kinds, options.count, options.at_once)) > TARGET_MS)


if __name__ == "__main__":
    sys.exit(main())
