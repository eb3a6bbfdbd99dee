"""Partner, rate and tier are those in force at the charge's own time."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from uuid import UUID

import pytest

from eb_ledger.domain.attribution import (
    UNATTRIBUTED,
    Attribution,
    PartnerOfRecord,
    attribute,
    check_range,
    in_force,
    partner_at,
)
from eb_ledger.domain.errors import RangeEmpty

START = datetime(2026, 11, 2, tzinfo=UTC)
END = datetime(2026, 11, 16, tzinfo=UTC)
TICK = timedelta(microseconds=1)
PARTNER, OTHER = UUID(int=1), UUID(int=2)


def a_por(partner_id: UUID = PARTNER, end_at: datetime | None = END) -> PartnerOfRecord:
    return PartnerOfRecord(
        por_id=UUID(int=partner_id.int + 100),
        org_id=UUID(int=1000),
        billing_account_id=None,
        partner_id=partner_id,
        start_at=START,
        end_at=end_at,
        status="active",
        created_at=START,
    )


@pytest.mark.parametrize(
    ("at", "is_covered"), [(START - TICK, False), (START, True), (END - TICK, True), (END, False)]
)
def test_a_range_holds_its_start_and_not_its_end(at: datetime, is_covered: bool) -> None:
    assert a_por().covers(at) is is_covered


def test_without_an_end_it_goes_on() -> None:
    assert a_por(end_at=None).covers(END + timedelta(days=9999))


def test_the_accounts_partner_beats_the_orgs() -> None:
    assert partner_at([a_por(PARTNER)], [a_por(OTHER)], START) == a_por(PARTNER)


def test_outside_the_accounts_range_the_orgs_partner_counts() -> None:
    assert partner_at([a_por(PARTNER)], [a_por(OTHER, end_at=None)], END) == a_por(OTHER, end_at=None)


def test_nobody_where_no_range_holds_the_instant() -> None:
    assert partner_at([a_por()], [], END) is None


def test_what_is_in_force_starts_at_its_instant() -> None:
    history = [(START, "silver"), (END, "gold")]

    assert [in_force(history, at) for at in (START - TICK, START, END - TICK, END)] == [
        None,
        "silver",
        "silver",
        "gold",
    ]


def test_a_late_event_gets_the_rate_of_the_tier_of_its_own_time() -> None:
    tiers = {PARTNER: [(START, "silver"), (END, "gold")]}
    rates = {("silver", "sms"): [(START, Decimal(10))], ("gold", "sms"): [(START, Decimal(25))]}
    por = a_por(end_at=None)

    late = attribute(por, tiers, rates, "sms", END - TICK)

    assert late == Attribution(PARTNER, por.por_id, Decimal(10))
    assert attribute(por, tiers, rates, "sms", END).partner_pct == Decimal(25)


def test_without_a_rate_the_partner_stays_with_nothing() -> None:
    attribution = attribute(a_por(), {PARTNER: [(START, "bronze")]}, {}, "sms", START)

    assert (attribution.partner_id, attribution.partner_pct) == (PARTNER, Decimal(0))


def test_no_partner_of_record_is_no_partner() -> None:
    assert attribute(None, {}, {}, "sms", START) is UNATTRIBUTED


@pytest.mark.parametrize(
    ("status", "now", "expected"),
    [
        ("active", END - TICK, "active"),
        ("active", END, "expired"),
        ("disputed", END, "disputed"),
    ],
)
def test_it_expires_at_its_end_unless_it_is_disputed(status: str, now: datetime, expected: str) -> None:
    assert replace(a_por(), status=status).status_at(now) == expected


def test_a_range_that_holds_nothing_is_refused() -> None:
    check_range(START, None)
    check_range(START, END)
    for end_at in (START, START - TICK):
        with pytest.raises(RangeEmpty):
            check_range(START, end_at)
