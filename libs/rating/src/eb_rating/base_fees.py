"""Base fees: what a hosting SKU of a plan costs by the calendar, whether it is used or not.

Pure functions of assignments, terms and a period. Rule: docs/rules/pricing.md, Base fees.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta, tzinfo
from decimal import Decimal
from typing import Literal, NamedTuple

from .exact import EXACT
from .resolve import AssignedTerms, OrgTerms, month_after, month_start, period_end, period_start
from .terms import Terms

A_DAY = timedelta(days=1)
HOSTING = "hosting"


class Proration(NamedTuple):
    """A part of a period: so many days of its month's days; (1, 1) is the whole."""

    days_left: int
    days: int


WHOLE = Proration(1, 1)


class BaseFee(NamedTuple):
    """What becomes due at an instant: a fee where a SKU's price begins, the unused rest back where it ends.

    `price` is for a whole period, `amount` is `price` × days left / days, rounded once to the minor unit of
    the terms' currency; both the amount and `quantity` (1 or -1) are negative at an end.
    """

    sku: str
    period: str
    at: datetime
    edge: Literal["start", "end"]
    terms_hash: str
    terms: Terms
    price: Decimal
    proration: Proration
    amount: Decimal

    @property
    def quantity(self) -> int:
        """Give 1, or -1 where the fee ends."""
        return 1 if self.edge == "start" else -1


def base_price(terms: Terms) -> Decimal | None:
    """Give the fee of a whole period; None where there is none: no hosting SKU, or no price per unit.

    Included quantity, minimum and maximum are about use, not about the fee.
    """
    if terms.sku_type != HOSTING or terms.mode != "per_unit":
        return None
    return terms.tiers[0].price


def prorated(price: Decimal, proration: Proration, terms: Terms) -> Decimal:
    """Give `price` × days left / days, rounded once as the terms say."""
    rounder = terms.rounder
    exact = EXACT.multiply(price, Decimal(proration.days_left))
    return rounder.quantize(rounder.divide(exact, Decimal(proration.days)), terms.unit)


def days_of(period: str, zone: tzinfo, instant: datetime) -> Proration:
    """Give the days left of a calendar month from the day of `instant` on, that day counted, and all its days.

    Days are those that the zone's calendar really has; an instant before the month counts as its start.
    """
    start, end = month_start(period, zone), month_start(month_after(period), zone)
    local = max(instant, start).astimezone(zone)
    day = datetime(local.year, local.month, local.day, tzinfo=zone).astimezone(UTC)
    return Proration(round((end - day) / A_DAY), round((end - start) / A_DAY))


def named_hashes(org_terms: OrgTerms, period: str) -> set[str]:
    """Name the terms of all SKUs that the assignments in force in a period name: what `base_fees` looks at."""
    return {
        terms_hash for _, assigned in _in_force(org_terms, period) for terms_hash in assigned.hashes.values()
    }


def base_fees(org_terms: OrgTerms, terms: Mapping[str, Terms], period: str) -> tuple[BaseFee, ...]:
    """Give all base fees of an organisation in a period, oldest first, then by SKU.

    One where the period starts, for each hosting SKU that the plan in force then names; and where an
    assignment within the period changes a SKU's price, the rest of the old one back and the new one for
    the days left. KeyError if terms of `named_hashes` are missing.
    """
    fees: list[BaseFee] = []
    before: Mapping[str, Priced] = {}
    start = period_start(org_terms, period)
    for at, assigned in _in_force(org_terms, period):
        now = _priced(assigned, terms)
        proration = WHOLE if at == start else days_of(period, assigned.zone, at)
        for sku in sorted(before.keys() | now.keys()):
            fees += _fees_at(period, at, proration, sku, before.get(sku), now.get(sku))
        before = now
    return tuple(fees)


class Priced(NamedTuple):
    """A SKU's base fee for a whole period, and the terms it is from."""

    price: Decimal
    terms_hash: str
    terms: Terms

    def is_like(self, other: Priced) -> bool:
        """Tell whether both ask for the same fee."""
        mine, others = self.terms, other.terms
        return (self.price, mine.currency, mine.rounding) == (other.price, others.currency, others.rounding)


def _in_force(org_terms: OrgTerms, period: str) -> Iterator[tuple[datetime, AssignedTerms]]:
    """Give what is in force at a period's start, and what begins within it, each with from when."""
    start, end = period_start(org_terms, period), period_end(org_terms, period)
    ends = (*(one.effective_at for one in org_terms.assigned[1:]), None)
    for assigned, until in zip(org_terms.assigned, ends, strict=True):
        if assigned.effective_at < end and (until is None or until > start):
            yield max(start, assigned.effective_at), assigned


def _priced(assigned: AssignedTerms, terms: Mapping[str, Terms]) -> dict[str, Priced]:
    found = {}
    for sku, terms_hash in assigned.hashes.items():
        price = base_price(terms[terms_hash])
        if price is not None:
            found[sku] = Priced(price, terms_hash, terms[terms_hash])
    return found


def _fees_at(
    period: str, at: datetime, proration: Proration, sku: str, before: Priced | None, now: Priced | None
) -> Iterator[BaseFee]:
    if before is not None and now is not None and before.is_like(now):
        return
    if before is not None:
        rest = -prorated(before.price, proration, before.terms)
        yield BaseFee(
            sku, period, at, "end", before.terms_hash, before.terms, before.price, proration, rest + 0
        )
    if now is not None:
        fee = prorated(now.price, proration, now.terms)
        yield BaseFee(sku, period, at, "start", now.terms_hash, now.terms, now.price, proration, fee)
