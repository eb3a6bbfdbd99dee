"""Keys, credentials and secrets are changed while clients send 100 requests a second: none of them fails.

Everything goes through the gateway of a running platform. Secrets change the way an operator changes them: the file
says the new one besides the old one, then the new one first, then it alone.
"""

from __future__ import annotations

import asyncio
import json
import secrets
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import quote

import aiohttp
import asyncpg
import jwt
import pytest
from billing import billed_org, recent
from revocable import Maker, maker_at
from test_audit_complete import signed

from eb_auth.flows import auditing, signing
from eb_auth.store import credentials
from eb_kit import topology
from eb_tools import identity, mail_demo
from eb_tools.client import Api, Json, Person, sign_in
from eb_tools.files import read_json, write_secret
from eb_tools.layout import Layout
from eb_tools.world import KEY_SCOPES, Member, World, event

pytestmark = pytest.mark.timeout(120)

RATE = 100
LEAD = timedelta(seconds=2)
"""A key is announced an hour before its first use; two seconds are the hard case."""
AT_LEAST = 50
LASTS_S = 10.0
TAKEN_UP_S = 1.6
"""Files are looked at each second."""
Request = tuple[str, str, Mapping[str, str], bytes | None]
Client = Callable[[], Awaitable[Request]]


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}


@dataclass
class Load:
    """Clients in turn, a request each, 100 a second whatever they wait; `failed` names what wasn't answered well."""

    world: World
    clients: Sequence[Client]
    answers: Counter[tuple[str, int]] = field(default_factory=Counter)
    failed: list[tuple[str, int, str]] = field(default_factory=list)
    is_over: bool = False

    async def run(self) -> None:
        began, sent = time.monotonic(), 0
        async with asyncio.TaskGroup() as tasks:
            while not self.is_over:
                while sent < (time.monotonic() - began) * RATE:
                    tasks.create_task(self._send(self.clients[sent % len(self.clients)]))
                    sent += 1
                await asyncio.sleep(0.005)

    async def _send(self, client: Client) -> None:
        method, path, headers, body = await client()
        api = self.world.api
        name = f"{method} {path.partition('?')[0]}"
        try:
            async with api.http.request(
                method, api.base_url + path, headers=dict(headers), data=body
            ) as answer:
                text = await answer.text()
                self.answers[name, answer.status] += 1
                if answer.status >= 400:
                    self.failed.append((name, answer.status, text[:300]))
        except (aiohttp.ClientError, TimeoutError) as error:
            self.failed.append((name, 0, repr(error)))


@asynccontextmanager
async def under_load(
    world: World, clients: Sequence[Client], lasts_s: float = LASTS_S
) -> AsyncIterator[Load]:
    """Load the platform while the block changes something, `lasts_s` at least; none may fail."""
    load, began = Load(world, clients), time.monotonic()
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(load.run())
        try:
            yield load
            await asyncio.sleep(max(0.0, lasts_s - (time.monotonic() - began)))
        finally:
            load.is_over = True
    count = load.answers.total() + len(load.failed)
    print(f"{count} requests in {time.monotonic() - began:.1f} s: {dict(load.answers)}")
    assert load.failed == []
    assert count >= AT_LEAST * lasts_s


@pytest.fixture
async def maker(stack: Any, world: World) -> AsyncIterator[Maker]:
    async with maker_at(stack.run_dir, world) as made:
        yield made


@pytest.fixture(scope="module")
async def billed(stack: Any) -> tuple[Member, str]:
    """An organisation with a plan, and one of its SKUs."""
    async with aiohttp.ClientSession() as http:
        world = World.at(Api(stack.staff.gateway_url, http), stack.staff)
        member, skus, _ = await billed_org(world, "Rotating")
        return member, skus["sms"]


def reading(token: Callable[[], str], org: str) -> list[Client]:
    """Make clients that read about an organisation in five services with the newest token."""
    paths = (
        f"/orgs/{org}",
        f"/verify/claims?org_id={org}",
        f"/catalog/orgs/{org}/entitlements",
        f"/metering/events?org_id={org}",
        f"/pricing/usage?org_id={org}",
        f"/ledger/balances?org_id={org}",
    )

    def client(path: str) -> Client:
        async def ask() -> Request:
            return "GET", path, bearer(token()), None

        return ask

    return [client(path) for path in paths]


