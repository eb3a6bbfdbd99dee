"""Terms of one SKU: everything that decides its price, with the tables that make rating quick."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Context, Decimal
from typing import Any, Literal, cast

from .exact import ROUNDERS, ZERO, Rounding, exact_decimal
from .tables import Table, table_of

Mode = Literal[
    "per_unit", "graduated", "volume", "package", "stairstep", "stairstep_cumulative",
    "percentage", "graduated_percentage",
]  # fmt: skip


@dataclass(frozen=True, slots=True)
class Tier:
    """One tier; `up_to` is inclusive, None is the open end. `price` is per unit, or the rate of a percentage."""

    up_to: Decimal | None
    price: Decimal = ZERO
    flat_fee: Decimal = ZERO


@dataclass(frozen=True, slots=True)
class Terms:
    """The price of one SKU, immutable (docs/rules/pricing.md, Words; Price shapes).

    Every shape is tiers: per_unit, package and percentage have one. For package, `package_size` units
    cost the tier's `price`; for percentages `fixed_fee` is due per event. `minor_digits` are the
    currency's decimals; `tax_rate` is a fraction, None without tax.
    """

    currency: str
    minor_digits: int
    included: Decimal
    mode: Mode
    tiers: tuple[Tier, ...]
    package_size: Decimal | None = None
    fixed_fee: Decimal = ZERO
    minimum: Decimal | None = None
    maximum: Decimal | None = None
    flat_on_zero: bool = False
    rounding: Rounding = "half_up"
    tax_code: str | None = None
    tax_rate: Decimal | None = None
    sku_type: str | None = None
    table: Table = field(init=False, repr=False, compare=False)
    unit: Decimal = field(init=False, repr=False, compare=False)
    rounder: Context = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Make the cumulative tables once, so that a rate is one look-up, one product and one rounding."""
        object.__setattr__(self, "table", table_of(self.mode, self.tiers))
        object.__setattr__(self, "unit", Decimal(1).scaleb(-self.minor_digits))
        object.__setattr__(self, "rounder", ROUNDERS[self.rounding])


def from_plain(body: Mapping[str, Any]) -> Terms:
    """Read terms from plain data: numbers as Decimal, int or str, the members of the announced terms' body.

    KeyError, TypeError or ValueError for data that no terms were ever written with; a float is refused.
    """
    shape: Mapping[str, Any] = body.get("tiers") or {"mode": "per_unit", "unit_price": body["overage_price"]}
    return Terms(
        currency=body["currency"],
        minor_digits=body["minor_digits"],
        rounding=body.get("rounding", "half_up"),
        included=exact_decimal(body["included_qty"]),
        mode=cast(Mode, shape["mode"]),
        tiers=_tiers(shape),
        package_size=_optional(shape, "package_size"),
        fixed_fee=_optional(shape, "fixed_fee") or ZERO,
        minimum=_optional(shape, "minimum"),
        maximum=_optional(shape, "maximum"),
        flat_on_zero=bool(shape.get("flat_on_zero")),
        tax_code=body.get("tax_code"),
        tax_rate=_optional(body, "tax_rate"),
        sku_type=body.get("sku_type"),
    )


_PRICE_MEMBER = {"per_unit": "unit_price", "package": "package_price", "percentage": "rate"}


def _tiers(shape: Mapping[str, Any]) -> tuple[Tier, ...]:
    single = _PRICE_MEMBER.get(shape["mode"])
    if single is not None:
        return (Tier(None, exact_decimal(shape[single])),)
    return tuple(_tier(tier) for tier in shape["tiers"])


def _tier(tier: Mapping[str, Any]) -> Tier:
    price = _optional(tier, "unit_price")
    rate = _optional(tier, "rate")
    return Tier(_optional(tier, "up_to"), price or rate or ZERO, _optional(tier, "flat_fee") or ZERO)


def _optional(plain: Mapping[str, Any], member: str) -> Decimal | None:
    value = plain.get(member)
    return None if value is None else exact_decimal(value)
