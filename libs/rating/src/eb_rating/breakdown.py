"""The same price told tier by tier, so that a person can redo the sum by hand."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from typing import Literal

from .charges import price, target, target_closed
from .exact import EXACT, ZERO, Rounding, ceil_div
from .terms import Mode, Terms

Limit = Literal["minimum", "maximum"]


@dataclass(frozen=True, slots=True)
class TierLine:
    """One row of the sum: `quantity × unit_price + flat_fee = amount`, exact.

    `tier` counts from 0; the row prices what lies above `above` up to and with `up_to`. For package
    the quantity is packages, for percentages it is money and the unit price a rate; fees per event
    stand in `flat_fee`.
    """

    tier: int
    above: Decimal
    up_to: Decimal | None
    quantity: Decimal
    unit_price: Decimal
    flat_fee: Decimal
    amount: Decimal


@dataclass(frozen=True, slots=True)
class Breakdown:
    """How an amount comes about: `price` is exact and the sum of the tiers, `limit` says which end cut it."""

    quantity: Decimal
    events: int
    included: Decimal
    billable: Decimal
    mode: Mode
    tiers: tuple[TierLine, ...]
    price: Decimal
    limit: Limit | None
    amount: Decimal
    rounding: Rounding


def breakdown(quantity: Decimal, events: int, terms: Terms) -> Breakdown:
    """Tell `target` tier by tier (an open period: the minimum isn't looked at)."""
    return _told(quantity, events, terms, target(quantity, events, terms), minimum=None)


def breakdown_closed(quantity: Decimal, events: int, terms: Terms) -> Breakdown:
    """Tell `target_closed` tier by tier."""
    return _told(quantity, events, terms, target_closed(quantity, events, terms), terms.minimum)


def _told(
    quantity: Decimal, events: int, terms: Terms, amount: Decimal, minimum: Decimal | None
) -> Breakdown:
    billable = max(ZERO, EXACT.subtract(quantity, terms.included))
    exact = price(quantity, events, terms)
    return Breakdown(
        quantity=quantity,
        events=events,
        included=max(ZERO, min(quantity, terms.included)),
        billable=billable,
        mode=terms.mode,
        tiers=tuple(tier_lines(billable, events, terms)),
        price=exact,
        limit=_limit(exact, minimum, terms.maximum),
        amount=amount,
        rounding=terms.rounding,
    )


def _limit(exact: Decimal, minimum: Decimal | None, maximum: Decimal | None) -> Limit | None:
    if maximum is not None and max(exact, minimum or ZERO) > maximum:
        return "maximum"
    return "minimum" if minimum is not None and exact < minimum else None


def tier_lines(billable: Decimal, events: int, terms: Terms) -> Iterator[TierLine]:
    """Give the rows whose amounts sum to the price of `billable` units; none where nothing is due."""
    if billable <= ZERO:
        if terms.flat_on_zero:
            yield _line(terms, 0, ZERO, ZERO, ZERO, terms.tiers[0].flat_fee)
    elif terms.package_size is not None:
        yield _line(terms, 0, ZERO, ceil_div(billable, terms.package_size), terms.tiers[0].price, ZERO)
    elif terms.mode in ("graduated", "graduated_percentage"):
        yield from _slices(billable, terms)
    elif terms.mode == "stairstep_cumulative":
        yield from _steps(billable, terms)
    else:
        yield _whole(billable, events, terms)


def _reached(billable: Decimal, terms: Terms) -> Iterator[tuple[int, Decimal]]:
    """Give the tiers that `billable` reaches, each with where it begins."""
    above = ZERO
    for number, tier in enumerate(terms.tiers):
        yield number, above
        if tier.up_to is None or billable <= tier.up_to:
            return
        above = tier.up_to


def _slices(billable: Decimal, terms: Terms) -> Iterator[TierLine]:
    for number, above in _reached(billable, terms):
        tier = terms.tiers[number]
        end = billable if tier.up_to is None else min(billable, tier.up_to)
        yield _line(terms, number, above, EXACT.subtract(end, above), tier.price, tier.flat_fee)


def _steps(billable: Decimal, terms: Terms) -> Iterator[TierLine]:
    for number, above in _reached(billable, terms):
        yield _line(terms, number, above, ZERO, ZERO, terms.tiers[number].flat_fee)


def _whole(billable: Decimal, events: int, terms: Terms) -> TierLine:
    """Price all units by the tier they end in: per_unit, volume, stairstep, percentage."""
    number, above = list(_reached(billable, terms))[-1]
    tier = terms.tiers[number]
    fee = EXACT.fma(terms.fixed_fee, max(events, 0), tier.flat_fee)
    if terms.mode == "stairstep":
        return _line(terms, number, above, ZERO, ZERO, fee)
    return _line(terms, number, above, billable, tier.price, fee)


def _line(
    terms: Terms, number: int, above: Decimal, quantity: Decimal, unit_price: Decimal, fee: Decimal
) -> TierLine:
    amount = EXACT.fma(quantity, unit_price, fee)
    return TierLine(number, above, terms.tiers[number].up_to, quantity, unit_price, fee, amount)
