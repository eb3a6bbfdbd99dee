"""Any terms and any usage that the doors let in, for hypothesis."""

from __future__ import annotations

from decimal import Decimal
from functools import cache
from typing import Any

from hypothesis import strategies as st

MODES = (
    "per_unit", "graduated", "volume", "package", "stairstep", "stairstep_cumulative",
    "percentage", "graduated_percentage",
)  # fmt: skip


@cache
def numbers(digits: int, places: int, smallest: str = "0") -> st.SearchStrategy[str]:
    """Plain decimal texts, small ones and ones at the edge of the allowed length.

    Each is one integer, its last bit the choice of scale: hypothesis' own decimals take several draws each. What is
    drawn from is made once and kept, here and below, since making it costs more than drawing.
    """
    few = min(places, 3)
    low = int(Decimal(smallest).scaleb(places))

    def scaled(drawn: int) -> str:
        whole, is_fine = divmod(drawn, 2)
        if is_fine:
            return _scaled(whole, places)
        return _scaled(max(whole % 10 ** (digits + few), int(low > 0)), few)

    return st.integers(2 * low, 2 * 10 ** (digits + places) - 1).map(scaled)


def _scaled(whole: int, places: int) -> str:
    return format(Decimal(whole).scaleb(-places), "f")


prices = numbers(12, 18)
fees = st.one_of(st.just("0"), numbers(6, 3))
quantities = numbers(18, 6, "0.000001").map(Decimal)
included = st.one_of(st.just("0"), numbers(9, 6))
bounds = st.lists(numbers(9, 6, "0.000001").map(Decimal), max_size=5, unique=True).map(sorted)
tax_rates = st.one_of(st.none(), st.integers(0, 10**4).map(lambda whole: _scaled(whole, 4)))
low_and_high = st.tuples(numbers(6, 3), numbers(9, 3)).map(lambda pair: sorted(pair, key=Decimal))
limit_names = st.sets(st.sampled_from(["flat_on_zero", "maximum", "minimum"]))
digits = st.sampled_from((0, 2, 3))
roundings = st.sampled_from(("half_up", "half_even"))
PRICED = {"unit_price": prices, "rate": numbers(1, 18), "flat_fee": fees}


@cache
@st.composite
def tier_lists(draw: st.DrawFn, *members: str) -> list[dict[str, Any]]:
    ends = [*(format(bound, "f") for bound in draw(bounds)), None]
    return [{"up_to": end} | {name: draw(PRICED[name]) for name in members} for end in ends]


@cache
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


@cache
@st.composite
def limits(draw: st.DrawFn) -> dict[str, Any]:
    low, high = draw(low_and_high)
    given = {"minimum": low, "maximum": high, "flat_on_zero": True}
    return {name: given[name] for name in draw(limit_names)}


@cache
@st.composite
def plans(draw: st.DrawFn, modes: tuple[str, ...] = MODES, *, plain: bool = False) -> dict[str, Any]:
    """Terms as plain data; `plain` leaves out the maximum, the minimum and the rest that bends a shape."""
    shape = draw(shapes(draw(_one_of(modes))))
    if plain:
        shape = {name: shape[name] for name in shape if name not in ("minimum", "maximum", "flat_on_zero")}
    return {
        "currency": "AUD",
        "minor_digits": draw(digits),
        "rounding": draw(roundings),
        "included_qty": draw(included),
        "overage_price": "0",
        "tiers": shape,
        "tax_rate": draw(tax_rates),
    }


@cache
def _one_of(modes: tuple[str, ...]) -> st.SearchStrategy[str]:
    return st.sampled_from(modes)
