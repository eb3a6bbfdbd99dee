"""A line is made of its charge; what can't be one is named."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from uuid import UUID

import pytest

from eb_contracts.pricing import Charge
from eb_ledger.domain.attribution import UNATTRIBUTED, Attribution
from eb_ledger.domain.entries import content_hash, entry_of, fault_of

from .factories import a_charge

AT = datetime(2026, 11, 4, 2, tzinfo=UTC)


def test_net_is_gross_less_the_partners_part_and_payable_adds_tax_and_takes_credit() -> None:
    charge = a_charge(amount_gross="10.00", tax_amount="1.00", credit_applied="4.00")

    entry = entry_of(
        charge,
        Attribution(UUID(int=1), UUID(int=2), Decimal(10)),
        Decimal("1.00"),
        entry_id=UUID(int=3),
        billing_account_id=UUID(int=4),
        created_at=AT,
    )

    assert (entry.net, entry.payable, entry.status) == (Decimal("9.00"), Decimal("7.00"), "pending")


def test_a_line_without_a_partners_part_is_settled_at_once() -> None:
    entry = entry_of(
        a_charge(),
        UNATTRIBUTED,
        Decimal("0.00"),
        entry_id=UUID(int=3),
        billing_account_id=UUID(int=4),
        created_at=AT,
    )

    assert (entry.status, entry.partner_id) == ("settled", None)


@pytest.mark.parametrize(
    "same",
    [
        a_charge(amount_gross="1.0"),
        a_charge(time=AT.astimezone(timezone(timedelta(hours=11)))),
        a_charge(trace_ids=("f" * 32,)),
    ],
)
def test_equal_numbers_and_instants_are_the_same_content(same: Charge) -> None:
    assert content_hash(same) == content_hash(a_charge(amount_gross="1.00", time=AT))


@pytest.mark.parametrize(
    "other",
    [
        {"amount_gross": "1.01"},
        {"tax_amount": "0.01"},
        {"credit_applied": "0.01"},
        {"waived_amount": "0.01"},
        {"quantity": "2"},
        {"sku": "mail"},
        {"period": "2026-10"},
        {"time": AT + timedelta(microseconds=1)},
        {"kind": "one_off"},
        {"currency": "USD"},
        {"tax_code": None},
        {"terms_hash": "1" * 64},
        {"project_id": None},
    ],
)
def test_any_other_value_is_other_content(other: dict[str, object]) -> None:
    assert content_hash(a_charge(**other)) != content_hash(a_charge())


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"amount_gross": "0.01"}, None),
        ({"amount_gross": "0.001"}, "amount_precision"),
        ({"tax_amount": "0.001"}, "amount_precision"),
        ({"amount_gross": "0.0001", "currency": "KWD"}, "amount_precision"),
        ({"amount_gross": "0.5", "currency": "JPY"}, "amount_precision"),
        ({"currency": "ZZZ"}, "currency_unknown"),
        ({"amount_gross": "1e18"}, "amount_range"),
        ({"quantity": "1e18"}, "amount_range"),
    ],
)
def test_what_can_never_be_a_line_is_named(values: dict[str, object], expected: str | None) -> None:
    assert fault_of(a_charge(**values)) == expected
