"""The catalog's rules without I/O: shapes, periods, timelines, terms."""

from __future__ import annotations

import random
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eb_catalog.domain import periods, timeline
from eb_catalog.domain.errors import CurrencyChangeImmediate, PastRate
from eb_catalog.domain.shapes import faults_of_shape
from eb_catalog.domain.terms import (
    Inputs,
    Price,
    Sku,
    SkuStep,
    TaxRate,
    hash_of,
    must_not_rewrite,
    resolve,
    resolve_retail,
)
from eb_catalog.domain.timeline import Change, Published
from eb_contracts.catalog import PriceShape
from eb_contracts.ids import new_id
from eb_rating import from_plain, target_closed

PLAN, OTHER = new_id(), new_id()
ZONES = st.sampled_from(
    ["Australia/Sydney", "America/Los_Angeles", "Pacific/Kiritimati", "Etc/GMT+12", "UTC"]
)
INSTANTS = st.integers(1735689600, 1830297600).map(lambda seconds: datetime.fromtimestamp(seconds, UTC))
OPEN = {"up_to": None, "unit_price": "1"}


def at(text: str) -> datetime:
    return datetime.fromisoformat(text)


def a_change(**members: Any) -> Change:
    plain = Change(at("2026-10-31T13:00Z"), PLAN, 1, "AUD", {}, "Australia/Sydney", "AU")
    return replace(plain, **members)


def tiers(mode: str, *rows: dict[str, Any], **members: Any) -> dict[str, Any]:
    return {"mode": mode, "tiers": list(rows)} | members


@pytest.mark.parametrize(
    "shape",
    [
        {"mode": "per_unit", "unit_price": "0.1", "minimum": "5", "maximum": "5"},
        tiers("graduated", {"up_to": "99.5", "unit_price": "1", "flat_fee": "2"}, OPEN, flat_on_zero=True),
        tiers("volume", {"up_to": "1", "unit_price": "150"}, {"up_to": "2", "unit_price": "80"}, OPEN),
        tiers("stairstep", {"up_to": "10", "flat_fee": "5"}, {"up_to": None, "flat_fee": "0"}),
        tiers("stairstep_cumulative", {"up_to": None, "flat_fee": "1"}),
        {"mode": "package", "package_size": "100", "package_price": "5"},
        {"mode": "percentage", "rate": "0.029", "fixed_fee": "0.30"},
        tiers(
            "graduated_percentage",
            {"up_to": "10", "rate": "0.1"},
            {"up_to": None, "rate": "0", "flat_fee": "1"},
        ),
    ],
)
def test_a_good_shape_is_taken_and_can_be_rated(shape: dict[str, Any]) -> None:
    parsed = PriceShape.model_validate(shape)
    assert faults_of_shape(parsed, "") == ()
    body = {"currency": "AUD", "minor_digits": 2, "included_qty": "0", "overage_price": "0", "tiers": shape}
    assert target_closed(Decimal(7), 1, from_plain(body)) >= 0


@pytest.mark.parametrize(
    ("shape", "pointer", "code"),
    [
        (tiers("graduated"), "/tiers", "no_open_end"),
        ({"mode": "volume"}, "/tiers", "required"),
        (tiers("graduated", {"up_to": "5", "unit_price": "1"}), "/tiers/0/up_to", "no_open_end"),
        (tiers("graduated", OPEN, OPEN), "/tiers/0/up_to", "gap"),
        (tiers("volume", OPEN | {"up_to": "5"}, OPEN | {"up_to": "5.0"}, OPEN), "/tiers/1/up_to", "overlap"),
        (tiers("volume", OPEN | {"up_to": "5"}, OPEN | {"up_to": "4"}, OPEN), "/tiers/1/up_to", "descending"),
        (tiers("volume", OPEN | {"up_to": "0"}, OPEN), "/tiers/0/up_to", "too_small"),
        (tiers("graduated", OPEN | {"rate": "1"}), "/tiers/0/rate", "unknown_field"),
        (tiers("graduated", {"up_to": None}), "/tiers/0/unit_price", "required"),
        (tiers("stairstep", OPEN), "/tiers/0/flat_fee", "required"),
        (tiers("per_unit", OPEN, unit_price="1"), "/tiers", "unknown_field"),
        (tiers("graduated", OPEN, package_size="1"), "/package_size", "unknown_field"),
        ({"mode": "package", "package_size": "0", "package_price": "1"}, "/package_size", "too_small"),
        ({"mode": "per_unit", "unit_price": "1", "minimum": "2", "maximum": "1"}, "/maximum", "too_small"),
        (tiers("volume", *([OPEN] * 101)), "/tiers", "too_long"),
    ],
)
def test_a_malformed_shape_is_refused_where_it_is_wrong(
    shape: dict[str, Any], pointer: str, code: str
) -> None:
    faults = faults_of_shape(PriceShape.model_validate(shape), "")
    assert (pointer, code) in {(fault.pointer, fault.code) for fault in faults}


