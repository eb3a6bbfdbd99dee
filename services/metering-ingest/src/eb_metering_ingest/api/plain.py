"""The short way of a plain batch through the door: it is read and checked whole, without a model per event.

Plain is what most clients send: JSON without escapes, each event an object of texts in their usual form, all
valid. The short way takes nothing that the long way (`reading`) would not take alike, and refuses nothing: whatever
isn't plain goes the long way, which alone says what is wrong. Rule: docs/rules/metering.md, Batches.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from datetime import datetime
from typing import NamedTuple
from uuid import UUID

import msgspec
from msgspec import UNSET, UnsetType

from eb_contracts.ids import partition_of

from ..domain.checks import Window
from .reading import MOST_EVENTS, SOURCES

QUOTES = 24
"""Quotation marks of an event: six members, each a name and a text."""
QUOTES_OF_SOURCE = 4
LONGEST = 128
_ID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\Z")
_QUANTITY = re.compile(r"[0-9]{1,18}(?:\.[0-9]{1,6})?\Z")
_TIME = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(?:\.[0-9]{1,6})?(?:Z|[+-][0-9]{2}:[0-9]{2})\Z"
)


class PlainEvent(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    """An event as its sender wrote it."""

    request_id: str
    sku: str
    quantity: str
    org_id: str
    project_id: str
    time: str
    source: str | UnsetType = UNSET


class Part(NamedTuple):
    """The events of one partition, as the JSON array that travels on."""

    partition: int
    events: bytes
    weight: int


class PlainBatch(NamedTuple):
    """A valid batch: as it was sent, and as its events."""

    body: bytes
    events: Sequence[PlainEvent]
    org_ids: set[str]

    def parts(self) -> list[Part]:
        """Give the batch by partition; one part is the body itself."""
        partition = {text: partition_of(UUID(text)) for text in self.org_ids}
        if len(wanted := set(partition.values())) == 1:
            return [Part(wanted.pop(), self.body, len(self.events))]
        found: dict[int, list[PlainEvent]] = {}
        for event in self.events:
            found.setdefault(partition[event.org_id], []).append(event)
        return [Part(number, msgspec.json.encode(some), len(some)) for number, some in found.items()]


_decode = msgspec.json.Decoder(list[PlainEvent]).decode


def read(body: bytes, window: Window) -> PlainBatch | None:
    """Give a plain batch; None for what must go the long way.

    Without escapes each text has two quotation marks, so their number shows a member that is named twice.
    """
    if b"\\" in body:
        return None
    try:
        events = _decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None
    if not 1 <= len(events) <= MOST_EVENTS:
        return None
    sources = [event.source for event in events if event.source is not UNSET]
    if body.count(b'"') != QUOTES * len(events) + QUOTES_OF_SOURCE * len(sources):
        return None
    org_ids = {event.org_id for event in events}
    is_plain = (
        _are_request_ids([event.request_id for event in events])
        and all(map(_is_sku, {event.sku for event in events}))
        and all(map(_is_quantity, {event.quantity for event in events}))
        and all(map(_ID.match, org_ids))
        and all(map(_ID.match, {event.project_id for event in events}))
        and _are_times({event.time for event in events}, window)
        and SOURCES.issuperset(sources)
    )
    return PlainBatch(body, events, org_ids) if is_plain else None


def _are_request_ids(texts: Sequence[str]) -> bool:
    together = "".join(texts)
    lengths = set(map(len, texts))
    return together.isascii() and together.isprintable() and min(lengths) > 0 and max(lengths) <= LONGEST


def _is_sku(text: str) -> bool:
    return text.isascii() and text.isprintable() and 0 < len(text) <= LONGEST and not text.isspace()


def _is_quantity(text: str) -> bool:
    return _QUANTITY.match(text) is not None and bool(text.strip("0."))


def _are_times(texts: Collection[str], window: Window) -> bool:
    try:
        times = [datetime.fromisoformat(text) for text in texts if _TIME.match(text)]
    except ValueError:
        return False
    return len(times) == len(texts) and window.earliest <= min(times) and max(times) <= window.latest
