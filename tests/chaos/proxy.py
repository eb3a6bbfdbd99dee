"""A small TCP proxy that makes a network bad: slow, silent in one direction, cut, reset, or narrow.

It runs in a thread with an event loop of its own, so that a test that blocks doesn't stop the traffic.
"""

from __future__ import annotations

import asyncio
import socket
import struct
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Self

CHUNK = 65536
POLL_S = 0.02
RESET = struct.pack("ii", 1, 0)


@dataclass(frozen=True)
class Faults:
    """What is wrong with the network; nothing by default. `up` is towards the server."""

    delay_s: float = 0.0
    holds_up: bool = False
    holds_down: bool = False
    refuses: bool = False
    reset_after_bytes: int | None = None
    bytes_per_s: float | None = None


class Proxy:
    """One port in front of a server; `target` gives the server's port at each connection."""

    def __init__(self, target: Callable[[], int]) -> None:
        self._target = target
        self.faults = Faults()
        self.port = 0
        self._passed = 0
        self._open: set[asyncio.StreamWriter] = set()
        self._loop = asyncio.new_event_loop()
        self._is_up = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        self._is_up.wait(10)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)

    def suffer(self, **changes: object) -> None:
        """Make the network bad from now on, for standing connections too."""
        self._passed = 0
        self.faults = replace(Faults(), **changes)  # type: ignore[arg-type]

    def heal(self) -> None:
        """Make it good again; what was held goes on."""
        self.faults = Faults()

    def cut(self) -> None:
        """Reset every standing connection and refuse new ones until `heal`."""
        self.suffer(refuses=True)
        self._loop.call_soon_threadsafe(self._reset_all)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        server = self._loop.run_until_complete(asyncio.start_server(self._serve, "127.0.0.1", 0))
        self.port = int(server.sockets[0].getsockname()[1])
        self._is_up.set()
        self._loop.run_forever()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.faults.refuses:
            _reset(writer)
            return
        try:
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._target())
        except OSError:
            _reset(writer)
            return
        both = {writer, far_writer}
        self._open |= both
        try:
            await asyncio.wait(
                {
                    asyncio.create_task(self._pump(reader, far_writer, is_up=True)),
                    asyncio.create_task(self._pump(far_reader, writer, is_up=False)),
                },
                return_when=asyncio.FIRST_COMPLETED,
            )
        finally:
            self._open -= both
            for one in both:
                one.transport.abort()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, is_up: bool) -> None:
        try:
            while data := await reader.read(CHUNK):
                await self._obey(len(data), is_up=is_up)
                writer.write(data)
                await writer.drain()
        except (ConnectionError, OSError):
            return

    async def _obey(self, size: int, *, is_up: bool) -> None:
        while self.faults.holds_up if is_up else self.faults.holds_down:
            await asyncio.sleep(POLL_S)
        faults = self.faults
        self._passed += size
        if faults.reset_after_bytes is not None and self._passed > faults.reset_after_bytes:
            self._passed = 0
            raise ConnectionResetError
        pause_s = faults.delay_s + (size / faults.bytes_per_s if faults.bytes_per_s else 0.0)
        if pause_s:
            await asyncio.sleep(pause_s)

    def _reset_all(self) -> None:
        for writer in tuple(self._open):
            _reset(writer)


def _reset(writer: asyncio.StreamWriter) -> None:
    """Close with a RST, as a router that lost the connection would."""
    raw = writer.transport.get_extra_info("socket")
    if raw is not None:
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    writer.transport.abort()
