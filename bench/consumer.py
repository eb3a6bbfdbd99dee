"""One consumer measured alone: messages as bytes in, committed rows out.

A durable PostgreSQL of its own and no broker, one take at a time, so that service and database together use about
one core.
"""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from contextlib import asynccontextmanager
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import asyncpg
import psutil
from common import copy_ceiling

from eb_contracts.base import Message
from eb_kit.service import Service
from eb_kit.testing import Client, running
from eb_kit.testing_db import migrate
from eb_tools.postgres import PrivatePostgres

PASSWORD = "bench"
NO_BROKER = "amqp://nobody@127.0.0.1:1/"


class Consumer(NamedTuple):
    """What is measured. `unit` counts its work (an event, a line), each leaves a row in `table`.

    `takes` makes takes of `in_take` units without end, from what `prepare` gave.
    """

    service: Service
    message: type[Message]
    consume: Callable[[Any, list[Any]], Awaitable[None]]
    table: str
    unit: str
    in_take: int
    prepare: Callable[[Client], Awaitable[Any]]
    takes: Callable[[Any], Iterator[list[bytes]]]


class Cost(NamedTuple):
    """Seconds by the clock, and of CPU: the service's, and the database's."""

    seconds: float
    service: float
    database: float


async def measure(consumer: Consumer, units: int, warm_takes: int) -> dict[str, Any]:
    """Start a database and the service, hand the takes over, and give the figures."""
    async with a_database(consumer.service.schema) as (postgres, dsn):
        async with running(consumer.service, dsn, NO_BROKER, doors=("api",)) as client:
            takes = consumer.takes(await consumer.prepare(client))
            await _hand_over(client, consumer, list(islice(takes, warm_takes)))
            bodies = list(islice(takes, units // consumer.in_take))
            cost = await _cost_of(postgres, _hand_over(client, consumer, bodies))
        await _must_be_there(postgres, consumer, warm_takes + len(bodies))
        ceiling = await copy_ceiling(postgres.owner_dsn())
    return _figures(consumer, len(bodies) * consumer.in_take, cost, ceiling)


@asynccontextmanager
async def a_database(schema: str) -> AsyncIterator[tuple[PrivatePostgres, str]]:
    """Run a migrated server of the bench's own, with the DSN of a service's role; nothing of it stays."""
    with tempfile.TemporaryDirectory(prefix="eb-bench-") as folder:
        postgres = PrivatePostgres(Path(folder) / "postgres")
        try:
            async with postgres:
                await asyncio.to_thread(migrate, postgres.owner_dsn())
                owner = await asyncpg.connect(postgres.owner_dsn())
                await owner.execute(f"ALTER ROLE eb_{schema} PASSWORD '{PASSWORD}'")
                await owner.close()
                yield postgres, postgres.dsn(f"eb_{schema}", PASSWORD)
        finally:
            postgres.forget()


async def _hand_over(client: Client, consumer: Consumer, takes: Iterable[list[bytes]]) -> None:
    for take in takes:
        messages = [consumer.message.from_bytes(body) for body in take]
        async with client.context.begin(f"service:{consumer.service.name}") as tx:
            await consumer.consume(tx, messages)


async def _cost_of(postgres: PrivatePostgres, work: Awaitable[None]) -> Cost:
    before = time.perf_counter(), time.process_time(), cpu_of(postgres.pid)
    await work
    after = time.perf_counter(), time.process_time(), cpu_of(postgres.pid)
    return Cost(*(end - start for start, end in zip(before, after, strict=True)))


def cpu_of(pid: int) -> float:
    """Sum the CPU seconds of a process and its children."""
    family = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
    return sum(sum(process.cpu_times()[:2]) for process in family)


async def _must_be_there(postgres: PrivatePostgres, consumer: Consumer, takes: int) -> None:
    owner = await asyncpg.connect(postgres.owner_dsn())
    count = await owner.fetchval(f"SELECT count(*) FROM {consumer.table}")  # a name of ours
    await owner.close()
    assert count == takes * consumer.in_take, count


def _figures(consumer: Consumer, count: int, cost: Cost, ceiling: float) -> dict[str, Any]:
    unit, rate = consumer.unit, count / cost.seconds
    return {
        f"{unit}s": count,
        f"{unit}s_per_take": consumer.in_take,
        f"{unit}s_per_s": round(rate),
        f"service_us_per_{unit}": round(cost.service / count * 1e6, 1),
        f"database_us_per_{unit}": round(cost.database / count * 1e6, 1),
        "copy_rows_per_s": round(ceiling),
        "ratio": round(rate / ceiling, 3),
    }
