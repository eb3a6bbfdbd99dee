"""One-time codes of the sign-in by email.

Rule: docs/rules/identity.md, Signing in.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from dataclasses import dataclass
from datetime import datetime, timedelta

DIGITS = 8
CODE_LIFETIME = timedelta(minutes=10)
MAX_TRIES = 5
NO_DIGEST = bytes(32)


@dataclass(frozen=True, slots=True)
class LoginCode:
    """The one live code of an address; `tries` counts the wrong ones so far."""

    email: str
    digest: bytes
    expires_at: datetime
    tries: int


def code_digest(key: bytes, email: str, code: str, challenge: str = "") -> bytes:
    """Give what is kept of a code: an HMAC, so that its few digits can't be tried out on a stolen table.

    With the challenge of the client that asked it is another one: who can't give the verifier has a wrong code.
    """
    digest = hmac.new(key, f"{email}\n{code}".encode(), hashlib.sha256).digest()
    return hmac.new(digest, challenge.encode(), hashlib.sha256).digest() if challenge else digest


def challenge_of(verifier: str) -> str:
    """Give the S256 challenge of a verifier (RFC 7636, 4.2)."""
    return base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).rstrip(b"=").decode()


def is_right(kept: LoginCode | None, offered: bytes, now: datetime) -> bool:
    """Tell whether the offered digest is that of a live code; as long a look when there is none."""
    is_same = hmac.compare_digest(kept.digest if kept else NO_DIGEST, offered)
    return kept is not None and is_same and kept.tries < MAX_TRIES and now < kept.expires_at