def metering(key: Callable[[], str], member: Member, sku: str) -> list[Client]:
    """Make a client that sends events, and one that asks for estimates, with the key in use."""

    async def send() -> Request:
        body = json.dumps([event(member, sku, recent(1))]).encode()
        return "POST", "/metering/events", bearer(key()), body

    async def estimate() -> Request:
        body = {"org_id": member.org_id, "skus": {sku: "1"}, "leads": 1}
        return "POST", "/pricing/estimate", bearer(key()), json.dumps(body).encode()

    return [send, estimate]


@dataclass
class Ada:
    """Somebody who refreshes ten times a second; `fresh` is the newest token, `old` the first."""

    person: Person
    org: str
    old: str
    fresh: str
    kids: set[str] = field(default_factory=set)

    @classmethod
    async def signed_up(cls, world: World) -> Ada:
        person = await world.person("ada")
        body = {"legal_name": "Rotating", "org_slug": f"rotating-{secrets.token_hex(6)}"}
        org = str((await world.api.post("/orgs", body, token=person.access_token))["org_id"])
        token = await person.token_for(org)
        return cls(person, org, token, token)

    async def keep_refreshing(self, load: Load) -> None:
        while not load.is_over:
            self.fresh = await self.person.token_for(self.org)
            self.kids.add(str(jwt.get_unverified_header(self.fresh)["kid"]))
            await asyncio.sleep(0.1)


async def new_signing_keys(maker: Maker) -> None:
    """Announce two further signing keys, one after the other."""
    for _ in range(2):
        async with maker.owner.begin(identity.ACTOR) as tx:
            await credentials.lock_signing_keys(tx)
            await signing.add_signing_key(tx, tx.context.clock.machine_now() + LEAD)
        await asyncio.sleep(LEAD.total_seconds() + 1.5)


@dataclass
class Keys:
    """A client's key: made, taken up by sixteen connections the moment it is shown, the one before revoked."""

    world: World
    member: Member
    sku: str
    shown: list[Json] = field(default_factory=list)

    @property
    def path(self) -> str:
        return f"/orgs/{self.member.org_id}/api-keys"

    def newest(self) -> str:
        return str(self.shown[-1]["key"])

    async def make(self) -> None:
        body = {"name": "rotated", "scopes": list(KEY_SCOPES)}
        self.shown.append(await self.world.api.post(self.path, body, token=self.member.admin_token))

    async def change(self, times: int) -> None:
        for _ in range(times):
            await asyncio.sleep(1.0)
            await self.make()
            await asyncio.gather(*(self._estimate() for _ in range(16)))
            await asyncio.sleep(1.0)
            old = f"{self.path}/{self.shown[-2]['key_id']}"
            await self.world.api.call("DELETE", old, token=self.member.admin_token)

    async def _estimate(self) -> None:
        body = {"org_id": self.member.org_id, "skus": {self.sku: "1"}, "leads": 1}
        await self.world.api.post("/pricing/estimate", body, token=self.newest())


@dataclass
class Trusted:
    """A trusted system's credential, changed by command: the new one is used before the old one ends."""

    maker: Maker
    made: list[Any] = field(default_factory=list)

    async def make(self) -> None:
        self.made.append(await identity.create_service_credential(self.maker.dsn, "rotated", self.maker.env))

    async def ask(self) -> Request:
        return "GET", "/metering/provider-logs?limit=1", bearer(self.made[-1][1]), None

    async def change(self, times: int) -> None:
        for _ in range(times):
            await asyncio.sleep(1.0)
            await self.make()
            await asyncio.sleep(1.0)
            old = self.made[-2][0].key_id
            await identity.revoke_service_credential(self.maker.dsn, old, self.maker.env)


async def test_keys_and_credentials_change_and_nobody_notices(
    world: World, maker: Maker, billed: tuple[Member, str]
) -> None:
    ada, keys, trusted = await Ada.signed_up(world), Keys(world, *billed), Trusted(maker)
    await keys.make()
    await trusted.make()
    clients = [
        *reading(lambda: ada.fresh, ada.org),
        *reading(lambda: ada.old, ada.org),
        *metering(keys.newest, *billed),
        *reading(keys.newest, billed[0].org_id)[2:],
        trusted.ask,
    ]
    async with asyncio.TaskGroup() as tasks, under_load(world, clients) as load:
        tasks.create_task(ada.keep_refreshing(load))
        await asyncio.gather(new_signing_keys(maker), keys.change(4), trusted.change(4))

    assert len(ada.kids) >= 3, "tokens were signed with each key"


