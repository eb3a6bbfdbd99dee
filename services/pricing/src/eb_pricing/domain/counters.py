"""Counters, and the charges that move them: usage, and what is due when terms change.

Rule: docs/rules/pricing.md, The one formula; Tax.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta
from decimal import Decimal
from typing import NamedTuple
from uuid import UUID

from eb_contracts.ids import new_id
from eb_contracts.metering import UsageRecord
from eb_contracts.pricing import Charge, CounterState
from eb_rating import Counter as Sums
from eb_rating import charge, tax_target
from eb_rating.prices import Priced

from .waiting import Waiting

ZERO = Decimal(0)
BOUND = Decimal(10) ** 18
"""Quantities and amounts stay below this, on either side of zero."""
A_MINUTE = timedelta(minutes=1)
TERMS_CHANGED = "terms_changed"
CURRENCY_CHANGED = "currency_changed"


class CounterKey(NamedTuple):
    """What a counter counts; the order of locks."""

    org_id: UUID
    sku: str
    period: str


class TaxSum(NamedTuple):
    """Tax at one rate: the gross amounts charged at it, and the tax on them, so far."""

    rate: Decimal | None
    gross: Decimal = ZERO
    taxed: Decimal = ZERO


NO_TAX = TaxSum(None)


class Counter(NamedTuple):
    """An org's use of a SKU in a period, what it was charged, and by which terms last.

    `taxes` holds one sum per rate met, the last used first. Version 0: nothing was ever charged.
    """

    key: CounterKey
    currency: str
    sums: Sums
    terms_hash: str | None
    retail_key: str | None
    version: int
    taxes: tuple[TaxSum, ...] = ()

    def is_rated_by(self, priced: Priced) -> bool:
        """Tell whether what was charged so far follows these terms, or nothing was charged yet."""
        return self.version == 0 or self.terms_hash == priced.terms_hash

    def is_bounded(self) -> bool:
        """Tell whether quantity and amount are what the tables, here and in the ledger, can hold."""
        return abs(self.sums.quantity) < BOUND and self.sums.charged < BOUND


class Rated(NamedTuple):
    """A charge as it goes out, and the tax sum after it."""

    charge: Charge
    tax: TaxSum


class Priceable(NamedTuple):
    """Usage records of one counter, in the order they came, and what prices them."""

    key: CounterKey
    priced: Priced
    records: list[UsageRecord]


def rate_all(
    counters: dict[CounterKey, Counter], usage: Iterable[Priceable], minute: datetime
) -> tuple[list[Rated], list[Waiting]]:
    """Charge record by record, moving `counters`; give the charges, and what would pass the bounds.

    Where terms changed since a counter was last charged, the adjusting charge comes first.
    """
    rated: list[Rated] = []
    refused: list[Waiting] = []
    for key, priced, records in usage:
        counter = counters[key]
        for record in records:
            adjusting: list[Rated] = []
            moved = counter
            if not counter.is_rated_by(priced):
                moved, adjusting = adjust(counter, priced, minute)
            moved, charged = rate_usage(moved, record, priced)
            if moved.is_bounded():
                counter = moved
                rated += [*adjusting, charged]
            else:
                refused.append(Waiting(record, is_out_of_bounds=True))
        counters[key] = counter
    return rated, refused


def rate_usage(counter: Counter, usage: UsageRecord, priced: Priced) -> tuple[Counter, Rated]:
    """Count a usage record and charge for it; its charge has the record's id.

    The counter must be rated by `priced` already. A void's record is negative, and so is its charge.
    """
    sums, due = charge(counter.sums, usage.quantity, usage.events, priced.terms)
    tax_code, taxes, tax_due = _tax_of(counter.taxes, due, usage.minute, priced)
    after = _moved(counter, sums, priced, taxes)
    rated = Charge.trusted(
        charge_id=str(usage.usage_id),
        org_id=usage.org_id,
        project_id=usage.project_id,
        sku=usage.sku,
        period=priced.period,
        time=usage.minute,
        kind="usage",
        quantity=usage.quantity,
        event_count=usage.events,
        currency=after.currency,
        amount_gross=due,
        waived_amount=ZERO,
        credit_applied=ZERO,
        tax_amount=tax_due,
        tax_code=tax_code,
        terms_hash=priced.terms_hash,
        counter=_state(after),
        trace_ids=usage.trace_ids,
    )
    return after, Rated(rated, taxes[0] if taxes else NO_TAX)


def adjust(
    counter: Counter,
    priced: Priced,
    minute: datetime,
    charged_at: Iterable[tuple[datetime, Decimal]] | None = None,
) -> tuple[Counter, list[Rated]]:
    """Bring a counter to other terms: at most one adjusting charge, none where no amount changes.

    With `charged_at` (the gross amounts so far by their time) tax is sorted out anew as well. In another
    currency what was charged is taken back in the old one first, by a charge of its own.
    """
    taken_back: list[Rated] = []
    if counter.version and counter.currency != priced.terms.currency:
        counter, withdrawal = _withdraw(counter, priced, minute)
        taken_back, charged_at = [withdrawal], None
    taxed_before = sum((tax.taxed for tax in counter.taxes), ZERO)
    taxes = counter.taxes if charged_at is None else _sorted_out(charged_at, priced)
    sums, due = charge(counter.sums, ZERO, 0, priced.terms)
    time = adjustment_time(priced, minute)
    tax_code, taxes, _ = _tax_of(taxes, due, time, priced)
    tax_due = sum((tax.taxed for tax in taxes), ZERO) - taxed_before
    if not due and not tax_due:
        return _moved(counter, sums, priced, taxes)._replace(version=counter.version), taken_back
    after = _moved(counter, sums, priced, taxes)
    rated = _adjustment(after, time, due, tax_due, tax_code, TERMS_CHANGED)
    return after, [*taken_back, Rated(rated, taxes[0] if taxes else NO_TAX)]


def _withdraw(counter: Counter, priced: Priced, minute: datetime) -> tuple[Counter, Rated]:
    """Take back all that was charged in a currency that no longer is the terms'."""
    taxed = sum((tax.taxed for tax in counter.taxes), ZERO)
    emptied = counter._replace(
        sums=counter.sums._replace(charged=ZERO), taxes=(), version=counter.version + 1
    )
    time = adjustment_time(priced, minute)
    back = _adjustment(emptied, time, -counter.sums.charged, -taxed, None, CURRENCY_CHANGED)
    return emptied, Rated(back, NO_TAX)


