"""API keys of organisations and credentials of trusted systems.

Rule: docs/rules/identity.md, API keys.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import datetime
from typing import Literal
from uuid import UUID

from eb_contracts.auth import ApiKeyChanged


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A machine's credential as it is kept; the secret itself is known to its holder only."""

    key_id: UUID
    kind: Literal["org", "service"]
    org_id: UUID | None
    name: str
    secret_sha256: str
    scopes: tuple[str, ...]
    created_by: str
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None
    version: int

    @property
    def prefix(self) -> str:
        """Give the visible beginning of the key, by which people tell keys apart."""
        return f"eb_{self.key_id.hex}"


def key_text(key_id: UUID, secret: str) -> str:
    """Give the key as its holder sends it; `secret` are 43 characters of base64url."""
    return f"eb_{key_id.hex}_{secret}"


def key_digest(key: str) -> str:
    """Give what is kept of a key: the hex SHA-256 of the whole text."""
    return hashlib.sha256(key.encode()).hexdigest()


def key_fact(key: ApiKey) -> ApiKeyChanged:
    """Give what every service needs to verify the key."""
    return ApiKeyChanged(
        version=key.version,
        key_id=key.key_id,
        kind=key.kind,
        org_id=key.org_id,
        name=key.name if key.kind == "service" else None,
        secret_sha256=key.secret_sha256,
        scopes=key.scopes,
        expires_at=key.expires_at,
        revoked_at=key.revoked_at,
    )
