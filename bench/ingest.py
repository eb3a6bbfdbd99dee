"""End to end: HTTP → deduplicated → priced → in the ledger, batches of 100 over many orgs × 5 SKUs.

    python bench/ingest.py --run-dir .run --orgs 1000 --batches 3000 [--spread uniform|hot]

Starts when the first request leaves and ends when the ledger holds a line for the last event; the sums of
quantity metered, priced and in the ledger are compared exactly, and so are the amounts with the estimator's.
Raw ceilings are measured in the same run.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import random
import statistics
import sys
import time
from collections.abc import Awaitable, Callable, Iterable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import aiohttp
import asyncpg
from common import confirm_ceiling, copy_ceiling, parse_ceiling, record, world_at
from cpu import cpu_seconds, per_event

from eb_contracts.ids import new_id
from eb_tools.client import ApiProblem, Json
from eb_tools.world import Member, World

SKUS = ("bench-form", "bench-sms", "bench-check", "bench-render", "bench-query")
PRICES: dict[str, Json] = {
    "bench-form": {"included_qty": "100", "overage_price": "0.05"},
    "bench-sms": {"included_qty": "0", "overage_price": "0.0793"},
    "bench-check": {"included_qty": "0", "overage_price": "0.001"},
    "bench-render": {
        "included_qty": "0",
        "tiers": {
            "mode": "graduated",
            "tiers": [
                {"up_to": "100", "unit_price": "0.10"},
                {"up_to": "1000", "unit_price": "0.05"},
                {"up_to": "10000", "unit_price": "0.02"},
                {"up_to": "100000", "unit_price": "0.01"},
                {"up_to": None, "unit_price": "0.005"},
            ],
        },
    },
    "bench-query": {
        "included_qty": "0",
        "tiers": {"mode": "package", "package_size": "100", "package_price": "1"},
    },
}
BATCH = 100


async def make_members(world: World, count: int) -> tuple[str, list[Member]]:
    """Make one group of `count` children with a plan each; give the group's key (`:tree`) and the members."""
    admin = await world.person("bench")
    root = await world.org(admin, "Bench Group")
    made = await world.api.post(
        f"/orgs/{root.org_id}/api-keys",
        {"name": "bench", "scopes": ["metering:write:tree", "metering:read:tree", "pricing:estimate:tree"]},
        token=root.admin_token,
    )
    for sku in SKUS:
        await world.sku(sku)
    model = await world.model()
    plan = await world.plan(model, PRICES)
    operator = world.staff.operator_token
    numbers = range(count)

    async def child(number: int) -> str:
        body = {
            "legal_name": f"Bench {number}",
            "org_slug": f"bench-{world.tag}-{number}",
            "billing_email": "bench@example.net",
            "default_timezone": "UTC",
        }
        org = await world.api.post(f"/orgs/{root.org_id}/children", body, token=root.admin_token)
        return str(org["org_id"])

    async def project(org_id: str) -> Member:
        made_here = await world.api.post(f"/orgs/{org_id}/projects", {"name": "bench"}, token=operator)
        return Member(org_id, made_here["project_id"], made["key"], operator)

    orgs = await _each(child, numbers)
    members = await _each(project, orgs)
    await _each(lambda org_id: world.assign(org_id, model, plan), orgs)
    return made["key"], members


async def _each(work: Callable[[Any], Awaitable[Any]], items: Iterable[Any]) -> list[Any]:
    """Do it for each item, 8 at a time; a platform that is too busy is asked again."""
    gate = asyncio.Semaphore(8)

    async def one(item: Any) -> Any:
        async with gate:
            for pause_s in (0.5, 1, 2, 4):
                try:
                    return await work(item)
                except ApiProblem as problem:
                    if problem.status != 503:
                        raise
                    await asyncio.sleep(pause_s)
            return await work(item)

    return list(await asyncio.gather(*map(one, items)))


def weights(count: int, spread: str) -> list[float]:
    """Give how often each org sends: a Zipf law (s = 1.1), all alike, or one alone."""
    if spread == "uniform":
        return [1.0] * count
    if spread == "hot":
        return [1.0] + [0.0] * (count - 1)
    return [1 / (rank**1.1) for rank in range(1, count + 1)]


def make_bodies(members: list[Member], spread: str, batches: int, tag: str) -> list[bytes]:
    """Write the bodies beforehand, so that the generator costs little while it sends."""
    now = datetime.now(UTC) - timedelta(minutes=5)
    times = [(now + timedelta(seconds=s)).isoformat() for s in range(0, 240, 7)]
    chosen = random.choices(members, weights(len(members), spread), k=batches)
    skus = itertools.cycle(SKUS if spread != "hot" else SKUS[:1])
    bodies = []
    for number, member in enumerate(chosen):
        head = f'","org_id":"{member.org_id}","project_id":"{member.project_id}","quantity":"1","time":"'
        events = ",".join(
            f'{{"request_id":"{tag}-{number}-{n}","sku":"{next(skus)}{head}{random.choice(times)}"}}'
            for n in range(BATCH)
        )
        bodies.append(f"[{events}]".encode())
    return bodies


async def send_all(url: str, key: str, bodies: list[bytes], connections: int) -> tuple[list[float], int]:
    """Send every body until its 202, over so many connections at a time; give the latencies (s) and the 503s."""
    headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
    latencies: list[float] = []
    put_off = 0
    waiting = iter(bodies)

    async def sender(http: aiohttp.ClientSession) -> None:
        nonlocal put_off
        for body in waiting:
            started = time.perf_counter()
            while (status := await _post(http, f"{url}/metering/events", body, headers)) == 503:
                put_off += 1
                await asyncio.sleep(1)
            if status != 202:
                raise SystemExit(f"a batch was answered {status}")
            latencies.append(time.perf_counter() - started)

    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=connections)) as http:
        await asyncio.gather(*(sender(http) for _ in range(connections)))
    return latencies, put_off


