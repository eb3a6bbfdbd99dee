"""A small service with pricing's queues, for the tests of the bus."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from eb_contracts.ids import new_id, partition_of
from eb_contracts.metering import UsageRecord, UsageRecorded
from eb_kit.bus import Handlers
from eb_kit.jobs import Jobs
from eb_kit.service import Service
from eb_kit.settings import ServiceSettings
from eb_kit.testing import Client, running
from eb_kit.testing_db import ClonedDatabase
from eb_kit.web import Routes

Handler = Callable[[Any, list[UsageRecorded]], Awaitable[None]]


def usage(events: int = 1, quantity: str = "1") -> UsageRecorded:
    """A message with one usage record."""
    org_id = new_id()
    record = UsageRecord(
        usage_id=new_id(),
        org_id=org_id,
        project_id=new_id(),
        sku="sms",
        minute=datetime(2026, 11, 2, 10, 0, tzinfo=UTC),
        quantity=Decimal(quantity),
        events=events,
    )
    return UsageRecorded(partition=partition_of(org_id), usage=(record,))


def pricing(handler: Handler, **limits: Any) -> Service:
    """A service named pricing whose only work is `handler`."""
    handlers = Handlers()
    handlers.consumes(UsageRecorded, queue="usage", **limits)(handler)
    return service("pricing", handlers)


def service(name: str, handlers: Handlers) -> Service:
    """A service without routes and jobs of its own."""
    return Service(
        name=name,
        schema=name.replace("-", "_"),
        settings=ServiceSettings,
        routes=Routes(name),
        handlers=handlers,
        jobs=Jobs(),
    )


@asynccontextmanager
async def consuming(made: Service, database: ClonedDatabase, amqp_url: str) -> AsyncIterator[Client]:
    """Run a service's bus doors."""
    async with running(made, database.dsn(made.schema), amqp_url, doors=("consumers", "jobs")) as client:
        yield client


async def publish(client: Client, *messages: Any) -> None:
    """Publish through the outbox, as a service does."""
    async with client.context.begin("system:test") as tx:
        tx.publish(*messages)


async def until(condition: Callable[[], Awaitable[Any]] | Callable[[], Any], seconds: float = 20) -> Any:
    """Wait for something to become true; TimeoutError otherwise."""
    async with asyncio.timeout(seconds):
        while True:
            found = condition()
            if isinstance(found, Awaitable):
                found = await found
            if found:
                return found
            await asyncio.sleep(0.02)
