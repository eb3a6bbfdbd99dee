"""What the doors take and give."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

from eb_kit.inputs import Input, Page, Text, View

from ..domain.claims import OPEN
from ..store.claims import ClaimRecord
from ..store.mails import MailRecord

Status = Literal["pending", "verified", "revoked", "pending_conflict"]
Outcome = Literal["verified", "refused", "waiting"]


class CreateClaim(Input):
    """Which organisation claims which domain; `wildcard` covers its sub-domains too."""

    org_id: UUID
    domain: Annotated[str, Text(1, 1000)]
    wildcard: bool = False


class ClaimList(Page):
    """Whose claims to list; staff may leave `org_id` out."""

    org_id: UUID | None = None
    status: Status | None = None


class AttemptView(View):
    """What the latest mail or assertion came to."""

    at: datetime
    outcome: Outcome
    reasons: list[str]


class ClaimView(View):
    """A claim. `token` is shown once, by the request that makes it; `send_to` and `dns_token` to who may claim."""

    claim_id: UUID
    org_id: UUID
    domain: str
    wildcard: bool
    status: Status
    verified_at: datetime | None
    token: str | None
    send_to: str | None
    dns_token: str | None
    expires_at: datetime | None
    last_attempt: AttemptView | None
    created_at: datetime

    @classmethod
    def of(cls, record: ClaimRecord, *, may_claim: bool, token: str | None = None) -> ClaimView:
        """Show a claim; an end only while it is open."""
        claim, attempt = record.claim, record.last_attempt
        return cls.model_validate(
            {
                **{name: getattr(claim, name) for name in _SHOWN},
                "token": token,
                "send_to": record.send_to if may_claim else None,
                "dns_token": record.dns_token if may_claim else None,
                "expires_at": claim.expires_at if claim.status in OPEN else None,
                "last_attempt": {name: attempt[name] for name in _ATTEMPT} if attempt else None,
            }
        )


_SHOWN = ("claim_id", "org_id", "domain", "wildcard", "status", "verified_at", "created_at")
_ATTEMPT = ("at", "outcome", "reasons")


class MailAccepted(View):
    """The mail is stored and will be judged."""

    mail_id: UUID


class MailView(View):
    """A mail and its verdict; `waiting` until there is one."""

    mail_id: UUID
    received_at: datetime
    provider: str
    claim_id: UUID | None
    outcome: Outcome
    reasons: list[str]
    checks: dict[str, Any]
    attempts: int
    next_attempt_at: datetime | None

    @classmethod
    def of(cls, record: MailRecord) -> MailView:
        """Show a mail."""
        return cls(**{name: getattr(record, name) for name in cls.model_fields})


class EmailSubmit(Input):
    """What a trusted mail processor found out about a mail."""

    token: Annotated[str, Text(1, 200)]
    from_domain: Annotated[str, Text(1, 1000)]
    dkim_pass: bool
    spf_pass: bool
    dmarc_aligned: bool


class SubmitView(View):
    """Whether the claim is verified now, and if not, why."""

    status: Literal["verified", "rejected"]
    reasons: list[str]
