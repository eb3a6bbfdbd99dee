"""How long events are kept.

Rule: docs/rules/metering.md, Retention.
"""

from __future__ import annotations

from datetime import UTC, datetime


def months_before(now: datetime, months: int) -> datetime:
    """Give the first instant (UTC) of the oldest month that is kept: the running one and `months` before it."""
    at = now.year * 12 + now.month - 1 - months
    return datetime(at // 12, at % 12 + 1, 1, tzinfo=UTC)
