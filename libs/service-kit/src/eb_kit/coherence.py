"""Coherence: what was sent (outbox) and what was handled (inbox) compared over the bus, and what is missing sent again.

So a purged queue, or a broker that forgot what it had confirmed, heals by itself. The sender opens windows of its
outbox, tells each reader counts and digests, and keeps a window open until the reader agrees; where they differ and the
reader is at rest, it names the ids and sends those again that the reader hasn't had. Times are the machine's.
Rule: docs/rules/bus.md, Coherence.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol
from uuid import UUID

import structlog

from eb_contracts.coherence import IdsMissing, IdsSent, WindowHandled, WindowSent, WindowsHandled, WindowsSent

from . import outbox, topology
from .bus import metrics
from .clock import Clock
from .db import WEATHER

if TYPE_CHECKING:
    from .service import ServiceContext
    from .tx import Tx

log = structlog.get_logger(__name__)

SLACK = timedelta(seconds=1)
"""A row may be committed, and its id taken, a little before it is marked as sent."""
MOST_WINDOWS = 500
MOST_DUE = 1000
MOST_IDS = 5000
PATIENCE = 4
"""How many looks a reader has to answer in, before it is asked again."""
MOST_DOUBLINGS = 8
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

DIGEST = "bit_xor(('x' || substr({0}::text, 20, 4) || substr({0}::text, 25, 12))::bit(64)::bigint)"
SENT = f"""
    SELECT w.at, o.* FROM unnest($1::timestamptz[], $2::uuid[], $3::uuid[]) AS w (at, low, high)
     CROSS JOIN LATERAL (
        SELECT exchange, routing_key, count(*) FILTER (WHERE sent_at < $4) AS sent,
               count(*) FILTER (WHERE sent_at IS NULL OR sent_at >= $4) AS unsent,
               coalesce({DIGEST.format("outbox_id")} FILTER (WHERE sent_at < $4), 0) AS digest
          FROM outbox WHERE outbox_id >= w.low AND outbox_id < w.high GROUP BY exchange, routing_key) AS o
"""  # noqa: S608 - a constant expression
HANDLED = f"""
    SELECT w.at, i.* FROM unnest($1::timestamptz[], $2::uuid[], $3::uuid[]) AS w (at, low, high)
     CROSS JOIN LATERAL (
        SELECT queue, count(*) AS handled, {DIGEST.format("message_id")} AS digest
          FROM inbox WHERE message_id >= w.low AND message_id < w.high AND source = $4 GROUP BY queue) AS i
"""  # noqa: S608 - a constant expression
START = "INSERT INTO coherence_cursor (is_only, compared_to) VALUES (true, $1) ON CONFLICT DO NOTHING"
LOCK = "SELECT compared_to FROM coherence_cursor FOR UPDATE SKIP LOCKED"
MOVE = "UPDATE coherence_cursor SET compared_to = $1"
MOVE_BACK = "UPDATE coherence_cursor SET compared_to = least(compared_to, $1)"
OPEN = """
    INSERT INTO sent_window (window_from, queue, window_to, sent, unsent, digest, next_at, rounds, cleared, resent,
                             resend_at)
    SELECT at, queue, until, 0, 0, 0, $4, 0, 0, 0, $4
      FROM unnest($1::timestamptz[], $2::text[], $3::timestamptz[]) AS w (at, queue, until)
    ON CONFLICT DO NOTHING
"""
DUE = """
    SELECT window_from, window_to, queue FROM sent_window WHERE next_at <= $1
     ORDER BY next_at, window_from, queue LIMIT $2 FOR UPDATE SKIP LOCKED
"""
TOLD = """
    UPDATE sent_window AS s SET sent = w.sent, unsent = w.unsent, digest = w.digest, next_at = $6
      FROM unnest($1::timestamptz[], $2::text[], $3::bigint[], $4::bigint[], $5::bigint[])
        AS w (at, queue, sent, unsent, digest)
     WHERE s.window_from = w.at AND s.queue = w.queue
