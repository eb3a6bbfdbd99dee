"""Adjusting charges: a counter comes to other terms, taxes, base fees, or to its closed target.

Rule: docs/rules/pricing.md, Which terms hold; Usage without terms; Tax.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any, NamedTuple

from eb_contracts.ids import new_id
from eb_rating import Counter as Sums
from eb_rating import charge, charge_closed
from eb_rating.prices import Priced, Tax

from .counters import Counter, Rated, charge_for, moved
from .guardrails import Guard
from .taxes import sorted_out, taxed

ZERO = Decimal(0)
A_MINUTE = timedelta(minutes=1)
TERMS_CHANGED = "terms_changed"
CURRENCY_CHANGED = "currency_changed"
PERIOD_CLOSED = "period_closed"
NO_TAX_RATE = Tax(None, None)
NOTHING = Sums()


class Cause(NamedTuple):
    """Why a counter is brought to its terms, and by whom."""

    reason: str
    actor: str = "system:pricing"


BY_TERMS = Cause(TERMS_CHANGED)
BY_CLOSE = Cause(PERIOD_CLOSED)


def adjust(
    counter: Counter,
    priced: Priced,
    minute: datetime,
    guard: Guard | None = None,
    charged_at: Iterable[tuple[datetime, Decimal]] | None = None,
    *,
    cause: Cause = BY_TERMS,
    base: Decimal | None = None,
) -> tuple[Counter, Guard | None, list[Rated]]:
    """Bring a counter to other terms: at most one adjusting charge, none where no amount changes.

    With `charged_at` (the gross amounts so far by their time) tax is sorted out anew as well; with `base` the
    base fees come to that sum. In another currency what was charged is taken back in the old one first, by a
    charge of its own.
    """
    taken_back: list[Rated] = []
    if counter.version and counter.currency != priced.terms.currency:
        counter, guard, withdrawal = _withdraw(counter, priced, minute, guard)
        taken_back, charged_at = [withdrawal], None
    counter, correction = _retaxed(counter, priced, charged_at)
    sums, due = _due_by(counter, priced)
    base_due = ZERO if base is None else base - counter.base
    if not due and not base_due and not correction:
        after = moved(counter, sums, priced, counter.taxes, ZERO, ZERO)
        return after._replace(version=counter.version), guard, taken_back
    counter, guard, rated = charge_for(
        counter,
        sums,
        due + base_due,
        priced,
        guard,
        tax_correction=correction,
        base_due=base_due,
        **_about_adjustment(priced, minute, cause),
    )
    return counter, guard, [*taken_back, rated]


def _retaxed(
    counter: Counter, priced: Priced, charged_at: Iterable[tuple[datetime, Decimal]] | None
) -> tuple[Counter, Decimal]:
    """Sort the taxes of a counter out anew where its charges are told; give it, and what that makes due."""
    if charged_at is None:
        return counter, ZERO
    taxes = sorted_out(charged_at, priced)
    return counter._replace(taxes=taxes), taxed(taxes) - taxed(counter.taxes)


def _due_by(counter: Counter, priced: Priced) -> tuple[Sums, Decimal]:
    """Give the sums by these terms, and what is due: nothing before the first use while the period is open."""
    if counter.is_closed:
        return charge_closed(counter.sums, ZERO, 0, priced.terms)
    if counter.sums == NOTHING:
        return counter.sums, ZERO
    return charge(counter.sums, ZERO, 0, priced.terms)


def _withdraw(
    counter: Counter, priced: Priced, minute: datetime, guard: Guard | None
) -> tuple[Counter, Guard | None, Rated]:
    """Take back all that was due in a currency that no longer is the terms', and its taxes."""
    old = priced._replace(
        terms_hash=counter.terms_hash or "",
        terms=replace(priced.terms, currency=counter.currency),
        taxes=((priced.start(), NO_TAX_RATE),),
    )
    sums = counter.sums._replace(charged=ZERO)
    untaxed = counter._replace(taxes=())
    emptied, guard, back = charge_for(
        untaxed,
        sums,
        -counter.sums.charged - counter.base,
        old,
        guard,
        tax_correction=-taxed(counter.taxes),
        base_due=-counter.base,
        **_about_adjustment(priced, minute, Cause(CURRENCY_CHANGED)),
    )
    return emptied._replace(retail_key=counter.retail_key), guard, back


def _about_adjustment(priced: Priced, minute: datetime, cause: Cause) -> dict[str, Any]:
    """Give the members of an adjusting charge: no usage is behind it."""
    return {
        "charge_id": str(new_id()),
        "time": adjustment_time(priced, minute),
        "kind": "adjustment",
        "quantity": ZERO,
        "event_count": 0,
        "reason": cause.reason,
        "actor": cause.actor,
    }


def adjustment_time(priced: Priced, minute: datetime) -> datetime:
    """Give the time of an adjusting charge: now, or the period's end that is nearer, so it stays inside."""
    start = priced.start()
    if minute < start:
        return start
    return min(minute, priced.end() - A_MINUTE)


def needs_new_taxes(counter: Counter, priced: Priced) -> bool:
    """Tell whether charges may have been taxed otherwise than by the rates now in force at their times."""
    rates = {tax.rate for _, tax in priced.taxes}
    met = {tax.rate for tax in counter.taxes} or {None}
    return len(rates | met) > 1
