"""The price rules said a second time, slowly and in fractions: what the library is compared with."""

from __future__ import annotations

from datetime import datetime, tzinfo
from decimal import Decimal
from fractions import Fraction
from math import ceil, floor
from typing import Any

from eb_rating import Terms
from eb_rating.base_fees import WHOLE, base_price, days_of, prorated
from eb_rating.exact import EXACT
from eb_rating.resolve import month_after, month_start

Plan = dict[str, Any]


def naive_price(quantity: Fraction, events: int, plan: Plan) -> Fraction:
    """Price `quantity` units by walking through the tiers, unit range by unit range."""
    shape = plan.get("tiers") or {"mode": "per_unit", "unit_price": plan["overage_price"]}
    billable = quantity - Fraction(plan["included_qty"])
    if billable <= 0:
        first = (shape.get("tiers") or [{}])[0]
        return Fraction(first.get("flat_fee", 0)) if shape.get("flat_on_zero") else Fraction(0)
    return _SHAPES[shape["mode"]](billable, events, shape)


def naive_target(quantity: Fraction, events: int, plan: Plan, *, closed: bool) -> Fraction:
    """Clamp and round, in this order."""
    shape = plan.get("tiers") or {}
    amount = naive_price(quantity, events, plan)
    if closed and shape.get("minimum") is not None:
        amount = max(amount, Fraction(shape["minimum"]))
    if shape.get("maximum") is not None:
        amount = min(amount, Fraction(shape["maximum"]))
    return naive_round(amount, plan["minor_digits"], plan.get("rounding", "half_up"))


def naive_round(amount: Fraction, digits: int, rounding: str) -> Fraction:
    """Round to `digits` decimals; ties go away from zero (half_up) or to the even neighbour."""
    scaled = abs(amount) * 10**digits
    whole, rest = floor(scaled), scaled - floor(scaled)
    up = rest > Fraction(1, 2) or (rest == Fraction(1, 2) and (rounding == "half_up" or whole % 2 == 1))
    return Fraction(whole + up, 10**digits) * (1 if amount >= 0 else -1)


def _end(tier: Plan) -> Fraction | None:
    return None if tier["up_to"] is None else Fraction(tier["up_to"])


def _index(billable: Fraction, tiers: list[Plan]) -> int:
    return next(i for i, tier in enumerate(tiers) if (end := _end(tier)) is None or billable <= end)


def _graduated(billable: Fraction, events: int, shape: Plan) -> Fraction:
    total, below = Fraction(0), Fraction(0)
    for tier in shape["tiers"]:
        if billable <= below:
            break
        end = _end(tier)
        top = billable if end is None else min(billable, end)
        price = Fraction(tier.get("unit_price") or tier.get("rate") or 0)
        total += (top - below) * price + Fraction(tier.get("flat_fee") or 0)
        below = top if end is None else end
    return total


def _volume(billable: Fraction, events: int, shape: Plan) -> Fraction:
    tier = shape["tiers"][_index(billable, shape["tiers"])]
    return billable * Fraction(tier.get("unit_price") or 0) + Fraction(tier.get("flat_fee") or 0)


def _stairstep(billable: Fraction, events: int, shape: Plan) -> Fraction:
    return Fraction(shape["tiers"][_index(billable, shape["tiers"])].get("flat_fee") or 0)


def _stairstep_cumulative(billable: Fraction, events: int, shape: Plan) -> Fraction:
    reached = shape["tiers"][: _index(billable, shape["tiers"]) + 1]
    return sum((Fraction(tier.get("flat_fee") or 0) for tier in reached), Fraction(0))


_SHAPES = {
    "per_unit": lambda b, events, shape: b * Fraction(shape["unit_price"]),
    "graduated": _graduated,
    "volume": _volume,
    "package": lambda b, events, shape: (
        ceil(b / Fraction(shape["package_size"])) * Fraction(shape["package_price"])
    ),
    "stairstep": _stairstep,
    "stairstep_cumulative": _stairstep_cumulative,
    "percentage": lambda b, events, shape: (
        b * Fraction(shape["rate"]) + Fraction(shape.get("fixed_fee") or 0) * max(events, 0)
    ),
    "graduated_percentage": _graduated,
}


def base_fee(
    terms: Terms, period: str, zone: tzinfo, since: datetime | None = None, until: datetime | None = None
) -> Decimal:
    """Tell what a SKU's base fee comes to in a period by terms that hold from `since` until `until`.

    None means: from before the period, until after it. It is the sum of the charges made for it: the fee,
    and the rest given back, each rounded; 0 where the terms ask for no fee.
    """
    price = base_price(terms)
    start, end = month_start(period, zone), month_start(month_after(period), zone)
    if price is None or (since is not None and since >= end) or (until is not None and until <= start):
        return terms.rounder.quantize(Decimal(0), terms.unit)
    whole = since is None or since <= start
    fee = prorated(price, WHOLE if whole or since is None else days_of(period, zone, since), terms)
    if until is None or until >= end:
        return fee
    return EXACT.subtract(fee, prorated(price, days_of(period, zone, until), terms))
