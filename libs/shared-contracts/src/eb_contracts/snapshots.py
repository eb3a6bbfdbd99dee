"""How a new or rebuilt reader asks an owner for everything again (docs/rules/bus.md, Read models)."""

from __future__ import annotations

from uuid import UUID

from .base import Message, register


@register
class SnapshotRequested(Message):
    """`reader` wants every entity of this name again, as ordinary facts.

    The owner asks itself for the next page with `after` (last id sent) and `sent` (how many so far).
    """

    TYPE = "kit.snapshot.requested.v1"
    entity: str
    reader: str
    snapshot_id: UUID
    after: str | None = None
    sent: int = 0


@register
class SnapshotCompleted(Message):
    """All facts of a snapshot were sent; `count` entities, tombstones included."""

    TYPE = "kit.snapshot.completed.v1"
    entity: str
    reader: str
    snapshot_id: UUID
    count: int
