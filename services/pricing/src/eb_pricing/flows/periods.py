"""Billing periods: opened, charged their base fees, closed, re-rated. Steps that clock doors and HTTP doors share.

Locks are taken in this order: the facts of prices, periods, counters by key. Rule: docs/rules/pricing.md,
The close of a period; Base fees.
"""

from __future__ import annotations

from collections import Counter as Total
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import timedelta
from decimal import Decimal
from typing import NamedTuple
from uuid import UUID

import structlog

from eb_contracts.ids import new_id
from eb_kit import idempotency
from eb_kit.tx import Tx
from eb_rating import BaseFee, target_closed
from eb_rating.prices import OrgPrices, Priced, Tax, TermsMissing
from eb_rating.resolve import month_after

from .. import store
from ..domain import errors
from ..domain.adjusting import BY_CLOSE, BY_TERMS, Cause, needs_new_taxes
from ..domain.base_fees import Target, bring, fee_id, total_of
from ..domain.counters import Counter, CounterKey, Rated
from ..domain.periods import (
    BillingPeriod,
    PeriodKey,
    Rerate,
    begun,
    bounds,
    must_be_over,
    opened_by,
    plan_skus,
    visit_after,
)
from . import keeping
from .prices import learn_terms, price_of, read_prices, terms_of
from .rating import lock_or_make

log = structlog.get_logger(__name__)

LATER = timedelta(minutes=5)
"""When what misses its terms is looked at again, if their arrival doesn't hurry it."""
ZERO = Decimal(0)
Fees = dict[PeriodKey, tuple[BaseFee, ...]]
Prices = Mapping[UUID, OrgPrices]


class Wanted(NamedTuple):
    """Counters to bring to their targets, and the periods in which something misses its terms."""

    targets: dict[CounterKey, Target]
    missing: set[PeriodKey]


async def visit(tx: Tx, due: Mapping[UUID, str | None]) -> None:
    """Open the periods of organisations that began, charge the base fees due, and note when the next begins.

    `due` has each one's first period that isn't opened. The facts must be locked, shared.
    """
    prices = await read_prices(tx, set(due))
    await store.delete_calendar(tx, due.keys() - prices.keys())
    opened = {org_id: opened_by(one.org_terms, due[org_id], tx.now) for org_id, one in prices.items()}
    await _open(tx, prices, opened)
    keys = await store.list_open_periods(tx, prices.keys())
    fees, missing = await _read_fees(tx, prices, keys)
    await _charge_fees(tx, prices, fees)
    visits = []
    for org_id, one in prices.items():
        following = month_after(opened[org_id][-1]) if opened[org_id] else due[org_id]
        coming = [fee for key, some in fees.items() if key.org_id == org_id for fee in some]
        after = visit_after(
            org_id, one.org_terms, following or one.org_terms.assigned[0].period, coming, tx.now
        )
        visits.append(after._replace(due_at=tx.now + LATER) if org_id in missing else after)
    await store.update_calendar(tx, visits)


async def _open(tx: Tx, prices: Prices, opened: Mapping[UUID, Sequence[str]]) -> None:
    """Keep the periods that began, with their bounds as they now are."""
    running = await store.list_open_periods(tx, prices.keys())
    keys = {PeriodKey(org_id, period) for org_id, some in opened.items() for period in some} | set(running)
    if keys:
        await store.put_periods(
            tx, [bounds(key.org_id, prices[key.org_id].org_terms, key.period) for key in sorted(keys)]
        )


async def _read_fees(tx: Tx, prices: Prices, keys: Iterable[PeriodKey]) -> tuple[Fees, set[UUID]]:
    """Give all base fees of periods, and the organisations whose terms aren't all here; these are noted."""
    fees: Fees = {}
    awaited: set[tuple[str, UUID]] = set()
    for key in keys:
        found = prices[key.org_id].base_fees(key.period)
        if isinstance(found, TermsMissing):
            await learn_terms(tx, found.hashes)
            found = prices[key.org_id].base_fees(key.period)
        if isinstance(found, TermsMissing):
            awaited |= {(terms_hash, key.org_id) for terms_hash in found.hashes}
        else:
            fees[key] = found
    if awaited:
        await store.insert_awaited_once(tx, awaited)
    return fees, {org_id for _, org_id in awaited}


