"""One connection to the broker that comes back by itself, and tells when it may be used.

Publishing and consuming have a connection each, since an alarm blocks a whole connection.
Rule: docs/rules/bus.md, Connections.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import cast

import aio_pika
import structlog
from aio_pika.abc import AbstractConnection
from aiormq.channel import Channel
from yarl import URL

from . import metrics

log = structlog.get_logger(__name__)

HEARTBEAT_S = 10
CONNECT_S = 5.0
CLOSE_S = 2.0
POLL_S = 0.05


class BusUnavailable(Exception):
    """The broker can't be reached, is hung or blocked, or didn't confirm in time: nothing is known for sure."""


class Link:
    """A connection under supervision: `run` is one life of it, and its keeper starts the next.

    aio-pika's own robust connection isn't used: it restores channels and consumers behind our back, while
    a take must know that its delivery tags died with the channel.
    """

    def __init__(self, url: Callable[[], str], service: str, role: str) -> None:
        """Make a link that isn't up; `heartbeat` in the URL's query stands in for the usual 10 s.

        The URL is asked for at each new connection: the password in it may have changed.
        """
        self._url = url
        self._name = f"{service}:{role}"
        self._connection: AbstractConnection | None = None
        self._up = asyncio.Event()
        self._down = asyncio.Event()
        self._gauge = metrics.CONNECTED.labels(service, role)
        self._closing: set[asyncio.Task[None]] = set()
        self.has_failed = False

    async def run(self) -> None:
        """Connect, stay until the connection is lost or dropped, clean up."""
        connection = await self._connect()
        self._down.clear()
        connection.close_callbacks.add(lambda *_: self._down.set())
        self._connection = connection
        self._up.set()
        self._gauge.set(1)
        log.info("bus connected", connection=self._name)
        try:
            await self._down.wait()
        finally:
            self._forget(connection)
        log.warning("bus connection lost", connection=self._name)

    async def _connect(self) -> AbstractConnection:
        """Connect, within 5 s; `has_failed` tells whether the last try came to nothing."""
        url = URL(self._url())
        connecting = aio_pika.connect(
            url,
            heartbeat=int(url.query.get("heartbeat", HEARTBEAT_S)),
            client_properties={"connection_name": self._name},
        )
        self.has_failed = False
        try:
            return await asyncio.wait_for(connecting, CONNECT_S)
        except BaseException:
            self.has_failed = True
            raise

    def _forget(self, connection: AbstractConnection) -> None:
        self._up.clear()
        self._gauge.set(0)
        self._connection = None
        task = asyncio.create_task(_close(connection))
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)

    @property
    def is_up(self) -> bool:
        """Tell whether a connection stands."""
        return self._up.is_set()

    @property
    def is_blocked(self) -> bool:
        """Tell whether the broker said `connection.blocked` (memory or disk alarm)."""
        transport = self._connection.transport if self._connection else None
        if transport is None:
            return False
        # aiormq keeps the flag to itself; a test raises a real alarm and sees that we still find it.
        unblocked: asyncio.Event | None = getattr(
            transport.connection, "_Connection__connection_unblocked", None
        )
        return unblocked is not None and not unblocked.is_set()

    async def usable(self) -> None:
        """Wait until the connection stands and isn't blocked."""
        while not self.is_up or self.is_blocked:
            await self._up.wait()
            if self.is_blocked:
                await asyncio.sleep(POLL_S)

    async def up(self) -> None:
        """Wait until the connection stands; an alarm doesn't hinder consuming."""
        await self._up.wait()

    def drop(self) -> None:
        """Give this connection up, because it stopped answering; the keeper makes a new one."""
        self._down.set()

    async def channel(self) -> Channel:
        """Open a channel with confirms and raised returns; BusUnavailable where there is no connection."""
        transport = self._connection.transport if self._connection else None
        if transport is None:
            raise BusUnavailable("not connected")
        try:
            async with asyncio.timeout(CONNECT_S):
                opened = await transport.connection.channel(publisher_confirms=True, on_return_raises=True)
        except TimeoutError:
            self.drop()
            raise BusUnavailable("the broker opened no channel in time") from None
        return cast(Channel, opened)

    async def close(self) -> None:
        """Wait until connections given up are closed, 2 s each at most."""
        if self._closing:
            await asyncio.wait(self._closing)


async def hang_up(channel: Channel) -> None:
    """Close a channel within a second: the broker puts back, in order, what wasn't acknowledged."""
    try:
        async with asyncio.timeout(1):
            await channel.close()
    except (TimeoutError, aio_pika.exceptions.AMQPError, ConnectionError):
        return


async def _close(connection: AbstractConnection) -> None:
    """Close within 2 s; a hung broker would keep a polite good-bye waiting for half a minute."""
    with suppress(TimeoutError, ConnectionError, aio_pika.exceptions.AMQPError):
        async with asyncio.timeout(CLOSE_S):
            await connection.close()
