"""A running auth service on a database of its own, and people who use it."""

from __future__ import annotations

import asyncio
import email
import logging
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from email.message import Message
from itertools import count
from pathlib import Path
from typing import Any
from uuid import UUID

import asyncpg
import pytest
import pytest_asyncio
import structlog

from eb_auth.app import SERVICE
from eb_auth.flows import organisations
from eb_auth.jobs import send_mails
from eb_kit.testing import Client, running
from eb_kit.testing_db import ClonedDatabase, TestDatabase

structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
NO_BROKER = "amqp://guest:guest@127.0.0.1:1/"
numbers = count(1)


@dataclass
class Answer:
    """What came back."""

    status: int
    body: Any
    raw: bytes
    headers: Any


@dataclass
class Person:
    """Somebody who is signed in; `org_id` is the context of the current access token."""

    service: AuthService
    email: str
    tokens: dict[str, Any] = field(default_factory=dict)

    @property
    def user_id(self) -> str:
        return str(self.tokens["user_id"])

    async def call(self, method: str, path: str, body: object = None, **headers: str) -> Answer:
        bearer = {"Authorization": f"Bearer {self.tokens['access_token']}"}
        return await self.service.call(method, path, body, **bearer, **headers)

    async def refresh(self, org_id: object = None) -> Answer:
        body = {"grant_type": "refresh_token", "refresh_token": self.tokens["refresh_token"]}
        if org_id is not None:
            body["org_id"] = str(org_id)
        answer = await self.service.call("POST", "/auth/token", body)
        if answer.status == 200:
            self.tokens = answer.body
        return answer

    async def found_org(self, **members: object) -> dict[str, Any]:
        """Create an organisation and take its context."""
        answer = await self.call("POST", "/orgs", an_org(**members))
        assert answer.status == 201, answer.body
        assert (await self.refresh(answer.body["org_id"])).status == 200
        return dict(answer.body)

    async def add_child(self, parent_id: str, **members: object) -> dict[str, Any]:
        """Create a child under an organisation whose Admin this person is, and take the child's context."""
        assert (await self.refresh(parent_id)).status == 200
        answer = await self.call("POST", f"/orgs/{parent_id}/children", an_org(**members))
        assert answer.status == 201, answer.body
        return dict(answer.body)


@dataclass
class AuthService:
    """The service under test with its mailbox and its owner's view of the database."""

    client: Client
    mailbox: Path
    owner: asyncpg.Connection[Any]
    owner_dsn: str

    async def call(self, method: str, path: str, body: object = None, **headers: str) -> Answer:
        sent: dict[str, Any] = {"headers": headers}
        if body is not None:
            sent["json"] = body
        async with self.client.http.request(method, self.client.url(path), **sent) as answer:
            raw = await answer.read()
            is_json = raw and answer.content_type != "application/x-ndjson"
            parsed = await answer.json(content_type=None) if is_json else None
            return Answer(answer.status, parsed, raw, answer.headers)

    async def advance(self, seconds: float) -> None:
        """Move the business clock."""
        file = self.client.context.settings.clock_file
        file.write_text(str(seconds))
        await asyncio.sleep(0.15)

    def codes(self, address: str) -> list[str]:
        """Give the codes mailed so far to an address, oldest first."""
        mails = [email.message_from_bytes(path.read_bytes()) for path in sorted(self.mailbox.glob("*.eml"))]
        return [mail["X-EB-Code"] for mail in mails if mail["To"] == address.lower()]

    async def mails(self) -> list[Message]:
        """Have the mails sent that wait, and give all that are in the box."""
        async with self.client.context.begin("system:auth") as tx:
            await send_mails(tx)
        return [email.message_from_bytes(path.read_bytes()) for path in sorted(self.mailbox.glob("*.eml"))]

    async def ask_code(self, address: str) -> str:
        """Ask for a code and give it."""
        for path in self.mailbox.glob("*.eml"):
            path.unlink()
        answer = await self.call("POST", "/auth/login", {"email": address})
        assert answer.status == 202, answer.body
        async with self.client.context.begin("system:auth") as tx:
            await send_mails(tx)
        [code] = self.codes(address)
        return code

    async def sign_in(self, address: str | None = None) -> Person:
        """Sign somebody in; a new person without an address."""
        address = address or f"person{next(numbers)}@example.org"
        code = await self.ask_code(address)
        answer = await self.call("POST", "/auth/sessions", {"email": address, "code": code})
        assert answer.status == 201, answer.body
        return Person(self, address, answer.body)

    async def join(self, person: Person, org_id: object, role: str = "User") -> None:
        """Make somebody a member, as an accepted invitation would, and take the context."""
        async with self.client.context.begin("system:test") as tx:
            await organisations.join(tx, UUID(str(org_id)), UUID(person.user_id), role)
        assert (await person.refresh(org_id)).status == 200

    def staff(self, *roles: str) -> dict[str, str]:
        """Give the Authorization header of platform staff."""
        return self.client.auth(roles=roles)


def an_org(**members: object) -> dict[str, object]:
    """Describe a valid new organisation."""
    number = next(numbers)
    return {"legal_name": f"Org {number}", "org_slug": f"org-{number}", **members}


@pytest.fixture
def environ() -> dict[str, str]:
    """Further settings of the service; a test module overrides it."""
    return {}


@asynccontextmanager
async def serving(
    clone: ClonedDatabase, folder: Path, environ: Mapping[str, str]
) -> AsyncIterator[AuthService]:
    """The service with its HTTP door open; the tests do what its clock doors would."""
    mailbox = folder / "mail"
    mailbox.mkdir()
    owner = await asyncpg.connect(clone.owner_dsn)
    settings = {"EB_MAILBOX_DIR": str(mailbox), "EB_CLOCK_FILE": str(folder / "clock"), **environ}
    async with running(SERVICE, clone.dsn("auth"), NO_BROKER, doors=("api",), environ=settings) as client:
        yield AuthService(client, mailbox, owner, clone.owner_dsn)
    await owner.close()


@pytest.fixture
async def auth(
    fresh_db: ClonedDatabase, tmp_path: Path, environ: dict[str, str]
) -> AsyncIterator[AuthService]:
    """A service of one test's own."""
    async with serving(fresh_db, tmp_path, environ) as service:
        yield service


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared_auth(
    database: TestDatabase, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[AuthService]:
    """A service for all tests of a module that look at their own organisations only."""
    clone = await database.clone()
    async with serving(clone, tmp_path_factory.mktemp("auth"), {}) as service:
        yield service
    await database.drop(clone)
