"""Batches that come at the same time travel together, and stay what they are."""

from __future__ import annotations

import asyncio
from decimal import Decimal

from eb_contracts.ids import new_id
from eb_contracts.metering import BatchAccepted
from eb_kit.telemetry import new_trace
from eb_kit.testing_db import ClonedDatabase
from eb_metering_ingest.api.plain import Part
from eb_metering_ingest.api.sending import MOST_EVENTS_TOGETHER, Piece, envelopes_of, parts_of

from .test_writer import accepted
from .world import metering, until


async def test_requests_at_once_share_messages_and_keep_their_own_batches(
    fresh_db: ClonedDatabase, fresh_bus: str
) -> None:
    async with metering(fresh_db, fresh_bus) as world:
        events = [world.event(quantity="2") for _ in range(200)]
        answers = await asyncio.gather(*(world.send([event]) for event in events))
        assert {status for status, _ in answers} == {202}
        await until(lambda: world.fetchval("SELECT count(*) = 200 FROM metering_event"))
        assert await world.fetchval("SELECT sum(quantity) FROM metering_event") == Decimal(400)
        batches = {answer["batch_id"] for _, answer in answers}
        kept = await world.client.context.pool.fetch("SELECT DISTINCT batch_id FROM metering_event")
        assert {str(row["batch_id"]) for row in kept} == batches
        assert len(batches) == 200
        traces = await world.fetchval("SELECT count(DISTINCT trace_id) FROM metering_event")
        messages = await world.fetchval("SELECT count(*) FROM inbox WHERE queue LIKE '%.batches.%'")
        assert traces == 200
        assert messages < 150


async def test_a_message_holds_a_thousand_events_at_most_unless_one_batch_does(
    fresh_db: ClonedDatabase, fresh_bus: str
) -> None:
    async with metering(fresh_db, fresh_bus, doors=("api",)) as world:
        event = accepted(world)
        (one,) = parts_of([event])
        trace = new_trace()
        head = f'"batch_id":"{new_id()}","received_at":"2026-11-04T00:00:00Z"'.encode()
        other = Part((one.partition + 1) % 16, one.events, 1)
        pieces = [
            Piece(part, head, trace) for part in (one, other, *[Part(one.partition, one.events, 600)] * 3)
        ]
        envelopes = list(envelopes_of(world.client.context, pieces))
    read = [BatchAccepted.from_bytes(envelope.body) for envelope in envelopes]
    assert sorted(len(message.batches) for message in read) == [1, 1, 1, 2]
    assert all(envelope.headers["eb-weight"] <= MOST_EVENTS_TOGETHER for envelope in envelopes)
    assert {batch.events[0].request_id for message in read for batch in message.batches} == {event.request_id}
