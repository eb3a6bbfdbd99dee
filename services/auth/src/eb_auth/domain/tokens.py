"""Access tokens: what they say and how they are signed (JWT, EdDSA with Ed25519).

Rule: docs/rules/identity.md, Sessions and tokens.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

import jwt
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

AUDIENCE = "event-builder"
TOKEN_LIFETIME = timedelta(minutes=5)
STAFF_TOKEN_LIFETIME = timedelta(hours=12)


@dataclass(frozen=True, slots=True)
class AssistGrant:
    """Who really acts in an assist session, by which group role (None: the platform's staff), until when."""

    helper_id: UUID
    via_org_id: UUID | None
    until: datetime

    @property
    def claims(self) -> dict[str, object]:
        """Give the claims of the token (RFC 8693)."""
        about = {"via": str(self.via_org_id) if self.via_org_id else None, "until": self.until.timestamp()}
        return {"act": {"sub": str(self.helper_id)}, "assist": about}


@dataclass(frozen=True, slots=True)
class Grant:
    """Who an access token is about; `roles` hold in the context of `org_id` or, platform roles, everywhere."""

    user_id: UUID
    session_id: UUID
    org_id: UUID | None
    roles: tuple[str, ...]
    signed_in_at: datetime
    assist: AssistGrant | None = None


@dataclass(frozen=True, slots=True)
class SigningKey:
    """A signing key, opened: `private` are the 32 bytes of the Ed25519 seed."""

    kid: str
    private: bytes


def sign(
    grant: Grant, key: SigningKey, *, issuer: str, issued_at: datetime, token_id: UUID, lifetime: timedelta
) -> str:
    """Give the signed token. Times are fractions of Unix seconds, so that a revocation finds its exact order."""
    starts = issued_at.timestamp()
    claims = {
        "iss": issuer,
        "aud": AUDIENCE,
        "sub": str(grant.user_id),
        "sid": str(grant.session_id),
        "org": str(grant.org_id) if grant.org_id else None,
        "roles": list(grant.roles),
        "iat": starts,
        "nbf": starts,
        "exp": starts + lifetime.total_seconds(),
        "jti": str(token_id),
        "auth_time": grant.signed_in_at.timestamp(),
        **(grant.assist.claims if grant.assist else {}),
    }
    private = Ed25519PrivateKey.from_private_bytes(key.private)
    return jwt.encode(claims, private, algorithm="EdDSA", headers={"kid": key.kid})


def public_x(private: bytes) -> str:
    """Give the public half of a seed as RFC 8037 writes it: base64url without padding."""
    raw = Ed25519PrivateKey.from_private_bytes(private).public_key().public_bytes_raw()
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def key_set(keys: Iterable[tuple[str, str]]) -> dict[str, list[dict[str, str]]]:
    """Give the JWK Set (RFC 7517) of (kid, x) pairs."""
    return {
        "keys": [
            {"kty": "OKP", "crv": "Ed25519", "use": "sig", "alg": "EdDSA", "kid": kid, "x": x}
            for kid, x in keys
        ]
    }