def _moved(counter: Counter, sums: Sums, priced: Priced, taxes: tuple[TaxSum, ...]) -> Counter:
    return Counter(
        counter.key,
        priced.terms.currency,
        sums,
        priced.terms_hash,
        priced.retail_key,
        counter.version + 1,
        taxes,
    )


def _adjustment(
    after: Counter, time: datetime, due: Decimal, tax_due: Decimal, tax_code: str | None, reason: str
) -> Charge:
    return Charge.trusted(
        charge_id=str(new_id()),
        org_id=after.key.org_id,
        project_id=None,
        sku=after.key.sku,
        period=after.key.period,
        time=time,
        kind="adjustment",
        quantity=ZERO,
        event_count=0,
        currency=after.currency,
        amount_gross=due,
        waived_amount=ZERO,
        credit_applied=ZERO,
        tax_amount=tax_due,
        tax_code=tax_code,
        terms_hash=after.terms_hash or "",
        reason=reason,
        actor="system:pricing",
        counter=_state(after),
    )


def _state(counter: Counter) -> CounterState:
    sums = counter.sums
    return CounterState.trusted(
        quantity=sums.quantity, events=sums.events, charged=sums.charged, version=counter.version
    )


def adjustment_time(priced: Priced, minute: datetime) -> datetime:
    """Give the time of an adjusting charge: now, or the period's end that is nearer, so it stays inside."""
    start = priced.start()
    if minute < start:
        return start
    return min(minute, priced.end() - A_MINUTE)


def _tax_of(
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


def _sorted_out(charged_at: Iterable[tuple[datetime, Decimal]], priced: Priced) -> tuple[TaxSum, ...]:
    """Give the tax sums as they are when each amount is taxed by the rate in force at its time."""
    taxes: tuple[TaxSum, ...] = ()
    for time, gross in charged_at:
        _, taxes, _ = _tax_of(taxes, gross, time, priced)
    return taxes


def needs_new_taxes(counter: Counter, priced: Priced) -> bool:
    """Tell whether charges may have been taxed otherwise than by the rates now in force at their times."""
    rates = {tax.rate for _, tax in priced.taxes}
    met = {tax.rate for tax in counter.taxes} or {None}
    return len(rates | met) > 1
