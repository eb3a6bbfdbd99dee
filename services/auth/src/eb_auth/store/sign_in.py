"""Sign-in: attempts per minute, one-time codes, mails that wait, users."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import NamedTuple
from uuid import UUID

from eb_contracts.ids import new_id
from eb_kit.tx import Tx

from ..domain.codes import LoginCode


class WaitingMail(NamedTuple):
    """A sealed mail that is due; `attempts` failed so far."""

    mail_id: UUID
    sealed: bytes
    expires_at: datetime
    attempts: int


class User(NamedTuple):
    """A person who signs in."""

    user_id: UUID
    email: str
    default_org_id: UUID | None


async def count_attempt(tx: Tx, bucket: bytes, starts_at: datetime) -> int:
    """Count one more attempt in the window that starts at this instant; give how many it holds now."""
    count: int = await tx.fetchval(
        "INSERT INTO attempt_window AS w (bucket, starts_at, attempts) VALUES ($1, $2, 1)"
        " ON CONFLICT (bucket) DO UPDATE SET starts_at = excluded.starts_at,"
        " attempts = CASE WHEN w.starts_at = excluded.starts_at THEN w.attempts + 1 ELSE 1 END"
        " RETURNING attempts",
        bucket,
        starts_at,
    )
    return count


async def insert_code(tx: Tx, code: LoginCode) -> None:
    """Keep the one live code of an address; an earlier one ends."""
    await tx.execute(
        "INSERT INTO login_code (email, code_hmac, tries, expires_at) VALUES ($1, $2, $3, $4)"
        " ON CONFLICT (email) DO UPDATE SET code_hmac = excluded.code_hmac, tries = excluded.tries,"
        " expires_at = excluded.expires_at",
        code.email,
        code.digest,
        code.tries,
        code.expires_at,
    )


async def lock_code(tx: Tx, email: str) -> LoginCode | None:
    """Lock the live code of an address until `tx` ends, so that guesses come one by one; None if there is none."""
    row = await tx.fetchrow(
        "SELECT email, code_hmac, expires_at, tries FROM login_code WHERE email = $1 FOR UPDATE", email
    )
    return LoginCode(*row) if row else None


async def update_code_tries(tx: Tx, email: str) -> None:
    """Count one wrong guess at the code of an address."""
    await tx.execute("UPDATE login_code SET tries = tries + 1 WHERE email = $1", email)


async def delete_code(tx: Tx, email: str) -> None:
    """End the code of an address: it was used."""
    await tx.execute("DELETE FROM login_code WHERE email = $1", email)


async def insert_mail(tx: Tx, sealed: bytes, due_at: datetime, expires_at: datetime) -> None:
    """Keep a sealed mail until it is sent or of no use any more."""
    await tx.execute(
        "INSERT INTO mail_waiting (mail_id, sealed, due_at, expires_at, attempts) VALUES ($1, $2, $3, $4, 0)",
        new_id(),
        sealed,
        due_at,
        expires_at,
    )


async def take_mails(tx: Tx, now: datetime, limit: int) -> list[WaitingMail]:
    """Take up to `limit` due mails that nobody else is sending; locked until `tx` ends."""
    rows = await tx.fetch(
        "SELECT mail_id, sealed, expires_at, attempts FROM mail_waiting WHERE due_at <= $1"
        " ORDER BY due_at LIMIT $2 FOR UPDATE SKIP LOCKED",
        now,
        limit,
    )
    return [WaitingMail(*row) for row in rows]


async def delete_mails(tx: Tx, mail_ids: list[UUID]) -> None:
    """Forget mails that were sent or expired."""
    await tx.execute("DELETE FROM mail_waiting WHERE mail_id = ANY($1)", mail_ids)


async def update_mail_due(tx: Tx, mail_id: UUID, due_at: datetime) -> None:
    """Try a mail again at `due_at`, with one more attempt counted."""
    await tx.execute(
        "UPDATE mail_waiting SET due_at = $2, attempts = attempts + 1 WHERE mail_id = $1", mail_id, due_at
    )


async def insert_user_once(tx: Tx, email: str) -> User:
    """Give the user of an address, made now if there is none."""
    await tx.execute(
        'INSERT INTO "user" (user_id, email, created_at) VALUES ($1, $2, $3) ON CONFLICT (email) DO NOTHING',
        new_id(),
        email,
        tx.now,
    )
    row = await tx.fetchrow('SELECT user_id, email, default_org_id FROM "user" WHERE email = $1', email)
    assert row is not None
    return User(*row)


async def get_user(tx: Tx, user_id: UUID) -> User:
    """Give a user who is signed in, and so exists."""
    row = await tx.fetchrow('SELECT user_id, email, default_org_id FROM "user" WHERE user_id = $1', user_id)
    assert row is not None
    return User(*row)


async def find_user(tx: Tx, email: str) -> User | None:
    """Give the user of an address, if there is one."""
    row = await tx.fetchrow('SELECT user_id, email, default_org_id FROM "user" WHERE email = $1', email)
    return User(*row) if row else None


async def update_user_email(tx: Tx, user_id: UUID, email: str) -> None:
    """Give a user another address."""
    await tx.execute('UPDATE "user" SET email = $2 WHERE user_id = $1', user_id, email)


async def update_default_org(tx: Tx, user_id: UUID, org_id: UUID) -> None:
    """Let the user's sign-ins start in this organisation, unless they start in another already."""
    await tx.execute(
        'UPDATE "user" SET default_org_id = $2 WHERE user_id = $1 AND default_org_id IS NULL', user_id, org_id
    )


async def clear_default_org(tx: Tx, user_id: UUID, org_id: UUID) -> None:
    """Let the user's sign-ins no longer start in this organisation."""
    await tx.execute(
        'UPDATE "user" SET default_org_id = NULL WHERE user_id = $1 AND default_org_id = $2', user_id, org_id
    )


async def delete_expired(tx: Tx, now: datetime, machine_now: datetime, limit: int) -> int:
    """Drop up to `limit` expired codes, of past attempt windows too; give how many rows went."""
    codes = await tx.fetchval(
        "WITH gone AS (DELETE FROM login_code WHERE email IN"
        " (SELECT email FROM login_code WHERE expires_at < $1 LIMIT $2) RETURNING 1) SELECT count(*) FROM gone",
        now,
        limit,
    )
    windows = await tx.fetchval(
        "WITH gone AS (DELETE FROM attempt_window WHERE bucket IN"
        " (SELECT bucket FROM attempt_window WHERE starts_at < $1 LIMIT $2) RETURNING 1)"
        " SELECT count(*) FROM gone",
        machine_now - timedelta(hours=1),
        limit,
    )
    return int(codes + windows)
