"""Forged, stale and misshapen tokens, at every service's own door: the gateway is never the authority."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
from collections.abc import Callable
from typing import Any
from uuid import uuid4

import aiohttp
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from eb_auth.flows import SIGNING_PURPOSE, unseal
from eb_auth.store.credentials import get_signing_key
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
Json = dict[str, Any]


class Forge:
    """The platform's own signing key, and ways to misuse it."""

    def __init__(self, kid: str, private: bytes, good: Json) -> None:
        self.kid, self.good = kid, good
        self.private = Ed25519PrivateKey.from_private_bytes(private)
        self.public = self.private.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)

    def signed(self, key: Any = None, algorithm: str = "EdDSA", kid: object = None, **changes: object) -> str:
        """Sign the good claims with changes; None takes a claim away."""
        claims = {name: value for name, value in {**self.good, **changes}.items() if value is not None}
        headers = {"kid": kid or self.kid}
        return jwt.encode(claims, key or self.private, algorithm=algorithm, headers=headers)  # type: ignore[arg-type]

    def raw(self, header: Json, payload: str, signature: bytes | None = None) -> str:
        """Put a token together by hand, signed with the right key unless a signature is given."""
        told = f"{_b64(json.dumps(header).encode())}.{_b64(payload.encode())}"
        return f"{told}.{_b64(self.private.sign(told.encode()) if signature is None else signature)}"


def _b64(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def _hs256(forge: Forge) -> str:
    told = f"{_b64(json.dumps({'alg': 'HS256', 'kid': forge.kid}).encode())}.{_b64(json.dumps(forge.good).encode())}"
    return f"{told}.{_b64(hmac.digest(forge.public, told.encode(), hashlib.sha256))}"


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
        {"alg": "EdDSA", "kid": "mine", "jwk": {"kty": "OKP", "crv": "Ed25519", "x": _b64(f.public)}},
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
    layout = Layout(stack.run_dir)
    secret = read_json(layout.secrets)["auth_seal"]
    env = {"EB_ENV": "local", "EB_AUTH_SECRET": secret}
    async with owner_context(stack.facts["owner_dsn"], env) as context, context.begin(ACTOR) as tx:
        key = await get_signing_key(tx, context.clock.machine_now())
        private = unseal(tx, SIGNING_PURPOSE, key.sealed_private)
    good = jwt.decode(stack.staff.operator_token, options={"verify_signature": False})
    now = time.time()
    return Forge(key.kid, private, {**good, "iat": now - 1, "nbf": now - 1, "exp": now + 300})


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
    stale = forge.signed(Ed25519PrivateKey.generate(), kid="k-0000000000000000")
    async with aiohttp.ClientSession() as http:
        for service, path in DOORS.items():
            url = f"http://127.0.0.1:{stack.facts['ports'][service]}{path}"
            method = "POST" if service == "estimator" else "GET"
            async with http.request(method, url, headers={"Authorization": f"Bearer {stale}"}) as answer:
                assert answer.status == 401, service
