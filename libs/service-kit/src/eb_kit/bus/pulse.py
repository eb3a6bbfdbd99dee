"""Whether the broker still answers: a small question a second on each connection.

A connection that stands says nothing of a broker that hangs. An alarm is told to those only who publish, so the
publishing connection publishes, to an exchange that nothing is bound to. Rule: docs/rules/bus.md, Connections.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

import structlog
from aiormq.channel import Channel

from ..topology import PULSE
from .link import BusUnavailable, Link, hang_up

log = structlog.get_logger(__name__)

EVERY_S = 1.0
GIVE_UP_S = 15.0


class Pulse:
    """The questions on one connection; `run` is one life of their channel, and its keeper starts the next."""

    def __init__(
        self, link: Link, ask: Callable[[Channel], Awaitable[object]], note: Callable[[float], None]
    ) -> None:
        """Call `note` with the monotonic instant of each question that was answered."""
        self._link = link
        self._ask = ask
        self._note = note

    async def run(self) -> None:
        """Ask until the channel is lost. A late answer counts too; without one for 15 s the connection is given up."""
        await self._link.usable()
        channel = await self._link.channel()
        try:
            while True:
                asked_at = time.monotonic()
                await self._answer(channel)
                self._note(asked_at)
                await asyncio.sleep(max(0.0, asked_at + EVERY_S - time.monotonic()))
        finally:
            await hang_up(channel)

    async def _answer(self, channel: Channel) -> None:
        try:
            async with asyncio.timeout(GIVE_UP_S):
                await self._ask(channel)
        except TimeoutError:
            if not self._link.is_blocked:
                log.warning("the broker doesn't answer, connecting anew")
                self._link.drop()
            raise BusUnavailable("no answer") from None


async def ask_by_publishing(channel: Channel) -> None:
    """Have a message confirmed that goes nowhere; unanswered while an alarm blocks publishers."""
    await channel.basic_publish(b"", exchange=PULSE)


async def ask_by_setting(channel: Channel) -> None:
    """Have a setting of the channel confirmed; answered during alarms too."""
    await channel.basic_qos(prefetch_count=1)
