"""How many ledger lines a second one consumer posts: priced charges as bytes in, committed lines out.

A durable PostgreSQL of its own, one take at a time, so that service and database together use about one core.
1,000 organisations × 5 SKUs; every other organisation has a partner. Prints one JSON line; `--lines` sets how many.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import asyncpg
import psutil
import uvloop
from common import copy_ceiling, record

from eb_contracts.auth import OrgChanged, ParentLink
from eb_contracts.ids import new_id
from eb_contracts.pricing import Charge, ChargePriced, CounterState
from eb_kit import readmodels
from eb_kit.testing import Client, running
from eb_kit.testing_db import migrate
from eb_ledger.app import SERVICE
from eb_ledger.consumers import give_default_accounts, post_priced_charges
from eb_tools.postgres import PrivatePostgres

ORGS = 1000
SKUS = ("sms", "form_submit", "email_check", "hosting", "report")
BORN = datetime(2026, 1, 1, tzinfo=UTC)
PASSWORD = "bench"
NO_BROKER = "amqp://nobody@127.0.0.1:1/"
FIRST_BAR = 10_000


async def prepare(client: Client) -> list[Any]:
    """Let the organisations' facts arrive; give every other one a partner of record at 12.5 %."""
    context = client.context
    org_ids = [new_id() for _ in range(ORGS)]
    links = (ParentLink(parent_org_id=None, effective_at=BORN),)
    facts = [
        OrgChanged(
            version=1,
            org_id=org_id,
            parent_org_id=None,
            parent_links=links,
            default_timezone="UTC",
            country="AU",
        )
        for org_id in org_ids
    ]
    async with context.begin("service:ledger") as tx:
        await give_default_accounts(
            tx, await readmodels.keep(tx.connection, facts, context.clock.machine_now())
        )
    partner_id = new_id()
    async with context.begin("system:bench") as tx:
        await tx.execute(
            "INSERT INTO partner (partner_id, name, payout_provider, created_at) VALUES ($1, 'R', 'sandbox', $2)",
            partner_id,
            BORN,
        )
        await tx.execute("INSERT INTO partner_tier VALUES ($1, $2, 'gold')", partner_id, BORN)
        await tx.executemany(
            "INSERT INTO commission_rate VALUES ('gold', $1, 12.5, $2, $2)", [(sku, BORN) for sku in SKUS]
        )
        await tx.executemany(
            "INSERT INTO partner_of_record (por_id, org_id, partner_id, start_at, status, created_at)"
            " VALUES ($1, $2, $3, $4, 'active', $4)",
            [(new_id(), org_id, partner_id, BORN) for org_id in org_ids[::2]],
        )
    return org_ids


def messages(org_ids: list[Any], lines: int, in_message: int) -> Iterator[bytes]:
    """Make the bodies of priced charges, each of other organisations and SKUs."""
    chance = random.Random(7)
    counter = CounterState(quantity="120", events=12, charged="6.00", version=12)
    now = datetime.now(UTC).replace(second=0, microsecond=0)
    for _ in range(lines // in_message):
        charges = tuple(
            Charge.trusted(
                charge_id=str(new_id()), org_id=chance.choice(org_ids), project_id=org_ids[0],
                sku=chance.choice(SKUS), period=f"{now:%Y-%m}", time=now, kind="usage", quantity="12.5",
                event_count=12, currency="AUD", amount_gross=f"{chance.randrange(1, 5000) / 100:.2f}",
                waived_amount="0", credit_applied="0", tax_amount="0.17", tax_code="GST", terms_hash="0" * 64,
                counter=counter, trace_ids=("0" * 32,),
            )
            for _ in range(in_message)
        )  # fmt: skip
        yield ChargePriced.trusted(partition=0, charges=charges).to_bytes()


async def post_all(client: Client, bodies: list[bytes], per_take: int) -> float:
    """Hand the messages over, take by take; give the seconds it took."""
    started = time.perf_counter()
    for start in range(0, len(bodies), per_take):
        take = [ChargePriced.from_bytes(body) for body in bodies[start : start + per_take]]
        async with client.context.begin("service:ledger") as tx:
            await post_priced_charges(tx, take)
    return time.perf_counter() - started


def cpu_of(pids: list[int]) -> float:
    """Sum the CPU seconds of some processes and their children."""
    families = [
        p for pid in pids for p in (psutil.Process(pid), *psutil.Process(pid).children(recursive=True))
    ]
    return sum(sum(process.cpu_times()[:2]) for process in families)


@asynccontextmanager
async def a_database() -> AsyncIterator[PrivatePostgres]:
    """Run a migrated server of the bench's own; nothing of it stays."""
    with tempfile.TemporaryDirectory(prefix="eb-bench-ledger-") as folder:
        postgres = PrivatePostgres(Path(folder) / "postgres")
        try:
            async with postgres:
                await asyncio.to_thread(migrate, postgres.owner_dsn())
                yield postgres
        finally:
            postgres.forget()


async def measure(lines: int, in_message: int, per_take: int) -> dict[str, Any]:
    """Start a database and the service, post the lines, and give the figures."""
    async with a_database() as postgres:
        owner = await asyncpg.connect(postgres.owner_dsn())
        await owner.execute(f"ALTER ROLE eb_ledger PASSWORD '{PASSWORD}'")
        async with running(SERVICE, postgres.dsn("eb_ledger", PASSWORD), NO_BROKER, doors=("api",)) as client:
            org_ids = await prepare(client)
            bodies = list(messages(org_ids, lines, in_message))
            await post_all(client, list(messages(org_ids, 10_000, in_message)), per_take)
            before = psutil.Process().cpu_times()[0], cpu_of([postgres.pid])
            seconds = await post_all(client, bodies, per_take)
            after = psutil.Process().cpu_times()[0], cpu_of([postgres.pid])
        posted = await owner.fetchval("SELECT count(*) FROM ledger.ledger")
        await owner.close()
        assert posted == lines + 10_000, posted
        ceiling = await copy_ceiling(postgres.owner_dsn())
    return {
        "lines": lines,
        "lines_per_take": in_message * per_take,
        "lines_per_s": round(lines / seconds),
        "service_us_per_line": round((after[0] - before[0]) / lines * 1e6, 1),
        "database_us_per_line": round((after[1] - before[1]) / lines * 1e6, 1),
        "copy_rows_per_s": round(ceiling),
        "ratio": round(lines / seconds / ceiling, 3),
    }


def main() -> int:
    """Measure and print; exit 1 under the first bar."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--lines", type=int, default=200_000)
    parser.add_argument("--in-message", type=int, default=100)
    parser.add_argument("--per-take", type=int, default=20)
    asked = parser.parse_args()
    result = uvloop.run(measure(asked.lines, asked.in_message, asked.per_take))
    record("ledger", result)
    return 0 if result["lines_per_s"] >= FIRST_BAR else 1


if __name__ == "__main__":
    sys.exit(main())
