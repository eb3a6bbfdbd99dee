"""Caps: how much of what is due may be charged, and what is cut and waived.

A cap follows the one formula: what was granted so far is the cap or the total, whichever is less, and a
charge grants what is new of that. Rule: docs/rules/pricing.md, Guardrails.
"""

from __future__ import annotations

from decimal import Decimal
from typing import NamedTuple

from .exact import EXACT, ZERO

_add, _subtract = EXACT.add, EXACT.subtract


class Spend(NamedTuple):
    """What one cap has seen in a period: `total` came to it, `granted` of it was let through."""

    total: Decimal = ZERO
    granted: Decimal = ZERO


def clamp(spend: Spend, due: Decimal, cap: Decimal) -> tuple[Spend, Decimal]:
    """Let `due` come to a cap; the spend after, and what passes.

    `granted` never grows above the cap, and a cap lowered below it takes nothing back. What a raised cap
    has room for passes with the next amount. A negative amount lowers the total first, so it gives back only
    what was granted beyond the new total.
    """
    total = _add(spend.total, due)
    granted = min(total, max(cap, spend.granted))
    return Spend(total, granted), _subtract(granted, spend.granted)


def give_back_waived(waived: Decimal, due: Decimal) -> Decimal:
    """Give what is left of `due` where no cap is any more, but `waived` was cut before.

    A negative amount takes back what was waived first: nobody gets money back that they never owed.
    """
    if due >= ZERO or waived <= ZERO:
        return due
    return min(ZERO, _add(due, waived))


def room(spend: Spend, held: Decimal, cap: Decimal) -> Decimal:
    """Give how much more may still come to a cap, beside what is held, and pass it whole; never negative."""
    return max(ZERO, _subtract(_subtract(cap, max(spend.total, spend.granted)), held))
