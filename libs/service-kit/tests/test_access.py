"""Tokens and keys at a real door, with the read model in a real database."""

from __future__ import annotations

import asyncio
import base64
import json
import logging
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import asyncpg
import jwt
import pytest
import structlog
from aiohttp import web
from prometheus_client import REGISTRY
from structlog.testing import capture_logs

from eb_contracts.auth import AccessRevoked, ApiKeyChanged, MemberChanged, OrgChanged, SigningKeyChanged
from eb_contracts.ids import new_id
from eb_kit.access import caller, reach
from eb_kit.bus import Handlers
from eb_kit.policy import ASSIST_ROLES, policy
from eb_kit.service import Service
from eb_kit.settings import ServiceSettings
from eb_kit.testing import Client, running
from eb_kit.tx import begin
from eb_kit.web import Routes, ok, path_uuid

WHO = "/ledger/entries"


def service() -> Service:
    routes = Routes("ledger")

    @routes.get("/ledger/entries")
    async def who(request: web.Request) -> web.Response:
        """Say who calls."""
        return ok({"actor": caller(request).actor})

    @routes.get("/ledger/entries/{entry_id}")
    async def org(request: web.Request) -> web.Response:
        """Reach an organisation."""
        await reach(request, path_uuid(request, "entry_id"))
        async with begin(request) as tx:
            return ok({"actor": tx.actor})

    @routes.get("/partners")
    async def staff(request: web.Request) -> web.Response:
        """For staff."""
        return ok({"actor": caller(request).actor})

    return Service("ledger", "ledger", ServiceSettings, routes, Handlers())


@pytest.fixture
async def door(fresh_db: Any, fresh_bus: str) -> AsyncIterator[Client]:
    async with running(service(), fresh_db.dsn("ledger"), fresh_bus, doors=("api",)) as client:
        yield client


async def ask(door: Client, path: str, credential: str | None) -> tuple[int, dict[str, Any]]:
    headers = {"Authorization": f"Bearer {credential}"} if credential is not None else {}
    async with door.http.get(door.url(path), headers=headers) as answer:
        return answer.status, await answer.json(content_type=None)


async def test_a_token_and_a_key_name_their_callers(door: Client) -> None:
    user = new_id()
    org = await door.org()
    key = await door.api_key(org, ["ledger:read"])

    assert await ask(door, WHO, door.token(user_id=user)) == (200, {"actor": f"user:{user}"})
    status, who = await ask(door, WHO, key)
    assert (status, who["actor"][:4]) == (200, "key:")


def _forged(door: Client, **changes: Any) -> dict[str, str]:
    """Every attack on a token that we know of, by name."""
    good = door.token()
    head, body, signature = good.split(".")

    def head_with(**members: Any) -> str:
        header = {**json.loads(base64.urlsafe_b64decode(head + "==")), **members}
        return base64.urlsafe_b64encode(json.dumps(header).encode()).rstrip(b"=").decode()

    public = door.context.directory.signing_key(jwt.get_unverified_header(good)["kid"]) or ""
    now = time.time()
    return {
        "no signature, alg none": f"{head_with(alg='none')}.{body}.",
        "HS256 with the public key": jwt.encode(
            jwt.decode(good, options={"verify_signature": False}),
            base64.urlsafe_b64decode(public + "="),
            algorithm="HS256",
            headers={"kid": jwt.get_unverified_header(good)["kid"]},
        ),
        "unknown kid": f"{head_with(kid='nobody')}.{body}.{signature}",
        "kid is a path": f"{head_with(kid='../../dev/null')}.{body}.{signature}",
        "kid is a list": f"{head_with(kid=['a'])}.{body}.{signature}",
        "kid missing": f"{head_with(kid=None)}.{body}.{signature}",
        "expired": door.token(exp=now - 1),
        "not valid yet": door.token(nbf=now + 60),
        "wrong audience": door.token(aud="somebody-else"),
        "wrong issuer": door.token(iss="https://evil.example"),
        "no session": door.token(sid=None),
        "subject is no id": door.token(sub="root"),
        "huge": good + "x" * 10_000,
        "signature cut": good[:-4],
        "body swapped": f"{head}.{door.token(roles=['Operator']).split('.')[1]}.{signature}",
        "empty": "",
        "not a token": "hello",
    }


async def test_every_attack_on_a_token_is_401(door: Client) -> None:
    verdicts = {name: (await ask(door, WHO, token))[0] for name, token in _forged(door).items()}

    assert verdicts == dict.fromkeys(verdicts, 401)


