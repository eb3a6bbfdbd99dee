"""Steps on a Tx that several doors share: claims and their families, proofs, attempts, what a mail came to."""

from __future__ import annotations

import hmac
import secrets
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any
from uuid import UUID

from eb_contracts.ids import new_id
from eb_kit.tx import Tx

from .domain import claims as rules
from .domain import proofs
from .domain.claims import TOKEN_LIFE, Claim
from .domain.dns import Answer
from .domain.errors import ClaimExists
from .domain.judging import Verdict
from .domain.letter import token_digest
from .domain.names import claimable
from .domain.reasons import Reason
from .domain.retries import next_attempt
from .outside.suffixes import listed_suffixes
from .outside.wire import answer_document
from .settings import Settings
from .store import claims as store
from .store import mails
from .store.claims import ChallengeRow, ClaimRecord

BASE32 = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"
TOKEN_LETTERS = 26
"""26 letters of base32 are 130 random bits."""


@dataclass(frozen=True, slots=True)
class Assertion:
    """What a trusted mail processor says of a mail that it has judged itself."""

    processor: str
    token: str = field(repr=False)
    from_domain: str
    dkim_pass: bool
    spf_pass: bool
    dmarc_aligned: bool


def settings_of(tx: Tx) -> Settings:
    """Give this service's settings."""
    settings: Settings = tx.context.settings
    return settings


def random_letters() -> str:
    """Make 130 random bits of base32."""
    return "".join(secrets.choice(BASE32) for _ in range(TOKEN_LETTERS))


async def make_claim(tx: Tx, org_id: UUID, text: str, wildcard: bool) -> tuple[ClaimRecord, str]:
    """Claim a domain; give the claim and its token, which is shown this once.

    Raises a DomainRefused, WildcardNotOrganizational or ClaimExists. Locks the domain's family.
    """
    suffixes = listed_suffixes()
    domain = claimable(text, suffixes, _own_domains(settings_of(tx)))
    organizational = rules.family_of(domain, wildcard, suffixes)
    family = await _live_family(tx, organizational)
    for other in family:
        if (other.org_id, other.domain) == (org_id, domain):
            raise ClaimExists(claim_id=str(other.claim_id))
    claim = _new_claim(tx, org_id, domain, organizational, wildcard)
    claim = replace(claim, status=rules.standings([*family, claim])[claim.claim_id])
    await store.insert_claim(tx, claim, random_letters().lower())
    await tx.announce(store.fact_of(claim))
    token = await _put_challenge(tx, claim.claim_id)
    return await store.get_claim(tx, claim.claim_id), token


def _new_claim(tx: Tx, org_id: UUID, domain: str, organizational: str, wildcard: bool) -> Claim:
    return Claim(
        claim_id=new_id(),
        org_id=org_id,
        domain=domain,
        organizational_domain=organizational,
        wildcard=wildcard,
        status="pending_conflict",
        verified_at=None,
        expires_at=tx.now + TOKEN_LIFE,
        created_at=tx.now,
        version=1,
    )


async def renew_challenge(tx: Tx, claim_id: UUID) -> tuple[ClaimRecord, str]:
    """Give an open claim a new token and address; the old ones are dead. NotFound, ClaimNotPending."""
    found = await store.get_claim(tx, claim_id)
    family = await store.lock_family(tx, found.claim.organizational_domain)
    claim = next((one for one in family if one.claim_id == claim_id), replace(found.claim, status="revoked"))
    rules.must_be_open(claim)
    await store.update_expiry(tx, claim_id, tx.now + TOKEN_LIFE)
    token = await _put_challenge(tx, claim_id)
    return await store.get_claim(tx, claim_id), token


async def _put_challenge(tx: Tx, claim_id: UUID) -> str:
    token = random_letters()
    send_to = f"c-{random_letters().lower()}@{settings_of(tx).inbound_domain}"
    challenge = ChallengeRow(claim_id, token_digest(token), send_to, tx.now, tx.now + TOKEN_LIFE, None)
    await store.put_challenge(tx, challenge)
    return token


async def revoke_claim(tx: Tx, claim: Claim) -> None:
    """End a claim; whoever waited behind it moves up. Nothing if it was over already."""
    family = await store.lock_family(tx, claim.organizational_domain)
    if any(one.claim_id == claim.claim_id for one in family):
        await _revoke(tx, family, {claim.claim_id})


