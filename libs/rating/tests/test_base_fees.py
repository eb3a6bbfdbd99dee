"""Base fees by the calendar (docs/rules/pricing.md, Base fees)."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eb_rating import Terms, base_fees, from_plain
from eb_rating.base_fees import Proration, base_price, days_of, named_hashes
from eb_rating.prices import OrgPrices, TermsMissing
from eb_rating.resolve import (
    OrgTerms,
    month_after,
    month_start,
    org_terms_from_plain,
    period_end,
    period_of,
    period_start,
)

from .rules import base_fee
from .strategies import prices
from .test_resolve import assigned, at

SYDNEY = "Australia/Sydney"
ZONES = (SYDNEY, "Australia/Lord_Howe", "Pacific/Chatham", "UTC", "America/New_York", "Pacific/Apia")
MONTHS = st.builds("{:04d}-{:02d}".format, st.integers(2009, 2030), st.integers(1, 12))


def hosting(price: str = "30", **values: Any) -> Terms:
    plain = {
        "sku": "site",
        "sku_type": "hosting",
        "currency": "AUD",
        "minor_digits": 2,
        "included_qty": "0",
        "overage_price": price,
    }
    return from_plain(plain | values)


def on_plans(*steps: tuple[str, str | None], zone: str = SYDNEY) -> tuple[OrgTerms, dict[str, Terms]]:
    """Assignments, each with the price of hosting from an instant on; None: the plan doesn't name it."""
    assignments = [assigned(since, zone, **({"site": price} if price else {})) for since, price in steps]
    return org_terms_from_plain(assignments), {price: hosting(price) for _, price in steps if price}


def told(org_terms: OrgTerms, terms: dict[str, Terms], period: str = "2025-11") -> list[tuple[str, int, str]]:
    fees = base_fees(org_terms, terms, period)
    return [(f"{fee.at:%m-%d %H:%M}", fee.quantity, str(fee.amount)) for fee in fees]


def test_a_whole_period_costs_the_price_from_its_start() -> None:
    plan = on_plans(("2025-01-01T00:00", "49.90"))

    assert told(*plan) == [("10-31 13:00", 1, "49.90")]
    assert told(*plan, "2024-12") == []


def test_a_start_within_a_period_costs_the_days_left_the_start_day_counted() -> None:
    assert told(*on_plans(("2025-11-15T02:30", "30"))) == [("11-15 02:30", 1, "16.00")]
    assert told(*on_plans(("2025-11-30T12:59", "30"))) == [("11-30 12:59", 1, "1.00")]


def test_an_end_within_a_period_gives_back_the_days_left() -> None:
    plan = on_plans(("2025-01-01T00:00", "30"), ("2025-11-15T02:30", None))

    assert told(*plan) == [("10-31 13:00", 1, "30.00"), ("11-15 02:30", -1, "-16.00")]
    assert told(*plan, "2025-12") == []


def test_a_change_of_price_ends_one_fee_and_begins_another() -> None:
    plan = on_plans(("2025-01-01T00:00", "30"), ("2025-11-15T02:30", "60"))

    assert told(*plan)[1:] == [("11-15 02:30", -1, "-16.00"), ("11-15 02:30", 1, "32.00")]


def test_a_change_of_something_else_makes_no_fee() -> None:
    org_terms, terms = on_plans(("2025-01-01T00:00", "30"), ("2025-11-15T02:30", "30.0"))

    assert told(org_terms, terms) == [("10-31 13:00", 1, "30.00")]


def test_only_hosting_with_a_price_per_unit_has_a_fee() -> None:
    graduated = {"mode": "graduated", "tiers": [{"up_to": None, "unit_price": "3"}]}

    assert base_price(hosting("3", sku_type="action")) is None
    assert base_price(hosting("0", tiers=graduated)) is None
    assert base_price(hosting("0", tiers={"mode": "per_unit", "unit_price": "3", "minimum": "9"})) == 3
    assert base_price(hosting("3", included_qty="10")) == 3


@pytest.mark.parametrize(
    ("minor_digits", "rounding", "amount"),
    [(0, "half_up", "6"), (2, "half_up", "5.50"), (3, "half_up", "5.500"), (0, "half_even", "6")],
)
def test_fees_are_rounded_once_to_the_minor_unit(minor_digits: int, rounding: str, amount: str) -> None:
    terms = hosting("11", minor_digits=minor_digits, rounding=rounding)

    assert str(base_fee(terms, "2025-11", ZoneInfo("UTC"), at("2025-11-16T00:00"))) == amount


@pytest.mark.parametrize(
    ("zone", "period", "instant", "proration"),
    [
        (SYDNEY, "2025-10", "2025-10-05T12:00", (27, 31)),  # clocks go forward on the 5th
        (SYDNEY, "2026-04", "2026-04-05T13:59", (26, 30)),  # and back: that day has 25 hours
        ("Australia/Lord_Howe", "2025-10", "2025-10-04T15:30", (27, 31)),  # by half an hour
        ("Pacific/Chatham", "2025-09", "2025-09-30T10:14", (1, 30)),
        ("Pacific/Apia", "2011-12", "2011-12-30T09:59", (2, 30)),  # the 29th
        ("Pacific/Apia", "2011-12", "2011-12-30T10:00", (1, 30)),  # the 31st: there was no 30th
        ("UTC", "2024-02", "2024-02-01T00:00", (29, 29)),
        ("UTC", "2025-02", "2025-01-15T00:00", (28, 28)),
    ],
)
def test_days_are_those_that_the_calendar_has(
    zone: str, period: str, instant: str, proration: tuple[int, int]
) -> None:
    assert days_of(period, ZoneInfo(zone), at(instant)) == Proration(*proration)


