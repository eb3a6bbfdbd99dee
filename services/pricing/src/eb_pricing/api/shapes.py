"""What pricing's doors take and answer."""

from __future__ import annotations

from dataclasses import asdict
from datetime import datetime
from decimal import Decimal
from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import StringConstraints

from eb_contracts.money import money_text
from eb_contracts.pricing import ChargeKind, CounterState
from eb_kit.inputs import Money, Page, Quantity, Text, View
from eb_rating import Breakdown

from ..domain.charges import KeptCharge, TaxSums, UsageSum

Period = Annotated[str, StringConstraints(pattern=r"^[0-9]{4}-(0[1-9]|1[0-2])$")]
Name = Annotated[str, Text(1, 128)]


class ChargeQuery(Page):
    """Which charges; `created_from` is inclusive, `created_to` is not."""

    org_id: UUID | None = None
    sku: Name | None = None
    project_id: UUID | None = None
    period: Period | None = None
    kind: ChargeKind | None = None
    charge_id: Name | None = None
    created_from: datetime | None = None
    created_to: datetime | None = None


class UsageQuery(Page):
    """Which counters."""

    org_id: UUID | None = None
    sku: Name | None = None
    period: Period | None = None


class CounterView(View):
    """A counter at one moment; `version` rises by one with each charge."""

    quantity: Quantity
    events: int
    charged: Money
    version: int

    @classmethod
    def of(cls, state: CounterState, currency: str) -> CounterView:
        """Show a counter."""
        return cls(
            quantity=state.quantity,
            events=state.events,
            charged=money_text(state.charged, currency),
            version=state.version,
        )


class CounterMove(View):
    """A counter before and after a charge."""

    before: CounterView
    after: CounterView


class ChargeView(View):
    """A charge: gross + tax − credit is what is to be paid."""

    charge_id: str
    org_id: UUID
    project_id: UUID | None
    sku: str
    period: str
    time: datetime
    kind: ChargeKind
    quantity: Quantity
    event_count: int
    currency: str
    amount_gross: Money
    waived_amount: Money
    credit_applied: Money
    tax_amount: Money
    tax_code: str | None
    terms_hash: str
    counter: CounterMove
    reason: str | None
    created_at: datetime

    @classmethod
    def of(cls, charge: KeptCharge) -> ChargeView:
        """Show a charge."""
        amounts = {name: money_text(getattr(charge, name), charge.currency) for name in CHARGE_MONEY}
        move = CounterMove(
            before=CounterView.of(charge.before, charge.currency),
            after=CounterView.of(charge.after, charge.currency),
        )
        plain = {name: getattr(charge, name) for name in CHARGE_PLAIN}
        return cls.model_validate(plain | amounts | {"counter": move})


CHARGE_MONEY = ("amount_gross", "waived_amount", "credit_applied", "tax_amount")
CHARGE_PLAIN = tuple(name for name in ChargeView.model_fields if name not in (*CHARGE_MONEY, "counter"))


class UsageView(View):
    """What an organisation used of a SKU in a period, and was charged for it."""

    org_id: UUID
    sku: str
    period: str
    quantity: Quantity
    events: int
    charged: Money
    waived: Money
    currency: str
    terms_hash: str

    @classmethod
    def of(cls, usage: UsageSum) -> UsageView:
        """Show a counter."""
        amounts = {name: money_text(getattr(usage, name), usage.currency) for name in ("charged", "waived")}
        return cls.model_validate(asdict(usage) | amounts)


class UsageLink(View):
    """The usage behind a charge, and where its events are listed."""

    usage_id: str
    quantity: Quantity
    events: int
    events_url: str


class TermsView(View):
    """The terms that a charge was rated by, as the catalog announced them."""

    terms_hash: str
    body: dict[str, Any]


class TierView(View):
    """One row of the sum: quantity × unit_price + flat_fee = amount, exact.

    For package the quantity counts packages; for percentages it is money and the unit price a rate.
    """

    tier: int
    above: Quantity
    up_to: Quantity | None
    quantity: Quantity
    unit_price: Quantity
    flat_fee: Quantity
    amount: Quantity


class ArithmeticView(View):
    """The sum: the rows of the tiers add up to `price`, which is cut by `limit` and rounded to `target`.

    `target` less what was charged before is `amount_due`: what is charged, or waived.
    """

    mode: str
    included: Quantity
    billable: Quantity
    tiers: list[TierView]
    price: Quantity
    limit: Literal["minimum", "maximum"] | None
    rounding: Literal["half_up", "half_even"]
    minor_digits: int
    target: Money
    charged_before: Money
    amount_due: Money

    @classmethod
    def of(cls, told: Breakdown, charge: KeptCharge, minor_digits: int) -> ArithmeticView:
        """Show a breakdown."""
        due = charge.amount_gross + charge.waived_amount
        return cls(
            mode=told.mode,
            included=told.included,
            billable=told.billable,
            tiers=[TierView(**asdict(line)) for line in told.tiers],
            price=told.price,
            limit=told.limit,
            rounding=told.rounding,
            minor_digits=minor_digits,
            target=money_text(told.amount, charge.currency),
            charged_before=money_text(charge.before.charged, charge.currency),
            amount_due=money_text(due, charge.currency),
        )


class TaxView(View):
    """The tax: `base × rate`, rounded, is `taxed`; what is new of it is `tax_amount`.

    `base` sums what this counter was charged at this rate, this charge included.
    """

    tax_code: str | None
    rate: Quantity | None
    base: Money
    taxed: Money
    tax_amount: Money

    @classmethod
    def of(cls, sums: TaxSums, charge: KeptCharge) -> TaxView:
        """Show how the tax comes about."""
        base, taxed, amount = (
            money_text(number, charge.currency) for number in (sums.base, sums.taxed, charge.tax_amount)
        )
        return cls(tax_code=charge.tax_code, rate=sums.rate, base=base, taxed=taxed, tax_amount=amount)


class ExplainView(View):
    """Everything behind a charge, for redoing it by hand."""

    charge: ChargeView
    usage: UsageLink | None
    terms: TermsView
    arithmetic: ArithmeticView
    tax: TaxView
    payable: Money
    trace_ids: list[str]


def usage_link(charge: KeptCharge) -> UsageLink | None:
    """Lead from a charge to its events; None for charges that no usage is behind."""
    if charge.kind != "usage":
        return None
    return UsageLink(
        usage_id=charge.charge_id,
        quantity=charge.quantity,
        events=charge.event_count,
        events_url=f"/metering/events?org_id={charge.org_id}&usage_id={charge.charge_id}",
    )


def payable(charge: KeptCharge) -> Decimal:
    """Give what is to be paid: gross and tax, less credit."""
    return charge.amount_gross + charge.tax_amount - charge.credit_applied
