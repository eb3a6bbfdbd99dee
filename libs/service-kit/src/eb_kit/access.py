"""Who is calling, and what they may reach: access tokens and API keys verified by each service itself.

Rule: docs/rules/identity.md, Sessions and tokens; docs/rules/http.md, Who may call.
"""

from __future__ import annotations

import base64
import hashlib
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn
from uuid import UUID

import jwt
from aiohttp import web
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from eb_contracts.errors import Kind, NotFound, Refusal

from .policy import ASSIST_ROLES, GROUP_ROLES, ORG_ROLES, PLATFORM_ROLES
from .routing import ROUTE

if TYPE_CHECKING:
    from .directory import ApiKey, Directory
    from .service import ServiceContext

AUDIENCE = "event-builder"
API_KEY = re.compile(r"^eb_([0-9a-f]{32})_[A-Za-z0-9_-]{43}$")
LONGEST_TOKEN = 4096
MOST_CACHED = 20_000
OPEN_ROWS = frozenset({"public", "provider"})


class TokenInvalid(Refusal):
    """No usable credential."""

    code = "token_invalid"
    kind = Kind.UNAUTHENTICATED
    title = "A valid access token or API key is needed."


class Forbidden(Refusal):
    """Visible, but not allowed."""

    code = "forbidden"
    kind = Kind.FORBIDDEN
    title = "This caller may not do this."


class StepUpRequired(Refusal):
    """The route needs a sign-in more recent than the session's (RFC 9470); `max_age_s` says how recent."""

    code = "step_up_required"
    kind = Kind.UNAUTHENTICATED
    title = "This needs a recent sign-in: sign in again."


class ContextMismatch(Refusal):
    """The request is about an organisation outside the token's context."""

    code = "context_mismatch"
    kind = Kind.FORBIDDEN
    title = "The request is about another organisation than the token's context."


class OutOfReach(NotFound):
    """The answer of what is missing, word for word; only the log tells that the caller has no right there."""


@dataclass(frozen=True, slots=True)
class Assist:
    """The assist session that a token was made for. It ends at `until` (Unix seconds of business time).

    `via_org_id` is where the helper holds a group role, None for the platform's own staff.
    """

    assist_session_id: UUID
    via_org_id: UUID | None
    until: float


@dataclass(frozen=True, slots=True)
class Caller:
    """An authenticated caller. `org_id` is the context of the token or key; `roles` hold in that context.

    `signed_in_at` is when a person proved who they are (Unix seconds, the machine's clock).
    Kinds: `user`, `key`, `service`, and `assist`: a person (`user_id`, `actor`) inside an organisation that isn't
    theirs.
    """

    kind: str
    actor: str
    org_id: UUID | None = None
    roles: frozenset[str] = frozenset()
    scopes: frozenset[str] = frozenset()
    user_id: UUID | None = None
    session_id: UUID | None = None
    key_id: UUID | None = None
    service_name: str = ""
    on_behalf_of: str = ""
    signed_in_at: float = 0.0
    assist: Assist | None = None

    def has_role(self, *roles: str) -> bool:
        """Tell whether the caller holds one of these roles."""
        return not self.roles.isdisjoint(roles)

    def names_in(self, org_id: UUID, directory: Directory) -> frozenset[str]:
        """Give the names of the policy table that the caller goes by towards an organisation.

        Empty: no right at all there, so the organisation is hidden.
        """
        if self.kind == "service":
            return frozenset({"service"})
        is_own = org_id == self.org_id
        if self.kind == "assist":
            return self.roles if is_own else frozenset()
        is_below = is_own or (self.org_id is not None and directory.is_ancestor_or_self(self.org_id, org_id))
        if self.kind == "key":
            return _key_names(self.scopes, is_own, is_below)
        return self.roles & (
            PLATFORM_ROLES
            | (ORG_ROLES if is_own else frozenset())
            | (GROUP_ROLES if is_below else frozenset())
        )

    def may_reach(self, org_id: UUID) -> bool:
        """Tell whether the caller could have a right there, if only the organisation were known here."""
        if self.kind == "key":
            return org_id == self.org_id or any(scope.endswith(":tree") for scope in self.scopes)
        is_bound = self.kind == "assist" or self.roles.isdisjoint(PLATFORM_ROLES | GROUP_ROLES)
        return org_id == self.org_id or self.kind == "service" or not is_bound

    def names_anywhere(self) -> frozenset[str]:
        """Give every name that the caller could go by towards some organisation."""
        if self.kind == "service":
            return frozenset({"service"})
        if self.kind == "key":
            return _key_names(self.scopes, True, True)
        return self.roles if self.kind == "assist" else self.roles | {"signed_in"}


