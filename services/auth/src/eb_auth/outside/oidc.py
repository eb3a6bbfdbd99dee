"""Talks to OpenID Connect providers: discovery, keys, and the exchange of a code. Everything is bounded."""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any
from urllib.parse import quote, urlsplit

import aiohttp

from ..domain.errors import OidcRefused, OidcUnavailable
from ..domain.oidc import Attempt, Discovered, Wishes
from ..settings import OidcProvider

LOOPBACK = ("127.0.0.1", "::1", "localhost")
TIMEOUT_S = 5.0
MOST_BYTES = 256 * 1024
FRESH_S = 3_600.0
KEYS_AT_MOST_EVERY_S = 30.0


class Provider:
    """One provider, with what it said about itself and its keys, which are asked for again now and then."""

    def __init__(self, settings: OidcProvider, *, is_local: bool) -> None:
        self.settings = settings
        self._is_local = is_local
        self._at: Discovered | None = None
        self._keys: list[dict[str, Any]] = []
        self._asked_at = self._keys_at = float("-inf")
        self._lock = asyncio.Lock()

    @property
    def wishes(self) -> Wishes:
        """Give what the settings ask of each sign-in."""
        return Wishes(self.settings.client_id, self.settings.acr_values, self.settings.prompt)

    async def discovered(self) -> Discovered:
        """Give the provider's endpoints; raises OidcUnavailable."""
        async with self._lock:
            if self._at is None or time.monotonic() - self._asked_at > FRESH_S:
                issuer = self.settings.issuer.rstrip("/")
                told = await self._get(f"{issuer}/.well-known/openid-configuration")
                self._at, self._asked_at = self._read(told), time.monotonic()
            return self._at

    def _read(self, told: dict[str, Any]) -> Discovered:
        authorize, token, keys = (
            str(told.get(name, "")) for name in ("authorization_endpoint", "token_endpoint", "jwks_uri")
        )
        if told.get("issuer") != self.settings.issuer or not all(
            map(self._is_safe, (authorize, token, keys))
        ):
            raise OidcUnavailable
        methods = told.get("token_endpoint_auth_methods_supported") or ["client_secret_basic"]
        return Discovered(self.settings.issuer, authorize, token, keys, "client_secret_basic" in methods)

    def _is_safe(self, url: str) -> bool:
        parts = urlsplit(url)
        return parts.scheme == "https" or (self._is_local and parts.hostname in LOOPBACK)

    async def keys(self, *, is_missing: bool = False) -> list[dict[str, Any]]:
        """Give the provider's keys; asked for again where one is missing, twice a minute at most."""
        at = await self.discovered()
        async with self._lock:
            age_s = time.monotonic() - self._keys_at
            if age_s > FRESH_S or (is_missing and age_s > KEYS_AT_MOST_EVERY_S):
                found = (await self._get(at.jwks_uri)).get("keys")
                self._keys = [key for key in found or [] if isinstance(key, dict)]
                self._keys_at = time.monotonic()
            return self._keys

    async def exchange(self, code: str, attempt: Attempt, redirect_uri: str) -> str:
        """Give the ID token for a code; raises OidcRefused where the provider refuses, OidcUnavailable."""
        at = await self.discovered()
        form = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": redirect_uri,
            "code_verifier": attempt.verifier,
        }
        client, secret = self.settings.client_id, self.settings.client_secret
        headers = {}
        if secret and at.takes_basic:
            headers["Authorization"] = aiohttp.encode_basic_auth(
                quote(client, safe=""), quote(secret, safe="")
            )
        else:
            form |= {"client_id": client} | ({"client_secret": secret} if secret else {})
        told = await self._call("POST", at.token_endpoint, data=form, headers=headers)
        if not isinstance(told.get("id_token"), str):
            raise OidcRefused
        return str(told["id_token"])

    async def _get(self, url: str) -> dict[str, Any]:
        return await self._call("GET", url)

    async def _call(self, method: str, url: str, **what: Any) -> dict[str, Any]:
        timeout = aiohttp.ClientTimeout(total=TIMEOUT_S)
        try:
            async with (
                aiohttp.ClientSession(timeout=timeout) as http,
                http.request(method, url, allow_redirects=False, **what) as answer,
            ):
                body = await answer.content.read(MOST_BYTES)
        except (aiohttp.ClientError, TimeoutError, OSError):
            raise OidcUnavailable from None
        if answer.status >= 500:
            raise OidcUnavailable
        try:
            told = json.loads(body)
        except ValueError:
            raise OidcUnavailable from None
        if answer.status >= 400 or not isinstance(told, dict):
            raise OidcRefused
        return told
