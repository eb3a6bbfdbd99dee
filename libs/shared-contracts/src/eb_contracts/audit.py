"""Audit entries on their way from the service whose table was written to auth, which chains them."""

from __future__ import annotations

from datetime import datetime
from typing import Literal
from uuid import UUID

from .base import Body, Message, register


class AuditEntry(Body):
    """One write to an audited table, as the database's trigger noted it.

    `before` and `after` are the row's JSON as PostgreSQL writes it: text, so that no digit is lost and the hash
    over it stays. They hold no personal values: where there were any stand commitments (docs/rules/identity.md,
    Audit).
    """

    audit_id: UUID
    org_id: UUID | None
    entity: str
    entity_id: str
    action: Literal["insert", "update", "delete"]
    actor: str
    on_behalf_of: str | None
    session_user: str
    request_id: str | None
    trace_id: str | None
    at: datetime
    before: str | None
    after: str | None


@register
class AuditRecorded(Message):
    """Entries of one service, in the order they were written."""

    TYPE = "kit.audit.recorded.v1"
    service: str
    entries: tuple[AuditEntry, ...]

    @property
    def subject(self) -> str:
        return self.service

    @property
    def weight(self) -> int:
        return len(self.entries)
