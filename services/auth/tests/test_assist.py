"""Assist sessions: who may start them, what they may, who is told, and what ends them."""

from __future__ import annotations

import asyncio
import json
import logging
from datetime import timedelta
from email.message import Message
from typing import Any
from uuid import UUID, uuid4

import jwt
import pytest
import structlog
from structlog.testing import capture_logs

from eb_tools.identity import revoke_platform_role

from .conftest import Answer, AuthService, Person, an_org
from .test_groups import give
from .test_links import detach, link, root_of, verdict, within

pytestmark = pytest.mark.asyncio(loop_scope="module")
PURPOSES = ("customer_request", "incident", "billing_query", "onboarding", "security")
WHY = {"purpose": "incident", "reason": "Invoices look wrong to them", "ttl_minutes": 30}


@pytest.fixture(name="auth")
def the_shared_service(shared_auth: AuthService) -> AuthService:
    """One service for the module."""
    return shared_auth


async def supporter(auth: AuthService) -> Person:
    """Somebody of the platform's support staff."""
    person = await auth.sign_in()
    async with auth.owner.transaction():
        await auth.owner.execute("SELECT set_config('eb.actor', 'system:test', true)")
        await auth.owner.execute(
            "INSERT INTO auth.platform_role VALUES ($1, 'Support', 'test', $2)",
            UUID(person.user_id),
            auth.client.context.clock.now(),
        )
    assert (await person.refresh()).status == 200
    return person


async def start(helper: Person, org: str, **members: object) -> Answer:
    return await helper.call("POST", "/assist-sessions", {"org_id": org, **WHY, **members})


async def inside(auth: AuthService, started: Answer, method: str, path: str, body: object = None) -> Answer:
    """Call with the token of an assist session."""
    assert started.status == 201, started.body
    bearer = {"Authorization": f"Bearer {started.body['access_token']}"}
    return await auth.call(method, path, body, **bearer)


async def dies(auth: AuthService, started: Answer, org: str) -> bool:
    """Tell whether the token of an assist session is void within a second."""
    for _ in range(20):
        if (await inside(auth, started, "GET", f"/orgs/{org}")).status == 401:
            return True
        await asyncio.sleep(0.05)
    return False


def text_of(mail: Message) -> str:
    return bytes(mail.get_payload(decode=True)).decode()


async def status_in_list(admin: Person, org: str, assist_session_id: str) -> str:
    items = (await within(admin, org, "GET", f"/orgs/{org}/assist-sessions")).body["items"]
    return str(next(i["status"] for i in items if i["assist_session_id"] == assist_session_id))


async def test_support_reads_in_their_own_name_and_changes_nothing(auth: AuthService) -> None:
    admin, helper = await auth.sign_in(), await supporter(auth)
    org = await root_of(admin)

    started = await start(helper, org, ticket="T-1")

    assert (started.status, started.body["mode"]) == (201, "read_only")
    claims = jwt.decode(started.body["access_token"], options={"verify_signature": False})
    assert claims["act"] == {"sub": helper.user_id}
    assert (claims["org"], claims["roles"]) == (org, ["assist_ro"])
    assert 29 * 60 < claims["exp"] - claims["iat"] <= 30 * 60
    for path in ("", "/members", "/projects", "/children"):
        assert (await inside(auth, started, "GET", f"/orgs/{org}{path}")).status == 200, path
    me = (await inside(auth, started, "GET", "/auth/me")).body
    assert (me["user_id"], me["org_id"], me["memberships"]) == (helper.user_id, org, [])
    assert me["assist_session_id"] == started.body["assist_session_id"]
    made = await inside(auth, started, "POST", f"/orgs/{org}/projects", {"name": "P"})
    assert verdict(made) == (403, "forbidden")


