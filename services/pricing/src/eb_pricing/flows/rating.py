"""Rating usage and re-rating counters: the steps that the bus door and the sweep share.

Locks are taken in this order: the facts of prices (shared), counters by key, budgets by key, uses of credits
by key, holds by key. Rule: docs/rules/pricing.md.
"""

from __future__ import annotations

from collections import Counter as Total
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from itertools import accumulate
from typing import Any, NamedTuple
from uuid import UUID

import prometheus_client
import structlog

from eb_contracts.ids import partition_of
from eb_contracts.metering import UsageRecord
from eb_contracts.pricing import BudgetThresholdReached, Charge, ChargePriced, UsageParked
from eb_kit.tx import Tx
from eb_rating import Terms
from eb_rating.credits import Grant
from eb_rating.prices import OrgPrices, PriceBook, Priced, TermsMissing

from .. import store
from ..domain.counters import Counter, CounterKey, Priceable, Rated, adjust, needs_new_taxes, rate_all
from ..domain.guardrails import BudgetSpend, Guards
from ..domain.waiting import Waiting

log = structlog.get_logger(__name__)

MOST_IN_MESSAGE = 1000
MOST_RERATED = 2000
MOST_SEEN = 500_000
CHARGES = prometheus_client.Counter("eb_pricing_charges_total", "Charges made, by kind.", ["kind"])
PARKED = prometheus_client.Counter("eb_pricing_unrated_total", "Usage records parked for want of terms.")
CUT = prometheus_client.Counter("eb_pricing_cut_charges_total", "Charges that a hard cap cut.")
CREDITED = prometheus_client.Counter(
    "eb_pricing_credited_charges_total", "Charges that credit paid a part of, or gave back to."
)
REACHED = prometheus_client.Counter(
    "eb_pricing_thresholds_total", "Thresholds of budgets that were announced."
)


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


def _book(tx: Tx) -> PriceBook:
    book: PriceBook = tx.context.extras.setdefault("price_book", PriceBook())
    return book


async def read_prices(tx: Tx, org_ids: set[UUID]) -> dict[UUID, OrgPrices]:
    """Give organisations' prices by the facts as they are; those without assignments are left out.

    The facts must be locked: then their versions stay, and it is safe that other takes of this process
    tell the same book.
    """
    book = _book(tx)
    orgs, retail = await store.list_terms_versions(tx, org_ids)
    while not book.is_retail_current(retail):
        book.learn_retail(_assignments(await store.list_facts(tx, "retail_terms")))
    while outdated := book.outdated_orgs(orgs):
        book.learn_orgs(_assignments(await store.list_facts(tx, "org_terms", outdated)))
    return {UUID(org_id): prices for org_id, prices in book.prices_of(orgs).items()}


def _assignments(
    facts: Mapping[str, tuple[int, Mapping[str, Any]]],
) -> dict[str, tuple[int, Sequence[Mapping[str, Any]]]]:
    return {entity_id: (version, body["assignments"]) for entity_id, (version, body) in facts.items()}


async def learn_terms(tx: Tx, terms_hashes: set[str]) -> None:
    """Read terms into memory; those that aren't here yet stay unknown."""
    facts = await store.list_facts(tx, "terms", terms_hashes)
    _book(tx).learn_terms({terms_hash: body["body"] for terms_hash, (_, body) in facts.items()})


async def _park(tx: Tx, waiting: Sequence[Waiting]) -> None:
    """Keep usage that waits, tell which began to, and note which terms it waits for."""
    known_skus = await store.list_known_skus(tx, {one.usage.sku for one in waiting})
    news = await store.insert_unrated_once(tx, waiting, known_skus)
    for start in range(0, len(news), MOST_IN_MESSAGE):
        tx.publish(UsageParked(usage=tuple(news[start : start + MOST_IN_MESSAGE])))
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
    watch = await lock_guards(tx, before)
    rated, refused = rate_all(counters, due, tx.minute, watch.now)
    moved = [counter for key, counter in counters.items() if counter is not before[key]]
    await write(tx, moved, rated, watch)
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


