"""Products, business models and plans as the catalog keeps them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any, Literal
from uuid import UUID

from eb_contracts.catalog import SkuChanged, SkuType

from .errors import SkuFixed
from .terms import Price, SkuStep


@dataclass(frozen=True, slots=True)
class Product:
    """A SKU as it is now; `cost` and `retail` are per unit, in the currency of the model that uses it."""

    sku: str
    type: SkuType
    unit: str
    cost: Decimal | None
    retail: Decimal | None
    tax_code: str | None
    metadata: Mapping[str, Any]
    version: int
    created_at: datetime

    def fact(self) -> SkuChanged:
        """Give what other services hear of it."""
        prepaid_only = self.metadata.get("prepaid_only") is True
        return SkuChanged(
            version=self.version, sku=self.sku, type=self.type, unit=self.unit, prepaid_only=prepaid_only
        )


@dataclass(frozen=True, slots=True)
class Model:
    """A business model; everything priced under it is in its currency."""

    model_id: UUID
    code: str
    name: str
    status: Literal["active", "retired"]
    version: int
    currency: str
    default_plan_id: UUID | None
    created_at: datetime


@dataclass(frozen=True, slots=True)
class Plan:
    """A plan. `version` is the newest published one, 0 before; `is_draft_open`: SKUs differ from it."""

    plan_id: UUID
    model_id: UUID
    name: str
    tier: str
    status: Literal["draft", "published", "retired"]
    notes: str | None
    version: int
    is_draft_open: bool
    created_at: datetime

    @property
    def draft_version(self) -> int | None:
        """Give the version that the open draft will be."""
        return self.version + 1 if self.is_draft_open else None


@dataclass(frozen=True, slots=True)
class Entitlement:
    """What an organisation has of a plan beside what the plan says; from `effective_at` on."""

    org_id: UUID
    plan_id: UUID
    overrides: Mapping[str, Mapping[str, Any]]
    effective_at: datetime


@dataclass(frozen=True, slots=True)
class OrgModel:
    """Which business model and plan an organisation was put on last."""

    org_id: UUID
    model_id: UUID
    plan_id: UUID
    assigned_by: str
    assigned_at: datetime
    notes: str | None
    effective_at: datetime


Prices = Mapping[str, Price]
"""The prices of a plan's version by SKU."""


def must_stay(known: Product | None, wanted: Product) -> None:
    """Refuse another type or unit for a SKU that exists; SkuFixed."""
    if known is not None and (known.type, known.unit) != (wanted.type, wanted.unit):
        raise SkuFixed


def next_step(
    known: Product | None, steps: tuple[SkuStep, ...], wanted: Product, at_once: datetime, later: datetime
) -> SkuStep | None:
    """Give the step of history that a changed SKU opens; None where neither price nor tax changes.

    A first price holds at once; another one, or another tax code, from the next period in every time zone.
    """
    if known is not None and (known.retail, known.tax_code) == (wanted.retail, wanted.tax_code):
        return None
    is_first_price = all(step.retail is None for step in steps)
    since = at_once if known is None or is_first_price else later
    return SkuStep(since, wanted.retail, wanted.tax_code)
