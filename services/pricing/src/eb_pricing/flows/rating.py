"""Rating usage: the steps that the bus door and the sweep share.

Locks are taken in this order: the facts of prices (shared), counters by key, budgets by key, uses of credits
by key, holds by key. Rule: docs/rules/pricing.md.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple
from uuid import UUID

import prometheus_client
import structlog

from eb_contracts.metering import UsageRecord
from eb_contracts.pricing import UsageParked
from eb_kit.tx import Tx
from eb_rating import Terms
from eb_rating.prices import OrgPrices, Priced, TermsMissing

from .. import store
from ..domain.counters import Counter, CounterKey
from ..domain.rating import Priceable, rate_all
from ..domain.waiting import Waiting
from . import keeping
from .prices import learn_terms, read_prices, terms_of

log = structlog.get_logger(__name__)

MOST_SEEN = 500_000
PARKED = prometheus_client.Counter("eb_pricing_unrated_total", "Usage records parked for want of terms.")


class Work(NamedTuple):
    """Usage that can be priced, by counter, and usage that waits."""

    priceable: list[Priceable]
    waiting: list[Waiting]


async def rate_records(tx: Tx, records: Sequence[UsageRecord]) -> list[Waiting]:
    """Charge each usage record once; park what can't be, and give it.

    A constant number of statements, whatever the number of records.
    """
    await store.lock_terms_shared(tx)
    work = await sort_out(tx, _distinct(records))
    refused = await _rate(tx, work.priceable) if work.priceable else []
    waiting = [*work.waiting, *refused]
    if waiting:
        await _park(tx, waiting)
    return waiting


def _distinct(records: Iterable[UsageRecord]) -> list[UsageRecord]:
    return list({record.usage_id: record for record in records}.values())


async def sort_out(tx: Tx, records: Sequence[UsageRecord]) -> Work:
    """Find what prices each record; the facts must be locked."""
    prices = await read_prices(tx, {record.org_id for record in records})
    work = _sorted_out(prices, records)
    if missing := {terms_hash for one in work.waiting for terms_hash in one.hashes}:
        await learn_terms(tx, missing)
        work = _sorted_out(prices, records)
    return work


def _sorted_out(prices_by_org: Mapping[UUID, OrgPrices], records: Sequence[UsageRecord]) -> Work:
    """Group records by what prices them: one object per counter, but where memory was cleared between."""
    groups: dict[int, Priceable] = {}
    waiting: list[Waiting] = []
    for record in records:
        prices = prices_by_org.get(record.org_id)
        priced = prices and prices.priced(record.sku, prices.period_of(record.minute))
        if not isinstance(priced, Priced):
            waiting.append(Waiting(record, priced.hashes if isinstance(priced, TermsMissing) else ()))
        elif (group := groups.get(id(priced))) is not None:
            group.records.append(record)
        else:
            key = CounterKey(record.org_id, record.sku, priced.period)
            groups[id(priced)] = Priceable(key, priced, [record])
    return Work(list(groups.values()), waiting)


async def _park(tx: Tx, waiting: Sequence[Waiting]) -> None:
    """Keep usage that waits, tell which began to, and note which terms it waits for."""
    known_skus = await store.list_known_skus(tx, {one.usage.sku for one in waiting})
    news = await store.insert_unrated_once(tx, waiting, known_skus)
    for start in range(0, len(news), keeping.MOST_IN_MESSAGE):
        tx.publish(UsageParked(usage=tuple(news[start : start + keeping.MOST_IN_MESSAGE])))
    awaited = {(terms_hash, one.usage.org_id) for one in waiting for terms_hash in one.hashes}
    if awaited:
        await store.insert_awaited_once(tx, awaited)
    PARKED.inc(len(waiting))
    log.warning(
        "usage waits for terms", records=len(waiting), skus=sorted({one.usage.sku for one in waiting})[:8]
    )


async def _rate(tx: Tx, priceable: Sequence[Priceable]) -> list[Waiting]:
    counters = await lock_or_make(tx, {group.key: group.priced.terms.currency for group in priceable})
    charged = await store.find_charged(tx, [record for group in priceable for record in group.records])
    due = [_without(group, charged) for group in priceable] if charged else priceable
    if any(counter.is_closed for counter in counters.values()):
        due = await _by_own_terms(tx, due, counters)
    before = dict(counters)
    watch = await keeping.lock_guards(tx, before)
    rated, refused = rate_all(counters, due, tx.minute, watch.now)
    moved = [counter for key, counter in counters.items() if counter is not before[key]]
    await keeping.write(tx, moved, rated, watch)
    await _release_holds(tx, priceable, refused)
    return refused


async def _release_holds(tx: Tx, priceable: Iterable[Priceable], refused: Sequence[Waiting]) -> None:
    """Release what was held for usage that now is charged, or was before."""
    waiting = {one.usage.usage_id for one in refused}
    holds = {
        (record.org_id, hold_id)
        for group in priceable
        for record in group.records
        if record.hold_ids and record.usage_id not in waiting
        for hold_id in record.hold_ids
    }
    if holds:
        await store.release_holds(tx, holds)


def _without(group: Priceable, charged: set[UUID]) -> Priceable:
    return group._replace(records=[record for record in group.records if record.usage_id not in charged])


async def _by_own_terms(
    tx: Tx, usage: Sequence[Priceable], counters: Mapping[CounterKey, Counter]
) -> list[Priceable]:
    """Rate late usage of closed counters by the terms that these stand at: only a re-rating brings others."""
    hashes = {one.terms_hash for one in counters.values() if one.is_closed and one.version} - {None}
    terms = await terms_of(tx, {terms_hash for terms_hash in hashes if terms_hash})
    return [_with_terms(group, counters[group.key].terms_hash, terms) for group in usage]


def _with_terms(group: Priceable, terms_hash: str | None, terms: Mapping[str, Terms]) -> Priceable:
    if terms_hash is None or terms_hash not in terms:
        return group
    return group._replace(priced=group.priced._replace(terms_hash=terms_hash, terms=terms[terms_hash]))


async def lock_or_make(tx: Tx, keys: dict[CounterKey, str]) -> dict[CounterKey, Counter]:
    """Lock counters; make those first that this process hasn't seen charged.

    Inserts come before any lock, so that two takes can't wait for each other.
    """
    seen: set[CounterKey] = tx.context.extras.setdefault("counters_seen", set())
    if unseen := {key: keys[key] for key in keys.keys() - seen}:
        await store.insert_counters_once(tx, unseen)
    counters = await store.lock_counters(tx, keys)
    if len(seen) > MOST_SEEN:
        seen.clear()
    seen.update(key for key, counter in counters.items() if counter.version)
    return counters
