"""Database, broker and processes that die, hang, or have no room: ingest goes on while either server is up."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from typing import Any

import asyncpg
import pytest

from eb_tools import clock_cli
from eb_tools.world import World

from .arena import Arena, eventually

pytestmark = pytest.mark.timeout(200)


@pytest.mark.parametrize("name", ["rabbitmq", "postgres"])
async def test_kill_9_of_a_server(arena: Arena, chaos_world: World, name: str) -> None:
    async with arena.trial(chaos_world, f"kill -9 of {name}"):
        await arena.restarted(name, arena.control.kill(name))


@pytest.mark.parametrize("name", ["rabbitmq", "postgres"])
async def test_a_hung_server(arena: Arena, chaos_world: World, name: str) -> None:
    async with arena.trial(chaos_world, f"{name} hung for 12 s (SIGSTOP)"):
        with arena.hung(name):
            await asyncio.sleep(12)


@pytest.mark.parametrize(
    ("alarm", "raised", "cleared"),
    [
        (
            "memory",
            ("set_vm_memory_high_watermark", "absolute", "1"),
            ("set_vm_memory_high_watermark", "0.6"),
        ),
        ("disk", ("set_disk_free_limit", "900000GB"), ("set_disk_free_limit", "100MB")),
    ],
)
async def test_an_alarm_of_the_broker(
    arena: Arena, chaos_world: World, alarm: str, raised: tuple[str, ...], cleared: tuple[str, ...]
) -> None:
    async with arena.trial(chaos_world, f"{alarm} alarm of the broker"):
        await arena.ctl(*raised)
        try:
            await asyncio.sleep(5)
        finally:
            await arena.ctl(*cleared)


async def test_a_database_out_of_connections(arena: Arena, chaos_world: World) -> None:
    """Strangers take every connection, and the services' own are ended."""
    taken: list[asyncpg.Connection[Any]] = []
    async with arena.trial(chaos_world, "PostgreSQL out of connections for 6 s"):
        owner = await asyncpg.connect(arena.facts["owner_dsn"])
        try:
            with contextlib.suppress(asyncpg.TooManyConnectionsError):
                for _ in range(1000):
                    taken.append(await asyncpg.connect(arena.facts["dsns"]["estimator"]))
            mine = [connection.get_server_pid() for connection in taken]
            ended = await owner.fetchval(
                "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE application_name = 'eb'"
                " AND pid <> ALL($1)",
                mine,
            )
            assert ended > 0
            with contextlib.suppress(asyncpg.TooManyConnectionsError):
                for _ in range(1000):
                    taken.append(await asyncpg.connect(arena.facts["dsns"]["estimator"]))
            await asyncio.sleep(6)
        finally:
            await asyncio.gather(*(connection.close() for connection in taken))
            await owner.close()


@pytest.mark.parametrize("how", ["cut", "hung"])
async def test_with_both_down_ingest_says_503_in_time_and_counts_nothing(
    arena: Arena, chaos_world: World, how: str
) -> None:
    async with arena.trial(chaos_world, f"database and broker {how}", must_accept=False) as flow:
        if how == "hung":
            with arena.hung("postgres", "rabbitmq"):
                await asyncio.sleep(6)
        else:
            arena.database.cut()
            arena.broker.cut()
            await asyncio.sleep(6)
            arena.database.heal()
            arena.broker.heal()
    assert flow.statuses.get(503, 0) > 0
    assert all(text and int(text) >= 1 for text in flow.retry_afters), flow.retry_afters
    assert max(flow.waits_s) < 2.5


@pytest.mark.parametrize("name", ["metering-ingest", "pricing"])
async def test_a_hung_service_is_killed_by_its_keeper(arena: Arena, chaos_world: World, name: str) -> None:
    async with arena.trial(
        chaos_world, f"{name} hung (SIGSTOP) until its keeper kills it", must_accept=False
    ):
        await arena.restarted(name, arena.control.stop_signal(name), 60)


async def test_sigterm_drains_without_a_failed_request(arena: Arena, chaos_world: World) -> None:
    """What the door has begun is finished; what comes while nobody listens finds no server, and is sent again."""
    async with arena.trial(chaos_world, "SIGTERM of metering-ingest", must_accept=False) as flow:
        armed = arena.arm("metering-ingest", "ingest.before_publish", "sleep:2")
        await eventually(lambda: not armed.exists(), "a request in hand")
        before = arena.control.pids()["metering-ingest"][0]
        arena.control._send("metering-ingest", signal.SIGTERM)
        await arena.restarted("metering-ingest", before)
    assert flow.statuses.get(0, 0) == 0, flow.statuses
    assert flow.statuses.get(500, 0) == flow.statuses.get(502, 0) == 0, flow.statuses


async def test_the_clock_jumps(arena: Arena, chaos_world: World) -> None:
    from datetime import UTC, datetime

    file = arena.control.layout.clock
    async with arena.trial(chaos_world, "business clock 36 h ahead, and back"):
        clock_cli.advance(file, "36h", datetime.now(UTC))
        await asyncio.sleep(3)
        clock_cli.run(file, datetime.now(UTC))
        await asyncio.sleep(1)
