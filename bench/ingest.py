"""Ingest end to end: HTTP → deduplicated → priced → in the ledger, over many organisations × 5 SKUs.

    python bench/ingest.py --run-dir .run --orgs 1000 --seconds 60 [--what end_to_end,accepted,single,latency]

end_to_end  batches as fast as they are taken (16 connections) for so long; the clock stops when the ledger holds a line
            for the last event. The sums of quantity metered, priced and in the ledger are compared exactly, the amounts
            of some organisations with the estimator's. `--spread uniform|hot`, `--mixed`, `--batch`, `--minutes`.
accepted    the same up to the 202, with the writer's consumers off (metering-ingest may read nothing meanwhile)
single      requests of one event: accepted (the writer off), and with everything running
latency     open loop at half of the rates found before (all running): the 202, and the way from it to the ledger line
Raw ceilings and CPU time by process are measured in the same run.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import statistics
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit
from uuid import UUID

import aiohttp
import asyncpg
import uvloop
from common import confirm_ceiling, copy_ceiling, parse_ceiling, record, world_at
from cpu import cpu_seconds, per_event
from load import Sender, Sent, Shape, make_bodies, make_members

from eb_tools.world import Member, World

MOST_PER_S = 25_000
PROBES = 8
DOOR = "metering-ingest"

SUMS = """
    SELECT (SELECT coalesce(sum(quantity), 0) FROM metering_ingest.metering_event WHERE org_id = ANY($1)) AS metered,
           (SELECT coalesce(sum(quantity), 0) FROM pricing.charge WHERE org_id = ANY($1)) AS priced,
           (SELECT coalesce(sum(quantity), 0) FROM ledger.ledger WHERE org_id = ANY($1)) AS in_ledger,
           (SELECT coalesce(sum(amount_gross), 0) FROM ledger.ledger WHERE org_id = ANY($1)) AS gross,
           (SELECT count(*) FROM ledger.ledger WHERE org_id = ANY($1)) AS lines
