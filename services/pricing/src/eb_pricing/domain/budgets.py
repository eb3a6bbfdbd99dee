"""Budgets and credits as people set them, and how they stand.

Rule: docs/rules/pricing.md, Guardrails.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from uuid import UUID

ZERO = Decimal(0)


@dataclass(frozen=True, slots=True)
class Budget:
    """What an organisation, or one project of it, means to spend per period; `thresholds` in percent, rising."""

    budget_id: UUID
    org_id: UUID
    project_id: UUID | None
    amount: Decimal
    currency: str
    thresholds: tuple[int, ...]
    hard_cap: bool
    first_period: str
    created_at: datetime
    updated_at: datetime


@dataclass(frozen=True, slots=True)
class BudgetState:
    """How a budget stands in one period: `charged` of it, thresholds `reached`, and what its cap holds back."""

    budget: Budget
    period: str
    charged: Decimal = ZERO
    held_back: Decimal = ZERO
    reached: tuple[int, ...] = ()

    @property
    def remaining(self) -> Decimal:
        """Give what is left; never negative."""
        return max(ZERO, self.budget.amount - self.charged)


@dataclass(frozen=True, slots=True)
class Credit:
    """Money paid before: `drawn` of it paid charges."""

    credit_id: UUID
    org_id: UUID
    amount: Decimal
    drawn: Decimal
    currency: str
    sku_types: tuple[str, ...] | None
    priority: int
    expires_at: datetime | None
    source: str
    actor: str
    created_at: datetime


@dataclass(frozen=True, slots=True)
class CreditLeft:
    """What all credits of one currency still hold."""

    currency: str
    remaining: Decimal
