"""API keys and signing keys."""

from __future__ import annotations

from datetime import datetime
from typing import NamedTuple
from uuid import UUID

import asyncpg

from eb_contracts.auth import ApiKeyChanged, SigningKeyChanged
from eb_contracts.errors import NotFound
from eb_kit.tx import Tx

from ..domain.credentials import ApiKey, key_fact

KEY = "key_id, kind, org_id, name, secret_sha256, scopes, created_by, created_at, expires_at, revoked_at, version"
SIGNING = "kid, x, sealed_private, active_from, retired_at, version"
SIGNING_LOCK = 0x65625F6B657973


class StoredSigningKey(NamedTuple):
    """A signing key as it lies in the table: the private half is sealed."""

    kid: str
    x: str
    sealed_private: bytes
    active_from: datetime
    retired_at: datetime | None
    version: int

    def fact(self) -> SigningKeyChanged:
        """Give what every service needs to verify with the key."""
        return SigningKeyChanged(version=self.version, kid=self.kid, x=self.x, retired_at=self.retired_at)


def _key_of(row: asyncpg.Record) -> ApiKey:
    return ApiKey(**{**row, "scopes": tuple(row["scopes"])})


async def insert_key(tx: Tx, key: ApiKey) -> None:
    """Keep a new API key."""
    await tx.execute(
        f"INSERT INTO api_key ({KEY}) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)",
        key.key_id,
        key.kind,
        key.org_id,
        key.name,
        key.secret_sha256,
        list(key.scopes),
        key.created_by,
        key.created_at,
        key.expires_at,
        key.revoked_at,
        key.version,
    )


async def lock_key(tx: Tx, org_id: UUID, key_id: UUID) -> ApiKey:
    """Lock an API key of an organisation until `tx` ends; raises NotFound."""
    row = await tx.fetchrow(
        f"SELECT {KEY} FROM api_key WHERE key_id = $1 AND org_id = $2 FOR UPDATE",
        key_id,
        org_id,
    )
    if row is None:
        raise NotFound
    return _key_of(row)


async def update_key_revoked(tx: Tx, key_id: UUID) -> ApiKey:
    """Revoke an API key now."""
    row = await tx.fetchrow(
        f"UPDATE api_key SET revoked_at = $2, version = version + 1 WHERE key_id = $1 RETURNING {KEY}",
        key_id,
        tx.now,
    )
    assert row is not None
    return _key_of(row)


async def list_keys(tx: Tx, org_id: UUID, before: UUID | None, limit: int) -> list[ApiKey]:
    """Give a page of an organisation's API keys, revoked ones too, newest first."""
    rows = await tx.fetch(
        f"SELECT {KEY} FROM api_key WHERE org_id = $1 AND ($2::uuid IS NULL OR key_id < $2)"
        " ORDER BY key_id DESC LIMIT $3",
        org_id,
        before,
        limit,
    )
    return [_key_of(row) for row in rows]


async def list_key_facts(tx: Tx, after_id: str | None, limit: int) -> list[ApiKeyChanged]:
    """Give API keys in the order of their ids, for a snapshot."""
    rows = await tx.fetch(
        f"SELECT {KEY} FROM api_key WHERE $1::uuid IS NULL OR key_id > $1 ORDER BY key_id LIMIT $2",
        UUID(after_id) if after_id else None,
        limit,
    )
    return [key_fact(_key_of(row)) for row in rows]


async def lock_signing_keys(tx: Tx) -> None:
    """Let one transaction at a time make or retire signing keys."""
    await tx.execute("SELECT pg_advisory_xact_lock($1)", SIGNING_LOCK)


async def insert_signing_key(tx: Tx, key: StoredSigningKey) -> None:
    """Keep a new signing key."""
    await tx.execute(
        f"INSERT INTO signing_key ({SIGNING}, created_at) VALUES ($1, $2, $3, $4, $5, $6, $7)",
        *key,
        tx.now,
    )


async def list_live_signing_keys(tx: Tx) -> list[StoredSigningKey]:
    """Give the signing keys that verify, newest first: in use, about to be, or just replaced."""
    rows = await tx.fetch(
        f"SELECT {SIGNING} FROM signing_key WHERE retired_at IS NULL ORDER BY active_from DESC, kid"
    )
    return [StoredSigningKey(*row) for row in rows]


async def get_signing_key(tx: Tx, machine_now: datetime) -> StoredSigningKey:
    """Give the key that signs at this instant of the machine's clock; the first is made at start."""
    row = await tx.fetchrow(
        f"SELECT {SIGNING} FROM signing_key WHERE retired_at IS NULL AND active_from <= $1"
        " ORDER BY active_from DESC, kid LIMIT 1",
        machine_now,
    )
    assert row is not None
    return StoredSigningKey(*row)


async def update_signing_key_sealed(tx: Tx, kid: str, sealed_private: bytes) -> None:
    """Keep a signing key sealed anew."""
    await tx.execute("UPDATE signing_key SET sealed_private = $2 WHERE kid = $1", kid, sealed_private)


async def update_signing_key_retired(tx: Tx, kid: str, machine_now: datetime) -> StoredSigningKey:
    """Retire a signing key: what it signed no longer verifies."""
    row = await tx.fetchrow(
        f"UPDATE signing_key SET retired_at = $2, version = version + 1 WHERE kid = $1 RETURNING {SIGNING}",
        kid,
        machine_now,
    )
    assert row is not None
    return StoredSigningKey(*row)


async def list_signing_key_facts(tx: Tx, after_id: str | None, limit: int) -> list[SigningKeyChanged]:
    """Give all signing keys in the order of their ids, for a snapshot."""
    rows = await tx.fetch(
        f"SELECT {SIGNING} FROM signing_key WHERE $1::text IS NULL OR kid > $1 ORDER BY kid LIMIT $2",
        after_id,
        limit,
    )
    return [StoredSigningKey(*row).fact() for row in rows]


async def list_service_keys(tx: Tx, limit: int) -> list[ApiKey]:
    """Give the newest credentials of trusted systems, revoked ones too."""
    rows = await tx.fetch(
        f"SELECT {KEY} FROM api_key WHERE kind = 'service' ORDER BY key_id DESC LIMIT $1",
        limit,
    )
    return [_key_of(row) for row in rows]


async def lock_service_key(tx: Tx, key_id: UUID) -> ApiKey:
    """Lock a trusted system's credential until `tx` ends; raises NotFound."""
    row = await tx.fetchrow(
        f"SELECT {KEY} FROM api_key WHERE key_id = $1 AND kind = 'service' FOR UPDATE",
        key_id,
    )
    if row is None:
        raise NotFound
    return _key_of(row)
