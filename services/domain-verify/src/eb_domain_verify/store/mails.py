"""The mails that came in: kept before they are acknowledged, judged once."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import asyncpg

from eb_contracts.errors import NotFound
from eb_kit.tx import Tx


@dataclass(frozen=True, slots=True)
class IncomingMail:
    """A mail as it was handed over. `request_sha256` tells the identical request sent again."""

    mail_id: UUID
    request_sha256: bytes
    provider: str
    received_at: datetime
    clock_ahead_s: int
    envelope_from: str
    envelope_to: str
    client_ip: str
    helo: str
    raw: bytes
    raw_sha256: bytes
    claim_id: UUID | None
    trace_id: str


@dataclass(frozen=True, slots=True)
class DueMail:
    """A mail to be judged now; `attempts` counts this attempt too."""

    mail_id: UUID
    provider: str
    received_at: datetime
    clock_ahead_s: int
    envelope_from: str
    envelope_to: str
    raw: bytes
    raw_sha256: bytes
    claim_id: UUID | None
    dns_answers: dict[str, Any]
    attempts: int
    trace_id: str | None


@dataclass(frozen=True, slots=True)
class MailRecord:
    """What staff is shown of a mail."""

    mail_id: UUID
    received_at: datetime
    provider: str
    claim_id: UUID | None
    outcome: str
    reasons: list[str]
    checks: dict[str, Any]
    attempts: int
    next_attempt_at: datetime | None


async def insert_mail_once(tx: Tx, mail: IncomingMail) -> UUID:
    """Keep a mail, due at once; give its id, or the id under which the identical request was kept before."""
    await tx.execute(
        "INSERT INTO inbound_mail (mail_id, request_sha256, provider, received_at, clock_ahead_s,"
        " envelope_from, envelope_to, client_ip, helo, raw, raw_sha256, claim_id, trace_id, outcome,"
        " next_attempt_at) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, 'waiting', $4)"
        " ON CONFLICT (request_sha256) DO NOTHING",
        *(getattr(mail, name) for name in IncomingMail.__dataclass_fields__),
    )
    kept: UUID = await tx.fetchval(
        "SELECT mail_id FROM inbound_mail WHERE request_sha256 = $1", mail.request_sha256
    )
    return kept


async def take_mails(tx: Tx, now: datetime, lease: timedelta, limit: int) -> list[DueMail]:
    """Take mails that are due, for as long as `lease`: if this process dies, another takes them after it."""
    rows = await tx.fetch(
        "UPDATE inbound_mail SET attempts = attempts + 1, next_attempt_at = $2 WHERE mail_id IN ("
        "SELECT mail_id FROM inbound_mail WHERE outcome = 'waiting' AND next_attempt_at <= $1"
        " ORDER BY next_attempt_at LIMIT $3 FOR UPDATE SKIP LOCKED)"
        " RETURNING mail_id, provider, received_at, clock_ahead_s, envelope_from, envelope_to, raw,"
        " raw_sha256, claim_id, dns_answers, attempts, trace_id",
        now,
        now + lease,
        limit,
    )
    return [DueMail(**row) for row in rows]


async def lock_waiting_mail(tx: Tx, mail_id: UUID) -> bool:
    """Lock a mail until `tx` ends; say whether it still has no verdict."""
    found = await tx.fetchval(
        "SELECT 1 FROM inbound_mail WHERE mail_id = $1 AND outcome = 'waiting' FOR UPDATE", mail_id
    )
    return found is not None


async def update_mail_judged(
    tx: Tx, mail_id: UUID, outcome: str, reasons: list[str], checks: dict[str, object]
) -> None:
    """Keep a mail's final verdict."""
    await tx.execute(
        "UPDATE inbound_mail SET outcome = $2, reasons = $3, checks = $4, judged_at = $5,"
        " next_attempt_at = NULL WHERE mail_id = $1",
        mail_id,
        outcome,
        reasons,
        checks,
        tx.now,
    )


async def update_mail_waiting(
    tx: Tx,
    mail_id: UUID,
    reasons: list[str],
    checks: dict[str, object],
    dns_answers: dict[str, Any],
    next_attempt_at: datetime,
) -> None:
    """Keep why a mail waits, until when, and the DNS answers it has got so far."""
    await tx.execute(
        "UPDATE inbound_mail SET reasons = $2, checks = $3, dns_answers = $4, next_attempt_at = $5"
        " WHERE mail_id = $1",
        mail_id,
        reasons,
        checks,
        dns_answers,
        next_attempt_at,
    )


async def get_mail(tx: Tx, mail_id: UUID) -> MailRecord:
    """Give a mail without its content; NotFound."""
    row: asyncpg.Record | None = await tx.fetchrow(
        "SELECT mail_id, received_at, provider, claim_id, outcome, reasons, checks, attempts, next_attempt_at"
        " FROM inbound_mail WHERE mail_id = $1",
        mail_id,
    )
    if row is None:
        raise NotFound
    return MailRecord(**row)


async def forget_raw_mails(tx: Tx, before: datetime, limit: int) -> int:
    """Delete content and sender of judged mails received before `before`; give how many."""
    rows = await tx.fetch(
        "UPDATE inbound_mail SET raw = NULL, envelope_from = NULL WHERE mail_id IN ("
        "SELECT mail_id FROM inbound_mail WHERE raw IS NOT NULL AND received_at < $1 AND outcome <> 'waiting'"
        " ORDER BY received_at LIMIT $2 FOR UPDATE SKIP LOCKED) RETURNING mail_id",
        before,
        limit,
    )
    return len(rows)
