"""One-off charges: the steps of making one. Locks: its id, the facts of prices (shared), its counter, guards."""

from __future__ import annotations

import asyncio
from uuid import UUID

from eb_contracts.errors import NotFound
from eb_kit.service import ServiceContext
from eb_kit.tx import Tx
from eb_rating.prices import Priced, TermsMissing

from .. import store
from ..domain import errors
from ..domain.charges import KeptCharge, is_same
from ..domain.counters import CounterKey
from ..domain.rating import OneOff, rate_one_off
from . import keeping
from .prices import price_of, read_prices, terms_of
from .rating import lock_or_make

POLL_S = 0.05
MOST_WAITING = 100


async def charge_once(tx: Tx, one_off: OneOff) -> KeptCharge:
    """Charge a one-off, through caps and credits like any charge; made before, give it as it was.

    ChargeIdTaken where the id is another charge's or a waiting usage record's; NotFound for a foreign project;
    NoTerms, TermsMissing, OutOfBounds.
    """
    await store.lock_charge_id(tx, one_off.org_id, one_off.charge_id)
    await store.lock_terms_shared(tx)
    made = await store.find_charge(tx, one_off.org_id, one_off.charge_id)
    if made is None:
        await _must_be_free(tx, one_off)
        await _must_own_project(tx, one_off)
        await _charge(tx, one_off, await _priced(tx, one_off))
        made = await store.find_charge(tx, one_off.org_id, one_off.charge_id)
    if made is None or not is_same(made, one_off):
        raise errors.ChargeIdTaken
    return made


async def _must_be_free(tx: Tx, one_off: OneOff) -> None:
    try:
        usage_id = UUID(one_off.charge_id)
    except ValueError:
        return
    if await store.is_unrated(tx, one_off.org_id, usage_id):
        raise errors.ChargeIdTaken


async def _must_own_project(tx: Tx, one_off: OneOff) -> None:
    if one_off.project_id is not None:
        owner = await store.find_project_org(tx, one_off.project_id)
        if owner != one_off.org_id:
            raise NotFound


async def _priced(tx: Tx, one_off: OneOff) -> Priced:
    """Find what prices a one-off, as it would an event of its time."""
    prices = (await read_prices(tx, {one_off.org_id})).get(one_off.org_id)
    if prices is None:
        raise errors.NoTerms
    priced = await price_of(tx, prices, one_off.sku, prices.period_of(one_off.time))
    if isinstance(priced, TermsMissing):
        raise errors.TermsMissing(retry_after_s=1)
    if priced is None:
        raise errors.NoTerms
    return priced


async def _charge(tx: Tx, one_off: OneOff, priced: Priced) -> None:
    key = CounterKey(one_off.org_id, one_off.sku, priced.period)
    counter = (await lock_or_make(tx, {key: priced.terms.currency}))[key]
    if counter.is_closed and counter.version and counter.terms_hash:
        own = await terms_of(tx, {counter.terms_hash})
        priced = priced._replace(
            terms_hash=counter.terms_hash, terms=own.get(counter.terms_hash, priced.terms)
        )
    watch = await keeping.lock_guards(tx, [key])
    guard = watch.now.get(key.org_id)
    counter, guard, rated = rate_one_off(counter, one_off, priced, tx.actor, tx.minute, guard)
    if not counter.is_bounded():
        raise errors.OutOfBounds
    if guard is not None:
        watch.now[key.org_id] = guard
    await keeping.write(tx, [counter], rated, watch)


async def wait_for_facts(context: ServiceContext, one_off: OneOff) -> None:
    """Wait a moment for terms and a project that aren't here: what was just made is on its way.

    Few wait at once, others go on without.
    """
    waiting: set[object] = context.extras.setdefault("waiting_for_facts", set())
    waiter = object()
    loop = asyncio.get_running_loop()
    until = loop.time() + context.settings.terms_wait_s
    while not await _are_here(context, one_off) and loop.time() < until and len(waiting) < MOST_WAITING:
        waiting.add(waiter)
        try:
            await asyncio.sleep(POLL_S)
        finally:
            waiting.discard(waiter)


async def _are_here(context: ServiceContext, one_off: OneOff) -> bool:
    async with context.begin("system:pricing") as tx:
        await store.lock_terms_shared(tx)
        try:
            await _must_own_project(tx, one_off)
            await _priced(tx, one_off)
        except (NotFound, errors.NoTerms, errors.TermsMissing):
            return False
    return True
