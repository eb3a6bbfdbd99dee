"""An organisation's timeline: from which instant on which plan version, overrides, zone and country hold.

Pure functions on a tuple of changes, oldest first; each holds until the next one. Rule: docs/rules/catalog.md,
When a change takes effect.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

from . import periods
from .errors import CurrencyChangeImmediate, Unacceptable

FURTHEST_BACK = 2
"""How many periods before the running one an immediate change may start."""


@dataclass(frozen=True, slots=True)
class Change:
    """What decides the terms from `effective_at` on."""

    effective_at: datetime
    plan_id: UUID
    plan_version: int
    currency: str
    overrides: Mapping[str, Mapping[str, Any]]
    time_zone: str
    country: str


Timeline = tuple[Change, ...]


@dataclass(frozen=True, slots=True)
class Published:
    """A published version of a plan and how it is to be applied."""

    plan_id: UUID
    version: int
    is_immediate: bool
    published_at: datetime


def at(timeline: Timeline, instant: datetime) -> Change | None:
    """Give what is in force at an instant; None before the first change."""
    return next((change for change in reversed(timeline) if change.effective_at <= instant), None)


def amend(timeline: Timeline, since: datetime, edit: Callable[[Change], Change]) -> Timeline:
    """Apply an edit to everything from `since` on; changes that then say the same as before are left out."""
    before = tuple(change for change in timeline if change.effective_at < since)
    later = tuple(change for change in timeline if change.effective_at > since)
    here = at(timeline, since)
    if here is None:
        return _without_repeats(tuple(edit(change) for change in timeline))
    return _without_repeats((*before, *(edit(c) for c in (replace(here, effective_at=since), *later))))


def _without_repeats(timeline: Timeline) -> Timeline:
    kept: list[Change] = []
    for change in timeline:
        if not kept or replace(change, effective_at=kept[-1].effective_at) != kept[-1]:
            kept.append(change)
    return tuple(kept)


def assign(
    timeline: Timeline, first: Change, now: datetime, *, is_immediate: bool
) -> tuple[Timeline, datetime]:
    """Put an organisation on a plan; give the timeline and from when the plan holds.

    The first plan holds for the whole running period, later ones from the next period unless immediate.
    CurrencyChangeImmediate where an immediate change would give the running period another currency.
    """
    if not timeline:
        since = periods.start_of(now, ZoneInfo(first.time_zone))
        return (replace(first, effective_at=since),), since
    since = effect_of_change(timeline, now, is_immediate=is_immediate)
    running = at(timeline, since)
    if is_immediate and running is not None and running.currency != first.currency:
        raise CurrencyChangeImmediate

    def onto_plan(change: Change) -> Change:
        return replace(
            first, effective_at=change.effective_at, time_zone=change.time_zone, country=change.country
        )

    return amend(timeline, since, onto_plan), since


def effect_of_change(timeline: Timeline, now: datetime, *, is_immediate: bool) -> datetime:
    """Give from when a change made now holds: this period's start if immediate, else the next one's."""
    zone = zone_at(timeline, now)
    return periods.start_of(now, zone) if is_immediate else periods.next_start(now, zone)


def effect_of_override(
    timeline: Timeline, time_zone: str, now: datetime, wanted: datetime | None, *, is_immediate: bool
) -> datetime:
    """Give from when overrides hold: `wanted` rounded up to a period's start, and not before the next one.

    Immediate ones hold from the start of the period of `wanted`, at most two periods back; Unacceptable beyond.
    `time_zone` is the organisation's, for one that has no timeline yet.
    """
    zone = zone_at(timeline, now) if timeline else ZoneInfo(time_zone)
    if not is_immediate:
        return max(periods.next_start(now, zone), periods.round_up(wanted or now, zone))
    if wanted is not None and wanted > now:
        return periods.round_up(wanted, zone)
    since = periods.start_of(wanted or now, zone)
    if since < periods.back(now, zone, FURTHEST_BACK):
        raise Unacceptable.at("/effective_at", "too_far_back", "At most two periods back.")
    return since


def periods_since(timeline: Timeline, since: datetime, now: datetime) -> list[str]:
    """Name the periods from the one of `since` to the running one; `timeline` isn't empty."""
    named = []
    while since <= now:
        zone = zone_at(timeline, since)
        named.append(periods.name_of(since, zone))
        since = periods.next_start(since, zone)
    return named


def zone_at(timeline: Timeline, instant: datetime) -> ZoneInfo:
    """Give the time zone in force; that of the first change before it. `timeline` isn't empty."""
    return ZoneInfo((at(timeline, instant) or timeline[0]).time_zone)


def override(
    timeline: Timeline, plan_id: UUID, since: datetime, overrides: Mapping[str, Mapping[str, Any]]
) -> Timeline:
    """Give the plan other overrides from an instant on, wherever the timeline is on that plan."""

    def edit(change: Change) -> Change:
        return replace(change, overrides=overrides) if change.plan_id == plan_id else change

    return amend(timeline, since, edit)


def move(timeline: Timeline, now: datetime, time_zone: str, country: str) -> Timeline:
    """Give the organisation another time zone or country, from the next period on."""
    last = timeline[-1]
    if (last.time_zone, last.country) == (time_zone, country):
        return timeline
    old = (at(timeline, now) or timeline[0]).time_zone
    since = periods.after_move(now, old, time_zone)
    return amend(timeline, since, lambda change: replace(change, time_zone=time_zone, country=country))


def adopt(timeline: Timeline, published: Published) -> Timeline:
    """Take up a newer version of a plan wherever the timeline is on that plan, from when it was to hold.

    The same version again changes nothing; the outcome doesn't depend on when this is called.
    """
    since = effect_of_change(timeline, published.published_at, is_immediate=published.is_immediate)

    def edit(change: Change) -> Change:
        is_older = change.plan_id == published.plan_id and change.plan_version < published.version
        return replace(change, plan_version=published.version) if is_older else change

    return amend(timeline, since, edit)