async def test_read_write_does_what_a_user_does_and_no_more(auth: AuthService) -> None:
    admin, helper = await auth.sign_in(), await supporter(auth)
    org = await root_of(admin)
    started = await start(helper, org, mode="read_write")

    made = await inside(auth, started, "POST", f"/orgs/{org}/projects", {"name": "P"})
    assert made.status == 201
    path = f"/orgs/{org}/projects/{made.body['project_id']}"
    assert (await inside(auth, started, "PATCH", path, {"name": "Q"})).status == 200
    for method, target, body in (
        ("PATCH", path, {"cost_center_id": None}),
        ("PATCH", f"/orgs/{org}", {"legal_name": "N"}),
        ("PATCH", f"/orgs/{org}/members/{admin.user_id}", {"role": "User"}),
        ("DELETE", f"/orgs/{org}/members/{admin.user_id}", None),
        ("POST", f"/orgs/{org}/children", an_org()),
        ("POST", f"/orgs/{org}:detach", None),
        ("POST", f"/groups/{org}/roles", {"user_id": admin.user_id, "role": "GroupAdmin"}),
        ("POST", f"/orgs/{org}/api-keys", {"name": "k", "scopes": ["metering:read"]}),
        ("POST", "/assist-sessions", {"org_id": org, **WHY}),
        ("POST", f"/assist-sessions/{started.body['assist_session_id']}:end", None),
        ("GET", "/auth/sessions", None),
        ("POST", "/orgs", an_org()),
    ):
        assert verdict(await inside(auth, started, method, target, body)) == (403, "forbidden"), (
            method,
            target,
        )
    other = await root_of(admin)
    assert (await inside(auth, started, "GET", f"/orgs/{other}")).status == 404


async def test_every_request_inside_is_in_audit_and_log_under_both_names(auth: AuthService) -> None:
    admin, helper = await auth.sign_in(), await supporter(auth)
    org = await root_of(admin)
    started = await start(helper, org, mode="read_write")
    level = structlog.get_config()["wrapper_class"]
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.INFO))
    try:
        with capture_logs() as lines:
            await inside(auth, started, "GET", f"/orgs/{org}")
            await inside(auth, started, "POST", f"/orgs/{org}/projects", {"name": "P"})
            await inside(auth, started, "PATCH", f"/orgs/{org}", {"legal_name": "N"})
    finally:
        structlog.configure(wrapper_class=level)

    entries = await auth.owner.fetch(
        "SELECT entity, actor, on_behalf_of, after->>'route' AS route FROM auth.audit_entry"
        " WHERE org_id = $1::uuid AND on_behalf_of IS NOT NULL ORDER BY audit_id",
        org,
    )
    assert {e["actor"] for e in entries} == {f"user:{helper.user_id}"}
    assert {e["on_behalf_of"] for e in entries} == {f"org:{org}/assist:{started.body['assist_session_id']}"}
    assert [e["route"] for e in entries if e["entity"] == "assist_request"] == [
        "GET /orgs/{org_id}",
        "POST /orgs/{org_id}/projects",
        "PATCH /orgs/{org_id}",
    ]
    assert [e["entity"] for e in entries if e["entity"] != "assist_request"] == ["project"]
    logged = [line for line in lines if line["event"] == "request in an assist session"]
    both = {(f"user:{helper.user_id}", f"org:{org}/assist:{started.body['assist_session_id']}")}
    assert len(logged) == 3
    assert {(line["actor"], line["on_behalf_of"]) for line in logged} == both
    own = await auth.owner.fetch(
        "SELECT action, actor, on_behalf_of FROM auth.audit_entry"
        " WHERE entity = 'assist_session' AND org_id = $1::uuid",
        org,
    )
    assert [tuple(entry) for entry in own] == [("insert", f"user:{helper.user_id}", None)]


async def test_the_admins_are_told_and_see_the_list(auth: AuthService) -> None:
    admin, second, helper = await auth.sign_in(), await auth.sign_in(), await supporter(auth)
    org = await root_of(admin)
    await auth.join(second, org, "Admin")

    started = await start(helper, org)

    mails = [m for m in await auth.mails() if m["X-EB-Kind"] == "assist_started"]
    assert {mail["To"] for mail in mails} == {admin.email, second.email}
    assert all(helper.email in mail["Subject"] and WHY["reason"] in text_of(mail) for mail in mails)
    [shown] = (await within(admin, org, "GET", f"/orgs/{org}/assist-sessions")).body["items"]
    assert (shown["email"], shown["status"], shown["reason"]) == (helper.email, "active", WHY["reason"])
    assert shown["assist_session_id"] == started.body["assist_session_id"]
    assert "token" not in json.dumps(shown)


