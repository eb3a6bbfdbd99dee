"""How sender and reader of messages compare what was sent and what was handled (docs/rules/bus.md, Coherence).

A window is a stretch of the time inside the message ids. A digest is the XOR of the last 64 bits of the ids, as a
signed number: it doesn't depend on their order, and ids are unique.
"""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from .base import Body, Message, register


class WindowSent(Body):
    """What was sent to one queue in one window."""

    queue: str
    window_from: datetime
    window_to: datetime
    count: int
    digest: int


class WindowHandled(Body):
    """What of it was handled; `is_waiting` while some may still wait in the queue."""

    queue: str
    window_from: datetime
    count: int
    digest: int
    is_waiting: bool


class Compared(Message):
    """A message between the sender and the reader of others; each service has a queue of its own for these."""

    sender: str
    reader: str

    @property
    def addressee(self) -> str:
        """Name the service that this is for."""
        return self.reader

    @property
    def routing_key(self) -> str:
        return f"kit.coherence.{self.addressee}"

    @property
    def subject(self) -> str:
        return f"{self.sender}>{self.reader}"


@register
class WindowsSent(Compared):
    """The sender tells the reader what it sent."""

    TYPE = "kit.coherence.sent.v1"
    windows: tuple[WindowSent, ...]


@register
class WindowsHandled(Compared):
    """The reader answers with what it has handled of that."""

    TYPE = "kit.coherence.handled.v1"
    windows: tuple[WindowHandled, ...]

    @property
    def addressee(self) -> str:
        return self.sender


@register
class IdsSent(Compared):
    """The sender names what it sent to a queue in a window, or a part of it, because the digests differ."""

    TYPE = "kit.coherence.listed.v1"
    queue: str
    window_from: datetime
    round: int
    ids: tuple[UUID, ...]


@register
class IdsMissing(Compared):
    """The reader answers which of the `checked` ids it has neither handled nor given up."""

    TYPE = "kit.coherence.missing.v1"
    queue: str
    window_from: datetime
    round: int
    checked: int
    ids: tuple[UUID, ...]

    @property
    def addressee(self) -> str:
        return self.sender
