"""For tests: a service run in-process on free ports, with real PostgreSQL and RabbitMQ behind it.

`running(...)` starts one; the answer's client mints tokens and keys by seeding the read model, as facts
from the auth service would.
"""

from __future__ import annotations

import base64
import hashlib
import math
import secrets
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import aiohttp
import jwt
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from yarl import URL

from eb_contracts.auth import ApiKeyChanged, OrgChanged, SigningKeyChanged
from eb_contracts.base import EntityFact
from eb_contracts.ids import new_id

from . import readmodels
from .access import AUDIENCE
from .service import DOORS, Process, Service, ServiceContext
from .settings import SettingsFiles, load

TOKEN_LIFE_S = 300


def _local(port: int) -> str:
    return f"http://127.0.0.1:{port}"


@dataclass
class Client:
    """A running service as a test sees it; `http` has no base URL, `url(path)` gives one."""

    context: ServiceContext
    base_url: str
    admin_url: str
    http: aiohttp.ClientSession
    _signing: Ed25519PrivateKey = field(default_factory=Ed25519PrivateKey.generate)
    _kid: str = field(default_factory=lambda: f"test-{secrets.token_hex(4)}")

    def url(self, path: str) -> str:
        """Give the address of a path at the HTTP door."""
        return self.base_url + path

    async def seed(self, *facts: EntityFact) -> None:
        """Write facts into the read model, as if they had arrived, and let the process see them."""
        async with self.context.begin("system:test") as tx:
            await readmodels.keep(tx.connection, facts, self.context.clock.machine_now())
        await self.context.directory.refresh()

    async def start(self) -> None:
        """Announce the signing key of the tokens that `token` mints."""
        x = base64.urlsafe_b64encode(self._signing.public_key().public_bytes_raw()).rstrip(b"=").decode()
        await self.seed(SigningKeyChanged(version=1, kid=self._kid, x=x, retired_at=None))

    async def org(
        self,
        parent: UUID | None = None,
        *,
        zone: str = "UTC",
        country: str = "AU",
        org_id: UUID | None = None,
    ) -> UUID:
        """Seed an organisation; give its id."""
        made = org_id or new_id()
        await self.seed(
            OrgChanged(
                version=1,
                org_id=made,
                parent_org_id=parent,
                parent_links=(),
                default_timezone=zone,
                country=country,
            )
        )
        return made

    def token(
        self,
        *,
        roles: Iterable[str] = (),
        org_id: UUID | None = None,
        user_id: UUID | None = None,
        session_id: UUID | None = None,
        **claims: Any,
    ) -> str:
        """Mint a valid access token; `claims` override single claims."""
        now = self.context.clock.machine_now().timestamp()
        body = {
            "iss": self.context.settings.token_issuer,
            "aud": AUDIENCE,
            "sub": str(user_id or new_id()),
            "sid": str(session_id or new_id()),
            "org": str(org_id) if org_id else None,
            "roles": list(roles),
            "iat": now,
            "nbf": now - 1,
            "exp": now + TOKEN_LIFE_S,
            "jti": str(new_id()),
            "auth_time": now,
        }
        return jwt.encode(body | claims, self._signing, algorithm="EdDSA", headers={"kid": self._kid})

    def auth(self, **token: Any) -> dict[str, str]:
        """Give the Authorization header of a fresh token."""
        return {"Authorization": f"Bearer {self.token(**token)}"}

    async def api_key(
        self, org_id: UUID | None, scopes: Iterable[str] = (), *, kind: str = "org", name: str = "test"
    ) -> str:
        """Seed a machine credential; give the whole key."""
        key_id = new_id()
        key = f"eb_{key_id.hex}_{secrets.token_urlsafe(32)}"
        await self.seed(
            ApiKeyChanged.model_validate(
                {
                    "version": 1,
                    "key_id": key_id,
                    "kind": kind,
                    "org_id": org_id,
                    "name": name,
                    "secret_sha256": hashlib.sha256(key.encode()).hexdigest(),
                    "scopes": tuple(scopes),
                    "expires_at": None,
                    "revoked_at": None,
                }
            )
        )
        return key


def keep_in_touch(context: ServiceContext) -> None:
    """Have everything that revocations come through answer for ever."""
    for source in context.touch.sources:
        context.touch.note(source, math.inf)


@asynccontextmanager
async def running(
    service: Service,
    database_url: str,
    amqp_url: str,
    *,
    doors: Iterable[str] = DOORS,
    environ: Mapping[str, str] | None = None,
) -> AsyncIterator[Client]:
    """Run a service in this process until the block ends; `environ` adds settings.

    Where the bus is at port 1, where nobody listens, the test stands in for a broker that answers.
    """
    told = {
        "EB_ENV": "local",
        "DATABASE_URL": database_url,
        "AMQP_URL": amqp_url,
        "EB_HTTP_PORT": "0",
        "EB_ADMIN_PORT": "0",
        **(environ or {}),
    }
    settings = load(service.settings, told)
    process = Process(service, settings, frozenset(doors), SettingsFiles(service.settings, told))
    if URL(amqp_url).port == 1:
        keep_in_touch(process.context)
    try:
        await process.start()
        async with aiohttp.ClientSession() as http:
            client = Client(process.context, _local(process.http_port), _local(process.admin_port), http)
            await client.start()
            yield client
    finally:
        await process.stop()
