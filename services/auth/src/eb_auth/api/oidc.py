"""Doors of the sign-in with an OpenID Connect provider."""

from __future__ import annotations

import json
import secrets
from typing import Annotated

from aiohttp import web
from pydantic import Field

from eb_contracts.errors import NotFound
from eb_kit.inputs import READ_WHOLE, Input, Text
from eb_kit.problems import SAFE_HEADERS
from eb_kit.service import CONTEXT
from eb_kit.tx import Tx
from eb_kit.web import ok, path_text, read_query

from ..domain import oidc
from ..domain.errors import EmailNotVerified, IdentityConflict, OidcRefused, OidcUnavailable, TooManyAttempts
from ..flows import limits, sealing, signing_in
from ..outside.oidc import Provider
from ..settings import settings_of
from ..store import oidc as store
from .routes import routes
from .shapes import SessionTokens
from .sign_in import address_of, device_of, note_sign_in

COOKIE_PATH = "/auth/oidc"
MINUTES_10 = 600
LONGEST_AGE_S = 90 * 86_400
PURPOSE = "oidc attempt"


class Start(Input):
    """How recent the sign-in at the provider has to be, in seconds; 0: it is to ask again. Left out: as a session."""

    max_age: Annotated[int, Field(strict=True, ge=0, le=LONGEST_AGE_S), READ_WHOLE] | None = None


class Callback(Input):
    """What the provider sends the browser back with."""

    state: Annotated[str, Text(1, 200)]
    code: Annotated[str, Text(1, 4096)] | None = None
    error: Annotated[str, Text(1, 200)] | None = None
    error_description: Annotated[str, Text(0, 1000)] | None = None
    error_uri: Annotated[str, Text(0, 1000)] | None = None
    iss: Annotated[str, Text(1, 500)] | None = None
    session_state: Annotated[str, Text(0, 1000)] | None = None
    scope: Annotated[str, Text(0, 1000)] | None = None
    authuser: Annotated[str, Text(0, 100)] | None = None
    prompt: Annotated[str, Text(0, 100)] | None = None
    hd: Annotated[str, Text(0, 300)] | None = None


def _provider(request: web.Request) -> Provider:
    """Give the provider that the path names; raises NotFound."""
    context, name = request.app[CONTEXT], path_text(request, "provider")
    known: dict[str, Provider] = context.extras.setdefault("oidc_providers", {})
    if name not in known:
        if (found := context.settings.oidc_providers.get(name)) is None:
            raise NotFound
        known[name] = Provider(found, is_local=context.settings.eb_env == "local")
    return known[name]


def _redirect_uri(request: web.Request) -> str:
    base = request.app[CONTEXT].settings.public_url.rstrip("/")
    return f"{base}/auth/oidc/{path_text(request, 'provider')}/callback"


def _cookie(request: web.Request) -> tuple[str, str]:
    """Give the cookie's name and path: by https one that no other host and no plain answer can set (`__Host-`)."""
    is_https = request.app[CONTEXT].settings.public_url.startswith("https:")
    return ("__Host-eb_oidc", "/") if is_https else ("eb_oidc", COOKIE_PATH)


@routes.get(
    "/auth/oidc/{provider}/start",
    query=Start,
    status=302,
    errors=(NotFound, OidcUnavailable, OidcRefused, TooManyAttempts),
)
async def start(request: web.Request) -> web.Response:
    """Send the browser to the provider to sign in; 302. A cookie binds what comes back to this browser.

    `max_age` (seconds) makes it a sign-in that is recent enough for a step-up, or none.
    """
    provider, query = _provider(request), read_query(request, Start)
    at = await provider.discovered()
    state, browser = secrets.token_urlsafe(32), secrets.token_urlsafe(32)
    async with request.app[CONTEXT].begin("system:auth") as tx:
        await limits.count(tx, "oidc", f"net {address_of(request)}", limits.PER_NETWORK_ADDRESS)
        attempt = _new_attempt(tx, path_text(request, "provider"), browser, query.max_age)
        await store.insert_attempt(tx, oidc.sha256(state), attempt, _sealed(tx, attempt))
    url = oidc.authorization_url(at, provider.wishes, _redirect_uri(request), state, attempt)
    response = web.Response(
        status=302, headers={**SAFE_HEADERS, "Location": url, "Cache-Control": "no-store"}
    )
    name, path = _cookie(request)
    is_https = name.startswith("__Host-")
    response.set_cookie(
        name, browser, max_age=MINUTES_10, httponly=True, secure=is_https, samesite="Lax", path=path
    )
    return response


