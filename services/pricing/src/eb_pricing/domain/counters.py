"""Counters, and the one way in which a charge moves them.

Rule: docs/rules/pricing.md, The one formula; Guardrails.
"""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from typing import Any, NamedTuple
from uuid import UUID

from eb_contracts.pricing import Charge, CounterState
from eb_rating import Counter as Sums
from eb_rating.base_fees import Proration
from eb_rating.prices import Priced

from .guardrails import NO_GUARD, Due, Guard, Settled, settle
from .taxes import NO_TAX, TaxSum, tax_of

ZERO = Decimal(0)
BOUND = Decimal(10) ** 18
"""Quantities and amounts stay below this, on either side of zero."""


class CounterKey(NamedTuple):
    """What a counter counts; the order of locks."""

    org_id: UUID
    sku: str
    period: str


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
    tax_code, taxes, tax_due = tax_of(counter.taxes, gross, time, priced)
    after = moved(counter, sums, priced, taxes, waived, base_due)
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
    after, settled = settle(guard or NO_GUARD, meets)
    return guard and after, settled


def _basis(after: Counter, base_due: Decimal, proration: Proration | None) -> Basis:
    if after.is_closed or after.base or base_due:
        return Basis(after.is_closed, base_due, after.base, proration)
    return USAGE_ALONE


def moved(
    counter: Counter,
    sums: Sums,
    priced: Priced,
    taxes: tuple[TaxSum, ...],
    waived: Decimal,
    base_due: Decimal,
) -> Counter:
    """Give a counter after a charge: at these sums and terms, one version on."""
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


def _state(counter: Counter) -> CounterState:
    sums = counter.sums
    charged = sums.charged + counter.base if counter.base else sums.charged
    return CounterState.trusted(
        quantity=sums.quantity, events=sums.events, charged=charged, version=counter.version
    )
