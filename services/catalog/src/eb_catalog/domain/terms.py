"""Resolving terms: from a timeline, plan versions, SKUs and tax rates to immutable, hashed terms per SKU.

Pure: the same inputs give the same bytes and hashes. Rule: docs/rules/catalog.md, Terms.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any, Generic, Literal, TypeVar
from uuid import UUID

from eb_contracts.catalog import Assignment, PriceShape, RetailHashes, SkuType, TermsBody
from eb_contracts.money import minor_digits

from .errors import PastRate
from .timeline import Change, Timeline

Rounding = Literal["half_up", "half_even"]
Step = TypeVar("Step", Assignment, RetailHashes)
ANYWHERE = "*"
ZERO = Decimal(0)


@dataclass(frozen=True, slots=True)
class SkuStep:
    """From `effective_at` on: the retail price per unit (None: not sold without a plan) and the tax code."""

    effective_at: datetime
    retail: Decimal | None
    tax_code: str | None


@dataclass(frozen=True, slots=True)
class Sku:
    """A product with its history, oldest step first; never without a step."""

    sku: str
    type: SkuType
    steps: tuple[SkuStep, ...]

    def at(self, instant: datetime) -> SkuStep:
        """Give the step in force; before the first, the first."""
        return next((s for s in reversed(self.steps) if s.effective_at <= instant), self.steps[0])


@dataclass(frozen=True, slots=True)
class Price:
    """What a plan or an override asks for one SKU."""

    included_qty: Decimal
    overage_price: Decimal
    tiers: PriceShape | None


@dataclass(frozen=True, slots=True)
class TaxRate:
    """A fraction by tax code and jurisdiction (a country, or `*`) from an instant on."""

    tax_code: str
    jurisdiction: str
    rate: Decimal
    effective_at: datetime


def must_not_rewrite(known: Iterable[TaxRate], wanted: TaxRate, minute: datetime) -> None:
    """Refuse a rate for the past where one is in force already, unless it says the same; PastRate.

    The first rate of a tax code and jurisdiction may lie in the past.
    """
    same = [
        rate for rate in known if (rate.tax_code, rate.jurisdiction) == (wanted.tax_code, wanted.jurisdiction)
    ]
    if same and wanted.effective_at < minute and wanted not in same:
        raise PastRate


@dataclass(frozen=True, slots=True)
class Inputs:
    """Everything that terms are made of, besides an organisation's timeline."""

    plans: Mapping[tuple[UUID, int], Mapping[str, Price]]
    skus: Mapping[str, Sku]
    taxes: tuple[TaxRate, ...]
    rounding: Rounding = "half_up"

    def tax(self, tax_code: str | None, country: str, instant: datetime) -> Decimal | None:
        """Give the rate in force: the country's own, else everybody's; None where there is none."""
        for jurisdiction in (country, ANYWHERE):
            rates = [
                rate
                for rate in self.taxes
                if (rate.tax_code, rate.jurisdiction) == (tax_code, jurisdiction)
                and rate.effective_at <= instant
            ]
            if rates:
                return max(rates, key=lambda rate: rate.effective_at).rate
        return None

    def instants(self, skus: Iterable[str], country: str) -> set[datetime]:
        """Give when anything changes that these SKUs' terms are made of."""
        steps = [step for sku in skus for step in self.skus[sku].steps]
        codes = {step.tax_code for step in steps}
        return {step.effective_at for step in steps} | {
            rate.effective_at
            for rate in self.taxes
            if rate.tax_code in codes and rate.jurisdiction in (country, ANYWHERE)
        }


@dataclass(frozen=True, slots=True)
class Resolved(Generic[Step]):
    """Steps of hashes, oldest first, and the terms that the hashes stand for."""

    steps: tuple[Step, ...]
    bodies: Mapping[str, TermsBody]


