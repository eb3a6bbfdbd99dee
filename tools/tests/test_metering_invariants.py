"""Each invariant of metering reports what breaks it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import asyncpg
import pytest

from eb_contracts.ids import new_id
from eb_kit.testing_db import ClonedDatabase
from eb_tools.invariants import broken

TIME = datetime.now(UTC).replace(day=2, hour=1, minute=0, second=0, microsecond=0)
ONCE, KEYED, VOIDED = (
    "an event counts once",
    "each event has its key, each key its event",
    "a void takes back its event, once",
)


@pytest.fixture
async def owner(fresh_db: ClonedDatabase) -> AsyncIterator[asyncpg.Connection[Any]]:
    """A database with one event and its void."""
    connection = await asyncpg.connect(fresh_db.owner_dsn)
    org_id, project_id, event_id = new_id(), new_id(), new_id()
    for own_id, quantity, voids in ((event_id, 7, None), (new_id(), -7, event_id)):
        await connection.execute(
            "INSERT INTO metering_ingest.metering_event (event_id, org_id, project_id, sku, quantity, source,"
            " event_time, request_id, usage_id, recorded_at, voids_event_id)"
            " VALUES ($1, $2, $3, 'sms', $4, 'backend', $5, 'r', $6, $5, $7)",
            *(own_id, org_id, project_id, quantity, TIME, new_id(), voids),
        )
    await connection.execute(
        "INSERT INTO metering_ingest.event_key (org_id, request_id, event_id, event_time, content_hash)"
        " VALUES ($1, 'r', $2, $3, 'x')",
        *(org_id, event_id, TIME),
    )
    yield connection
    await connection.close()


async def test_an_event_and_its_void_are_as_they_should_be(owner: asyncpg.Connection[Any]) -> None:
    assert await broken(owner, (ONCE, KEYED, VOIDED)) == {}


COPY = """
    INSERT INTO metering_ingest.metering_event SELECT (jsonb_populate_record(e, jsonb_build_object(
        'event_id', gen_random_uuid()))).* FROM metering_ingest.metering_event e WHERE quantity {} 0
"""


@pytest.mark.parametrize(
    ("harm", "reported"),
    [
        (COPY.format(">"), {ONCE, KEYED}),
        (COPY.format("<"), {VOIDED}),
        ("UPDATE metering_ingest.metering_event SET quantity = -6 WHERE quantity < 0", {VOIDED}),
        ("UPDATE metering_ingest.metering_event SET sku = 'form' WHERE quantity < 0", {VOIDED}),
        ("DELETE FROM metering_ingest.metering_event WHERE quantity > 0", {KEYED, VOIDED}),
        ("DELETE FROM metering_ingest.event_key", {KEYED}),
    ],
)
async def test_what_is_broken_is_reported(
    owner: asyncpg.Connection[Any], harm: str, reported: set[str]
) -> None:
    await owner.execute(harm)

    assert (await broken(owner, (ONCE, KEYED, VOIDED))).keys() == reported
