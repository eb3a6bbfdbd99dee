"""What names a person or opens a door stands where docs/security/data.md says, and nowhere else.

Read are: every column of every table that can hold text (outboxes, inboxes, dead letters, read models, kept answers
and the audit chain among them), the logs of all services, gateway, supervisor, PostgreSQL and RabbitMQ, the files in
which the broker keeps its queues, and all metrics. Not read is the mailbox of the local run, which stands for the
people's own mail server; spans are tested in the kit. These tests run last: what all others did is looked at, too.
"""

from __future__ import annotations

import email
import re
import secrets
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from searching import (
    LOGS,
    SERVICES,
    broker_files,
    columns_with,
    files_with,
    log_files,
    metrics,
    pattern_of,
    text_columns,
)

from eb_contracts.ids import new_id
from eb_tools.client import ApiProblem, Json, wait_for
from eb_tools.mail_demo import raw_headers
from eb_tools.world import World

pytestmark = pytest.mark.timeout(180)
SCHEMAS = tuple(name.replace("-", "_") for name in SERVICES)
IN_AUDIT = {"auth.audit_personal.after"}
KEPT_ANSWER = {"auth.idempotency_key.body"}
"""What was answered to a request with an Idempotency-Key, kept for a day."""
PLACES: dict[str, set[str]] = {
    "address": {"auth.user.email"},
    "invited": {"auth.invitation.email", "auth.user.email", "auth.audit_personal.before"} | IN_AUDIT,
    "billing": {"auth.organization.billing_email"} | IN_AUDIT | KEPT_ANSWER,
    "legal name": {"auth.organization.legal_name"} | IN_AUDIT | KEPT_ANSWER,
    "tax id": {"auth.organization.tax_id"} | IN_AUDIT | KEPT_ANSWER,
    "project name": {"auth.project.name"} | IN_AUDIT,
    "key name": {"auth.api_key.name"} | IN_AUDIT,
    "user agent": {"auth.session.user_agent"},
    "network address": {"auth.session.address"},
    "subject": {"auth.oidc_identity.subject"} | IN_AUDIT,
    "mail sender": {"domain_verify.inbound_mail.envelope_from", "domain_verify.inbound_mail.raw"},
}
"""All that people gave of themselves. What isn't here (codes, tokens, keys, secrets) stands nowhere."""
CREDENTIAL = re.compile(
    rb"\beb_[0-9a-f]{32}_[\w-]{43}|\beb[ri]_[\w-]{43}|\beyJ[\w-]{8,}\.[\w-]{8,}\.[\w-]{20,}"
)
ADDRESS = re.compile(rb"[\w.+-]+@[\w-]+(?:\.[\w-]+)+")


async def refused(world: World, method: str, path: str, body: object = None, **options: Any) -> None:
    """Send what has to be refused: refusals are logged."""
    with pytest.raises(ApiProblem):
        await world.api.call(method, path, body, **options)


async def code_for(world: World, address: str) -> str:
    mail: Any = await wait_for(lambda: _mail(world, "login_code", address), "the code")
    return str(mail["X-EB-Code"])


async def _mail(world: World, kind: str, to: str) -> Any:
    return world.mailbox.newest(kind, to)