BAD: list[dict[str, object]] = [
    {"reason": "too short"},
    {"reason": "x" * 501},
    {"ttl_minutes": 0},
    {"ttl_minutes": 61},
    {"purpose": "curiosity"},
    {"mode": "admin"},
    {"org_id": "x"},
]


async def test_what_is_just_allowed_is_allowed(auth: AuthService) -> None:
    admin, helper = await auth.sign_in(), await supporter(auth)
    org = await root_of(admin)
    for members in (
        {"reason": "x" * 10, "ttl_minutes": 1},
        {"reason": "x" * 500, "ttl_minutes": 60},
        *({"purpose": purpose} for purpose in PURPOSES),
    ):
        started = await start(helper, org, **members)
        assert started.status == 201, members
        assert set(started.body) == {"assist_session_id", "access_token", "expires_at", "mode"}


async def test_a_bad_request_and_people_without_the_role_are_refused(auth: AuthService) -> None:
    admin, helper, user = await auth.sign_in(), await supporter(auth), await auth.sign_in()
    org = await root_of(admin)
    await auth.join(user, org)

    for members in BAD:
        assert (await start(helper, org, **members)).status == 422, members
    assert (await start(helper, str(uuid4()))).status == 404
    assert (await start(admin, org)).status == 403
    assert (await start(user, org)).status == 403
    assert (await start(await auth.sign_in(), org)).status == 404
    minted = await auth.call("POST", "/assist-sessions", {"org_id": org, **WHY}, **auth.staff("Support"))
    assert minted.status == 401


async def test_an_organisation_may_want_none_or_be_asked_first(auth: AuthService) -> None:
    admin, helper = await auth.sign_in(), await supporter(auth)
    org = await root_of(admin)
    running = await start(helper, org)
    operator = await auth.call("PATCH", f"/orgs/{org}", {"assist_policy": "off"}, **auth.staff("Operator"))
    assert verdict(operator) == (403, "forbidden")

    off = await within(admin, org, "PATCH", f"/orgs/{org}", {"assist_policy": "off"})

    assert off.body["assist_policy"] == "off"
    assert await dies(auth, running, org)
    assert await status_in_list(admin, org, running.body["assist_session_id"]) == "ended"
    assert verdict(await start(helper, org)) == (403, "assist_off")

    await admin.call("PATCH", f"/orgs/{org}", {"assist_policy": "approve"})
    asked = await start(helper, org)
    again = await start(helper, org)
    assert (asked.status, asked.body["status"]) == (202, "pending")
    assert again.body == asked.body
    [mail] = [m for m in await auth.mails() if m["X-EB-Kind"] == "assist_requested"]
    assert asked.body["assist_session_id"] in text_of(mail)
    path = f"/assist-sessions/{asked.body['assist_session_id']}"
    assert (await helper.call("POST", f"{path}:approve")).status == 403
    assert (await (await auth.sign_in()).call("POST", f"{path}:approve")).status == 404
    approved = [await admin.call("POST", f"{path}:approve") for _ in range(2)]
    assert [(a.status, a.body["status"]) for a in approved] == [(200, "approved")] * 2
    assert verdict(await admin.call("POST", f"{path}:decline")) == (409, "assist_not_pending")
    assert (await start(helper, org, mode="read_write")).status == 202

    begun = await start(helper, org)
    assert begun.body["assist_session_id"] == asked.body["assist_session_id"]
    assert (await inside(auth, begun, "GET", f"/orgs/{org}")).status == 200
    assert (await start(helper, org)).status == 202


