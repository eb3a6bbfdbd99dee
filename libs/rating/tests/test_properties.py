"""What holds for any terms and any usage (docs/rules/pricing.md, The one formula)."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal
from fractions import Fraction
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from eb_rating import (
    breakdown,
    breakdown_closed,
    from_plain,
    price,
    target,
    target_closed,
    tax_target,
)

from .rules import naive_price, naive_round, naive_target
from .strategies import plans, quantities


@given(plan=plans(), quantity=quantities, back=st.booleans(), events=st.integers(-3, 1000))
def test_every_amount_equals_the_rules_told_naively(
    plan: dict[str, Any], quantity: Decimal, back: bool, events: int
) -> None:
    terms = from_plain(plan)
    quantity = -quantity if back else quantity
    exact = Fraction(quantity)

    assert Fraction(price(quantity, events, terms)) == naive_price(exact, events, plan)
    assert Fraction(target(quantity, events, terms)) == naive_target(exact, events, plan, closed=False)
    assert Fraction(target_closed(quantity, events, terms)) == naive_target(exact, events, plan, closed=True)


@given(plan=plans(), data=st.data())
def test_a_bound_belongs_to_its_own_tier_and_decimals_never_fall_between(
    plan: dict[str, Any], data: st.DataObject
) -> None:
    terms = from_plain(plan)
    bound = data.draw(st.sampled_from([*(tier.up_to for tier in terms.tiers if tier.up_to), Decimal(1)]))
    nudge = data.draw(st.sampled_from(["-0.000001", "0", "0.000001", "0.5"]))
    quantity = terms.included + bound + Decimal(nudge)

    assert Fraction(price(quantity, 1, terms)) == naive_price(Fraction(quantity), 1, plan)


@given(plan=plans(), quantity=quantities, events=st.integers(0, 1000))
def test_the_breakdown_sums_to_the_price_it_explains(
    plan: dict[str, Any], quantity: Decimal, events: int
) -> None:
    terms = from_plain(plan)
    told, closed = breakdown(quantity, events, terms), breakdown_closed(quantity, events, terms)

    assert sum(Fraction(line.amount) for line in told.tiers) == Fraction(told.price)
    for line in told.tiers:
        by_hand = Fraction(line.quantity) * Fraction(line.unit_price) + Fraction(line.flat_fee)
        assert by_hand == Fraction(line.amount)
    assert told.included + told.billable == quantity
    assert told.price == price(quantity, events, terms)
    assert told.amount == target(quantity, events, terms)
    assert closed.amount == target_closed(quantity, events, terms)
    limits = {"minimum": terms.minimum, "maximum": terms.maximum, None: closed.price}
    limited = Fraction(limits[closed.limit] or 0)
    assert Fraction(closed.amount) == naive_round(limited, terms.minor_digits, terms.rounding)


@given(plan=plans(), parts=st.lists(st.integers(-10_000, 10_000), min_size=1, max_size=20))
def test_tax_parts_sum_to_the_tax_of_the_sum(plan: dict[str, Any], parts: list[int]) -> None:
    terms = from_plain(plan)
    gross = taxed = Decimal(0)
    for part in parts:
        gross += Decimal(part).scaleb(-terms.minor_digits)
        taxed += tax_target(gross, terms, terms.tax_rate) - taxed

    whole = Fraction(gross) * Fraction(terms.tax_rate or 0)
    assert Fraction(taxed) == naive_round(whole, terms.minor_digits, terms.rounding)


@given(plan=plans(), quantity=quantities)
def test_terms_are_equal_by_content_and_price_alike(plan: dict[str, Any], quantity: Decimal) -> None:
    terms, again = from_plain(plan), replace(from_plain(plan))

    assert terms == again
    assert target(quantity, 1, terms) == target(quantity, 1, again)
