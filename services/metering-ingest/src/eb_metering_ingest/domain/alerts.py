"""Usage that is unlike its past: a robust baseline per organisation and SKU, and few alerts that explain themselves.

An hour is compared with the same hour of the week in the weeks before: median, and median of the distances from it
(MAD), so that a bad week in the past moves neither. Rule: docs/rules/metering.md, Alerts.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from statistics import median
from typing import Literal, NamedTuple
from uuid import UUID

from eb_contracts.pricing import ChargePriced

HOUR = timedelta(hours=1)
CATCH_UP = timedelta(hours=48)
WEEK = timedelta(weeks=1)
LONGEST = timedelta(weeks=14)
"""Usage further away than this is in nobody's baseline."""
STOP_HOURS = 6
"""A stop is judged over so many hours together: a single quiet hour is no news."""
SPREAD = Decimal("1.4826")
"""Makes a MAD comparable with a standard deviation."""
MANY = Decimal(6)
LEAST_SPREAD = Decimal("0.1")
"""Of the median: a past that was all the same doesn't make a tenth more an alert."""
LEAST_TIMES = Decimal(4)
"""A spike is at least so many times what is usual at that hour, and twice the highest ordinary hour."""
STOPPED_BELOW = Decimal("0.05")


class Hour(NamedTuple):
    """What was used in one hour; quantities may be negative after voids."""

    quantity: Decimal = Decimal(0)
    events: int = 0


NOTHING = Hour()
Hours = Mapping[datetime, Hour]


@dataclass(frozen=True, slots=True)
class Rule:
    """What the settings say."""

    weeks: int
    least_weeks: int
    least_events: int


def hours_of(messages: Iterable[object], now: datetime) -> dict[tuple[UUID, str, datetime], Hour]:
    """Sum the usage of charges by organisation, SKU and hour, as far as it matters to any baseline."""
    sums: dict[tuple[UUID, str, datetime], Hour] = {}
    for message in messages:
        for charge in message.charges if isinstance(message, ChargePriced) else ():
            if charge.kind == "usage" and now - LONGEST <= charge.time <= now + LONGEST:
                key = (charge.org_id, charge.sku, floor_hour(charge.time))
                so_far = sums.get(key, NOTHING)
                sums[key] = Hour(so_far.quantity + charge.quantity, so_far.events + charge.event_count)
    return sums


class Finding(NamedTuple):
    """An hour that is unlike its past. `threshold` is what `seen` passed: above for a spike, below for a stop."""

    kind: Literal["spike", "stop"]
    expected: Decimal
    seen: Decimal
    threshold: Decimal
    why: str


class Past(NamedTuple):
    """All hours of a series in the weeks before one: in how many weeks there was usage, and their 99th percentile."""

    weeks: int
    ordinary: Decimal


def floor_hour(instant: datetime) -> datetime:
    """Give the beginning of an instant's hour."""
    return instant.astimezone(UTC).replace(minute=0, second=0, microsecond=0)


def next_hour(judged: datetime, first_hour: datetime, latest: datetime, rule: Rule) -> datetime:
    """Give the hour to judge after `judged`: those before the history is long enough are passed over, and all but the
    last two days where the judging stood still.
    """
    return min(latest, max(judged + HOUR, first_hour + rule.least_weeks * WEEK, latest - CATCH_UP))


def hours_needed(hour: datetime, rule: Rule) -> list[datetime]:
    """Name the hours that a first look at an hour needs: itself and those before, in each of the weeks."""
    return [hour - week * WEEK - back * HOUR for week in range(rule.weeks + 1) for back in range(STOP_HOURS)]


def judge(hour: datetime, first_hour: datetime, hours: Hours, rule: Rule) -> Finding | None:
    """Judge an hour by the weeks before it; None where it is ordinary, or the past too short.

    A spike found here is to be held against `is_highest` too.
    """
    weeks = min(rule.weeks, int((hour - first_hour) / WEEK))
    if weeks < rule.least_weeks:
        return None
    return _spike(hour, weeks, hours, rule) or _stop(hour, first_hour, hours, rule)


def _spike(hour: datetime, weeks: int, hours: Hours, rule: Rule) -> Finding | None:
    seen = hours.get(hour, NOTHING)
    if seen.events < rule.least_events:
        return None
    past = [hours.get(hour - week * WEEK, NOTHING).quantity for week in range(1, weeks + 1)]
    middle, spread = _baseline(past)
    threshold = max(middle + MANY * spread, middle * LEAST_TIMES)
    if seen.quantity <= threshold:
        return None
    why = (
        f"{_plain(seen.quantity)} in the hour, where the same hour of the last {weeks} weeks had {_plain(middle)}"
        f" in the middle; more than {_plain(threshold)} is a spike."
    )
    return Finding("spike", middle, seen.quantity, threshold, why)


def _stop(hour: datetime, first_hour: datetime, hours: Hours, rule: Rule) -> Finding | None:
    begin = hour - (STOP_HOURS - 1) * HOUR
    weeks = min(rule.weeks, int((begin - first_hour) / WEEK))
    if weeks < rule.least_weeks:
        return None
    seen = _window(hour, hours)
    past = [_window(hour - week * WEEK, hours) for week in range(1, weeks + 1)]
    middle, spread = _baseline([one.quantity for one in past])
    threshold = (
        min(middle - MANY * spread, middle * STOPPED_BELOW) if middle - MANY * spread > 0 else Decimal(0)
    )
    is_worth_it = median(one.events for one in past) >= rule.least_events
    if not is_worth_it or threshold <= 0 or seen.quantity >= threshold:
        return None
    why = (
        f"{_plain(seen.quantity)} in {STOP_HOURS} hours, where the same hours of the last {weeks} weeks had"
        f" {_plain(middle)} in the middle; less than {_plain(threshold)} is a stop."
    )
    return Finding("stop", middle, seen.quantity, threshold, why)


def _window(hour: datetime, hours: Hours) -> Hour:
    found = [hours.get(hour - back * HOUR, NOTHING) for back in range(STOP_HOURS)]
    return Hour(sum((one.quantity for one in found), Decimal(0)), sum(one.events for one in found))


def _baseline(past: Sequence[Decimal]) -> tuple[Decimal, Decimal]:
    """Give the median and the spread around it."""
    middle = median(past)
    spread = median([abs(value - middle) for value in past]) * SPREAD
    return middle, max(spread, abs(middle) * LEAST_SPREAD)


def is_highest(finding: Finding, past: Past, rule: Rule) -> bool:
    """Tell whether a spike is more than twice the highest ordinary hour of any day, too, and the past long enough.

    Otherwise it is an hour that is merely elsewhere in the week, or usage that has only begun.
    """
    return past.weeks >= rule.least_weeks and finding.seen > 2 * past.ordinary > 0


def _plain(value: Decimal) -> str:
    text = format(round(value, 6), "f")
    return text.rstrip("0").rstrip(".") if "." in text else text
