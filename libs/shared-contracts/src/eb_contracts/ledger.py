"""Facts of the ledger: entries that were posted, and who acts for a partner."""

from __future__ import annotations

from uuid import UUID

from .base import Body, EntityFact, Message, register


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


@register
class PartnerChanged(EntityFact):
    """A partner, and the organisation whose members act for it, if it names one. No name, no destination."""

    TYPE = "ledger.partner.changed.v1"
    ENTITY = "partner"
    partner_id: UUID
    org_id: UUID | None = None

    @property
    def entity_id(self) -> str:
        return str(self.partner_id)