def test_a_new_zone_moves_no_fee() -> None:
    moved = [assigned("2025-01-01T00:00", SYDNEY, site="30"), assigned("2025-12-01T00:00", "UTC", site="30")]
    org_terms, terms = org_terms_from_plain(moved), {"30": hosting("30")}

    assert told(org_terms, terms, "2025-11") == [("10-31 13:00", 1, "30.00")]
    assert told(org_terms, terms, "2025-12") == [("11-30 13:00", 1, "30.00")]
    assert told(org_terms, terms, "2026-01") == [("01-01 00:00", 1, "30.00")]


def test_terms_that_are_not_here_are_named() -> None:
    org_terms, terms = on_plans(("2025-01-01T00:00", "30"), ("2025-11-15T02:30", "60"))

    missing = OrgPrices(org_terms, {}, {"30": terms["30"]}).base_fees("2025-11")

    assert missing == TermsMissing(("60",))
    assert OrgPrices(org_terms, {}, terms).base_fees("2025-11") == base_fees(org_terms, terms, "2025-11")


instants = st.integers(0, 60 * 24 * 120).map(lambda n: at("2025-09-01T00:00") + timedelta(minutes=n))


@given(MONTHS, st.sampled_from(ZONES), st.integers(0, 60 * 24 * 40), prices, st.sampled_from((0, 2, 3)))
def test_what_a_start_costs_an_end_at_the_same_time_gives_back(
    period: str, zone_name: str, minutes: int, price: str, minor_digits: int
) -> None:
    zone, terms = ZoneInfo(zone_name), hosting(price, minor_digits=minor_digits)
    instant = month_start(period, zone) + timedelta(minutes=minutes)

    assert base_fee(terms, period, zone, instant, instant) == 0
    fee = base_fee(terms, period, zone, instant)
    assert 0 <= fee <= base_fee(terms, period, zone)
    assert fee + base_fee(terms, period, zone, None, instant) == base_fee(terms, period, zone)


@given(
    st.lists(st.tuples(instants, st.none() | prices), min_size=1, max_size=6, unique_by=lambda step: step[0]),
    st.sampled_from(ZONES),
)
def test_fees_of_any_history_are_those_of_its_spans(
    steps: list[tuple[datetime, str | None]], zone: str
) -> None:
    steps = sorted(steps)
    spans = [(since.isoformat()[:16], price) for since, price in steps]
    org_terms, terms = on_plans(*spans, zone=zone)
    ends = [since for since, _ in steps[1:]] + [None]
    for period in ("2025-09", "2025-10", "2025-11", "2025-12", "2026-01"):
        fees = base_fees(org_terms, terms, period)
        expected = sum(
            base_fee(terms[price], period, ZoneInfo(zone), since, end)
            for (since, price), end in zip(steps, ends, strict=True)
            if price
        )
        assert sum(fee.amount for fee in fees) == expected
        assert all(period_of(org_terms, fee.at) == period for fee in fees)
        assert len({(fee.sku, fee.at, fee.edge) for fee in fees}) == len(fees)
        assert named_hashes(org_terms, period) >= {fee.terms_hash for fee in fees}


@given(
    st.lists(st.tuples(st.integers(0, 20), st.sampled_from(ZONES)), min_size=1, max_size=4), MONTHS, instants
)
def test_periods_of_an_org_that_moves_have_no_gap_and_no_overlap(
    moves: list[tuple[int, str]], period: str, instant: datetime
) -> None:
    steps, month, before = [], "2025-09", SYDNEY
    for months, zone in moves:
        for _ in range(months + 1):
            month = month_after(month)
        since = max(month_start(month, ZoneInfo(name)) for name in (before, zone))
        steps.append(assigned(since.isoformat()[:16], zone))
        before = zone
    org_terms = org_terms_from_plain([assigned("2025-09-01T00:00", SYDNEY), *steps])

    for one in (period, period_of(org_terms, instant)):
        start, end = period_start(org_terms, one), period_end(org_terms, one)
        assert period_of(org_terms, start) == one
        assert period_of(org_terms, end) == month_after(one)
        assert period_of(org_terms, end - timedelta(minutes=1)) == one
    assert start <= instant < end


def test_the_start_day_in_apia_stays_a_day_of_its_month() -> None:
    zone = ZoneInfo("Pacific/Apia")

    assert month_start("2012-01", zone) - month_start("2011-12", zone) == timedelta(days=30)
    assert base_fee(hosting("30"), "2011-12", zone, datetime(2011, 12, 30, 10, tzinfo=UTC)) == Decimal(1)
