"""Facts of domain-verify: what became of a claim."""

from __future__ import annotations

from datetime import datetime
from typing import Literal
from uuid import UUID

from .base import EntityFact, register


@register
class DomainClaimChanged(EntityFact):
    """A claim's public state."""

    TYPE = "domain_verify.domain_claim.changed.v1"
    ENTITY = "domain_claim"
    claim_id: UUID
    org_id: UUID
    domain: str
    wildcard: bool
    status: Literal["pending", "verified", "revoked", "pending_conflict"]
    verified_at: datetime | None

    @property
    def entity_id(self) -> str:
        return str(self.claim_id)
