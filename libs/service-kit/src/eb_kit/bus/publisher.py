"""Publishing: mandatory, with confirms, in windows, each publish with a timeout.

A publish without an answer is unknown, never failed: it is sent again with the same message id.
Rule: docs/rules/bus.md, Publishing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from enum import StrEnum

import structlog
from aiormq.channel import Channel
from aiormq.exceptions import AMQPError, DeliveryError, PublishError

from . import metrics
from .envelope import Envelope
from .link import BusUnavailable, Link

log = structlog.get_logger(__name__)

WINDOW = 200
TIMEOUT_S = 5.0
PROBE_S = 1.0


class Outcome(StrEnum):
    """What became of a publish."""

    CONFIRMED = "confirmed"
    RETURNED = "returned"
    REFUSED = "refused"
    UNKNOWN = "unknown"


class Publisher:
    """A channel for publishing, opened again when it was lost.

    While the broker is silent (a whole window ran into its timeout) `is_silent` holds, but for one probe a
    second, so that who has another place to write to loses no time here.
    """

    def __init__(self, link: Link, service: str, source: str | None = None) -> None:
        """Publish for a service; `source` says in the messages where they come from, if not just its name."""
        self._link = link
        self._service = service
        self._source = source or service
        self._channel: Channel | None = None
        self._opening = asyncio.Lock()
        self._silent_since: float | None = None
        self._silent_until: float | None = None

    @property
    def is_silent(self) -> bool:
        """Tell whether it's too early to ask a silent broker again; who is told no, is the probe."""
        now = asyncio.get_running_loop().time()
        if self._silent_until is None:
            return False
        if now < self._silent_until:
            return True
        self._silent_until = now + PROBE_S
        return False

    async def send(self, envelopes: Sequence[Envelope], timeout_s: float = TIMEOUT_S) -> list[Outcome]:
        """Publish in windows of 200; give each one's outcome. Raises BusUnavailable before anything is sent."""
        outcomes: list[Outcome] = []
        for start in range(0, len(envelopes), WINDOW):
            if start and outcomes[-1] is Outcome.UNKNOWN:
                outcomes += [Outcome.UNKNOWN] * (len(envelopes) - start)
                break
            channel = await self._open()
            outcomes += await self._window(channel, envelopes[start : start + WINDOW], timeout_s)
        for outcome in outcomes:
            metrics.PUBLISHED.labels(self._service, outcome).inc()
        return outcomes

    async def wait_until_usable(self) -> None:
        """Wait while the broker is away or blocks publishers."""
        await self._link.usable()

    def check(self) -> None:
        """Raise BusUnavailable where a publish is bound to hang or to fail now."""
        if not self._link.is_up:
            raise BusUnavailable("not connected")
        if self._link.is_blocked:
            raise BusUnavailable("the broker blocks publishers")
        if self.is_silent:
            raise BusUnavailable("the broker is silent")

    async def _open(self) -> Channel:
        async with self._opening:
            if self._channel is None or self._channel.is_closed:
                try:
                    self._channel = await self._link.channel()
                except (AMQPError, ConnectionError, RuntimeError) as error:
                    raise BusUnavailable(repr(error)) from error
            return self._channel

    async def _window(
        self, channel: Channel, envelopes: Sequence[Envelope], timeout_s: float
    ) -> list[Outcome]:
        began = asyncio.get_running_loop().time()
        tasks = [asyncio.create_task(self._publish(channel, e, timeout_s)) for e in envelopes]
        try:
            await asyncio.wait(tasks)
        finally:
            for task in tasks:
                task.cancel()
        # A hung broker cancels pending publishes although nobody asked: those are unknown, too.
        outcomes = [Outcome.UNKNOWN if task.cancelled() else task.result() for task in tasks]
        self._listen(outcomes, began)
        return outcomes

    def _listen(self, outcomes: Sequence[Outcome], began: float) -> None:
        if any(outcome is not Outcome.UNKNOWN for outcome in outcomes):
            self._silent_since = self._silent_until = None
        else:
            self.note_silence(began)

    def note_silence(self, began: float) -> None:
        """Remember that a publish begun at this instant got no answer.

        The connection is given up when one begun after the first silence gets none either: those that were
        under way together are one silence, and say nothing about the connection that came after it.
        """
        now = asyncio.get_running_loop().time()
        is_second = self._silent_since is not None and began > self._silent_since
        if self._silent_since is None or is_second:
            self._silent_since = now
        self._silent_until = now + PROBE_S
        if is_second and not self._link.is_blocked:
            log.warning("the broker is silent, connecting anew")
            self._link.drop()

    async def _publish(self, channel: Channel, envelope: Envelope, timeout_s: float) -> Outcome:
        try:
            await channel.basic_publish(
                envelope.body,
                exchange=envelope.exchange,
                routing_key=envelope.routing_key,
                properties=envelope.properties(self._source),
                mandatory=True,
                timeout=timeout_s,
                wait=False,
            )
        except PublishError:
            log.error("returned as unroutable", exchange=envelope.exchange, routing_key=envelope.routing_key)
            return Outcome.RETURNED
        except DeliveryError:
            return Outcome.REFUSED
        except (AMQPError, ConnectionError, RuntimeError, TimeoutError) as error:
            log.warning("publish unknown", message_id=str(envelope.message_id), error=repr(error))
            return Outcome.UNKNOWN
        return Outcome.CONFIRMED


async def publish_surely(publisher: Publisher, envelopes: Sequence[Envelope], timeout_s: float) -> None:
    """Publish all and wait for the confirms; BusUnavailable where any is missing within `timeout_s`."""
    publisher.check()
    began = asyncio.get_running_loop().time()
    try:
        async with asyncio.timeout(timeout_s):
            outcomes = await publisher.send(envelopes, timeout_s)
    except TimeoutError:
        publisher.note_silence(began)
        raise BusUnavailable("no answer in time") from None
    if lost := [outcome for outcome in outcomes if outcome is not Outcome.CONFIRMED]:
        raise BusUnavailable(f"{len(lost)} of {len(outcomes)} not confirmed: {lost[0]}")
