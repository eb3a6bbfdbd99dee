"""Signing in and staying signed in: codes, providers, refresh tokens. Rule: docs/rules/identity.md, Signing in."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field
from datetime import timedelta
from uuid import UUID

from eb_contracts.errors import NotFound
from eb_contracts.ids import new_id
from eb_kit.tx import Tx

from ..domain import codes, tokens
from ..domain.errors import IdentityConflict
from ..domain.mails import CODE, Mail
from ..domain.oidc import Identity
from ..domain.sealing import derived_key
from ..domain.sessions import REFRESH_PREFIX, Proof, Session, Verdict, judge, token_digest
from ..settings import settings_of
from ..store import members, oidc, sessions, sign_in
from . import mails, revoking, signing

CODE_PURPOSE = "login code"


@dataclass(frozen=True, slots=True)
class Device:
    """Where a session lives, as its owner will see it in the list."""

    user_agent: str
    address: str


@dataclass(frozen=True, slots=True)
class Offered:
    """What comes with a sign-in by code: the challenge that its verifier gives (empty: none came) and the refresh
    token of the session that it replaces, if any."""

    code: str = field(repr=False)
    challenge: str = ""
    replaced_token: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Issued:
    """A session's fresh credentials; the refresh token is shown here only."""

    session_id: UUID
    user_id: UUID
    refresh_token: str = field(repr=False)
    access_token: str = field(repr=False)


async def send_code(tx: Tx, email: str, challenge: str = "") -> None:
    """Make the one live code of an address and let it be mailed; known and unknown addresses alike.

    With a challenge the code is good only for who knows its verifier.
    """
    code = f"{secrets.randbelow(10**codes.DIGITS):0{codes.DIGITS}}"
    expires_at = tx.now + codes.CODE_LIFETIME
    digest = _digests(tx, email, code, challenge)[0]
    await sign_in.insert_code(tx, codes.LoginCode(email, digest, expires_at, 0))
    await mails.queue(tx, Mail(email, CODE, {"code": code}), expires_at)


async def open_session(tx: Tx, email: str, offered: Offered, device: Device) -> Issued | None:
    """Sign in with a code; an address unknown so far becomes a user. None for a wrong code, which is counted.

    The session whose refresh token comes along ends: the device has the new one in its place.
    """
    kept = await sign_in.lock_code(tx, email)
    digests = _digests(tx, email, offered.code, offered.challenge)
    if not any(codes.is_right(kept, digest, tx.now) for digest in digests):
        await sign_in.update_code_tries(tx, email)
        return None
    await sign_in.delete_code(tx, email)
    if offered.replaced_token is not None:
        await _end_session_of(tx, offered.replaced_token)
    return await _open(tx, await sign_in.insert_user_once(tx, email), device)


async def open_session_of(tx: Tx, identity: Identity, proof: Proof, device: Device) -> Issued:
    """Sign in somebody whom a provider vouches for; raises IdentityConflict.

    The first time the subject is bound to the user of its verified address, made now if there is none. From then
    on only the subject counts, whatever address comes with it; and an address that comes with another subject of the
    same provider opens nobody's account.
    """
    user_id = await oidc.find_user_of(tx, identity.issuer, identity.subject)
    if user_id is None:
        user = await sign_in.insert_user_once(tx, identity.email)
        if not await oidc.insert_identity_once(tx, identity.issuer, identity.subject, user.user_id):
            raise IdentityConflict
    else:
        user = await sign_in.get_user(tx, user_id)
    return await _open(tx, user, device, proof)


async def _end_session_of(tx: Tx, refresh_token: str) -> None:
    if found := await sessions.lock_session_of_token(tx, token_digest(refresh_token)):
        await revoking.end_session(tx, found[0], "replaced")


async def _open(tx: Tx, user: sign_in.User, device: Device, proof: Proof | None = None) -> Issued:
    await tx.act_as(f"user:{user.user_id}")
    session = new_session(tx, user.user_id, user.default_org_id, device, proof)
    await sessions.insert_session(tx, session)
    return await _issue(tx, session, session.org_id)


def new_session(
    tx: Tx, user_id: UUID, org_id: UUID | None, device: Device, proof: Proof | None = None
) -> Session:
    """Make a session that begins now."""
    settings = settings_of(tx)
    return Session(
        session_id=new_id(),
        user_id=user_id,
        org_id=org_id,
        created_at=tx.now,
        last_used_at=tx.now,
        idle_expires_at=tx.now + timedelta(seconds=settings.session_idle_s),
        expires_at=tx.now + timedelta(seconds=settings.session_lifetime_s),
        revoked_at=None,
        user_agent=device.user_agent,
        address=device.address,
        proof=proof,
    )


async def refresh(tx: Tx, refresh_token: str, org_id: UUID | None) -> Issued | None:
    """Rotate a refresh token and issue an access token for an organisation's context.

    Without `org_id` the session's context stays. None where the token isn't (or no longer) good; a leaked one
    has then ended its session, which is to be kept. Raises NotFound for an organisation without a role there.
    """
    digest = token_digest(refresh_token)
    found = await sessions.lock_session_of_token(tx, digest)
    if found is None:
        return None
    session, used_at = found
    verdict = judge(session, used_at, tx.now)
    if verdict is Verdict.REVOKE:
        await revoking.end_session(tx, session, "token_reused")
    if verdict is not Verdict.ROTATE:
        return None
    await sessions.update_token_used(tx, digest)
    return await _issue(tx, session, org_id or session.org_id, must_hold_role=org_id is not None)


async def _issue(tx: Tx, session: Session, org_id: UUID | None, *, must_hold_role: bool = False) -> Issued:
    held = await _lock_roles(tx, org_id, session.user_id) if org_id else ()
    if not held and must_hold_role:
        raise NotFound
    context = org_id if held else None
    idle_expires_at = tx.now + timedelta(seconds=settings_of(tx).session_idle_s)
    await sessions.update_session_use(tx, session.session_id, context, idle_expires_at)
    refresh_token = REFRESH_PREFIX + secrets.token_urlsafe(32)
    await sessions.insert_token(tx, session.session_id, token_digest(refresh_token))
    if settings_of(tx).may_hold_platform_roles(session.proof):
        held = (*held, *await members.lock_platform_roles(tx, session.user_id))
    grant = tokens.Grant(session.user_id, session.session_id, context, held, session.signed_in_at)
    return Issued(session.session_id, session.user_id, refresh_token, await signing.access_token(tx, grant))


async def withheld_roles(tx: Tx, user_id: UUID, session_id: UUID | None) -> list[str]:
    """Name the platform roles that a session's tokens don't carry, since its sign-in showed no second factor."""
    session = await sessions.find_session(tx, session_id) if session_id else None
    if settings_of(tx).may_hold_platform_roles(session.proof if session else None):
        return []
    return await members.list_platform_roles(tx, user_id)


async def _lock_roles(tx: Tx, org_id: UUID, user_id: UUID) -> tuple[str, ...]:
    """Give the roles that somebody holds on an organisation itself, which stay until `tx` ends; none but members do."""
    role = await members.lock_role(tx, org_id, user_id)
    if role is None:
        return ()
    group_role = await members.find_group_role(tx, org_id, user_id)
    return (role, group_role.role) if group_role else (role,)


def _digests(tx: Tx, email: str, code: str, challenge: str) -> list[bytes]:
    """Give what is kept of a code: by the secret in use, then by those before it."""
    keys = (derived_key(secret, CODE_PURPOSE) for secret in settings_of(tx).auth_secret)
    return [codes.code_digest(key, email, code, challenge) for key in keys]