async def expire_family(tx: Tx, organizational: str) -> int:
    """End the claims of a family whose time is over; give how many."""
    family = await store.lock_family(tx, organizational)
    expired = await _expired(tx, family)
    await _revoke(tx, family, expired)
    return len(expired)


async def _live_family(tx: Tx, organizational: str) -> list[Claim]:
    """Lock a family, end what has expired in it, give the rest: claiming holds nothing."""
    family = await store.lock_family(tx, organizational)
    return await _revoke(tx, family, await _expired(tx, family))


async def _expired(tx: Tx, family: list[Claim]) -> set[UUID]:
    over = {one.claim_id for one in family if one.status in rules.OPEN and one.expires_at <= tx.now}
    return over - await store.list_with_waiting_mail(tx, list(over)) if over else over


async def _revoke(tx: Tx, family: list[Claim], claim_ids: set[UUID]) -> list[Claim]:
    """Revoke some of a locked family; give the others, each in its place."""
    for claim_id in sorted(claim_ids):
        await tx.announce(store.fact_of(await store.update_status(tx, claim_id, "revoked")))
    rest = {one.claim_id: one for one in family if one.claim_id not in claim_ids}
    if not claim_ids:
        return list(rest.values())
    for claim_id, status in rules.changes(rest.values()):
        rest[claim_id] = await store.update_status(tx, claim_id, status)
        await tx.announce(store.fact_of(rest[claim_id]))
    return list(rest.values())


async def prove(tx: Tx, claim_id: UUID, token_sha256: bytes, proof: dict[str, object]) -> list[Reason]:
    """Verify a claim by a proof that holds; give why not, [] if it is verified now.

    Under the family's lock the first proof wins: later ones find a verified claim, keep their proof beside
    their own and are in conflict. The token is used up either way.
    """
    found = await store.get_claim(tx, claim_id)
    family = await store.lock_family(tx, found.claim.organizational_domain)
    claim = next((one for one in family if one.claim_id == claim_id), None)
    challenge = await store.lock_challenge(tx, claim_id)
    if claim is None:
        return [Reason.CLAIM_REVOKED]
    if not hmac.compare_digest(challenge.token_sha256, token_sha256):
        return [Reason.TOKEN_WRONG]
    if challenge.used_at is not None:
        return [Reason.TOKEN_USED]
    await store.update_token_used(tx, claim_id, tx.now)
    if rules.holder_against(claim, family) is not None:
        await store.update_proof(tx, claim_id, proof)
        return [Reason.CONFLICT]
    await _make_holder(tx, claim, family, proof)
    return []


async def _make_holder(tx: Tx, claim: Claim, family: list[Claim], proof: dict[str, object]) -> None:
    """Let the others step back, then verify: one name has one pending or verified claim at every moment."""
    after = [replace(one, status="verified") if one is claim else one for one in family]
    for claim_id, status in rules.changes(after):
        await tx.announce(store.fact_of(await store.update_status(tx, claim_id, status)))
    await tx.announce(store.fact_of(await store.update_verified(tx, claim.claim_id, tx.now, proof)))


async def take_assertion(tx: Tx, assertion: Assertion) -> list[Reason]:
    """Verify a claim by a trusted processor's word; give why not, [] if it is verified now."""
    digest = token_digest(assertion.token)
    claim_id = await store.find_claim_of_token(tx, digest)
    if claim_id is None:
        return [Reason.TOKEN_UNKNOWN]
    found = await store.get_claim(tx, claim_id)
    challenge = await store.get_challenge(tx, claim_id)
    reasons = _assertion_reasons(assertion, found.claim, challenge, tx.now)
    if not reasons:
        reasons = await prove(tx, claim_id, digest, _asserted_proof(tx, assertion, found.claim))
    await record_attempt(tx, claim_id, None, "refused" if reasons else "verified", reasons)
    return reasons


