"""The transactional outbox: rows written with the change, sent by a relay in the same process.

Each row has a state of its own (`sent_at`); there is no position that could pass over a row whose
transaction committed late. Rule: docs/rules/bus.md, Outbox.
"""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import asyncpg
import structlog

from eb_contracts.base import Message

from . import failpoints
from .bus import metrics
from .bus.envelope import LANES, Envelope
from .bus.link import BusUnavailable
from .bus.publisher import WINDOW, Outcome, Publisher
from .clock import Clock
from .db import WEATHER, read_json, write_json
from .telemetry import Trace

log = structlog.get_logger(__name__)

POLL_S = 0.2
"""Rows that another process left (a command of the database's owner) leave soon, too: revocations are among them."""
SHARED_S = 0.05
MOST_BYTES = 8 * 1024 * 1024
PUBLISH_S = 3.0
REDRIVE = timedelta(hours=72)
HELD_BACK_S = 30.0
MEASURE_S = 5.0

INSERT = """
    INSERT INTO outbox (outbox_id, lane, exchange, routing_key, type, subject, body, headers, created_at)
    SELECT id, lane, exchange, routing_key, type, subject, body, headers::jsonb, created_at
      FROM unnest($1::uuid[], $2::smallint[], $3::text[], $4::text[], $5::text[], $6::text[], $7::bytea[],
                  $8::text[], $9::timestamptz[])
        AS m (id, lane, exchange, routing_key, type, subject, body, headers, created_at)
"""
LOCK_LANES = """
    SELECT lane::int FROM generate_series(0, $2::int - 1) AS lane WHERE pg_try_advisory_xact_lock($1, lane)
"""
TAKE = """
    SELECT * FROM (
        SELECT *, sum(octet_length(body)) OVER (ORDER BY outbox_id) - octet_length(body) AS bytes_before
          FROM (SELECT outbox_id, lane, exchange, routing_key, type, subject, body, headers::text AS headers,
                       created_at
                  FROM outbox
                 WHERE sent_at IS NULL AND lane = ANY($1) AND outbox_id <> ALL($2::uuid[])
                 ORDER BY outbox_id LIMIT $3) AS waiting) AS measured
     WHERE bytes_before < $4 ORDER BY outbox_id
"""
LOOK = "SELECT EXISTS (SELECT 1 FROM outbox WHERE sent_at IS NULL)"
MARK = "UPDATE outbox SET sent_at = $2 WHERE outbox_id = ANY($1::uuid[])"
MEASURE = """
    SELECT count(*), min(created_at)
      FROM (SELECT created_at FROM outbox WHERE sent_at IS NULL ORDER BY outbox_id LIMIT 10000) AS waiting
"""


async def insert(
    connection: Any, messages: Sequence[Message | Envelope], *, trace: Trace, now: datetime
) -> int:
    """Write messages into the outbox in one statement, in the caller's transaction; give how many.

    `now` is the machine's time. An Envelope keeps its id and headers.
    """
    rows = [m if isinstance(m, Envelope) else Envelope.of(m, trace=trace, now=now) for m in messages]
    await connection.execute(
        INSERT,
        [r.message_id for r in rows],
        [r.lane for r in rows],
        [r.exchange for r in rows],
        [r.routing_key for r in rows],
        [r.type for r in rows],
        [r.subject for r in rows],
        [r.body for r in rows],
        [write_json(dict(r.headers)) for r in rows],
        [r.created_at for r in rows],
    )
    return len(rows)


class Relay:
    """Sends what waits in the outbox; several relays work side by side, a lane belongs to one at a time."""

    def __init__(self, pool: asyncpg.Pool[Any], publisher: Publisher, service: str) -> None:
        self._pool = pool
        self._publisher = publisher
        self._service = service
        self._lock_class = zlib.crc32(f"outbox:{service}".encode()) - 2**31
        self._wanted = asyncio.Event()
        self._held_back: dict[UUID, float] = {}
        self._is_shared = False

    def wake(self) -> None:
        """Say that a transaction has just left rows."""
        self._wanted.set()

    async def run(self) -> None:
        """Send for ever: at once when woken, and five times a second what others left behind."""
        while True:
            await self._publisher.wait_until_usable()
            is_wanted = self._wanted.is_set() or self._is_shared
            self._wanted.clear()
            try:
                while (is_wanted or await self._pool.fetchval(LOOK)) and await self.send_some():
                    is_wanted = True
            except WEATHER as error:
                log.warning("relay met bad weather", error=repr(error))
            await self._rest()

    async def _rest(self) -> None:
        try:
            async with asyncio.timeout(SHARED_S if self._is_shared else POLL_S):
                await self._wanted.wait()
        except TimeoutError:
            return

    async def send_some(self) -> int:
        """Send up to a window of rows, 8 MiB and a bit, and mark those confirmed; give how many were confirmed.

        Holds the advisory locks of its lanes until the marks are committed, 3 s and a bit at most. Where another
        relay holds lanes, it may just have passed over rows of ours: then the next rest is short.
        """
        async with self._pool.acquire() as connection, connection.transaction():
            lanes = [row[0] for row in await connection.fetch(LOCK_LANES, self._lock_class, LANES)]
            self._is_shared = len(lanes) < LANES
            rows = await connection.fetch(TAKE, lanes, self._now_held_back(), WINDOW, MOST_BYTES)
            if not rows:
                return 0
            if failpoints.points:
                await failpoints.reach("relay.before_send")
            sent = await self._send([_envelope(row) for row in rows])
            if failpoints.points:
                await failpoints.reach("relay.after_confirm")
            await connection.execute(MARK, sent, Clock.machine_now())
        if failpoints.points:
            await failpoints.reach("relay.after_mark")
        return len(sent)

    async def _send(self, envelopes: list[Envelope]) -> list[UUID]:
        try:
            outcomes = await self._publisher.send(envelopes, PUBLISH_S)
        except BusUnavailable:
            return []
        again_at = asyncio.get_running_loop().time() + HELD_BACK_S
        for envelope, outcome in zip(envelopes, outcomes, strict=True):
            if outcome is Outcome.RETURNED:
                self._held_back[envelope.message_id] = again_at
        return [e.message_id for e, o in zip(envelopes, outcomes, strict=True) if o is Outcome.CONFIRMED]

    def _now_held_back(self) -> list[UUID]:
        """Name rows the broker returned lately: they wait half a minute, and don't stand in others' way."""
        now = asyncio.get_running_loop().time()
        self._held_back = {row: until for row, until in self._held_back.items() if until > now}
        return list(self._held_back)

    async def measure_for_ever(self) -> None:
        """Keep the gauges of what waits."""
        while True:
            row = await self._pool.fetchrow(MEASURE)
            count, oldest = (row[0], row[1]) if row else (0, None)
            metrics.UNSENT.labels(self._service).set(count)
            age_s = (Clock.machine_now() - oldest).total_seconds() if oldest else 0.0
            metrics.UNSENT_AGE.labels(self._service).set(age_s)
            await asyncio.sleep(MEASURE_S)


def _envelope(row: asyncpg.Record) -> Envelope:
    return Envelope(
        message_id=UUID(int=row["outbox_id"].int),
        exchange=row["exchange"],
        routing_key=row["routing_key"],
        type=row["type"],
        subject=row["subject"],
        body=row["body"],
        created_at=row["created_at"],
        headers=read_json(row["headers"]),
        lane=row["lane"],
    )