class Files:
    """The files that a running stack's secrets come from; what they said comes back in the end."""

    def __init__(self, run_dir: Path) -> None:
        self._layout = Layout(run_dir)
        self._before: dict[Path, str] = {}

    def read(self, service: str, name: str) -> str:
        return (self._layout.secret_files(service) / name).read_text()

    async def write(self, service: str, name: str, text: str, wait_s: float = TAKEN_UP_S) -> None:
        """Write a file anew and wait until the service has looked."""
        path = self._layout.secret_files(service) / name
        self._before.setdefault(path, path.read_text())
        write_secret(path, text)
        await asyncio.sleep(wait_s)

    async def overlap(self, service: str, name: str, old: str, new: str) -> None:
        """Let the new one be taken, then used."""
        await self.write(service, name, f"{old}\n{new}")
        await self.write(service, name, f"{new}\n{old}")

    async def restore(self) -> None:
        for path, text in self._before.items():
            write_secret(path, text)
        await asyncio.sleep(TAKEN_UP_S)


@pytest.fixture
async def files(stack: Any) -> AsyncIterator[Files]:
    made = Files(stack.run_dir)
    yield made
    await made.restore()


@dataclass
class SignIns:
    """People who sign up, one after the other, with the code that a mail brings."""

    world: World
    tokens: list[str]

    async def keep_coming(self, load: Load) -> None:
        while not load.is_over:
            address = f"rotating-{secrets.token_hex(6)}@example.net"
            self.tokens.append(await (await sign_in(self.world.api, self.world.mailbox, address)).token_for())

    async def me(self) -> Request:
        return "GET", "/auth/me", bearer(self.tokens[-1]), None


async def new_auth_secret(maker: Maker, files: Files) -> None:
    """Change auth's secret and change it back, each time so that the one before may go."""
    old, new = files.read("auth", "EB_AUTH_SECRET"), secrets.token_hex(20)
    await files.overlap("auth", "EB_AUTH_SECRET", old, new)
    await resealed(maker, new, old)
    await files.overlap("auth", "EB_AUTH_SECRET", new, old)
    await resealed(maker, old, new)


async def resealed(maker: Maker, *in_force: str) -> None:
    """Seal anew what lasts, as auth's job does every half a minute."""
    settings = maker.owner.settings
    maker.owner.settings = settings.model_copy(update={"auth_secret": in_force})
    try:
        for reseal in (signing.reseal, auditing.reseal):
            async with maker.owner.begin(identity.ACTOR) as tx:
                await reseal(tx)
    finally:
        maker.owner.settings = settings


@dataclass
class Sender:
    """Somebody who signs requests, now with this secret, then with another."""

    secret: str
    claim: Json
    service_token: str

    async def mail(self) -> Request:
        body = f"Subject: {secrets.token_hex(4)}\r\n\r\nhello\r\n".encode()
        envelope = {"from": "a@example.net", "to": self.claim["send_to"], "ip": "127.0.0.1", "helo": "mail"}
        return "POST", "/verify/inbound/raw", mail_demo.raw_headers(self.secret, body, envelope), body

    async def word(self) -> Request:
        said = {"token": "x" * 20, "from_domain": self.claim["domain"], "dkim_pass": False}
        body = json.dumps(said | {"spf_pass": False, "dmarc_aligned": False}).encode()
        path = "/verify/email-submit"
        return "POST", path, bearer(self.service_token) | signed(self.secret, path, body), body


async def new_webhook_secrets(files: Files, mails: Sender, words: Sender) -> None:
    """Let both be taken, have the sender change, take the old one away."""
    service, new = "domain-verify", secrets.token_hex(20)
    raw, submit = "EB_INBOUND_RAW_SECRETS", "EB_EMAIL_SUBMIT_SECRETS"
    await files.write(service, raw, f"{mails.secret},{new}")
    mails.secret = new
    await files.write(service, submit, f"local-run={words.secret},local-run={new}")
    words.secret = new
    await asyncio.sleep(0.5)
    await files.write(service, raw, new)
    await files.write(service, submit, f"local-run={new}")


