"""What the catalog's doors take and answer."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import AfterValidator, BeforeValidator, Field, StringConstraints
from pydantic_core import PydanticCustomError

from eb_contracts.base import Body
from eb_contracts.catalog import PriceShape, SkuType, TermsBody
from eb_kit.inputs import (
    CurrencyIn,
    Digits,
    Input,
    MinuteInstant,
    Page,
    Price,
    PriceIn,
    Quantity,
    QuantityIn,
    Text,
    View,
)

from ..domain import terms
from ..domain.products import Entitlement, Model, OrgModel, Plan, Prices, Product

Name = Annotated[str, Text(1, 200)]
Notes = Annotated[str, Text(0, 2000)]
SkuName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
TaxCode = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,31}$")]
Jurisdiction = Annotated[str, StringConstraints(pattern=r"^([A-Z]{2}|\*)$")]
Fraction = Annotated[Decimal, BeforeValidator(Digits(1, 6)), Field(le=1)]
Apply = Literal["next_period", "immediate"]


def _sku_metadata(metadata: dict[str, Any]) -> dict[str, Any]:
    if not isinstance(metadata.get("prepaid_only", False), bool):
        raise PydanticCustomError("wrong_type", "prepaid_only must be true or false.")
    return metadata


class PutSku(Input):
    """A SKU. `retail` is the price per unit where no plan names the SKU; without it, it needs a plan.

    `metadata.prepaid_only` true: authorize allows its use only as far as prepaid credit goes.
    """

    type: SkuType
    unit: Annotated[str, Text(1, 64)]
    cost: PriceIn | None = None
    retail: PriceIn | None = None
    tax_code: TaxCode | None = None
    metadata: Annotated[dict[str, Any], Field(max_length=64), AfterValidator(_sku_metadata)] = Field(
        default_factory=dict
    )


class SkuView(View):
    """A SKU."""

    sku: str
    type: SkuType
    unit: str
    cost: Price | None
    retail: Price | None
    tax_code: str | None
    metadata: dict[str, Any]
    created_at: datetime

    @classmethod
    def of(cls, product: Product) -> SkuView:
        """Show a SKU."""
        return cls(**{name: getattr(product, name) for name in cls.model_fields})


class PutTaxRate(Input):
    """A tax rate, a fraction ("0.10"), of a country or of all (`*`) from an instant on."""

    tax_code: TaxCode
    jurisdiction: Jurisdiction
    rate: Fraction
    effective_at: MinuteInstant


class TaxRateView(View):
    """A tax rate."""

    tax_code: str
    jurisdiction: str
    rate: Quantity
    effective_at: datetime

    @classmethod
    def of(cls, rate: terms.TaxRate) -> TaxRateView:
        """Show a tax rate."""
        return cls(
            tax_code=rate.tax_code,
            jurisdiction=rate.jurisdiction,
            rate=rate.rate,
            effective_at=rate.effective_at,
        )


class TaxRateList(Page):
    """Which tax rates to list."""

    tax_code: TaxCode | None = None
    jurisdiction: Jurisdiction | None = None


class CreateModel(Input):
    """A business model: a currency, and the plans priced in it."""

    code: Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9_-]{0,62}$")]
    name: Name
    currency: CurrencyIn


class PatchModel(Input):
    """What changes of a business model."""

    name: Name | None = None
    status: Literal["active", "retired"] | None = None
    default_plan_id: UUID | None = None


class ModelView(View):
    """A business model; `version` rises with each change."""

    model_id: UUID
    code: str
    name: str
    status: str
    version: int
    currency: str
    default_plan_id: UUID | None
    created_at: datetime

    @classmethod
    def of(cls, model: Model) -> ModelView:
        """Show a business model."""
        return cls(**{name: getattr(model, name) for name in cls.model_fields})


class CreatePlan(Input):
    """A plan of a business model; it is a draft until published."""

    model_id: UUID
    name: Name
    tier: Name
    notes: Notes | None = None


class PatchPlan(Input):
    """What changes of a plan; a retired one takes no new organisations and stays with those it has."""

    name: Name | None = None
    tier: Name | None = None
    notes: Notes | None = None
    status: Literal["published", "retired"] | None = None


class PlanList(Page):
    """Which plans to list."""

    model_id: UUID | None = None


class PriceTier(Input):
    """A tier; `up_to` is inclusive, null is the open end."""

    up_to: QuantityIn | None
    unit_price: PriceIn | None = None
    rate: PriceIn | None = None
    flat_fee: PriceIn | None = None


class PriceTiers(Input):
    """A price shape; which members a mode has is said under Price shapes."""

    mode: Literal[
        "per_unit",
        "graduated",
        "volume",
        "package",
        "stairstep",
        "stairstep_cumulative",
        "percentage",
        "graduated_percentage",
    ]
    tiers: list[PriceTier] | None = None
    unit_price: PriceIn | None = None
    package_size: QuantityIn | None = None
    package_price: PriceIn | None = None
    rate: PriceIn | None = None
    fixed_fee: PriceIn | None = None
    minimum: PriceIn | None = None
    maximum: PriceIn | None = None
    flat_on_zero: bool | None = None

    def shape(self) -> PriceShape:
        """Give the shape with exactly the members that were sent."""
        return PriceShape.model_validate(self.model_dump(exclude_unset=True))


class PutPlanSku(Input):
    """What a plan asks for a SKU: a price per unit beyond what is included, or tiers."""

    included_qty: QuantityIn = Decimal(0)
    overage_price: PriceIn | None = None
    tiers: PriceTiers | None = None


class PlanSkuView(View):
    """A SKU in a plan's draft."""

    plan_id: UUID
    sku: str
    included_qty: Quantity
    overage_price: Price
    tiers: dict[str, Any] | None
    draft_version: int


