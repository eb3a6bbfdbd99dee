"""Which terms hold when (docs/rules/pricing.md, Which terms hold)."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from eb_rating.resolve import (
    OrgTerms,
    month_start,
    org_terms_from_plain,
    period_of,
    price_terms,
    retail_from_plain,
    steps_between,
    steps_of,
)

SYDNEY, PERTH, AUCKLAND = "Australia/Sydney", "Australia/Perth", "Pacific/Auckland"
PLAN = UUID("01930000-0000-7000-8000-000000000001")


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def assigned(since: str, zone: str = SYDNEY, **hashes: str) -> dict[str, Any]:
    return {
        "effective_at": at(since),
        "plan_id": PLAN,
        "plan_version": 1,
        "currency": "AUD",
        "time_zone": zone,
        "hashes": hashes,
        "retail_key": "AUD/AU",
    }


def terms_of(*assignments: dict[str, Any]) -> OrgTerms:
    return org_terms_from_plain(assignments)


def hash_for(org_terms: OrgTerms, period: str, sku: str = "sms", **retail: Any) -> str | None:
    found = price_terms(org_terms, {"AUD/AU": retail_from_plain(retail.get("steps", []))}, sku, period)
    return found and found.terms_hash


def hash_at(steps: tuple[tuple[datetime, str], ...], instant: datetime) -> str:
    ((_, terms_hash),) = steps_between(steps, instant, instant)
    return terms_hash


SYDNEY_NOVEMBER, SYDNEY_DECEMBER = "2025-10-31T13:00", "2025-11-30T13:00"


def test_a_period_is_the_calendar_month_in_the_zone_half_open() -> None:
    org_terms = terms_of(assigned("2025-01-01T00:00"))

    assert period_of(org_terms, at("2025-10-31T12:59")) == "2025-10"
    assert period_of(org_terms, at(SYDNEY_NOVEMBER)) == "2025-11"
    assert month_start("2025-11", org_terms.assigned[0].zone) == at(SYDNEY_NOVEMBER)


def test_months_with_a_change_of_clocks_keep_their_own_length() -> None:
    zone = terms_of(assigned("2025-01-01T00:00")).assigned[0].zone

    october = month_start("2025-11", zone) - month_start("2025-10", zone)

    assert october == timedelta(days=31, hours=-1)


def test_the_first_terms_hold_for_the_whole_running_period_and_no_earlier() -> None:
    org_terms = terms_of(assigned("2025-11-20T08:30", sms="first"))

    assert period_of(org_terms, at("2025-11-02T00:00")) == "2025-11"
    assert hash_for(org_terms, "2025-11") == "first"
    assert hash_for(org_terms, "2025-10") is None


def test_a_change_at_the_start_of_a_period_leaves_the_one_before_alone() -> None:
    org_terms = terms_of(assigned("2025-10-05T00:00", sms="old"), assigned(SYDNEY_DECEMBER, sms="new"))

    assert hash_for(org_terms, "2025-11") == "old"
    assert hash_for(org_terms, "2025-12") == "new"
    assert hash_for(org_terms, "2026-07") == "new"


def test_a_change_within_a_period_prices_all_of_it() -> None:
    org_terms = terms_of(assigned("2025-10-05T00:00", sms="old"), assigned("2025-11-17T10:00", sms="new"))

    assert hash_for(org_terms, "2025-10") == "old"
    assert hash_for(org_terms, "2025-11") == "new"


def test_a_sku_that_a_change_leaves_out_keeps_its_price_to_the_periods_end() -> None:
    within = terms_of(assigned("2025-10-05T00:00", sms="old"), assigned("2025-11-17T10:00"))
    between = terms_of(assigned("2025-10-05T00:00", sms="old"), assigned(SYDNEY_DECEMBER))

    assert hash_for(within, "2025-11") == "old"
    assert hash_for(within, "2025-12") is None
    assert hash_for(between, "2025-12") is None


def test_the_order_in_which_assignments_are_listed_does_not_matter() -> None:
    old, new = assigned("2025-10-05T00:00", sms="old"), assigned(SYDNEY_DECEMBER, sms="new")

    assert terms_of(new, old) == terms_of(old, new)


def test_a_new_zone_counts_from_the_next_period_east_or_west() -> None:
    for zone in (PERTH, AUCKLAND):
        org_terms = terms_of(
            assigned("2025-10-05T00:00", sms="old"), assigned(SYDNEY_DECEMBER, zone, sms="new")
        )

        assert hash_for(org_terms, "2025-11") == "old"
        assert hash_for(org_terms, "2025-12") == "new"
        assert period_of(org_terms, at("2025-11-30T12:59")) == "2025-11"
        assert period_of(org_terms, at("2025-11-30T16:00")) == "2025-12"


def test_retail_prices_what_the_plan_does_not_name() -> None:
    org_terms = terms_of(assigned("2025-10-05T00:00", sms="plan"))
    steps = [{"effective_at": at("2025-01-01T00:00"), "hashes": {"sms": "retail", "mail": "retail mail"}}]

    assert hash_for(org_terms, "2025-11", "sms", steps=steps) == "plan"
    assert hash_for(org_terms, "2025-11", "mail", steps=steps) == "retail mail"
    assert hash_for(org_terms, "2025-11", "fax", steps=steps) is None


def test_a_changed_retail_price_waits_for_the_next_period_a_first_one_does_not() -> None:
    org_terms = terms_of(assigned("2025-10-05T00:00"))
    steps = [
        {"effective_at": at("2025-11-10T00:00"), "hashes": {"sms": "first"}},
        {"effective_at": at("2025-11-20T00:00"), "hashes": {"sms": "second"}},
    ]

    assert hash_for(org_terms, "2025-10", steps=steps) is None
    assert hash_for(org_terms, "2025-11", steps=steps) == "first"
    assert hash_for(org_terms, "2025-12", steps=steps) == "second"


def test_the_hash_of_an_instant_follows_every_step() -> None:
    org_terms = terms_of(assigned("2025-11-05T00:00", sms="old"), assigned("2025-11-17T10:00", sms="new"))
    steps = steps_of(org_terms, {}, "sms")

    assert hash_at(steps, at("2025-11-01T00:00")) == "old"
    assert hash_at(steps, at("2025-11-17T09:59")) == "old"
    assert hash_at(steps, at("2025-11-17T10:00")) == "new"


def test_retail_steps_before_an_assignment_count_as_the_one_in_force_at_it() -> None:
    org_terms = terms_of(assigned("2025-11-05T00:00"), assigned("2025-11-17T10:00", sms="plan"))
    retail = retail_from_plain(
        [
            {"effective_at": at("2025-01-01T00:00"), "hashes": {"sms": "long ago"}},
            {"effective_at": at("2025-06-01T00:00"), "hashes": {"sms": "in force"}},
            {"effective_at": at("2025-11-09T00:00"), "hashes": {"sms": "raised"}},
            {"effective_at": at("2025-12-09T00:00"), "hashes": {"sms": "never"}},
        ]
    )

    steps = steps_of(org_terms, {"AUD/AU": retail}, "sms")

    assert [terms_hash for _, terms_hash in steps] == ["in force", "raised", "plan"]
