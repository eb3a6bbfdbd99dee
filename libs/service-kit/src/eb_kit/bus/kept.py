"""What was sent past the outbox, kept in memory until the own inbox shows that it was handled.

Only for messages that come back to the sending service. A purged queue loses none of them while the process lives;
a process that drains leaves the rest in the outbox. Rule: docs/rules/bus.md, Coherence.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from functools import cache
from itertools import islice
from typing import TYPE_CHECKING, NamedTuple
from uuid import UUID

import structlog

from .. import topology
from ..db import WEATHER
from . import metrics
from .envelope import Envelope
from .link import BusUnavailable
from .publisher import Publisher, publish_surely

if TYPE_CHECKING:
    from ..coherence import Rest
    from ..service import ServiceContext

log = structlog.get_logger(__name__)

LOOK_S = 2.0
MOST_AT_ONCE = 5_000
AGAIN_AT_ONCE = 200
AGAIN_S = 3.0
SPOOLED_AT_ONCE = 200
HANDLED = """
    SELECT message_id FROM inbox WHERE message_id = ANY($1::uuid[])
    UNION SELECT message_id FROM bus_dead_letter WHERE message_id = ANY($1::uuid[])
"""


class Held(NamedTuple):
    """A message and since when (the loop's time) it is under way."""

    since: float
    envelope: Envelope


class Kept:
    """The messages of one process that were confirmed and aren't known to be handled, oldest first."""

    def __init__(self, context: ServiceContext, publisher: Publisher, rest: Rest) -> None:
        self._context = context
        self._publisher = publisher
        self._rest = rest
        self._held: dict[UUID, Held] = {}
        self._bytes = 0
        self._most_bytes: int = context.settings.kept_mb * 1024 * 1024
        self._grace_s: float = context.settings.coherence_grace_s
        self._reached: dict[str, float] = {}
        self._gauge = metrics.KEPT_BYTES.labels(context.service_name)

    def __len__(self) -> int:
        return len(self._held)

    def add(self, envelopes: Iterable[Envelope]) -> None:
        """Keep what the broker has confirmed; over the bound the oldest are let go, and counted."""
        now = asyncio.get_running_loop().time()
        for envelope in envelopes:
            self._held[envelope.message_id] = Held(now, envelope)
            self._bytes += len(envelope.body)
        while self._bytes > self._most_bytes:
            self._drop(next(iter(self._held)))
            metrics.LET_GO.labels(self._context.service_name).inc()

    def forget(self, message_ids: Iterable[UUID]) -> None:
        """Let go of what this process itself has just handled."""
        if self._held:
            for message_id in message_ids:
                self._drop(message_id)

    def _drop(self, message_id: UUID) -> Held | None:
        held = self._held.pop(message_id, None)
        if held is not None:
            self._bytes -= len(held.envelope.body)
        return held

    async def run(self) -> None:
        """Look every two seconds for what was handled, and send again what got lost."""
        while True:
            await asyncio.sleep(LOOK_S)
            self._gauge.set(self._bytes)
            try:
                if self._held:
                    await self._look()
            except (*WEATHER, BusUnavailable) as error:
                log.info("kept messages wait", messages=len(self._held), error=repr(error))

    async def _look(self) -> None:
        now = asyncio.get_running_loop().time()
        await self._note_handled(list(islice(self._held, MOST_AT_ONCE)))
        late = [
            held for held in islice(self._held.values(), MOST_AT_ONCE) if now - held.since >= self._grace_s
        ]
        if late:
            await self._again(await self._lost(late))

    async def _note_handled(self, message_ids: Sequence[UUID]) -> None:
        rows = await self._context.pool.fetch(HANDLED, list(message_ids))
        for row in rows:
            if held := self._drop(UUID(int=row["message_id"].int)):
                queue = _queue(held.envelope)
                self._reached[queue] = max(self._reached.get(queue, 0.0), held.since)

    async def _lost(self, late: Sequence[Held]) -> list[Held]:
        """Pick what can't be under way any more: nothing waits in its queue, or later ones were handled long ago."""
        queues = {_queue(held.envelope) for held in late}
        ready = await self._rest.ready(queues)
        in_hand = set().union(*(self._rest.in_hand(queue) for queue in queues))
        return [
            held
            for held in late
            if held.envelope.message_id not in in_hand
            and (ready.get(_queue(held.envelope)) == 0 or self._is_overtaken(held))
        ]

    def _is_overtaken(self, held: Held) -> bool:
        return self._reached.get(_queue(held.envelope), 0.0) - held.since > self._grace_s

    async def _again(self, lost: Sequence[Held]) -> None:
        service = self._context.service_name
        for at in range(0, len(lost), AGAIN_AT_ONCE):
            envelopes = [held.envelope for held in lost[at : at + AGAIN_AT_ONCE]]
            await publish_surely(self._publisher, envelopes, AGAIN_S)
            log.error("messages were missing, sent again", messages=len(envelopes))
            metrics.RESENT.labels(service, service).inc(len(envelopes))
            for envelope in envelopes:
                self._drop(envelope.message_id)
            self.add(envelopes)

    async def hand_over(self) -> None:
        """Leave to the outbox what isn't known to be handled; called while draining."""
        try:
            await self._note_handled(list(self._held))
            while left := [held.envelope for held in islice(self._held.values(), SPOOLED_AT_ONCE)]:
                async with self._context.begin(f"system:{self._context.service_name}") as tx:
                    tx.publish(*left)
                self.forget([envelope.message_id for envelope in left])
        except WEATHER as error:
            log.error("kept messages couldn't be left to the outbox", messages=len(self), error=repr(error))


def comes_back(service: str, envelopes: Iterable[Envelope]) -> list[Envelope]:
    """Pick the messages that the sending service itself will handle."""
    return [e for e in envelopes if _comes_back(service, e.exchange, e.routing_key)]


@cache
def _comes_back(service: str, exchange: str, routing_key: str) -> bool:
    return {topology.reader_of(queue) for queue in topology.queues_of(exchange, routing_key)} == {service}


def _queue(envelope: Envelope) -> str:
    return topology.queues_of(envelope.exchange, envelope.routing_key)[0]
