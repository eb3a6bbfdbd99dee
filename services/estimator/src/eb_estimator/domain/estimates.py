"""What usage would cost: by the library that rates it, as at the period's close.

Rule: docs/rules/pricing.md, Estimates.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from functools import reduce
from typing import Any, NamedTuple
from uuid import UUID

from eb_contracts.errors import Fault
from eb_contracts.money import money_text, plain_text
from eb_rating import Terms, TierLine, breakdown_closed, target_closed, tax_target
from eb_rating.base_fees import BaseFee
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


NOTHING = CounterState(ZERO, 0, 0)


@dataclass(frozen=True, slots=True)
class Inputs:
    """What is asked: uses of each SKU per lead, and how many leads, from an empty period or from usage so far."""

    org_id: UUID
    project_id: UUID | None
    skus: Mapping[str, Decimal]
    leads: int
    from_current_usage: bool
    plan_id: UUID | None = None

    def plain(self) -> dict[str, Any]:
        """Give the inputs as canonical JSON: equal numbers look equal."""
        return {
            "org_id": str(self.org_id),
            "project_id": str(self.project_id) if self.project_id else None,
            "skus": {sku: plain_text(uses) for sku, uses in sorted(self.skus.items())},
            "leads": self.leads,
            "from_current_usage": self.from_current_usage,
            "plan_id": str(self.plan_id) if self.plan_id else None,
        }


class Fee(NamedTuple):
    """A base fee of the period, and the tax rate at its time."""

    sku: str
    terms_hash: str
    terms: Terms
    amount: Decimal
    rate: Decimal | None


@dataclass(frozen=True, slots=True)
class Basis:
    """What the answer depends on besides the inputs: per SKU what prices it, base fees, and the counters used."""

    currency: str
    period: str
    minute: datetime
    priced: Mapping[str, Priced]
    fees: tuple[Fee, ...]
    counters: Mapping[str, CounterState]

    def unpriced(self, inputs: Inputs) -> list[str]:
        """Name the SKUs that nothing prices."""
        return [sku for sku in inputs.skus if sku not in self.priced]

    def fee_skus(self) -> list[str]:
        """Name the SKUs that have base fees, in order."""
        return sorted({fee.sku for fee in self.fees})

    def base_at(self, sku: str, rate: Decimal | None) -> Decimal:
        """Sum the base fees of a SKU that are taxed at a rate."""
        return total(fee.amount for fee in self.fees if (fee.sku, fee.rate) == (sku, rate))

    def terms_hash(self) -> str:
        """Give one hash for all terms: the SHA-256 of the JSON of `{sku: terms_hash}`, SKUs in order."""
        hashes = {fee.sku: fee.terms_hash for fee in self.fees}
        hashes |= {sku: priced.terms_hash for sku, priced in self.priced.items()}
        return _sha256(dict(sorted(hashes.items()))).hex()

    def cache_key(self, inputs: Inputs) -> bytes:
        """Give the hash of everything the answer depends on, so that no change can answer from the cache."""
        taxes = {sku: str(priced.tax_at(self.minute).rate) for sku, priced in sorted(self.priced.items())}
        fees = [[fee.sku, fee.terms_hash, str(fee.amount), str(fee.rate)] for fee in self.fees]
        versions = {sku: counter.version for sku, counter in sorted(self.counters.items())}
        period = self.period if versions else None
        return _sha256([inputs.plain(), self.terms_hash(), taxes, fees, period, versions])


def _sha256(value: object) -> bytes:
    return hashlib.sha256(json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()).digest()


def basis_of(inputs: Inputs, prices: OrgPrices, minute: datetime) -> tuple[Basis, set[str]]:
    """Find what prices each SKU now and which base fees the period has; and the terms (by hash) that aren't here.

    CurrenciesDiffer; what nothing prices is left out.
    """
    period = prices.period_of(minute)
    found: list[object] = [prices.priced(sku, period) for sku in inputs.skus]
    priced = {sku: one for sku, one in zip(inputs.skus, found, strict=True) if isinstance(one, Priced)}
    charged = prices.base_fees(period)
    found.append(charged)
    fees: tuple[Fee, ...] = ()
    if not isinstance(charged, TermsMissing):
        taxed = [(fee, prices.priced(fee.sku, period)) for fee in charged]
        fees = tuple(_fee(fee, one) for fee, one in taxed if isinstance(one, Priced))
        found += [one for _, one in taxed]
    missing = {one for terms in found if isinstance(terms, TermsMissing) for one in terms.hashes}
    currencies = {one.terms.currency for one in priced.values()} | {fee.terms.currency for fee in fees}
    if len(currencies) > 1:
        raise CurrenciesDiffer(currencies=sorted(currencies))
    currency = currencies.pop() if currencies else prices.org_terms.at(minute).currency
    return Basis(currency, period, minute, priced, fees, {}), missing


def _fee(fee: BaseFee, priced: Priced) -> Fee:
    return Fee(fee.sku, fee.terms_hash, fee.terms, fee.amount, priced.tax_at(fee.at).rate)


def impossible(unpriced: Iterable[str], known_skus: Container[str]) -> EstimateImpossible:
    """Say of each SKU that nothing prices whether it is known, pointing at it."""
    return EstimateImpossible(
        faults=tuple(
            Fault(f"/skus/{_escaped(sku)}", "no_terms", "Nothing prices this SKU for the organisation.")
            if sku in known_skus
            else Fault(f"/skus/{_escaped(sku)}", "unknown_sku", "There is no such SKU.")
            for sku in unpriced
        )
    )


def _escaped(name: str) -> str:
    return name.replace("~", "~0").replace("/", "~1")


def estimate(inputs: Inputs, basis: Basis) -> dict[str, Any]:
    """Estimate; plain JSON with money and numbers as text, the same for the same inputs and basis.

    From current usage the base fees are a part of what was charged already, and nothing comes to them.
    EstimateTooLarge beyond what can be billed.
    """
    bases = [] if inputs.from_current_usage else [_base_line(sku, basis) for sku in basis.fee_skus()]
    lines = [_line(sku, uses, inputs, basis) for sku, uses in sorted(inputs.skus.items())]
    base = total(due for _, due, _ in bases)
    return {
        "currency": basis.currency,
        "base": money_text(base, basis.currency),
        "base_lines": [line for line, _, _ in bases],
        "lines": [line for line, _, _ in lines],
        "grand_total": money_text(base + total(due for _, due, _ in lines), basis.currency),
        "tax_total": money_text(total(tax for _, _, tax in (*bases, *lines)), basis.currency),
        "terms_hash": basis.terms_hash(),
    }


def total(amounts: Iterable[Decimal]) -> Decimal:
    """Sum amounts, exactly."""
    return reduce(EXACT.add, amounts, ZERO)


Told = tuple[dict[str, Any], Decimal, Decimal]
"""A line, its total and its tax."""


def _base_line(sku: str, basis: Basis) -> Told:
    """Tell the base fee of a hosting SKU; tax telescopes per rate, as charges do."""
    fees = [fee for fee in basis.fees if fee.sku == sku]
    due = total(fee.amount for fee in fees)
    tax = total(
        tax_target(basis.base_at(sku, rate), fees[-1].terms, rate) for rate in {fee.rate for fee in fees}
    )
    line = {
        "sku": sku,
        "total": money_text(due, basis.currency),
        "tax": money_text(tax, basis.currency),
        "terms_hash": fees[-1].terms_hash,
    }
    return line, due, tax


def _line(sku: str, uses: Decimal, inputs: Inputs, basis: Basis) -> Told:
    """Estimate one SKU.

    What is used already costs what it would without the rest, so the total is what the rest adds.
    """
    priced, start = basis.priced[sku], basis.counters.get(sku, NOTHING)
    quantity = EXACT.multiply(uses, Decimal(inputs.leads))
    events = inputs.leads if quantity else 0
    after = breakdown_closed(EXACT.add(start.quantity, quantity), start.events + events, priced.terms)
    if after.quantity >= BOUND or after.amount >= BOUND:
        raise EstimateTooLarge(
            faults=(Fault(f"/skus/{_escaped(sku)}", "too_large", "Too much to be billed."),)
        )
    already = target_closed(start.quantity, start.events, priced.terms) if inputs.from_current_usage else ZERO
    overage = EXACT.subtract(after.billable, max(ZERO, EXACT.subtract(start.quantity, priced.terms.included)))
    tax = _tax(sku, after.amount, basis) - _tax(sku, already, basis)
    line = {
        "sku": sku,
        "quantity": plain_text(quantity),
        "included": plain_text(EXACT.subtract(quantity, overage)),
        "overage": plain_text(overage),
        "already": money_text(already, basis.currency),
        "total": money_text(after.amount - already, basis.currency),
        "tax": money_text(tax, basis.currency),
        "limit": after.limit,
        "terms_hash": priced.terms_hash,
        "tiers": [_tier(tier) for tier in after.tiers],
    }
    return line, after.amount - already, tax


def _tax(sku: str, amount: Decimal, basis: Basis) -> Decimal:
    """Give the tax on a SKU's amount now, on top of its base fees at the same rate."""
    priced = basis.priced[sku]
    rate = priced.tax_at(basis.minute).rate
    return tax_target(EXACT.add(basis.base_at(sku, rate), amount), priced.terms, rate)


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