async def _charge_fees(tx: Tx, prices: Prices, fees: Fees) -> None:
    """Charge the fees that began, each once, and make good where the facts now ask for other ones."""
    by_counter = _by_counter(tx, fees)
    charged = {one.key: one for one in await store.list_counters_in(tx, list(fees), with_base_only=True)}
    wanted = await _targets(tx, prices, by_counter.keys() | charged.keys(), charged, by_counter)
    if wanted.targets:
        await _bring(tx, wanted.targets, BY_TERMS, fees_only=True)


def _by_counter(tx: Tx, fees: Fees) -> dict[CounterKey, tuple[BaseFee, ...]]:
    found: dict[CounterKey, tuple[BaseFee, ...]] = {}
    for (org_id, period), some in fees.items():
        for fee in begun(some, tx.now):
            key = CounterKey(org_id, fee.sku, period)
            found[key] = (*found.get(key, ()), fee)
    return found


async def bring_periods(
    tx: Tx, prices: Prices, keys: Collection[PeriodKey], cause: Cause, closing: Collection[PeriodKey] = ()
) -> tuple[dict[PeriodKey, int], set[PeriodKey]]:
    """Bring all counters of periods to the terms now in force, those of `closing` to their closed targets.

    Counters that no use has made are made where the closed target of nothing isn't nothing. Gives the number
    of charges made per period, and the periods left alone because terms of theirs aren't here (noted).
    """
    fees, _ = await _read_fees(tx, prices, keys)
    ready = {key for key in keys if key in fees}
    by_counter = _by_counter(tx, {key: fees[key] for key in ready})
    charged = {one.key: one for one in await store.list_counters_in(tx, ready)}
    named = {
        CounterKey(key.org_id, sku, key.period)
        for key in ready & set(closing)
        for sku in plan_skus(prices[key.org_id].org_terms, key.period)
    }
    wanted = await _targets(tx, prices, by_counter.keys() | charged.keys() | named, charged, by_counter)
    needed = {
        key: target
        for key, target in wanted.targets.items()
        if PeriodKey(key.org_id, key.period) not in wanted.missing
        and (key in charged or key in by_counter or target_closed(ZERO, 0, target.priced.terms))
    }
    made = await _bring(tx, needed, cause, closing=set(closing)) if needed else {}
    left = {key for key in keys if key not in fees} | wanted.missing
    return {key: made.get(key, 0) for key in keys if key not in left}, left


async def _targets(
    tx: Tx,
    prices: Prices,
    keys: Collection[CounterKey],
    charged: Mapping[CounterKey, Counter],
    fees: Mapping[CounterKey, tuple[BaseFee, ...]],
) -> Wanted:
    """Find what counters are to be brought to; a SKU that nothing prices any more keeps its last terms."""
    wanted = Wanted({}, set())
    awaited: set[tuple[str, UUID]] = set()
    for key in sorted(keys):
        priced = await price_of(tx, prices[key.org_id], key.sku, key.period)
        if priced is None and key in charged:
            priced = await _last_priced(tx, prices[key.org_id], charged[key])
        if isinstance(priced, Priced):
            wanted.targets[key] = Target(priced, fees.get(key, ()))
        elif priced is not None:
            awaited |= {(terms_hash, key.org_id) for terms_hash in priced.hashes}
            wanted.missing.add(PeriodKey(key.org_id, key.period))
    if awaited:
        await store.insert_awaited_once(tx, awaited)
    return wanted


async def _last_priced(tx: Tx, prices: OrgPrices, counter: Counter) -> Priced | TermsMissing:
    """Give what priced a counter last: its terms, and the tax rate it met last."""
    terms_hash = counter.terms_hash or ""
    terms = (await terms_of(tx, {terms_hash})).get(terms_hash)
    if terms is None:
        return TermsMissing((terms_hash,))
    since = bounds(counter.key.org_id, prices.org_terms, counter.key.period).starts_at
    tax = Tax(counter.taxes[0].rate, terms.tax_code) if counter.taxes else Tax(None, None)
    assigned = prices.org_terms.at(since)
    return Priced(counter.key.period, terms_hash, terms, assigned, counter.retail_key, ((since, tax),))


