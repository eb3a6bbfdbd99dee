"""Organisations, members, projects and keys on the real database."""

from __future__ import annotations

import asyncio
import hashlib
import json
from datetime import timedelta
from uuid import uuid4

import jwt
import pytest

from .conftest import AuthService, Person, an_org

KEY_FACT = "SELECT body FROM auth.known WHERE entity = 'api_key' AND entity_id = $1"
pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest.fixture(name="auth")
def the_shared_service(shared_auth: AuthService) -> AuthService:
    """One service for the module."""
    return shared_auth


async def test_the_creator_is_admin_and_signs_in_there_from_then_on(auth: AuthService) -> None:
    person = await auth.sign_in()
    made = await person.call(
        "POST", "/orgs", {"legal_name": "Acme", "org_slug": "acme", "default_timezone": "Australia/Sydney"}
    )
    assert made.status == 201
    assert made.body["billing_email"] == person.email
    assert made.body["country"] == "AU"
    assert made.body["visibility"] == "private"
    assert made.body["parent_org_id"] is None

    again = await auth.sign_in(person.email)

    shown = await again.call("GET", f"/orgs/{made.body['org_id']}")
    assert shown.body == made.body
    me = (await again.call("GET", "/auth/me")).body
    assert me["memberships"] == [
        {"org_id": made.body["org_id"], "org_slug": "acme", "legal_name": "Acme", "role": "Admin"}
    ]
    assert me["org_id"] == me["default_org_id"] == made.body["org_id"]
    members = (await again.call("GET", f"/orgs/{made.body['org_id']}/members")).body["items"]
    assert [(m["user_id"], m["email"], m["role"], m["status"]) for m in members] == [
        (person.user_id, person.email, "Admin", "active")
    ]


BAD_ORGANISATIONS: list[tuple[dict[str, object], str, str]] = [
    ({"org_slug": "-acme"}, "/org_slug", "wrong_format"),
    ({"org_slug": "a"}, "/org_slug", "wrong_format"),
    ({"org_slug": "Acme"}, "/org_slug", "wrong_format"),
    ({"org_slug": "a" * 64}, "/org_slug", "wrong_format"),
    ({"legal_name": " "}, "/legal_name", "wrong_format"),
    ({"default_timezone": "Mars/Olympus"}, "/default_timezone", "unknown_timezone"),
    ({"billing_email": "nobody"}, "/billing_email", "not_an_email"),
    ({"visibility": "secret"}, "/visibility", "not_a_choice"),
    ({"link_org_id": str(uuid4())}, "/link_org_id", "unknown_field"),
    ({"country": "NZ"}, "/country", "unknown_field"),
]


async def test_a_bad_organisation_is_refused_with_its_place(auth: AuthService) -> None:
    for members, pointer, code in BAD_ORGANISATIONS:
        answer = await auth.call("POST", "/orgs", an_org(**members), **auth.client.auth())

        assert answer.status == 422
        assert [(e["pointer"], e["code"]) for e in answer.body["errors"]] == [(pointer, code)]


async def test_a_slug_is_taken_once_also_by_those_who_come_at_once(auth: AuthService) -> None:
    people = [await auth.sign_in() for _ in range(4)]

    answers = await asyncio.gather(*(p.call("POST", "/orgs", an_org(org_slug="popular")) for p in people))

    assert sorted(answer.status for answer in answers) == [201, 409, 409, 409]
    assert {a.body["code"] for a in answers if a.status == 409} == {"org_slug_taken"}
    members = "SELECT count(*) FROM auth.membership JOIN auth.organization USING (org_id) WHERE org_slug = 'popular'"
    assert await auth.owner.fetchval(members) == 1


async def test_an_organisation_is_changed_by_merge_patch(auth: AuthService) -> None:
    person = await auth.sign_in()
    org = await person.found_org(tax_id="T1")
    path = f"/orgs/{org['org_id']}"

    changed = await person.call("PATCH", path, {"legal_name": "New name", "tax_id": None})
    same = await person.call("PATCH", path, {"legal_name": "New name"})

    assert changed.status == same.status == 200
    assert changed.body == same.body == {**org, "legal_name": "New name", "tax_id": None}
    assert (await person.call("PATCH", path, {"legal_name": None})).status == 422
    versions = [
        row["version"]
        for row in await auth.owner.fetch(
            "SELECT version FROM auth.known WHERE entity = 'org' AND entity_id = $1", org["org_id"]
        )
    ]
    assert versions == [2]


