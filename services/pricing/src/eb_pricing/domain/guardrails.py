"""What stands between an amount due and what is to be paid: budgets with caps, and prepaid credits.

Every charge, of whatever kind, passes `settle` once. Rule: docs/rules/pricing.md, Guardrails.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from decimal import Decimal
from typing import NamedTuple
from uuid import UUID

from eb_rating import Terms
from eb_rating.caps import Spend, clamp, give_back_waived
from eb_rating.credits import Draw, Grant, apply

ZERO = Decimal(0)


class BudgetSpend(NamedTuple):
    """A budget in one period: `cap` None only watches, `project_id` None is the organisation's.

    `charged` sums amount_gross of the charges that count towards it.
    """

    budget_id: UUID
    project_id: UUID | None
    period: str
    currency: str
    cap: Decimal | None
    spend: Spend
    charged: Decimal


class Guard(NamedTuple):
    """What guards one organisation: its budgets in the periods at hand, its grants in drawing order."""

    budgets: tuple[BudgetSpend, ...] = ()
    grants: tuple[Grant, ...] = ()


class Cut(NamedTuple):
    """What one cap did to an amount: `granted` is min(total, max(cap, granted_before))."""

    budget_id: UUID
    cap: Decimal
    due: Decimal
    total: Decimal
    granted_before: Decimal
    granted: Decimal


class Settled(NamedTuple):
    """An amount due, settled: due = gross + waived, and credit pays a part of gross."""

    gross: Decimal
    waived: Decimal = ZERO
    credit: Decimal = ZERO
    cuts: tuple[Cut, ...] = ()
    draws: tuple[Draw, ...] = ()


class Due(NamedTuple):
    """An amount due, and what decides which guards it meets; `waived` was cut from its counter before."""

    amount: Decimal
    project_id: UUID | None
    period: str
    waived: Decimal


def settle(guard: Guard, due: Due, terms: Terms, minute: datetime) -> tuple[Guard, Settled]:
    """Let an amount pass the project's cap, then the organisation's, then draw on credits.

    Gives the guard after, and the parts of the amount. Conserves: gross + waived = due; credit has gross's
    sign and is never more.
    """
    budgets, gross, cuts = _pass_caps(guard.budgets, due, terms.currency)
    grants = guard.grants
    draws: list[Draw] = []
    if grants and gross:
        moved, draws = apply(grants, gross, terms.currency, terms.sku_type, minute)
        grants = tuple(moved)
    credit = sum((draw.amount for draw in draws), ZERO)
    settled = Settled(gross, due.amount - gross, credit, tuple(cuts), tuple(draws))
    return Guard(budgets, grants), settled


def _pass_caps(
    budgets: tuple[BudgetSpend, ...], due: Due, currency: str
) -> tuple[tuple[BudgetSpend, ...], Decimal, Sequence[Cut]]:
    """Give the budgets after, what passes, and the caps that changed it."""
    met = [one for one in budgets if _meets(one, due, currency)]
    if not any(one.cap is not None for one in met):
        gross = give_back_waived(due.waived, due.amount)
        return _after(budgets, {one: _watched(one, due.amount, gross) for one in met}, gross), gross, ()
    spends: dict[BudgetSpend, Spend] = {}
    cuts = []
    amount = due.amount
    for one in sorted(met, key=lambda budget: budget.project_id is None):
        spends[one], passed = clamp(one.spend, amount, one.cap)
        if one.cap is not None and passed != amount:
            after = spends[one]
            cuts.append(Cut(one.budget_id, one.cap, amount, after.total, one.spend.granted, after.granted))
        amount = passed
    return _after(budgets, spends, amount), amount, cuts


def _meets(budget: BudgetSpend, due: Due, currency: str) -> bool:
    """Tell whether a budget counts such an amount. Adjustments have no project: they meet the organisation's."""
    is_own = budget.project_id is None or budget.project_id == due.project_id
    return is_own and budget.period == due.period and budget.currency == currency


def _watched(budget: BudgetSpend, amount: Decimal, gross: Decimal) -> Spend:
    """Count without a cap: what was cut earlier stays cut."""
    return Spend(budget.spend.total + amount, budget.spend.granted + gross)


def _after(
    budgets: tuple[BudgetSpend, ...], spends: dict[BudgetSpend, Spend], gross: Decimal
) -> tuple[BudgetSpend, ...]:
    return tuple(
        one._replace(spend=spends[one], charged=one.charged + gross) if one in spends else one
        for one in budgets
    )
