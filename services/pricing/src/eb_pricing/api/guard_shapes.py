"""What the doors of budgets, credits and authorize take and answer."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal
from uuid import UUID

from pydantic import AfterValidator, Field
from pydantic_core import PydanticCustomError

from eb_contracts.catalog import SkuType
from eb_contracts.money import money_text
from eb_kit.inputs import CurrencyIn, Input, Money, Page, Quantity, QuantityIn, Text, View

from ..domain.budgets import BudgetState, Credit, CreditLeft
from ..domain.initiations import Initiation
from .shapes import Name, Period, UsageView

LONGEST_HOLD_S = 900


def _rising(thresholds: tuple[int, ...]) -> tuple[int, ...]:
    if len(set(thresholds)) != len(thresholds):
        raise PydanticCustomError("not_unique", "Must not name a threshold twice.")
    return tuple(sorted(thresholds))


def _unique(names: tuple[str, ...]) -> tuple[str, ...]:
    if len(set(names)) != len(names):
        raise PydanticCustomError("not_unique", "Must not name a type twice.")
    return names


Thresholds = Annotated[
    tuple[Annotated[int, Field(ge=1, le=1000)], ...], Field(max_length=10), AfterValidator(_rising)
]
"""Percents of the amount."""
SkuTypes = Annotated[tuple[SkuType, ...], Field(min_length=1, max_length=5), AfterValidator(_unique)]
AmountIn = QuantityIn
"""An amount of money; no finer than its currency's minor unit."""
Moved = Annotated[QuantityIn, Field(gt=0)]
RequestId = Annotated[str, Field(pattern=r"^[\x20-\x7e]+$", min_length=1, max_length=256)]


class CreateBudget(Input):
    """A budget of an organisation, or of one project of it."""

    org_id: UUID
    project_id: UUID | None = None
    amount: AmountIn
    currency: CurrencyIn
    thresholds: Thresholds = (50, 80, 100)
    hard_cap: bool = False


class PutBudget(Input):
    """A budget anew. Its organisation and project may be repeated, and stay."""

    org_id: UUID | None = None
    project_id: UUID | None = None
    amount: AmountIn
    currency: CurrencyIn
    thresholds: Thresholds = (50, 80, 100)
    hard_cap: bool = False


class BudgetQuery(Page):
    """Which budgets."""

    org_id: UUID | None = None
    project_id: UUID | None = None


class BudgetView(View):
    """A budget, and how it stands in `period`, the running one.

    `charged` sums the gross amounts of all charges that count, `remaining` is what is left of `amount`; `waived`
    is what its cap holds back. `reached` are the thresholds (percent) that were announced.
    """

    budget_id: UUID
    org_id: UUID
    project_id: UUID | None
    amount: Money
    currency: str
    thresholds: list[int]
    hard_cap: bool
    period: str
    charged: Money
    remaining: Money
    waived: Money
    reached: list[int]
    created_at: datetime
    updated_at: datetime

    @classmethod
    def of(cls, state: BudgetState) -> BudgetView:
        """Show a budget."""
        budget = state.budget
        return cls(
            budget_id=budget.budget_id,
            org_id=budget.org_id,
            project_id=budget.project_id,
            amount=money_text(budget.amount, budget.currency),
            currency=budget.currency,
            thresholds=list(budget.thresholds),
            hard_cap=budget.hard_cap,
            period=state.period,
            charged=money_text(state.charged, budget.currency),
            remaining=money_text(state.remaining, budget.currency),
            waived=money_text(state.held_back, budget.currency),
            reached=list(state.reached),
            created_at=budget.created_at,
            updated_at=budget.updated_at,
        )


class CreateCredit(Input):
    """Money an organisation paid before. `sku_types` left out: it pays for everything."""

    org_id: UUID
    amount: Moved
    currency: CurrencyIn
    sku_types: SkuTypes | None = None
    priority: Annotated[int, Field(ge=0, le=1_000_000)] = 0
    expires_at: datetime | None = None
    source: Annotated[str, Text(1, 200)]


class CreditQuery(Page):
    """Whose credits."""

    org_id: UUID | None = None


class CreditView(View):
    """A credit: `remaining` is amount − draws, also where it has expired and pays nothing any more."""

    credit_id: UUID
    org_id: UUID
    amount: Money
    remaining: Money
    currency: str
    sku_types: list[str] | None
    priority: int
    expires_at: datetime | None
    source: str
    created_at: datetime

    @classmethod
    def of(cls, credit: Credit) -> CreditView:
        """Show a credit."""
        return cls(
            credit_id=credit.credit_id,
            org_id=credit.org_id,
            amount=money_text(credit.amount, credit.currency),
            remaining=money_text(credit.amount - credit.drawn, credit.currency),
            currency=credit.currency,
            sku_types=None if credit.sku_types is None else list(credit.sku_types),
            priority=credit.priority,
            expires_at=credit.expires_at,
            source=credit.source,
            created_at=credit.created_at,
        )


class CreditLeftView(View):
    """What all live credits of a currency still hold."""

    currency: str
    remaining: Money

    @classmethod
    def of(cls, left: CreditLeft) -> CreditLeftView:
        """Show what is left."""
        return cls(currency=left.currency, remaining=money_text(left.remaining, left.currency))


class UsagePage(View):
    """A page of counters, and what the organisation's budgets and credits have left."""

    items: list[UsageView]
    next_cursor: str | None
    budgets: list[BudgetView]
    credits: list[CreditLeftView]


class Authorize(Input):
    """An action that is about to start. With `hold` its amount is kept free for `hold_ttl` seconds."""

    org_id: UUID
    project_id: UUID | None = None
    sku: Name
    quantity: Moved
    request_id: RequestId
    hold: bool = False
    hold_ttl: Annotated[int, Field(ge=1, le=LONGEST_HOLD_S)] = LONGEST_HOLD_S


class AuthorizeView(View):
    """Whether the action may start, and why; `amount` is what it would be charged now, if terms say so."""

    decision: Literal["allow", "deny"]
    reason: str
    amount: Money | None
    currency: str | None
    hold_id: UUID | None
    expires_at: datetime | None

    @classmethod
    def of(cls, one: Initiation) -> AuthorizeView:
        """Show an answer."""
        amount = None
        if one.amount is not None and one.currency is not None:
            amount = money_text(one.amount, one.currency)
        return cls(
            decision=one.decision,
            reason=one.reason,
            amount=amount,
            currency=one.currency,
            hold_id=one.hold_id,
            expires_at=one.expires_at,
        )


class HoldView(View):
    """A hold: `status` is open, released or expired."""

    hold_id: UUID
    org_id: UUID
    project_id: UUID | None
    sku: str
    period: Period | None
    quantity: Quantity
    amount: Money
    currency: str
    request_id: str
    status: Literal["open", "released", "expired"]
    expires_at: datetime
    released_at: datetime | None

    @classmethod
    def of(cls, one: Initiation, now: datetime) -> HoldView:
        """Show a hold as it is at an instant."""
        assert one.hold_id is not None
        assert one.expires_at is not None
        assert one.amount is not None
        assert one.currency is not None
        return cls(
            hold_id=one.hold_id,
            org_id=one.org_id,
            project_id=one.project_id,
            sku=one.sku,
            period=one.period,
            quantity=one.quantity,
            amount=money_text(one.amount, one.currency),
            currency=one.currency,
            request_id=one.request_id,
            status=one.hold_status(now),
            expires_at=one.expires_at,
            released_at=one.released_at,
        )