async def test_the_country_is_the_operators(auth: AuthService) -> None:
    person = await auth.sign_in()
    org = await person.found_org()
    path = f"/orgs/{org['org_id']}"

    assert (await person.call("PATCH", path, {"country": "NZ"})).status == 403
    changed = await auth.call("PATCH", path, {"country": "NZ"}, **auth.staff("Operator"))

    assert changed.body["country"] == "NZ"


async def test_a_hidden_organisation_answers_like_a_missing_one(auth: AuthService) -> None:
    owner, stranger = await auth.sign_in(), await auth.sign_in()
    org = await owner.found_org()
    missing = str(uuid4())

    for method, path, body in (
        ("GET", "/orgs/{}", None),
        ("PATCH", "/orgs/{}", {"legal_name": "x"}),
        ("GET", "/orgs/{}/members", None),
        ("GET", "/orgs/{}/projects", None),
        ("POST", "/orgs/{}/projects", {"name": "x"}),
        ("GET", "/orgs/{}/api-keys", None),
        ("POST", "/orgs/{}/children", an_org()),
        ("GET", "/orgs/{}/descendants", None),
    ):
        hidden = await stranger.call(method, path.format(org["org_id"]), body)
        unknown = await stranger.call(method, path.format(missing), body)
        assert hidden.status == unknown.status == 404, path
        without_ids = [{**answer.body, "trace_id": "", "instance": ""} for answer in (hidden, unknown)]
        assert without_ids[0] == without_ids[1]


async def test_a_public_organisation_shows_strangers_name_and_slug(auth: AuthService) -> None:
    owner, stranger = await auth.sign_in(), await auth.sign_in()
    org = await owner.found_org(visibility="public")

    seen = await stranger.call("GET", f"/orgs/{org['org_id']}")

    assert seen.body == {name: org[name] for name in ("org_id", "legal_name", "org_slug")}


async def test_the_last_admin_stays(auth: AuthService) -> None:
    person = await auth.sign_in()
    org = await person.found_org()
    own = f"/orgs/{org['org_id']}/members/{person.user_id}"

    demoted = await person.call("PATCH", own, {"role": "User"})
    removed = await person.call("DELETE", own)

    assert (demoted.status, demoted.body["code"]) == (409, "last_admin")
    assert (removed.status, removed.body["code"]) == (409, "last_admin")


async def test_two_admins_who_demote_each_other_leave_one(auth: AuthService) -> None:
    for _ in range(5):
        one, two = await auth.sign_in(), await auth.sign_in()
        org = await one.found_org()
        await auth.join(two, org["org_id"], "Admin")

        await asyncio.gather(
            *(
                who.call("PATCH", f"/orgs/{org['org_id']}/members/{whom.user_id}", {"role": "User"})
                for who, whom in ((one, two), (two, one))
            )
        )

        roles = await auth.owner.fetch(
            "SELECT role FROM auth.membership WHERE org_id = $1::uuid", org["org_id"]
        )
        assert sorted(row["role"] for row in roles) == ["Admin", "User"]


async def test_another_role_voids_the_tokens_with_the_old_one(auth: AuthService) -> None:
    admin, member = await auth.sign_in(), await auth.sign_in()
    org = await admin.found_org()
    await auth.join(member, org["org_id"])
    path = f"/orgs/{org['org_id']}"
    assert (await member.call("GET", path)).status == 200

    changed = await admin.call("PATCH", f"{path}/members/{member.user_id}", {"role": "Admin"})

    assert changed.body["role"] == "Admin"
    assert await becomes(401, member, path)
    assert (await member.refresh()).status == 200
    assert (await member.call("PATCH", path, {"legal_name": "By the new Admin"})).status == 200


async def becomes(status: int, person: Person, path: str) -> bool:
    """Tell whether a GET answers with this status within a second."""
    for _ in range(20):
        if (await person.call("GET", path)).status == status:
            return True
        await asyncio.sleep(0.05)
    return False