"""
POSTED = "SELECT coalesce(sum(quantity), 0) FROM ledger.ledger WHERE org_id = ANY($1)"


class Bench:
    """A stack under test, and the world in it."""

    def __init__(
        self, options: argparse.Namespace, world: World, owner: Any, key: str, members: list[Member]
    ) -> None:
        self.options = options
        self.world = world
        self.owner = owner
        self.key = key
        self.members = members
        self.org_ids = [UUID(member.org_id) for member in members]
        self.sender = Sender(world.api.base_url, key)
        self.shape = Shape(options.spread, options.batch, options.skus, options.mixed, options.minutes)
        self.stack = json.loads((options.run_dir / "stack.json").read_text())
        self.posted = 0

    async def until_posted(self, events: int, timeout_s: float = 300) -> None:
        """Wait until the ledger holds the quantity of so many more events."""
        self.posted += events
        until = time.monotonic() + timeout_s
        while (total := await self.owner.fetchval(POSTED, self.org_ids)) < self.posted:
            if time.monotonic() > until:
                raise SystemExit(f"the ledger holds {total} of {self.posted} after {timeout_s:.0f} s")
            await asyncio.sleep(0.1)

    async def check(self) -> dict[str, Any]:
        """Compare the sums of all three services exactly, and some bills with estimates; give the sums."""
        sums = dict(await self.owner.fetchrow(SUMS, self.org_ids))
        if not sums["metered"] == sums["priced"] == sums["in_ledger"] == self.posted:
            raise SystemExit(f"sums differ: {sums}, sent {self.posted}")
        for member in random.sample(self.members, min(10, len(self.members))):
            await self._check_bill(member)
        return sums

    async def _check_bill(self, member: Member) -> None:
        rows = await self.owner.fetch(
            "SELECT sku, sum(quantity) AS quantity, sum(amount_gross) AS gross FROM ledger.ledger"
            " WHERE org_id = $1 GROUP BY sku",
            UUID(member.org_id),
        )
        if not rows:
            return
        asked = {
            "org_id": member.org_id,
            "project_id": member.project_id,
            "skus": {row["sku"]: str(row["quantity"]) for row in rows},
            "leads": 1,
        }
        estimate = await self.world.api.post("/pricing/estimate", asked, token=self.key)
        billed = sum((row["gross"] for row in rows), Decimal(0))
        if Decimal(estimate["grand_total"]) != billed:
            raise SystemExit(f"{member.org_id}: billed {billed}, estimated {estimate['grand_total']}")

    def bodies(self, shape: Shape, per_s: float, seconds: float) -> list[bytes]:
        """Make bodies enough for so long."""
        return make_bodies(self.members, shape, int(per_s / shape.batch * seconds) + 64)

    @asynccontextmanager
    async def writer_off(self) -> AsyncIterator[None]:
        """Keep the writer from reading: its user may not, and its connection is closed."""
        admin = urlsplit(self.stack["rabbitmq_admin_url"])
        base = f"http://{admin.hostname}:{admin.port}/api"
        user = f"{base}/permissions/%2F/{DOOR}"
        login = {"Authorization": aiohttp.encode_basic_auth(admin.username or "", admin.password or "")}
        async with aiohttp.ClientSession(headers=login, raise_for_status=True) as http:
            async with http.get(user) as answer:
                allowed = {name: (await answer.json())[name] for name in ("configure", "write", "read")}
            await http.put(user, json=allowed | {"read": "^$"})
            await _close(http, base, f"{DOOR}:consume")
            try:
                yield
            finally:
                await http.put(user, json=allowed)
                await _close(http, base, f"{DOOR}:consume")


async def _close(http: aiohttp.ClientSession, base: str, name: str) -> None:
    """Close connections of this name; the statistics that tell their names are a few seconds old."""
    for _ in range(60):
        async with http.get(f"{base}/connections") as answer:
            found = [one for one in await answer.json() if one.get("user_provided_name") == name]
        if found:
            break
        await asyncio.sleep(0.2)
    for one in found:
        async with http.delete(f"{base}/connections/{quote(one['name'], safe='')}", raise_for_status=False):
            pass


def quantiles(name: str, seconds: list[float]) -> dict[str, float]:
    """Give p50 and p99 in ms."""
    cut = statistics.quantiles(seconds, n=100)
    return {f"{name}p50_ms": round(cut[49] * 1000, 1), f"{name}p99_ms": round(cut[98] * 1000, 1)}


def told(sent: Sent, batch: int) -> dict[str, Any]:
    """Give what a load came to."""
    events = len(sent.latencies) * batch
    rate = {"events": events, "accepted_ev_s": round(events / sent.seconds), "put_off": sent.put_off}
    return rate | quantiles("", sent.latencies)


async def end_to_end(bench: Bench) -> dict[str, Any]:
    """Send for so long, and wait for the last ledger line."""
    options = bench.options
    bodies = bench.bodies(bench.shape, MOST_PER_S, options.seconds)
    before, lines = cpu_seconds(options.run_dir), await _lines(bench)
    sent = await bench.sender.closed_loop(bodies, options.connections, options.seconds)
    started_s = time.perf_counter() - sent.seconds
    events = len(sent.latencies) * bench.shape.batch
    await bench.until_posted(events)
    total_s = time.perf_counter() - started_s
    spent = per_event(before, cpu_seconds(options.run_dir), events)
    sums = await bench.check()
    return told(sent, bench.shape.batch) | {
        "end_to_end_ev_s": round(events / total_s),
        "seconds": round(total_s, 1),
        "ledger_lines": sums["lines"] - lines,
        "gross": str(sums["gross"]),
        "cpu_us_per_event": spent,
    }


async def _lines(bench: Bench) -> int:
    count: int = await bench.owner.fetchval(
        "SELECT count(*) FROM ledger.ledger WHERE org_id = ANY($1)", bench.org_ids
    )
    return count


async def accepted(bench: Bench, shape: Shape | None = None, connections: int = 0) -> dict[str, Any]:
    """Send for a while with the writer off, then let it catch up."""
    options, shape = bench.options, shape or bench.shape
    seconds = min(options.seconds, 20)
    bodies = bench.bodies(shape, 2 * MOST_PER_S if shape.batch > 1 else 8_000, seconds)
    async with bench.writer_off():
        before = cpu_seconds(options.run_dir)
        sent = await bench.sender.closed_loop(bodies, connections or options.connections, seconds)
        spent = per_event(before, cpu_seconds(options.run_dir), len(sent.latencies) * shape.batch)
    events, started = len(sent.latencies) * shape.batch, time.perf_counter()
    await bench.until_posted(events)
    drained_s = time.perf_counter() - started
    await bench.check()
    return told(sent, shape.batch) | {"drained_ev_s": round(events / drained_s), "cpu_us_per_event": spent}


async def single(bench: Bench) -> dict[str, Any]:
    """Send single events: up to the 202 with the writer off, and with everything running."""
    shape = replace(bench.shape, batch=1)
    alone = await accepted(bench, shape, connections=64)
    seconds = min(bench.options.seconds, 20)
    sent = await bench.sender.closed_loop(bench.bodies(shape, 8_000, seconds), 64, seconds)
    await bench.until_posted(len(sent.latencies))
    await bench.check()
    return alone | {
        "requests_s": alone["accepted_ev_s"],
        "requests_s_all_running": told(sent, 1)["accepted_ev_s"],
    }


async def latency(bench: Bench, rate: float, single_rate: float) -> dict[str, Any]:
    """Send at half of what was reached, open loop: the 202 of batches and of single events, the way to the ledger."""
    seconds = min(bench.options.seconds, 30)
    bodies = bench.bodies(bench.shape, rate / 2, seconds)
    sent = await bench.sender.open_loop(bodies, rate / 2 / bench.shape.batch)
    await bench.until_posted(len(bodies) * bench.shape.batch)
    # Probes ask the database a thousand times a second, which the 202 would wait for, too: so once more, with them.
    bodies = bench.bodies(bench.shape, rate / 2, seconds)
    probes = asyncio.create_task(probe(bench, seconds))
    await bench.sender.open_loop(bodies, rate / 2 / bench.shape.batch)
    to_ledger = await probes
    await bench.until_posted(len(bodies) * bench.shape.batch + len(to_ledger))
    shape = replace(bench.shape, batch=1)
    ones = bench.bodies(shape, single_rate / 2, seconds / 2)
    alone = await bench.sender.open_loop(ones, single_rate / 2)
    await bench.until_posted(len(ones))
    await bench.check()
    return (
        {"rate_ev_s": round(rate / 2), "single_rate_s": round(single_rate / 2)}
        | quantiles("", sent.latencies)
        | quantiles("single_", alone.latencies)
        | quantiles("to_ledger_", to_ledger)
        | {"probes": len(to_ledger), "put_off": sent.put_off + alone.put_off}
    )


async def probe(bench: Bench, seconds: float) -> list[float]:
    """Follow single events from their 202 to their ledger line, some at a time; give the seconds each took."""
    found: list[float] = []
    until = time.perf_counter() + seconds
    last = bench.members[-PROBES:]

    async def follow(member: Member) -> None:
        wire, sent, org_ids = await bench.sender.connect(), Sent(), [UUID(member.org_id)]
        owner = await asyncpg.connect(bench.stack["owner_dsn"])
        while time.perf_counter() < until:
            (body,) = make_bodies([member], replace(bench.shape, batch=1, spread="uniform"), 1)
            request_id = json.loads(body)[0]["request_id"]
            accepted_at = await bench.sender.send(wire, body, sent)
            while not await owner.fetchval(LINE, org_ids[0], request_id):  # noqa: ASYNC110 - the database tells nobody
                await asyncio.sleep(0.01)
            found.append(time.perf_counter() - accepted_at)
        await owner.close()

    await asyncio.gather(*map(follow, last))
    return found


LINE = """
    SELECT EXISTS (SELECT FROM metering_ingest.event_key AS k
                     JOIN metering_ingest.metering_event AS e USING (org_id, event_id, event_time)
                     JOIN ledger.charge_posting AS p ON p.charge_id = e.usage_id::text AND p.org_id = e.org_id
                    WHERE k.org_id = $1 AND k.request_id = $2)
