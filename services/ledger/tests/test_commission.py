"""The partner's share telescopes: its parts always sum to the share of the whole."""

from __future__ import annotations

from decimal import Decimal
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eb_contracts.money import minor_digits
from eb_ledger.domain.commission import minor_unit, share, shares

CURRENCIES = st.sampled_from(["AUD", "JPY", "KWD"])
PERCENTAGES = st.decimals(0, 100, places=2)


@st.composite
def lines(draw: st.DrawFn) -> tuple[str, list[Decimal]]:
    currency = draw(CURRENCIES)
    amounts = st.decimals(-(10**9), 10**9, places=minor_digits(currency))
    return currency, draw(st.lists(amounts, max_size=30))


@pytest.mark.parametrize(
    ("gross", "pct", "currency", "expected"),
    [
        ("10.00", "10", "AUD", "1.00"),
        ("0.15", "10", "AUD", "0.02"),
        ("-0.15", "10", "AUD", "-0.02"),
        ("0.14", "10", "AUD", "0.01"),
        ("99.99", "33.33", "AUD", "33.33"),
        ("-100.00", "33.33", "AUD", "-33.33"),
        ("4", "10", "JPY", "0"),
        ("-25", "10", "JPY", "-3"),
        ("-1.005", "10", "KWD", "-0.101"),
        ("999999999999999999.99", "99.99", "AUD", "999899999999999999.99"),
    ],
)
def test_a_share_rounds_half_up_on_the_absolute_value(
    gross: str, pct: str, currency: str, expected: str
) -> None:
    assert share(Decimal(gross), Decimal(pct), currency) == Decimal(expected)


@given(lines(), PERCENTAGES)
def test_parts_sum_to_the_share_of_the_whole(case: tuple[str, list[Decimal]], pct: Decimal) -> None:
    currency, amounts = case

    parts = shares(amounts, Decimal(0), pct, currency)

    assert sum(parts, Decimal(0)) == share(sum(amounts, Decimal(0)), pct, currency)
    assert all(part % minor_unit(currency) == 0 for part in parts)


@given(lines(), PERCENTAGES, st.integers(0, 30))
def test_two_takes_give_the_same_parts_as_one(
    case: tuple[str, list[Decimal]], pct: Decimal, cut: int
) -> None:
    currency, amounts = case
    first, second = amounts[:cut], amounts[cut:]

    in_two = shares(first, Decimal(0), pct, currency) + shares(second, sum(first, Decimal(0)), pct, currency)

    assert in_two == shares(amounts, Decimal(0), pct, currency)


@given(lines(), PERCENTAGES, st.randoms())
def test_any_order_ends_in_the_same_sum(case: tuple[str, list[Decimal]], pct: Decimal, random) -> None:  # type: ignore[no-untyped-def]
    currency, amounts = case
    shuffled = random.sample(amounts, len(amounts))

    assert sum(shares(shuffled, Decimal(0), pct, currency)) == sum(shares(amounts, Decimal(0), pct, currency))


def test_tiny_lines_neither_give_away_nor_swallow_the_share() -> None:
    parts = shares([Decimal("0.07")] * 500, Decimal(0), Decimal(10), "AUD")

    assert sum(parts) == Decimal("3.50")
    assert set(parts) == {Decimal("0.00"), Decimal("0.01")}


def test_a_currency_that_is_none_has_no_minor_unit() -> None:
    with pytest.raises(ValueError, match="ISO 4217"):
        minor_unit("ZZZ")


def test_sums_of_two_currencies_are_never_mixed() -> None:
    from eb_ledger.domain.commission import CommissionKey

    some = CommissionKey(UUID(int=1), UUID(int=2), "sms", "2026-11", "AUD", Decimal(10))

    assert some != some._replace(currency="JPY")
