"""domain-verify running on a database of its own, beside a DNS server that a test can break."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any
from uuid import UUID

import asyncpg

from eb_domain_verify.app import SERVICE
from eb_kit.testing import Client, running
from eb_kit.testing_db import ClonedDatabase
from eb_tools.mail_demo import DnsServer, raw_headers

from .mails import SELECTOR, Letter, Signing, record

NO_BROKER = "amqp://nobody@127.0.0.1:1/"
RAW_SECRET = "raw-secret-of-the-tests"
OLD_SECRET = "old-secret-still-valid"
PROCESSOR = "mail-processor"
PROCESSOR_SECRET = "secret-of-the-processor"
Json = dict[str, Any]


@dataclass
class World:
    """A running service. `zone` is what its DNS server answers (None: SERVFAIL)."""

    client: Client
    database: ClonedDatabase
    dns: DnsServer
    zone: dict[str, list[bytes] | None]

    async def call(
        self,
        method: str,
        path: str,
        body: object = None,
        *,
        auth: dict[str, str] | None = None,
        **options: Any,
    ) -> tuple[int, Any]:
        """Send a request; give status and answer."""
        headers = {**(auth or {}), **options.pop("headers", {})}
        if body is not None:
            options["data"], headers["Content-Type"] = json.dumps(body), "application/json"
        async with self.client.http.request(
            method, self.client.url(path), headers=headers, **options
        ) as answer:
            text = await answer.text()
            return answer.status, json.loads(text) if text else None

    def admin(self, org_id: UUID) -> dict[str, str]:
        """Give the Authorization of an Admin of the organisation."""
        return self.client.auth(roles=["Admin"], org_id=org_id)

    def staff(self, role: str = "Operator") -> dict[str, str]:
        """Give the Authorization of platform staff."""
        return self.client.auth(roles=[role])

    async def claim(self, domain: str, org_id: UUID | None = None, **members: Any) -> Json:
        """Claim a domain, for a new organisation unless one is given; give the answer's body."""
        org = org_id or await self.client.org()
        body = {"org_id": str(org), "domain": domain, **members}
        status, claim = await self.call("POST", "/verify/claims", body, auth=self.admin(org))
        assert status == 201, claim
        return claim

    def publish(self, domain: str) -> None:
        """Give a domain its key and a DMARC record."""
        self.zone[f"{SELECTOR}._domainkey.{domain}"] = [record()]
        self.zone[f"_dmarc.{domain}"] = [b"v=DMARC1; p=reject"]

    def letter(self, claim: Json) -> Letter:
        """Write the mail that proves a claim."""
        domain = claim["domain"]
        return replace(
            Letter()
            .with_field("From", f"Office <office@{domain}>")
            .with_field("To", claim["send_to"])
            .with_field("Subject", claim["token"]),
            signings=(Signing(domain=domain, tags={"t": str(int(time.time()))}),),
        )

    async def post_raw(
        self, raw: bytes, claim: Json, *, at: int | None = None, secret: str = RAW_SECRET, **envelope: str
    ) -> tuple[int, Any]:
        """Hand a mail over as the mail server does."""
        given = {"from": f"office@{claim['domain']}", "to": claim["send_to"], "ip": "192.0.2.1", "helo": "mx"}
        headers = raw_headers(secret, raw, given | envelope, at)
        return await self.call("POST", "/verify/inbound/raw", data=raw, headers=headers)

    async def send(self, raw: bytes, claim: Json, **options: Any) -> str:
        """Hand a mail over; give its id."""
        status, answer = await self.post_raw(raw, claim, **options)
        assert status == 202, answer
        return str(answer["mail_id"])

    async def mail(self, mail_id: str) -> Json:
        """Show a mail as staff."""
        status, mail = await self.call("GET", f"/verify/mails/{mail_id}", auth=self.staff("Support"))
        assert status == 200, mail
        return mail

    async def shown(self, claim: Json) -> Json:
        """Show a claim as its Admin."""
        org = UUID(claim["org_id"])
        status, shown = await self.call("GET", f"/verify/claims/{claim['claim_id']}", auth=self.admin(org))
        assert status == 200, shown
        return shown

    async def judged(self, mail_id: str) -> Json:
        """Wait for a mail's verdict."""
        return await until(lambda: self.mail(mail_id), lambda mail: mail["outcome"] != "waiting")

    async def submit(
        self, body: Json, *, key: str, secret: str = PROCESSOR_SECRET, at: int | None = None
    ) -> tuple[int, Any]:
        """Assert a mail's verdict as the trusted processor."""
        data = json.dumps(body).encode()
        stamp = str(int(time.time()) if at is None else at)
        lines = ("v1", "POST", "/verify/email-submit", stamp, hashlib.sha256(data).hexdigest())
        mac = hmac.new(secret.encode(), "\n".join(lines).encode(), hashlib.sha256).hexdigest()
        headers = {
            "Content-Type": "application/json",
            "Authorization": f"Bearer {key}",
            "X-EB-Timestamp": stamp,
            "X-EB-Signature": f"v1={mac}",
        }
        return await self.call("POST", "/verify/email-submit", data=data, headers=headers)

    async def sql(self, query: str, *args: object) -> list[asyncpg.Record]:
        """Ask the database as its owner."""
        connection = await asyncpg.connect(self.database.owner_dsn)
        try:
            return list(await connection.fetch(query, *args))
        finally:
            await connection.close()


async def until(
    look: Callable[[], Awaitable[Any]], holds: Callable[[Any], bool], within_s: float = 20
) -> Any:
    """Look until it holds."""
    deadline = time.monotonic() + within_s
    while True:
        seen = await look()
        if holds(seen):
            return seen
        assert time.monotonic() < deadline, f"still {seen}"
        await asyncio.sleep(0.05)


@asynccontextmanager
async def a_world(
    database: ClonedDatabase, *, doors: tuple[str, ...] = ("api", "jobs"), **environ: str
) -> AsyncIterator[World]:
    """Run the service without a broker."""
    zone: dict[str, list[bytes] | None] = {}
    async with DnsServer(lambda name: zone.get(name, [])) as dns:
        settings = {
            "DNS_SERVERS": dns.address,
            "EB_INBOUND_RAW_SECRETS": f"{RAW_SECRET},{OLD_SECRET}",
            "EB_EMAIL_SUBMIT_SECRETS": f"{PROCESSOR}={PROCESSOR_SECRET},{PROCESSOR}={OLD_SECRET}",
            **environ,
        }
        async with running(
            SERVICE, database.dsn("domain_verify"), NO_BROKER, doors=doors, environ=settings
        ) as client:
            yield World(client, database, dns, zone)
