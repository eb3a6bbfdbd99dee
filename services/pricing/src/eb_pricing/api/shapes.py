"""What pricing's doors take and answer."""

from __future__ import annotations

from dataclasses import asdict
from datetime import datetime
from decimal import Decimal
from typing import Annotated, Any, Literal
from urllib.parse import quote
from uuid import UUID

from pydantic import StringConstraints

from eb_contracts.money import money_text
from eb_contracts.pricing import ChargeKind, CounterState
from eb_kit.inputs import Money, Page, Quantity, Text, View
from eb_rating import Breakdown
from eb_rating.credits import Draw

from ..domain.charges import ChargeStatus, KeptCharge, NotDue, TaxSums, UsageSum, exception_of
from ..domain.guardrails import Cut

Period = Annotated[str, StringConstraints(pattern=r"^[0-9]{4}-(0[1-9]|1[0-2])$")]
Name = Annotated[str, Text(1, 128)]


class ChargeQuery(Page):
    """Which charges; `created_from` is inclusive, `created_to` is not.

    `status` is `open` for those made while their period was open, `closed` for those of its close and after.
    """

    org_id: UUID | None = None
    sku: Name | None = None
    project_id: UUID | None = None
    period: Period | None = None
    kind: ChargeKind | None = None
    status: ChargeStatus | None = None
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
    status: ChargeStatus
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
    """The sum for use: the rows of the tiers add up to `price`, which is cut by `limit` and rounded to `target`.

    `target` less what was due before is `amount_due`: what is charged, or waived. The minimum is a limit once the
    period is closed. Where `not_due` says that all was `withdrawn` (the currency changed) or that the SKU was
    `not_used_yet`, 0 stands in the target's place.
    """

    mode: str
    included: Quantity
    billable: Quantity
    tiers: list[TierView]
    price: Quantity
    limit: Literal["minimum", "maximum"] | None
    rounding: Literal["half_up", "half_even"]
    minor_digits: int
    is_closed: bool
    not_due: NotDue | None
    target: Money
    charged_before: Money
    amount_due: Money

    @classmethod
    def of(cls, told: Breakdown, charge: KeptCharge, minor_digits: int) -> ArithmeticView:
        """Show a breakdown."""
        due, not_due = charge.usage_due, exception_of(charge)
        return cls(
            mode=told.mode,
            included=told.included,
            billable=told.billable,
            tiers=[TierView(**asdict(line)) for line in told.tiers],
            price=told.price,
            limit=told.limit,
            rounding=told.rounding,
            minor_digits=minor_digits,
            is_closed=charge.is_closed,
            not_due=not_due,
            target=money_text(Decimal(0) if not_due else told.amount, charge.currency),
            charged_before=money_text(charge.usage_after - due, charge.currency),
            amount_due=money_text(due, charge.currency),
        )


class BaseFeesView(View):
    """Base fees of the counter: `after` less `before` is `due`.

    Of a charge of kind `base`: `price` × `days_left` / `days`, rounded, is what is due; negative where the fee ends.
    Otherwise `after` is what the fees of the period come to by the terms then in force.
    """

    price: Quantity | None
    days_left: int | None
    days: int | None
    before: Money
    due: Money
    after: Money
    charges_url: str

    @classmethod
    def of(cls, charge: KeptCharge, price: Decimal | None) -> BaseFeesView | None:
        """Show the base fees behind a charge; None where there are none."""
        if charge.kind != "base" and not charge.base_due and not charge.counter_base:
            return None
        before = charge.counter_base - charge.base_due
        query = f"org_id={charge.org_id}&sku={quote(charge.sku, safe='')}&period={charge.period}&kind=base"
        return cls(
            price=price,
            days_left=charge.days_left,
            days=charge.days,
            before=money_text(before, charge.currency),
            due=money_text(charge.base_due, charge.currency),
            after=money_text(charge.counter_base, charge.currency),
            charges_url=f"/pricing/charges?{query}",
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


class CapView(View):
    """What a budget's cap changed: min(`total`, max(`cap`, `granted_before`)) is `granted`.

    `due` came to the cap and made `total_before` `total`; `passed` is what is new of `granted`.
    """

    budget_id: UUID
    project_id: UUID | None
    cap: Money
    due: Money
    total_before: Money
    total: Money
    granted_before: Money
    granted: Money
    passed: Money

    @classmethod
    def of(cls, cut: Cut, currency: str) -> CapView:
        """Show what a cap did."""
        amounts = {name: getattr(cut, name) for name in ("cap", "due", "total", "granted_before", "granted")}
        amounts |= {"total_before": cut.total - cut.due, "passed": cut.granted - cut.granted_before}
        shown = {name: money_text(amount, currency) for name, amount in amounts.items()}
        return cls.model_validate({"budget_id": cut.budget_id, "project_id": cut.project_id} | shown)


class DrawView(View):
    """What a credit paid of the charge; negative where the charge gave back."""

    credit_id: UUID
    amount: Money

    @classmethod
    def of(cls, draw: Draw, currency: str) -> DrawView:
        """Show a draw."""
        return cls(credit_id=UUID(draw.name), amount=money_text(draw.amount, currency))


class ExplainView(View):
    """Everything behind a charge, for redoing it by hand.

    What is due is `arithmetic.amount_due` and `base_fees.due` together: `amount_gross` and `waived_amount`. A charge of
    kind `base` counts no use and has no arithmetic. `caps` are those that changed the amount, in their order: what
    passed the last is `amount_gross`. Without any, a negative `waived_amount` takes back what one waived earlier.
    `credits` sum to `credit_applied`.
    """

    charge: ChargeView
    usage: UsageLink | None
    terms: TermsView
    arithmetic: ArithmeticView | None
    base_fees: BaseFeesView | None
    caps: list[CapView]
    tax: TaxView
    credits: list[DrawView]
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