async def test_a_removed_member_is_out_and_a_user_removes_only_themselves(auth: AuthService) -> None:
    admin, member, other = [await auth.sign_in() for _ in range(3)]
    org = await admin.found_org()
    await auth.join(member, org["org_id"])
    await auth.join(other, org["org_id"])
    path = f"/orgs/{org['org_id']}"

    assert (await member.call("DELETE", f"{path}/members/{other.user_id}")).status == 403
    assert (await member.call("DELETE", f"{path}/members/{member.user_id}")).status == 204

    assert await becomes(401, member, path)
    assert (await member.refresh(org["org_id"])).status == 404
    assert (await admin.call("DELETE", f"{path}/members/{member.user_id}")).status == 404


async def test_projects_are_created_changed_and_paged(auth: AuthService) -> None:
    person = await auth.sign_in()
    org = await person.found_org()
    path = f"/orgs/{org['org_id']}/projects"
    made = [(await person.call("POST", path, {"name": f"P{n}"})).body for n in range(3)]

    first = (await person.call("GET", f"{path}?limit=2")).body
    rest = (await person.call("GET", f"{path}?limit=2&cursor={first['next_cursor']}")).body

    assert first["items"] + rest["items"] == made[::-1]
    assert rest["next_cursor"] is None
    changed = await person.call(
        "PATCH", f"{path}/{made[0]['project_id']}", {"name": "New", "cost_center_id": str(uuid4())}
    )
    assert changed.body["name"] == "New"
    fact = await auth.owner.fetchval(
        "SELECT body FROM auth.known WHERE entity = 'project' AND entity_id = $1", made[0]["project_id"]
    )
    assert json.loads(fact)["cost_center_id"] == changed.body["cost_center_id"]


async def test_a_user_sets_no_cost_center(auth: AuthService) -> None:
    admin, member = await auth.sign_in(), await auth.sign_in()
    org = await admin.found_org()
    await auth.join(member, org["org_id"])
    path = f"/orgs/{org['org_id']}/projects"
    project = (await member.call("POST", path, {"name": "P"})).body

    named = await member.call("PATCH", f"{path}/{project['project_id']}", {"name": "Q"})
    refused = await member.call("PATCH", f"{path}/{project['project_id']}", {"cost_center_id": None})

    assert (named.status, refused.status) == (200, 403)


async def test_a_project_of_another_organisation_is_not_there(auth: AuthService) -> None:
    one, two = await auth.sign_in(), await auth.sign_in()
    org, others = await one.found_org(), await two.found_org()
    project = (await two.call("POST", f"/orgs/{others['org_id']}/projects", {"name": "P"})).body

    answer = await one.call("PATCH", f"/orgs/{org['org_id']}/projects/{project['project_id']}", {"name": "Q"})

    assert answer.status == 404


async def test_a_key_is_shown_once_kept_as_a_hash_and_revoked(auth: AuthService, scope: str) -> None:
    person = await auth.sign_in()
    org = await person.found_org()
    path = f"/orgs/{org['org_id']}/api-keys"

    made = await person.call("POST", path, {"name": "ci", "scopes": [scope, scope]})
    key = made.body.pop("key")
    listed = (await person.call("GET", path)).body["items"]

    assert made.status == 201
    assert key.startswith(made.body["prefix"] + "_")
    assert len(key.removeprefix(made.body["prefix"] + "_")) == 43
    assert made.body["scopes"] == [scope]
    assert listed == [made.body]
    fact = json.loads(await auth.owner.fetchval(KEY_FACT, made.body["key_id"]))
    assert fact["secret_sha256"] == hashlib.sha256(key.encode()).hexdigest()
    kept = await auth.owner.fetch("SELECT * FROM auth.api_key")
    assert key not in repr(kept)

    for _ in range(2):
        assert (await person.call("DELETE", f"{path}/{made.body['key_id']}")).status == 204
    fact = await auth.owner.fetchrow(KEY_FACT.replace("body", "version, body"), made.body["key_id"])
    assert fact["version"] == 2
    assert json.loads(fact["body"])["revoked_at"] is not None


@pytest.fixture
def scope() -> str:
    """A scope that some route takes."""
    from eb_kit.policy import known_scopes

    return min(known_scopes())


