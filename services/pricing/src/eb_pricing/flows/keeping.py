"""Keeping charges: what guards them is locked, and they, what guards did and what they announce are written.

Every charge, of whatever kind, is kept by `write`. Locks: the counters first, then budgets by key, then uses of
credits by key. Rule: docs/rules/pricing.md, Guardrails.
"""

from __future__ import annotations

from collections import Counter as Total
from collections.abc import Collection, Iterable, Iterator, Sequence
from datetime import datetime
from typing import NamedTuple

import prometheus_client

from eb_contracts.ids import partition_of
from eb_contracts.pricing import BudgetThresholdReached, Charge, ChargePriced
from eb_kit.tx import Tx
from eb_rating.credits import Grant

from .. import store
from ..domain.counters import Counter, CounterKey, Rated
from ..domain.credits import giving_back, pay_all
from ..domain.guardrails import BudgetSpend, Guards

MOST_IN_MESSAGE = 1000
CHARGES = prometheus_client.Counter("eb_pricing_charges_total", "Charges made, by kind.", ["kind"])
CUT = prometheus_client.Counter("eb_pricing_cut_charges_total", "Charges that a hard cap cut.")
CREDITED = prometheus_client.Counter(
    "eb_pricing_credited_charges_total", "Charges that credit paid a part of, or gave back to."
)
REACHED = prometheus_client.Counter(
    "eb_pricing_thresholds_total", "Thresholds of budgets that were announced."
)


class Watch(NamedTuple):
    """What guards organisations, as it was when it was locked and as charges have moved it."""

    before: Guards
    now: Guards


async def lock_guards(tx: Tx, keys: Collection[CounterKey]) -> Watch:
    """Lock the budgets and credits that charges to these counters meet; the counters must be locked.

    One statement where nothing guards any of the organisations.
    """
    org_ids = await store.list_guarded(tx, {key.org_id for key in keys})
    if not org_ids:
        return Watch({}, {})
    guarded = set(org_ids)
    periods = {(key.org_id, key.period) for key in keys if key.org_id in guarded}
    before = await store.lock_guards(tx, org_ids, periods)
    return Watch(before, dict(before))


async def write(tx: Tx, counters: Sequence[Counter], rated: Sequence[Rated], watch: Watch) -> None:
    """Have credit pay the charges; keep them, their counters and what guards did to them, and send them on."""
    rated = await _paid(tx, rated, watch)
    if counters:
        await store.update_counters(tx, counters)
    if rated:
        await store.insert_charges(tx, rated)
        tx.publish(*_messages([one.charge for one in rated]))
    if any(one.settled for one in rated):
        await _write_guarded(tx, counters, rated, watch)
    for kind, count in Total(one.charge.kind for one in rated).items():
        CHARGES.labels(kind).inc(count)


async def _paid(tx: Tx, rated: Sequence[Rated], watch: Watch) -> Sequence[Rated]:
    """Have credit pay charges; one statement more where some may have to give it back."""
    if not any(guard.grants for guard in watch.now.values()):
        return rated
    counters, periods = giving_back(rated, watch.now)
    drawn = await store.list_drawn(tx, counters, periods) if counters else {}
    return pay_all(rated, watch.now, drawn, tx.minute)


async def _write_guarded(tx: Tx, counters: Sequence[Counter], rated: Sequence[Rated], watch: Watch) -> None:
    """Keep what guards did; only what moved is written."""
    cut = {CounterKey(c.org_id, c.sku, c.period) for c in (one.charge for one in rated) if c.waived_amount}
    if cut:
        await store.update_waived(tx, {one.key: one.waived for one in counters if one.key in cut})
    await store.insert_cuts(tx, rated)
    spends, grants = _moved(watch)
    if spends:
        await keep_spends(tx, spends)
    if grants:
        await store.update_uses(tx, grants)
    await store.insert_draws(tx, rated)
    CUT.inc(sum(bool(one.charge.waived_amount) for one in rated))
    CREDITED.inc(sum(bool(one.charge.credit_applied) for one in rated))


def _moved(watch: Watch) -> tuple[list[BudgetSpend], list[Grant]]:
    """Give the budgets and grants that aren't what they were."""
    spends: list[BudgetSpend] = []
    grants: list[Grant] = []
    for org_id, now in watch.now.items():
        before = watch.before.get(org_id, now)
        spends += [new for new, old in zip(now.budgets, before.budgets, strict=True) if new != old]
        grants += [new for new, old in zip(now.grants, before.grants, strict=True) if new != old]
    return spends, grants


async def keep_spends(tx: Tx, spends: Sequence[BudgetSpend]) -> None:
    """Write what was spent of budgets, and announce each threshold that is reached for the first time."""
    await store.update_spends(tx, spends)
    reached = [(spend, pct) for spend in spends for pct in spend.newly_reached()]
    tx.publish(*(_reached(spend, pct, tx.now) for spend, pct in reached))
    REACHED.inc(len(reached))


def _reached(spend: BudgetSpend, pct: int, now: datetime) -> BudgetThresholdReached:
    return BudgetThresholdReached(
        budget_id=spend.budget_id,
        org_id=spend.org_id,
        project_id=spend.project_id,
        period=spend.period,
        threshold_pct=pct,
        amount=spend.amount,
        charged=spend.charged,
        currency=spend.currency,
        hard_cap=spend.hard_cap,
        reached_at=now,
    )


def _messages(charges: Iterable[Charge]) -> Iterator[ChargePriced]:
    """Give one message per partition, or a few where it would grow too large."""
    by_partition: dict[int, list[Charge]] = {}
    for charge in charges:
        by_partition.setdefault(partition_of(charge.org_id), []).append(charge)
    for partition, together in sorted(by_partition.items()):
        for start in range(0, len(together), MOST_IN_MESSAGE):
            some = tuple(together[start : start + MOST_IN_MESSAGE])
            yield ChargePriced.trusted(partition=partition, charges=some)
