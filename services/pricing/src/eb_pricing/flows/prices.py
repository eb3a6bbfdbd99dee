"""Prices of organisations, kept in memory: by the locked facts for charges, by the facts at hand for previews.

Rule: docs/rules/pricing.md, Which terms hold.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any
from uuid import UUID

from eb_kit.tx import Tx
from eb_rating import Terms
from eb_rating.prices import OrgPrices, PriceBook, Priced, TermsMissing

from .. import store


async def read_prices(tx: Tx, org_ids: Collection[UUID]) -> dict[UUID, OrgPrices]:
    """Give organisations' prices by the facts as they are; those without assignments are left out.

    The facts must be locked: then their versions stay, and it is safe that other takes of this process
    tell the same book.
    """
    book = _book(tx)
    orgs, retail = await store.list_terms_versions(tx, org_ids)
    while not book.is_retail_current(retail):
        await _learn_retail(tx, book)
    while outdated := book.outdated_orgs(orgs):
        await _learn_orgs(tx, book, outdated)
    return {UUID(org_id): prices for org_id, prices in book.prices_of(orgs).items()}


async def peek_prices(tx: Tx, org_ids: Collection[UUID]) -> dict[UUID, OrgPrices]:
    """Give organisations' prices without locking the facts: as they are now, or a moment newer.

    For reading and previews only, from a book of their own: what charges are rated by is told under the lock.
    """
    book = _peeked(tx)
    orgs, retail = await store.list_terms_versions(tx, org_ids)
    if not book.is_retail_current(retail):
        await _learn_retail(tx, book)
    if outdated := book.outdated_orgs(orgs):
        await _learn_orgs(tx, book, outdated)
    return {UUID(org_id): prices for org_id, prices in book.prices_of(orgs).items()}


def _book(tx: Tx) -> PriceBook:
    book: PriceBook = tx.context.extras.setdefault("price_book", PriceBook())
    return book


def _peeked(tx: Tx) -> PriceBook:
    book: PriceBook = tx.context.extras.setdefault("peeked_price_book", PriceBook())
    return book


async def _learn_retail(tx: Tx, book: PriceBook) -> None:
    book.learn_retail(_assignments(await store.list_facts(tx, "retail_terms")))


async def _learn_orgs(tx: Tx, book: PriceBook, org_ids: Collection[str]) -> None:
    book.learn_orgs(_assignments(await store.list_facts(tx, "org_terms", org_ids)))


def _assignments(
    facts: Mapping[str, tuple[int, Mapping[str, Any]]],
) -> dict[str, tuple[int, Sequence[Mapping[str, Any]]]]:
    return {entity_id: (version, body["assignments"]) for entity_id, (version, body) in facts.items()}


async def learn_terms(tx: Tx, terms_hashes: Collection[str]) -> None:
    """Read terms into memory; those that aren't here yet stay unknown."""
    _book(tx).learn_terms(await _bodies(tx, terms_hashes))


async def peek_terms(tx: Tx, terms_hashes: Collection[str]) -> None:
    """Read terms into the memory of `peek_prices`."""
    _peeked(tx).learn_terms(await _bodies(tx, terms_hashes))


async def _bodies(tx: Tx, terms_hashes: Collection[str]) -> dict[str, Mapping[str, Any]]:
    facts = await store.list_facts(tx, "terms", terms_hashes)
    return {terms_hash: body["body"] for terms_hash, (_, body) in facts.items()}


async def price_of(tx: Tx, prices: OrgPrices, sku: str, period: str) -> Priced | TermsMissing | None:
    """Give what prices a SKU in a period: terms that memory misses are read first; None where nothing names it."""
    priced = prices.priced(sku, period)
    if isinstance(priced, TermsMissing):
        await learn_terms(tx, priced.hashes)
        priced = prices.priced(sku, period)
    return priced


async def terms_of(tx: Tx, terms_hashes: set[str]) -> dict[str, Terms]:
    """Give terms by their hash; those that aren't here are left out."""
    book = _book(tx)
    if missing := terms_hashes - book.terms.keys():
        await learn_terms(tx, missing)
    return {terms_hash: book.terms[terms_hash] for terms_hash in terms_hashes if terms_hash in book.terms}