class Life:
    """What one person does on the platform, and everything they gave or got that isn't others' to know."""

    def __init__(self, world: World, ports: Mapping[str, int]) -> None:
        self.world, self.ports = world, ports
        self.marker = f"zq{secrets.token_hex(5)}"
        self.values: dict[str, str] = {
            "address": f"ada-{self.marker}@example.net",
            "invited": f"bob-{self.marker}@example.net",
            "billing": f"pay-{self.marker}@example.net",
            "mail sender": f"carol-{self.marker}@example.net",
            "legal name": f"Legal {self.marker}",
            "tax id": f"tax-{self.marker}",
            "project name": f"Project {self.marker}",
            "key name": f"Key {self.marker}",
            "user agent": f"Agent-{self.marker}/1.0",
            "network address": f"2001:db8::{secrets.token_hex(2)}:{secrets.token_hex(2)}",
            "subject": f"subject-{self.marker}",
            "raw secret": world.staff.values["inbound_raw_secret"],
            "submit secret": world.staff.values["email_submit_secret"],
            "service credential": world.staff.service_token,
        }
        self.token = ""
        self.org_id = ""

    async def sign_in(self) -> None:
        """By code after a wrong guess, from a far away address; a lost token is tried again, and a broken one."""
        api, values = self.world.api, self.values
        headers = {"User-Agent": values["user agent"], "X-Forwarded-For": values["network address"]}
        await api.post("/auth/login", {"email": values["address"]}, headers=headers)
        values["code"] = await code_for(self.world, values["address"])
        guess = {"email": values["address"], "code": values["code"][::-1]}
        if guess["code"] != values["code"]:
            await refused(self.world, "POST", "/auth/sessions", guess, headers=headers)
        # the gateway says itself where somebody comes from: past it, as it would say it
        door = f"http://127.0.0.1:{self.ports['auth']}/auth/sessions"
        good = {"email": values["address"], "code": values["code"]}
        async with api.http.post(door, json=good, headers=headers) as answer:
            signed_in: Json = await answer.json()
            assert answer.status == 201, signed_in
        values["refresh token"], values["access token"] = (
            signed_in["refresh_token"],
            signed_in["access_token"],
        )
        body = {"grant_type": "refresh_token", "refresh_token": values["refresh token"]}
        renewed = await api.post("/auth/token", body)
        await refused(self.world, "POST", "/auth/token", body)
        self.token, values["second refresh token"] = renewed["access_token"], renewed["refresh_token"]
        await refused(self.world, "GET", "/auth/me", token=self.token[:-4] + "AAAA")

    async def found_org(self) -> None:
        """An organisation with a project and a key, some of it asked for with an Idempotency-Key."""
        api, values = self.world.api, self.values
        body = {
            "legal_name": values["legal name"],
            "org_slug": f"life-{new_id().hex[-12:]}",
            "tax_id": values["tax id"],
            "billing_email": values["billing"],
        }
        once = {"Idempotency-Key": str(new_id())}
        made = [await api.post("/orgs", body, token=self.token, headers=once) for _ in range(2)]
        assert made[0] == made[1]
        self.org_id = made[0]["org_id"]
        grant = {"grant_type": "refresh_token", "refresh_token": self.values["second refresh token"]}
        self.token = (await api.post("/auth/token", grant | {"org_id": self.org_id}))["access_token"]
        project = await api.post(
            f"/orgs/{self.org_id}/projects", {"name": values["project name"]}, token=self.token
        )
        asked = {"name": values["key name"], "scopes": ["metering:write"]}
        once = {"Idempotency-Key": str(new_id())}
        key = await api.post(f"/orgs/{self.org_id}/api-keys", asked, token=self.token, headers=once)
        values["key"] = key["key"]
        await self.send_usage(project["project_id"])

    async def send_usage(self, project_id: str) -> None:
        """Usage whose metadata says too much, by a key, and by a key that is none."""
        event = {
            "request_id": str(new_id()),
            "sku": self.world.tag,
            "quantity": "1",
            "org_id": self.org_id,
            "project_id": project_id,
            "time": datetime.now(UTC).isoformat(),
            "metadata": {"email": self.values["address"]},
        }
        await refused(self.world, "POST", "/metering/events", [event], token=self.values["key"])
        await refused(self.world, "POST", "/metering/events", [event], token=self.values["key"][:-4] + "AAAA")

    async def invite(self) -> None:
        """Somebody else, twice; they come with the second invitation, after trying the first."""
        api, values = self.world.api, self.values
        asked = {"email": values["invited"]}
        sent = await api.post(f"/orgs/{self.org_id}/invitations", asked, token=self.token)
        first: Any = await wait_for(lambda: _mail(self.world, "invitation", values["invited"]), "it")
        path = f"/orgs/{self.org_id}/invitations/{sent['invitation_id']}:resend"
        await api.post(path, token=self.token)
        second: Any = await wait_for(lambda: _mail(self.world, "invitation", values["invited"]), "the next")
        values["invitation"], values["second invitation"] = first["X-EB-Token"], second["X-EB-Token"]
        await api.post("/auth/login", {"email": values["invited"]})
        values["invited's code"] = await code_for(self.world, values["invited"])
        bob = await api.post("/auth/sessions", {"email": values["invited"], "code": values["invited's code"]})
        token = bob["access_token"]
        await refused(self.world, "POST", "/invitations:accept", {"token": values["invitation"]}, token=token)
        await api.post("/invitations:accept", {"token": values["second invitation"]}, token=token)

    async def claim_domain(self) -> None:
        """A domain, a mail of somebody about it, and a processor's word with a wrong signature."""
        api, values = self.world.api, self.values
        domain = f"{new_id().hex[-12:]}.example.com"
        claim = await api.post("/verify/claims", {"org_id": self.org_id, "domain": domain}, token=self.token)
        values["claim's token"] = claim["token"]
        sender, body = values["mail sender"], f"From: {values['mail sender']}\r\n\r\nHello".encode()
        envelope = {"from": sender, "to": claim["send_to"], "ip": "192.0.2.1", "helo": "mx"}
        for secret, status in ((values["raw secret"], 202), ("a wrong secret, long enough", 401)):
            headers = raw_headers(secret, body, envelope)
            url = f"{api.base_url}/verify/inbound/raw"
            async with api.http.post(url, data=body, headers=headers) as answer:
                assert answer.status == status
        said = {
            "token": values["claim's token"], "from_domain": domain, "dkim_pass": True, "spf_pass": True,
            "dmarc_aligned": True,
        }  # fmt: skip
        signed = {"X-EB-Timestamp": "1", "X-EB-Signature": f"v1={'0' * 64}"}
        await refused(
            self.world,
            "POST",
            "/verify/email-submit",
            said,
            token=values["service credential"],
            headers=signed,
        )

    async def meet_the_database(self, owner: asyncpg.Connection[Any]) -> None:
        """Be bound to a provider's subject, as after a sign-in there; collide with oneself, which is logged."""
        values = self.values
        user_id = await owner.fetchval('SELECT user_id FROM auth."user" WHERE email = $1', values["address"])
        async with owner.transaction():
            await owner.execute("SET LOCAL eb.actor = 'system:test'")
            await owner.execute(
                "INSERT INTO auth.oidc_identity (issuer, subject, user_id, created_at) VALUES ($1, $2, $3, $4)",
                f"https://{new_id().hex}.example.com",
                values["subject"],
                user_id,
                await owner.fetchval("SELECT now()"),
            )
        with pytest.raises(asyncpg.UniqueViolationError):
            await owner.execute(
                'INSERT INTO auth."user" (user_id, email, created_at) VALUES ($1, $2, now())',
                new_id(),
                values["address"],
            )


