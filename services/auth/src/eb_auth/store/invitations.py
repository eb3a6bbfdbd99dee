"""Invitations: open ones are unique by organisation and address."""

from __future__ import annotations

from uuid import UUID

import asyncpg

from eb_contracts.errors import NotFound
from eb_kit.tx import Tx

from ..domain.errors import InvitationOpen
from ..domain.invitations import Invitation

INVITATION = (
    "invitation_id, org_id, email::text, role::text, invited_by, created_at, expires_at, consumed_at, outcome"
)


async def insert_invitation(tx: Tx, invitation: Invitation, token_sha256: bytes) -> None:
    """Keep a new invitation; raises InvitationOpen where the address has an open one."""
    try:
        await tx.execute(
            "INSERT INTO invitation (invitation_id, org_id, email, role, token_sha256, invited_by, created_at,"
            " expires_at) VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
            invitation.invitation_id,
            invitation.org_id,
            invitation.email,
            invitation.role,
            token_sha256,
            invitation.invited_by,
            invitation.created_at,
            invitation.expires_at,
        )
    except asyncpg.UniqueViolationError as error:
        if error.constraint_name == "invitation_open_key":
            raise InvitationOpen from None
        raise


async def lock_invitation(tx: Tx, org_id: UUID, invitation_id: UUID) -> Invitation:
    """Lock an organisation's invitation until `tx` ends; raises NotFound."""
    row = await tx.fetchrow(
        f"SELECT {INVITATION} FROM invitation WHERE invitation_id = $1 AND org_id = $2 FOR UPDATE",
        invitation_id,
        org_id,
    )
    if row is None:
        raise NotFound
    return Invitation(*row)


async def lock_invitation_of_token(tx: Tx, token_sha256: bytes) -> Invitation | None:
    """Lock the invitation of a token until `tx` ends."""
    row = await tx.fetchrow(
        f"SELECT {INVITATION} FROM invitation WHERE token_sha256 = $1 FOR UPDATE", token_sha256
    )
    return Invitation(*row) if row else None


async def update_invitation_ended(tx: Tx, invitation_id: UUID, outcome: str) -> None:
    """End an open invitation as accepted, revoked or expired."""
    await tx.execute(
        "UPDATE invitation SET consumed_at = $2, outcome = $3 WHERE invitation_id = $1 AND consumed_at IS NULL",
        invitation_id,
        tx.now,
        outcome,
    )


async def update_expired(tx: Tx, org_id: UUID, email: str) -> None:
    """End an address's invitation to an organisation if its time is up, so that another can be sent."""
    await tx.execute(
        "UPDATE invitation SET consumed_at = $3, outcome = 'expired'"
        " WHERE org_id = $1 AND lower(email::text) = lower($2) AND consumed_at IS NULL AND expires_at <= $3",
        org_id,
        email,
        tx.now,
    )


async def update_invitation_token(tx: Tx, invitation: Invitation, token_sha256: bytes) -> None:
    """Give an open invitation another token and another end; the old token is good for nothing."""
    await tx.execute(
        "UPDATE invitation SET token_sha256 = $2, expires_at = $3 WHERE invitation_id = $1",
        invitation.invitation_id,
        token_sha256,
        invitation.expires_at,
    )


async def list_invitations(tx: Tx, org_id: UUID, before: UUID | None, limit: int) -> list[Invitation]:
    """Give a page of an organisation's invitations, newest first."""
    rows = await tx.fetch(
        f"SELECT {INVITATION} FROM invitation WHERE org_id = $1 AND ($2::uuid IS NULL OR invitation_id < $2)"
        " ORDER BY invitation_id DESC LIMIT $3",
        org_id,
        before,
        limit,
    )
    return [Invitation(*row) for row in rows]


async def is_member(tx: Tx, org_id: UUID, email: str) -> bool:
    """Tell whether the user of an address is a member."""
    return bool(
        await tx.fetchval(
            'SELECT EXISTS (SELECT 1 FROM membership m JOIN "user" u ON u.user_id = m.user_id'
            " WHERE m.org_id = $1 AND u.email = $2)",
            org_id,
            email,
        )
    )
