"""How many usage records a second one consumer charges: recorded usage as bytes in, committed charges out.

A durable PostgreSQL of its own, one take at a time, so that service and database together use about one core.
1,000 organisations × 5 SKUs at a graduated price with tax, uniform: nearly every take touches all counters.
Prints one JSON line; `--records` sets how many.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import asyncpg
import psutil
import uvloop
from common import copy_ceiling, record

from eb_contracts.catalog import Assignment, OrgTermsAssigned, TermsBody, TermsDefined
from eb_contracts.ids import new_id, partition_of
from eb_contracts.metering import UsageRecord, UsageRecorded
from eb_kit import readmodels, telemetry
from eb_kit.testing import Client, running
from eb_kit.testing_db import migrate
from eb_pricing.app import SERVICE
from eb_pricing.consumers import price_usage
from eb_tools.postgres import PrivatePostgres

ORGS = 1000
SKUS = ("sms", "form_submit", "email_check", "hosting", "report")
SINCE = datetime(2026, 1, 1, tzinfo=UTC)
PASSWORD = "bench"
NO_BROKER = "amqp://nobody@127.0.0.1:1/"
FIRST_BAR = 10_000
PRICE = {
    "mode": "graduated",
    "tiers": [{"up_to": "100", "unit_price": "0.10"}, {"up_to": None, "unit_price": "0.0525"}],
}


def terms(sku: str) -> TermsDefined:
    """Make the terms of a SKU; any text will do for a hash here."""
    body = {"sku": sku, "sku_type": "action", "currency": "AUD", "minor_digits": 2, "included_qty": "10"}
    body |= {"overage_price": "0", "tiers": PRICE, "tax_code": "GST", "tax_rate": "0.1"}
    return TermsDefined(version=1, terms_hash=f"{sku:x>64}", body=TermsBody.model_validate(body))


async def prepare(client: Client) -> list[UUID]:
    """Let the facts of prices arrive; give the organisations."""
    context = client.context
    defined = [terms(sku) for sku in SKUS]
    hashes = {one.body.sku: one.terms_hash for one in defined}
    assignment = Assignment(
        effective_at=SINCE,
        plan_id=new_id(),
        plan_version=1,
        currency="AUD",
        time_zone="Australia/Sydney",
        hashes=hashes,
        retail_key="AUD/AU",
    )
    org_ids = [new_id() for _ in range(ORGS)]
    assigned = [OrgTermsAssigned(version=1, org_id=org_id, assignments=(assignment,)) for org_id in org_ids]
    async with context.begin("system:bench") as tx:
        await readmodels.keep(tx.connection, [*defined, *assigned], context.clock.machine_now())
    return org_ids


def takes(org_ids: list[UUID], records: int, in_take: int) -> Iterator[list[bytes]]:
    """Make takes of messages, one per partition, of usage in the last hour."""
    chance = random.Random(7)
    now = datetime.now(UTC).replace(second=0, microsecond=0)
    for _ in range(records // in_take):
        by_partition: dict[int, list[UsageRecord]] = {}
        for _ in range(in_take):
            org_id = chance.choice(org_ids)
            used = UsageRecord.trusted(
                usage_id=new_id(),
                org_id=org_id,
                project_id=org_ids[0],
                sku=chance.choice(SKUS),
                minute=now - timedelta(minutes=chance.randrange(60)),
                quantity=Decimal(chance.randrange(1, 500)) / 8,
                events=chance.randrange(1, 20),
                trace_ids=("0" * 32,),
            )
            by_partition.setdefault(partition_of(org_id), []).append(used)
        yield [
            UsageRecorded.trusted(partition=p, usage=tuple(some)).to_bytes()
            for p, some in by_partition.items()
        ]


async def charge_all(client: Client, bodies: list[list[bytes]]) -> float:
    """Hand the messages over, take by take; give the seconds it took."""
    started = time.perf_counter()
    for take in bodies:
        messages = [UsageRecorded.from_bytes(body) for body in take]
        async with client.context.begin("service:pricing") as tx:
            await price_usage(tx, messages)
    return time.perf_counter() - started


def cpu_of(pid: int) -> float:
    """Sum the CPU seconds of a process and its children."""
    family = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
    return sum(sum(process.cpu_times()[:2]) for process in family)


async def measure(records: int, in_take: int) -> dict[str, Any]:
    """Start a database and the service, charge the records, and give the figures."""
    with tempfile.TemporaryDirectory(prefix="eb-bench-pricing-") as folder:
        async with PrivatePostgres(Path(folder) / "postgres") as postgres:
            await asyncio.to_thread(migrate, postgres.owner_dsn())
            owner = await asyncpg.connect(postgres.owner_dsn())
            await owner.execute(f"ALTER ROLE eb_pricing PASSWORD '{PASSWORD}'")
            dsn = postgres.dsn("eb_pricing", PASSWORD)
            async with running(SERVICE, dsn, NO_BROKER, doors=("api",)) as client:
                org_ids = await prepare(client)
                await charge_all(client, list(takes(org_ids, 4 * in_take, in_take)))
                bodies = list(takes(org_ids, records, in_take))
                before = time.process_time(), cpu_of(postgres.pid)
                seconds = await charge_all(client, bodies)
                after = time.process_time(), cpu_of(postgres.pid)
            charged = await owner.fetchval("SELECT count(*) FROM pricing.charge")
            await owner.close()
            assert charged == (len(bodies) + 4) * in_take, charged
            ceiling = await copy_ceiling(postgres.owner_dsn())
        postgres.forget()
    count = len(bodies) * in_take
    return {
        "records": count,
        "records_per_take": in_take,
        "records_per_s": round(count / seconds),
        "service_us_per_record": round((after[0] - before[0]) / count * 1e6, 1),
        "database_us_per_record": round((after[1] - before[1]) / count * 1e6, 1),
        "copy_rows_per_s": round(ceiling),
        "ratio": round(count / seconds / ceiling, 3),
    }


def main() -> int:
    """Measure and print; exit 1 under the first bar."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--records", type=int, default=200_000)
    parser.add_argument("--in-take", type=int, default=5_000)
    asked = parser.parse_args()
    telemetry.start_logging("bench", "error")
    result = uvloop.run(measure(asked.records, asked.in_take))
    record("pricing", result)
    return 0 if result["records_per_s"] >= FIRST_BAR else 1


if __name__ == "__main__":
    sys.exit(main())
