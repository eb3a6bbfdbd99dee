"""Sign-in with a provider: the good way, and everything that may come back instead."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from http.cookies import SimpleCookie
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import jwt
import pytest

from eb_kit.testing_db import ClonedDatabase

from .conftest import Answer, AuthService, Person, serving
from .oidc_provider import CLIENT, SECRET, Provider, a_provider, other_key


@dataclass
class Browser:
    """A browser with its one cookie."""

    auth: AuthService
    provider: Provider
    cookie: str = ""

    async def start(self, query: str = "") -> dict[str, str]:
        """Go to the provider; give the query it sends the browser back with."""
        async with self.auth.client.http.get(
            self.auth.client.url(f"/auth/oidc/acme/start{query}"), allow_redirects=False
        ) as answer:
            assert answer.status == 302, await answer.text()
            cookie = SimpleCookie(answer.headers["Set-Cookie"])["eb_oidc"]
            assert cookie["httponly"]
            assert cookie["samesite"] == "Lax"
            self.cookie = cookie.value
            return self.provider.authorize(answer.headers["Location"])

    async def come_back(self, query: dict[str, str], **headers: str) -> Answer:
        """Come back with what the provider said."""
        sent = {"Cookie": f"eb_oidc={self.cookie}", **headers}
        return await self.auth.call("GET", f"/auth/oidc/acme/callback?{urlencode(query)}", None, **sent)

    async def sign_in(self, query: str = "") -> Answer:
        """The whole way."""
        return await self.come_back(await self.start(query))


@pytest.fixture
async def browser(fresh_db: ClonedDatabase, tmp_path: Path) -> AsyncIterator[Browser]:
    async with a_provider() as provider:
        settings = {"issuer": provider.url, "client_id": CLIENT, "client_secret": SECRET}
        environ = {"EB_OIDC_PROVIDERS": json.dumps({"acme": settings})}
        async with serving(fresh_db, tmp_path, environ) as auth:
            yield Browser(auth, provider)


async def test_a_verified_address_becomes_a_user_and_signs_in(browser: Browser) -> None:
    first = await browser.sign_in()
    assert first.status == 200, first.body
    assert first.headers["Cache-Control"] == "no-store"
    me = await Person(browser.auth, "", first.body).call("GET", "/auth/me")
    assert me.body["email"] == "ada@example.org"

    again = await browser.sign_in()
    assert again.body["user_id"] == first.body["user_id"]
    assert again.body["session_id"] != first.body["session_id"]


async def test_it_is_the_same_user_as_by_code(browser: Browser) -> None:
    by_code = await browser.auth.sign_in("ada@example.org")
    assert (await browser.sign_in()).body["user_id"] == by_code.user_id


async def test_once_bound_only_the_subject_counts(browser: Browser) -> None:
    ada = (await browser.sign_in()).body["user_id"]
    browser.provider.claims = {"sub": "s-1", "email": "ada.new@example.org", "email_verified": True}
    assert (await browser.sign_in()).body["user_id"] == ada


async def test_a_recycled_address_opens_nobodys_account(browser: Browser) -> None:
    await browser.sign_in()
    browser.provider.claims = {"sub": "s-2", "email": "ada@example.org", "email_verified": True}
    other = await browser.sign_in()
    assert (other.status, other.body["code"]) == (409, "identity_conflict")


@pytest.mark.parametrize("verified", [False, None, "true", 1])
async def test_an_address_that_is_not_verified_is_refused(browser: Browser, verified: object) -> None:
    await browser.auth.sign_in("ada@example.org")
    browser.provider.claims = {"sub": "s-1", "email": "ada@example.org", "email_verified": verified}
    refused = await browser.sign_in()
    assert (refused.status, refused.body["code"]) == (403, "email_not_verified")


def changed(**members: object) -> Callable[[dict[str, Any]], None]:
    def change(claims: dict[str, Any]) -> None:
        claims.update(members)
        for name, value in members.items():
            if value is None:
                del claims[name]

    return change


@pytest.mark.parametrize(
    "change",
    [
        changed(nonce="another"), changed(nonce=None), changed(iss="https://evil.example"), changed(iss=None),
        changed(aud="somebody-else"), changed(aud=[CLIENT, "other"]), changed(azp="other"), changed(exp=1),
        changed(exp=None), changed(iat=None), changed(sub=None), changed(nbf=4_000_000_000), changed(iat=4_000_000_000),
    ],
    ids=range(13),
)  # fmt: skip
async def test_a_token_that_is_not_for_this_attempt_is_refused(
    browser: Browser, change: Callable[[dict[str, Any]], None]
) -> None:
    browser.provider.change = change
    refused = await browser.sign_in()
    assert (refused.status, refused.body["code"]) == (401, "oidc_refused")


async def test_tokens_signed_by_nobody_or_somebody_else_are_refused(browser: Browser) -> None:
    signers: list[Callable[[dict[str, Any]], str]] = [
        lambda claims: jwt.encode(claims, "", algorithm="none"),
        lambda claims: jwt.encode(claims, "x" * 40, algorithm="HS256", headers={"kid": browser.provider.kid}),
        lambda claims: jwt.encode(
            claims, other_key(), algorithm="EdDSA", headers={"kid": browser.provider.kid}
        ),
        lambda claims: jwt.encode(claims, other_key(), algorithm="EdDSA", headers={"kid": "unknown"}),
        lambda claims: "not.a.token",
    ]
    for sign in signers:
        browser.provider.sign = sign
        refused = await browser.sign_in()
        assert (refused.status, refused.body["code"]) == (401, "oidc_refused")


async def test_a_state_works_once_in_its_browser_and_for_ten_minutes(browser: Browser) -> None:
    query = await browser.start()
    cookie, browser.cookie = browser.cookie, "another-browser"
    assert (await browser.come_back(query)).status == 401
    browser.cookie = cookie
    assert (await browser.come_back(query)).status == 401, "a look with the wrong cookie used it up"

    query = await browser.start()
    answers = await asyncio.gather(*(browser.come_back(query) for _ in range(5)))
    assert sorted(answer.status for answer in answers) == [200, 401, 401, 401, 401]

    query = await browser.start()
    await browser.auth.advance(601)
    assert (await browser.come_back(query)).status == 401


async def test_forged_answers_are_refused(browser: Browser) -> None:
    query = await browser.start()
    assert (await browser.come_back({**query, "state": "made-up"})).status == 401
    assert (await browser.come_back({**query, "code": "made-up"})).status == 401
    query = await browser.start()
    assert (await browser.come_back({"error": "access_denied", "state": query["state"]})).status == 401
    query = await browser.start()
    assert (await browser.come_back({**query, "iss": "https://evil.example"})).status == 401


async def test_a_rotated_key_of_the_provider_is_found(browser: Browser) -> None:
    assert (await browser.sign_in()).status == 200
    browser.provider.rotate()
    provider = browser.auth.client.context.extras["oidc_providers"]["acme"]
    assert (await browser.sign_in()).status == 401, "keys are asked for twice a minute at most"
    provider._keys_at -= 31
    assert (await browser.sign_in()).status == 200


async def test_a_provider_that_is_away_is_said_to_be(browser: Browser) -> None:
    browser.provider.is_down = True
    answer = await browser.auth.call("GET", "/auth/oidc/acme/start")
    assert (answer.status, answer.body["code"]) == (503, "oidc_unavailable")
    assert (await browser.auth.call("GET", "/auth/oidc/nobody/start")).status == 404


async def test_a_provider_vouches_for_its_own_domains_only(fresh_db: ClonedDatabase, tmp_path: Path) -> None:
    async with a_provider() as provider:
        settings = {
            "issuer": provider.url,
            "client_id": CLIENT,
            "client_secret": SECRET,
            "trusted_domains": ["acme.example"],
        }
        async with serving(fresh_db, tmp_path, {"EB_OIDC_PROVIDERS": json.dumps({"acme": settings})}) as auth:
            browser = Browser(auth, provider)
            assert (await browser.sign_in()).status == 403
            provider.claims = {"sub": "s-2", "email": "ada@acme.example", "email_verified": True}
            assert (await browser.sign_in()).status == 200


async def test_by_https_the_cookie_is_bound_to_this_host_and_to_https(
    fresh_db: ClonedDatabase, tmp_path: Path
) -> None:
    async with a_provider() as provider:
        settings = {"issuer": provider.url, "client_id": CLIENT, "client_secret": SECRET}
        environ = {
            "EB_OIDC_PROVIDERS": json.dumps({"acme": settings}),
            "EB_PUBLIC_URL": "https://api.example.org",
        }
        async with serving(fresh_db, tmp_path, environ) as auth:
            start = auth.client.url("/auth/oidc/acme/start")
            async with auth.client.http.get(start, allow_redirects=False) as answer:
                cookie = SimpleCookie(answer.headers["Set-Cookie"])["__Host-eb_oidc"]
                query = provider.authorize(answer.headers["Location"])
            assert (cookie["path"], cookie["domain"]) == ("/", "")
            assert cookie["secure"]
            assert cookie["httponly"]

            path = f"/auth/oidc/acme/callback?{urlencode(query)}"
            sent = {"Cookie": f"__Host-eb_oidc={cookie.value}"}
            back = await auth.call("GET", path, None, **sent)
            assert back.status == 200, back.body
            gone = SimpleCookie(back.headers["Set-Cookie"])["__Host-eb_oidc"]
            assert (gone["max-age"], gone["path"]) == ("0", "/")
            assert gone["secure"], "a browser keeps a cookie of this name that a plain answer tries to end"