async def test_a_retired_signing_key_is_stale_at_once(door: Client) -> None:
    token = door.token()
    assert (await ask(door, WHO, token))[0] == 200
    kid = jwt.get_unverified_header(token)["kid"]
    x = door.context.directory.signing_key(kid) or ""
    await door.seed(SigningKeyChanged(version=2, kid=kid, x=x, retired_at=door.context.clock.machine_now()))

    assert (await ask(door, WHO, token))[0] == 401


@pytest.mark.parametrize("subject", ["session", "member", "platform"])
async def test_a_revocation_voids_tokens_issued_before_it(door: Client, subject: str) -> None:
    org, user, session = await door.org(), new_id(), new_id()
    about = {"user_id": user, "session_id": session, "org_id": org, "roles": ["Admin"]}
    key = {"session": f"session:{session}", "member": f"member:{org}:{user}", "platform": f"platform:{user}"}
    before = door.token(**about)
    assert (await ask(door, WHO, before))[0] == 200
    await door.seed(
        AccessRevoked(version=1, subject_key=key[subject], not_before=door.context.clock.machine_now())
    )

    assert (await ask(door, WHO, before))[0] == 401
    assert (await ask(door, WHO, door.token(**about)))[0] == 200


async def test_a_revoked_key_is_refused(door: Client) -> None:
    org = await door.org()
    key = await door.api_key(org, ["ledger:read"])
    assert (await ask(door, WHO, key))[0] == 200
    row = (await door.context.pool.fetchval("SELECT body FROM known WHERE entity = 'api_key'")) | {
        "version": 2,
        "revoked_at": door.context.clock.machine_now(),
    }
    await door.seed(ApiKeyChanged.model_validate(row))

    assert (await ask(door, WHO, key))[0] == 401


async def test_hidden_and_missing_organisations_answer_the_same_bytes(door: Client) -> None:
    mine, other = await door.org(), await door.org()
    token = door.token(org_id=mine, roles=["Admin"])

    async def bytes_of(org: object) -> bytes:
        async with door.http.get(
            door.url(f"/ledger/entries/{org}"), headers={"Authorization": f"Bearer {token}"}
        ) as answer:
            return (await answer.read()).replace(str(org).encode(), b"ID")

    def no_trace(body: bytes) -> dict[str, Any]:
        return {k: v for k, v in json.loads(body).items() if k != "trace_id"}

    assert no_trace(await bytes_of(other)) == no_trace(await bytes_of("0199aaaa-0000-7000-8000-000000000000"))
    assert (await ask(door, f"/ledger/entries/{mine}", token))[0] == 200


async def test_visible_but_not_allowed_is_403(door: Client) -> None:
    org = await door.org()

    assert (await ask(door, f"/ledger/entries/{org}", door.token(org_id=org, roles=["User"])))[0] == 403
    service = await door.api_key(None, kind="service")
    assert (await ask(door, f"/ledger/entries/{org}", service))[0] == 403
    assert (await ask(door, "/partners", door.token(org_id=org, roles=["Admin"])))[0] == 403
    assert (await ask(door, "/partners", door.token(roles=["Operator"])))[0] == 200


async def test_a_tree_scope_reaches_descendants_and_a_plain_one_does_not(door: Client) -> None:
    root = await door.org()
    leaf = await door.org(await door.org(root))
    plain = await door.api_key(root, ["ledger:read"])
    tree = await door.api_key(root, ["ledger:read:tree"])

    assert (await ask(door, f"/ledger/entries/{leaf}", plain))[0] == 404
    assert (await ask(door, f"/ledger/entries/{leaf}", tree))[0] == 200
    assert (await ask(door, f"/ledger/entries/{root}", plain))[0] == 200


async def test_an_organisation_just_made_is_waited_for(door: Client) -> None:
    import asyncio

    org = new_id()
    asked = asyncio.create_task(ask(door, f"/ledger/entries/{org}", door.token(roles=["Operator"])))
    await asyncio.sleep(0.3)
    async with door.context.begin("system:test") as tx:
        from eb_kit import readmodels

        fact = OrgChanged(
            version=1, org_id=org, parent_org_id=None, parent_links=(), default_timezone="UTC", country="AU"
        )
        await readmodels.keep(tx.connection, [fact], door.context.clock.machine_now())

    assert (await asked)[0] == 200


async def test_without_a_credential_it_is_401_with_a_challenge(door: Client) -> None:
    async with door.http.get(door.url(WHO)) as answer:
        assert answer.status == 401
        assert answer.headers["WWW-Authenticate"].startswith("Bearer")
        assert answer.content_type == "application/problem+json"