class PlanView(View):
    """A plan. `version` is the published one, 0 before; `skus` are the draft's for operators while one is open."""

    plan_id: UUID
    model_id: UUID
    name: str
    tier: str
    status: str
    notes: str | None
    version: int
    draft_version: int | None
    skus: dict[str, dict[str, Any]]
    created_at: datetime

    @classmethod
    def of(cls, plan: Plan, prices: Prices) -> PlanView:
        """Show a plan with its prices."""
        own = {
            name: getattr(plan, name) for name in cls.model_fields if name not in ("skus", "draft_version")
        }
        return cls(
            **own,
            draft_version=plan.draft_version,
            skus={sku: plain_price(price) for sku, price in prices.items()},
        )


class Publish(Input):
    """How a published version is taken up by the organisations on the plan."""

    apply: Apply = "next_period"


class PublishedView(View):
    """The version that was published."""

    plan_id: UUID
    version: int


class Override(Input):
    """What an organisation has instead of the plan's; members not sent stay the plan's."""

    included_qty: QuantityIn | None = None
    overage_price: PriceIn | None = None
    tiers: PriceTiers | None = None


class PutEntitlement(Input):
    """Overrides by SKU. `effective_at` is rounded up to a period's start unless `apply` is immediate."""

    overrides: Annotated[dict[SkuName, Override], Field(max_length=500)] = Field(default_factory=dict)
    effective_at: MinuteInstant | None = None
    apply: Apply = "next_period"


class EntitlementView(View):
    """An organisation's entitlement to a plan."""

    org_id: UUID
    plan_id: UUID
    overrides: dict[str, dict[str, Any]]
    effective_at: datetime

    @classmethod
    def of(cls, entitlement: Entitlement) -> EntitlementView:
        """Show an entitlement."""
        return cls(
            org_id=entitlement.org_id,
            plan_id=entitlement.plan_id,
            overrides={sku: dict(members) for sku, members in entitlement.overrides.items()},
            effective_at=entitlement.effective_at,
        )


class PutOrgModel(Input):
    """On which plan of which business model an organisation is; without `plan_id` the model's default plan."""

    model_id: UUID
    plan_id: UUID | None = None
    notes: Notes | None = None
    apply: Apply = "next_period"


class OrgModelView(View):
    """The plan that an organisation was put on last, and from when it holds."""

    org_id: UUID
    model_id: UUID
    plan_id: UUID
    assigned_by: str
    assigned_at: datetime
    notes: str | None
    effective_at: datetime

    @classmethod
    def of(cls, assigned: OrgModel) -> OrgModelView:
        """Show an assignment."""
        return cls(**{name: getattr(assigned, name) for name in cls.model_fields})


class TermsAt(Input):
    """At which instant; now without it."""

    at: datetime | None = None


class SkuTermsView(View):
    """The resolved terms of one SKU; their hash stands on every charge that was rated with them."""

    included_qty: Quantity
    overage_price: Price
    tiers: dict[str, Any] | None
    tax_rate: Quantity | None
    terms_hash: str


class TermsView(View):
    """What an organisation pays in a period."""

    org_id: UUID
    plan_id: UUID
    version: int
    period: str
    currency: str
    skus: dict[str, SkuTermsView]


def plain_price(price: terms.Price) -> dict[str, Any]:
    """Write a price as it was given: numbers as text, members of tiers that weren't sent left out."""
    return {
        "included_qty": price.included_qty,
        "overage_price": price.overage_price,
        "tiers": plain_shape(price.tiers),
    }


def plain_shape(shape: Body | None) -> dict[str, Any] | None:
    """Write a price shape with exactly the members that were sent."""
    return None if shape is None else shape.model_dump(mode="json", exclude_unset=True)


def sku_terms(terms_hash: str, body: TermsBody, tax_rate: Decimal | None) -> SkuTermsView:
    """Show the terms of one SKU with the tax rate at the asked instant."""
    return SkuTermsView(
        included_qty=body.included_qty,
        overage_price=body.overage_price,
        tiers=plain_shape(body.tiers),
        tax_rate=tax_rate,
        terms_hash=terms_hash,
    )
