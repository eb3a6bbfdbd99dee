"""API keys and service credentials. Rule: docs/rules/identity.md, API keys."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from datetime import datetime
from typing import Literal
from uuid import UUID

from eb_contracts.ids import new_id
from eb_kit.tx import Tx

from ..domain.credentials import ApiKey, key_digest, key_fact, key_text
from ..store import credentials


@dataclass(frozen=True, slots=True)
class NewKey:
    """What a new API key is to be."""

    name: str
    scopes: tuple[str, ...]
    expires_at: datetime | None


async def create_key(
    tx: Tx, kind: Literal["org", "service"], org_id: UUID | None, made: NewKey
) -> tuple[ApiKey, str]:
    """Keep a new API key and announce it; give it with the whole text, which is known here only."""
    key_id = new_id()
    text = key_text(key_id, secrets.token_urlsafe(32))
    key = ApiKey(
        key_id=key_id,
        kind=kind,
        org_id=org_id,
        name=made.name,
        secret_sha256=key_digest(text),
        scopes=made.scopes,
        created_by=tx.actor,
        created_at=tx.now,
        expires_at=made.expires_at,
        revoked_at=None,
        version=1,
    )
    await credentials.insert_key(tx, key)
    await tx.announce(key_fact(key))
    return key, text


async def revoke_key(tx: Tx, key: ApiKey) -> None:
    """Revoke a locked API key everywhere; one that is revoked stays as it is."""
    if key.revoked_at is None:
        await tx.announce(key_fact(await credentials.update_key_revoked(tx, key.key_id)))
