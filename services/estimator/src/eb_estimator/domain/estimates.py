"""What usage would cost: by the library that rates it, as at the period's close.

Rule: docs/rules/pricing.md, Estimates.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

from eb_contracts.errors import Fault
from eb_contracts.money import money_text, plain_text
from eb_rating import TierLine, breakdown_closed, tax_target
from eb_rating.exact import EXACT
from eb_rating.prices import OrgPrices, Priced, TermsMissing

from .errors import CurrenciesDiffer, EstimateImpossible, EstimateTooLarge

ZERO = Decimal(0)
BOUND = Decimal(10) ** 18
"""Quantities and amounts are billed below this."""


@dataclass(frozen=True, slots=True)
class CounterState:
    """Usage so far in the running period, as of the counter's `version`."""

    quantity: Decimal
    events: int
    version: int


@dataclass(frozen=True, slots=True)
class Inputs:
    """What is asked: uses of each SKU per lead, and how many leads, from an empty period or from usage so far."""

    org_id: UUID
    project_id: UUID | None
    skus: Mapping[str, Decimal]
    leads: int
    from_current_usage: bool

    def plain(self) -> dict[str, Any]:
        """Give the inputs as canonical JSON: equal numbers look equal."""
        return {
            "org_id": str(self.org_id),
            "project_id": str(self.project_id) if self.project_id else None,
            "skus": {sku: plain_text(uses) for sku, uses in sorted(self.skus.items())},
            "leads": self.leads,
            "from_current_usage": self.from_current_usage,
        }


@dataclass(frozen=True, slots=True)
class Basis:
    """What the answer depends on besides the inputs: per SKU what prices it, and the counters used."""

    currency: str
    period: str
    minute: datetime
    priced: Mapping[str, Priced]
    counters: Mapping[str, CounterState]

    def terms_hash(self) -> str:
        """Give one hash for all terms: the SHA-256 of the JSON of `{sku: terms_hash}`, SKUs in order."""
        return _sha256({sku: self.priced[sku].terms_hash for sku in sorted(self.priced)}).hex()

    def cache_key(self, inputs: Inputs) -> bytes:
        """Give the hash of everything the answer depends on, so that no change can answer from the cache."""
        taxes = {sku: str(priced.tax_at(self.minute).rate) for sku, priced in sorted(self.priced.items())}
        versions = {sku: counter.version for sku, counter in sorted(self.counters.items())}
        return _sha256(
            [inputs.plain(), self.terms_hash(), taxes, self.period if versions else None, versions]
        )


def _sha256(value: object) -> bytes:
    return hashlib.sha256(json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()).digest()


def basis_of(
    inputs: Inputs, prices: OrgPrices, minute: datetime, known_skus: Sequence[str]
) -> tuple[Basis, set[str]]:
    """Find what prices each SKU now, and the terms (by hash) that aren't here.

    EstimateImpossible for SKUs that are unknown or that nothing prices; CurrenciesDiffer.
    """
    period = prices.period_of(minute)
    found = {sku: prices.priced(sku, period) for sku in inputs.skus}
    if faults := _faults(found, known_skus):
        raise EstimateImpossible(faults=faults)
    missing = {one for terms in found.values() if isinstance(terms, TermsMissing) for one in terms.hashes}
    priced = {sku: terms for sku, terms in found.items() if isinstance(terms, Priced)}
    currencies = {terms.terms.currency for terms in priced.values()}
    if len(currencies) > 1:
        raise CurrenciesDiffer(currencies=sorted(currencies))
    currency = currencies.pop() if currencies else prices.org_terms.at(minute).currency
    return Basis(currency, period, minute, priced, {}), missing


def _faults(found: Mapping[str, object], known_skus: Sequence[str]) -> tuple[Fault, ...]:
    return tuple(
        Fault(f"/skus/{_escaped(sku)}", "no_terms", "Nothing prices this SKU for the organisation.")
        if sku in known_skus
        else Fault(f"/skus/{_escaped(sku)}", "unknown_sku", "There is no such SKU.")
        for sku, terms in found.items()
        if terms is None
    )


def _escaped(name: str) -> str:
    return name.replace("~", "~0").replace("/", "~1")


def estimate(inputs: Inputs, basis: Basis) -> dict[str, Any]:
    """Estimate; plain JSON with money and numbers as text, the same for the same inputs and basis.

    EstimateTooLarge beyond what can be billed.
    """
    lines = [_line(sku, uses, inputs, basis) for sku, uses in sorted(inputs.skus.items())]
    totals = sum((total for _, total, _ in lines), ZERO)
    base = ZERO
    return {
        "currency": basis.currency,
        "base": money_text(base, basis.currency),
        "lines": [line for line, _, _ in lines],
        "grand_total": money_text(base + totals, basis.currency),
        "tax_total": money_text(sum((tax for _, _, tax in lines), ZERO), basis.currency),
        "terms_hash": basis.terms_hash(),
    }


def _line(sku: str, uses: Decimal, inputs: Inputs, basis: Basis) -> tuple[dict[str, Any], Decimal, Decimal]:
    """Estimate one SKU; the line, its total and its tax.

    What is used already costs what it would without the rest, so the total is what the rest adds.
    """
    priced, now = basis.priced[sku], basis.counters.get(sku)
    quantity = EXACT.multiply(uses, Decimal(inputs.leads))
    events = inputs.leads if quantity else 0
    start = now or CounterState(ZERO, 0, 0)
    after = breakdown_closed(EXACT.add(start.quantity, quantity), start.events + events, priced.terms)
    before = breakdown_closed(start.quantity, start.events, priced.terms)
    if after.quantity >= BOUND or after.amount >= BOUND:
        raise EstimateTooLarge(
            faults=(Fault(f"/skus/{_escaped(sku)}", "too_large", "Too much to be billed."),)
        )
    already = before.amount if now else ZERO
    overage = EXACT.subtract(after.billable, before.billable)
    total = after.amount - already
    rate = priced.tax_at(basis.minute).rate
    tax = tax_target(after.amount, priced.terms, rate) - tax_target(already, priced.terms, rate)
    line = {
        "sku": sku,
        "quantity": plain_text(quantity),
        "included": plain_text(EXACT.subtract(quantity, overage)),
        "overage": plain_text(overage),
        "already": money_text(already, basis.currency),
        "total": money_text(total, basis.currency),
        "tax": money_text(tax, basis.currency),
        "limit": after.limit,
        "terms_hash": priced.terms_hash,
        "tiers": [_tier(tier) for tier in after.tiers],
    }
    return line, total, tax


def _tier(line: TierLine) -> dict[str, Any]:
    return {
        "tier": line.tier,
        "above": plain_text(line.above),
        "up_to": None if line.up_to is None else plain_text(line.up_to),
        "quantity": plain_text(line.quantity),
        "unit_price": plain_text(line.unit_price),
        "flat_fee": plain_text(line.flat_fee),
        "amount": plain_text(line.amount),
    }
