"""Steps on a Tx that several doors share: signing in, access tokens, revocations, new organisations."""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal
from uuid import UUID

import structlog
from cryptography.exceptions import InvalidTag

from eb_contracts.audit import AuditEntry
from eb_contracts.errors import NotFound
from eb_contracts.ids import new_id
from eb_kit import readmodels
from eb_kit.tx import Tx

from .domain import audit, codes, sealing, tokens
from .domain.assist import AssistSession
from .domain.credentials import ApiKey, key_digest, key_fact, key_text
from .domain.errors import IdentityConflict, TooManyAttempts
from .domain.mails import CODE, Mail
from .domain.oidc import Identity
from .domain.orgs import Org
from .domain.sessions import REFRESH_PREFIX, Session, Verdict, judge, token_digest
from .settings import Settings
from .store import assist, credentials, facts, hierarchy, members, oidc, orgs, sessions, sign_in
from .store import audit as audit_store

log = structlog.get_logger(__name__)

MAIL_PURPOSE = "mail"
CODE_PURPOSE = "login code"
SIGNING_PURPOSE = "signing key"
AUDIT_PURPOSE = "audit chain"
OIDC_PURPOSE = "oidc attempt"
PER_ADDRESS = 5
PER_NETWORK_ADDRESS = 30
ORGS_PER_USER = 60
INVITATIONS_PER_USER = 60
FACTS_A_PAGE = 500
MOST_ADMINS_TOLD = 100
LINKS_A_PAGE = 2_000
HEADS_A_BATCH = 500
MOST_SESSIONS = 10_000


@dataclass(frozen=True, slots=True)
class Device:
    """Where a session lives, as its owner will see it in the list."""

    user_agent: str
    address: str


@dataclass(frozen=True, slots=True)
class NewKey:
    """What a new API key is to be."""

    name: str
    scopes: tuple[str, ...]
    expires_at: datetime | None


@dataclass(frozen=True, slots=True)
class Issued:
    """A session's fresh credentials; the refresh token is shown here only."""

    session_id: UUID
    user_id: UUID
    refresh_token: str
    access_token: str


def settings_of(tx: Tx) -> Settings:
    """Give the settings of this service."""
    settings: Settings = tx.context.settings
    return settings


async def limit(tx: Tx, action: str, subject: str, most: int) -> None:
    """Count an attempt of a subject (mail address, network address, user); raises TooManyAttempts over `most` a minute.

    Subjects are kept as hashes: the table of attempts names nobody.
    """
    if not settings_of(tx).has_limits:
        return
    now = tx.context.clock.machine_now()
    bucket = hashlib.sha256(f"{action}\n{subject}".encode()).digest()
    if await sign_in.count_attempt(tx, bucket, now.replace(second=0, microsecond=0)) > most:
        raise TooManyAttempts(retry_after_s=60 - now.second)


async def limit_sign_in(tx: Tx, action: str, email: str, address: str) -> None:
    """Count one step of a sign-in against the mail address and the network address; raises TooManyAttempts."""
    await limit(tx, action, f"mail {email}", PER_ADDRESS)
    await limit(tx, action, f"net {address}", PER_NETWORK_ADDRESS)


async def send_code(tx: Tx, email: str) -> None:
    """Make the one live code of an address and let it be mailed; known and unknown addresses alike."""
    code = f"{secrets.randbelow(10**codes.DIGITS):0{codes.DIGITS}}"
    expires_at = tx.now + codes.CODE_LIFETIME
    await sign_in.insert_code(tx, codes.LoginCode(email, _digests(tx, email, code)[0], expires_at, 0))
    await queue_mail(tx, Mail(email, CODE, {"code": code}), expires_at)


async def queue_mail(tx: Tx, mail: Mail, expires_at: datetime) -> None:
    """Have a mail sent once this transaction is kept, as long as it is of use; it waits sealed."""
    content = {"to": mail.to, "kind": mail.kind, "facts": dict(mail.facts)}
    sealed = seal(tx, MAIL_PURPOSE, json.dumps(content).encode())
    await sign_in.insert_mail(tx, sealed, tx.now, expires_at)


async def open_session(tx: Tx, email: str, code: str, device: Device) -> Issued | None:
    """Sign in with a code; an address unknown so far becomes a user. None for a wrong code, which is counted."""
    kept = await sign_in.lock_code(tx, email)
    if not any(codes.is_right(kept, offered, tx.now) for offered in _digests(tx, email, code)):
        await sign_in.update_code_tries(tx, email)
        return None
    await sign_in.delete_code(tx, email)
    return await _open(tx, await sign_in.insert_user_once(tx, email), device)


