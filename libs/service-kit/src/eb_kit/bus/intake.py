"""Fetching: one channel over all queues of a family, deliveries in order, settled in takes.

What is in the buffer before a take is settled with or before it, so one acknowledgement with `multiple` is
exact. Rule: docs/rules/bus.md, Takes.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from uuid import UUID

import structlog
from aiormq.abc import DeliveredMessage
from aiormq.channel import Channel
from aiormq.exceptions import AMQPError

from .. import failpoints
from .envelope import Delivery
from .link import CONNECT_S, BusUnavailable, Link, hang_up
from .takes import Abandoned, Settler

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Limits:
    """How much one take may hold, how long it waits for more, and how much each queue sends ahead."""

    max_messages: int
    max_weight: int
    linger_s: float
    prefetch: int


class Buffer:
    """Deliveries of one channel's life, in their order."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._waiting: deque[Delivery] = deque()
        self._weight = 0
        self._changed = asyncio.Event()
        self.is_lost = False
        self.is_draining = False

    @property
    def is_over(self) -> bool:
        """Tell whether nothing more shall be taken."""
        return self.is_lost or self.is_draining

    def put(self, delivery: Delivery) -> None:
        """Add what was delivered; who waits is woken by the first delivery, and by the one that makes it enough."""
        self._waiting.append(delivery)
        self._weight += delivery.weight
        if len(self._waiting) == 1 or self._is_full():
            self._changed.set()

    def lose(self) -> None:
        """The channel is gone, and the delivery tags with it."""
        self.is_lost = True
        self._changed.set()

    def drain(self) -> None:
        """Take no more; what waits goes back to the broker."""
        self.is_draining = True
        self._changed.set()

    def waiting(self) -> Iterator[Delivery]:
        """Give what was delivered and isn't taken yet."""
        return iter(tuple(self._waiting))

    async def take(self) -> list[Delivery]:
        """Wait for work and give a take in order; empty once it is over."""
        while not self._waiting and not self.is_over:
            self._changed.clear()
            await self._changed.wait()
        await self._linger()
        return [] if self.is_over else self._cut()

    async def _linger(self) -> None:
        try:
            async with asyncio.timeout(self._limits.linger_s):
                while not self._is_full() and not self.is_over:
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            return

    def _is_full(self) -> bool:
        return len(self._waiting) >= self._limits.max_messages or self._weight >= self._limits.max_weight

    def _cut(self) -> list[Delivery]:
        take = [self._waiting.popleft()]
        weight = take[0].weight
        while self._waiting and len(take) < self._limits.max_messages:
            if weight + self._waiting[0].weight > self._limits.max_weight:
                break
            weight += self._waiting[0].weight
            take.append(self._waiting.popleft())
        self._weight -= weight
        return take


class Intake:
    """The consumer of one family; `run` is one life of its channel, and its keeper starts the next."""

    def __init__(
        self, name: str, link: Link, queues: Sequence[str], limits: Limits, settler: Settler
    ) -> None:
        self.name = name
        self._link = link
        self._queues = queues
        self._limits = limits
        self._settler = settler
        self._buffer = Buffer(limits)
        self._taken: list[Delivery] = []
        self._is_draining = False
        self._backlog: int | None = None
        self._settled = 0
        self._idle = asyncio.Event()
        self._idle.set()

    @property
    def is_reading(self) -> bool:
        """Tell whether a channel is consuming."""
        return self._backlog is not None

    @property
    def has_settled_backlog(self) -> bool:
        """Tell whether as many messages are settled as waited when the channel began to consume."""
        return self._backlog is not None and self._settled >= self._backlog

    async def run(self) -> None:
        """Consume until the channel is lost or the process drains."""
        await self._link.up()
        buffer = self._buffer = Buffer(self._limits)
        if self._is_draining:
            buffer.drain()
        channel = await self._link.channel()
        channel.closing.add_done_callback(lambda _: buffer.lose())
        try:
            await self._subscribe(channel, buffer)
            await self._work(channel, buffer)
        finally:
            self._backlog = None
            await hang_up(channel)
        if self._is_draining:
            await _until_cancelled()

    async def _subscribe(self, channel: Channel, buffer: Buffer) -> None:
        channel.on_consumer_cancel_callbacks.add(lambda _: buffer.lose())
        try:
            async with asyncio.timeout(CONNECT_S):
                await channel.basic_qos(prefetch_count=self._limits.prefetch)
                waiting = await self._count(channel)
                for queue in self._queues:
                    await channel.basic_consume(queue, partial(_receive, buffer, queue))
        except TimeoutError:
            self._link.drop()
            raise BusUnavailable("the broker let us consume nothing in time") from None
        self._backlog, self._settled = waiting, 0

    async def _count(self, channel: Channel) -> int:
        """Count what waits; of a split family nobody asks, and a question for each queue would cost its start."""
        if len(self._queues) > 1:
            return 0
        return (await channel.queue_declare(self._queues[0], passive=True)).message_count or 0

    async def _work(self, channel: Channel, buffer: Buffer) -> None:
        while take := await buffer.take():
            self._idle.clear()
            self._taken = take
            try:
                await self._settler.settle(take, lambda: buffer.is_over)
                await channel.basic_ack(take[-1].tag, multiple=True, wait=False)
                self._settled += len(take)
                if failpoints.points:
                    await failpoints.reach(f"{self.name}.after_ack")
            except Abandoned:
                log.info("take abandoned, it comes again", intake=self.name, messages=len(take))
                return
            except AMQPError as error:
                log.info("not acknowledged, it comes again", intake=self.name, error=repr(error))
                return
            finally:
                self._taken = []
                self._idle.set()

    def in_hand(self, queue: str) -> set[UUID]:
        """Name the messages of a queue that were delivered and aren't settled."""
        found = {d.message_id for d in (*self._taken, *self._buffer.waiting()) if d.queue == queue}
        return {message_id for message_id in found if message_id is not None}

    async def drain(self) -> None:
        """Stop fetching and wait until the take in hand is settled and acknowledged."""
        self._is_draining = True
        self._buffer.drain()
        await self._idle.wait()


async def _receive(buffer: Buffer, queue: str, raw: DeliveredMessage) -> None:
    buffer.put(Delivery.of(queue, raw))


async def _until_cancelled() -> None:
    """Wait for the cancellation that follows a drain; wait_for of Python 3.11 may have swallowed it before."""
    task = asyncio.current_task()
    if task is not None and not task.cancelling():
        await asyncio.Event().wait()