"""
ANSWERED = """
    SELECT s.*, h.count AS now_handled, h.digest AS now_digest, h.is_waiting
      FROM sent_window AS s
      JOIN unnest($1::timestamptz[], $2::text[], $3::bigint[], $4::bigint[], $5::boolean[])
        AS h (at, queue, count, digest, is_waiting) ON s.window_from = h.at AND s.queue = h.queue
     ORDER BY s.window_from, s.queue FOR UPDATE OF s
"""
CLOSE = """
    DELETE FROM sent_window AS s USING unnest($1::timestamptz[], $2::text[]) AS w (at, queue)
     WHERE s.window_from = w.at AND s.queue = w.queue
"""
LOOKED = """
    UPDATE sent_window AS s SET handled = w.handled, next_at = $4
      FROM unnest($1::timestamptz[], $2::text[], $3::bigint[]) AS w (at, queue, handled)
     WHERE s.window_from = w.at AND s.queue = w.queue
"""
IDS = """
    SELECT outbox_id, exchange, routing_key FROM outbox
     WHERE outbox_id >= $1 AND outbox_id < $2 AND sent_at < $3 ORDER BY outbox_id
"""
ASKED = """
    UPDATE sent_window SET rounds = rounds + 1, sent = $3, cleared = 0, next_at = $4
     WHERE window_from = $1 AND queue = $2 RETURNING rounds
"""
UNHANDLED = """
    SELECT id FROM unnest($1::uuid[]) AS m (id)
     WHERE NOT EXISTS (SELECT FROM inbox WHERE message_id = id AND queue = $2)
       AND NOT EXISTS (SELECT FROM bus_dead_letter AS d WHERE d.message_id = id AND d.queue = $2)
"""
AGAIN = (
    "UPDATE outbox SET sent_at = NULL WHERE outbox_id = ANY($1::uuid[]) AND sent_at < $2 RETURNING outbox_id"
)
RESENT = """
    UPDATE sent_window
       SET resent = resent + 1, resend_at = $4::timestamptz + $5::interval * 2 ^ least(resent, $6::int),
           handled = NULL, next_at = $7
     WHERE window_from = $1 AND queue = $2 AND rounds = $3
"""
CLEARED = """
    UPDATE sent_window SET cleared = cleared + $4 WHERE window_from = $1 AND queue = $2 AND rounds = $3
    RETURNING cleared >= sent AND unsent = 0
"""
OVERTAKEN = "SELECT EXISTS (SELECT FROM inbox WHERE message_id >= $1 AND queue = $2 AND source = $3)"
GIVE_UP = "DELETE FROM sent_window WHERE window_from < $1 RETURNING window_from, queue, sent, handled"
OPEN_NOW = """
    SELECT split_part(queue, '.', 1) AS reader, min(window_to) AS oldest,
           coalesce(sum(greatest(sent - handled, 0)), 0) AS missing
      FROM sent_window GROUP BY 1
"""


class Rest(Protocol):
    """What a reader knows of messages that it hasn't handled yet."""

    async def ready(self, queues: Collection[str]) -> Mapping[str, int]:
        """Count what waits in the broker; a queue that can't be asked isn't named."""

    def in_hand(self, queue: str) -> set[UUID]:
        """Name what this process was delivered and hasn't settled."""


class Span(NamedTuple):
    """A window by its ends, and by the ids in it."""

    start: datetime
    end: datetime

    @property
    def low(self) -> UUID:
        return id_floor(self.start)

    @property
    def high(self) -> UUID:
        return id_floor(self.end)


@dataclass(slots=True)
class Sum:
    """What went to one queue in one window."""

    sent: int = 0
    unsent: int = 0
    digest: int = 0


