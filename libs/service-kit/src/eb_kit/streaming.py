"""Bodies read as they arrive, for routes that take more than fits into memory: bounded pieces, inflated on the way.

A route says `streamed=True` and reads with `stream_body` instead of `read_raw`. Rule: docs/rules/http.md, Bodies.
"""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import AsyncIterator, Iterator
from typing import Protocol

import zstandard
from aiohttp import web

from .problems import BodyTooLarge, BodyTooSlow, BrokenBody
from .routing import ROUTE
from .web import (
    DEADLINE,
    LARGEST_WINDOW,
    REQUEST_DEADLINE_S,
    check_media_type,
    encoding_of,
)

IDLE_S = 10.0
"""Longest wait for the next bytes."""
LEAST_BYTES_S = 4096
"""A sender slower than this on average, after the first half minute, is cut off."""
GRACE_S = 30.0
LONGEST_S = 3600.0
PIECE_BYTES = 256 * 1024
SIP_BYTES = 256
"""zstd inflates without a bound of its own: 4 bytes can stand for 128 KiB, so this many for 8 MiB at most."""


class _Inflater(Protocol):
    def feed(self, data: bytes) -> Iterator[bytes]:
        """Give what the data holds, in bounded pieces."""

    def is_complete(self) -> bool:
        """Tell whether the body may end here."""


class _Plain:
    def feed(self, data: bytes) -> Iterator[bytes]:
        yield data

    def is_complete(self) -> bool:
        return True


class _Gunzip:
    def __init__(self) -> None:
        self._member = zlib.decompressobj(wbits=31)
        self._is_begun = False

    def feed(self, data: bytes) -> Iterator[bytes]:
        while data:
            if self._member.eof:
                self._member = zlib.decompressobj(wbits=31)
            self._is_begun = True
            yield self._member.decompress(data, PIECE_BYTES)
            data = self._member.unused_data if self._member.eof else self._member.unconsumed_tail
        while not self._member.eof and (rest := self._member.decompress(b"", PIECE_BYTES)):
            yield rest

    def is_complete(self) -> bool:
        return self._is_begun and self._member.eof


class _Unzstd:
    def __init__(self) -> None:
        self._maker = zstandard.ZstdDecompressor(max_window_size=LARGEST_WINDOW)
        self._frame = self._maker.decompressobj()
        self._is_begun = False

    def feed(self, data: bytes) -> Iterator[bytes]:
        for at in range(0, len(data), SIP_BYTES):
            rest = data[at : at + SIP_BYTES]
            while rest:
                if self._frame.eof:
                    self._frame = self._maker.decompressobj()
                self._is_begun = True
                yield self._frame.decompress(rest)
                rest = self._frame.unused_data if self._frame.eof else b""

    def is_complete(self) -> bool:
        return self._is_begun and self._frame.eof


_INFLATERS: dict[str, type[_Plain] | type[_Gunzip] | type[_Unzstd]] = {
    "identity": _Plain,
    "gzip": _Gunzip,
    "zstd": _Unzstd,
}


async def stream_body(request: web.Request) -> AsyncIterator[bytes]:
    """Give the body in pieces as it arrives, inflated; the route's `body_limit` holds before and after.

    Memory is bounded, whatever was compressed. The request's deadline rests meanwhile and begins anew after the
    last piece. Raises BodyTooLarge, BodyTooSlow (10 s without a byte, under 4 KiB/s after half a minute, an hour
    in all), BrokenBody (cut off, or broken compression), UnsupportedMediaType.
    """
    route = request[ROUTE]
    check_media_type(request, route.media_types)
    inflater: _Inflater = _INFLATERS[encoding_of(request, route.encodings)]()
    if (request.content_length or 0) > route.body_limit:
        raise BodyTooLarge(limit_bytes=route.body_limit)
    inflated = 0
    async for data in _arriving(request, route.body_limit):
        try:
            for piece in inflater.feed(data):
                inflated += len(piece)
                if inflated > route.body_limit:
                    raise BodyTooLarge(limit_bytes=route.body_limit)
                if piece:
                    yield piece
        except (zlib.error, zstandard.ZstdError):
            raise BrokenBody from None
    if not inflater.is_complete():
        raise BrokenBody


async def _arriving(request: web.Request, limit: int) -> AsyncIterator[bytes]:
    deadline, loop = request[DEADLINE], asyncio.get_running_loop()
    deadline.reschedule(None)
    waited, sent = 0.0, 0
    while True:
        asked = loop.time()
        try:
            async with asyncio.timeout(IDLE_S):
                data = await request.content.readany()
        except TimeoutError:
            raise BodyTooSlow from None
        except (ConnectionError, web.RequestPayloadError):
            raise BrokenBody from None
        if not data:
            break
        waited, sent = waited + loop.time() - asked, sent + len(data)
        _refuse_slow(waited, sent)
        if sent > limit:
            raise BodyTooLarge(limit_bytes=limit)
        yield data
    deadline.reschedule(loop.time() + REQUEST_DEADLINE_S)


def _refuse_slow(waited_s: float, sent_bytes: int) -> None:
    """Only time spent waiting for the sender counts, not what we did with the bytes in between."""
    is_slow = waited_s > GRACE_S and sent_bytes < waited_s * LEAST_BYTES_S
    if is_slow or waited_s > LONGEST_S:
        raise BodyTooSlow