def _new_attempt(tx: Tx, provider: str, browser: str, max_age_s: int | None) -> oidc.Attempt:
    return oidc.Attempt(
        provider=provider,
        nonce=secrets.token_urlsafe(32),
        verifier=secrets.token_urlsafe(32),
        browser_sha256=oidc.sha256(browser),
        expires_at=tx.now + oidc.ATTEMPT_LIFETIME,
        started_at=tx.context.clock.machine_now().timestamp(),
        max_age_s=settings_of(tx).session_lifetime_s if max_age_s is None else max_age_s,
        is_strict=max_age_s is not None,
    )


def _sealed(tx: Tx, attempt: oidc.Attempt) -> bytes:
    told = [attempt.nonce, attempt.verifier, attempt.started_at, attempt.max_age_s, attempt.is_strict]
    return sealing.seal(tx, PURPOSE, json.dumps(told).encode())


@routes.get(
    "/auth/oidc/{provider}/callback",
    query=Callback,
    answer=SessionTokens,
    errors=(NotFound, OidcRefused, OidcUnavailable, EmailNotVerified, IdentityConflict),
)
async def come_back(request: web.Request) -> web.Response:
    """Take the provider's answer; 200 with the session's credentials. A verified address unknown so far becomes a user.

    The state works once, within ten minutes and in the browser that started.
    """
    provider, query = _provider(request), read_query(request, Callback)
    attempt = await _take(request, query.state)
    if query.code is None or (query.iss is not None and query.iss != provider.settings.issuer):
        raise OidcRefused
    token = await provider.exchange(query.code, attempt, _redirect_uri(request))
    claims = await _claims(provider, token, attempt.nonce)
    identity = oidc.identity_of(claims, provider.settings.trusted_domains)
    proof = oidc.proof_of(claims, attempt, request.app[CONTEXT].clock.machine_now().timestamp())
    async with request.app[CONTEXT].begin("system:auth") as tx:
        issued = await signing_in.open_session_of(tx, identity, proof, device_of(request))
    note_sign_in(issued, f"oidc:{path_text(request, 'provider')}")
    response = ok(SessionTokens.of(issued))
    response.headers["Cache-Control"] = "no-store"
    name, path = _cookie(request)
    response.del_cookie(name, path=path, secure=path == "/", httponly=True, samesite="Lax")
    return response


async def _take(request: web.Request, state: str) -> oidc.Attempt:
    async with request.app[CONTEXT].begin("system:auth") as tx:
        found = await store.take_attempt(tx, oidc.sha256(state))
        if found is None:
            raise OidcRefused
        name, sealed, browser, expires_at = found
        nonce, verifier, *asked = json.loads(sealing.unseal(tx, PURPOSE, sealed))
        attempt = oidc.Attempt(name, nonce, verifier, browser, expires_at, *asked)
        is_ours = name == path_text(request, "provider") and expires_at > tx.now
    if not is_ours or not oidc.is_same_browser(attempt, request.cookies.get(_cookie(request)[0], "")):
        raise OidcRefused
    return attempt


async def _claims(provider: Provider, token: str, nonce: str) -> dict[str, object]:
    key = oidc.key_for(token, await provider.keys())
    key = key or oidc.key_for(token, await provider.keys(is_missing=True))
    if key is None:
        raise OidcRefused
    return oidc.read_id_token(token, key, await provider.discovered(), provider.settings.client_id, nonce)