async def test_a_key_with_an_unknown_scope_or_an_end_in_the_past_is_refused(
    auth: AuthService, scope: str
) -> None:
    person = await auth.sign_in()
    path = f"/orgs/{(await person.found_org())['org_id']}/api-keys"
    past = (auth.client.context.clock.now() - timedelta(minutes=1)).isoformat()

    unknown = await person.call("POST", path, {"name": "k", "scopes": [scope, "money:print"]})
    empty = await person.call("POST", path, {"name": "k", "scopes": []})
    expired = await person.call("POST", path, {"name": "k", "scopes": [scope], "expires_at": past})

    assert [(e["pointer"], e["code"]) for e in unknown.body["errors"]] == [("/scopes/1", "unknown_scope")]
    assert (unknown.status, empty.status, expired.status) == (422, 422, 422)
    assert expired.body["errors"][0]["pointer"] == "/expires_at"


async def test_a_keys_answer_is_not_repeated(auth: AuthService, scope: str) -> None:
    person = await auth.sign_in()
    path = f"/orgs/{(await person.found_org())['org_id']}/api-keys"
    body = {"name": "k", "scopes": [scope]}

    first = await person.call("POST", path, body, **{"Idempotency-Key": "one"})
    again = await person.call("POST", path, body, **{"Idempotency-Key": "one"})

    assert first.status == 201
    assert (again.status, again.body["code"]) == (409, "answer_not_repeatable")


async def test_an_organisation_is_created_once_per_idempotency_key(auth: AuthService) -> None:
    person = await auth.sign_in()
    body = an_org()

    answers = [await person.call("POST", "/orgs", body, **{"Idempotency-Key": "k"}) for _ in range(2)]

    assert [answer.status for answer in answers] == [201, 201]
    assert answers[0].body == answers[1].body


async def test_what_matters_leaves_its_entry_with_actor_before_and_after(
    auth: AuthService, scope: str
) -> None:
    admin, member = await auth.sign_in(), await auth.sign_in()
    org = await admin.found_org()
    await auth.join(member, org["org_id"])
    path = f"/orgs/{org['org_id']}"
    await admin.call("PATCH", path, {"legal_name": "Renamed"})
    await admin.call("PATCH", f"{path}/members/{member.user_id}", {"role": "Admin"})
    await admin.call("DELETE", f"{path}/members/{member.user_id}")
    await admin.call("POST", f"{path}/api-keys", {"name": "k", "scopes": [scope]})

    entries = await auth.owner.fetch(
        "SELECT entity, action, actor, before, after FROM auth.audit_entry WHERE org_id = $1::uuid"
        " ORDER BY audit_id",
        org["org_id"],
    )

    assert [(e["entity"], e["action"]) for e in entries] == [
        ("organization", "insert"),
        ("membership", "insert"),
        ("membership", "insert"),
        ("organization", "update"),
        ("membership", "update"),
        ("membership", "delete"),
        ("api_key", "insert"),
    ]
    assert {e["actor"] for e in entries} == {f"user:{admin.user_id}", "system:test"}
    role = entries[4]
    assert (json.loads(role["before"])["role"], json.loads(role["after"])["role"]) == ("User", "Admin")


async def test_no_token_with_an_old_role_outlives_the_change_and_none_with_the_new_dies(
    auth: AuthService,
) -> None:
    admin, member = await auth.sign_in(), await auth.sign_in()
    org_id = (await admin.found_org())["org_id"]
    await auth.join(member, org_id)
    devices = [member] + [await auth.sign_in(member.email) for _ in range(4)]
    path = f"/orgs/{org_id}/members/{member.user_id}"
    for role in ("Admin", "User") * 4:
        seen: list[dict[str, object]] = []

        async def refresh(device: Person, seen: list[dict[str, object]] = seen) -> None:
            for _ in range(3):
                assert (await device.refresh(org_id)).status == 200
                seen.append(jwt.decode(device.tokens["access_token"], options={"verify_signature": False}))

        changed, *_ = await asyncio.gather(
            admin.call("PATCH", path, {"role": role}), *(refresh(device) for device in devices)
        )
        assert changed.status == 200
        not_before = await auth.owner.fetchval(
            "SELECT not_before FROM auth.access_revocation WHERE subject_key = $1",
            f"member:{org_id}:{member.user_id}",
        )
        for claims in seen:
            is_void = float(str(claims["iat"])) <= not_before.timestamp()
            assert is_void == (claims["roles"] != [role])
