"""A take: many messages handled in one transaction, and what happens when that fails.

Bad weather of the database holds the messages and consumes no attempt. Any other failure splits the take in
halves down to the single message, which alone goes to a retry tier or to the dead letters; its neighbours are
handled. Rule: docs/rules/bus.md, Takes.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import asyncpg
import structlog
from pydantic import ValidationError

from eb_contracts.base import Message
from eb_contracts.ids import made_at

from .. import deadletters, failpoints, inbox
from ..clock import Clock
from ..db import WEATHER
from ..telemetry import span
from . import metrics, retries
from .envelope import ATTEMPT, Delivery, Envelope
from .handlers import Family, Handler, Poison
from .link import BusUnavailable
from .publisher import Outcome, Publisher

if TYPE_CHECKING:
    from ..service import ServiceContext

log = structlog.get_logger(__name__)

FIRST_PAUSE_S = 0.1
LONGEST_PAUSE_S = 5.0
STUBBORN = 5
MOST_TRACES = 64
COMPARING = "coherence"
"""The family whose takes come every few seconds and say nothing about anybody's request."""
OLDEST = timedelta(days=31)
NEWEST = timedelta(days=7)


class Abandoned(Exception):
    """The channel is gone or the process drains: what is in hand comes again from the broker."""


class Settler(Protocol):
    """Brings a take to its end; what it returns from may be acknowledged as a whole."""

    async def settle(self, deliveries: Sequence[Delivery], is_over: Callable[[], bool]) -> None: ...


class _Held(Exception):
    """The weather stayed bad for one message alone: others shall not wait behind it."""


class Read(NamedTuple):
    """A delivery and the message in it."""

    delivery: Delivery
    message: Message

    @property
    def key(self) -> tuple[Any, str]:
        """Give what the inbox knows it by."""
        return self.delivery.message_id, self.delivery.queue


