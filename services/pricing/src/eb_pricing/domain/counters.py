"""Counters, and the charges that move them: usage, and what is due when terms change.

Rule: docs/rules/pricing.md, The one formula; Tax.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any, NamedTuple
from uuid import UUID

from eb_contracts.ids import new_id
from eb_contracts.metering import UsageRecord
from eb_contracts.pricing import Charge, CounterState
from eb_rating import Counter as Sums
from eb_rating import charge, charge_closed, tax_target
from eb_rating.base_fees import Proration
from eb_rating.prices import Priced, Tax

from .guardrails import NO_GUARD, Due, Guard, Guards, Settled, settle
from .waiting import Waiting

ZERO = Decimal(0)
BOUND = Decimal(10) ** 18
"""Quantities and amounts stay below this, on either side of zero."""
A_MINUTE = timedelta(minutes=1)
TERMS_CHANGED = "terms_changed"
CURRENCY_CHANGED = "currency_changed"
PERIOD_CLOSED = "period_closed"


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
NO_TAX_RATE = Tax(None, None)
NOTHING = Sums()


class Counter(NamedTuple):
    """An org's use of a SKU in a period, what was due for it, and by which terms last.

    `sums.charged` is what was due for usage before caps, so that charges telescope; `base` is what was due for
    base fees; both together are the gross amounts and `waived`, the part that caps cut. `taxes` holds one sum
    per rate met, the last used first. Version 0: nothing was ever charged. Once its period is closed, it is
    charged by the closed target, and changed terms move it only on demand.
    """

    key: CounterKey
    currency: str
    sums: Sums
    terms_hash: str | None
    retail_key: str | None
    version: int
    taxes: tuple[TaxSum, ...] = ()
    waived: Decimal = ZERO
    base: Decimal = ZERO
    is_closed: bool = False

    def is_rated_by(self, priced: Priced) -> bool:
        """Tell whether what was charged so far follows these terms, or has to stay, or nothing was charged yet."""
        return self.terms_hash == priced.terms_hash or self.version == 0 or self.is_closed

    def is_bounded(self) -> bool:
        """Tell whether quantity and amount are what the tables, here and in the ledger, can hold."""
        return abs(self.sums.quantity) < BOUND and self.sums.charged + self.base < BOUND


class Basis(NamedTuple):
    """What a charge stands on besides usage: a closed period; base fees due, summed up, and their proration."""

    is_closed: bool = False
    base_due: Decimal = ZERO
    base: Decimal = ZERO
    proration: Proration | None = None


USAGE_ALONE = Basis()


class Rated(NamedTuple):
    """A charge as it goes out, the tax sum after it, and what guards did to it where there were any."""

    charge: Charge
    tax: TaxSum
    settled: Settled | None = None
    basis: Basis = USAGE_ALONE


class Cause(NamedTuple):
    """Why a counter is brought to its terms, and by whom."""

    reason: str
    actor: str = "system:pricing"


BY_TERMS = Cause(TERMS_CHANGED)
BY_CLOSE = Cause(PERIOD_CLOSED)


class Priceable(NamedTuple):
    """Usage records of one counter, in the order they came, and what prices them."""

    key: CounterKey
    priced: Priced
    records: list[UsageRecord]


def rate_all(
    counters: dict[CounterKey, Counter], usage: Iterable[Priceable], minute: datetime, guards: Guards
) -> tuple[list[Rated], list[Waiting]]:
    """Charge record by record, moving `counters` and `guards`; give the charges, and what would pass the bounds.

    Where terms changed since a counter was last charged, the adjusting charge comes first.
    """
    rated: list[Rated] = []
    refused: list[Waiting] = []
    for key, priced, records in usage:
        counter, guard = counters[key], guards.get(key.org_id)
        for record in records:
            before = counter, guard, len(rated)
            if not counter.is_rated_by(priced):
                counter, guard, adjusting = adjust(counter, priced, minute, guard)
                rated += adjusting
            counter, guard, charged = rate_usage(counter, record, priced, guard)
            rated.append(charged)
            if not counter.is_bounded():
                counter, guard, count = before
                del rated[count:]
                refused.append(Waiting(record, is_out_of_bounds=True))
        counters[key] = counter
        if guard is not None:
            guards[key.org_id] = guard
    return rated, refused


def rate_usage(
    counter: Counter, usage: UsageRecord, priced: Priced, guard: Guard | None = None
) -> tuple[Counter, Guard | None, Rated]:
    """Count a usage record and charge for it; its charge has the record's id.

    The counter must be rated by `priced` already. A void's record is negative, and so is its charge.
    """
    rate = charge_closed if counter.is_closed else charge
    sums, due = rate(counter.sums, usage.quantity, usage.events, priced.terms)
    return charge_for(
        counter,
        sums,
        due,
        priced,
        guard,
        charge_id=str(usage.usage_id),
        project_id=usage.project_id,
        time=usage.minute,
        kind="usage",
        quantity=usage.quantity,
        event_count=usage.events,
        trace_ids=usage.trace_ids,
    )


class OneOff(NamedTuple):
    """A use that is charged on demand: the client names it, and it counts as one event at `time`."""

    charge_id: str
    org_id: UUID
    project_id: UUID | None
    sku: str
    quantity: Decimal
    time: datetime


def rate_one_off(
    counter: Counter,
    one_off: OneOff,
    priced: Priced,
    actor: str,
    minute: datetime,
    guard: Guard | None = None,
) -> tuple[Counter, Guard | None, list[Rated]]:
    """Count a one-off charge as an event of its time would be; where terms changed an adjusting charge comes first."""
    adjusting: list[Rated] = []
    if not counter.is_rated_by(priced):
        counter, guard, adjusting = adjust(counter, priced, minute, guard)
    rate = charge_closed if counter.is_closed else charge
    sums, due = rate(counter.sums, one_off.quantity, 1, priced.terms)
    counter, guard, rated = charge_for(
        counter,
        sums,
        due,
        priced,
        guard,
        charge_id=one_off.charge_id,
        project_id=one_off.project_id,
        time=one_off.time,
        kind="one_off",
        quantity=one_off.quantity,
        event_count=1,
        actor=actor,
    )
    return counter, guard, [*adjusting, rated]


def charge_for(
    counter: Counter,
    sums: Sums,
    due: Decimal,
    priced: Priced,
    guard: Guard | None,
    *,
    time: datetime,
    project_id: UUID | None = None,
    tax_correction: Decimal = ZERO,
    base_due: Decimal = ZERO,
    proration: Proration | None = None,
    **about: Any,
) -> tuple[Counter, Guard | None, Rated]:
    """Make a charge of what is due when a counter moves to `sums`: the one way for charges of every kind.

    Caps cut, what is left is gross and taxed by the rate in force at `time`; credit comes after
    (`credits.pay_all`). `about` are the other members of the charge. `tax_correction` is tax due
    besides. `base_due` is the part of what is due that base fees make.
    """
    settled = None
    if guard is not None or counter.waived:
        guard, settled = _settle(counter, due, project_id, priced, guard)
    gross, waived = settled[:2] if settled else (due, ZERO)
    tax_code, taxes, tax_due = _tax_of(counter.taxes, gross, time, priced)
    after = _moved(counter, sums, priced, taxes, waived, base_due)
    made = _made(
        after,
        project_id=project_id,
        time=time,
        amount_gross=gross,
        waived_amount=waived,
        credit_applied=ZERO,
        tax_amount=tax_due + tax_correction if tax_correction else tax_due,
        tax_code=tax_code,
        **about,
    )
    basis = _basis(after, base_due, proration)
    return after, guard, Rated(made, taxes[0] if taxes else NO_TAX, settled, basis)


def _made(after: Counter, **about: Any) -> Charge:
    """Put the members together that a charge has from the counter after it."""
    org_id, sku, period = after.key
    return Charge.trusted(
        org_id=org_id,
        sku=sku,
        period=period,
        currency=after.currency,
        terms_hash=after.terms_hash,
        counter=_state(after),
        **about,
    )


def _settle(
    counter: Counter,
    due: Decimal,
    project_id: UUID | None,
    priced: Priced,
    guard: Guard | None,
) -> tuple[Guard | None, Settled]:
    terms, charged = priced.terms, counter.sums.charged + counter.base - counter.waived
    meets = Due(due, project_id, priced.period, terms.currency, terms.sku_type, charged, counter.waived)
    moved, settled = settle(guard or NO_GUARD, meets)
    return guard and moved, settled


def _basis(after: Counter, base_due: Decimal, proration: Proration | None) -> Basis:
    if after.is_closed or after.base or base_due:
        return Basis(after.is_closed, base_due, after.base, proration)
    return USAGE_ALONE


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
        moved = _moved(counter, sums, priced, counter.taxes, ZERO, ZERO)
        return moved._replace(version=counter.version), guard, taken_back
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
    taxes = _sorted_out(charged_at, priced)
    return counter._replace(taxes=taxes), _taxed(taxes) - _taxed(counter.taxes)


def _due_by(counter: Counter, priced: Priced) -> tuple[Sums, Decimal]:
    """Give the sums by these terms, and what is due: nothing before the first use while the period is open."""
    if counter.is_closed:
        return charge_closed(counter.sums, ZERO, 0, priced.terms)
    if counter.sums == NOTHING:
        return counter.sums, ZERO
    return charge(counter.sums, ZERO, 0, priced.terms)


def _taxed(taxes: Iterable[TaxSum]) -> Decimal:
    return sum((tax.taxed for tax in taxes), ZERO)


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
        tax_correction=-_taxed(counter.taxes),
        base_due=-counter.base,
        **_about_adjustment(priced, minute, Cause(CURRENCY_CHANGED)),
    )
    return emptied._replace(retail_key=counter.retail_key), guard, back


def _moved(
    counter: Counter,
    sums: Sums,
    priced: Priced,
    taxes: tuple[TaxSum, ...],
    waived: Decimal,
    base_due: Decimal,
) -> Counter:
    return Counter(
        counter.key,
        priced.terms.currency,
        sums,
        priced.terms_hash,
        priced.retail_key,
        counter.version + 1,
        taxes,
        counter.waived + waived if waived else counter.waived,
        counter.base + base_due if base_due else counter.base,
        counter.is_closed,
    )


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


def _state(counter: Counter) -> CounterState:
    sums = counter.sums
    charged = sums.charged + counter.base if counter.base else sums.charged
    return CounterState.trusted(
        quantity=sums.quantity, events=sums.events, charged=charged, version=counter.version
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
