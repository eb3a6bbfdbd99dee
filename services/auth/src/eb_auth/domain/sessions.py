"""Sessions and the rotation of their refresh tokens.

Rule: docs/rules/identity.md, Sessions and tokens.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from uuid import UUID

from eb_contracts.ids import made_at

GRACE = timedelta(seconds=10)
REFRESH_PREFIX = "ebr_"
LONG_AGO = datetime.fromtimestamp(0, UTC)
"""When somebody signed in of whom nobody said when."""


@dataclass(frozen=True, slots=True)
class Proof:
    """What a provider says about the sign-in that it vouches for.

    `auth_time` is when it saw its user prove who they are, None where it doesn't tell; `acr` and `amr` say how
    (OpenID Connect Core 1.0, 2), in the provider's own words.
    """

    provider: str
    auth_time: datetime | None = None
    acr: str | None = None
    amr: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Session:
    """A signed-in device. `org_id` is the organisation whose context its access tokens carry.

    `proof` is the provider's word, None where the sign-in was by a code.
    """

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
    proof: Proof | None = None

    @property
    def signed_in_at(self) -> datetime:
        """Give when its person proved who they are, by the machine's clock: a local run's doesn't age sign-ins.

        With a provider that is the provider's to tell, and never later than the session began.
        """
        began = made_at(self.session_id) or self.created_at
        if self.proof is None:
            return began
        return min(began, self.proof.auth_time or LONG_AGO)

    def is_live(self, now: datetime) -> bool:
        """Tell whether the session may still be used."""
        return self.revoked_at is None and now < min(self.idle_expires_at, self.expires_at)


def shows(proof: Proof | None, acr: Collection[str], amr: Collection[str]) -> bool:
    """Tell whether a provider's word names one of these classes or one of these methods."""
    return proof is not None and (proof.acr in acr or not set(proof.amr).isdisjoint(amr))


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