async def test_a_request_lapses_after_a_day_or_when_none_are_wanted(auth: AuthService) -> None:
    admin, helper = await auth.sign_in(), await supporter(auth)
    org = await root_of(admin)
    await admin.call("PATCH", f"/orgs/{org}", {"assist_policy": "approve"})
    late, unwanted = [(await start(helper, org, ticket=t)).body["assist_session_id"] for t in "12"]
    await auth.owner.execute("SELECT set_config('eb.actor', 'system:test', false)")
    asked_at, ends = await auth.owner.fetchrow(
        "SELECT requested_at, expires_at FROM auth.assist_session WHERE assist_session_id = $1::uuid", late
    )
    await auth.owner.execute(
        "UPDATE auth.assist_session SET expires_at = requested_at WHERE assist_session_id = $1::uuid", late
    )

    assert ends - asked_at == timedelta(hours=24)
    assert verdict(await admin.call("POST", f"/assist-sessions/{late}:approve")) == (
        409,
        "assist_not_pending",
    )
    assert (await start(helper, org, ticket="1")).body["assist_session_id"] != late
    assert (await admin.call("POST", f"/assist-sessions/{unwanted}:approve")).status == 200
    await admin.call("PATCH", f"/orgs/{org}", {"assist_policy": "off"})
    await admin.call("PATCH", f"/orgs/{org}", {"assist_policy": "approve"})
    assert await status_in_list(admin, org, unwanted) == "ended"
    assert (await start(helper, org, ticket="2")).status == 202


async def test_a_declined_request_begins_nothing(auth: AuthService) -> None:
    admin, helper = await auth.sign_in(), await supporter(auth)
    org = await root_of(admin)
    await admin.call("PATCH", f"/orgs/{org}", {"assist_policy": "approve"})
    asked = (await start(helper, org)).body["assist_session_id"]

    declined = [await admin.call("POST", f"/assist-sessions/{asked}:decline") for _ in range(2)]

    assert [d.body["status"] for d in declined] == ["declined"] * 2
    assert verdict(await admin.call("POST", f"/assist-sessions/{asked}:approve")) == (
        409,
        "assist_not_pending",
    )
    assert (await start(helper, org)).body["assist_session_id"] != asked


async def test_it_is_ended_by_its_starter_or_an_admin_and_twice_is_fine(auth: AuthService) -> None:
    admin, helper, user = await auth.sign_in(), await supporter(auth), await auth.sign_in()
    org = await root_of(admin)
    await auth.join(user, org)
    for ender in (helper, admin):
        started = await start(helper, org)
        path = f"/assist-sessions/{started.body['assist_session_id']}:end"
        assert (await user.call("POST", path)).status == 403
        assert (await (await supporter(auth)).call("POST", path)).status == 403
        assert (await (await auth.sign_in()).call("POST", path)).status == 404

        ended = [await ender.call("POST", path) for _ in range(2)]

        assert [(e.status, e.body["status"]) for e in ended] == [(200, "ended")] * 2
        assert await dies(auth, started, org)
    operator = await start(helper, org)
    path = f"/assist-sessions/{operator.body['assist_session_id']}:end"
    assert (await auth.call("POST", path, **auth.staff("Operator"))).status == 200


async def test_it_ends_with_the_helpers_own_session_and_role(auth: AuthService) -> None:
    admin, helper = await auth.sign_in(), await supporter(auth)
    org = await root_of(admin)
    started = await start(helper, org)

    assert (await helper.call("DELETE", f"/auth/sessions/{helper.tokens['session_id']}")).status == 204

    assert await dies(auth, started, org)
    assert await status_in_list(admin, org, started.body["assist_session_id"]) == "ended"


async def test_it_ends_when_the_platforms_role_is_taken(auth: AuthService) -> None:
    admin, helper = await auth.sign_in(), await supporter(auth)
    org = await root_of(admin)
    started = await start(helper, org)

    assert await revoke_platform_role(auth.owner_dsn, helper.email, "Support", {})

    assert await dies(auth, started, org)
    assert await status_in_list(admin, org, started.body["assist_session_id"]) == "ended"
    assert (await helper.refresh()).status == 200
    assert (await start(helper, org)).status == 404


