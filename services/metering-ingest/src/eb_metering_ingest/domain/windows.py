"""Windows of usage: hours in UTC, days and months in an organisation's time zone.

Rule: docs/rules/metering.md, Usage.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

HOUR = timedelta(hours=1)


def window_bounds(window: str, zone: str, start: datetime, end: datetime) -> list[datetime]:
    """Give the instants at which windows begin, from the one `start` is in to the first not before `end`.

    A day has 23 or 25 hours where clocks change, and a day that a zone skips has no window.
    """
    bounds: list[datetime] = []
    for bound in _beginnings(window, ZoneInfo(zone), start):
        if not bounds or bound > bounds[-1]:
            bounds.append(bound)
        if bound >= end:
            return bounds
    return bounds


def _beginnings(window: str, zone: ZoneInfo, start: datetime) -> Iterator[datetime]:
    if window == "hour":
        hour = start.astimezone(UTC).replace(minute=0, second=0, microsecond=0)
        while True:
            yield hour
            hour += HOUR
    day = start.astimezone(zone).date()
    if window == "month":
        day = day.replace(day=1)
    while True:
        yield _midnight(day, zone)
        day = _next_month(day) if window == "month" else day + timedelta(days=1)


def _midnight(day: date, zone: ZoneInfo) -> datetime:
    """Give a day's first instant; where clocks skip midnight, the instant at which they do."""
    return datetime(day.year, day.month, day.day, tzinfo=zone).astimezone(UTC)


def _next_month(day: date) -> date:
    return (day.replace(day=28) + timedelta(days=4)).replace(day=1)
