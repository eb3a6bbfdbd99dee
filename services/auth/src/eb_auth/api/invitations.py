"""Doors of invitations."""

from __future__ import annotations

import secrets
from dataclasses import replace
from datetime import datetime
from typing import Annotated, Literal, Self
from uuid import UUID

from aiohttp import web

from eb_contracts.errors import NotFound
from eb_contracts.ids import new_id
from eb_kit.access import caller, reach
from eb_kit.inputs import Input, Text, View
from eb_kit.paging import page_of, read_cursor
from eb_kit.tx import Tx, begin
from eb_kit.web import Page, created, no_content, ok, path_uuid, read_body, read_query

from ..domain.errors import AlreadyMember, InvitationOpen, TooManyAttempts
from ..domain.invitations import INVITATION_LIFETIME, INVITATION_PREFIX, Invitation, token_digest
from ..domain.mails import INVITATION, Mail
from ..flows import limits, mails, organisations
from ..store import invitations, members, orgs, sign_in
from .routes import routes
from .shapes import Email, MemberView, Role


class Invite(Input):
    """Who is to join, and as what."""

    email: Email
    role: Role = "User"


class AcceptInvitation(Input):
    """The token from the mail."""

    token: Annotated[str, Text(1, 200)]


class InvitationView(View):
    """An invitation; its token is in the mail only."""

    invitation_id: UUID
    org_id: UUID
    email: str
    role: str
    status: Literal["open", "accepted", "revoked", "expired"]
    invited_by: UUID
    created_at: datetime
    expires_at: datetime

    @classmethod
    def of(cls, invitation: Invitation, now: datetime) -> Self:
        """Show an invitation as it stands at an instant."""
        return cls(
            invitation_id=invitation.invitation_id,
            org_id=invitation.org_id,
            email=invitation.email,
            role=invitation.role,
            status=invitation.status(now),
            invited_by=invitation.invited_by,
            created_at=invitation.created_at,
            expires_at=invitation.expires_at,
        )


@routes.post(
    "/orgs/{org_id}/invitations",
    body=Invite,
    answer=InvitationView,
    status=201,
    errors=(NotFound, AlreadyMember, InvitationOpen, TooManyAttempts),
    step_up=True,
)
async def invite(request: web.Request) -> web.Response:
    """Invite an address; 201, and the token goes to the address by mail. It gives no right until it is accepted."""
    org_id = path_uuid(request, "org_id")
    await reach(request, org_id)
    body = await read_body(request, Invite)
    invited_by = caller(request).user_id
    assert invited_by is not None
    async with begin(request) as tx:
        await limits.count(tx, "invite", str(invited_by), limits.INVITATIONS_PER_USER)
        if await invitations.is_member(tx, org_id, body.email):
            raise AlreadyMember
        await invitations.update_expired(tx, org_id, body.email)
        ends = tx.now + INVITATION_LIFETIME
        made = Invitation(new_id(), org_id, body.email, body.role, invited_by, tx.now, ends, None, None)
        token = INVITATION_PREFIX + secrets.token_urlsafe(32)
        await invitations.insert_invitation(tx, made, token_digest(token))
        await _mail(tx, made, token)
        return tx.answer(created(InvitationView.of(made, tx.now)))


async def _mail(tx: Tx, invitation: Invitation, token: str) -> None:
    org = await orgs.get_org(tx, invitation.org_id)
    facts = {
        "org_name": org.legal_name,
        "role": invitation.role,
        "token": token,
        "expires_at": f"{invitation.expires_at:%Y-%m-%d %H:%M} UTC",
    }
    await mails.queue(tx, Mail(invitation.email, INVITATION, facts), invitation.expires_at)


@routes.get("/orgs/{org_id}/invitations", query=Page, answer=list[InvitationView], errors=(NotFound,))
async def list_invitations(request: web.Request) -> web.Response:
    """List an organisation's invitations, ended ones too, newest first."""
    org_id = path_uuid(request, "org_id")
    await reach(request, org_id)
    query = read_query(request, Page)
    last = read_cursor(request, query)
    async with begin(request) as tx:
        found = await invitations.list_invitations(
            tx, org_id, last["invitation_id"] if last else None, query.limit + 1
        )
    views = [InvitationView.of(one, tx.now) for one in found]
    return page_of(request, query, views, lambda view: {"invitation_id": view.invitation_id})


@routes.delete("/orgs/{org_id}/invitations/{invitation_id}", errors=(NotFound,))
async def revoke_invitation(request: web.Request) -> web.Response:
    """Revoke an open invitation; 204, again too. Its token is good for nothing."""
    org_id = path_uuid(request, "org_id")
    await reach(request, org_id)
    async with begin(request) as tx:
        found = await invitations.lock_invitation(tx, org_id, path_uuid(request, "invitation_id"))
        await invitations.update_invitation_ended(tx, found.invitation_id, "revoked")
        return tx.answer(no_content())


@routes.post(
    "/orgs/{org_id}/invitations/{invitation_id}:resend",
    answer=InvitationView,
    status=200,
    errors=(NotFound,),
    step_up=True,
)
async def resend_invitation(request: web.Request) -> web.Response:
    """Mail an open invitation again with a new token and a new end; 200. The old token is good for nothing."""
    org_id = path_uuid(request, "org_id")
    await reach(request, org_id)
    async with begin(request) as tx:
        found = await invitations.lock_invitation(tx, org_id, path_uuid(request, "invitation_id"))
        if found.outcome is not None:
            raise NotFound
        again = replace(found, expires_at=tx.now + INVITATION_LIFETIME)
        token = INVITATION_PREFIX + secrets.token_urlsafe(32)
        await invitations.update_invitation_token(tx, again, token_digest(token))
        await _mail(tx, again, token)
        return tx.answer(ok(InvitationView.of(again, tx.now)))


@routes.post("/invitations:accept", body=AcceptInvitation, answer=MemberView, status=200, errors=(NotFound,))
async def accept_invitation(request: web.Request) -> web.Response:
    """Join with the token of an invitation to one's own address; 200 with the membership.

    Unknown, used, revoked, expired and another's are one answer: 404.
    """
    body = await read_body(request, AcceptInvitation)
    user_id = caller(request).user_id
    assert user_id is not None
    async with begin(request) as tx:
        found = await invitations.lock_invitation_of_token(tx, token_digest(body.token))
        user = await sign_in.get_user(tx, user_id)
        if found is None or not found.is_for(user.email, tx.now):
            raise NotFound
        await orgs.lock_org(tx, found.org_id)
        await organisations.join(tx, found.org_id, user_id, found.role)
        await invitations.update_invitation_ended(tx, found.invitation_id, "accepted")
        return tx.answer(ok(MemberView.of(await members.lock_member(tx, found.org_id, user_id))))
