"""Claims, and the challenge each of them waits to see answered."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

import asyncpg

from eb_contracts.domain_verify import DomainClaimChanged
from eb_contracts.errors import NotFound
from eb_kit.tx import Tx

from ..domain.claims import Claim
from ..domain.errors import ClaimExists

CLAIM = (
    "claim_id, org_id, domain::text AS domain, organizational_domain, wildcard, status::text AS status,"
    " verified_at, expires_at, created_at, version"
)
FIELDS = tuple(Claim.__dataclass_fields__)


@dataclass(frozen=True, slots=True)
class ChallengeRow:
    """What a claim asks for, as kept: the token only as its digest."""

    claim_id: UUID
    token_sha256: bytes
    send_to: str
    issued_at: datetime
    expires_at: datetime
    used_at: datetime | None


@dataclass(frozen=True, slots=True)
class ClaimRecord:
    """A claim with what its owner is shown."""

    claim: Claim
    send_to: str
    dns_token: str = field(repr=False)
    last_attempt: dict[str, Any] | None


def _claim(row: asyncpg.Record) -> Claim:
    return Claim(**{name: row[name] for name in FIELDS})


def _record(row: asyncpg.Record) -> ClaimRecord:
    return ClaimRecord(_claim(row), row["send_to"], row["dns_token"], row["last_attempt"])


async def lock_family(tx: Tx, organizational_domain: str) -> list[Claim]:
    """Lock a family of claims until `tx` ends and give the live ones, the oldest first.

    An advisory lock of the organizational domain comes first: it also holds back claims that aren't there yet,
    and a wildcard meets its sub-domains only here, as no unique index compares two different names.
    """
    await tx.execute(
        "SELECT pg_advisory_xact_lock(hashtextextended('domain_verify.family ' || $1, 0))",
        organizational_domain,
    )
    rows = await tx.fetch(
        f"SELECT {CLAIM} FROM domain_claim WHERE organizational_domain = $1 AND status <> 'revoked'"
        " ORDER BY created_at, claim_id FOR UPDATE",
        organizational_domain,
    )
    return [_claim(row) for row in rows]


async def insert_claim(tx: Tx, claim: Claim, dns_token: str) -> None:
    """Keep a new claim; ClaimExists if the organisation has a live one of this domain."""
    try:
        await tx.execute(
            "INSERT INTO domain_claim (claim_id, org_id, domain, organizational_domain, wildcard, status,"
            " dns_token, expires_at, created_at) VALUES ($1, $2, $3::text, $4, $5, $6, $7, $8, $9)",
            claim.claim_id,
            claim.org_id,
            claim.domain,
            claim.organizational_domain,
            claim.wildcard,
            claim.status,
            dns_token,
            claim.expires_at,
            claim.created_at,
        )
    except asyncpg.UniqueViolationError as error:
        if error.constraint_name != "domain_claim_org_key":
            raise
        raise ClaimExists from None


async def put_challenge(tx: Tx, challenge: ChallengeRow) -> None:
    """Keep a claim's challenge; an earlier one of it is gone, its token and address with it."""
    await tx.execute(
        "INSERT INTO claim_challenge (claim_id, token_sha256, send_to, issued_at, expires_at)"
        " VALUES ($1, $2, $3, $4, $5)"
        " ON CONFLICT (claim_id) DO UPDATE SET token_sha256 = excluded.token_sha256,"
        " send_to = excluded.send_to, issued_at = excluded.issued_at, expires_at = excluded.expires_at,"
        " used_at = NULL",
        challenge.claim_id,
        challenge.token_sha256,
        challenge.send_to,
        challenge.issued_at,
        challenge.expires_at,
    )


async def lock_challenge(tx: Tx, claim_id: UUID) -> ChallengeRow:
    """Lock a claim's challenge until `tx` ends; NotFound."""
    row = await tx.fetchrow(
        "SELECT claim_id, token_sha256, send_to, issued_at, expires_at, used_at FROM claim_challenge"
        " WHERE claim_id = $1 FOR UPDATE",
        claim_id,
    )
    if row is None:
        raise NotFound
    return ChallengeRow(*row)


async def get_challenge(tx: Tx, claim_id: UUID) -> ChallengeRow:
    """Give a claim's challenge; NotFound."""
    row = await tx.fetchrow(
        "SELECT claim_id, token_sha256, send_to, issued_at, expires_at, used_at FROM claim_challenge"
        " WHERE claim_id = $1",
        claim_id,
    )
    if row is None:
        raise NotFound
    return ChallengeRow(*row)


async def find_claim_of_token(tx: Tx, token_sha256: bytes) -> UUID | None:
    """Give the claim whose unused token has this digest, or None."""
    found: UUID | None = await tx.fetchval(
        "SELECT claim_id FROM claim_challenge WHERE token_sha256 = $1 AND used_at IS NULL", token_sha256
    )
    return found


async def find_claim_of_address(tx: Tx, send_to: str) -> UUID | None:
    """Give the claim that asked for mail to this address, or None."""
    found: UUID | None = await tx.fetchval("SELECT claim_id FROM claim_challenge WHERE send_to = $1", send_to)
    return found


async def update_token_used(tx: Tx, claim_id: UUID, at: datetime) -> None:
    """Mark a claim's token as used: it proves nothing again."""
    await tx.execute("UPDATE claim_challenge SET used_at = $2 WHERE claim_id = $1", claim_id, at)


