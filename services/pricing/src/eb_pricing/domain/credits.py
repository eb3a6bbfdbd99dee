"""Credit and charges: which charges of a take credit pays for, and which give it back.

Rule: docs/rules/pricing.md, Guardrails.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from uuid import UUID

from eb_rating.credits import Drawer, Due, Purse, pay

from .counters import CounterKey, Rated
from .guardrails import NO_GUARD, Guards

ZERO = Decimal(0)
Drawn = Mapping[UUID, Mapping[Drawer, Decimal]]
"""What the counters of organisations drew so far, from each grant."""


def giving_back(rated: Iterable[Rated], guards: Guards) -> tuple[set[CounterKey], set[tuple[UUID, str]]]:
    """Give the counters that charges may give credit back for, and the periods in which others may have to."""
    counters: set[CounterKey] = set()
    periods: set[tuple[UUID, str]] = set()
    for charge, settled in ((one.charge, one.settled) for one in rated):
        if settled and settled.gross < ZERO and guards.get(charge.org_id, NO_GUARD).grants:
            counters.add(CounterKey(charge.org_id, charge.sku, charge.period))
            if settled.borrowed:
                periods.add((charge.org_id, charge.period))
    return counters, periods


def pay_all(rated: Sequence[Rated], guards: Guards, drawn: Drawn, minute: datetime) -> list[Rated]:
    """Have credit pay charges, or be given back, in their order; moves `guards` and gives the charges after.

    Expiry is judged at `minute`. `drawn` tells of all counters that `giving_back` names.
    """
    purses: dict[UUID, Purse] = {}
    paid: list[Rated] = []
    for one in rated:
        org_id = one.charge.org_id
        grants = guards.get(org_id, NO_GUARD).grants
        if not grants or one.settled is None or not one.settled.gross:
            paid.append(one)
            continue
        purse, after = _paid(purses.get(org_id) or Purse(grants, drawn.get(org_id, {})), one, minute)
        purses[org_id] = purse
        paid.append(after)
    for org_id, purse in purses.items():
        guards[org_id] = guards[org_id]._replace(grants=purse.grants)
    return paid


def _paid(purse: Purse, rated: Rated, minute: datetime) -> tuple[Purse, Rated]:
    charge, settled = rated.charge, rated.settled
    assert settled is not None
    due = Due(charge.period, charge.sku, settled.sku_type, charge.currency, settled.gross, settled.borrowed)
    purse, draws = pay(purse, due, minute)
    if not draws:
        return purse, rated
    credit = sum((draw.amount for draw in draws), ZERO)
    return purse, rated._replace(
        charge=charge.replaced(credit_applied=credit), settled=settled._replace(draws=draws)
    )