async def test_what_another_context_would_show_is_403_and_the_rest_404(door: Client) -> None:
    mine, other, group, hidden = [await door.org() for _ in range(4)]
    below = await door.org(await door.org(group))
    user = new_id()
    token = door.token(org_id=mine, roles=["User", "GroupAdmin"], user_id=user)
    member = MemberChanged(version=1, org_id=other, user_id=user, role="Admin")
    await door.seed(
        member, MemberChanged(version=1, org_id=group, user_id=user, role="User", group_role="GroupSupport")
    )

    async def verdict(org: object) -> tuple[int, str]:
        status, body = await ask(door, f"/ledger/entries/{org}", token)
        return status, body.get("code", "")

    assert await verdict(mine) == (200, "")
    assert await verdict(other) == (403, "context_mismatch")
    assert await verdict(below) == (403, "context_mismatch")
    assert await verdict(hidden) == (404, "not_found")
    assert await verdict(await door.org(other)) == (404, "not_found")
    assert (await ask(door, f"/ledger/entries/{other}", door.token(user_id=user)))[0] == 403

    await door.seed(member.model_copy(update={"version": 2, "is_deleted": True}))
    assert await verdict(other) == (404, "not_found")


async def test_no_fact_gives_a_platform_role(door: Client) -> None:
    org, user = await door.org(), new_id()
    await door.seed(
        MemberChanged(version=1, org_id=org, user_id=user, role="Operator", group_role="Finance"),
        MemberChanged(version=1, org_id=await door.org(), user_id=user, role="Admin", group_role="Support"),
    )

    assert await door.context.directory.roles_of(user, org) == frozenset()
    assert (await ask(door, f"/ledger/entries/{org}", door.token(user_id=user)))[0] == 404
    assert (await ask(door, f"/ledger/entries/{org}", door.token(user_id=user, org_id=org)))[0] == 404


async def test_a_group_role_follows_a_move(door: Client) -> None:
    here, there = await door.org(), await door.org()
    moved = await door.org(here)
    leaf = await door.org(moved)
    tokens = [door.token(org_id=org, roles=["User", "GroupAdmin"]) for org in (here, there)]
    assert [(await ask(door, f"/ledger/entries/{leaf}", token))[0] for token in tokens] == [200, 404]

    fact = OrgChanged(
        version=2, org_id=moved, parent_org_id=there, parent_links=(), default_timezone="UTC", country="AU"
    )
    await door.seed(fact)

    assert [(await ask(door, f"/ledger/entries/{leaf}", token))[0] for token in tokens] == [404, 200]


@dataclass
class Helper:
    """Somebody in an assist session, and what their token hangs on."""

    door: Client
    org: UUID
    via: UUID | None = None
    user: UUID = field(default_factory=new_id)
    session: UUID = field(default_factory=new_id)
    assist: UUID = field(default_factory=new_id)

    def token(self, role: str = "assist_ro", **claims: Any) -> str:
        until = self.door.context.clock.now().timestamp() + 60
        about = {"via": str(self.via) if self.via else None, "until": until}
        made = {"act": {"sub": str(self.user)}, "assist": about, **claims}
        return self.door.token(
            roles=[role], org_id=self.org, user_id=self.assist, session_id=self.session, **made
        )


READERS = "/pricing/charges"


def reading_service() -> Service:
    routes = Routes("pricing")

    @routes.get("/pricing/charges")
    async def read(request: web.Request) -> web.Response:
        """Read as the row `charge_readers` says."""
        if "inside" in request.query:
            async with begin(request):
                await asyncio.sleep(0.05)
                await reach(request, UUID(request.query["org_id"]))
        await reach(request, UUID(request.query["org_id"]))
        return ok({"actor": caller(request).actor})

    return Service("pricing", "pricing", ServiceSettings, routes, Handlers())


@pytest.fixture
async def readers(fresh_db: Any, fresh_bus: str) -> AsyncIterator[Client]:
    async with running(reading_service(), fresh_db.dsn("pricing"), fresh_bus, doors=("api",)) as client:
        yield client


async def test_an_assist_session_reads_where_its_row_says_and_nothing_else(readers: Client) -> None:
    org, other = await readers.org(), await readers.org()
    below = await readers.org(org)
    helper = Helper(readers, org)

    assert await ask(readers, f"{READERS}?org_id={org}", helper.token()) == (
        200,
        {"actor": f"user:{helper.user}"},
    )
    for hidden in (other, below):
        assert (await ask(readers, f"{READERS}?org_id={hidden}", helper.token()))[0] == 404
    for claimed in ("Admin", "Operator", "GroupAdmin", "User"):
        assert (await ask(readers, f"{READERS}?org_id={org}", helper.token(claimed)))[0] == 404
    assert (await ask(readers, f"{READERS}?org_id={org}", readers.token(roles=["assist_rw"], org_id=org)))[
        0
    ] == 404
    assert (await ask(readers, f"{READERS}?org_id={org}", helper.token(act={})))[0] == 401
    assert (await ask(readers, f"{READERS}?org_id={org}", helper.token(assist={})))[0] == 401