async def settled(owner: asyncpg.Connection[Any]) -> None:
    """Wait until all that is to leave has left, and every audit entry is chained."""

    async def everything_left() -> bool:
        waits = [
            await owner.fetchval(
                f"SELECT (SELECT count(*) FROM {schema}.audit_waiting)"
                f" + (SELECT count(*) FROM {schema}.outbox WHERE sent_at IS NULL)"
            )
            for schema in SCHEMAS
        ]
        return not any(waits)

    await wait_for(everything_left, "everything to be sent")


async def test_what_people_gave_and_got_stands_in_its_own_places_only(
    stack: Any, world: World, owner: asyncpg.Connection[Any]
) -> None:
    life = Life(world, stack.facts["ports"])
    await life.sign_in()
    await life.found_org()
    await life.invite()
    await life.claim_domain()
    await life.meet_the_database(owner)
    await settled(owner)

    found = await columns_with(owner, life.values)
    assert {name: places for name, places in found.items() if places} == PLACES
    assert files_with(log_files(stack.run_dir).values(), life.values.values()) == []
    assert files_with(broker_files(stack.run_dir), _long(life.values)) == []
    shown = await metrics(stack.facts["ports"])
    told = [f"{at}: {name}" for at, text in shown.items() for name, v in life.values.items() if v in text]
    assert told == []


def _long(values: Mapping[str, str]) -> list[str]:
    """Leave codes out: in a binary file eight digits may stand for anything, and events hold all of it anyway."""
    return [value for value in values.values() if not value.isdecimal()]


async def test_no_log_of_the_whole_run_holds_an_address_a_code_or_a_credential(
    stack: Any, owner: asyncpg.Connection[Any]
) -> None:
    rows = await owner.fetch(
        'SELECT lower(email) AS address FROM auth."user" UNION SELECT lower(email) FROM auth.invitation'
        " UNION SELECT lower(billing_email) FROM auth.organization"
    )
    known = {row["address"].encode() for row in rows}
    mails = [email.message_from_bytes(file.read_bytes()) for file in stack.staff.mailbox_dir.glob("*.eml")]
    codes = {mail["X-EB-Code"].encode() for mail in mails if mail["X-EB-Code"]}
    assert len(known) > 3
    assert codes

    for name, file in log_files(stack.run_dir).items():
        content = file.read_bytes()
        assert known.isdisjoint(found.lower() for found in ADDRESS.findall(content)), name
        assert codes.isdisjoint(re.findall(rb"(?<![0-9A-Za-z.-])[0-9]{8}(?![0-9A-Za-z.-])", content)), name
        assert not CREDENTIAL.search(content), name
    for file in broker_files(stack.run_dir):
        assert not CREDENTIAL.search(file.read_bytes()), file.name


async def test_no_known_address_stands_in_another_services_tables(owner: asyncpg.Connection[Any]) -> None:
    rows = await owner.fetch('SELECT lower(email) AS address FROM auth."user"')
    known = {row["address"].encode() for row in rows}
    holders = set()
    for table, columns in (await text_columns(owner)).items():
        for column, read in columns if not table.startswith("auth.") else ():
            for row in await owner.fetch(f"SELECT {read} AS text FROM {table} WHERE strpos({read}, '@') > 0"):
                if not known.isdisjoint(found.lower() for found in ADDRESS.findall(row["text"].encode())):
                    holders.add(f"{table}.{column}")

    assert holders <= {'domain_verify."inbound_mail".envelope_from', 'domain_verify."inbound_mail".raw'}


