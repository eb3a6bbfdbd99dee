"""kill -9 of each process at each step of an event's way: nothing accepted is lost, nothing counts twice."""

from __future__ import annotations

import asyncio

import pytest

from eb_tools.world import World

from .arena import Arena, eventually

pytestmark = pytest.mark.timeout(150)
DOOR = ("received", "before_publish", "after_publish")
STEPS = [
    *(("metering-ingest", f"ingest.{step}") for step in DOOR),
    *(
        ("metering-ingest", f"batches.{step}")
        for step in ("received", "before_commit", "after_commit", "after_ack")
    ),
    *(("metering-ingest", f"relay.{step}") for step in ("before_send", "after_confirm", "after_mark")),
    *(("pricing", f"usage.{step}") for step in ("received", "before_commit", "after_commit", "after_ack")),
    *(("pricing", f"relay.{step}") for step in ("before_send", "after_confirm", "after_mark")),
    *(("ledger", f"charges.{step}") for step in ("received", "before_commit", "after_commit", "after_ack")),
    ("metering-ingest", "progress.before_commit"),
    ("estimator", "counters.after_commit"),
]


@pytest.mark.parametrize(("service", "step"), STEPS, ids=[f"{service}-{step}" for service, step in STEPS])
async def test_kill_9_at_a_step(arena: Arena, chaos_world: World, service: str, step: str) -> None:
    async with arena.trial(chaos_world, f"kill -9 of {service} at `{step}`, third time"):
        before = arena.control.pids()[service][0]
        armed = arena.arm(service, step, "die@3")
        await eventually(lambda: not armed.exists(), f"{step} reached")
        await arena.restarted(service, before)


async def test_kill_9_after_the_spool_was_committed_and_before_the_202(
    arena: Arena, chaos_world: World
) -> None:
    async with arena.trial(chaos_world, "kill -9 of metering-ingest at `ingest.spooled`, broker cut"):
        before = arena.control.pids()["metering-ingest"][0]
        arena.broker.cut()
        try:
            armed = arena.arm("metering-ingest", "ingest.spooled", "die@2")
            await eventually(lambda: not armed.exists(), "the spool reached")
            await arena.restarted("metering-ingest", before)
        finally:
            arena.broker.heal()


@pytest.mark.parametrize(
    ("service", "step"), [("pricing", "usage.before_commit"), ("ledger", "charges.before_commit")]
)
async def test_bad_weather_in_a_take_holds_it(
    arena: Arena, chaos_world: World, service: str, step: str
) -> None:
    async with arena.trial(chaos_world, f"weather in {service} at `{step}`"):
        for _ in range(3):
            armed = arena.arm(service, step, "weather")
            await eventually(lambda armed=armed: not armed.exists(), f"{step} reached")  # type: ignore[misc]
            await asyncio.sleep(0.2)