class Taker:
    """Settles the takes of one family."""

    def __init__(
        self, context: ServiceContext, family: Family, publisher: Publisher, *, ignores_unknown: bool = False
    ) -> None:
        self._context = context
        self._family = family
        self._publisher = publisher
        self._ignores_unknown = ignores_unknown
        self._labels = (context.service_name, family.name)

    async def settle(self, deliveries: Sequence[Delivery], is_over: Callable[[], bool]) -> None:
        """Handle a take to its end; Abandoned where it can't be ended."""
        if failpoints.points:
            await failpoints.reach(f"{self._family.name}.received")
        metrics.TAKE_MESSAGES.labels(*self._labels).observe(len(deliveries))
        with metrics.TAKE_SECONDS.labels(*self._labels).time():
            take: list[Read] = []
            for delivery in deliveries:
                try:
                    take += self._read(delivery)
                except (Poison, ValidationError) as error:
                    await self._give_away(delivery, error, is_over)
            if take:
                await self._settle(take, is_over)

    def _read(self, delivery: Delivery) -> list[Read]:
        entry = self._family.handlers.get(delivery.type)
        if entry is None:
            if self._ignores_unknown:
                return []
            raise Poison(f"nobody here handles {delivery.type}", code="unknown_type")
        made = made_at(delivery.message_id) if delivery.message_id else None
        age = Clock.machine_now() - made if made else None
        if age is None or not -NEWEST < age < OLDEST:
            raise Poison("the message id is no UUIDv7 of our time", code="message_id_invalid")
        return [Read(delivery, entry[0].from_bytes(delivery.body))]

    async def _settle(self, take: Sequence[Read], is_over: Callable[[], bool]) -> None:
        try:
            await self._through_weather(take, is_over)
        except Abandoned:
            raise
        except _Held as error:
            await self._wait_elsewhere(take[0].delivery, error, is_over)
        except Exception as error:  # the edge of a message: its handler failed, whatever the reason
            if len(take) == 1:
                await self._give_away(take[0].delivery, error, is_over)
                return
            middle = len(take) // 2
            await self._settle(take[:middle], is_over)
            await self._settle(take[middle:], is_over)

    async def _through_weather(self, take: Sequence[Read], is_over: Callable[[], bool]) -> None:
        """Try until the database lets us; a take that meets the same weather often is tried in halves."""
        pause_s, tries = FIRST_PAUSE_S, 0
        while True:
            try:
                await self._handle(take)
            except WEATHER as error:
                tries += 1
                log.warning("take held", family=self._family.name, messages=len(take), error=repr(error))
                if tries >= _patience(error) and await self._database_works():
                    raise (_Split if len(take) > 1 else _Held)(repr(error)) from error
                metrics.HELD.labels(*self._labels).set(len(take))
                await _pause(pause_s, is_over)
                pause_s = min(pause_s * 2, LONGEST_PAUSE_S)
            else:
                metrics.HELD.labels(*self._labels).set(0)
                return

    async def _database_works(self) -> bool:
        try:
            await self._context.pool.fetchval("SELECT 1", timeout=1)
        except WEATHER:
            return False
        return True

    async def _handle(self, take: Sequence[Read]) -> None:
        traces = list(
            {r.delivery.trace.trace_id: r.delivery.trace for r in take if r.delivery.trace}.values()
        )
        started = asyncio.get_running_loop().time()
        with span(f"take {self._family.name}", parent=traces[0] if traces else None, links=traces[1:]):
            async with self._context.begin(f"service:{self._context.service_name}") as tx:
                unique = {read.key: read for read in take}
                sources = {key: read.delivery.source for key, read in unique.items()}
                new = await inbox.enter(tx.connection, sources, Clock.machine_now())
                fresh = [read for key, read in unique.items() if key in new]
                await self._hand_over(tx, [read.message for read in fresh])
                if failpoints.points:
                    await failpoints.reach(f"{self._family.name}.before_commit")
            if failpoints.points:
                await failpoints.reach(f"{self._family.name}.after_commit")
            self._context.bus.kept.forget(message_id for message_id, _ in unique)
            seconds = asyncio.get_running_loop().time() - started
            self._tell(take, fresh, seconds)

    async def _hand_over(self, tx: Any, messages: Sequence[Message]) -> None:
        groups: dict[Handler[Any], list[Message]] = {entry[1]: [] for entry in self._family.handlers.values()}
        for message in messages:
            groups[self._family.handlers[message.TYPE][1]].append(message)
        for handler, group in groups.items():
            if group:
                await handler(tx, group)

    def _tell(self, take: Sequence[Read], fresh: Sequence[Read], seconds: float) -> None:
        metrics.CONSUMED.labels(*self._labels, "handled").inc(len(fresh))
        metrics.CONSUMED.labels(*self._labels, "seen_before").inc(len(take) - len(fresh))
        say = log.debug if self._family.name == COMPARING else log.info
        say(
            "take handled",
            family=self._family.name,
            messages=len(take),
            new=len(fresh),
            weight=sum(read.message.weight for read in fresh),
            seconds=round(seconds, 4),
            trace_ids=_traces(fresh),
        )

    async def _wait_elsewhere(
        self, delivery: Delivery, error: BaseException, is_over: Callable[[], bool]
    ) -> None:
        envelope = retries.again(delivery, error, retries.TIERS[0], Clock.machine_now())
        headers = dict(envelope.headers) | {ATTEMPT: delivery.attempt}
        await self._send(replace(envelope, headers=headers), is_over)

    async def _give_away(self, delivery: Delivery, error: Exception, is_over: Callable[[], bool]) -> None:
        now, service = Clock.machine_now(), self._context.service_name
        tier = retries.tier_after(delivery, error)
        name = retries.error_class(error)
        log.warning(
            "message failed",
            queue=delivery.queue,
            message_id=str(delivery.message_id),
            attempt=delivery.attempt,
            error_class=name,
            tier=tier,
            exc_info=error if tier else None,
        )
        if tier is None:
            await self._send(retries.dead(delivery, error, service, now), is_over)
            metrics.DEAD.labels(service, delivery.queue, name).inc()
        else:
            await self._send(retries.again(delivery, error, tier, now), is_over)
            metrics.RETRIES.labels(service, delivery.queue, tier).inc()

    async def _send(self, envelope: Envelope, is_over: Callable[[], bool]) -> None:
        """Publish until it is confirmed; only then may the original be acknowledged."""
        pause_s = FIRST_PAUSE_S
        while True:
            try:
                if (await self._publisher.send([envelope]))[0] is Outcome.CONFIRMED:
                    return
            except BusUnavailable as error:
                log.warning("can't send a failed message away yet", error=str(error))
            await _pause(pause_s, is_over)
            pause_s = min(pause_s * 2, LONGEST_PAUSE_S)


class _Split(Exception):
    """The take met the same weather again and again while the database works: try it in halves."""


class DeadImporter:
    """Settles takes of a dead-letter queue: into the table, through any weather."""

    def __init__(self, context: ServiceContext) -> None:
        self._context = context

    async def settle(self, deliveries: Sequence[Delivery], is_over: Callable[[], bool]) -> None:
        """Import a take; Abandoned where it can't be ended."""
        pause_s = FIRST_PAUSE_S
        while True:
            try:
                async with self._context.begin(f"service:{self._context.service_name}") as tx:
                    await deadletters.import_letters(tx.connection, deliveries, Clock.machine_now())
            except WEATHER as error:
                log.warning("dead letters held", error=repr(error))
                await _pause(pause_s, is_over)
                pause_s = min(pause_s * 2, LONGEST_PAUSE_S)
            else:
                return


def _patience(error: BaseException) -> int:
    """Say how often the same take is tried in such weather; one that took too long is too large."""
    return 1 if isinstance(error, TimeoutError | asyncpg.QueryCanceledError) else STUBBORN


async def _pause(seconds: float, is_over: Callable[[], bool]) -> None:
    """Rest with jitter; Abandoned as soon as the messages in hand aren't ours any more."""
    await asyncio.sleep(seconds * random.uniform(0.5, 1.0))  # noqa: S311 - jitter, not a secret
    if is_over():
        raise Abandoned


def _traces(reads: Sequence[Read]) -> list[str]:
    """Name the requests behind a take, 64 at most."""
    found: dict[str, None] = {}
    for read in reads:
        own = [read.delivery.trace.trace_id] if read.delivery.trace else []
        found |= dict.fromkeys(read.message.traces or own)
        if len(found) >= MOST_TRACES:
            break
    return list(found)[:MOST_TRACES]
