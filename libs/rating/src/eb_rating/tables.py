"""Cumulative tables: each tiered shape as straight pieces, `price(b) = fixed + b × slope` within a tier."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from decimal import Decimal
from typing import NamedTuple, Protocol

from .exact import EXACT, ZERO


class TierLike(Protocol):
    """What a table is made from."""

    @property
    def up_to(self) -> Decimal | None: ...
    @property
    def price(self) -> Decimal: ...
    @property
    def flat_fee(self) -> Decimal: ...


class Table(NamedTuple):
    """Pieces by tier: `bounds` are the inclusive upper ends but the last, which is open."""

    bounds: tuple[Decimal, ...]
    fixed: tuple[Decimal, ...]
    slopes: tuple[Decimal, ...]


def table_of(mode: str, tiers: Sequence[TierLike]) -> Table:
    """Make the pieces of a shape; ValueError for a mode that isn't one (docs/rules/pricing.md, Price shapes)."""
    bounds = tuple(tier.up_to for tier in tiers[:-1] if tier.up_to is not None)
    flat_fees = [tier.flat_fee for tier in tiers]
    prices = tuple(tier.price for tier in tiers)
    flat = (ZERO,) * len(tiers)
    match mode:
        case "per_unit" | "package" | "percentage":
            return Table(bounds, flat, prices)
        case "graduated" | "graduated_percentage":
            return Table(bounds, _graduated(bounds, prices, flat_fees), prices)
        case "volume":
            return Table(bounds, tuple(flat_fees), prices)
        case "stairstep":
            return Table(bounds, tuple(flat_fees), flat)
        case "stairstep_cumulative":
            return Table(bounds, tuple(_running(flat_fees)), flat)
        case _:
            raise ValueError(f"no price shape is called {mode!r}")


def _running(amounts: Iterable[Decimal]) -> list[Decimal]:
    """Give the running sums."""
    total, sums = ZERO, []
    for amount in amounts:
        total = EXACT.add(total, amount)
        sums.append(total)
    return sums


def _graduated(
    bounds: Sequence[Decimal], prices: Sequence[Decimal], flat_fees: Sequence[Decimal]
) -> tuple[Decimal, ...]:
    """Give what to add to `b × price` in each tier: flat fees so far, and the change of price at each bound.

    At a bound the unit price falls or rises for what follows only, hence `bound × (before − after)`.
    """
    steps = [
        EXACT.multiply(bound, EXACT.subtract(before, after))
        for bound, before, after in zip(bounds, prices, prices[1:], strict=False)
    ]
    return tuple(_running(map(EXACT.add, flat_fees, [ZERO, *steps])))