async def _open(tx: Tx, user: sign_in.User, device: Device) -> Issued:
    session = new_session(tx, user.user_id, user.default_org_id, device)
    await sessions.insert_session(tx, session)
    return await _issue(tx, session, session.org_id)


async def open_session_of(tx: Tx, identity: Identity, device: Device) -> Issued:
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
    return await _open(tx, user, device)


def new_session(tx: Tx, user_id: UUID, org_id: UUID | None, device: Device) -> Session:
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
        await end_session(tx, session, "token_reused")
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
    roles = (*held, *await members.lock_platform_roles(tx, session.user_id))
    grant = tokens.Grant(session.user_id, session.session_id, context, roles, session.signed_in_at)
    return Issued(session.session_id, session.user_id, refresh_token, await access_token(tx, grant))


async def _lock_roles(tx: Tx, org_id: UUID, user_id: UUID) -> tuple[str, ...]:
    """Give the roles that somebody holds on an organisation itself, which stay until `tx` ends; none but members do."""
    role = await members.lock_role(tx, org_id, user_id)
    if role is None:
        return ()
    group_role = await members.find_group_role(tx, org_id, user_id)
    return (role, group_role.role) if group_role else (role,)


async def access_token(tx: Tx, grant: tokens.Grant, lifetime: timedelta = tokens.TOKEN_LIFETIME) -> str:
    """Sign an access token with the key in use.

    The caller holds locks on what the roles came from, and the time is read here, after them: who revokes
    reads the time under the same locks, so no token with an old role is younger than its revocation.
    """
    clock = tx.context.clock
    stored = await credentials.get_signing_key(tx, clock.machine_now())
    private = unseal(tx, SIGNING_PURPOSE, stored.sealed_private)
    return tokens.sign(
        grant,
        tokens.SigningKey(stored.kid, private),
        issuer=settings_of(tx).token_issuer,
        issued_at=clock.machine_now(),
        token_id=new_id(),
        lifetime=lifetime,
    )


async def ensure_signing_key(tx: Tx) -> None:
    """Make the first signing key, unless there is one."""
    await credentials.lock_signing_keys(tx)
    if not await credentials.list_live_signing_keys(tx):
        await add_signing_key(tx, tx.context.clock.machine_now())


async def add_signing_key(tx: Tx, active_from: datetime) -> None:
    """Make a signing key that signs from this instant on, and announce it; the caller holds `lock_signing_keys`."""
    private = secrets.token_bytes(32)
    sealed = seal(tx, SIGNING_PURPOSE, private)
    kid = f"k-{secrets.token_hex(8)}"
    key = credentials.StoredSigningKey(kid, tokens.public_x(private), sealed, active_from, None, 1)
    await credentials.insert_signing_key(tx, key)
    await tx.announce(key.fact())


async def end_session(tx: Tx, session: Session, reason: str) -> None:
    """End a locked session and everything it issued; a session that has ended stays as it is."""
    if session.revoked_at is None:
        log.info("session ended", session_id=str(session.session_id), actor=tx.actor, reason=reason)
        await sessions.update_session_revoked(tx, session.session_id, reason)
        await assist.update_session_ended(tx, session.session_id)
        await void_tokens(tx, f"session:{session.session_id}")


async def void_tokens(tx: Tx, subject_key: str) -> None:
    """Make access tokens about a subject void that were issued up to now; the caller holds the subject's lock."""
    fact = await sessions.insert_revocation(tx, subject_key, tx.context.clock.machine_now())
    await tx.announce(fact)


async def create_key(
    tx: Tx, kind: Literal["org", "service"], org_id: UUID | None, made: NewKey
) -> tuple[ApiKey, str]:
    """Keep a new API key and announce it; give it with the whole text, which is known here only."""
    key_id = new_id()
    text = key_text(key_id, secrets.token_urlsafe(32))
    key = ApiKey(
        key_id=key_id,
        kind=kind,
        org_id=org_id,
        name=made.name,
        secret_sha256=key_digest(text),
        scopes=made.scopes,
        created_by=tx.actor,
        created_at=tx.now,
        expires_at=made.expires_at,
        revoked_at=None,
        version=1,
    )
    await credentials.insert_key(tx, key)
    await tx.announce(key_fact(key))
    return key, text


