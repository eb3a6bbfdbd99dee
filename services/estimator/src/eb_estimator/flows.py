"""Estimating: the steps of one answer."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any
from uuid import UUID

from eb_contracts.errors import NotFound
from eb_contracts.ids import made_at
from eb_kit.service import ServiceContext
from eb_kit.tx import Tx
from eb_rating.prices import OrgPrices, PriceBook

from . import store
from .domain.errors import NoTerms, TermsNotHere
from .domain.estimates import Basis, Inputs, basis_of, estimate

POLL_S = 0.05
MOST_WAITING = 100
YOUNG = timedelta(seconds=10)


async def answer(tx: Tx, inputs: Inputs) -> dict[str, Any]:
    """Give the estimate: the cached one where the same was asked by the same terms, else a new one."""
    basis = await _basis(tx, inputs)
    cache_key = basis.cache_key(inputs)
    found = await store.find_estimate(tx, inputs.org_id, cache_key)
    if found is not None:
        return found
    result = estimate(inputs, basis)
    await store.insert_estimate_once(tx, cache_key, inputs.plain(), result)
    return result


async def _basis(tx: Tx, inputs: Inputs) -> Basis:
    prices = await read_prices(tx, inputs.org_id)
    if prices is None:
        raise NoTerms
    known_skus = await store.list_facts(tx, "sku", inputs.skus)
    basis, missing = basis_of(inputs, prices, tx.minute, list(known_skus))
    if missing:
        await _learn_terms(tx, missing)
        basis, missing = basis_of(inputs, prices, tx.minute, list(known_skus))
    if missing:
        raise TermsNotHere
    if inputs.from_current_usage:
        counters = await store.list_counters(tx, inputs.org_id, basis.period, inputs.skus)
        basis = replace(basis, counters=counters)
    return basis


def _book(tx: Tx) -> PriceBook:
    book: PriceBook = tx.context.extras.setdefault("price_book", PriceBook())
    return book


async def read_prices(tx: Tx, org_id: UUID) -> OrgPrices | None:
    """Give an organisation's prices by the facts as they are now; None where it has no assignment.

    Reads again while facts change, or others of this process tell the same book, in between.
    """
    book = _book(tx)
    while True:
        orgs, retail = await store.list_terms_versions(tx, org_id)
        if not book.is_retail_current(retail):
            book.learn_retail(_assignments(await store.list_facts(tx, "retail_terms")))
        elif outdated := book.outdated_orgs(orgs):
            book.learn_orgs(_assignments(await store.list_facts(tx, "org_terms", outdated)))
        else:
            return book.prices_of(orgs).get(str(org_id))


def _assignments(
    facts: Mapping[str, tuple[int, Mapping[str, Any]]],
) -> dict[str, tuple[int, Sequence[Mapping[str, Any]]]]:
    return {entity_id: (version, body["assignments"]) for entity_id, (version, body) in facts.items()}


async def _learn_terms(tx: Tx, terms_hashes: set[str]) -> None:
    facts = await store.list_facts(tx, "terms", terms_hashes)
    _book(tx).learn_terms({terms_hash: body["body"] for terms_hash, (_, body) in facts.items()})


async def wait_for_terms(context: ServiceContext, org_id: UUID) -> None:
    """Wait a moment for the terms of an organisation that has none: a plan just assigned is on its way."""

    async def have_come(tx: Tx) -> bool:
        orgs, _ = await store.list_terms_versions(tx, org_id)
        return bool(orgs)

    await _wait_until(context, have_come)


async def must_own_project(context: ServiceContext, org_id: UUID, project_id: UUID) -> None:
    """Refuse a project that isn't the organisation's, as NotFound; wait a moment for a young one."""

    async def is_known(tx: Tx) -> bool:
        return await store.find_project_org(tx, project_id) is not None

    born = made_at(project_id)
    if born is not None and abs(context.clock.machine_now() - born) < YOUNG:
        await _wait_until(context, is_known)
    async with context.begin("system:estimator") as tx:
        if await store.find_project_org(tx, project_id) != org_id:
            raise NotFound


async def _wait_until(context: ServiceContext, is_so: Callable[[Tx], Awaitable[bool]]) -> None:
    """Look again and again for as long as the settings allow; few wait at once, others go on without."""
    waiting: set[object] = context.extras.setdefault("waiting", set())
    if len(waiting) >= MOST_WAITING:
        return
    waiter = object()
    waiting.add(waiter)
    try:
        await _poll(context, is_so)
    finally:
        waiting.remove(waiter)


async def _poll(context: ServiceContext, is_so: Callable[[Tx], Awaitable[bool]]) -> None:
    loop = asyncio.get_running_loop()
    until = loop.time() + context.settings.terms_wait_s
    while loop.time() < until:
        async with context.begin("system:estimator") as tx:
            if await is_so(tx):
                return
        await asyncio.sleep(POLL_S)
