"""Ingest answers 202 while either the broker or the database is up, and 503 in time when both are away."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator

import psutil
import pytest

from eb_kit.testing_db import ClonedDatabase, TestDatabase

from .world import metering

NOWHERE = "amqp://guest:guest@127.0.0.1:1/"


@pytest.fixture
async def own_server() -> AsyncIterator[TestDatabase]:
    """A database server that a test may hurt."""
    server = await TestDatabase.start()
    yield server
    for process in whole(server):
        process.kill()
    await server.stop()


def whole(server: TestDatabase) -> list[psutil.Process]:
    """All processes of a server."""
    assert server.process is not None
    try:
        postmaster = psutil.Process(server.process.pid)
        return [postmaster, *postmaster.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


async def test_without_a_broker_a_batch_is_kept_by_the_database_and_recorded_later(
    fresh_db: ClonedDatabase, fresh_bus: str
) -> None:
    async with metering(fresh_db, NOWHERE, doors=("api",)) as world:
        events = [world.event() for _ in range(3)]
        started = time.monotonic()
        status, answer = await world.send(events)
        assert (status, answer["accepted"]) == (202, 3)
        assert time.monotonic() - started < 2
        waiting = "SELECT count(*) FROM outbox WHERE exchange = 'eb.metering' AND sent_at IS NULL"
        assert await world.fetchval(waiting) == 1
        org_id, project_id, key = world.org_id, world.project_id, world.key

    async with metering(fresh_db, fresh_bus) as later:
        later.org_id, later.project_id, later.key = org_id, project_id, key
        for event in events:
            await later.recorded(event["request_id"])


@pytest.mark.parametrize("hurt", ["kill", "suspend"])
async def test_without_a_database_a_batch_is_queued(
    own_server: TestDatabase, fresh_bus: str, hurt: str
) -> None:
    async with metering(await own_server.clone(), fresh_bus, doors=("api",)) as world:
        assert (await world.send([world.event()]))[0] == 202
        for process in whole(own_server):
            getattr(process, hurt)()
        for _ in range(3):
            assert (await world.send([world.event()]))[0] == 202


@pytest.mark.parametrize("hurt", ["kill", "suspend"])
async def test_without_both_the_answer_is_503_within_two_seconds(
    own_server: TestDatabase, fresh_bus: str, hurt: str
) -> None:
    async with metering(await own_server.clone(), NOWHERE, doors=("api",)) as world:
        for process in whole(own_server):
            getattr(process, hurt)()
        for batch in ([world.event()], [world.event(), world.event(quantity="0")]):
            started = time.monotonic()
            status, problem = await world.send(batch)
            assert (status, problem["code"]) == (503, "ingest_unavailable")
            assert time.monotonic() - started < 2


async def test_many_batches_at_once_without_a_broker_are_all_kept(
    fresh_db: ClonedDatabase, fresh_bus: str
) -> None:
    async with metering(fresh_db, NOWHERE, doors=("api",)) as world:
        answers = await asyncio.gather(*(world.send([world.event()]) for _ in range(100)))
        assert {status for status, _ in answers} == {202}
        assert await world.fetchval("SELECT count(*) FROM outbox WHERE exchange = 'eb.metering'") == 100
