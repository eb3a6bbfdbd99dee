"""Messages of pricing: charges on their way to the ledger."""

from __future__ import annotations

from datetime import datetime
from typing import Literal
from uuid import UUID

from .base import USAGE, Body, EntityFact, Message, Number, Partitioned, register

ChargeKind = Literal["usage", "base", "one_off", "adjustment"]


class CounterState(Body):
    """A counter after a charge; `version` rises by one with each charge."""

    IS_CARRIED = True
    quantity: Number
    events: int
    charged: Number
    version: int


class Charge(Body):
    """An amount now due for one organisation and SKU. `charge_id` is the usage_id for kind usage.

    `time` decides everything that takes effect at an instant; `period` is `YYYY-MM` in the org's time zone.
    """

    IS_CARRIED = True
    charge_id: str
    org_id: UUID
    project_id: UUID | None
    sku: str
    period: str
    time: datetime
    kind: ChargeKind
    quantity: Number
    event_count: int
    currency: str
    amount_gross: Number
    waived_amount: Number
    credit_applied: Number
    tax_amount: Number
    tax_code: str | None
    terms_hash: str
    reason: str | None = None
    actor: str | None = None
    counter: CounterState
    trace_ids: tuple[str, ...] = ()


@register
class ChargePriced(Partitioned):
    """Charges that were committed; each is to be posted to the ledger exactly once."""

    IS_CARRIED = True
    TYPE = "pricing.charge.priced.v1"
    EXCHANGE = USAGE
    KEY_PREFIX = "charge."
    charges: tuple[Charge, ...]

    @property
    def weight(self) -> int:
        return len(self.charges)

    @property
    def traces(self) -> frozenset[str]:
        return frozenset(trace for charge in self.charges for trace in charge.trace_ids)


class ParkedUsage(Body):
    """Usage that nothing prices yet; its charge comes by itself once something does."""

    org_id: UUID
    usage_id: UUID
    reason: str


@register
class UsageParked(Message):
    """Usage records that wait, or wait for another reason than before."""

    TYPE = "pricing.usage.parked.v1"
    usage: tuple[ParkedUsage, ...]

    @property
    def weight(self) -> int:
        return len(self.usage)


@register
class BudgetThresholdReached(Message):
    """A budget's spend reached one of its thresholds: said once per budget, period and threshold.

    `charged` is what had been charged then, of `amount`; `threshold_pct` is in percent of it. `project_id`
    None: the organisation's budget.
    """

    TYPE = "pricing.budget.threshold_reached.v1"
    budget_id: UUID
    org_id: UUID
    project_id: UUID | None
    period: str
    threshold_pct: int
    amount: Number
    charged: Number
    currency: str
    hard_cap: bool
    reached_at: datetime

    @property
    def subject(self) -> str:
        return str(self.budget_id)


@register
class PeriodClosed(EntityFact):
    """A billing period of an organisation whose counters stand at their closed targets; never changes.

    What comes later for it makes adjusting charges. `charges` counts the charges that the close made.
    """

    TYPE = "pricing.period.closed.v1"
    ENTITY = "billing_period"
    org_id: UUID
    period: str
    starts_at: datetime
    ends_at: datetime
    closed_at: datetime
    charges: int

    @property
    def entity_id(self) -> str:
        return f"{self.org_id}/{self.period}"
