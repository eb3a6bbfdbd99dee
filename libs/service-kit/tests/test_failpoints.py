"""Fail points: only in local runs, at the N-th time, once over restarts, and nothing where nothing is armed."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from eb_kit import failpoints
from eb_kit.db import WEATHER
from eb_kit.settings import ServiceSettings, load
from eb_kit.supervisor import Supervisor

LOCAL = {
    "EB_ENV": "local",
    "DATABASE_URL": "postgresql://x",
    "AMQP_URL": "amqp://x",
    "EB_HTTP_PORT": "1",
    "EB_ADMIN_PORT": "2",
}
PRODUCTION = LOCAL | {
    "EB_ENV": "production",
    "EB_CURSOR_SECRET": "a-secret-of-its-own",
    "EB_NETWORK_ENCRYPTS": "true",
}
VICTIM = """
import asyncio, sys
from pathlib import Path
from eb_kit import failpoints
failpoints.arm(["relay.before_send=die@3"], Path(sys.argv[1]), "pricing")
async def main():
    for number in range(4):
        print("step ", flush=True)
        await failpoints.reach("relay.before_send")
asyncio.run(main())
"""


@pytest.fixture(autouse=True)
def disarmed() -> Iterator[None]:
    yield
    failpoints.points.clear()


async def test_a_step_where_nothing_is_armed_does_nothing() -> None:
    await failpoints.reach("relay.before_send")
    assert failpoints.points == {}


async def test_bad_weather_comes_the_third_time_and_only_then() -> None:
    failpoints.arm(["usage.before_commit=weather@3"], None, "pricing")
    await failpoints.reach("usage.before_commit")
    await failpoints.reach("usage.before_commit")
    with pytest.raises(WEATHER):
        await failpoints.reach("usage.before_commit")
    await failpoints.reach("usage.before_commit")


async def run_victim(folder: Path) -> tuple[int, int]:
    """Give its exit status and how many steps it took."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", VICTIM, str(folder), stdout=asyncio.subprocess.PIPE
    )
    out, _ = await process.communicate()
    return process.returncode or 0, out.count(b"step ")


async def test_a_process_dies_at_the_third_time_and_not_again_after_its_restart(tmp_path: Path) -> None:
    assert await run_victim(tmp_path) == (-signal.SIGKILL, 3)
    assert await run_victim(tmp_path) == (0, 4)


async def test_files_arm_and_disarm_a_running_process_and_are_used_up(tmp_path: Path) -> None:
    supervisor = Supervisor()
    failpoints.start((), tmp_path, "ledger", supervisor)
    try:
        await _until(lambda: True)
        folder = tmp_path / "ledger"
        folder.mkdir()
        (folder / "charges.received").write_text("weather")
        await _until(lambda: "charges.received" in failpoints.points)
        with pytest.raises(failpoints.Weather):
            await failpoints.reach("charges.received")
        assert not (folder / "charges.received").exists()

        (folder / "charges.after_ack").write_text("sleep:5")
        await _until(lambda: "charges.after_ack" in failpoints.points)
        (folder / "charges.after_ack").unlink()
        await _until(lambda: "charges.after_ack" not in failpoints.points)
    finally:
        await supervisor.stop()


async def _until(condition: object) -> None:
    async with asyncio.timeout(5):
        while not condition():  # type: ignore[operator]
            await asyncio.sleep(0.02)


@pytest.mark.parametrize(
    "order", ["nowhere=die", "relay.before_send=explode", "relay.before_send", "relay.before_send=die@0"]
)
def test_an_unknown_step_or_action_ends_the_start(order: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        load(ServiceSettings, LOCAL | {"EB_FAILPOINTS": order})
    assert "fail point" in capsys.readouterr().err


@pytest.mark.parametrize(
    "setting", [{"EB_FAILPOINTS": "relay.before_send=die"}, {"EB_FAILPOINTS_DIR": "/tmp/x"}]
)
def test_production_refuses_to_start_with_fail_points(
    setting: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    load(ServiceSettings, PRODUCTION)
    with pytest.raises(SystemExit):
        load(ServiceSettings, PRODUCTION | setting)
    assert "EB_ENV=local" in capsys.readouterr().err


def test_every_family_of_the_topology_has_its_steps() -> None:
    for family in ("batches", "usage", "charges", "counters", "progress", "facts", "coherence"):
        assert {f"{family}.{step}" for step in failpoints.TAKE} <= failpoints.STEPS
