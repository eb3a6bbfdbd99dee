"""The one formula: what is due is the target of the new quantity less what was charged so far."""

from __future__ import annotations

from bisect import bisect_left
from decimal import Decimal
from typing import NamedTuple

from .exact import EXACT, ZERO, ceil_div
from .terms import Terms

_subtract, _fma, _multiply = EXACT.subtract, EXACT.fma, EXACT.multiply


class Counter(NamedTuple):
    """One org, SKU and period so far: units, events (a void takes one back), and the amount charged."""

    quantity: Decimal = ZERO
    events: int = 0
    charged: Decimal = ZERO


def price(quantity: Decimal, events: int, terms: Terms) -> Decimal:
    """Give the cumulative price of `quantity` units, exact: before minimum, maximum and rounding.

    Rule: docs/rules/pricing.md, Price shapes. Net negative quantities cost what nothing costs.
    """
    billable = _subtract(quantity, terms.included)
    if billable <= ZERO:
        return terms.tiers[0].flat_fee if terms.flat_on_zero else ZERO
    bounds, fixed, slopes = terms.table
    if terms.package_size is not None:
        return _multiply(ceil_div(billable, terms.package_size), slopes[0])
    tier = bisect_left(bounds, billable) if bounds else 0
    amount = _fma(billable, slopes[tier], fixed[tier])
    return _fma(terms.fixed_fee, max(events, 0), amount) if terms.fixed_fee else amount


def target(quantity: Decimal, events: int, terms: Terms) -> Decimal:
    """Give the amount that all charges of an open period sum to, in the currency's minor unit.

    The maximum holds, the minimum not yet (docs/rules/pricing.md, The one formula).
    """
    amount = price(quantity, events, terms)
    if terms.maximum is not None and amount > terms.maximum:
        amount = terms.maximum
    return terms.rounder.quantize(amount, terms.unit)


def target_closed(quantity: Decimal, events: int, terms: Terms) -> Decimal:
    """Give the amount that all charges of a closed period sum to: minimum and maximum both hold."""
    amount = price(quantity, events, terms)
    if terms.minimum is not None and amount < terms.minimum:
        amount = terms.minimum
    if terms.maximum is not None and amount > terms.maximum:
        amount = terms.maximum
    return terms.rounder.quantize(amount, terms.unit)


def charge(counter: Counter, quantity: Decimal, events: int, terms: Terms) -> tuple[Counter, Decimal]:
    """Count `quantity` units of `events` events in an open period; the counter after, and what is now due.

    The amount is in `terms.currency`, rounded to its minor unit; both may be negative: a void is a
    charge, and so is a change of terms (quantity 0, events 0). Raises nothing: terms are checked
    when written. Rule: docs/rules/pricing.md, The one formula.
    """
    counted, happened = EXACT.add(counter.quantity, quantity), counter.events + events
    charged = target(counted, happened, terms)
    return Counter(counted, happened, charged), _subtract(charged, counter.charged)


def charge_closed(counter: Counter, quantity: Decimal, events: int, terms: Terms) -> tuple[Counter, Decimal]:
    """Count as `charge` does, in a closed period: the minimum holds, too."""
    counted, happened = EXACT.add(counter.quantity, quantity), counter.events + events
    charged = target_closed(counted, happened, terms)
    return Counter(counted, happened, charged), _subtract(charged, counter.charged)


def tax_target(gross: Decimal, terms: Terms, rate: Decimal | None) -> Decimal:
    """Give the tax that all charges at this `rate` sum to when their gross amounts sum to `gross`."""
    taxed = ZERO if rate is None else _multiply(gross, rate)
    return EXACT.plus(terms.rounder.quantize(taxed, terms.unit))
