"""Who is calling, and what they may reach: access tokens and API keys verified by each service itself.

Rule: docs/rules/identity.md, Sessions and tokens; docs/rules/http.md, Who may call.
"""

from __future__ import annotations

import base64
import hashlib
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from uuid import UUID

import jwt
from aiohttp import web
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from eb_contracts.errors import Kind, NotFound, Refusal

from .policy import GROUP_ROLES, ORG_ROLES, PLATFORM_ROLES
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


class ContextMismatch(Refusal):
    """The request is about an organisation outside the token's context."""

    code = "context_mismatch"
    kind = Kind.FORBIDDEN
    title = "The request is about another organisation than the token's context."


@dataclass(frozen=True, slots=True)
class Caller:
    """An authenticated caller. `org_id` is the context of the token or key; `roles` hold in that context."""

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
        is_below = is_own or (self.org_id is not None and directory.is_ancestor_or_self(self.org_id, org_id))
        if self.kind == "key":
            return _key_names(self.scopes, is_own, is_below)
        return self.roles & (
            PLATFORM_ROLES
            | (ORG_ROLES if is_own else frozenset())
            | (GROUP_ROLES if is_below else frozenset())
        )

    def names_anywhere(self) -> frozenset[str]:
        """Give every name that the caller could go by towards some organisation."""
        if self.kind == "service":
            return frozenset({"service"})
        if self.kind == "key":
            return _key_names(self.scopes, True, True)
        return self.roles | {"signed_in"}


CALLER: web.RequestKey[Caller] = web.RequestKey("eb_caller", Caller)


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
        is_revoked = self._context.directory.is_revoked
        subjects = (
            f"session:{caller.session_id}",
            f"member:{caller.org_id}:{caller.user_id}",
            f"platform:{caller.user_id}",
        )
        if any(is_revoked(subject, issued_at) for subject in subjects):
            raise TokenInvalid


def _caller_of(key: ApiKey) -> Caller:
    if key.kind == "service":
        return Caller(kind="service", actor=f"service:{key.name}", key_id=key.key_id, service_name=key.name)
    return Caller(
        kind="key", actor=f"key:{key.key_id}", org_id=key.org_id, key_id=key.key_id, scopes=key.scopes
    )


def _caller_from(claims: dict[str, Any]) -> Caller:
    user_id = UUID(claims["sub"])
    org = claims.get("org")
    return Caller(
        kind="user",
        actor=f"user:{user_id}",
        user_id=user_id,
        session_id=UUID(claims["sid"]),
        org_id=UUID(org) if org else None,
        roles=frozenset(claims.get("roles") or ()),
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
    if names.isdisjoint(caller.names_anywhere()) and not _is_about_an_org(names, caller):
        raise Forbidden


def _is_about_an_org(names: frozenset[str], caller: Caller) -> bool:
    """Tell whether the answer may have to be 404: a user might name an organisation they can't see."""
    return caller.kind != "service" and not names <= PLATFORM_ROLES | {"service", "signed_in"}


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
    to 2 s for a young id); Forbidden where it is visible. `roles` narrows the policy's row further.
    """
    from .service import CONTEXT

    directory = request.app[CONTEXT].directory
    who = caller(request)
    if await directory.find_org(org_id, waiter_of(request)) is None:
        raise NotFound
    names = who.names_in(org_id, directory)
    if not names:
        raise NotFound
    allowed = request[ROUTE].names if roles is None else request[ROUTE].names & roles
    if names.isdisjoint(allowed):
        raise Forbidden
