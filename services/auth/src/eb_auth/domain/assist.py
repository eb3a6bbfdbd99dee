"""Assist sessions: somebody of the support staff, for a bounded time, inside an organisation that isn't theirs.

Rule: docs/rules/identity.md, Assist sessions.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal
from uuid import UUID

from .errors import AssistNotPending

ANSWER_WITHIN = timedelta(hours=24)
MOST_MINUTES = 60
Mode = Literal["read_only", "read_write"]
Purpose = Literal["customer_request", "incident", "billing_query", "onboarding", "security"]


@dataclass(frozen=True, slots=True)
class AssistSession:
    """An assist session from its request to its end.

    `session_id` is the helper's own session; `via_org_id` is where their group role is, None for platform staff.
    Until it has begun `expires_at` is when the request lapses, then when the session ends.
    """

    assist_session_id: UUID
    org_id: UUID
    user_id: UUID
    session_id: UUID
    via_org_id: UUID | None
    mode: str
    purpose: str
    reason: str
    ticket: str | None
    ttl_minutes: int
    status: str
    requested_at: datetime
    decided_by: str | None
    decided_at: datetime | None
    begun_at: datetime | None
    expires_at: datetime
    ended_by: str | None
    ended_at: datetime | None

    def status_at(self, now: datetime) -> str:
        """Give the status as people see it: what nobody ended in time has expired."""
        is_open = self.status in ("pending", "approved", "active")
        return "expired" if is_open and self.expires_at <= now else self.status


def is_open(assist: AssistSession, wanted: str, now: datetime) -> bool:
    """Tell whether a request can still be answered; False where it was answered so. Raises AssistNotPending."""
    if assist.status == wanted or (wanted == "approved" and assist.status == "active"):
        return False
    if assist.status_at(now) != "pending":
        raise AssistNotPending
    return True


def end_of(ttl_minutes: int, now: datetime, own_session_ends_at: datetime) -> datetime:
    """Give when a session that begins now ends: at its time, or with the helper's own session."""
    return min(now + timedelta(minutes=ttl_minutes), own_session_ends_at)
