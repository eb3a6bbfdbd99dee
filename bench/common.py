"""What the benches share: a world of many organisations, the raw ceilings of this machine, one JSON line a run."""

from __future__ import annotations

import asyncio
import json
import os
import platform
import subprocess
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aio_pika
import aiohttp
import asyncpg

from eb_kit import strictjson
from eb_tools.client import Api, Credentials
from eb_tools.paths import repository
from eb_tools.world import World

RESULTS = repository() / "bench" / "results.jsonl"


@asynccontextmanager
async def world_at(run_dir: Path) -> AsyncIterator[World]:
    """Stand in front of the platform that runs in this folder."""
    staff = Credentials.read(run_dir / "credentials.json")
    connector = aiohttp.TCPConnector(limit=64)
    async with aiohttp.ClientSession(connector=connector) as http:
        yield World.at(Api(staff.gateway_url, http), staff)


async def copy_ceiling(dsn: str, rows: int = 100_000) -> float:
    """Measure rows/s of COPY into a table with a unique key, on the server under test."""
    connection = await asyncpg.connect(dsn)
    try:
        await connection.execute("CREATE UNLOGGED TABLE IF NOT EXISTS bench_nothing (a int)")
        await connection.execute("DROP TABLE bench_nothing")
        await connection.execute(
            "CREATE TABLE bench_copy (org uuid, request text, n numeric, UNIQUE (org, request))"
        )
        from eb_contracts.ids import new_id

        org = new_id()
        records = [(org, f"r{n}", n) for n in range(rows)]
        started = time.perf_counter()
        await connection.copy_records_to_table("bench_copy", records=records)
        return rows / (time.perf_counter() - started)
    finally:
        await connection.execute("DROP TABLE IF EXISTS bench_copy")
        await connection.close()


async def confirm_ceiling(amqp_url: str, messages: int = 4_000, size: int = 10_000) -> float:
    """Measure confirmed msg/s of one process into a durable quorum queue, in windows of 200."""
    connection = await aio_pika.connect(amqp_url)
    async with connection:
        channel = await connection.channel()
        queue = await channel.declare_queue(
            "bench.confirm", durable=True, arguments={"x-queue-type": "quorum"}
        )
        body = os.urandom(size)
        started = time.perf_counter()
        for _ in range(messages // 200):
            await asyncio.gather(
                *(
                    channel.default_exchange.publish(
                        aio_pika.Message(body, delivery_mode=aio_pika.DeliveryMode.PERSISTENT),
                        "bench.confirm",
                    )
                    for _ in range(200)
                )
            )
        rate = messages / (time.perf_counter() - started)
        await queue.delete(if_unused=False, if_empty=False)
    return rate


def parse_ceiling(bodies: list[bytes], batch: int) -> float:
    """Measure events/s of the strict parser alone on these bodies, in this process."""
    started = time.perf_counter()
    for body in bodies:
        strictjson.parse(body)
    return len(bodies) * batch / (time.perf_counter() - started)


def record(bench: str, result: dict[str, Any]) -> None:
    """Append one JSON line with the commit and versions to bench/results.jsonl, and print it."""
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, cwd=repository(), check=False
    ).stdout.strip()
    line = {
        "bench": bench,
        "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "commit": commit,
        "python": platform.python_version(),
        "cores": os.cpu_count(),
        **result,
    }
    with RESULTS.open("a") as results:
        results.write(json.dumps(line) + "\n")
    print(json.dumps(line))
