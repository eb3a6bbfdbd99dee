"""Base fees as charges: each made once, by its natural key, on the counter of its SKU and period.

Rule: docs/rules/pricing.md, Base fees.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from datetime import datetime
from decimal import Decimal
from typing import NamedTuple
from uuid import UUID, uuid5

from eb_rating import BaseFee
from eb_rating.prices import Priced

from .adjusting import BY_TERMS, Cause, adjust
from .counters import Counter, Rated, charge_for
from .guardrails import Guard

ZERO = Decimal(0)


def fee_id(org_id: UUID, fee: BaseFee) -> str:
    """Give the id of a fee's charge: the same for the same SKU, period, instant and edge, for ever."""
    return str(uuid5(org_id, f"base-fee/{fee.sku}/{fee.period}/{fee.at:%Y-%m-%dT%H:%MZ}/{fee.edge}"))


def total_of(fees: Iterable[BaseFee], currency: str) -> Decimal:
    """Give what the base fees of a counter should come to."""
    return sum((fee.amount for fee in fees if fee.terms.currency == currency), ZERO)


class Target(NamedTuple):
    """What a counter is to be brought to: what prices it for the whole period, and its base fees that began."""

    priced: Priced
    fees: tuple[BaseFee, ...] = ()


Amounts = Iterable[tuple[datetime, Decimal]]
"""Gross amounts by the time of their charges."""


def bring(
    counter: Counter,
    target: Target,
    made: Collection[str],
    minute: datetime,
    guard: Guard | None = None,
    charged_at: Amounts | None = None,
    cause: Cause = BY_TERMS,
) -> tuple[Counter, Guard | None, list[Rated]]:
    """Bring a counter to its terms and base fees: a charge per new fee, then at most one adjusting charge.

    Where the currency changed, what was charged in the old one is taken back first. `charged_at` as in `adjust`.
    """
    priced = target.priced
    rated: list[Rated] = []
    if counter.version and counter.currency != priced.terms.currency:
        counter, guard, rated = adjust(counter, priced, minute, guard, cause=cause)
        charged_at = None
    counter, guard, fees = charge_fees(counter, target.fees, made, priced, guard)
    if charged_at is not None:
        charged_at = [*charged_at, *((one.charge.time, one.charge.amount_gross) for one in fees)]
    base = total_of(target.fees, priced.terms.currency)
    counter, guard, adjusting = adjust(counter, priced, minute, guard, charged_at, cause=cause, base=base)
    return counter, guard, [*rated, *fees, *adjusting]


def charge_fees(
    counter: Counter,
    fees: Iterable[BaseFee],
    made: Collection[str],
    priced: Priced,
    guard: Guard | None = None,
) -> tuple[Counter, Guard | None, list[Rated]]:
    """Charge the fees that have no charge yet; `made` are the ids of those that have.

    Each is rated by its own terms and taxed at its own time; what use is rated by stays. `priced` is what
    prices the SKU in the period.
    """
    rated: list[Rated] = []
    for fee in fees:
        is_made = fee_id(counter.key.org_id, fee) in made
        if not is_made and fee.terms.currency == priced.terms.currency:
            counter, guard, one = _charge_fee(counter, fee, priced, guard)
            rated.append(one)
    return counter, guard, rated


def _charge_fee(
    counter: Counter, fee: BaseFee, priced: Priced, guard: Guard | None
) -> tuple[Counter, Guard | None, Rated]:
    after, guard, rated = charge_for(
        counter,
        counter.sums,
        fee.amount,
        priced._replace(terms_hash=fee.terms_hash, terms=fee.terms),
        guard,
        charge_id=fee_id(counter.key.org_id, fee),
        time=fee.at,
        kind="base",
        quantity=Decimal(fee.quantity),
        event_count=0,
        base_due=fee.amount,
        proration=fee.proration,
        actor="system:pricing",
    )
    stays = counter if counter.version else priced
    return after._replace(terms_hash=stays.terms_hash, retail_key=stays.retail_key), guard, rated
