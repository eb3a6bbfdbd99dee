"""The one clock. Business times come from here as parameters; SQL never asks for the time itself."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

REREAD_S = 0.1


def minute(instant: datetime) -> datetime:
    """Floor an instant to its whole minute; everything that takes effect does so at one."""
    return instant.replace(second=0, microsecond=0)


class Clock:
    """The time of the business; in a local run an offset in a file moves it for all services.

    `offset_file` holds seconds as text and is read again every 100 ms; None: the machine's clock.
    """

    def __init__(self, offset_file: Path | None = None) -> None:
        self._file = offset_file
        self._offset = timedelta()
        self._read_at = -REREAD_S

    def now(self) -> datetime:
        """Give the business time, aware, in UTC."""
        return self.machine_now() + self._current_offset()

    @staticmethod
    def machine_now() -> datetime:
        """Give the machine's time, aware, in UTC: for tokens, ids, retries and caches."""
        return datetime.now(UTC)

    def _current_offset(self) -> timedelta:
        if self._file is not None and time.monotonic() - self._read_at >= REREAD_S:
            self._read_at = time.monotonic()
            self._offset = timedelta(seconds=read_offset_s(self._file))
        return self._offset


def read_offset_s(file: Path) -> float:
    """Give the offset in seconds that a clock file holds; no file means none."""
    try:
        return float(file.read_text())
    except FileNotFoundError:
        return 0.0
