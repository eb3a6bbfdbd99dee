"""A replay goes through recorded events in the order of SKU and minute, whole minutes at once.

Rule: docs/rules/metering.md, Replays.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import NamedTuple

MINUTE = timedelta(minutes=1)
MOST_HOLDS = 1_000


class Place(NamedTuple):
    """How far a replay has come: all before it is sent."""

    sku: str
    time: datetime

    def behind(self) -> Place:
        """Give the end of the minute it is in."""
        return Place(self.sku, floor(self.time) + MINUTE)


def floor(instant: datetime) -> datetime:
    """Give the whole minute at or before an instant."""
    return instant.replace(second=0, microsecond=0)


def ceiling(instant: datetime) -> datetime:
    """Give the whole minute at or after an instant."""
    whole = floor(instant)
    return whole if whole == instant else whole + MINUTE
