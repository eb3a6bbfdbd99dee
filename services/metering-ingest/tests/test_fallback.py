"""Ingest answers 202 while either the broker or the database is up, and 503 in time when both are away."""

from __future__ import annotations

import asyncio
import os
import tempfile
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from eb_kit import topology
from eb_kit.testing_db import ClonedDatabase, TestDatabase
from eb_tools.debian import find_programs
from eb_tools.rabbitmq import NODE, PrivateRabbitMQ

from .world import World, metering, until

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


@pytest.fixture(scope="module")
async def victim() -> AsyncIterator[PrivateRabbitMQ]:
    """A broker that tests hang, kill and starve."""
    with tempfile.TemporaryDirectory(prefix="eb-victim-", ignore_cleanup_errors=True) as folder:
        async with PrivateRabbitMQ(Path(folder)) as node:
            await topology.apply(node.admin_url)
            yield node
            await node.kill()


async def watermark(node: PrivateRabbitMQ, value: str) -> None:
    """Raise the broker's memory alarm, or end it: connections that publish are blocked meanwhile."""
    programs = find_programs()
    environment = programs.environment() | {
        "HOME": str(node.folder / "home"),
        "ERL_EPMD_PORT": str(node.ports.epmd),
        "RABBITMQ_NODENAME": NODE,
        "RABBITMQ_CONF_ENV_FILE": "/dev/null",
    }
    command = (
        str(Path(programs.rabbitmq_server).with_name("rabbitmqctl")),
        "set_vm_memory_high_watermark",
        value,
    )
    running = await asyncio.create_subprocess_exec(*command, env=os.environ | environment)
    assert await running.wait() == 0


async def hurt_broker(node: PrivateRabbitMQ, how: str) -> None:
    """Kill it, hang it, or have it block who publishes."""
    if how == "blocked":
        await watermark(node, "0.00001")
    elif how == "hung":
        node.sigstop()
    else:
        await node.kill()


async def heal_broker(node: PrivateRabbitMQ, how: str) -> None:
    """Have it work again."""
    if how == "blocked":
        await watermark(node, "0.6")
    elif how == "hung":
        node.sigcont()
    else:
        await node.restart()


async def sent(world: World, batch: list[dict[str, Any]]) -> int:
    """Send a batch; give the status, which has to come within 2 s."""
    started = time.monotonic()
    status, _ = await world.send(batch)
    assert time.monotonic() - started < 2
    return status


@pytest.mark.parametrize("how", ["hung", "blocked", "down"])
async def test_whatever_ails_the_broker_batches_are_taken_and_recorded_once(
    fresh_db: ClonedDatabase, victim: PrivateRabbitMQ, how: str
) -> None:
    async with metering(fresh_db, f"{victim.amqp_url}?heartbeat=2") as world:
        events = [world.event() for _ in range(60)]
        assert await sent(world, events[:10]) == 202
        await world.recorded(events[0]["request_id"])
        await hurt_broker(victim, how)
        try:
            for at in range(10, 60, 10):
                assert await sent(world, events[at : at + 10]) == 202
        finally:
            await heal_broker(victim, how)
        await until(lambda: world.fetchval("SELECT count(*) = 60 FROM metering_event"), 40)
        assert await world.fetchval("SELECT sum(duplicates) FROM event_key") == 0


@pytest.mark.parametrize("how", ["hung", "blocked"])
async def test_with_the_database_hung_too_the_answer_is_503_in_time(
    own_server: TestDatabase, victim: PrivateRabbitMQ, how: str
) -> None:
    soon = {"EB_DRAIN_TIMEOUT_S": "1"}
    async with metering(await own_server.clone(), victim.amqp_url, doors=("api",), environ=soon) as world:
        assert await sent(world, [world.event()]) == 202
        await hurt_broker(victim, how)
        try:
            for process in whole(own_server):
                process.suspend()
            for batch in ([world.event()], [world.event(), world.event(quantity="0")]):
                assert await sent(world, batch) == 503
        finally:
            await heal_broker(victim, how)


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
        kept = "SELECT sum((headers ->> 'eb-weight')::int) FROM outbox WHERE exchange = 'eb.metering'"
        assert await world.fetchval(kept) == 100
