"""Estimating: the steps of one answer."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any
from uuid import UUID

import prometheus_client

from eb_contracts.errors import NotFound
from eb_contracts.ids import made_at
from eb_kit.service import ServiceContext
from eb_kit.tx import Tx
from eb_rating.prices import OrgPrices, PriceBook

from . import store
from .domain.errors import NoTerms, TermsNotHere
from .domain.estimates import Basis, Inputs, basis_of, estimate, impossible
from .domain.plans import as_assigned, home_of, is_on, must_be_offered

POLL_S = 0.05
MOST_WAITING = 100
YOUNG = timedelta(seconds=10)
ANSWERS = prometheus_client.Counter(
    "eb_estimator_answers_total", "Estimates given, by whether they came from the cache.", ["from"]
)


async def answer(tx: Tx, inputs: Inputs, *, sees_drafts: bool) -> dict[str, Any]:
    """Give the estimate: the cached one where the same was asked by the same terms, else a new one."""
    basis = await _basis(tx, inputs, sees_drafts=sees_drafts)
    cache_key = basis.cache_key(inputs)
    found = await store.find_estimate(tx, inputs.org_id, cache_key)
    ANSWERS.labels("computed" if found is None else "cached").inc()
    if found is not None:
        return found
    result = estimate(inputs, basis)
    await store.insert_estimate_once(tx, cache_key, inputs.plain(), result)
    return result


async def _basis(tx: Tx, inputs: Inputs, *, sees_drafts: bool) -> Basis:
    prices = await _prices(tx, inputs, sees_drafts=sees_drafts)
    basis, missing = basis_of(inputs, prices, tx.minute)
    if missing:
        await _learn_terms(tx, missing)
        basis, missing = basis_of(inputs, prices, tx.minute)
    if missing:
        raise TermsNotHere
    if unpriced := basis.unpriced(inputs):
        known_skus = await store.list_facts(tx, "sku", unpriced)
        raise impossible(unpriced, known_skus.keys())
    if inputs.from_current_usage:
        counters = await store.list_counters(tx, inputs.org_id, basis.period, inputs.skus)
        basis = replace(basis, counters=counters)
    return basis


async def _prices(tx: Tx, inputs: Inputs, *, sees_drafts: bool) -> OrgPrices:
    """Give the organisation's own prices, or those it would have on the plan that is asked for."""
    own = await read_prices(tx, inputs.org_id)
    if inputs.plan_id is not None and not is_on(own, inputs.plan_id, tx.minute):
        return await _offered(tx, inputs.org_id, inputs.plan_id, own, sees_drafts=sees_drafts)
    if own is None:
        raise NoTerms
    return own


async def _offered(
    tx: Tx, org_id: UUID, plan_id: UUID, own: OrgPrices | None, *, sees_drafts: bool
) -> OrgPrices:
    """Give the prices of a plan that the organisation isn't on; nothing is read between learning and using."""
    home = home_of(own, await store.get_home(tx, org_id), tx.minute)
    found = await store.find_plan_terms(tx, plan_id, org_id)
    name, version, fact = found or ("", 0, None)
    plan = must_be_offered(fact, sees_drafts=sees_drafts)
    book, key = _book(tx), f"{name} {home.time_zone} {home.country}"
    if book.outdated_orgs({key: version}):
        book.learn_orgs({key: (version, as_assigned(plan, home))})
    return book.prices_of([key])[key]


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


async def wait_for_plan(context: ServiceContext, plan_id: UUID, org_id: UUID) -> None:
    """Wait a moment for a young plan to be published: it was just made, and is on its way."""

    async def has_come(tx: Tx) -> bool:
        found = await store.find_plan_terms(tx, plan_id, org_id)
        return found is not None and found[2]["status"] == "published"

    if _is_young(context, plan_id):
        await _wait_until(context, has_come)


def _is_young(context: ServiceContext, made_id: UUID) -> bool:
    born = made_at(made_id)
    return born is not None and abs(context.clock.machine_now() - born) < YOUNG


async def must_own_project(context: ServiceContext, org_id: UUID, project_id: UUID) -> None:
    """Refuse a project that isn't the organisation's, as NotFound; wait a moment for a young one."""

    async def is_known(tx: Tx) -> bool:
        return await store.find_project_org(tx, project_id) is not None

    if _is_young(context, project_id):
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
