"""Facts of the catalog: SKUs, terms by content hash, and which terms each organisation has from when."""

from __future__ import annotations

from datetime import datetime
from typing import Literal
from uuid import UUID

from .base import Body, EntityFact, Number, register

SkuType = Literal["hosting", "object", "validation", "action", "analytics"]


@register
class SkuChanged(EntityFact):
    """A product that can be metered; with `prepaid_only` its use is to be allowed only as far as credit goes."""

    TYPE = "catalog.sku.changed.v1"
    ENTITY = "sku"
    sku: str
    type: SkuType
    unit: str
    prepaid_only: bool = False

    @property
    def entity_id(self) -> str:
        return self.sku


class Tier(Body):
    """One tier; `up_to` is inclusive, None is the open end. `unit_price` or `rate` by the mode."""

    up_to: Number | None
    unit_price: Number | None = None
    rate: Number | None = None
    flat_fee: Number | None = None


class PriceShape(Body):
    """`plan_sku.tiers`, checked by the catalog (docs/rules/pricing.md, Price shapes)."""

    mode: Literal[
        "per_unit", "graduated", "volume", "package", "stairstep", "stairstep_cumulative",
        "percentage", "graduated_percentage",
    ]  # fmt: skip
    tiers: tuple[Tier, ...] | None = None
    unit_price: Number | None = None
    package_size: Number | None = None
    package_price: Number | None = None
    rate: Number | None = None
    fixed_fee: Number | None = None
    minimum: Number | None = None
    maximum: Number | None = None
    flat_on_zero: bool | None = None


class TermsBody(Body):
    """Everything that decides a price of one SKU. Its canonical JSON has the hash.

    `minor_digits` are the currency's decimals; `tax_rate` is a fraction ("0.10"), None without tax.
    """

    sku: str
    sku_type: SkuType
    currency: str
    minor_digits: int
    rounding: Literal["half_up", "half_even"] = "half_up"
    included_qty: Number
    overage_price: Number
    tiers: PriceShape | None = None
    tax_code: str | None = None
    tax_rate: Number | None = None


@register
class TermsDefined(EntityFact):
    """Terms by content: announced once, never changed (`version` is always 1)."""

    TYPE = "catalog.terms.defined.v1"
    ENTITY = "terms"
    terms_hash: str
    body: TermsBody

    @property
    def entity_id(self) -> str:
        return self.terms_hash


class Assignment(Body):
    """From `effective_at` on: one currency, and the hash per SKU that the plan or an override names.

    A SKU not in `hashes` has the retail terms of `retail_key`.
    """

    effective_at: datetime
    plan_id: UUID
    plan_version: int
    currency: str
    time_zone: str
    hashes: dict[str, str]
    retail_key: str


@register
class OrgTermsAssigned(EntityFact):
    """All assignments of one organisation, oldest first."""

    TYPE = "catalog.org_terms.assigned.v1"
    ENTITY = "org_terms"
    org_id: UUID
    assignments: tuple[Assignment, ...]

    @property
    def entity_id(self) -> str:
        return str(self.org_id)


class RetailHashes(Body):
    """From `effective_at` on: the hash of the retail terms per SKU."""

    effective_at: datetime
    hashes: dict[str, str]


@register
class RetailTermsAssigned(EntityFact):
    """Retail defaults of one currency and jurisdiction (`retail_key`, as `AUD/AU`)."""

    TYPE = "catalog.retail_terms.assigned.v1"
    ENTITY = "retail_terms"
    retail_key: str
    assignments: tuple[RetailHashes, ...]

    @property
    def entity_id(self) -> str:
        return self.retail_key


class PlaceTerms(Body):
    """A plan's terms where one jurisdiction's tax rates hold; a SKU not in `hashes` has those of `retail_key`."""

    retail_key: str
    assignments: tuple[RetailHashes, ...]


@register
class PlanTermsDefined(EntityFact):
    """What a plan asks of whoever is put on it now; with an organisation's overrides where `org_id` is set.

    `places` are countries with tax rates of their own and `*`, all others. An unpublished plan has version 0
    and no places; only a published one can be assigned.
    """

    TYPE = "catalog.plan_terms.defined.v1"
    ENTITY = "plan_terms"
    plan_id: UUID
    org_id: UUID | None = None
    plan_version: int
    status: Literal["draft", "published", "retired"]
    currency: str
    places: dict[str, PlaceTerms]

    @property
    def entity_id(self) -> str:
        return plan_terms_id(self.plan_id, self.org_id)


def plan_terms_id(plan_id: UUID, org_id: UUID | None = None) -> str:
    """Name the terms of a plan, or of a plan with an organisation's overrides."""
    return f"{plan_id}/{org_id}" if org_id else str(plan_id)
