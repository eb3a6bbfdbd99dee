"""Sign-ins with a provider that are under way, and who is whom at which provider."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from eb_kit.tx import Tx

from ..domain.oidc import Attempt


async def insert_attempt(tx: Tx, state_sha256: bytes, attempt: Attempt, sealed: bytes) -> None:
    """Keep a sign-in under way; nonce and verifier are in `sealed`."""
    await tx.execute(
        "INSERT INTO oidc_attempt (state_sha256, provider, sealed, browser_sha256, expires_at)"
        " VALUES ($1, $2, $3, $4, $5)",
        state_sha256,
        attempt.provider,
        sealed,
        attempt.browser_sha256,
        attempt.expires_at,
    )


async def take_attempt(tx: Tx, state_sha256: bytes) -> tuple[str, bytes, bytes, datetime] | None:
    """Take a sign-in under way: provider, sealed secrets, browser, end. It can't be taken again."""
    row = await tx.fetchrow(
        "DELETE FROM oidc_attempt WHERE state_sha256 = $1 RETURNING provider, sealed, browser_sha256, expires_at",
        state_sha256,
    )
    return (row["provider"], row["sealed"], row["browser_sha256"], row["expires_at"]) if row else None


async def delete_past_attempts(tx: Tx, ended_before: datetime, limit: int) -> int:
    """Forget sign-ins that nobody came back from; give how many."""
    done = await tx.execute(
        "DELETE FROM oidc_attempt WHERE state_sha256 IN"
        " (SELECT state_sha256 FROM oidc_attempt WHERE expires_at < $1 LIMIT $2)",
        ended_before,
        limit,
    )
    return int(done.split()[-1])


async def find_user_of(tx: Tx, issuer: str, subject: str) -> UUID | None:
    """Give the user whom a provider's subject is bound to."""
    found: UUID | None = await tx.fetchval(
        "SELECT user_id FROM oidc_identity WHERE issuer = $1 AND subject = $2", issuer, subject
    )
    return found


async def delete_identities(tx: Tx, user_id: UUID) -> list[str]:
    """Forget who a user is at any provider (owner only); give the issuers."""
    rows = await tx.fetch("DELETE FROM oidc_identity WHERE user_id = $1 RETURNING issuer", user_id)
    return [row["issuer"] for row in rows]


async def insert_identity_once(tx: Tx, issuer: str, subject: str, user_id: UUID) -> bool:
    """Bind a provider's subject to a user; False where either is bound to another of that provider."""
    done = await tx.execute(
        "INSERT INTO oidc_identity (issuer, subject, user_id, created_at) VALUES ($1, $2, $3, $4)"
        " ON CONFLICT DO NOTHING",
        issuer,
        subject,
        user_id,
        tx.now,
    )
    return done.endswith(" 1")
