"""What stands between an amount due and what is to be paid: budgets with caps, and prepaid credits.

Every charge, of whatever kind, passes `settle` once, and `credits.pay_all` after it.
Rule: docs/rules/pricing.md, Guardrails.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from decimal import Decimal
from typing import NamedTuple
from uuid import UUID

from eb_rating.caps import Spend, clamp, give_back_waived
from eb_rating.credits import Draw, Grant

ZERO = Decimal(0)


class BudgetSpend(NamedTuple):
    """A budget in one period; `project_id` None: the organisation's own.

    `thresholds` are in percent of `amount`, rising; those in `announced` were said already. `charged` sums the
    gross amounts of the charges that count towards it.
    """

    budget_id: UUID
    org_id: UUID
    project_id: UUID | None
    period: str
    currency: str
    amount: Decimal
    hard_cap: bool
    thresholds: tuple[int, ...]
    spend: Spend
    charged: Decimal
    announced: tuple[int, ...] = ()

    @property
    def cap(self) -> Decimal | None:
        """Give the amount where it cuts; a soft budget only watches."""
        return self.amount if self.hard_cap else None

    def newly_reached(self) -> tuple[int, ...]:
        """Give the thresholds that are reached and weren't announced; none before anything was charged."""
        return tuple(
            pct
            for pct in self.thresholds
            if pct not in self.announced and self.charged > ZERO and self.amount * pct <= self.charged * 100
        )


class Guard(NamedTuple):
    """What guards one organisation: its budgets in the periods at hand, its grants in drawing order."""

    budgets: tuple[BudgetSpend, ...] = ()
    grants: tuple[Grant, ...] = ()


NO_GUARD = Guard()
Guards = dict[UUID, Guard]
"""What guards organisations; those that nothing guards are left out."""


class Cut(NamedTuple):
    """What one cap did to an amount: `granted` is min(total, max(cap, granted_before)), what is new of it passes."""

    budget_id: UUID
    project_id: UUID | None
    cap: Decimal
    due: Decimal
    total: Decimal
    granted_before: Decimal
    granted: Decimal


class Settled(NamedTuple):
    """An amount due, settled: due = gross + waived, and `draws` of credit pay a part of gross.

    `sku_type` says which credit may. `borrowed` (0 or negative) is the part of a negative gross that takes the
    counter's below zero.
    """

    gross: Decimal
    waived: Decimal = ZERO
    cuts: tuple[Cut, ...] = ()
    sku_type: str | None = None
    borrowed: Decimal = ZERO
    draws: tuple[Draw, ...] = ()


class Due(NamedTuple):
    """An amount due, and what decides which guards it meets.

    Of its counter `charged` (gross) was charged and `waived` was cut before.
    """

    amount: Decimal
    project_id: UUID | None
    period: str
    currency: str
    sku_type: str | None
    charged: Decimal
    waived: Decimal


def settle(guard: Guard, due: Due) -> tuple[Guard, Settled]:
    """Let an amount pass the project's cap, then the organisation's.

    Gives the guard after, and the parts of the amount, no credit drawn yet. Conserves: gross + waived = due.
    """
    budgets, gross, cuts = _pass_budgets(guard.budgets, due)
    borrowed = min(ZERO, due.charged + gross) - min(ZERO, due.charged) if gross < ZERO else ZERO
    return guard._replace(budgets=budgets), Settled(gross, due.amount - gross, cuts, due.sku_type, borrowed)


def _pass_budgets(
    budgets: tuple[BudgetSpend, ...], due: Due
) -> tuple[tuple[BudgetSpend, ...], Decimal, tuple[Cut, ...]]:
    """Give the budgets after, what passes, and what the caps changed."""
    met = list(_met(budgets, due))
    if any(budgets[place].hard_cap for place in met):
        return _clamp(budgets, met, due.amount)
    gross = give_back_waived(due.waived, due.amount)
    after = list(budgets)
    for place in met:
        one = budgets[place]
        after[place] = _spent(one, _watched(one, due.amount, gross), gross)
    return tuple(after), gross, ()


def _met(budgets: Sequence[BudgetSpend], due: Due) -> Iterator[int]:
    """Give the places of the budgets that count an amount: its project's first, then the organisation's.

    What belongs to no project, as an adjustment does, meets the organisation's only.
    """
    for project_id in {due.project_id: None, None: None}:
        for place, one in enumerate(budgets):
            if (one.project_id, one.period, one.currency) == (project_id, due.period, due.currency):
                yield place


def _clamp(
    budgets: Sequence[BudgetSpend], met: Sequence[int], amount: Decimal
) -> tuple[tuple[BudgetSpend, ...], Decimal, tuple[Cut, ...]]:
    spends: list[Spend] = []
    cuts: list[Cut] = []
    for one in (budgets[place] for place in met):
        if one.cap is None:
            spends.append(_watched(one, amount, amount))
            continue
        spend, passed = clamp(one.spend, amount, one.cap)
        spends.append(spend)
        if passed != amount:
            before = one.spend.granted
            cuts.append(
                Cut(one.budget_id, one.project_id, one.cap, amount, spend.total, before, spend.granted)
            )
        amount = passed
    after = list(budgets)
    for place, spend in zip(met, spends, strict=True):
        after[place] = _spent(budgets[place], spend, amount)
    return tuple(after), amount, tuple(cuts)


def _watched(budget: BudgetSpend, amount: Decimal, passed: Decimal) -> Spend:
    """Count where no cap cuts: what one cut earlier stays cut."""
    total, granted = budget.spend
    return Spend(total + amount, granted + passed)


def _spent(budget: BudgetSpend, spend: Spend, gross: Decimal) -> BudgetSpend:
    return budget._replace(spend=spend, charged=budget.charged + gross)
