"""Tax of a counter's charges: per rate the tax of all of them is the rounded tax of their sum.

Rule: docs/rules/pricing.md, Tax.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from decimal import Decimal
from typing import NamedTuple

from eb_rating import tax_target
from eb_rating.prices import Priced

ZERO = Decimal(0)


class TaxSum(NamedTuple):
    """Tax at one rate: the gross amounts charged at it, and the tax on them, so far."""

    rate: Decimal | None
    gross: Decimal = ZERO
    taxed: Decimal = ZERO


NO_TAX = TaxSum(None)


def tax_of(
    taxes: tuple[TaxSum, ...], due: Decimal, time: datetime, priced: Priced
) -> tuple[str | None, tuple[TaxSum, ...], Decimal]:
    """Add a gross amount to the sum of the rate in force at `time`; code, sums and tax due.

    The tax due telescopes per rate, as amounts do per counter.
    """
    rate, code = priced.tax_at(time)
    if rate is None:
        return code, taxes, ZERO
    before, others = _split(taxes, rate)
    gross = before.gross + due
    after = TaxSum(rate, gross, tax_target(gross, priced.terms, rate))
    return code, (after, *others), after.taxed - before.taxed


def _split(taxes: tuple[TaxSum, ...], rate: Decimal) -> tuple[TaxSum, tuple[TaxSum, ...]]:
    """Give the sum at a rate, and the others."""
    if taxes and taxes[0].rate == rate:
        return taxes[0], taxes[1:]
    others = tuple(tax for tax in taxes if tax.rate != rate)
    return next((tax for tax in taxes if tax.rate == rate), TaxSum(rate)), others


def sorted_out(charged_at: Iterable[tuple[datetime, Decimal]], priced: Priced) -> tuple[TaxSum, ...]:
    """Give the tax sums as they are when each amount is taxed by the rate in force at its time."""
    taxes: tuple[TaxSum, ...] = ()
    for time, gross in charged_at:
        _, taxes, _ = tax_of(taxes, gross, time, priced)
    return taxes


def taxed(taxes: Iterable[TaxSum]) -> Decimal:
    """Sum the tax at all rates."""
    return sum((tax.taxed for tax in taxes), ZERO)