async def test_all_there_is_gets_read(stack: Any, owner: asyncpg.Connection[Any]) -> None:
    logs = log_files(stack.run_dir)
    tables = await text_columns(owner)
    shown = await metrics(stack.facts["ports"])

    assert set(logs) >= LOGS
    assert any(name.startswith("rabbitmq/log/") for name in logs)
    assert all(logs[f"logs/{name}.log"].stat().st_size for name in SERVICES)
    assert broker_files(stack.run_dir)
    assert set(shown) == {f"{name}-admin" for name in SERVICES} | {"gateway-metrics"}
    for schema in SCHEMAS:
        for table in ("outbox", "bus_dead_letter", "idempotency_key", "known", "audit_entry"):
            assert f'{schema}."{table}"' in tables
    columns = {f"{table}.{column}" for table, named in tables.items() for column, _ in named}
    assert {'auth."audit_chain".after', 'auth."outbox".body', 'ledger."known".body'} <= columns
    texts = await owner.fetchval(
        "SELECT count(*) FROM information_schema.columns WHERE table_schema = ANY($1)"
        " AND data_type IN ('text', 'jsonb', 'bytea', 'ARRAY', 'character')",
        list(SCHEMAS),
    )
    assert 0 < len([column for column in columns if column.partition(".")[0] in SCHEMAS]) <= texts


PLANTED = {
    "ledger.partner.name": "INSERT INTO ledger.partner (partner_id, name, payout_provider, created_at)"
    " VALUES (platform.new_id(), $1, 'sandbox', now())",
    "pricing.known.body": "INSERT INTO pricing.known (entity, entity_id, version, is_deleted, body, changed_at)"
    " VALUES ('planted', md5($1), 1, false, jsonb_build_object('deep', jsonb_build_array($1::text)), now())",
    "estimator.outbox.body": "INSERT INTO estimator.outbox (outbox_id, lane, exchange, routing_key, type, subject,"
    " body, headers, created_at) SELECT platform.new_id(), 0, 'x', 'x', 'x', 'x',"
    " convert_to('{\"a\": \"é ' || $1 || '\"}', 'UTF8'), '{}', now()",
    "auth.api_key.scopes": "UPDATE auth.api_key SET scopes = array_append(scopes, $1)",
}
"""A text, JSON, bytes, an array."""


async def test_what_is_planted_in_a_table_is_found(owner: asyncpg.Connection[Any]) -> None:
    values = {"address": "planted-zq@example.net", "code": "48151623", "other": "nobody-zq@example.net"}
    planting = owner.transaction()
    await planting.start()
    await owner.execute("SET LOCAL eb.actor = 'system:test'")
    for statement in PLANTED.values():
        for name in ("address", "code"):
            await owner.execute(statement, values[name])

    found = await columns_with(owner, values)

    await planting.rollback()
    assert found["address"] & found["code"] >= set(PLANTED)
    assert found["other"] == set()


@pytest.mark.parametrize("name", ["logs/auth.log", "postgres/server.log", "rabbitmq/log/eb@localhost.log"])
@pytest.mark.parametrize("value", ["planted-zq@example.net", "48151623"])
def test_what_is_planted_in_a_log_is_found(tmp_path: Path, name: str, value: str) -> None:
    file = tmp_path / name
    file.parent.mkdir(parents=True)
    file.write_text(f'{{"event": "ok"}}\n{{"event": "said", "who": "{value}"}}\n')

    [line] = files_with(log_files(tmp_path).values(), [value, "another"])

    assert value in line
    assert files_with(log_files(tmp_path).values(), ["another"]) == []


def test_digits_within_other_digits_are_no_code() -> None:
    assert not re.search(pattern_of("48151623"), "id 0148151623 and 48151623f and a48151623")
    assert re.search(pattern_of("48151623"), 'code "48151623".')


@pytest.mark.parametrize(
    "text",
    [
        f"eb_{'0' * 32}_{'A' * 43}", f"ebr_{'A' * 43}", f"ebi_{'-' * 43}",
        "eyJhbGciOiJFZERTQSJ9.eyJzdWIiOiIxIn0.c2lnbmF0dXJlLXNpZ25hdHVyZQ",
    ],
)  # fmt: skip
def test_credentials_are_known_by_their_shape(text: str) -> None:
    assert CREDENTIAL.search(f'"authorization": "{text}"'.encode())