async def revoke_key(tx: Tx, key: ApiKey) -> None:
    """Revoke a locked API key everywhere; one that is revoked stays as it is."""
    if key.revoked_at is None:
        await tx.announce(key_fact(await credentials.update_key_revoked(tx, key.key_id)))


async def found_org(tx: Tx, org: Org, user_id: UUID) -> Org:
    """Keep a new organisation with its creator as Admin, and announce it; raises OrgSlugTaken."""
    await orgs.insert_org(tx, org)
    member = await members.insert_member(tx, org.org_id, user_id, "Admin")
    await sign_in.update_default_org(tx, user_id, org.org_id)
    await tx.announce(await orgs.get_org_fact(tx, org), member)
    return org


async def join(tx: Tx, org_id: UUID, user_id: UUID, role: str) -> None:
    """Make somebody a member, unless they are one; the caller holds the organisation's row."""
    if await members.lock_role(tx, org_id, user_id) is None:
        await tx.announce(await members.insert_member(tx, org_id, user_id, role))
        await sign_in.update_default_org(tx, user_id, org_id)


async def move_org(tx: Tx, org_id: UUID, parent_id: UUID | None) -> Org:
    """Hang a subtree below another parent, or below none; the caller holds the roots and has checked the place.

    Assist sessions by a group role end where the group is left.
    """
    org = await announce_org(tx, await hierarchy.update_parent(tx, org_id, parent_id))
    await _void_assists(tx, await assist.update_lost_below(tx, org_id))
    return org


async def end_assist(tx: Tx, session: AssistSession) -> AssistSession:
    """End a locked assist session and void its token."""
    ended = {"status": "ended", "ended_by": tx.actor, "ended_at": tx.now}
    await _void_assists(tx, [session.assist_session_id])
    return await assist.update_assist(tx, session.assist_session_id, ended)


async def end_assists_in(tx: Tx, org_id: UUID) -> None:
    """End all assist sessions in an organisation that wants no more of them."""
    await _void_assists(tx, await assist.update_org_ended(tx, org_id))


async def end_lost_assists(tx: Tx, user_id: UUID) -> None:
    """End a helper's assist sessions whose role is gone."""
    await _void_assists(tx, await assist.update_lost_of_user(tx, user_id))


async def _void_assists(tx: Tx, assist_session_ids: Sequence[UUID]) -> None:
    for assist_session_id in assist_session_ids:
        await void_tokens(tx, f"assist:{assist_session_id}")


async def mail_admins(
    tx: Tx, org_id: UUID, kind: str, facts: Mapping[str, str], expires_at: datetime
) -> None:
    """Have the same mail sent to each Admin of an organisation."""
    for address in await members.list_admin_emails(tx, org_id, MOST_ADMINS_TOLD):
        await queue_mail(tx, Mail(address, kind, facts), expires_at)


async def announce_org(tx: Tx, org: Org) -> Org:
    """Announce the state of an organisation that changed."""
    await tx.announce(await orgs.get_org_fact(tx, org))
    return org


def open_mail(tx: Tx, sealed: bytes) -> Mail:
    """Open a mail that waited."""
    content = json.loads(unseal(tx, MAIL_PURPOSE, sealed))
    return Mail(content["to"], content.get("kind", CODE), content.get("facts") or {"code": content["code"]})


def unseal(tx: Tx, purpose: str, sealed: bytes) -> bytes:
    """Open what waited sealed in the database."""
    return sealing.unseal_any(settings_of(tx).auth_secret, purpose, sealed)


def seal(tx: Tx, purpose: str, plain: bytes) -> bytes:
    """Seal what is to wait in the database."""
    nonce = secrets.token_bytes(sealing.NONCE_BYTES)
    return sealing.seal(settings_of(tx).auth_secret[0], purpose, nonce, plain)


def _digests(tx: Tx, email: str, code: str) -> list[bytes]:
    """Give what is kept of a code: by the secret in use, then by those before it."""
    keys = (sealing.derived_key(secret, CODE_PURPOSE) for secret in settings_of(tx).auth_secret)
    return [codes.code_digest(key, email, code) for key in keys]


async def recall(tx: Tx, entity: str, after_id: str | None) -> str | None:
    """Put a page of an entity's facts into the own read model; give the last id, None when all are known."""
    if after_id is None and not await facts.is_unknown(tx, entity):
        return None
    page = await facts.LISTERS[entity](tx, after_id, FACTS_A_PAGE)
    await readmodels.keep(tx.connection, page, tx.context.clock.machine_now())
    return page[-1].entity_id if page else None


