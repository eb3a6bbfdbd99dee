"""How many events a second one writer records: accepted batches as bytes in, committed events and usage out.

A durable PostgreSQL of its own, one take at a time, so that service and database together use about one core.
Batches of 100 of one organisation each, over 1,000 organisations × 5 SKUs. Prints one JSON line.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import asyncpg
import psutil
import uvloop
from common import copy_ceiling, record

from eb_contracts.auth import ProjectChanged
from eb_contracts.ids import new_id, partition_of
from eb_contracts.metering import BatchAccepted
from eb_kit import readmodels, telemetry
from eb_kit.testing import Client, running
from eb_kit.testing_db import migrate
from eb_metering_ingest.app import SERVICE
from eb_metering_ingest.consumers import record_batches
from eb_tools.postgres import PrivatePostgres

ORGS = 1000
SKUS = ("sms", "form_submit", "email_check", "hosting", "report")
PASSWORD = "bench"
NO_BROKER = "amqp://nobody@127.0.0.1:1/"
BATCH = 100
FIRST_BAR = 10_000


async def prepare(client: Client) -> list[tuple[Any, Any]]:
    """Let the facts of projects arrive; give (org_id, project_id) pairs."""
    pairs = [(new_id(), new_id()) for _ in range(ORGS)]
    facts = [ProjectChanged(version=1, project_id=project_id, org_id=org_id) for org_id, project_id in pairs]
    context = client.context
    async with context.begin("system:bench") as tx:
        await readmodels.keep(tx.connection, facts, context.clock.machine_now())
    return pairs


def takes(pairs: list[tuple[Any, Any]], events: int, in_take: int) -> Iterator[list[bytes]]:
    """Make takes of messages, each of one batch of the last four minutes."""
    chance = random.Random(7)
    now = datetime.now(UTC)
    tag = str(new_id())[-8:]
    for take in range(events // in_take):
        bodies = []
        for batch in range(in_take // BATCH):
            org_id, project_id = chance.choice(pairs)
            sent = [
                {
                    "request_id": f"{tag}-{take}-{batch}-{n}",
                    "sku": SKUS[n % len(SKUS)],
                    "quantity": "1",
                    "org_id": str(org_id),
                    "project_id": str(project_id),
                    "time": (now - timedelta(seconds=chance.randrange(240))).isoformat(),
                }
                for n in range(BATCH)
            ]
            message = {"partition": partition_of(org_id), "batch_id": str(new_id()), "trace_id": "0" * 32}
            bodies.append(json.dumps({**message, "received_at": now.isoformat(), "events": sent}).encode())
        yield bodies


async def record_all(client: Client, bodies: list[list[bytes]]) -> float:
    """Hand the messages over, take by take; give the seconds it took."""
    started = time.perf_counter()
    for take in bodies:
        messages = [BatchAccepted.from_bytes(body) for body in take]
        async with client.context.begin("service:metering-ingest") as tx:
            await record_batches(tx, messages)
    return time.perf_counter() - started


def cpu_of(pid: int) -> float:
    """Sum the CPU seconds of a process and its children."""
    family = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
    return sum(sum(process.cpu_times()[:2]) for process in family)


@asynccontextmanager
async def a_service() -> Any:
    """Run the service beside a migrated database of the bench's own; nothing of it stays."""
    with tempfile.TemporaryDirectory(prefix="eb-bench-writer-") as folder:
        async with PrivatePostgres(Path(folder) / "postgres") as postgres:
            await asyncio.to_thread(migrate, postgres.owner_dsn())
            owner = await asyncpg.connect(postgres.owner_dsn())
            await owner.execute(f"ALTER ROLE eb_metering_ingest PASSWORD '{PASSWORD}'")
            dsn = postgres.dsn("eb_metering_ingest", PASSWORD)
            async with running(SERVICE, dsn, NO_BROKER, doors=("api",)) as client:
                yield client, owner, postgres
            await owner.close()
        postgres.forget()


async def measure(events: int, in_take: int) -> dict[str, Any]:
    """Start a database and the service, record the events, and give the figures."""
    async with a_service() as (client, owner, postgres):
        pairs = await prepare(client)
        await record_all(client, list(takes(pairs, 2 * in_take, in_take)))
        bodies = list(takes(pairs, events, in_take))
        before = time.process_time(), cpu_of(postgres.pid)
        seconds = await record_all(client, bodies)
        after = time.process_time(), cpu_of(postgres.pid)
        count = len(bodies) * in_take
        recorded = await owner.fetchval("SELECT count(*) FROM metering_ingest.metering_event")
        assert recorded == count + 2 * in_take, recorded
        ceiling = await copy_ceiling(postgres.owner_dsn())
    return {
        "events": count,
        "events_per_take": in_take,
        "events_per_s": round(count / seconds),
        "service_us_per_event": round((after[0] - before[0]) / count * 1e6, 1),
        "database_us_per_event": round((after[1] - before[1]) / count * 1e6, 1),
        "copy_rows_per_s": round(ceiling),
        "ratio": round(count / seconds / ceiling, 3),
    }


def main() -> int:
    """Measure and print; exit 1 under the first bar."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=300_000)
    parser.add_argument("--in-take", type=int, default=5_000)
    asked = parser.parse_args()
    telemetry.start_logging("bench", "error")
    result = uvloop.run(measure(asked.events, asked.in_take))
    record("writer", result)
    return 0 if result["events_per_s"] >= FIRST_BAR else 1


if __name__ == "__main__":
    sys.exit(main())