"""


async def run(options: argparse.Namespace) -> int:
    """Run what was asked for, one JSON line each; the figures of one go into the next."""
    async with world_at(options.run_dir) as world:
        key, members = await make_members(world, options.orgs, options.skus)
        owner = await asyncpg.connect(json.loads((options.run_dir / "stack.json").read_text())["owner_dsn"])
        bench = Bench(options, world, owner, key, members)
        await asyncio.sleep(3)
        ceilings = await _ceilings(bench)
        rates = {"end_to_end": options.rate, "single": options.single_rate}
        for what in options.what.split(","):
            result = await _one(bench, what, rates)
            stored = await owner.fetchval(
                "SELECT reltuples::bigint FROM pg_class WHERE relname = 'event_key_h00'"
            )
            facts = vars(bench.shape) | {
                "what": what,
                "orgs": options.orgs,
                "connections": options.connections,
            }
            if options.growth:
                facts |= {"growth": options.growth, "of": int(options.of)}
            record("ingest", facts | {"stored_events": stored} | result | ceilings)
        await owner.close()
    return 0


async def _one(bench: Bench, what: str, rates: dict[str, float]) -> dict[str, Any]:
    if what == "latency":
        return await latency(bench, rates["end_to_end"], rates["single"])
    result = await {"end_to_end": end_to_end, "accepted": accepted, "single": single}[what](bench)
    if what in rates:
        rates[what] = result["end_to_end_ev_s" if what == "end_to_end" else "requests_s_all_running"]
    return result


async def _ceilings(bench: Bench) -> dict[str, Any]:
    return {
        "copy_rows_s": round(await copy_ceiling(bench.stack["owner_dsn"])),
        "confirmed_msg_s": round(await confirm_ceiling(bench.stack["amqp_url"])),
        "parsed_ev_s": round(parse_ceiling(make_bodies(bench.members, Shape(), 300), 100)),
    }


def main() -> int:
    """Read the options and run."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--run-dir", type=Path, default=Path(".run"))
    parser.add_argument("--what", default="end_to_end")
    parser.add_argument("--orgs", type=int, default=1000)
    parser.add_argument("--skus", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--batch", type=int, default=100)
    parser.add_argument("--minutes", type=int, default=4)
    parser.add_argument("--mixed", action="store_true")
    parser.add_argument("--connections", type=int, default=16)
    parser.add_argument("--spread", choices=("zipf", "uniform", "hot"), default="zipf")
    parser.add_argument("--growth", help="which size this run belongs to the table of")
    parser.add_argument("--of", type=int, default=0, help="that size")
    parser.add_argument("--rate", type=float, default=10_000, help="for latency alone: events/s to halve")
    parser.add_argument(
        "--single-rate", type=float, default=2_500, help="for latency alone: requests/s to halve"
    )
    return uvloop.run(run(parser.parse_args()))


if __name__ == "__main__":
    sys.exit(main())
