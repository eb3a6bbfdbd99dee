"""Any terms and any usage that the doors let in, for hypothesis."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from hypothesis import strategies as st

MODES = (
    "per_unit", "graduated", "volume", "package", "stairstep", "stairstep_cumulative",
    "percentage", "graduated_percentage",
)  # fmt: skip


def numbers(digits: int, places: int, smallest: str = "0") -> st.SearchStrategy[str]:
    """Plain decimal texts, small ones and ones at the edge of the allowed length."""
    top = Decimal(10) ** digits - Decimal(1).scaleb(-places)
    small = st.decimals(smallest, min(top, Decimal(1000)), places=min(places, 3))
    return st.one_of(small, st.decimals(smallest, top, places=places)).map(lambda number: format(number, "f"))


prices = numbers(12, 18)
fees = st.one_of(st.just("0"), numbers(6, 3))
quantities = numbers(18, 6, "0.000001").map(Decimal)


@st.composite
def tier_lists(draw: st.DrawFn, *members: str) -> list[dict[str, Any]]:
    raw = draw(st.sets(numbers(9, 6, "0.000001").map(Decimal), max_size=5))
    bounds = [format(bound, "f") for bound in sorted(raw)] + [None]
    return [{"up_to": bound} | {name: draw(PRICED[name]) for name in members} for bound in bounds]


PRICED = {"unit_price": prices, "rate": numbers(1, 18), "flat_fee": fees}


@st.composite
def shapes(draw: st.DrawFn, mode: str) -> dict[str, Any]:
    match mode:
        case "per_unit":
            shape = {"unit_price": draw(prices)}
        case "package":
            shape = {"package_size": draw(numbers(9, 6, "0.000001")), "package_price": draw(prices)}
        case "percentage":
            shape = {"rate": draw(numbers(1, 18)), "fixed_fee": draw(fees)}
        case "graduated" | "volume":
            shape = {"tiers": draw(tier_lists("unit_price", "flat_fee"))}
        case "graduated_percentage":
            shape = {"tiers": draw(tier_lists("rate", "flat_fee"))}
        case _:
            shape = {"tiers": draw(tier_lists("flat_fee"))}
    return {"mode": mode, **shape, **draw(limits())}


@st.composite
def limits(draw: st.DrawFn) -> dict[str, Any]:
    low, high = sorted(draw(st.tuples(numbers(6, 3), numbers(9, 3))), key=Decimal)
    given = {"minimum": low, "maximum": high, "flat_on_zero": True}
    return {name: given[name] for name in draw(st.sets(st.sampled_from(sorted(given))))}


@st.composite
def plans(draw: st.DrawFn, modes: tuple[str, ...] = MODES, *, plain: bool = False) -> dict[str, Any]:
    """Terms as plain data; `plain` leaves out the maximum, the minimum and the rest that bends a shape."""
    shape = draw(st.sampled_from(modes).flatmap(lambda mode: shapes(mode)))
    if plain:
        shape = {name: shape[name] for name in shape if name not in ("minimum", "maximum", "flat_on_zero")}
    return {
        "currency": "AUD",
        "minor_digits": draw(st.sampled_from((0, 2, 3))),
        "rounding": draw(st.sampled_from(("half_up", "half_even"))),
        "included_qty": draw(st.one_of(st.just("0"), numbers(9, 6))),
        "overage_price": "0",
        "tiers": shape,
        "tax_rate": draw(st.one_of(st.none(), numbers(1, 4).filter(lambda rate: Decimal(rate) <= 1))),
    }