async def _post(http: aiohttp.ClientSession, url: str, body: bytes, headers: dict[str, str]) -> int:
    async with http.post(url, data=body, headers=headers) as answer:
        await answer.read()
        return answer.status


SUMS = """
    SELECT (SELECT coalesce(sum(quantity), 0) FROM metering_ingest.metering_event WHERE org_id = ANY($1)) AS metered,
           (SELECT coalesce(sum(quantity), 0) FROM pricing.charge WHERE org_id = ANY($1)) AS priced,
           (SELECT coalesce(sum(quantity), 0) FROM ledger.ledger WHERE org_id = ANY($1)) AS in_ledger,
           (SELECT coalesce(sum(amount_gross), 0) FROM ledger.ledger WHERE org_id = ANY($1)) AS gross,
           (SELECT count(*) FROM ledger.ledger WHERE org_id = ANY($1)) AS lines
"""


async def wait_until_posted(owner: Any, orgs: list[Any], before: int, wanted: int, timeout_s: float) -> None:
    """Wait until the ledger holds the quantity of all events."""
    until = time.monotonic() + timeout_s
    while time.monotonic() < until:
        total = await owner.fetchval(
            "SELECT coalesce(sum(quantity), 0) FROM ledger.ledger WHERE org_id = ANY($1)", orgs
        )
        if total >= before + wanted:
            return
        await asyncio.sleep(0.1)
    raise SystemExit(f"the ledger holds {total - before} of {wanted} after {timeout_s:.0f} s")


async def check_amounts(world: World, owner: Any, members: list[Member], key: str, sample: int = 10) -> None:
    """Compare what some orgs were billed with the estimate of the same usage, to the cent."""
    for member in random.sample(members, min(sample, len(members))):
        rows = await owner.fetch(
            "SELECT sku, sum(quantity) AS quantity, sum(amount_gross) AS gross FROM ledger.ledger"
            " WHERE org_id = $1 GROUP BY sku",
            new_uuid(member.org_id),
        )
        if not rows:
            continue
        estimate = await world.api.post(
            "/pricing/estimate",
            {
                "org_id": member.org_id,
                "project_id": member.project_id,
                "skus": {row["sku"]: str(row["quantity"]) for row in rows},
                "leads": 1,
            },
            token=key,
        )
        billed = sum((row["gross"] for row in rows), Decimal(0))
        if Decimal(estimate["grand_total"]) != billed:
            raise SystemExit(f"{member.org_id}: billed {billed}, estimated {estimate['grand_total']}")


def new_uuid(text: str) -> Any:
    """Read a UUID."""
    from uuid import UUID

    return UUID(text)


async def run(options: argparse.Namespace) -> int:
    """Run the bench; 0 if all sums agree."""
    stack = json.loads((options.run_dir / "stack.json").read_text())
    async with world_at(options.run_dir) as world:
        key, members = await make_members(world, options.orgs)
        owner = await asyncpg.connect(stack["owner_dsn"])
        orgs = [new_uuid(member.org_id) for member in members]
        bodies = make_bodies(members, options.spread, options.batches, str(new_id())[-12:])
        events = len(bodies) * BATCH
        await asyncio.sleep(3)
        before = cpu_seconds(options.run_dir)
        started = time.perf_counter()
        latencies, put_off = await send_all(world.api.base_url, key, bodies, options.connections)
        accepted_s = time.perf_counter() - started
        await wait_until_posted(owner, orgs, 0, events, options.timeout)
        total_s = time.perf_counter() - started
        spent = per_event(before, cpu_seconds(options.run_dir), events)
        sums = dict(await owner.fetchrow(SUMS, orgs))
        if not sums["metered"] == sums["priced"] == sums["in_ledger"] == events:
            raise SystemExit(f"sums differ: {sums}, sent {events}")
        await check_amounts(world, owner, members, key)
        ceilings = {
            "copy_rows_s": round(await copy_ceiling(stack["owner_dsn"])),
            "confirmed_msg_s": round(await confirm_ceiling(stack["amqp_url"])),
            "parsed_ev_s": round(parse_ceiling(bodies[:300], BATCH)),
        }
        await owner.close()
    quantiles = statistics.quantiles(latencies, n=100)
    record(
        "ingest",
        {
            "spread": options.spread,
            "orgs": options.orgs,
            "events": events,
            "batch": BATCH,
            "connections": options.connections,
            "end_to_end_ev_s": round(events / total_s),
            "accepted_ev_s": round(events / accepted_s),
            "put_off": put_off,
            "cpu_us_per_event": spent,
            "p50_ms": round(quantiles[49] * 1000, 1),
            "p99_ms": round(quantiles[98] * 1000, 1),
            "ledger_lines": sums["lines"],
            "gross": str(sums["gross"]),
            **ceilings,
            "ratio_to_copy": round(events / total_s / ceilings["copy_rows_s"], 3),
        },
    )
    return 0


def main() -> int:
    """Read the options and run."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--run-dir", type=Path, default=Path(".run"))
    parser.add_argument("--orgs", type=int, default=1000)
    parser.add_argument("--batches", type=int, default=3000, help="batches of 100 events")
    parser.add_argument("--connections", type=int, default=16)
    parser.add_argument("--timeout", type=float, default=180.0, help="seconds to wait for the last line")
    parser.add_argument("--spread", choices=["zipf", "uniform", "hot"], default="zipf")
    return asyncio.run(run(parser.parse_args()))


if __name__ == "__main__":
    sys.exit(main())