async def _bring(
    tx: Tx,
    targets: Mapping[CounterKey, Target],
    cause: Cause,
    *,
    fees_only: bool = False,
    closing: Collection[PeriodKey] = (),
) -> dict[PeriodKey, int]:
    """Lock counters in key order and bring them to their targets; give the number of charges per period.

    With `fees_only` those stay whose base fees are charged already.
    """
    counters = await lock_or_make(tx, {key: one.priced.terms.currency for key, one in targets.items()})
    made = await store.find_made(
        tx, [(fee_id(key.org_id, fee), key.org_id) for key, one in targets.items() for fee in one.fees]
    )
    if fees_only:
        counters = {key: one for key, one in counters.items() if _asks_for_fees(one, targets[key])}
    retaxed = [one for key, one in counters.items() if needs_new_taxes(one, targets[key].priced)]
    charged_at = await store.list_gross_by_time(tx, retaxed) if retaxed else {}
    watch = await keeping.lock_guards(tx, counters)
    moved: list[Counter] = []
    rated: list[Rated] = []
    ids = {charge_id for charge_id, _ in made}
    for key, found in counters.items():
        counter = found._replace(is_closed=found.is_closed or PeriodKey(key.org_id, key.period) in closing)
        guard = watch.now.get(key.org_id)
        after, guard, charges = bring(
            counter, targets[key], ids, tx.minute, guard, charged_at.get(key), cause
        )
        if not after.is_bounded():
            log.error("a counter would move out of bounds", key=key, cause=cause.reason)
            after, guard, charges = counter, None, []
        moved.append(after)
        rated += charges
        if guard is not None:
            watch.now[key.org_id] = guard
    await keeping.write(tx, moved, rated, watch)
    return Total(PeriodKey(one.charge.org_id, one.charge.period) for one in rated)


def _asks_for_fees(counter: Counter, target: Target) -> bool:
    """Tell whether the base fees of a counter aren't what they should come to."""
    return bool(target.fees) or counter.base != total_of(target.fees, target.priced.terms.currency)


async def settle(tx: Tx, closed: Sequence[BillingPeriod]) -> set[PeriodKey]:
    """Bring the counters of closed periods to their closed targets, and announce the periods; give those done.

    The facts must be locked, and the periods. Those that miss their terms are left for later.
    """
    keys = {period.key for period in closed}
    prices = await read_prices(tx, {key.org_id for key in keys})
    known = {key for key in keys if key.org_id in prices}
    charges, _ = await bring_periods(tx, prices, known, BY_CLOSE, closing=known)
    if left := keys - charges.keys():
        await store.postpone_periods(tx, left, tx.now + LATER)
    if charges:
        await store.settle_periods(tx, charges)
        await tx.announce(
            *(one._replace(charges=charges[one.key]).fact() for one in closed if one.key in charges)
        )
    return set(charges)


async def close(tx: Tx, key: PeriodKey) -> BillingPeriod:
    """Close a period on demand and settle it; closed before, give it as it is.

    Locks the terms alone, so that nobody makes an open counter in it behind its back. NoTerms, PeriodNotOver,
    TermsMissing.
    """
    await store.lock_terms(tx)
    prices = (await read_prices(tx, {key.org_id})).get(key.org_id)
    if prices is None:
        raise errors.NoTerms
    await store.put_periods(tx, [must_be_over(key.org_id, prices.org_terms, key.period, tx.now)])
    await store.close_period(tx, key)
    closed = await store.get_period(tx, key)
    if closed.settled_at is None and not await settle(tx, [closed]):
        raise errors.TermsMissing(retry_after_s=1)
    return await store.get_period(tx, key)


async def rerate_once(tx: Tx, key: PeriodKey, reason: str) -> Rerate:
    """Bring a period to the terms now in force, once for the Idempotency-Key that `tx` holds.

    NoTerms, TermsMissing; KeyReused where the key came before with another period or reason.
    """
    claim = tx.replay
    if claim is None:
        raise idempotency.KeyRequired
    before = await store.find_rerate(tx, claim.scope, claim.key)
    if before is None:
        made = Rerate(new_id(), *key, reason, tx.actor, await _rerate(tx, key, Cause(reason, tx.actor)))
        await store.insert_rerate(tx, made, claim.scope, claim.key)
        return made
    if (before.org_id, before.period, before.reason) != (*key, reason):
        raise idempotency.KeyReused
    return before


async def _rerate(tx: Tx, key: PeriodKey, cause: Cause) -> int:
    await store.lock_terms_shared(tx)
    prices = await read_prices(tx, {key.org_id})
    if not prices:
        raise errors.NoTerms
    closed = await store.list_closed(tx, [key])
    charges, left = await bring_periods(tx, prices, [key], cause, closing=closed)
    if left:
        raise errors.TermsMissing(retry_after_s=1)
    return charges[key]
