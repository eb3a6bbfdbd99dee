"""Rating: usage records and one-off charges become charges of their counters.

Rule: docs/rules/pricing.md, The one formula; One-off charges.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from decimal import Decimal
from typing import NamedTuple
from uuid import UUID

from eb_contracts.metering import UsageRecord
from eb_rating import charge, charge_closed
from eb_rating.prices import Priced

from .adjusting import adjust
from .counters import Counter, CounterKey, Rated, charge_for
from .guardrails import Guard, Guards
from .waiting import Waiting


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
