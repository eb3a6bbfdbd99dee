"""Sessions, their refresh tokens, and what was revoked."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

import asyncpg

from eb_contracts.auth import AccessRevoked
from eb_kit.tx import Tx

from ..domain.sessions import Proof, Session

COLUMNS = (
    "session_id, user_id, org_id, created_at, last_used_at, idle_expires_at, expires_at, revoked_at,"
    " user_agent, address"
)
PROOF = "provider, auth_time, acr, amr"


async def insert_session(tx: Tx, session: Session) -> None:
    """Keep a new session."""
    await tx.execute(
        f"INSERT INTO session ({COLUMNS}, {PROOF})"
        " VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)",
        session.session_id,
        session.user_id,
        session.org_id,
        session.created_at,
        session.last_used_at,
        session.idle_expires_at,
        session.expires_at,
        session.revoked_at,
        session.user_agent,
        session.address,
        session.proof.provider if session.proof else None,
        session.proof.auth_time if session.proof else None,
        session.proof.acr if session.proof else None,
        session.proof.amr if session.proof else (),
    )


def _session(row: asyncpg.Record) -> Session:
    *of_session, provider, auth_time, acr, amr = row
    proof = Proof(provider, auth_time, acr, tuple(amr)) if provider else None
    return Session(*(*of_session, proof))


async def insert_token(tx: Tx, session_id: UUID, token_sha256: bytes) -> None:
    """Keep the new current refresh token of a session; the one before must have been used."""
    await tx.execute(
        "INSERT INTO refresh_token (token_sha256, session_id, issued_at) VALUES ($1, $2, $3)",
        token_sha256,
        session_id,
        tx.now,
    )


async def lock_session_of_token(tx: Tx, token_sha256: bytes) -> tuple[Session, datetime | None] | None:
    """Lock the session of a refresh token until `tx` ends; give it and when the token was used, None if unknown.

    The token is read only after the session is locked: of two refreshes the second must see the first's.
    """
    row = await tx.fetchrow(
        f"SELECT {COLUMNS}, {PROOF} FROM session WHERE session_id ="
        " (SELECT session_id FROM refresh_token WHERE token_sha256 = $1) FOR UPDATE",
        token_sha256,
    )
    if row is None:
        return None
    used_at = await tx.fetchval("SELECT used_at FROM refresh_token WHERE token_sha256 = $1", token_sha256)
    return _session(row), used_at


async def lock_session(tx: Tx, session_id: UUID) -> Session | None:
    """Lock a session until `tx` ends."""
    row = await tx.fetchrow(
        f"SELECT {COLUMNS}, {PROOF} FROM session WHERE session_id = $1 FOR UPDATE", session_id
    )
    return _session(row) if row else None


async def find_session(tx: Tx, session_id: UUID) -> Session | None:
    """Give a session, if it is there."""
    row = await tx.fetchrow(f"SELECT {COLUMNS}, {PROOF} FROM session WHERE session_id = $1", session_id)
    return _session(row) if row else None


async def update_token_used(tx: Tx, token_sha256: bytes) -> None:
    """Rotate a refresh token away."""
    await tx.execute("UPDATE refresh_token SET used_at = $2 WHERE token_sha256 = $1", token_sha256, tx.now)


async def update_session_use(
    tx: Tx, session_id: UUID, org_id: UUID | None, idle_expires_at: datetime
) -> None:
    """Keep that a session was used now, and in which organisation's context."""
    await tx.execute(
        "UPDATE session SET last_used_at = $2, org_id = $3, idle_expires_at = $4 WHERE session_id = $1",
        session_id,
        tx.now,
        org_id,
        idle_expires_at,
    )


async def update_session_revoked(tx: Tx, session_id: UUID, reason: str) -> None:
    """End a session that has not ended; `reason`: `signed_out`, `by_operator`, `replaced`, `token_reused`, `erased`."""
    await tx.execute(
        "UPDATE session SET revoked_at = $2, revoked_reason = $3 WHERE session_id = $1 AND revoked_at IS NULL",
        session_id,
        tx.now,
        reason,
    )


async def list_live_sessions(tx: Tx, user_id: UUID, before: UUID | None, limit: int) -> list[Session]:
    """Give a page of a user's live sessions, newest first."""
    rows = await tx.fetch(
        f"SELECT {COLUMNS}, {PROOF} FROM session WHERE user_id = $1 AND ($2::uuid IS NULL OR session_id < $2)"
        " AND revoked_at IS NULL AND idle_expires_at > $3 AND expires_at > $3"
        " ORDER BY session_id DESC LIMIT $4",
        user_id,
        before,
        tx.now,
        limit,
    )
    return [_session(row) for row in rows]


async def update_sessions_erased(tx: Tx, user_id: UUID) -> None:
    """Take device and network address out of all of somebody's sessions, ended ones too."""
    await tx.execute("UPDATE session SET user_agent = '', address = '' WHERE user_id = $1", user_id)


async def delete_past_sessions(tx: Tx, ended_before: datetime, limit: int) -> int:
    """Drop up to `limit` sessions, with their tokens, whose longest life ended before this instant."""
    gone: int = await tx.fetchval(
        "WITH gone AS (DELETE FROM session WHERE session_id IN"
        " (SELECT session_id FROM session WHERE expires_at < $1 ORDER BY expires_at LIMIT $2) RETURNING 1)"
        " SELECT count(*) FROM gone",
        ended_before,
        limit,
    )
    return gone


async def insert_revocation(tx: Tx, subject_key: str, not_before: datetime) -> AccessRevoked:
    """Keep that tokens about a subject issued at or before this instant are void; give the fact."""
    row = await tx.fetchrow(
        "INSERT INTO access_revocation AS r (subject_key, not_before, version) VALUES ($1, $2, 1)"
        " ON CONFLICT (subject_key) DO UPDATE SET version = r.version + 1,"
        " not_before = greatest(r.not_before, excluded.not_before) RETURNING not_before, version",
        subject_key,
        not_before,
    )
    assert row is not None
    return AccessRevoked(version=row["version"], subject_key=subject_key, not_before=row["not_before"])


async def list_revocation_facts(tx: Tx, after_id: str | None, limit: int) -> list[AccessRevoked]:
    """Give revocations in the order of their subjects, for a snapshot."""
    rows = await tx.fetch(
        "SELECT subject_key, not_before, version FROM access_revocation WHERE $1::text IS NULL OR subject_key > $1"
        " ORDER BY subject_key LIMIT $2",
        after_id,
        limit,
    )
    return [AccessRevoked.model_validate(dict(row)) for row in rows]
