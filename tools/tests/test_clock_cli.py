"""The movable clock: what the commands write is what the services' clock reads."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from eb_kit.clock import Clock
from eb_tools import clock_cli
from eb_tools.trouble import Trouble

NOW = datetime(2026, 11, 1, 12, tzinfo=UTC)
SOON = timedelta(seconds=5)


def test_a_service_sees_the_time_that_was_set(tmp_path: Path) -> None:
    file = tmp_path / "clock"
    told = clock_cli.set_to(file, "2027-02-28T23:59:00+11:00", datetime.now(UTC))

    assert told == datetime(2027, 2, 28, 12, 59, tzinfo=UTC)
    assert abs(Clock(file).now() - told) < SOON


def test_advancing_adds_up(tmp_path: Path) -> None:
    file = tmp_path / "clock"
    clock_cli.advance(file, "3d", NOW)

    assert clock_cli.advance(file, "-12h", NOW) == NOW + timedelta(days=2, hours=12)
    assert clock_cli.offset_of(file) == timedelta(days=2, hours=12)


def test_running_again_is_the_machines_time(tmp_path: Path) -> None:
    file = tmp_path / "clock"
    clock_cli.advance(file, "1w", NOW)
    clock_cli.run(file, NOW)

    assert abs(Clock(file).now() - Clock.machine_now()) < SOON


@pytest.mark.parametrize("text", ["tomorrow", "2026-11-04T02:00:00", ""])
def test_an_instant_without_offset_is_refused_with_an_example(tmp_path: Path, text: str) -> None:
    with pytest.raises(Trouble):
        clock_cli.set_to(tmp_path / "clock", text, NOW)


@pytest.mark.parametrize("text", ["3", "3y", "d", "1.5d"])
def test_a_length_without_unit_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(Trouble):
        clock_cli.advance(tmp_path / "clock", text, NOW)
