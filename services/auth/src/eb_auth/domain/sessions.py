"""Sessions and the rotation of their refresh tokens.

Rule: docs/rules/identity.md, Sessions and tokens.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from uuid import UUID

from eb_contracts.ids import made_at

GRACE = timedelta(seconds=10)
REFRESH_PREFIX = "ebr_"


@dataclass(frozen=True, slots=True)
class Session:
    """A signed-in device. `org_id` is the organisation whose context its access tokens carry."""

    session_id: UUID
    user_id: UUID
    org_id: UUID | None
    created_at: datetime
    last_used_at: datetime
    idle_expires_at: datetime
    expires_at: datetime
    revoked_at: datetime | None
    user_agent: str
    address: str

    @property
    def signed_in_at(self) -> datetime:
        """Give when its person proved who they are, by the machine's clock: a local run's doesn't age sign-ins."""
        return made_at(self.session_id) or self.created_at

    def is_live(self, now: datetime) -> bool:
        """Tell whether the session may still be used."""
        return self.revoked_at is None and now < min(self.idle_expires_at, self.expires_at)


class Verdict(StrEnum):
    """What happens to a refresh token that was presented."""

    ROTATE = "rotate"
    REFUSE = "refuse"
    REVOKE = "revoke"


def judge(session: Session, replaced_at: datetime | None, now: datetime) -> Verdict:
    """Judge a known refresh token of a session; `replaced_at` is when it was rotated away, None if current.

    For ten seconds an old token is only refused: two tabs or a lost answer look the same as theft. After
    that its use means that it leaked, and the whole family is revoked.
    """
    if not session.is_live(now):
        return Verdict.REFUSE
    if replaced_at is None:
        return Verdict.ROTATE
    return Verdict.REFUSE if now - replaced_at <= GRACE else Verdict.REVOKE


def token_digest(refresh_token: str) -> bytes:
    """Give what is kept of a refresh token; its 256 bits of chance need no key."""
    return hashlib.sha256(refresh_token.encode()).digest()
