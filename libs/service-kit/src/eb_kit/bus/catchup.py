"""Has this process heard what was said before it began? Until it has, it isn't ready.

What was revoked while a service was down waits in its queue of facts. A process that opened its door before it had
read them would take a credential that everybody else refuses. Rule: docs/rules/bus.md, Read models.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import structlog

from ..db import WEATHER

if TYPE_CHECKING:
    from ..service import ServiceContext
    from .intake import Intake
    from .link import Link
    from .runtime import Bus

log = structlog.get_logger(__name__)

LOOK_S = 0.03
LOOKS_A_QUESTION = 10
CONNECTS_WITHIN_S = 2.0
LONGEST_S = 30.0


class CatchUp:
    """Follows the queue of facts to the end that it had when this process began to read it."""

    def __init__(self, context: ServiceContext, bus: Bus, queue: str) -> None:
        self._context = context
        self._bus = bus
        self._queue = queue
        self._link: Link | None = None
        self.is_done = False

    async def run(self, link: Link, intake: Intake | None = None) -> None:
        """Wait until what waited is read and in memory, then rest for ever.

        `intake` reads the queue; None where other processes of the service do: what one of them has in hand just then
        is felt when its take ends.
        """
        self._link = link
        while not self.is_done:
            await link.up()
            if await (self._is_read_by(intake) if intake else self._is_empty()):
                self.is_done = await self._remember()
            await asyncio.sleep(LOOK_S)
        await asyncio.Event().wait()

    async def _is_read_by(self, intake: Intake) -> bool:
        """Tell whether as many messages as waited are settled by us, or by us and other processes together."""
        for _ in range(LOOKS_A_QUESTION):
            if intake.has_settled_backlog:
                return True
            await asyncio.sleep(LOOK_S)
        return intake.is_reading and await self._is_empty() and not self._bus.in_hand(self._queue)

    async def _is_empty(self) -> bool:
        return (await self._bus.ready([self._queue])).get(self._queue) == 0

    async def _remember(self) -> bool:
        """Take what was read into memory; False where the database is away."""
        try:
            await self._context.directory.refresh()
        except WEATHER as error:
            log.warning("what was revoked can't be read yet", error=repr(error))
            return False
        return True

    async def done_or_cut_off(self) -> None:
        """Wait until it is done, or the broker turns out to be away: then what was known last has to do."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        while not self.is_done and loop.time() - began < LONGEST_S:
            if self._is_cut_off(loop.time() - began):
                log.warning("the broker is away: nobody knows what was revoked lately")
                return
            await asyncio.sleep(LOOK_S)

    def _is_cut_off(self, waited_s: float) -> bool:
        if self._link is None or self._link.is_up:
            return False
        return self._link.has_failed or waited_s > CONNECTS_WITHIN_S
