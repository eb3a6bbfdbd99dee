"""Each invariant of pricing reports what breaks it."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import asyncpg
import pytest

from eb_contracts.ids import new_id
from eb_kit.testing_db import ClonedDatabase
from eb_tools.invariants import AT_TARGET, broken

NOW = datetime(2026, 11, 4, 2, tzinfo=UTC)
TELESCOPE, CLOSED = "charges of a counter telescope", "counters of closed periods are closed, and no others"
ONLY = (TELESCOPE, CLOSED, AT_TARGET)
TERMS = {
    "currency": "AUD",
    "minor_digits": 2,
    "included_qty": "0",
    "overage_price": "0",
    "tiers": {"mode": "per_unit", "unit_price": "0.10", "minimum": "5"},
}


@pytest.fixture
async def owner(fresh_db: ClonedDatabase) -> AsyncIterator[asyncpg.Connection[Any]]:
    """A database with an open and a closed counter, both as they should be."""
    connection = await asyncpg.connect(fresh_db.owner_dsn)
    await connection.execute(
        "INSERT INTO pricing.known (entity, entity_id, version, is_deleted, body, changed_at)"
        " VALUES ('terms', 'a', 1, false, $1, $2)",
        json.dumps({"body": TERMS}),
        NOW,
    )
    org_id = new_id()
    await connection.execute(
        "INSERT INTO pricing.billing_period (org_id, period, starts_at, ends_at, closed_at, closed_by, settled_at,"
        " charges) VALUES ($1, '2026-10', $2, $2, $2, 'x', $2, 1)",
        org_id,
        NOW,
    )
    for period, quantity, charged, base, is_closed in (
        ("2026-10", 3, 35, 30, True),
        ("2026-11", 70, 7, 0, False),
    ):
        await connection.execute(
            "INSERT INTO pricing.counter (org_id, sku, period, currency, quantity, events, charged, base, is_closed,"
            " terms_hash, version) VALUES ($1, 'sms', $2, 'AUD', $3, 1, $4, $5, $6, 'a', 1)",
            *(org_id, period, quantity, charged, base, is_closed),
        )
        await connection.execute(
            "INSERT INTO pricing.charge (charge_id, org_id, sku, period, time, kind, quantity, event_count, currency,"
            " amount_gross, tax_amount, tax_base, terms_hash, counter_quantity, counter_events, counter_charged,"
            " counter_version, trace_ids, created_at, base_due, counter_base, is_closed) VALUES ($2, $1, 'sms', $2, $7,"
            " 'usage', $3, 1, 'AUD', $4, 0, 0, 'a', $3, 1, $4, 1, '{}', $7, $5, $5, $6)",
            *(org_id, period, quantity, charged, base, is_closed, NOW),
        )
    yield connection
    await connection.close()


async def test_what_is_as_it_should_be_is_not_reported(owner: asyncpg.Connection[Any]) -> None:
    assert await broken(owner, ONLY) == {}


@pytest.mark.parametrize(
    ("harm", "reported"),
    [
        (
            "UPDATE pricing.charge SET amount_gross = amount_gross + 0.01 WHERE period = '2026-11'",
            {TELESCOPE},
        ),
        ("UPDATE pricing.charge SET quantity = 2 WHERE period = '2026-10'", {TELESCOPE}),
        ("UPDATE pricing.charge SET base_due = 29 WHERE period = '2026-10'", {TELESCOPE}),
        ("UPDATE pricing.charge SET waived_amount = 1, amount_gross = amount_gross - 1", {TELESCOPE}),
        ("DELETE FROM pricing.charge WHERE period = '2026-10'", {TELESCOPE}),
        ("UPDATE pricing.counter SET charged = charged + 1 WHERE period = '2026-11'", {TELESCOPE, AT_TARGET}),
        ("UPDATE pricing.counter SET is_closed = false", {CLOSED, AT_TARGET}),
        ("UPDATE pricing.counter SET is_closed = true WHERE period = '2026-11'", {CLOSED}),
        (
            "UPDATE pricing.counter SET quantity = 60 WHERE period = '2026-10';"
            " UPDATE pricing.charge SET quantity = 60 WHERE period = '2026-10'",
            {AT_TARGET},
        ),
    ],
)
async def test_what_is_broken_is_reported(
    owner: asyncpg.Connection[Any], harm: str, reported: set[str]
) -> None:
    await owner.execute(harm)

    assert (await broken(owner, ONLY)).keys() == reported
