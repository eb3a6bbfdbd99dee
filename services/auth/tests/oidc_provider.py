"""A small OpenID Connect provider: discovery, keys, authorization code with PKCE, sessions of its own, and ways to
misbehave.

It has one user, who signed in there at `signed_in_at` and does so again when `max_age` or `prompt` ask for it.
"""

from __future__ import annotations

import base64
import hashlib
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import jwt
from aiohttp import BasicAuth, web
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

ADA = {"sub": "s-1", "email": "ada@example.org", "email_verified": True}
CLIENT, SECRET = "event-builder", "a secret: of the client"


@dataclass
class Provider:
    """Who signs in next, how, and what to do wrong. Without `has_auth_time` it knows nothing of such things."""

    url: str = ""
    claims: dict[str, Any] = field(
        default_factory=lambda: {"sub": "s-1", "email": "ada@example.org", "email_verified": True}
    )
    change: Callable[[dict[str, Any]], None] = lambda claims: None
    sign: Callable[[dict[str, Any]], str] | None = None
    kid: str = "ec-1"
    is_down: bool = False
    signed_in_at: float = field(default_factory=time.time)
    has_auth_time: bool = True
    keeps_max_age: bool = True
    acr: object = None
    amr: object = None
    asked: dict[str, str] = field(default_factory=dict)
    codes: dict[str, dict[str, str]] = field(default_factory=dict)
    key: Any = field(default_factory=lambda: generate_private_key(SECP256R1()))

    def rotate(self) -> None:
        """Sign with a new key from now on."""
        self.kid, self.key = f"ec-{time.monotonic_ns()}", generate_private_key(SECP256R1())

    def authorize(self, location: str) -> dict[str, str]:
        """Be the browser at the authorization endpoint: give the query it is sent back with."""
        asked = {name: values[0] for name, values in parse_qs(urlsplit(location).query).items()}
        assert asked["response_type"] == "code"
        assert asked["code_challenge_method"] == "S256"
        age = time.time() - self.signed_in_at
        is_too_old = self.keeps_max_age and "max_age" in asked and age > int(asked["max_age"])
        if is_too_old or "login" in asked.get("prompt", "").split():
            self.signed_in_at = time.time()
        code = hashlib.sha256(asked["state"].encode()).hexdigest()
        self.codes[code] = self.asked = asked
        return {"code": code, "state": asked["state"]}

    def _about_the_sign_in(self, asked: dict[str, str]) -> dict[str, Any]:
        """Say when and how; when is a must only where `max_age` was asked (OpenID Connect Core 1.0, 2)."""
        told = {"acr": self.acr, "amr": self.amr}
        if self.has_auth_time and "max_age" in asked:
            told["auth_time"] = int(self.signed_in_at)
        return {name: value for name, value in told.items() if value is not None}

    async def discovery(self, _: web.Request) -> web.Response:
        """Say where everything is."""
        if self.is_down:
            raise web.HTTPServiceUnavailable
        return web.json_response(
            {
                "issuer": self.url,
                "authorization_endpoint": f"{self.url}/authorize",
                "token_endpoint": f"{self.url}/token",
                "jwks_uri": f"{self.url}/keys",
                "token_endpoint_auth_methods_supported": ["client_secret_basic"],
            }
        )

    async def keys(self, _: web.Request) -> web.Response:
        """Show the public key."""
        public = jwt.algorithms.ECAlgorithm.to_jwk(self.key.public_key(), as_dict=True)
        return web.json_response({"keys": [{**public, "kid": self.kid, "use": "sig", "alg": "ES256"}]})

    async def token(self, request: web.Request) -> web.Response:
        """Exchange a code, once, for who proves to be the client and to hold the verifier."""
        form = await request.post()
        asked = self.codes.pop(str(form.get("code")), None)
        basic = BasicAuth.decode(request.headers.get("Authorization", "Basic Og=="))
        digest = hashlib.sha256(str(form.get("code_verifier")).encode()).digest()
        proof = base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
        is_right = (
            asked is not None
            and basic.login == CLIENT
            and basic.password == urlencode({"": SECRET}).removeprefix("=").replace("+", "%20")
            and proof == asked["code_challenge"]
            and form.get("redirect_uri") == asked["redirect_uri"]
        )
        if not is_right:
            return web.json_response({"error": "invalid_grant"}, status=400)
        assert asked is not None
        now = int(time.time())
        claims = {
            "iss": self.url,
            "aud": CLIENT,
            "iat": now,
            "exp": now + 300,
            "nonce": asked["nonce"],
            **self._about_the_sign_in(asked),
            **self.claims,
        }
        self.change(claims)
        sign = self.sign or (
            lambda told: jwt.encode(told, self.key, algorithm="ES256", headers={"kid": self.kid})
        )
        return web.json_response({"id_token": sign(claims), "access_token": "x", "token_type": "Bearer"})


@asynccontextmanager
async def a_provider() -> AsyncIterator[Provider]:
    """Run a provider on a free port of 127.0.0.1."""
    provider = Provider()
    app = web.Application()
    app.router.add_get("/.well-known/openid-configuration", provider.discovery)
    app.router.add_get("/keys", provider.keys)
    app.router.add_post("/token", provider.token)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    provider.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    yield provider
    await runner.cleanup()


def other_key() -> Any:
    """Give a key that no provider published."""
    return Ed25519PrivateKey.generate()
