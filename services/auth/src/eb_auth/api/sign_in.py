"""Doors of the sign-in, of sessions and of the public keys."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import structlog
from aiohttp import web

from eb_contracts.errors import Fault, NotFound, Refusal
from eb_kit.access import caller, require_recent_sign_in
from eb_kit.paging import page_of, read_cursor
from eb_kit.problems import BodyInvalid
from eb_kit.service import CONTEXT
from eb_kit.telemetry import current_request_id
from eb_kit.tx import begin
from eb_kit.web import Page, accepted, created, no_content, ok, path_uuid, read_body, read_query

from ..domain import tokens
from ..domain.codes import challenge_of
from ..domain.errors import CodeInvalid, RefreshTokenInvalid, TooManyAttempts
from ..flows import limits, revoking, signing_in
from ..store import credentials, members, sessions, sign_in
from .routes import routes
from .shapes import (
    JwksView,
    Login,
    LoginView,
    MembershipView,
    MeView,
    OpenSession,
    RefreshSession,
    SessionTokens,
    SessionView,
    WithheldRoleView,
)

log = structlog.get_logger(__name__)

OWN_TABLES = "signing in rests on auth's own tables, where every revocation stands at once"
TAKES_AWAY = "it only takes away: auth refuses from now on, the others before they let anybody in again"
LONGEST_USER_AGENT = 200
MOST_MEMBERSHIPS = 200
NO_CHALLENGE = Fault("/code_challenge", "required", "Codes are mailed only to clients that bind them here.")
UNKNOWN_GRANT = ("/grant_type", "not_a_choice")


def address_of(request: web.Request) -> str:
    """Give the client's network address: what a trusted proxy says it is, where one stands in front.

    Only the last address counts, over all lines of the header: those before are what the client says.
    """
    remote = request.remote or ""
    forwarded = ",".join(request.headers.getall("X-Forwarded-For", [])).rpartition(",")[2].strip()
    is_proxied = request.app[CONTEXT].settings.trusts(remote)
    return forwarded[:64] if forwarded and is_proxied else remote


def device_of(request: web.Request) -> signing_in.Device:
    """Give where the session will live."""
    agent = request.headers.get("User-Agent", "").replace("\0", "")
    return signing_in.Device(agent[:LONGEST_USER_AGENT], address_of(request))


def note_sign_in(issued: signing_in.Issued, method: str) -> None:
    """Log that somebody proved who they are (`code`, `oidc:<provider>`, `refresh`), by ids."""
    log.info(
        "signed in",
        method=method,
        actor=f"user:{issued.user_id}",
        session_id=str(issued.session_id),
        request_id=current_request_id(),
    )


@routes.post(
    "/auth/login",
    goes_on=OWN_TABLES,
    body=Login,
    answer=LoginView,
    status=202,
    idempotency="none",
    errors=(TooManyAttempts,),
)
async def login(request: web.Request) -> web.Response:
    """Have a one-time code mailed; 202 with the same answer whether or not the address has an account."""
    body = await read_body(request, Login)
    if body.code_challenge is None and request.app[CONTEXT].settings.login_challenge_required:
        raise BodyInvalid(faults=(NO_CHALLENGE,))
    async with begin(request) as tx:
        await limits.count_sign_in(tx, "login", body.email, address_of(request))
        await signing_in.send_code(tx, body.email, body.code_challenge or "")
    return accepted(LoginView())


@routes.post(
    "/auth/sessions",
    goes_on=OWN_TABLES,
    body=OpenSession,
    answer=SessionTokens,
    status=201,
    idempotency="none",
    errors=(CodeInvalid, TooManyAttempts),
)
async def open_session(request: web.Request) -> web.Response:
    """Sign in with a code; 201 with the session's credentials. An address unknown so far becomes a user.

    The wrong guess is kept before it is refused: a code lives for five of them. The session of a refresh token that
    comes along ends.
    """
    body = await read_body(request, OpenSession)
    challenge = challenge_of(body.code_verifier) if body.code_verifier else ""
    offered = signing_in.Offered(body.code, challenge, body.refresh_token)
    async with begin(request) as tx:
        await limits.count_sign_in(tx, "session", body.email, address_of(request))
        issued = await signing_in.open_session(tx, body.email, offered, device_of(request))
    if issued is None:
        raise CodeInvalid
    note_sign_in(issued, "code")
    return created(SessionTokens.of(issued))


@routes.post(
    "/auth/token",
    goes_on=OWN_TABLES,
    body=RefreshSession,
    answer=SessionTokens,
    idempotency="none",
    errors=(RefreshTokenInvalid, NotFound),
)
async def refresh(request: web.Request) -> web.Response:
    """Rotate a refresh token; 200 with fresh credentials for the organisation's context.

    A used token is refused, and ten seconds after its use it ends the session, which is kept before refusing.
    """
    with _oauth_errors():
        body = await read_body(request, RefreshSession)
    async with begin(request) as tx:
        issued = await signing_in.refresh(tx, body.refresh_token, body.org_id)
    if issued is None:
        raise RefreshTokenInvalid(error="invalid_grant")
    note_sign_in(issued, "refresh")
    return ok(SessionTokens.of(issued))


@contextmanager
def _oauth_errors() -> Iterator[None]:
    """Let refusals of a token request carry the `error` that clients of OAuth look for (RFC 6749, 5.2)."""
    try:
        yield
    except Refusal as refusal:
        is_grant = any((fault.pointer, fault.code) == UNKNOWN_GRANT for fault in refusal.faults)
        refusal.facts["error"] = "unsupported_grant_type" if is_grant else "invalid_request"
        raise


@routes.get("/.well-known/jwks.json", answer=JwksView)
async def jwks(request: web.Request) -> web.Response:
    """Give the public keys that verify access tokens, those announced for later too."""
    async with begin(request) as tx:
        keys = await credentials.list_live_signing_keys(tx)
    response = ok(tokens.key_set((key.kid, key.x) for key in keys))
    response.headers["Cache-Control"] = "public, max-age=300"
    return response


@routes.get("/auth/me", answer=MeView)
async def me(request: web.Request) -> web.Response:
    """Say who is signed in, in which context, and where they are a member."""
    who = caller(request)
    assert who.user_id is not None
    async with begin(request) as tx:
        user = await sign_in.get_user(tx, who.user_id)
        own = [] if who.assist else await members.list_own_memberships(tx, user.user_id, MOST_MEMBERSHIPS)
        withheld = [] if who.assist else await signing_in.withheld_roles(tx, user.user_id, who.session_id)
    return ok(
        MeView(
            user_id=user.user_id,
            email=user.email,
            default_org_id=user.default_org_id,
            session_id=who.session_id,
            assist_session_id=who.assist.assist_session_id if who.assist else None,
            org_id=who.org_id,
            roles=sorted(who.roles),
            withheld_roles=[WithheldRoleView(role=role) for role in withheld if role not in who.roles],
            memberships=[MembershipView.of(membership) for membership in own],
        )
    )


@routes.get("/auth/sessions", query=Page, answer=list[SessionView])
async def list_sessions(request: web.Request) -> web.Response:
    """List one's own live sessions, newest first."""
    query = read_query(request, Page)
    last = read_cursor(request, query)
    who = caller(request)
    assert who.user_id is not None
    async with begin(request) as tx:
        found = await sessions.list_live_sessions(
            tx, who.user_id, last["session_id"] if last else None, query.limit + 1
        )
    views = [SessionView.of(session, who.session_id) for session in found]
    return page_of(request, query, views, lambda view: {"session_id": view.session_id})


@routes.delete("/auth/sessions/{session_id}", goes_on=TAKES_AWAY, errors=(NotFound,), may_step_up=True)
async def end_session(request: web.Request) -> web.Response:
    """End a session and void its access tokens; 204, again too. Others' sessions: the Operator only.

    Signing out of the session in use is always possible; ending another one needs a recent sign-in.
    """
    session_id = path_uuid(request, "session_id")
    who = caller(request)
    if session_id != who.session_id:
        require_recent_sign_in(request)
    async with begin(request) as tx:
        session = await sessions.lock_session(tx, session_id)
        is_own = session is not None and session.user_id == who.user_id
        if session is None or not (is_own or who.has_role("Operator")):
            raise NotFound
        await revoking.end_session(tx, session, "signed_out" if is_own else "by_operator")
        return tx.answer(no_content())
