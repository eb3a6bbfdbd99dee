"""A charge as it was kept, and the sum behind it, told so that a person can redo it by hand.

Rule: docs/rules/pricing.md, Explaining.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Literal
from uuid import UUID

from eb_contracts.pricing import CounterState
from eb_rating import Breakdown, Terms, breakdown, breakdown_closed, tax_target

from .adjusting import CURRENCY_CHANGED
from .rating import OneOff

ChargeStatus = Literal["open", "closed"]
NotDue = Literal["withdrawn", "not_used_yet"]


@dataclass(frozen=True, slots=True)
class KeptCharge:
    """A charge with the counter after it. `tax_base` is the gross charged at `tax_rate` so far, it included."""

    charge_id: str
    org_id: UUID
    project_id: UUID | None
    sku: str
    period: str
    time: datetime
    kind: str
    quantity: Decimal
    event_count: int
    currency: str
    amount_gross: Decimal
    waived_amount: Decimal
    credit_applied: Decimal
    tax_amount: Decimal
    tax_code: str | None
    tax_rate: Decimal | None
    tax_base: Decimal
    terms_hash: str
    counter_quantity: Decimal
    counter_events: int
    counter_charged: Decimal
    counter_version: int
    reason: str | None
    actor: str | None
    trace_ids: tuple[str, ...]
    created_at: datetime
    is_closed: bool
    base_due: Decimal
    counter_base: Decimal
    days_left: int | None
    days: int | None

    @property
    def after(self) -> CounterState:
        """Give the counter after this charge."""
        return CounterState(
            quantity=self.counter_quantity,
            events=self.counter_events,
            charged=self.counter_charged,
            version=self.counter_version,
        )

    @property
    def status(self) -> ChargeStatus:
        """Tell whether it was made while its period was open, or at its close and after."""
        return "closed" if self.is_closed else "open"

    @property
    def usage_after(self) -> Decimal:
        """Give what was due for use after this charge, base fees left out."""
        return self.counter_charged - self.counter_base

    @property
    def usage_due(self) -> Decimal:
        """Give the part of what became due that use made."""
        return self.amount_gross + self.waived_amount - self.base_due

    @property
    def counted(self) -> Decimal:
        """Give what the counter's quantity moved by: a base fee counts no use."""
        return Decimal(0) if self.kind == "base" else self.quantity

    @property
    def before(self) -> CounterState:
        """Give the counter before this charge."""
        return CounterState(
            quantity=self.counter_quantity - self.counted,
            events=self.counter_events - self.event_count,
            charged=self.counter_charged - self.amount_gross - self.waived_amount,
            version=self.counter_version - 1,
        )


def is_same(charge: KeptCharge, one_off: OneOff) -> bool:
    """Tell whether a charge is this one-off, made before: the same project, SKU, quantity and instant."""
    made = OneOff(
        charge.charge_id, charge.org_id, charge.project_id, charge.sku, charge.quantity, charge.time
    )
    return charge.kind == "one_off" and made == one_off


@dataclass(frozen=True, slots=True)
class UsageSum:
    """A counter as it now is: what was used in a period, charged for it (gross), and waived besides."""

    org_id: UUID
    sku: str
    period: str
    quantity: Decimal
    events: int
    charged: Decimal
    waived: Decimal
    currency: str
    terms_hash: str


@dataclass(frozen=True, slots=True)
class TaxSums:
    """How the tax comes about: `taxed` is `base × rate` rounded, and what is new of it is the charge's tax."""

    rate: Decimal | None
    base: Decimal
    taxed: Decimal


def exception_of(charge: KeptCharge) -> NotDue | None:
    """Say why a counter isn't at its target: taken back with its currency, or open and not used yet."""
    if charge.reason == CURRENCY_CHANGED and not charge.usage_after:
        return "withdrawn"
    is_used = charge.is_closed or charge.counter_quantity or charge.counter_events or charge.usage_after
    return None if is_used else "not_used_yet"


def redo(charge: KeptCharge, terms: Terms) -> tuple[Breakdown, TaxSums]:
    """Redo the sum of a charge from the counter after it and the terms it names."""
    tell = breakdown_closed if charge.is_closed else breakdown
    told = tell(charge.counter_quantity, charge.counter_events, terms)
    taxed = tax_target(charge.tax_base, terms, charge.tax_rate)
    return told, TaxSums(charge.tax_rate, charge.tax_base, taxed)
