from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

from eb_kit.clock import REREAD_S, Clock, minute


def test_the_clock_is_the_machines_without_a_file() -> None:
    assert abs(Clock().now() - datetime.now(UTC)) < timedelta(seconds=1)


def test_an_offset_file_moves_the_clock_while_it_runs(tmp_path: Path) -> None:
    file = tmp_path / "clock"
    clock = Clock(file)
    before = clock.now()
    file.write_text(str(3 * 86400))
    time.sleep(REREAD_S)

    assert timedelta(days=2, hours=23) < clock.now() - before < timedelta(days=3, seconds=5)
    assert abs(clock.machine_now() - datetime.now(UTC)) < timedelta(seconds=1)


def test_a_minute_has_no_seconds() -> None:
    assert minute(datetime(2026, 11, 23, 17, 5, 59, 999_999, UTC)) == datetime(
        2026, 11, 23, 17, 5, tzinfo=UTC
    )
