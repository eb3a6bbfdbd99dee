"""Forged, stale and misshapen tokens, at every service's own door: the gateway is never the authority."""

from __future__ import annotations

import hashlib
import hmac
import json
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any
from uuid import uuid4

import aiohttp
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key
from forging import Forge, a_forge, b64

from eb_auth.flows import signing
from eb_auth.flows.sealing import unseal
from eb_auth.store import credentials
from eb_tools.client import wait_for
from eb_tools.files import read_json
from eb_tools.identity import ACTOR, owner_context
from eb_tools.layout import Layout

DOORS = {
    "auth": "/auth/me",
    "domain-verify": f"/verify/claims/{uuid4()}",
    "catalog": "/catalog/skus",
    "metering-ingest": f"/metering/events/x?org_id={uuid4()}",
    "pricing": f"/pricing/charges/x/explain?org_id={uuid4()}",
    "ledger": "/partners",
    "estimator": "/pricing/estimate",
}


def _hs256(forge: Forge) -> str:
    told = f"{b64(json.dumps({'alg': 'HS256', 'kid': forge.kid}).encode())}.{b64(json.dumps(forge.good).encode())}"
    return f"{told}.{b64(hmac.digest(forge.public, told.encode(), hashlib.sha256))}"


def _flipped(forge: Forge) -> str:
    head, payload, signature = forge.signed().split(".")
    return f"{head}.{payload}.{'A' if signature[0] != 'A' else 'B'}{signature[1:]}"


def _duplicate_roles(forge: Forge) -> str:
    claims = json.dumps({**forge.good, "roles": []})
    return forge.raw({"alg": "EdDSA", "kid": forge.kid}, claims[:-1] + ', "sub": "x", "sub": "y"}')


ATTACKS: dict[str, Callable[[Forge], str]] = {
    "no token": lambda f: "",
    "not a token": lambda f: "abc",
    "two parts": lambda f: ".".join(f.signed().split(".")[:2]),
    "alg none": lambda f: f.raw({"alg": "none", "kid": f.kid}, json.dumps(f.good), b""),
    "alg None with a signature": lambda f: f.raw({"alg": "None", "kid": f.kid}, json.dumps(f.good)),
    "HS256 with the public key": _hs256,
    "RS256 of another key": lambda f: f.signed(generate_private_key(65537, 2048), "RS256"),
    "another Ed25519 key": lambda f: f.signed(Ed25519PrivateKey.generate()),
    "unknown kid": lambda f: f.signed(kid="k-unknown"),
    "kid that is a path": lambda f: f.signed(kid="../../etc/passwd"),
    "kid that is SQL": lambda f: f.signed(kid="x' OR '1'='1"),
    "kid that is an object": lambda f: f.raw({"alg": "EdDSA", "kid": {"a": 1}}, json.dumps(f.good)),
    "no kid": lambda f: f.raw({"alg": "EdDSA"}, json.dumps(f.good)),
    "a key of its own in the header": lambda f: f.raw(
        {"alg": "EdDSA", "kid": "mine", "jwk": {"kty": "OKP", "crv": "Ed25519", "x": b64(f.public)}},
        json.dumps(f.good),
    ),
    "critical header nobody knows": lambda f: f.raw(
        {"alg": "EdDSA", "kid": f.kid, "crit": ["x"], "x": 1}, json.dumps(f.good)
    ),
    "flipped signature": _flipped,
    "expired": lambda f: f.signed(exp=time.time() - 1),
    "expires never": lambda f: f.signed(exp=None),
    "exp that is text": lambda f: f.signed(exp="tomorrow"),
    "not yet": lambda f: f.signed(nbf=time.time() + 60, iat=time.time() + 60),
    "nbf missing": lambda f: f.signed(nbf=None),
    "wrong audience": lambda f: f.signed(aud="somebody-else"),
    "no audience": lambda f: f.signed(aud=None),
    "wrong issuer": lambda f: f.signed(iss="https://evil.example"),
    "no subject": lambda f: f.signed(sub=None),
    "subject that is no id": lambda f: f.signed(sub="root"),
    "no session": lambda f: f.signed(sid=None),
    "roles that are a number": lambda f: f.signed(roles=7),
    "duplicate claims": _duplicate_roles,
    "claims that are a list": lambda f: f.raw({"alg": "EdDSA", "kid": f.kid}, "[]"),
    "huge": lambda f: f.signed(note="x" * 20_000),
    "an API key of nobody": lambda f: f"eb_{uuid4().hex}_{'a' * 43}",
}


@pytest.fixture
async def forge(stack: Any) -> Forge:
    return await a_forge(stack)


@pytest.mark.parametrize("service", DOORS)
async def test_no_forged_token_opens_a_services_own_door(stack: Any, forge: Forge, service: str) -> None:
    url = f"http://127.0.0.1:{stack.facts['ports'][service]}{DOORS[service]}"
    method = "POST" if service == "estimator" else "GET"
    async with aiohttp.ClientSession() as http:

        async def ask(token: str) -> tuple[int, Any]:
            headers = {"Authorization": f"Bearer {token}"} if token else {}
            async with http.request(method, url, headers=headers) as answer:
                return answer.status, await answer.json(content_type=None)

        status, _ = await ask(forge.signed())
        assert status != 401, "the forge itself works: what follows is refused for its fault"
        taken = []
        for name, attack in ATTACKS.items():
            token = attack(forge)
            if len(token) > 8_000:
                token = token[:8_000]
            status, body = await ask(token)
            if status != 401 or body["code"] != "token_invalid":
                taken.append((name, status))
        assert taken == []


async def test_a_token_of_a_retired_key_is_refused_everywhere(stack: Any, forge: Forge) -> None:
    """Good until its key is retired, and everywhere stale soon after, though it hasn't expired."""
    layout = Layout(stack.run_dir)
    env = {"EB_ENV": "local", "EB_AUTH_SECRET": read_json(layout.secrets)["auth_seal"]}
    async with owner_context(stack.facts["owner_dsn"], env) as context, aiohttp.ClientSession() as http:
        async with context.begin(ACTOR) as tx:
            await credentials.lock_signing_keys(tx)
            await signing.add_signing_key(tx, context.clock.machine_now() + timedelta(days=1))
            key = (await credentials.list_live_signing_keys(tx))[0]
            private = unseal(tx, signing.SIGNING_PURPOSE, key.sealed_private)
        token = Forge(key.kid, private, forge.good).signed()

        async def answer_is(service: str, expected: bool) -> bool:
            url = f"http://127.0.0.1:{stack.facts['ports'][service]}{DOORS[service]}"
            method = "POST" if service == "estimator" else "GET"
            async with http.request(method, url, headers={"Authorization": f"Bearer {token}"}) as answer:
                return (answer.status == 401) is expected

        for service in DOORS:
            await wait_for(lambda s=service: answer_is(s, False), f"{service} to know the key")
        async with context.begin(ACTOR) as tx:
            await credentials.lock_signing_keys(tx)
            now = context.clock.machine_now()
            await tx.announce((await credentials.update_signing_key_retired(tx, key.kid, now)).fact())
        for service in DOORS:
            await wait_for(lambda s=service: answer_is(s, True), f"{service} to refuse it", timeout_s=5)