def audit_keys(settings: Settings) -> list[bytes]:
    """Give the keys of the seals of audit chains' heads, the one in use first; they aren't in the database."""
    return [sealing.derived_key(secret, AUDIT_PURPOSE) for secret in settings.auth_secret]


async def chain_entries(tx: Tx, entries: Sequence[tuple[str, AuditEntry]]) -> None:
    """Put audit entries (with their services) at the end of their chains, each once.

    Locks the heads of the chains in the order of their ids. Rule: docs/rules/identity.md, Audit.
    """
    waiting: dict[UUID, dict[UUID, tuple[str, AuditEntry]]] = {}
    for service, entry in entries:
        waiting.setdefault(audit.chain_of(entry), {})[entry.audit_id] = (service, entry)
    heads = await audit_store.lock_heads(tx, waiting)
    chained = await audit_store.list_chained(tx, [entry.audit_id for _, entry in entries])
    key, moved = audit_keys(settings_of(tx))[0], []
    for chain_id, head in heads.items():
        new = [waiting[chain_id][audit_id] for audit_id in sorted(waiting[chain_id].keys() - chained)]
        after, links = audit.extend(head, new)
        if links:
            await audit_store.insert_links(tx, chain_id, links)
            moved.append(audit_store.Sealed(after, audit.seal(key, after)))
    await audit_store.update_heads(tx, moved)


async def reseal(tx: Tx) -> int:
    """Seal anew with the secret in use what an older one sealed and what lasts: signing keys, heads of audit chains.

    Give how many; a head whose seal no secret made stays as it is, for the proof to find.
    """
    count = 0
    await credentials.lock_signing_keys(tx)
    for key in await credentials.list_live_signing_keys(tx):
        try:
            sealing.unseal(settings_of(tx).auth_secret[0], SIGNING_PURPOSE, key.sealed_private)
        except InvalidTag:
            private = unseal(tx, SIGNING_PURPOSE, key.sealed_private)
            await credentials.update_signing_key_sealed(tx, key.kid, seal(tx, SIGNING_PURPOSE, private))
            count += 1
    newest, *older = audit_keys(settings_of(tx))
    found = await audit_store.take_heads_sealed_otherwise(tx, audit.fingerprint(newest), HEADS_A_BATCH)
    good = [one.head for one in found if audit.is_sealed(one.head, one.seal, older)]
    await audit_store.update_heads(tx, [audit_store.Sealed(head, audit.seal(newest, head)) for head in good])
    return count + len(good)


Opener = Callable[[], AbstractAsyncContextManager[Tx]]


async def chain_pages(open_tx: Opener, chain_id: UUID, up_to: int) -> AsyncIterator[list[audit.Link]]:
    """Give a chain in pages, oldest first, each read in a transaction of its own: memory stays constant."""
    after = 0
    while after < up_to:
        async with open_tx() as tx:
            links = await audit_store.list_links(tx, chain_id, after, up_to, LINKS_A_PAGE)
        if not links:
            return
        yield links
        after = links[-1].seq


async def check_chain(
    open_tx: Opener, settings: Settings, chain_id: UUID
) -> tuple[audit.Head, audit.Problem | None]:
    """Compute every hash of a chain again, up to its sealed head; the head, and the first thing that is wrong."""
    async with open_tx() as tx:
        sealed = await audit_store.find_head(tx, chain_id)
    if sealed is None:
        return audit.Head(chain_id), None
    check = audit.Check(audit.Head(chain_id))
    async for links in chain_pages(open_tx, chain_id, sealed.head.seq):
        check.follow(links)
    check.finish(sealed.head, sealed.seal, audit_keys(settings))
    return sealed.head, check.problem


async def erase_person(tx: Tx, user: sign_in.User) -> int:
    """Take a person's address out of the users, invitations and audit entries; give from how many entries.

    Owner only. Sessions end, and the address could sign in again as somebody new. The caller saw to it that no
    organisation has it as its billing address. Rule: docs/rules/identity.md, Audit.
    """
    nobody = f"erased-{user.user_id}@erased.invalid"
    await sign_in.update_user_email(tx, user.user_id, nobody)
    await members.update_invitation_email(tx, user.email, nobody)
    await sign_in.delete_code(tx, user.email)
    for session in await sessions.list_live_sessions(tx, user.user_id, None, MOST_SESSIONS):
        await end_session(tx, session, "erased")
    return await audit_store.delete_personal(tx, user.email)
