"""Windows of usage: hours in UTC, days and months in an organisation's time zone, over daylight saving."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eb_metering_ingest.domain.retention import months_before
from eb_metering_ingest.domain.windows import window_bounds

ZONES = (
    "UTC", "Australia/Sydney", "Australia/Lord_Howe", "America/Havana", "America/Santiago", "Asia/Beirut",
    "Asia/Kathmandu", "Europe/Berlin", "Pacific/Apia", "America/Asuncion",
)  # fmt: skip
FIRST = datetime(2005, 1, 1, tzinfo=UTC).replace(tzinfo=None)
LAST = datetime(2039, 1, 1, tzinfo=UTC).replace(tzinfo=None)


def at(text: str) -> datetime:
    """An instant."""
    return datetime.fromisoformat(text)


@pytest.mark.parametrize(
    ("zone", "day", "hours"),
    [
        ("Europe/Berlin", "2026-03-29", 23),
        ("Europe/Berlin", "2026-10-25", 25),
        ("Australia/Lord_Howe", "2026-04-05", 24.5),
        ("Asia/Beirut", "2026-03-29", 23),
        ("America/Havana", "2026-11-01", 25),
        ("America/Santiago", "2026-09-06", 23),
        ("UTC", "2026-03-29", 24),
    ],
)
def test_a_day_is_as_long_as_the_clocks_make_it(zone: str, day: str, hours: float) -> None:
    noon = datetime.fromisoformat(f"{day}T12:00:00").replace(tzinfo=ZoneInfo(zone)).astimezone(UTC)
    first, second = window_bounds("day", zone, noon, noon + timedelta(minutes=1))
    assert second - first == timedelta(hours=hours)
    assert first.astimezone(ZoneInfo(zone)).date().isoformat() == day


def test_a_day_that_a_zone_skips_has_no_window() -> None:
    bounds = window_bounds("day", "Pacific/Apia", at("2011-12-29T12:00:00Z"), at("2012-01-01T00:00:00Z"))
    days = [bound.astimezone(ZoneInfo("Pacific/Apia")).date().isoformat() for bound in bounds]
    assert days == ["2011-12-29", "2011-12-31", "2012-01-01", "2012-01-02"]


def test_hours_are_utcs_and_months_the_zones() -> None:
    start, end = at("2026-11-04T10:20:00Z"), at("2026-11-04T11:20:00Z")
    assert window_bounds("hour", "Asia/Kathmandu", start, end)[0] == at("2026-11-04T10:00:00Z")
    assert window_bounds("month", "Asia/Kathmandu", start, end) == [
        at("2026-11-01T00:00:00+05:45"), at("2026-12-01T00:00:00+05:45"),
    ]  # fmt: skip


@given(
    st.sampled_from(ZONES),
    st.sampled_from(["hour", "day", "month"]),
    st.datetimes(FIRST, LAST),
    st.integers(min_value=1, max_value=40 * 24 * 60),
)
def test_windows_cover_a_range_without_gap_or_overlap(
    zone: str, window: str, start: datetime, minutes: int
) -> None:
    begin = start.replace(tzinfo=UTC)
    bounds = window_bounds(window, zone, begin, begin + timedelta(minutes=minutes))
    assert bounds == sorted(set(bounds))
    assert bounds[0] <= begin < bounds[1]
    assert bounds[-2] < begin + timedelta(minutes=minutes) <= bounds[-1]


@given(st.datetimes(FIRST, LAST), st.integers(min_value=1, max_value=100))
def test_whole_months_are_kept_before_the_running_one(now: datetime, months: int) -> None:
    kept = months_before(now.replace(tzinfo=UTC), months)
    assert kept.day == 1
    assert (now.year * 12 + now.month) - (kept.year * 12 + kept.month) == months