CALLER: web.RequestKey[Caller] = web.RequestKey("eb_caller", Caller)
HAS_LOOKED: web.RequestKey[bool] = web.RequestKey("eb_has_looked", bool)
CONNECTION: web.RequestKey[Any] = web.RequestKey("eb_connection", object)
"""The connection of the request's open transaction: what is looked up meanwhile goes over it. Were it a second one, as
many requests as the pool has connections would wait for each other.
"""
NOBODYS = UUID(int=0)


def _key_names(scopes: frozenset[str], is_own: bool, is_below: bool) -> frozenset[str]:
    return frozenset(
        f"key:{scope.removesuffix(':tree')}"
        for scope in scopes
        if is_own or (is_below and scope.endswith(":tree"))
    )


class Authenticator:
    """Turns an Authorization header into a Caller, from memory. Verified tokens are kept until they expire."""

    def __init__(self, context: ServiceContext) -> None:
        self._context = context
        self._issuer = context.settings.token_issuer
        self._verified: dict[str, tuple[Caller, float, float, str]] = {}

    async def authenticate(self, authorization: str, waiter: str) -> Caller:
        """Give the caller; raises TokenInvalid."""
        scheme, _, credential = authorization.partition(" ")
        if scheme.lower() != "bearer" or not credential or len(credential) > LONGEST_TOKEN:
            raise TokenInvalid
        if found := API_KEY.match(credential):
            return await self._caller_of_key(credential, UUID(found[1]), waiter)
        return self._caller_of_token(credential)

    async def _caller_of_key(self, credential: str, key_id: UUID, waiter: str) -> Caller:
        digest = hashlib.sha256(credential.encode()).hexdigest()
        directory = self._context.directory
        key = directory.key_by_digest(digest) or await directory.find_key(digest, key_id, waiter)
        if key is None or (key.expires_at and key.expires_at <= self._context.clock.now()):
            raise TokenInvalid
        return _caller_of(key)

    def _caller_of_token(self, token: str) -> Caller:
        now = self._context.clock.machine_now().timestamp()
        caller, issued_at, expires_at, kid = self._verified.get(token) or self._verify(token)
        if expires_at <= now or self._context.directory.signing_key(kid) is None:
            self._verified.pop(token, None)
            raise TokenInvalid
        self._refuse_revoked(caller, issued_at)
        return caller

    def _verify(self, token: str) -> tuple[Caller, float, float, str]:
        try:
            kid = jwt.get_unverified_header(token).get("kid")
            public = self._context.directory.signing_key(kid) if isinstance(kid, str) else None
            if public is None:
                raise TokenInvalid
            claims = jwt.decode(
                token,
                _public_key(public),
                algorithms=["EdDSA"],
                audience=AUDIENCE,
                issuer=self._issuer,
                options={"require": ["exp", "iat", "nbf", "sub", "sid", "aud", "iss"]},
            )
            verified = (_caller_from(claims), float(claims["iat"]), float(claims["exp"]), str(kid))
        except (jwt.PyJWTError, ValueError, KeyError, TypeError, AttributeError):
            raise TokenInvalid from None
        if len(self._verified) >= MOST_CACHED:
            self._verified.clear()
        self._verified[token] = verified
        return verified

    def _refuse_revoked(self, caller: Caller, issued_at: float) -> None:
        directory, assist = self._context.directory, caller.assist
        if assist is not None and self._is_over(caller, assist):
            raise TokenInvalid
        for subject in _subjects(caller):
            if directory.is_revoked(subject, issued_at):
                raise TokenInvalid

    def _is_over(self, caller: Caller, assist: Assist) -> bool:
        """Tell whether an assist session's time is up, or its organisation left the helper's group."""
        assert caller.org_id is not None
        is_late = assist.until <= self._context.clock.now().timestamp()
        is_above = self._context.directory.is_ancestor_or_self
        return is_late or not (assist.via_org_id is None or is_above(assist.via_org_id, caller.org_id))


