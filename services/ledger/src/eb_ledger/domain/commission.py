"""The partner's share of a line (docs/rules/ledger.md, Whose partner, what share)."""

from __future__ import annotations

from collections.abc import Iterable
from decimal import ROUND_HALF_UP, Context, Decimal
from functools import cache
from typing import NamedTuple
from uuid import UUID

from eb_contracts.money import minor_digits

EXACT = Context(prec=60, rounding=ROUND_HALF_UP)
"""Wide enough for any sum of money times a percentage."""

LARGEST = Decimal(10) ** 18
"""Every amount and quantity lies below this, on both sides of 0."""


class CommissionKey(NamedTuple):
    """What a share telescopes over. Sums of two currencies are never mixed, so the currency is part of it."""

    partner_id: UUID
    org_id: UUID
    sku: str
    period: str
    currency: str
    partner_pct: Decimal


@cache
def minor_unit(currency: str) -> Decimal:
    """Give the smallest amount of a currency (AUD 0.01); ValueError if it is none."""
    return Decimal(1).scaleb(-minor_digits(currency))


def share(gross: Decimal, pct: Decimal, currency: str) -> Decimal:
    """Give `pct` percent of `gross`, rounded to the minor unit, half up on the absolute value."""
    exact = EXACT.multiply(gross, pct).scaleb(-2, context=EXACT)
    return exact.quantize(minor_unit(currency), context=EXACT)


def shares(amounts: Iterable[Decimal], so_far: Decimal, pct: Decimal, currency: str) -> list[Decimal]:
    """Give each amount's part of the partner's share, in order, after `so_far` of gross in the same key.

    The parts telescope: after each line their sum is share(Σ gross), so tiny lines neither give away nor
    swallow anything, and any order ends in the same sum.
    """
    parts, paid = [], share(so_far, pct, currency)
    for amount in amounts:
        so_far = EXACT.add(so_far, amount)
        due = share(so_far, pct, currency)
        parts.append(due - paid)
        paid = due
    return parts
