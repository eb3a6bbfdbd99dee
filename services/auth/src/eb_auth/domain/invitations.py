"""Invitations: one open per organisation and address, bound to the address, used once.

Rule: docs/rules/identity.md, Invitations.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

INVITATION_LIFETIME = timedelta(days=7)
INVITATION_PREFIX = "ebi_"


@dataclass(frozen=True, slots=True)
class Invitation:
    """An invitation; `outcome` is None while it is open, else accepted, revoked or expired."""

    invitation_id: UUID
    org_id: UUID
    email: str
    role: str
    invited_by: UUID
    created_at: datetime
    expires_at: datetime
    consumed_at: datetime | None
    outcome: str | None

    def status(self, now: datetime) -> str:
        """Say what became of it: open, accepted, revoked or expired."""
        if self.outcome is None and self.expires_at <= now:
            return "expired"
        return self.outcome or "open"

    def is_for(self, email: str, now: datetime) -> bool:
        """Tell whether this address may accept it now."""
        return self.status(now) == "open" and self.email.lower() == email.lower()


def token_digest(token: str) -> bytes:
    """Give what is kept of an invitation's token; its 256 bits of chance need no key."""
    return hashlib.sha256(token.encode()).digest()