def _assertion_reasons(
    assertion: Assertion, claim: Claim, challenge: ChallengeRow, now: datetime
) -> list[Reason]:
    """An assertion is level AL1 in a conflict, so it verifies only a claim that nobody else has."""
    rules_broken = {
        Reason.CLAIM_REVOKED: claim.status == "revoked",
        Reason.TOKEN_EXPIRED: now >= challenge.expires_at,
        Reason.FROM_DOMAIN_MISMATCH: assertion.from_domain != claim.domain,
        Reason.DKIM_NOT_ASSERTED: not assertion.dkim_pass,
        Reason.DMARC_UNALIGNED: not assertion.dmarc_aligned,
        Reason.CONFLICT: claim.status == "pending_conflict",
    }
    return [reason for reason, is_broken in rules_broken.items() if is_broken]


def _asserted_proof(tx: Tx, assertion: Assertion, claim: Claim) -> dict[str, object]:
    return proofs.seal(
        {
            "about": _about(claim, "asserted"),
            "processor": assertion.processor,
            "assertion": {
                "from_domain": assertion.from_domain,
                "dkim_pass": assertion.dkim_pass,
                "spf_pass": assertion.spf_pass,
                "dmarc_aligned": assertion.dmarc_aligned,
                "at": tx.now.isoformat(),
            },
        }
    )


def _about(claim: Claim, method: str) -> dict[str, object]:
    return {
        "version": 1,
        "claim_id": str(claim.claim_id),
        "org_id": str(claim.org_id),
        "domain": claim.domain,
        "method": method,
        "level": "AL2",
    }


async def conclude(tx: Tx, mail: mails.DueMail, verdict: Verdict, answers: dict[str, Answer]) -> None:
    """Keep what judging a mail came to, once: nothing happens to a mail that has its verdict already."""
    if not await mails.lock_waiting_mail(tx, mail.mail_id):
        return
    reasons = list(verdict.reasons)
    if verdict.outcome == "waiting":
        again = next_attempt(mail.received_at, tx.now, mail.attempts)
        if again is not None:
            documents = {name: answer_document(answer) for name, answer in answers.items()}
            await mails.update_mail_waiting(tx, mail.mail_id, reasons, verdict.checks, documents, again)
            await record_attempt(tx, mail.claim_id, mail.mail_id, "waiting", reasons)
            return
    if verdict.outcome == "verified" and mail.claim_id is not None:
        reasons += await _prove_by_mail(tx, mail.claim_id, mail, verdict, answers)
    outcome = "refused" if reasons or verdict.outcome != "verified" else "verified"
    checks = verdict.checks | {"level": verdict.level}
    await mails.update_mail_judged(tx, mail.mail_id, outcome, reasons, checks)
    await record_attempt(tx, mail.claim_id, mail.mail_id, outcome, reasons)


async def _prove_by_mail(
    tx: Tx, claim_id: UUID, mail: mails.DueMail, verdict: Verdict, answers: dict[str, Answer]
) -> list[Reason]:
    found = await store.get_claim(tx, claim_id)
    challenge = await store.get_challenge(tx, claim_id)
    proof = proofs.seal(
        {
            "about": _about(found.claim, "dkim"),
            "mail": {
                "mail_id": str(mail.mail_id),
                "provider": mail.provider,
                "received_at": mail.received_at.isoformat(),
                "raw_sha256": mail.raw_sha256.hex(),
            },
            "checks": verdict.checks,
            "dns": {name: answer_document(answer) for name, answer in sorted(answers.items())},
            "judged_at": tx.now.isoformat(),
        }
    )
    return await prove(tx, claim_id, challenge.token_sha256, proof)


async def record_attempt(
    tx: Tx, claim_id: UUID | None, mail_id: UUID | None, outcome: str, reasons: list[Any]
) -> None:
    """Show an attempt on its claim; a mail that belongs to no claim shows nowhere."""
    if claim_id is None:
        return
    attempt = {
        "at": tx.now.isoformat(),
        "outcome": outcome,
        "reasons": [str(reason) for reason in reasons],
        "mail_id": str(mail_id) if mail_id else None,
    }
    await store.update_last_attempt(tx, claim_id, attempt)


def _own_domains(settings: Settings) -> frozenset[str]:
    """Give the platform's own names: those listed, and the whole organization of the inbound domain."""
    organizational = listed_suffixes().organizational(settings.inbound_domain)
    return frozenset({*settings.platform_domains, organizational or settings.inbound_domain})