@given(INSTANTS, ZONES)
def test_an_instant_lies_in_its_period_and_periods_follow_each_other(instant: datetime, zone: str) -> None:
    here = ZoneInfo(zone)
    start, end = periods.start_of(instant, here), periods.next_start(instant, here)
    assert start <= instant < end
    assert periods.start_of(end, here) == end == periods.round_up(start + timedelta(minutes=1), here)
    assert periods.round_up(start, here) == start == periods.back(end, here, 1)


@given(INSTANTS, ZONES)
def test_the_month_everywhere_begins_before_it_does_anywhere(instant: datetime, zone: str) -> None:
    here = ZoneInfo(zone)
    assert periods.running_everywhere(instant) <= periods.start_of(instant, here)
    assert instant < periods.next_everywhere(instant)
    assert not periods.start_of(instant, here) < periods.next_everywhere(instant) <= instant


@given(INSTANTS, ZONES, ZONES)
def test_a_move_never_falls_back_into_a_period_that_is_over(instant: datetime, old: str, new: str) -> None:
    since = periods.after_move(instant, old, new)
    before = periods.name_of(since - timedelta(microseconds=1), ZoneInfo(old))
    assert periods.name_of(since, ZoneInfo(new)) >= before
    assert since > instant


@given(st.lists(INSTANTS, max_size=6, unique=True), INSTANTS)
def test_an_edit_changes_nothing_before_it_and_everything_after(
    starts: list[datetime], since: datetime
) -> None:
    line = tuple(a_change(effective_at=start, plan_version=n) for n, start in enumerate(sorted(starts)))
    edited = timeline.amend(line, since, lambda change: replace(change, country="NZ"))
    for instant in [*starts, since]:
        old, new = timeline.at(line, instant), timeline.at(edited, instant)
        country = "NZ" if instant >= since else "AU"
        assert (new and (new.plan_version, new.country)) == (old and (old.plan_version, country))


def test_a_new_version_counts_from_when_it_was_published_whenever_it_is_taken_up() -> None:
    line = (a_change(), a_change(effective_at=at("2026-12-31T13:00Z"), plan_id=OTHER))
    published = Published(PLAN, 2, is_immediate=False, published_at=at("2026-11-10T00:00Z"))
    once = timeline.adopt(line, published)
    assert [(c.plan_id, c.plan_version, c.effective_at) for c in once] == [
        (PLAN, 1, at("2026-10-31T13:00Z")),
        (PLAN, 2, at("2026-11-30T13:00Z")),
        (OTHER, 1, at("2026-12-31T13:00Z")),
    ]
    assert timeline.adopt(once, published) == once
    assert timeline.adopt(once, replace(published, version=1)) == once


def test_an_immediate_plan_takes_the_place_of_what_was_to_come() -> None:
    line = timeline.move((a_change(),), at("2026-11-02T00:00Z"), "Pacific/Auckland", "NZ")
    later, _ = timeline.assign(line, a_change(plan_id=OTHER), at("2026-11-03T00:00Z"), is_immediate=False)
    now, since = timeline.assign(later, a_change(plan_version=3), at("2026-11-04T00:00Z"), is_immediate=True)
    assert since == at("2026-10-31T13:00Z")
    assert [(change.plan_id, change.plan_version, change.country) for change in now] == [
        (PLAN, 3, "AU"),
        (PLAN, 3, "NZ"),
    ]
    with pytest.raises(CurrencyChangeImmediate):
        timeline.assign(now, a_change(currency="USD"), at("2026-11-04T00:00Z"), is_immediate=True)