@dataclass
class Pager:
    """Somebody who pages through a list."""

    world: World
    member: Member
    cursors: list[str] = field(default_factory=list)

    @property
    def path(self) -> str:
        return f"/orgs/{self.member.org_id}/audit?limit=1"

    async def begin(self) -> None:
        self.cursors.append(
            (await self.world.api.get(self.path, token=self.member.admin_token))["next_cursor"]
        )

    async def page(self) -> Request:
        path = f"{self.path}&cursor={quote(self.cursors[-1])}"
        return "GET", path, bearer(self.member.admin_token), None

    async def change_secret(self, files: Files) -> None:
        old, new = files.read("auth", "EB_CURSOR_SECRET"), secrets.token_hex(20)
        await files.overlap("auth", "EB_CURSOR_SECRET", old, new)
        await self.begin()
        await asyncio.sleep(0.5)
        await files.write("auth", "EB_CURSOR_SECRET", new)


async def test_secrets_change_and_nobody_notices(
    stack: Any, world: World, maker: Maker, billed: tuple[Member, str], files: Files
) -> None:
    member, staff = billed[0], stack.staff
    claimed = {"org_id": member.org_id, "domain": f"rotating-{secrets.token_hex(4)}.{mail_demo.ZONE}"}
    claim = await world.api.post("/verify/claims", claimed, token=member.admin_token)
    mails = Sender(staff.values["inbound_raw_secret"], claim, staff.service_token)
    words = replace(mails, secret=staff.values["email_submit_secret"])
    pager, people = Pager(world, member), SignIns(world, [staff.operator_token])
    await pager.begin()
    read = reading(lambda: member.admin_token, member.org_id)
    async with (
        asyncio.TaskGroup() as tasks,
        under_load(world, [people.me, pager.page, mails.mail, words.word, *read]) as load,
    ):
        tasks.create_task(people.keep_coming(load))
        await asyncio.gather(
            new_auth_secret(maker, files),
            new_webhook_secrets(files, mails, words),
            pager.change_secret(files),
        )

    assert len(people.tokens) >= 3
    assert pager.cursors[0] != pager.cursors[-1]
    assert (await world.api.get(f"/orgs/{member.org_id}/audit:verify", token=member.admin_token))["valid"]


IDLE = (
    "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE usename = 'eb_pricing'"
    " AND state = 'idle' AND state_change < now() - interval '100 ms'"
)


async def new_database_passwords(stack: Any, files: Files, owner: asyncpg.Connection[Any]) -> int:
    """Change the role's password, the file a little later, and end idle connections before and after.

    Give how many were ended while the file still had the old password.
    """
    dsn, ended = files.read("pricing", "DATABASE_URL"), 0
    old = read_json(Layout(stack.run_dir).secrets)["pricing"]
    try:
        for new in (secrets.token_hex(20), old):
            await owner.execute(f"ALTER ROLE eb_pricing PASSWORD '{new}'")
            ended += await owner.fetchval(IDLE)
            await asyncio.sleep(0.3)
            await files.write("pricing", "DATABASE_URL", dsn.replace(old, new), 2.5)
            await owner.fetchval(IDLE)
            await asyncio.sleep(1)
    finally:
        await owner.execute(f"ALTER ROLE eb_pricing PASSWORD '{old}'")
    return ended


async def new_broker_passwords(stack: Any, files: Files) -> int:
    """Change the user's password and the file; then the broker ends the connections: give how many."""
    url, ended = files.read("metering-ingest", "AMQP_URL"), 0
    old = read_json(Layout(stack.run_dir).secrets)["metering-ingest"]
    admin = stack.facts["rabbitmq_admin_url"]
    async with aiohttp.ClientSession() as http:
        for new in (secrets.token_hex(20), old):
            await topology.Admin(admin, "/", http).make_user("metering-ingest", new)
            await files.write("metering-ingest", "AMQP_URL", url.replace(old, new))
            async with http.get(f"{admin}/api/connections") as answer:
                names = [one["name"] for one in await answer.json() if one["user"] == "metering-ingest"]
            for name in names:
                await http.delete(f"{admin}/api/connections/{quote(name, safe='')}")
            ended += len(names)
            await asyncio.sleep(2)
    return ended


async def test_passwords_change_under_open_connections(
    stack: Any, world: World, billed: tuple[Member, str], files: Files, owner: asyncpg.Connection[Any]
) -> None:
    member, sku = billed
    read = reading(lambda: member.admin_token, member.org_id)
    async with under_load(world, [*metering(lambda: member.api_key, member, sku), *read]):
        ended = await asyncio.gather(
            new_database_passwords(stack, files, owner), new_broker_passwords(stack, files)
        )

    assert min(ended) > 0, "no connection had to be made with a new password"