async def test_many_who_look_at_what_is_hidden_inside_of_a_transaction_do_not_wait_for_each_other(
    readers: Client,
) -> None:
    org, other = await readers.org(), await readers.org()
    token, path = readers.token(roles=["Admin"], org_id=org), f"{READERS}?org_id={other}&inside=1"
    connections = readers.context.settings.pool_size
    started = time.monotonic()
    answers = await asyncio.gather(*(ask(readers, path, token) for _ in range(3 * connections)))
    assert {status for status, _ in answers} == {404}
    assert time.monotonic() - started < 2


async def test_money_and_staff_are_out_of_an_assist_sessions_reach(door: Client) -> None:
    org = await door.org()
    helper = Helper(door, org)

    assert (await ask(door, f"/ledger/entries/{org}", helper.token("assist_rw")))[0] == 403
    assert (await ask(door, "/partners", helper.token("assist_rw")))[0] == 403


async def test_an_assist_session_dies_with_whatever_it_hangs_on(readers: Client) -> None:
    group = await readers.org()
    org = await readers.org(group)
    path = f"{READERS}?org_id={org}"
    for via in (None, group):
        helper = Helper(readers, org, via)
        last = f"member:{group}:{helper.user}" if via else f"platform:{helper.user}"
        for subject in (f"assist:{helper.assist}", f"session:{helper.session}", last):
            token = helper.token()
            assert (await ask(readers, path, token))[0] == 200
            await readers.seed(
                AccessRevoked(version=1, subject_key=subject, not_before=readers.context.clock.machine_now())
            )
            assert (await ask(readers, path, token))[0] == 401, subject
    late = {"via": None, "until": readers.context.clock.now().timestamp() - 1}
    assert (await ask(readers, path, Helper(readers, org).token(assist=late)))[0] == 401
    left = Helper(readers, org, await readers.org())
    assert (await ask(readers, path, left.token()))[0] == 401


async def test_every_request_in_an_assist_session_leaves_an_entry_with_both_names(
    readers: Client, fresh_db: Any
) -> None:
    org = await readers.org()
    helper = Helper(readers, org)
    token = helper.token()
    for target in (org, new_id(), await readers.org()):
        await ask(readers, f"{READERS}?org_id={target}", token)

    owner = await asyncpg.connect(fresh_db.owner_dsn)
    entries = await owner.fetch(
        "SELECT org_id, actor, on_behalf_of, after->>'route' AS route FROM pricing.audit_entry"
        " WHERE entity = 'assist_request'"
    )
    await owner.close()
    wanted = (org, f"user:{helper.user}", f"org:{org}/assist:{helper.assist}", "GET /pricing/charges")
    assert [tuple(entry) for entry in entries] == [wanted] * 3


async def test_who_was_refused_stands_in_the_log_by_ids_and_is_counted(door: Client) -> None:
    mine, other, user = await door.org(), await door.org(), new_id()
    token = door.token(user_id=user, org_id=mine, roles=["User"])

    def count(code: str) -> float:
        return REGISTRY.get_sample_value("eb_http_refused_total", {"code": code}) or 0

    before = [count(code) for code in ("token_invalid", "forbidden", "out_of_reach")]
    level = structlog.get_config()["wrapper_class"]
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.INFO))
    try:
        with capture_logs() as lines:
            await ask(door, WHO, "a-token-of-nobody")
            await ask(door, f"/ledger/entries/{mine}", token)
            await ask(door, f"/ledger/entries/{other}", token)
            await ask(door, "/ledger/entries/no-id", token)
    finally:
        structlog.configure(wrapper_class=level)

    refused = [line for line in lines if line["event"] == "request refused"]
    assert [(line["code"], line["status"], line["actor"]) for line in refused] == [
        ("token_invalid", 401, None),
        ("forbidden", 403, f"user:{user}"),
        ("out_of_reach", 404, f"user:{user}"),
    ]
    assert all(line["route"].startswith("GET /ledger/entries") and line["request_id"] for line in refused)
    assert "a-token-of-nobody" not in str(lines)
    assert token not in str(lines)
    after = [count(code) for code in ("token_invalid", "forbidden", "out_of_reach")]
    assert after == [number + 1 for number in before]


def test_an_assist_session_may_nothing_that_a_user_may_not() -> None:
    for rows in policy().values():
        for route, names in rows.items():
            if names & ASSIST_ROLES:
                assert names & {"User", "signed_in"}, route
            if "assist_ro" in names:
                assert route.startswith(("GET ", "POST /pricing/estimate")), route
                assert "assist_rw" in names, route
            assert not ("assist_rw" in names and "billing" in route.lower()), route
