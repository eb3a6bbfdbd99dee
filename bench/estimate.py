"""How long an estimate of 20 SKUs takes through the gateway: computed anew, from the cache, and on top of usage.

    python bench/estimate.py --run-dir .run --requests 2000 [--clients 4]

Prices are of all eight shapes. Each client asks again as soon as it has its answer. Raw ceilings of the same run: the
library's share of the work, and a request that touches no table. Exit 1 if p99 of one client passes the first bar.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from decimal import Decimal
from itertools import count
from pathlib import Path
from typing import Any

import aiohttp
import uvloop
from common import record, world_at

from eb_rating import breakdown_closed, from_plain
from eb_tools.client import Json
from eb_tools.world import Member, World, event

SKUS = 20
FIRST_BAR_MS = 20
BOUNDS = ("100", "1000", "10000", "100000", None)


def tiers(member: str) -> list[Json]:
    """Write five tiers that grow cheaper."""
    return [{"up_to": bound, "flat_fee": str(n + 1)} | priced(member, n) for n, bound in enumerate(BOUNDS)]


def priced(member: str, number: int) -> Json:
    """Write a tier's price; a step has only its fee."""
    return {} if member == "flat_fee" else {member: f"0.{9 - number}"}


SHAPES: tuple[Json, ...] = (
    {"mode": "per_unit", "unit_price": "0.05"},
    {"mode": "graduated", "tiers": tiers("unit_price")},
    {"mode": "volume", "tiers": tiers("unit_price")},
    {"mode": "package", "package_size": "100", "package_price": "1.25"},
    {"mode": "stairstep", "tiers": tiers("flat_fee")},
    {"mode": "stairstep_cumulative", "tiers": tiers("flat_fee")},
    {"mode": "percentage", "rate": "0.029", "fixed_fee": "0.30"},
    {"mode": "graduated_percentage", "tiers": tiers("rate")},
)


async def a_buyer(world: World) -> tuple[Member, list[str]]:
    """Make an organisation on a plan of 20 SKUs and a base fee that has used each once; give it and the SKUs."""
    skus = [await world.sku(f"bench-{n}-{world.tag}", tax_code="GST") for n in range(SKUS)]
    prices = {
        sku: {"included_qty": "5", "overage_price": "0", "tiers": SHAPES[n % len(SHAPES)]}
        for n, sku in enumerate(skus)
    }
    base = await world.sku(f"bench-base-{world.tag}", kind="hosting")
    model = await world.model()
    plan = await world.plan(model, prices | {base: {"included_qty": "0", "overage_price": "30"}})
    member = await world.org(await world.person("bench"), "Bench Estimates")
    await world.assign(member.org_id, model, plan)
    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    await world.send(member, [event(member, sku, now) for sku in skus])
    return member, skus


@asynccontextmanager
async def ask_alone(world: World, member: Member) -> AsyncIterator[Any]:
    """Give a function that asks and times it, on one connection of its own."""
    headers = {"Authorization": f"Bearer {member.api_key}"}
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=1), headers=headers) as http:

        async def ask(path: str, body: Json | None) -> float:
            started = time.perf_counter()
            async with http.request(
                "POST" if body else "GET", world.api.base_url + path, json=body
            ) as answer:
                await answer.read()
                answer.raise_for_status()
            return (time.perf_counter() - started) * 1000

        yield ask


async def latencies(
    world: World, member: Member, bodies: Any, requests: int, clients: int, path: str = "/pricing/estimate"
) -> dict[str, float]:
    """Ask so often, over so many clients; give the latencies in ms and the rate."""
    waiting = iter(range(requests))
    times: list[float] = []

    async def client() -> None:
        async with ask_alone(world, member) as ask:
            await ask(path, next(bodies))
            for _ in waiting:
                times.append(await ask(path, next(bodies)))

    started = time.perf_counter()
    await asyncio.gather(*(client() for _ in range(clients)))
    cuts = statistics.quantiles(times, n=1000)
    rate = len(times) / (time.perf_counter() - started)
    return {"p50_ms": round(cuts[499], 2), "p99_ms": round(cuts[989], 2), "per_s": round(rate)}


def library_ms(rounds: int = 500) -> float:
    """Give what the price rules alone take of one such estimate, in ms."""
    plain = {"currency": "AUD", "minor_digits": 2, "included_qty": "5", "overage_price": "0"}
    terms = [from_plain(plain | {"tiers": SHAPES[n % len(SHAPES)]}) for n in range(SKUS)]
    started = time.perf_counter()
    for number in range(rounds):
        for one in terms:
            breakdown_closed(Decimal(number * 3), number, one)
    return round((time.perf_counter() - started) * 1000 / rounds, 3)


def questions(member: Member, skus: list[str], **more: Any) -> Any:
    """Give bodies without end: each asks about other leads unless `leads` is given."""
    body = {"org_id": member.org_id, "skus": dict.fromkeys(skus, "1.5"), **more}
    return (body if "leads" in more else {**body, "leads": n} for n in count(1))


async def measure(arguments: argparse.Namespace) -> Json:
    """Make the world, ask, and give the figures."""
    async with world_at(arguments.run_dir) as world:
        member, skus = await a_buyer(world)
        few, many = arguments.requests, arguments.clients
        nothing = (None for _ in count())
        return {
            "skus": SKUS,
            "computed": await latencies(world, member, questions(member, skus), few, 1),
            "cached": await latencies(world, member, questions(member, skus, leads=7), few, 1),
            "on_usage": await latencies(
                world, member, questions(member, skus, from_current_usage=True), few, 1
            ),
            f"computed_by_{many}": await latencies(
                world,
                member,
                ({**one, "leads": one["leads"] + 10**6} for one in questions(member, skus)),
                few,
                many,
            ),
            "raw_request": await latencies(world, member, nothing, few, 1, "/.well-known/jwks.json"),
            "library_ms": library_ms(),
        }


def main() -> int:
    """Measure and print one JSON line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--run-dir", type=Path, required=True)
    parser.add_argument("--requests", type=int, default=2000)
    parser.add_argument("--clients", type=int, default=4)
    result = uvloop.run(measure(parser.parse_args()))
    record("estimate", result)
    return 0 if result["computed"]["p99_ms"] <= FIRST_BAR_MS else 1


if __name__ == "__main__":
    sys.exit(main())