SMS = Sku("sms", "action", (SkuStep(at("2026-09-30T10:00Z"), Decimal("0.2"), "GST"),))
MAIL = Sku(
    "mail",
    "action",
    (SkuStep(at("2026-09-30T10:00Z"), None, None), SkuStep(at("2026-11-30T10:00Z"), Decimal(1), None)),
)
GST = TaxRate("GST", "AU", Decimal("0.1"), at("2000-07-01T00:00Z"))


def inputs(**members: Any) -> Inputs:
    shape = PriceShape.model_validate(tiers("graduated", {"up_to": "10.0", "unit_price": "1.50"}, OPEN))
    prices: dict[tuple[UUID, int], dict[str, Price]] = {
        (PLAN, 1): {"sms": Price(Decimal("5.00"), Decimal(0), shape)}
    }
    return replace(Inputs(prices, {"sms": SMS, "mail": MAIL}, (GST,)), **members)


def test_terms_are_the_same_bytes_however_the_numbers_were_written() -> None:
    (step,), bodies = resolve((a_change(),), inputs()).steps, resolve((a_change(),), inputs()).bodies
    body = bodies[step.hashes["sms"]]
    again = body.model_validate_json(body.model_dump_json())
    assert hash_of(again) == step.hashes["sms"]
    assert hash_of(body.model_copy(update={"included_qty": Decimal("5")})) == step.hashes["sms"]
    assert hash_of(body.model_copy(update={"included_qty": Decimal("5.1")})) != step.hashes["sms"]


def test_a_tax_rate_splits_an_assignment_only_where_the_country_pays_it() -> None:
    later = TaxRate("GST", "*", Decimal("0.2"), at("2026-11-20T00:00Z"))
    taxed = inputs(taxes=(GST, later))
    assert len(resolve((a_change(),), taxed).steps) == 1
    abroad = resolve((a_change(country="NZ"),), taxed)
    assert [step.effective_at for step in abroad.steps] == [at("2026-10-31T13:00Z"), at("2026-11-20T00:00Z")]
    rates = [abroad.bodies[step.hashes["sms"]].tax_rate for step in abroad.steps]
    assert rates == [None, Decimal("0.2")]


def test_retail_terms_name_a_sku_from_its_first_price_on() -> None:
    steps = resolve_retail("AUD", "AU", inputs()).steps
    assert [(step.effective_at, sorted(step.hashes)) for step in steps] == [
        (at("2026-09-30T10:00Z"), ["sms"]),
        (at("2026-11-30T10:00Z"), ["mail", "sms"]),
    ]


def test_terms_do_not_depend_on_the_order_of_what_they_are_made_of() -> None:
    taxes = [
        GST,
        *(TaxRate("GST", "AU", Decimal(n) / 100, at(f"2026-11-{n:02d}T00:00Z")) for n in range(1, 20)),
    ]
    line = (a_change(),)
    first = resolve(line, inputs(taxes=tuple(taxes)))
    random.Random(7).shuffle(taxes)
    assert resolve(line, inputs(taxes=tuple(taxes))) == first


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        ({"sms": {"included_qty": "9"}}, ("9", "0", True)),
        ({"sms": {"overage_price": "2"}}, ("5", "2", False)),
        ({"sms": {"tiers": None, "overage_price": "0"}}, ("5", "0", False)),
        ({"sms": {"tiers": {"mode": "per_unit", "unit_price": "3"}}}, ("5", "0", True)),
    ],
)
def test_each_member_of_an_override_replaces_the_plans(
    overrides: dict[str, Any], expected: tuple[str, str, bool]
) -> None:
    resolved = resolve((a_change(overrides=overrides),), inputs())
    body = resolved.bodies[resolved.steps[0].hashes["sms"]]
    assert (str(body.included_qty.normalize()), str(body.overage_price), body.tiers is not None) == expected


def test_the_past_of_a_tax_rate_stands() -> None:
    now = at("2026-11-04T00:00Z")
    must_not_rewrite((GST,), GST, now)
    must_not_rewrite((GST,), replace(GST, jurisdiction="NZ"), now)
    must_not_rewrite((GST,), replace(GST, effective_at=now), now)
    with pytest.raises(PastRate):
        must_not_rewrite((GST,), replace(GST, effective_at=now - timedelta(minutes=1)), now)
