"""Facts of the ledger: entries that were posted."""

from __future__ import annotations

from uuid import UUID

from .base import Body, Message, register


class PostedEntry(Body):
    """A ledger line and the charge it was posted for."""

    IS_CARRIED = True
    org_id: UUID
    charge_id: str
    entry_id: UUID


@register
class EntriesPosted(Message):
    """Lines that were posted in one transaction."""

    IS_CARRIED = True
    TYPE = "ledger.entries.posted.v1"
    entries: tuple[PostedEntry, ...]

    @property
    def weight(self) -> int:
        return len(self.entries)
