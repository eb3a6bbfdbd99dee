"""What an organisation pays at an instant, found by the same look-ups that rating uses.

Rule: docs/rules/catalog.md, Terms.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from eb_contracts.catalog import OrgTermsAssigned, RetailTermsAssigned
from eb_contracts.errors import NotFound
from eb_rating import resolve


@dataclass(frozen=True, slots=True)
class InForce:
    """By SKU: the hash that prices it for the whole period, and the hash whose tax rate counts at the instant."""

    plan_id: UUID
    version: int
    period: str
    currency: str
    priced_by: dict[str, str]
    taxed_by: dict[str, str]


def in_force(
    announced: OrgTermsAssigned, retail: Iterable[RetailTermsAssigned], instant: datetime
) -> InForce:
    """Give what holds at an instant; NotFound before the first assignment."""
    held = [one for one in announced.assignments if one.effective_at <= instant]
    if not held:
        raise NotFound
    org_terms = resolve.org_terms_from_plain([one.model_dump() for one in announced.assignments])
    defaults = {
        fact.retail_key: resolve.retail_from_plain(fact.model_dump()["assignments"]) for fact in retail
    }
    period = resolve.period_of(org_terms, instant)
    names = {sku for one in announced.assignments for sku in one.hashes}
    names |= {sku for steps in defaults.values() for step in steps for sku in step.hashes}
    found = {sku: resolve.price_terms(org_terms, defaults, sku, period) for sku in sorted(names)}
    priced_by = {sku: one.terms_hash for sku, one in found.items() if one is not None}
    return InForce(
        plan_id=held[-1].plan_id,
        version=held[-1].plan_version,
        period=period,
        currency=held[-1].currency,
        priced_by=priced_by,
        taxed_by={
            sku: resolve.steps_between(resolve.steps_of(org_terms, defaults, sku), instant, instant)[-1][1]
            for sku in priced_by
        },
    )