async def terms_of(tx: Tx, terms_hashes: set[str]) -> dict[str, Terms]:
    """Give terms by their hash; those that aren't here are left out."""
    book = _book(tx)
    if missing := terms_hashes - book.terms.keys():
        await learn_terms(tx, missing)
    return {terms_hash: book.terms[terms_hash] for terms_hash in terms_hashes if terms_hash in book.terms}


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
    """Keep counters, charges and what guards did to them, and send the charges on."""
    if counters:
        await store.update_counters(tx, counters)
    if rated:
        await store.insert_charges(tx, rated)
        tx.publish(*_messages([one.charge for one in rated]))
    if any(one.settled for one in rated):
        await _write_guarded(tx, counters, rated, watch)
    for kind, count in Total(one.charge.kind for one in rated).items():
        CHARGES.labels(kind).inc(count)


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


async def rerate_orgs(tx: Tx, org_ids: Sequence[UUID]) -> list[UUID]:
    """Bring the counters of organisations to the terms now known: an adjusting charge per changed counter.

    Stops before the organisation that would make it too many at once; give those that are done. The facts
    must be locked; counters are locked in key order.
    """
    changed = await _changed(tx, org_ids)
    done = _first_of(org_ids, changed)
    priced = {key: terms for key, terms in changed.items() if key.org_id in done}
    counters = await store.lock_counters(tx, priced)
    retaxed = [one for key, one in counters.items() if needs_new_taxes(one, priced[key])]
    charged_at = await store.list_gross_by_time(tx, retaxed) if retaxed else {}
    await _adjust(tx, counters, priced, charged_at)
    return done


def _first_of(org_ids: Sequence[UUID], changed: Iterable[CounterKey]) -> list[UUID]:
    """Give the first organisations whose changed counters together are not too many; one at least."""
    counts = Total(key.org_id for key in changed)
    sums = accumulate(counts[org_id] for org_id in org_ids)
    fitting = [org_id for org_id, so_far in zip(org_ids, sums, strict=True) if so_far <= MOST_RERATED]
    return fitting or list(org_ids[:1])


async def _adjust(
    tx: Tx,
    counters: Mapping[CounterKey, Counter],
    priced: Mapping[CounterKey, Priced],
    charged_at: Mapping[CounterKey, Sequence[tuple[datetime, Decimal]]],
) -> None:
    after: list[Counter] = []
    rated: list[Rated] = []
    watch = await lock_guards(tx, counters)
    for key, counter in counters.items():
        guard = watch.now.get(key.org_id)
        moved, guard, adjusting = adjust(counter, priced[key], tx.minute, guard, charged_at.get(key))
        if moved.is_bounded():
            after.append(moved)
            rated.extend(adjusting)
            if guard is not None:
                watch.now[key.org_id] = guard
        else:
            log.error("terms would move a counter out of bounds", key=key, terms_hash=priced[key].terms_hash)
    await write(tx, after, rated, watch)


async def _changed(tx: Tx, org_ids: Sequence[UUID]) -> dict[CounterKey, Priced]:
    """Find the counters that other terms or taxes than before hold for; what misses its terms is noted."""
    counters = await store.list_counters_of(tx, org_ids)
    found, missing = await _priced_now(tx, counters)
    if missing:
        await store.insert_awaited_once(tx, missing)
    by_key = {counter.key: counter for counter in counters}
    return {
        key: priced
        for key, priced in found.items()
        if not by_key[key].is_rated_by(priced) or needs_new_taxes(by_key[key], priced)
    }


async def _priced_now(
    tx: Tx, counters: Sequence[Counter]
) -> tuple[dict[CounterKey, Priced], set[tuple[str, UUID]]]:
    """Give what prices counters, and the (terms, organisation) pairs whose terms aren't here."""
    prices = await read_prices(tx, {counter.key.org_id for counter in counters})
    found, missing = _look_up(prices, counters)
    if missing:
        await learn_terms(tx, {terms_hash for terms_hash, _ in missing})
        found, missing = _look_up(prices, counters)
    return found, missing


def _look_up(
    prices_by_org: Mapping[UUID, OrgPrices], counters: Iterable[Counter]
) -> tuple[dict[CounterKey, Priced], set[tuple[str, UUID]]]:
    found: dict[CounterKey, Priced] = {}
    missing: set[tuple[str, UUID]] = set()
    for key in (counter.key for counter in counters):
        prices = prices_by_org.get(key.org_id)
        priced = prices and prices.priced(key.sku, key.period)
        if isinstance(priced, Priced):
            found[key] = priced
        elif isinstance(priced, TermsMissing):
            missing |= {(terms_hash, key.org_id) for terms_hash in priced.hashes}
    return found, missing