def _subjects(caller: Caller) -> tuple[str, ...]:
    """Name what a token hangs on: the session, and what its roles came from."""
    session, platform = f"session:{caller.session_id}", f"platform:{caller.user_id}"
    if (assist := caller.assist) is None:
        return session, f"member:{caller.org_id}:{caller.user_id}", platform
    via = f"member:{assist.via_org_id}:{caller.user_id}" if assist.via_org_id else platform
    return session, f"assist:{assist.assist_session_id}", via


def _caller_of(key: ApiKey) -> Caller:
    if key.kind == "service":
        return Caller(kind="service", actor=f"service:{key.name}", key_id=key.key_id, service_name=key.name)
    return Caller(
        kind="key", actor=f"key:{key.key_id}", org_id=key.org_id, key_id=key.key_id, scopes=key.scopes
    )


def _caller_from(claims: dict[str, Any]) -> Caller:
    if "act" in claims:
        return _helper_from(claims)
    user_id = UUID(claims["sub"])
    org = claims.get("org")
    return Caller(
        kind="user",
        actor=f"user:{user_id}",
        user_id=user_id,
        session_id=UUID(claims["sid"]),
        org_id=UUID(org) if org else None,
        roles=frozenset(claims.get("roles") or ()) - ASSIST_ROLES,
        signed_in_at=float(claims.get("auth_time", 0)),
    )


def _helper_from(claims: dict[str, Any]) -> Caller:
    """Give who acts in an assist session (RFC 8693): `sub` is the session, `act` the real person."""
    user_id, assist_session_id, org_id = (
        UUID(claims["act"]["sub"]),
        UUID(claims["sub"]),
        UUID(claims["org"]),
    )
    via = claims["assist"]["via"]
    return Caller(
        kind="assist",
        actor=f"user:{user_id}",
        user_id=user_id,
        session_id=UUID(claims["sid"]),
        org_id=org_id,
        roles=frozenset(claims["roles"]) & ASSIST_ROLES,
        on_behalf_of=f"org:{org_id}/assist:{assist_session_id}",
        assist=Assist(assist_session_id, UUID(via) if via else None, float(claims["assist"]["until"])),
    )


def _public_key(x: str) -> Ed25519PublicKey:
    return Ed25519PublicKey.from_public_bytes(base64.urlsafe_b64decode(x + "=" * (-len(x) % 4)))


def waiter_of(request: web.Request) -> str:
    """Name who would wait for a young id: the hash of the credential, or the address."""
    credential = request.headers.get("Authorization", "")
    return hashlib.sha256(credential.encode()).hexdigest()[:16] if credential else str(request.remote)


async def authenticate(request: web.Request, authenticator: Authenticator, names: frozenset[str]) -> None:
    """Set the caller of the request by its route's policy row `names`; raises TokenInvalid or Forbidden.

    On open routes a bad credential is ignored. A caller that no organisation could help is refused here.
    """
    if names & OPEN_ROWS:
        return
    caller = await authenticator.authenticate(request.headers.get("Authorization", ""), waiter_of(request))
    request[CALLER] = caller
    if caller.assist is not None:
        from .assist import record

        await record(request, caller)
    if names.isdisjoint(caller.names_anywhere()) and not _is_about_an_org(names, caller):
        raise Forbidden