async def test_it_ends_when_its_time_is_up(auth: AuthService) -> None:
    admin, helper = await auth.sign_in(), await supporter(auth)
    org = await root_of(admin)
    started = await start(helper, org, ttl_minutes=5)
    clock = auth.client.context.settings.clock_file
    clock.write_text("301")
    await asyncio.sleep(0.15)
    try:
        assert (await inside(auth, started, "GET", f"/orgs/{org}")).status == 401
        assert await status_in_list(admin, org, started.body["assist_session_id"]) == "expired"
    finally:
        clock.write_text("0")
        await asyncio.sleep(0.15)


async def test_group_support_helps_below_and_is_out_when_role_or_group_is(auth: AuthService) -> None:
    admin, helper = await auth.sign_in(), await auth.sign_in()
    group, other = await root_of(admin), await root_of(admin)
    org = await root_of(admin)
    assert (await link(admin, group, org)).status == 201
    await auth.join(helper, group)
    await give(admin, group, helper.user_id, "GroupSupport")
    assert (await helper.refresh(group)).status == 200

    async def begin() -> Answer:
        async with asyncio.timeout(2):
            while (started := await start(helper, org)).status == 404:
                await asyncio.sleep(0.05)
        assert (await inside(auth, started, "GET", f"/orgs/{org}/projects")).status == 200
        return started

    async def leave() -> Answer:
        return await detach(admin, org)

    async def move_away() -> Answer:
        return await within(admin, org, "POST", f"/orgs/{org}:move", {"parent_org_id": other})

    async def replace_role() -> Answer:
        body = {"user_id": helper.user_id, "role": "GroupBilling"}
        return await within(admin, group, "POST", f"/groups/{group}/roles", body)

    async def take_role() -> Answer:
        return await within(admin, group, "DELETE", f"/groups/{group}/roles/{helper.user_id}")

    async def end_membership() -> Answer:
        return await within(admin, group, "DELETE", f"/orgs/{group}/members/{helper.user_id}")

    assert (await start(helper, other)).status == 404
    for losing in (leave, move_away, replace_role, take_role, end_membership):
        started = await begin()
        assert (await losing()).status in (200, 204), losing
        assert await dies(auth, started, org), losing
        assert await status_in_list(admin, org, started.body["assist_session_id"]) == "ended"
        back = await within(admin, org, "POST", f"/orgs/{org}:move", {"parent_org_id": group})
        assert back.status == 200
        if losing in (replace_role, take_role):
            await give(admin, group, helper.user_id, "GroupSupport")
            assert (await helper.refresh(group)).status == 200


async def test_beginning_and_losing_the_membership_at_once_wait_for_each_other(auth: AuthService) -> None:
    """Both lock the organisation before the membership, also where the role is on the organisation itself."""
    admin, helper = await auth.sign_in(), await auth.sign_in()
    org = await root_of(admin)
    for _ in range(5):
        await auth.join(helper, org)
        await give(admin, org, helper.user_id, "GroupSupport")
        assert (await helper.refresh(org)).status == 200

        *started, removed = await asyncio.gather(
            *(start(helper, org) for _ in range(4)),
            admin.call("DELETE", f"/orgs/{org}/members/{helper.user_id}"),
        )

        assert removed.status == 204
        assert {answer.status for answer in started} <= {201, 401, 403, 404}
        for answer in started:
            assert answer.status != 201 or await dies(auth, answer, org)


async def test_no_mail_and_no_fact_of_it_names_what_it_should_not(auth: AuthService) -> None:
    admin, helper = await auth.sign_in(), await supporter(auth)
    org = await root_of(admin)
    key = {"Idempotency-Key": "assist-once"}
    body: dict[str, Any] = {"org_id": org, **WHY}

    first = await helper.call("POST", "/assist-sessions", body, **key)
    again = await helper.call("POST", "/assist-sessions", body, **key)

    assert (first.status, verdict(again)) == (201, (409, "answer_not_repeatable"))
    facts = await auth.owner.fetch("SELECT body::text FROM auth.outbox")
    assert not any(helper.email.encode() in row["body"].encode() for row in facts)
