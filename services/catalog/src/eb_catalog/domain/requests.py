"""Checks of what plans and overrides ask for, with a pointer to each fault."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from decimal import Decimal
from typing import Any

from eb_contracts.catalog import PriceShape
from eb_contracts.errors import Fault
from eb_contracts.money import plain_text

from .errors import Unacceptable
from .shapes import faults_of_shape
from .terms import ZERO, Price


def price_from(
    included_qty: Decimal, overage_price: Decimal | None, shape: PriceShape | None, pointer: str = ""
) -> Price:
    """Give a plan's price; Unacceptable where it is malformed, or has a price per unit beside tiers or neither."""
    faults = tuple(_faults_of_price(overage_price, shape, pointer))
    if faults:
        raise Unacceptable(faults=faults)
    return Price(included_qty, overage_price or ZERO, shape)


def _faults_of_price(
    overage_price: Decimal | None, shape: PriceShape | None, pointer: str
) -> Iterator[Fault]:
    if shape is None and overage_price is None:
        yield Fault(f"{pointer}/overage_price", "required", "Say overage_price or tiers.")
    if shape is not None and overage_price:
        yield Fault(f"{pointer}/overage_price", "tiers_and_price", "With tiers there is no overage_price.")
    if shape is not None:
        yield from faults_of_shape(shape, f"{pointer}/tiers")


def override_from(sent: Mapping[str, Any], shape: PriceShape | None, sku: str) -> dict[str, Any]:
    """Give an override as it is kept: only members that were sent, numbers as text. Unacceptable if malformed."""
    pointer = f"/overrides/{sku}"
    faults = [
        *(Fault(f"{pointer}/{name}", "required", "Leave it out, or say what.") for name in _empty(sent)),
        *_faults_of_price(sent.get("overage_price") if "tiers" in sent else ZERO, shape, pointer),
    ]
    if faults:
        raise Unacceptable(faults=tuple(faults))
    kept: dict[str, Any] = {name: plain_text(sent[name]) for name in _numbers(sent)}
    if "tiers" in sent:
        kept["tiers"] = None if shape is None else shape.model_dump(mode="json", exclude_unset=True)
    return kept


def _numbers(sent: Mapping[str, Any]) -> list[str]:
    return [name for name in ("included_qty", "overage_price") if name in sent]


def _empty(sent: Mapping[str, Any]) -> list[str]:
    return [name for name in _numbers(sent) if sent[name] is None]


def must_know(unknown: Collection[str]) -> None:
    """Refuse overrides of SKUs that don't exist."""
    if unknown:
        raise Unacceptable(
            faults=tuple(
                Fault(f"/overrides/{sku}", "unknown_sku", "There is no such SKU.") for sku in unknown
            )
        )