def require_recent_sign_in(request: web.Request) -> None:
    """Refuse people whose sign-in is older than the setting `step_up_s`; raises StepUpRequired.

    Keys and trusted systems have no sign-in: the policy's row says whether they may at all.
    """
    from .service import CONTEXT

    who, context = caller(request), request.app[CONTEXT]
    max_age_s = context.settings.step_up_s
    if who.kind == "user" and context.clock.machine_now().timestamp() - who.signed_in_at > max_age_s:
        raise StepUpRequired(max_age_s=max_age_s)


def _is_about_an_org(names: frozenset[str], caller: Caller) -> bool:
    """Tell whether the answer may have to be 404: a user might name an organisation they can't see."""
    return caller.kind != "service" and not names.isdisjoint(ORG_ROLES | GROUP_ROLES)


def caller_or_none(request: web.Request) -> Caller | None:
    """Give the caller, None on open routes."""
    return request.get(CALLER)


def caller(request: web.Request) -> Caller:
    """Give the authenticated caller of a route that needs one."""
    found: Caller | None = request.get(CALLER)
    if found is None:
        raise TokenInvalid
    return found


async def reach(request: web.Request, org_id: UUID, *, roles: frozenset[str] | None = None) -> None:
    """Refuse unless the caller may call this route about this organisation.

    NotFound where the caller has no right at all there or the organisation is unknown (after waiting up
    to 2 s for a young id), ContextMismatch where only a token of another context would have one; Forbidden
    where it is visible. `roles` narrows the policy's row further.
    """
    from .service import CONTEXT

    directory = request.app[CONTEXT].directory
    who = caller(request)
    request[HAS_LOOKED] = True

    def look() -> frozenset[str]:
        return who.names_in(org_id, directory) if directory.org(org_id) is not None else frozenset()

    names = await directory.find_right(look, org_id, waiter_of(request)) if who.may_reach(org_id) else look()
    if not names:
        await _refuse_outside(request, org_id)
    allowed = request[ROUTE].names if roles is None else request[ROUTE].names & roles
    if names.isdisjoint(allowed):
        raise Forbidden


async def _refuse_outside(request: web.Request, org_id: UUID) -> NoReturn:
    """Refuse what lies outside of the token's context."""
    if await _roles_elsewhere(request, org_id):
        raise ContextMismatch
    raise OutOfReach


async def _roles_elsewhere(request: web.Request, org_id: UUID) -> frozenset[str]:
    """Look up what a person is towards an organisation in any context; unknown ones just the same."""
    from .service import CONTEXT

    who = caller(request)
    if who.kind != "user" or who.user_id is None:
        return frozenset()
    directory = request.app[CONTEXT].directory
    return await directory.roles_of(who.user_id, org_id, request.get(CONNECTION))


async def take_as_long(request: web.Request) -> None:
    """Do for a thing that doesn't exist what is done for somebody else's, so that time doesn't tell them apart."""
    if CALLER in request and HAS_LOOKED not in request:
        await _roles_elsewhere(request, NOBODYS)


async def names_anywhere_in(request: web.Request, org_id: UUID, connection: Any = None) -> frozenset[str]:
    """Give what the caller goes by towards an organisation in the token's context or, people, in any other.

    For the few routes that are about several organisations at once. Empty: hidden from them.
    """
    from .service import CONTEXT

    directory = request.app[CONTEXT].directory
    who = caller(request)
    names = who.names_in(org_id, directory)
    if who.kind == "user" and who.user_id is not None and names.isdisjoint(PLATFORM_ROLES):
        names |= await directory.roles_of(who.user_id, org_id, connection or request.get(CONNECTION))
    return names
