"""Which terms hold: from an organisation's assignments to the hash for a SKU in a period or at an instant.

Pure look-ups over facts that the caller keeps; the same facts give the same answer in whatever order
they came (docs/rules/pricing.md, Which terms hold).
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, tzinfo
from typing import Any
from zoneinfo import ZoneInfo


@dataclass(frozen=True, slots=True)
class RetailStep:
    """From `effective_at` on: the hash of the retail terms per SKU."""

    effective_at: datetime
    hashes: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class AssignedTerms:
    """From `effective_at` on: zone, currency, plan, and the hash per SKU; other SKUs have retail terms.

    `period` is the first billing period whose prices it decides: the one it falls into by the zone
    in force before it, so that a change of zone never moves a boundary that was already set.
    `is_whole` says that it begins exactly there: nothing earlier has a part in that period.
    """

    effective_at: datetime
    period: str
    is_whole: bool
    zone: tzinfo
    currency: str
    plan_id: str
    plan_version: int
    hashes: Mapping[str, str]
    retail_key: str


@dataclass(frozen=True, slots=True)
class OrgTerms:
    """All assignments of an organisation, oldest first; never empty."""

    assigned: tuple[AssignedTerms, ...]

    def at(self, instant: datetime) -> AssignedTerms:
        """Give what is in force at `instant`; before the first assignment, the first."""
        after = bisect_right(self.assigned, instant, key=_effective_at)
        return self.assigned[max(after - 1, 0)]


@dataclass(frozen=True, slots=True)
class Found:
    """The hash of the terms of a SKU, and the assignment that led to it; `retail_key` where retail did."""

    terms_hash: str
    assigned: AssignedTerms
    retail_key: str | None


def _effective_at(step: AssignedTerms | RetailStep) -> datetime:
    return step.effective_at


def month_in(instant: datetime, zone: tzinfo) -> str:
    """Give the calendar month `YYYY-MM` of an instant in a zone."""
    local = instant.astimezone(zone)
    return f"{local.year:04d}-{local.month:02d}"


def month_start(period: str, zone: tzinfo) -> datetime:
    """Give the first instant of a calendar month in a zone, in UTC."""
    year, month = period.split("-")
    return datetime(int(year), int(month), 1, tzinfo=zone).astimezone(UTC)


def month_after(period: str) -> str:
    """Give the next calendar month."""
    year, month = map(int, period.split("-"))
    return f"{year + month // 12:04d}-{month % 12 + 1:02d}"


def period_of(org_terms: OrgTerms, instant: datetime) -> str:
    """Give the billing period of an instant: its month in the zone in force then."""
    return month_in(instant, org_terms.at(instant).zone)


def period_start(org_terms: OrgTerms, period: str) -> datetime:
    """Give the first instant whose billing period is this one, or a later one where a change of zone skips it."""
    ends = (*(one.effective_at for one in org_terms.assigned[1:]), None)
    since = None
    for assigned, end in zip(org_terms.assigned, ends, strict=True):
        start = month_start(period, assigned.zone)
        first = start if since is None else max(start, since)
        if end is None or first < end:
            return first
        since = end
    raise ValueError("an organisation without assignments has no periods")


def period_end(org_terms: OrgTerms, period: str) -> datetime:
    """Give the first instant after a billing period."""
    return period_start(org_terms, month_after(period))


def org_terms_from_plain(assignments: Sequence[Mapping[str, Any]]) -> OrgTerms:
    """Read an organisation's assignments (the members of the announced fact); there is at least one."""
    assigned: list[AssignedTerms] = []
    for plain in sorted(assignments, key=lambda one: _instant(one["effective_at"])):
        assigned.append(_assigned(plain, assigned[-1] if assigned else None))
    return OrgTerms(tuple(assigned))


def _assigned(plain: Mapping[str, Any], before: AssignedTerms | None) -> AssignedTerms:
    zone = ZoneInfo(plain["time_zone"])
    effective_at = _instant(plain["effective_at"])
    period = month_in(effective_at, before.zone if before else zone)
    return AssignedTerms(
        effective_at=effective_at,
        period=period,
        is_whole=effective_at == month_start(period, before.zone if before else zone),
        zone=zone,
        currency=plain["currency"],
        plan_id=str(plain["plan_id"]),
        plan_version=plain["plan_version"],
        hashes=plain["hashes"],
        retail_key=plain["retail_key"],
    )


