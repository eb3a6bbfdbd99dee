"""Billing periods of an organisation: which have begun, when the next thing begins, when one may be closed.

Rule: docs/rules/pricing.md, The close of a period; Base fees.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import NamedTuple
from uuid import UUID

from eb_contracts.pricing import PeriodClosed
from eb_rating import BaseFee
from eb_rating.resolve import OrgTerms, month_after, period_end, period_start

from .errors import NoTerms, PeriodNotOver

MOST_OPENED = 24
"""Periods opened at one visit: whoever was away for longer is visited again."""


class PeriodKey(NamedTuple):
    """A billing period of an organisation."""

    org_id: UUID
    period: str


class BillingPeriod(NamedTuple):
    """A period that began; closed at `closed_at`, and at `settled_at` its counters stood at their closed targets."""

    key: PeriodKey
    starts_at: datetime
    ends_at: datetime
    closed_at: datetime | None = None
    closed_by: str | None = None
    settled_at: datetime | None = None
    charges: int | None = None

    @classmethod
    def of(
        cls, org_id: UUID, period: str, starts_at: datetime, ends_at: datetime, **rest: object
    ) -> BillingPeriod:
        """Make one from its columns."""
        return cls(PeriodKey(org_id, period), starts_at, ends_at, **rest)  # type: ignore[arg-type]

    def fact(self) -> PeriodClosed:
        """Give the fact that it is closed; it must be settled."""
        return PeriodClosed(
            version=1,
            org_id=self.key.org_id,
            period=self.key.period,
            starts_at=self.starts_at,
            ends_at=self.ends_at,
            closed_at=self.closed_at,
            charges=self.charges,
        )


class Visit(NamedTuple):
    """When the calendar of an organisation is to be looked at again, and its first period that isn't opened."""

    org_id: UUID
    due_at: datetime
    next_period: str


class Rerate(NamedTuple):
    """A period of an organisation brought to the terms now in force, on demand; `charges` counts what that made."""

    rerate_id: UUID
    org_id: UUID
    period: str
    reason: str
    actor: str
    charges: int


def bounds(org_id: UUID, org_terms: OrgTerms, period: str) -> BillingPeriod:
    """Give a period with its bounds by the organisation's zones."""
    key = PeriodKey(org_id, period)
    return BillingPeriod(key, period_start(org_terms, period), period_end(org_terms, period))


def must_be_over(org_id: UUID, org_terms: OrgTerms, period: str, now: datetime) -> BillingPeriod:
    """Give a period that may be closed; NoTerms before the first one with terms, PeriodNotOver before its end."""
    if period < org_terms.assigned[0].period:
        raise NoTerms
    found = bounds(org_id, org_terms, period)
    if found.ends_at > now:
        raise PeriodNotOver(ends_at=found.ends_at)
    return found


def opened_by(org_terms: OrgTerms, next_period: str | None, now: datetime) -> list[str]:
    """Name the periods that began by `now` from `next_period` on, or from the first one with terms."""
    period = next_period or org_terms.assigned[0].period
    opened: list[str] = []
    while len(opened) < MOST_OPENED and period_start(org_terms, period) <= now:
        opened.append(period)
        period = month_after(period)
    return opened


def visit_after(
    org_id: UUID, org_terms: OrgTerms, next_period: str, fees: Iterable[BaseFee], now: datetime
) -> Visit:
    """Say when something begins next: a period that isn't opened, or a fee of one that is."""
    coming = [fee.at for fee in fees if fee.at > now]
    return Visit(org_id, min([period_start(org_terms, next_period), *coming]), next_period)


def begun(fees: Iterable[BaseFee], now: datetime) -> tuple[BaseFee, ...]:
    """Give the fees that are due by now."""
    return tuple(fee for fee in fees if fee.at <= now)


def plan_skus(org_terms: OrgTerms, period: str) -> set[str]:
    """Name the SKUs that assignments in force in a period name."""
    start, end = period_start(org_terms, period), period_end(org_terms, period)
    ends = (*(one.effective_at for one in org_terms.assigned[1:]), None)
    return {
        sku
        for assigned, until in zip(org_terms.assigned, ends, strict=True)
        if assigned.effective_at < end and (until is None or until > start)
        for sku in assigned.hashes
    }
