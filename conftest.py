"""Fixtures for all suites: a real PostgreSQL database per test and a real RabbitMQ per run.

`fresh_db` is a clone of the migrated template (`fresh_db.dsn(schema)` per service role, `fresh_db.owner_dsn`);
`fresh_bus` is the AMQP address of a vhost with the platform's topology and empty queues.

Properties are tried with 200 examples each; with EB_LONG=1 (`make properties`) with 10,000.
"""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest
import structlog
from hypothesis import HealthCheck, settings

from eb_kit import topology
from eb_kit.testing_db import ClonedDatabase, TestDatabase
from eb_tools.rabbitmq import PrivateRabbitMQ

SHORT_TIERS_MS = {"5s": 100, "30s": 200, "5m": 300, "30m": 400}

# A machine that is busy with other tests is slow for reasons that say nothing about an example.
UNHURRIED = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow]}
settings.register_profile("short", max_examples=200, **UNHURRIED)
settings.register_profile("long", max_examples=10_000, **UNHURRIED)
settings.load_profile("long" if os.environ.get("EB_LONG") == "1" else "short")

# Tracebacks in colours with all locals take seconds each, and the services of a test share its event loop.
structlog.configure(
    processors=[
        structlog.processors.add_log_level,
        structlog.dev.ConsoleRenderer(colors=False, exception_formatter=structlog.dev.plain_traceback),
    ]
)


@pytest.fixture(scope="session")
async def database() -> AsyncIterator[TestDatabase]:
    """A server of its own with the migrated template."""
    server = await TestDatabase.start()
    yield server
    await server.stop()


@pytest.fixture
async def fresh_db(database: TestDatabase) -> AsyncIterator[ClonedDatabase]:
    """A database of its own for one test."""
    clone = await database.clone()
    yield clone
    await database.drop(clone)


@pytest.fixture(scope="session")
async def broker() -> AsyncIterator[PrivateRabbitMQ]:
    """A broker of its own, with the topology in its vhost `/`; retries come back in tenths of seconds."""
    with tempfile.TemporaryDirectory(prefix="eb-broker-", ignore_cleanup_errors=True) as folder:
        async with PrivateRabbitMQ(Path(folder)) as node:
            await topology.apply(node.admin_url, tiers_ms=SHORT_TIERS_MS)
            yield node
            await node.kill()


@pytest.fixture
async def fresh_bus(broker: PrivateRabbitMQ) -> str:
    """The address of a bus whose queues are empty."""
    async with aiohttp.ClientSession() as http:
        purges = (
            http.delete(f"{broker.admin_url}/api/queues/%2F/{queue}/contents") for queue in topology.queues()
        )
        for answer in await asyncio.gather(*purges):
            answer.release()
    return broker.amqp_url
