"""Tokens signed with the platform's own key that say what the platform never would."""

from __future__ import annotations

import base64
import json
import time
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from eb_auth.flows.sealing import unseal
from eb_auth.flows.signing import SIGNING_PURPOSE
from eb_auth.store.credentials import get_signing_key
from eb_tools.files import read_json
from eb_tools.identity import ACTOR, owner_context
from eb_tools.layout import Layout

Json = dict[str, Any]


def b64(raw: bytes) -> str:
    """Write base64url without padding."""
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


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
        told = f"{b64(json.dumps(header).encode())}.{b64(payload.encode())}"
        return f"{told}.{b64(self.private.sign(told.encode()) if signature is None else signature)}"


async def a_forge(stack: Any) -> Forge:
    """Open the signing key in use, as whoever owns database and secret could."""
    layout = Layout(stack.run_dir)
    env = {"EB_ENV": "local", "EB_AUTH_SECRET": read_json(layout.secrets)["auth_seal"]}
    async with owner_context(stack.facts["owner_dsn"], env) as context, context.begin(ACTOR) as tx:
        key = await get_signing_key(tx, context.clock.machine_now())
        private = unseal(tx, SIGNING_PURPOSE, key.sealed_private)
    good = jwt.decode(stack.staff.operator_token, options={"verify_signature": False})
    now = time.time()
    return Forge(key.kid, private, {**good, "iat": now - 1, "nbf": now - 1, "exp": now + 300})