def retail_from_plain(assignments: Sequence[Mapping[str, Any]]) -> tuple[RetailStep, ...]:
    """Read retail defaults, oldest first (the members of the announced fact)."""
    steps = [RetailStep(_instant(plain["effective_at"]), plain["hashes"]) for plain in assignments]
    return tuple(sorted(steps, key=_effective_at))


def _instant(value: datetime | str) -> datetime:
    return value if isinstance(value, datetime) else datetime.fromisoformat(value)


Retail = Mapping[str, tuple[RetailStep, ...]]
"""Retail defaults by key."""


def price_terms(org_terms: OrgTerms, retail: Retail, sku: str, period: str) -> Found | None:
    """Find the terms that price a SKU for a whole period; None where nothing names it.

    The last assignment that begins in the period, else the one running at its start; one that doesn't
    name the SKU leaves it to the one before. Rule: docs/rules/pricing.md, Which terms hold.
    """
    for assigned in _touching(org_terms, period):
        if sku in assigned.hashes:
            return Found(assigned.hashes[sku], assigned, None)
        terms_hash = _retail_hash(assigned, retail, sku, period)
        if terms_hash is not None:
            return Found(terms_hash, assigned, assigned.retail_key)
    return None


def _touching(org_terms: OrgTerms, period: str) -> Iterator[AssignedTerms]:
    """Give the assignments that touch a period, newest first."""
    for assigned in reversed(org_terms.assigned):
        if assigned.period <= period:
            yield assigned
        if assigned.period < period or (assigned.period == period and assigned.is_whole):
            return


def _retail_hash(assigned: AssignedTerms, retail: Retail, sku: str, period: str) -> str | None:
    """Find the retail terms of a SKU: a change counts from the next period, a first price at once."""
    start = month_start(period, assigned.zone)
    naming = [step for step in retail.get(assigned.retail_key, ()) if sku in step.hashes]
    before = [step for step in naming if step.effective_at <= start]
    if before:
        return before[-1].hashes[sku]
    within = (step for step in naming if month_in(step.effective_at, assigned.zone) == period)
    return next((step.hashes[sku] for step in within), None)


def steps_of(org_terms: OrgTerms, retail: Retail, sku: str) -> tuple[tuple[datetime, str], ...]:
    """Give the hashes in force for a SKU from instant to instant, oldest first: what decides its tax rate."""
    steps: list[tuple[datetime, str]] = []
    ends = [one.effective_at for one in org_terms.assigned[1:]] + [datetime.max.replace(tzinfo=UTC)]
    for assigned, end in zip(org_terms.assigned, ends, strict=True):
        for since, terms_hash in _steps_within(assigned, end, retail, sku):
            if steps and steps[-1][0] == since:
                steps.pop()
            if not steps or steps[-1][1] != terms_hash:
                steps.append((since, terms_hash))
    return tuple(steps)


def _steps_within(
    assigned: AssignedTerms, end: datetime, retail: Retail, sku: str
) -> Iterator[tuple[datetime, str]]:
    if sku in assigned.hashes:
        yield assigned.effective_at, assigned.hashes[sku]
        return
    for step in retail.get(assigned.retail_key, ()):
        if sku in step.hashes and step.effective_at < end:
            yield max(step.effective_at, assigned.effective_at), step.hashes[sku]


def steps_between(
    steps: Sequence[tuple[datetime, str]], start: datetime, end: datetime
) -> Sequence[tuple[datetime, str]]:
    """Give the steps that are in force somewhere in `[start, end]`; at least one."""
    return steps[_place(steps, start) : _place(steps, end) + 1]


def _place(steps: Sequence[tuple[datetime, str]], instant: datetime) -> int:
    return max(bisect_right(steps, instant, key=lambda step: step[0]) - 1, 0)
