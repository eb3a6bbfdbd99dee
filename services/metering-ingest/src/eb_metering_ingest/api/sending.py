"""From accepted batches to the broker's confirm: what comes at the same time travels in one message per partition.

A request that is alone is sent at once. While a message is under way, others wait for its confirm, 5 ms at most,
and leave together: a message costs the broker and both its clients ten times as much as a small batch in it.
Rule: docs/rules/metering.md, Batches and The fallback.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, cast
from uuid import UUID

import structlog
from prometheus_client import Counter
from pydantic import TypeAdapter

from eb_contracts.ids import new_id, partition_of
from eb_contracts.metering import AcceptedEvent, BatchAccepted
from eb_kit import failpoints
from eb_kit.bus import BusUnavailable, Envelope, written
from eb_kit.bus.envelope import WEIGHT
from eb_kit.db import WEATHER
from eb_kit.service import ServiceContext
from eb_kit.telemetry import Trace, current_trace

from ..domain.errors import IngestUnavailable
from .plain import Part

log = structlog.get_logger(__name__)

LONGEST_WAIT_S = 0.005
MOST_EVENTS_TOGETHER = 1000
MOST_BYTES_TOGETHER = 512 * 1024
EVENTS = Counter("eb_metering_events_total", "Events at the door by what became of them.", ["outcome"])
_write_events = TypeAdapter(list[AcceptedEvent]).dump_json
_unfinished: set[asyncio.Task[None]] = set()


def parts_of(events: Sequence[AcceptedEvent]) -> list[Part]:
    """Give checked events by partition."""
    found: dict[int, list[AcceptedEvent]] = {}
    for event in events:
        found.setdefault(partition_of(event.org_id), []).append(event)
    return [Part(partition, _write_events(some), len(some)) for partition, some in found.items()]


class Piece(NamedTuple):
    """The part of a batch that one message carries, with the members that tell which batch it is."""

    part: Part
    head: bytes
    trace: Trace

    @property
    def body(self) -> bytes:
        """Write it as the members of an object."""
        return b'%b,"events":%b' % (self.head, self.part.events)


@dataclass(slots=True)
class Group:
    """What leaves together; `sent` tells whether it was kept."""

    pieces: list[Piece]
    sent: asyncio.Future[bool]
    timer: asyncio.TimerHandle


class Sender:
    """Gathers batches that come at the same time, and sends them."""

    def __init__(self, context: ServiceContext) -> None:
        self._context = context
        self._group: Group | None = None
        self._under_way = 0

    async def keep(self, parts: Sequence[Part]) -> UUID:
        """Have a batch confirmed by the broker, or else committed to the outbox; give its id.

        Raises IngestUnavailable.
        """
        batch_id, trace, now = new_id(), current_trace(), self._context.clock.now()
        head = f'"batch_id":"{batch_id}","received_at":"{now.isoformat()}","trace_id":"{trace.trace_id}"'.encode()
        group = self._group or self._begin()
        group.pieces += [Piece(part, head, trace) for part in parts]
        if not await asyncio.shield(group.sent):
            raise IngestUnavailable(retry_after_s=2)
        return batch_id

    def _begin(self) -> Group:
        loop = asyncio.get_running_loop()
        wait_s = LONGEST_WAIT_S if self._under_way else 0
        self._group = Group([], loop.create_future(), loop.call_later(wait_s, self._leave))
        return self._group

    def _leave(self) -> None:
        if self._group is not None:
            self._group.timer.cancel()
            _remember(asyncio.create_task(self._send(self._group)))
            self._group = None

    async def _send(self, group: Group) -> None:
        self._under_way += 1
        try:
            keeping = self._is_kept(list(envelopes_of(self._context, group.pieces)))
            [is_kept] = await asyncio.gather(keeping, return_exceptions=True)
            if isinstance(is_kept, BaseException):
                group.sent.set_exception(is_kept)  # the requests that wait answer for it
            else:
                group.sent.set_result(is_kept)
        finally:
            if not group.sent.done():
                group.sent.set_result(False)
            self._under_way -= 1
            if not self._under_way:
                self._leave()

    async def _is_kept(self, envelopes: Sequence[Envelope]) -> bool:
        """Have messages confirmed by the broker, or else committed to the outbox; False where neither was possible."""
        if failpoints.points:
            await failpoints.reach("ingest.before_publish")
        try:
            await self._context.bus.publish_now(envelopes, self._context.settings.publish_timeout_s)
            if failpoints.points:
                await failpoints.reach("ingest.after_publish")
        except BusUnavailable as error:
            log.warning("the broker did not take batches", messages=len(envelopes), error=str(error))
            return await self._is_spooled(envelopes)
        return True

    async def _is_spooled(self, envelopes: Sequence[Envelope]) -> bool:
        """Commit the same messages to the outbox: the relay sends them when the broker is back.

        What the broker took without telling comes twice then, under the same message id, and counts once.
        """
        context = self._context

        async def insert() -> None:
            async with context.begin("system:metering-ingest") as tx:
                tx.publish(*envelopes)

        try:
            await commit_soon(insert(), context.settings.spool_timeout_s)
        except IngestUnavailable:
            return False
        EVENTS.labels("spooled").inc(sum(int(envelope.headers[WEIGHT]) for envelope in envelopes))
        if failpoints.points:
            await failpoints.reach("ingest.spooled")
        return True


def sender_of(context: ServiceContext) -> Sender:
    """Give the process's sender."""
    if (found := context.extras.get("sender")) is None:
        found = context.extras["sender"] = Sender(context)
    return cast(Sender, found)


def envelopes_of(context: ServiceContext, pieces: Sequence[Piece]) -> Iterator[Envelope]:
    """Write one message per partition, or a few where it would grow too large."""
    now = context.clock.machine_now()
    by_partition: dict[int, list[Piece]] = {}
    for piece in pieces:
        by_partition.setdefault(piece.part.partition, []).append(piece)
    for partition, together in by_partition.items():
        for some in _cut(together):
            first, *others = (piece.body for piece in some)
            more = b',"more":[{%b}]' % b"},{".join(others) if others else b""
            body = b'{"partition":%d,%b%b}' % (partition, first, more)
            weight = sum(piece.part.weight for piece in some)
            yield written(BatchAccepted, partition, body, weight=weight, trace=some[0].trace, now=now)


def _cut(pieces: Sequence[Piece]) -> Iterator[list[Piece]]:
    """Cut what goes to one partition into messages of a bounded size; one piece at least each."""
    some: list[Piece] = []
    weight = size = 0
    for piece in pieces:
        weight += piece.part.weight
        size += len(piece.part.events)
        if some and (weight > MOST_EVENTS_TOGETHER or size > MOST_BYTES_TOGETHER):
            yield some
            some, weight, size = [], piece.part.weight, len(piece.part.events)
        some.append(piece)
    yield some


def _remember(task: asyncio.Task[None]) -> None:
    """Keep a task from being collected while it runs."""
    _unfinished.add(task)
    task.add_done_callback(_unfinished.discard)


async def commit_soon(work: Coroutine[Any, Any, None], timeout_s: float) -> None:
    """Await a commit for so long; IngestUnavailable where it fails or takes longer.

    A task of its own, since a hung database keeps even the roll-back of what was given up waiting.
    """
    task = asyncio.create_task(work)
    _remember(task)
    await asyncio.wait({task}, timeout=timeout_s)
    try:
        if task.done():
            return task.result()
        task.cancel()
    except WEATHER as error:
        log.error("the database did not take it either", error=repr(error))
    raise IngestUnavailable(retry_after_s=2)