def id_floor(instant: datetime) -> UUID:
    """Give the smallest UUIDv7 of an instant's millisecond, as `platform.id_floor` does."""
    return UUID(int=(instant - EPOCH) // timedelta(milliseconds=1) << 80)


def floor(instant: datetime, step: timedelta) -> datetime:
    """Give the start of the window that an instant lies in."""
    return instant - (instant - EPOCH) % step


class Coherence:
    """Both sides of the comparison for one service; every process of it may run one."""

    def __init__(self, context: ServiceContext, rest: Rest) -> None:
        settings = context.settings
        self._context = context
        self._service = context.service_name
        self._rest = rest
        self._window = timedelta(seconds=settings.coherence_window_s)
        self._grace = timedelta(seconds=settings.coherence_grace_s)
        self._check_s: float = settings.coherence_check_s
        self._check = timedelta(seconds=self._check_s)

    async def run(self) -> None:
        """Compare for ever; at once again while there is more to catch up with."""
        while True:
            has_more = False
            try:
                async with self._context.begin(f"system:{self._service}") as tx:
                    has_more = await self.compare(tx)
            except WEATHER as error:
                log.warning("comparing waits for the database", error=repr(error))
            if not has_more:
                await asyncio.sleep(self._check_s)

    async def compare(self, tx: Tx) -> bool:
        """Open the windows that have come of age and tell readers what is due; True if there is more to do.

        One process at a time: it holds the cursor's row.
        """
        now = Clock.machine_now()
        await tx.execute(START, floor(now - self._window, self._window))
        since = await tx.fetchval(LOCK)
        if since is None:
            return False
        has_more = await self._open(tx, since, now)
        due = await tx.fetch(DUE, now, MOST_DUE)
        await self._tell(tx, [(Span(r["window_from"], r["window_to"]), r["queue"]) for r in due], now)
        await self._give_up(tx, now)
        await self._measure(tx, now)
        return has_more or len(due) == MOST_DUE

    async def _open(self, tx: Tx, since: datetime, now: datetime) -> bool:
        """Open windows that ended a grace time ago; True if more of them wait."""
        last = now - self._grace - SLACK
        spans: list[Span] = []
        while since + self._window <= last and len(spans) < MOST_WINDOWS:
            spans.append(Span(since, since + self._window))
            since += self._window
        if not spans:
            return False
        found = await self._sums(tx, spans, now)
        ends = dict(spans)
        keys = sorted(found)
        times, queues = [key[0] for key in keys], [key[1] for key in keys]
        await tx.execute(OPEN, times, queues, [ends[at] for at in times], now)
        await tx.execute(MOVE, since)
        return len(spans) == MOST_WINDOWS

    async def _sums(self, tx: Tx, spans: Sequence[Span], now: datetime) -> dict[tuple[datetime, str], Sum]:
        """Sum what was sent in these windows by queue; what was sent less than a grace time ago counts as unsent."""
        rows = await tx.fetch(SENT, *_bounds(spans), now - self._grace)
        found: dict[tuple[datetime, str], Sum] = {}
        for row in rows:
            for queue in topology.queues_of(row["exchange"], row["routing_key"]):
                total = found.setdefault((row["at"], queue), Sum())
                total.sent += row["sent"]
                total.unsent += row["unsent"]
                total.digest ^= row["digest"]
        return found

    async def _tell(self, tx: Tx, due: Sequence[tuple[Span, str]], now: datetime) -> None:
        """Tell each reader what it was sent in the windows that are due."""
        if not due:
            return
        sums = await self._sums(tx, list(dict.fromkeys(span for span, _ in due)), now)
        told: dict[str, list[WindowSent]] = {}
        for span, queue in due:
            total = sums.setdefault((span.start, queue), Sum())
            if total.sent:
                told.setdefault(topology.reader_of(queue), []).append(_window(span, queue, total))
        keys = [(span.start, queue) for span, queue in due]
        await tx.execute(
            TOLD,
            [at for at, _ in keys],
            [queue for _, queue in keys],
            *([getattr(sums[key], name) for key in keys] for name in ("sent", "unsent", "digest")),
            now + self._check * PATIENCE,
        )
        for reader, windows in told.items():
            tx.publish(WindowsSent(sender=self._service, reader=reader, windows=tuple(windows)))

    async def _give_up(self, tx: Tx, now: datetime) -> None:
        """Close windows whose messages leave the outbox: nothing can be sent again."""
        for row in await tx.fetch(GIVE_UP, now - outbox.REDRIVE):
            log.error("window given up", **{name: str(value) for name, value in row.items()})
            metrics.WINDOWS.labels(self._service, topology.reader_of(row["queue"]), "given_up").inc()

    async def _measure(self, tx: Tx, now: datetime) -> None:
        rows = {row["reader"]: row for row in await tx.fetch(OPEN_NOW)}
        for reader in topology.SERVICES:
            row = rows.get(reader)
            age_s = max(0.0, (now - row["oldest"] - self._grace).total_seconds()) if row else 0.0
            metrics.MISSING.labels(self._service, reader).set(row["missing"] if row else 0)
            metrics.UNAGREED_AGE.labels(self._service, reader).set(age_s)

    async def tell_handled(self, tx: Tx, messages: list[WindowsSent]) -> None:
        """Answer senders with what was handled of the windows they told."""
        for message in messages:
            spans = [Span(window.window_from, window.window_to) for window in message.windows]
            rows = await tx.fetch(HANDLED, *_bounds(list(dict.fromkeys(spans))), message.sender)
            found = {(row["at"], row["queue"]): (row["handled"], row["digest"]) for row in rows}
            waiting = await self._waiting(tx, message, found)
            windows = tuple(
                WindowHandled(
                    queue=w.queue,
                    window_from=w.window_from,
                    count=found.get((w.window_from, w.queue), (0, 0))[0],
                    digest=found.get((w.window_from, w.queue), (0, 0))[1],
                    is_waiting=(w.window_from, w.queue) in waiting,
                )
                for w in message.windows
            )
            tx.publish(WindowsHandled(sender=message.sender, reader=self._service, windows=windows))

    async def _waiting(
        self, tx: Tx, message: WindowsSent, found: Mapping[tuple[datetime, str], tuple[int, int]]
    ) -> set[tuple[datetime, str]]:
        """Name the windows that differ and of which messages may still be on their way to us.

        They are if this process holds one, or if the queue isn't empty and nothing later has come out of it.
        """
        differing = [w for w in message.windows if found.get((w.window_from, w.queue)) != (w.count, w.digest)]
        if not differing:
            return set()
        ready = await self._rest.ready({w.queue for w in differing})
        waiting = set()
        for w in differing:
            low, high = id_floor(w.window_from), id_floor(w.window_to)
            if any(low <= held < high for held in self._rest.in_hand(w.queue)) or (
                ready.get(w.queue, 1) and not await tx.fetchval(OVERTAKEN, high, w.queue, message.sender)
            ):
                waiting.add((w.window_from, w.queue))
        return waiting

    async def settle(self, tx: Tx, messages: list[WindowsHandled]) -> None:
        """Close what readers agree on; name the ids of what differs and doesn't move."""
        for message in messages:
            columns = [
                [getattr(window, name) for window in message.windows]
                for name in ("window_from", "queue", "count", "digest", "is_waiting")
            ]
            now = Clock.machine_now()
            rows = await tx.fetch(ANSWERED, *columns)
            agreed = [row for row in rows if _is_agreed(row)]
            open_still = [row for row in rows if not _is_agreed(row)]
            await tx.execute(CLOSE, [r["window_from"] for r in agreed], [r["queue"] for r in agreed])
            metrics.WINDOWS.labels(self._service, message.reader, "agreed").inc(len(agreed))
            await tx.execute(
                LOOKED,
                [r["window_from"] for r in open_still],
                [r["queue"] for r in open_still],
                [None if r["is_waiting"] else r["now_handled"] for r in open_still],
                now + self._check,
            )
            for row in open_still:
                if _is_stuck(row, now):
                    await self._list_ids(tx, row, message.reader, now)

    async def _list_ids(self, tx: Tx, row: Any, reader: str, now: datetime) -> None:
        """Ask the reader which of the ids of a window it hasn't had."""
        queue, span = row["queue"], Span(row["window_from"], row["window_to"])
        found = await tx.fetch(IDS, span.low, span.high, now - self._grace)
        ids = [
            UUID(int=r["outbox_id"].int)
            for r in found
            if queue in topology.queues_of(r["exchange"], r["routing_key"])
        ]
        rounds = await tx.fetchval(ASKED, span.start, queue, len(ids), now + self._check * PATIENCE)
        for at in range(0, len(ids), MOST_IDS):
            tx.publish(
                IdsSent(
                    sender=self._service,
                    reader=reader,
                    queue=queue,
                    window_from=span.start,
                    round=rounds,
                    ids=tuple(ids[at : at + MOST_IDS]),
                )
            )

    async def tell_missing(self, tx: Tx, messages: list[IdsSent]) -> None:
        """Answer which of the ids were neither handled nor given up, nor are in hand."""
        for message in messages:
            rows = await tx.fetch(UNHANDLED, list(message.ids), message.queue)
            held = self._rest.in_hand(message.queue)
            missing = {UUID(int=row["id"].int) for row in rows} - held
            tx.publish(
                IdsMissing(
                    sender=message.sender,
                    reader=self._service,
                    queue=message.queue,
                    window_from=message.window_from,
                    round=message.round,
                    checked=len(message.ids),
                    ids=tuple(sorted(missing)),
                )
            )

    async def send_again(self, tx: Tx, messages: list[IdsMissing]) -> None:
        """Send what is missing once more, under the same ids; close the window where nothing is."""
        for message in messages:
            if message.ids:
                await self._resend(tx, message, Clock.machine_now())
            else:
                key = (message.window_from, message.queue)
                if await tx.fetchval(CLEARED, *key, message.round, message.checked):
                    await tx.execute(CLOSE, [key[0]], [key[1]])
                    metrics.WINDOWS.labels(self._service, message.reader, "explained").inc()

    async def _resend(self, tx: Tx, message: IdsMissing, now: datetime) -> None:
        again = await tx.fetch(AGAIN, list(message.ids), now - self._grace)
        await tx.execute(
            RESENT,
            message.window_from,
            message.queue,
            message.round,
            now,
            self._grace,
            MOST_DOUBLINGS,
            now + self._grace + SLACK,
        )
        log.error("messages were missing, sent again", queue=message.queue, messages=len(again))
        metrics.RESENT.labels(self._service, message.reader).inc(len(again))
        self._context.bus.wake()


async def look_back(connection: Any, since: datetime) -> None:
    """Have everything that was sent since this instant compared again."""
    await connection.execute(MOVE_BACK, since)


def _bounds(spans: Iterable[Span]) -> tuple[list[datetime], list[UUID], list[UUID]]:
    found = list(spans)
    return [s.start for s in found], [s.low for s in found], [s.high for s in found]


def _window(span: Span, queue: str, total: Sum) -> WindowSent:
    return WindowSent(
        queue=queue, window_from=span.start, window_to=span.end, count=total.sent, digest=total.digest
    )


def _is_agreed(row: Any) -> bool:
    return row["unsent"] == 0 and (row["sent"], row["digest"]) == (row["now_handled"], row["now_digest"])


def _is_stuck(row: Any, now: datetime) -> bool:
    """Tell whether a window differs, as it did at the last look, while the reader has nothing more to take."""
    return (
        (row["sent"], row["digest"]) != (row["now_handled"], row["now_digest"])
        and not row["is_waiting"]
        and row["handled"] == row["now_handled"]
        and row["resend_at"] <= now
    )
