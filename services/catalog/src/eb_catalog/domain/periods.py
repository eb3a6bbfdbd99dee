"""Billing periods: calendar months in an organisation's time zone, half open.

Rule: docs/rules/catalog.md, Periods.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone, tzinfo
from zoneinfo import ZoneInfo

EARLIEST = timezone(timedelta(hours=14))
"""Where on earth a month begins first."""
LATEST = timezone(timedelta(hours=-12))
"""Where on earth a month ends last."""


def start_of(instant: datetime, zone: tzinfo) -> datetime:
    """Give the first instant (UTC) of the period that contains `instant`."""
    local = instant.astimezone(zone)
    return datetime(local.year, local.month, 1, tzinfo=zone).astimezone(UTC)


def next_start(instant: datetime, zone: tzinfo) -> datetime:
    """Give the first instant (UTC) of the period after the one that contains `instant`."""
    local = instant.astimezone(zone)
    year, month = divmod(local.year * 12 + local.month, 12)
    return datetime(year, month + 1, 1, tzinfo=zone).astimezone(UTC)


def back(instant: datetime, zone: tzinfo, periods: int) -> datetime:
    """Give the start of the period that lies so many before the one of `instant`."""
    start = start_of(instant, zone)
    for _ in range(periods):
        start = start_of(start - timedelta(days=1), zone)
    return start


def round_up(instant: datetime, zone: tzinfo) -> datetime:
    """Give `instant` if a period starts there, else the next start."""
    start = start_of(instant, zone)
    return start if start == instant else next_start(instant, zone)


def name_of(instant: datetime, zone: tzinfo) -> str:
    """Name the period of an instant, `YYYY-MM`."""
    return instant.astimezone(zone).strftime("%Y-%m")


def after_move(instant: datetime, old: str, new: str) -> datetime:
    """Give from when a new time zone counts: from the next period's start, the later of the two zones'.

    So no instant of a period that was begun by the old zone falls back into the one before.
    """
    return max(next_start(instant, ZoneInfo(old)), next_start(instant, ZoneInfo(new)))


def running_everywhere(instant: datetime) -> datetime:
    """Give an instant at or before the start of the running period in every time zone."""
    return start_of(start_of(instant, LATEST), EARLIEST)


def next_everywhere(instant: datetime) -> datetime:
    """Give an instant at or before the start of a coming period, and after that of any running one."""
    return next_start(instant, EARLIEST)