def hash_of(body: TermsBody) -> str:
    """Give the SHA-256 (hex) of the canonical JSON: sorted members, no blanks, absent members left out."""
    plain = body.model_dump(mode="json", exclude_none=True)
    text = json.dumps(plain, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


def retail_key(currency: str, country: str) -> str:
    """Name the retail defaults that an organisation has, as `AUD/AU`."""
    return f"{currency}/{country}"


def prices_of(change: Change, inputs: Inputs) -> dict[str, Price]:
    """Give the price of each SKU that the plan or an override names; each member replaces the plan's."""
    prices = dict(inputs.plans[change.plan_id, change.plan_version])
    for sku, members in change.overrides.items():
        base = prices.get(sku) or _retail_price(inputs.skus[sku].at(change.effective_at))
        if base is not None or members.keys() & {"overage_price", "tiers"}:
            prices[sku] = _overridden(base or Price(ZERO, ZERO, None), members)
    return prices


def _retail_price(step: SkuStep) -> Price | None:
    return None if step.retail is None else Price(ZERO, step.retail, None)


def _overridden(base: Price, members: Mapping[str, Any]) -> Price:
    """A price per unit replaces tiers, and tiers replace a price per unit."""
    included = Decimal(members["included_qty"]) if "included_qty" in members else base.included_qty
    if members.get("tiers") is not None:
        return Price(included, ZERO, PriceShape.model_validate(members["tiers"]))
    if "overage_price" in members:
        return Price(included, Decimal(members["overage_price"]), None)
    return Price(included, base.overage_price, base.tiers)


def body_of(
    sku: Sku, price: Price, currency: str, country: str, instant: datetime, inputs: Inputs
) -> TermsBody:
    """Put together the terms of one SKU as they are at an instant."""
    tax_code = sku.at(instant).tax_code
    return TermsBody(
        sku=sku.sku,
        sku_type=sku.type,
        currency=currency,
        minor_digits=minor_digits(currency),
        rounding=inputs.rounding,
        included_qty=price.included_qty,
        overage_price=price.overage_price,
        tiers=price.tiers,
        tax_code=tax_code,
        tax_rate=inputs.tax(tax_code, country, instant),
    )


def resolve(timeline: Timeline, inputs: Inputs) -> Resolved[Assignment]:
    """Give all assignments of an organisation; a new one begins wherever a hash or the plan's change does."""
    steps: list[Assignment] = []
    bodies: dict[str, TermsBody] = {}
    for change, end in _spans(timeline):
        prices = prices_of(change, inputs)
        for instant in _cuts(change.effective_at, end, inputs.instants(prices, change.country)):
            found = {
                sku: body_of(inputs.skus[sku], price, change.currency, change.country, instant, inputs)
                for sku, price in prices.items()
            }
            step = _assignment(change, instant, {sku: hash_of(body) for sku, body in sorted(found.items())})
            bodies |= {step.hashes[sku]: body for sku, body in found.items()}
            if not steps or step.model_copy(update={"effective_at": steps[-1].effective_at}) != steps[-1]:
                steps.append(step)
    return Resolved(tuple(steps), bodies)


def _assignment(change: Change, instant: datetime, hashes: dict[str, str]) -> Assignment:
    return Assignment(
        effective_at=instant,
        plan_id=change.plan_id,
        plan_version=change.plan_version,
        currency=change.currency,
        time_zone=change.time_zone,
        hashes=hashes,
        retail_key=retail_key(change.currency, change.country),
    )


def _spans(timeline: Timeline) -> Iterator[tuple[Change, datetime | None]]:
    """Give each change with where the next one begins; none for an organisation that was never on a plan."""
    ends = [change.effective_at for change in timeline[1:]]
    return zip(timeline, [*ends, None], strict=False)


def _cuts(start: datetime, end: datetime | None, instants: set[datetime]) -> list[datetime]:
    """Give `start` and the instants after it and before `end`, in order."""
    return [start, *sorted(i for i in instants if i > start and (end is None or i < end))]


def resolve_retail(currency: str, country: str, inputs: Inputs) -> Resolved[RetailHashes]:
    """Give the retail defaults of a currency and country; SKUs without a retail price are left out."""
    steps: list[RetailHashes] = []
    bodies: dict[str, TermsBody] = {}
    begin = min((sku.steps[0].effective_at for sku in inputs.skus.values()), default=None)
    if begin is None:
        return Resolved((), {})
    for instant in _cuts(begin, None, inputs.instants(inputs.skus, country)):
        found = dict(_retail_bodies(currency, country, instant, inputs))
        hashes = {sku: hash_of(body) for sku, body in sorted(found.items())}
        bodies |= {hashes[sku]: body for sku, body in found.items()}
        if hashes and (not steps or steps[-1].hashes != hashes):
            steps.append(RetailHashes(effective_at=instant, hashes=hashes))
    return Resolved(tuple(steps), bodies)


def _retail_bodies(
    currency: str, country: str, instant: datetime, inputs: Inputs
) -> Iterator[tuple[str, TermsBody]]:
    for sku in inputs.skus.values():
        price = _retail_price(sku.at(instant)) if sku.steps[0].effective_at <= instant else None
        if price is not None:
            yield sku.sku, body_of(sku, price, currency, country, instant, inputs)
