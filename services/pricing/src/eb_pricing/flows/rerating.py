"""Re-rating: counters come to the terms now known. Locks: the facts of prices, counters by key, then their guards.

Rule: docs/rules/pricing.md, Which terms hold; Usage without terms.
"""

from __future__ import annotations

from collections import Counter as Total
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from itertools import accumulate
from uuid import UUID

import structlog

from eb_kit.tx import Tx
from eb_rating.prices import OrgPrices, Priced, TermsMissing

from .. import store
from ..domain.adjusting import adjust, needs_new_taxes
from ..domain.counters import Counter, CounterKey, Rated
from . import keeping
from .prices import learn_terms, read_prices

log = structlog.get_logger(__name__)

MOST_RERATED = 2000


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
    watch = await keeping.lock_guards(tx, counters)
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
    await keeping.write(tx, after, rated, watch)


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