async def update_last_attempt(tx: Tx, claim_id: UUID, attempt: dict[str, Any]) -> None:
    """Show an attempt (`at`, `outcome`, `reasons`, `mail_id`) on its claim.

    An attempt that waits is replaced by its own mail's next verdict or by a success, never by another mail's
    refusal: a stranger who knows the address can't hide it.
    """
    await tx.execute(
        "UPDATE claim_challenge SET last_attempt = $2 WHERE claim_id = $1 AND (last_attempt IS NULL"
        " OR last_attempt ->> 'outcome' <> 'waiting' OR $3 = 'verified' OR last_attempt ->> 'mail_id' = $4)",
        claim_id,
        attempt,
        attempt["outcome"],
        attempt["mail_id"],
    )


async def get_claim(tx: Tx, claim_id: UUID) -> ClaimRecord:
    """Give a claim; NotFound."""
    row = await tx.fetchrow(
        f"SELECT {_QUALIFIED} FROM domain_claim c JOIN claim_challenge h USING (claim_id)"
        " WHERE c.claim_id = $1",
        claim_id,
    )
    if row is None:
        raise NotFound
    return _record(row)


async def list_claims(
    tx: Tx, org_id: UUID | None, status: str | None, before: UUID | None, limit: int
) -> list[ClaimRecord]:
    """List claims of an organisation (None: of all), newest first, those before `before`."""
    rows = await tx.fetch(
        f"SELECT {_QUALIFIED} FROM domain_claim c JOIN claim_challenge h USING (claim_id)"
        " WHERE ($1::uuid IS NULL OR c.org_id = $1) AND ($2::text IS NULL OR c.status::text = $2)"
        " AND ($3::uuid IS NULL OR c.claim_id < $3) ORDER BY c.claim_id DESC LIMIT $4",
        org_id,
        status,
        before,
        limit,
    )
    return [_record(row) for row in rows]


_QUALIFIED = (
    "c.claim_id, c.org_id, c.domain::text AS domain, c.organizational_domain, c.wildcard,"
    " c.status::text AS status, c.verified_at, c.expires_at, c.created_at, c.version,"
    " c.dns_token, h.send_to, h.last_attempt"
)


async def update_status(tx: Tx, claim_id: UUID, status: str) -> Claim:
    """Change a claim's status (not to verified); give it as it is then."""
    row = await tx.fetchrow(
        f"UPDATE domain_claim SET status = $2, version = version + 1 WHERE claim_id = $1 RETURNING {CLAIM}",
        claim_id,
        status,
    )
    assert row is not None
    return _claim(row)


async def update_expiry(tx: Tx, claim_id: UUID, expires_at: datetime) -> None:
    """Let an open claim live until its new token's end."""
    await tx.execute("UPDATE domain_claim SET expires_at = $2 WHERE claim_id = $1", claim_id, expires_at)


async def update_verified(tx: Tx, claim_id: UUID, at: datetime, proof: dict[str, object]) -> Claim:
    """Make a claim verified; the partial unique index lets one claim of a name be so."""
    row = await tx.fetchrow(
        "UPDATE domain_claim SET status = 'verified', verified_at = $2, proof = $3, version = version + 1"
        f" WHERE claim_id = $1 RETURNING {CLAIM}",
        claim_id,
        at,
        proof,
    )
    assert row is not None
    return _claim(row)


async def update_proof(tx: Tx, claim_id: UUID, proof: dict[str, object]) -> None:
    """Keep the proof of a claim in conflict beside it, for whoever resolves the conflict."""
    await tx.execute("UPDATE domain_claim SET proof = $2 WHERE claim_id = $1", claim_id, proof)


async def list_expired_families(tx: Tx, now: datetime, limit: int) -> list[str]:
    """List organizational domains that have an open claim past its time and no mail waiting for it, sorted."""
    rows = await tx.fetch(
        "SELECT DISTINCT organizational_domain FROM domain_claim c"
        " WHERE status IN ('pending', 'pending_conflict') AND expires_at <= $1 AND NOT EXISTS ("
        "SELECT FROM inbound_mail m WHERE m.claim_id = c.claim_id AND m.outcome = 'waiting')"
        " ORDER BY organizational_domain LIMIT $2",
        now,
        limit,
    )
    return [row["organizational_domain"] for row in rows]


async def list_with_waiting_mail(tx: Tx, claim_ids: Sequence[UUID]) -> set[UUID]:
    """Give those of the claims that a mail waits for: its verdict counts as of receipt."""
    rows = await tx.fetch(
        "SELECT DISTINCT claim_id FROM inbound_mail WHERE claim_id = ANY($1) AND outcome = 'waiting'",
        list(claim_ids),
    )
    return {row["claim_id"] for row in rows}


async def list_claim_facts(tx: Tx, after_id: str | None, limit: int) -> list[DomainClaimChanged]:
    """Give claims in the order of their ids, for a snapshot."""
    rows = await tx.fetch(
        f"SELECT {CLAIM} FROM domain_claim WHERE $1::uuid IS NULL OR claim_id > $1"
        " ORDER BY claim_id LIMIT $2",
        UUID(after_id) if after_id else None,
        limit,
    )
    return [fact_of(_claim(row)) for row in rows]


def fact_of(claim: Claim) -> DomainClaimChanged:
    """Give a claim's public state as a fact."""
    return DomainClaimChanged.model_validate(
        {
            "version": claim.version,
            "claim_id": claim.claim_id,
            "org_id": claim.org_id,
            "domain": claim.domain,
            "wildcard": claim.wildcard,
            "status": claim.status,
            "verified_at": claim.verified_at,
        }
    )
