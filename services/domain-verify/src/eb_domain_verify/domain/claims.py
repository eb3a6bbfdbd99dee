"""Claims beside each other: claiming holds nothing, the first proof wins, a verified claim is never taken.

Rule: docs/rules/domain-verification.md, Claims.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from .errors import ClaimNotPending, WildcardNotOrganizational
from .names import Suffixes, is_within

TOKEN_LIFE = timedelta(hours=72)
OPEN = frozenset({"pending", "pending_conflict"})


@dataclass(frozen=True, slots=True)
class Claim:
    """A claim's public state. `organizational_domain` is the suffix list's; claims that share it are a family."""

    claim_id: UUID
    org_id: UUID
    domain: str
    organizational_domain: str
    wildcard: bool
    status: str
    verified_at: datetime | None
    expires_at: datetime
    created_at: datetime
    version: int


def family_of(domain: str, wildcard: bool, suffixes: Suffixes) -> str:
    """Give the organizational domain of a claimable name; WildcardNotOrganizational if it may not be wide."""
    organizational = suffixes.organizational(domain) or domain
    if wildcard and domain != organizational:
        raise WildcardNotOrganizational
    return organizational


def overlaps(left: Claim, right: Claim) -> bool:
    """Say whether two claims speak about a common name."""
    return (
        left.domain == right.domain
        or (left.wildcard and is_within(right.domain, left.domain))
        or (right.wildcard and is_within(left.domain, right.domain))
    )


def holder_against(claim: Claim, family: Iterable[Claim]) -> Claim | None:
    """Give a verified claim of another organisation that overlaps `claim`, if there is one."""
    for other in family:
        if other.status == "verified" and other.org_id != claim.org_id and overlaps(claim, other):
            return other
    return None


def standings(family: Iterable[Claim]) -> dict[UUID, str]:
    """Give the status each open claim of a family ought to have.

    `pending_conflict` where another organisation holds an overlapping verified claim, or an earlier claim of
    the same name is pending; else `pending`. Who is pending stays so: the others queue behind by age.
    """
    members = sorted(family, key=lambda claim: (claim.status != "pending", claim.created_at, claim.claim_id))
    first: set[str] = {claim.domain for claim in members if claim.status == "verified"}
    result: dict[UUID, str] = {}
    for claim in members:
        if claim.status in OPEN:
            is_held = holder_against(claim, members) is not None or claim.domain in first
            result[claim.claim_id] = "pending_conflict" if is_held else "pending"
            if not is_held:
                first.add(claim.domain)
    return result


def changes(family: Iterable[Claim]) -> list[tuple[UUID, str]]:
    """List the claims whose status has to change, those that step back first.

    One name has at most one pending or verified claim at any moment, so the order matters to the database.
    """
    members = list(family)
    now = {claim.claim_id: claim.status for claim in members}
    due = [(claim_id, status) for claim_id, status in standings(members).items() if now[claim_id] != status]
    return sorted(due, key=lambda change: change[1] != "pending_conflict")


def must_be_open(claim: Claim) -> None:
    """Raise ClaimNotPending unless the claim still waits for its proof."""
    if claim.status not in OPEN:
        raise ClaimNotPending
