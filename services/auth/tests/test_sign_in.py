"""Codes, sessions, rotation and revocation on the real database."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from pathlib import Path
from uuid import UUID, uuid4

import jwt
import structlog
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from jwt import PyJWK
from structlog.testing import capture_logs

from eb_auth.domain.codes import challenge_of
from eb_kit.testing_db import ClonedDatabase

from .conftest import AuthService, Person, serving


async def test_a_code_signs_in_and_makes_the_user(auth: AuthService) -> None:
    person = await auth.sign_in("New.Person@Example.org")

    me = await person.call("GET", "/auth/me")

    assert me.status == 200
    assert me.body["email"] == "new.person@example.org"
    assert me.body["memberships"] == []
    assert person.tokens["token_type"] == "Bearer"
    assert person.tokens["expires_in"] == 300


async def test_login_answers_the_same_bytes_for_known_and_unknown_addresses(auth: AuthService) -> None:
    await auth.sign_in("known@example.org")

    known = await auth.call("POST", "/auth/login", {"email": "known@example.org"})
    unknown = await auth.call("POST", "/auth/login", {"email": "unknown@example.org"})

    assert known.status == unknown.status == 202
    assert known.raw == unknown.raw


async def test_a_wrong_code_answers_the_same_whether_or_not_one_was_asked_for(auth: AuthService) -> None:
    await auth.ask_code("asked@example.org")

    asked = await auth.call("POST", "/auth/sessions", {"email": "asked@example.org", "code": "x"})
    never = await auth.call("POST", "/auth/sessions", {"email": "never@example.org", "code": "x"})

    assert asked.status == never.status == 401
    assert asked.body["code"] == "code_invalid"
    assert {**asked.body, "trace_id": ""} == {**never.body, "trace_id": ""}


async def test_a_code_works_once(auth: AuthService) -> None:
    person = await auth.sign_in("once@example.org")
    [code] = auth.codes("once@example.org")

    again = await auth.call("POST", "/auth/sessions", {"email": person.email, "code": code})

    assert again.status == 401


async def test_a_code_dies_after_five_wrong_guesses_even_when_they_come_at_once(auth: AuthService) -> None:
    code = await auth.ask_code("victim@example.org")
    wrong = [f"{number:08}" for number in range(20) if f"{number:08}" != code]

    async def guess(text: str) -> int:
        return (
            await auth.call("POST", "/auth/sessions", {"email": "victim@example.org", "code": text})
        ).status

    assert set(await asyncio.gather(*map(guess, wrong))) == {401}
    assert await guess(code) == 401


async def test_four_wrong_guesses_leave_the_code_alive(auth: AuthService) -> None:
    code = await auth.ask_code("clumsy@example.org")
    for _ in range(4):
        await auth.call("POST", "/auth/sessions", {"email": "clumsy@example.org", "code": "nope"})

    answer = await auth.call("POST", "/auth/sessions", {"email": "clumsy@example.org", "code": code})

    assert answer.status == 201


async def test_a_code_dies_after_ten_minutes(auth: AuthService) -> None:
    code = await auth.ask_code("slow@example.org")
    await auth.advance(601)

    answer = await auth.call("POST", "/auth/sessions", {"email": "slow@example.org", "code": code})

    assert answer.status == 401


async def test_one_code_used_twice_at_once_signs_in_once(auth: AuthService) -> None:
    code = await auth.ask_code("twice@example.org")
    body = {"email": "twice@example.org", "code": code}

    answers = await asyncio.gather(*(auth.call("POST", "/auth/sessions", body) for _ in range(6)))

    assert sorted(answer.status for answer in answers) == [201, 401, 401, 401, 401, 401]


async def test_secrets_lie_hashed_or_sealed(auth: AuthService) -> None:
    person = await auth.sign_in("secret@example.org")
    code = await auth.ask_code("secret@example.org")
    refresh_token = person.tokens["refresh_token"].encode()

    rows = [
        bytes(value)
        for table, column in (
            ("login_code", "code_hmac"),
            ("refresh_token", "token_sha256"),
            ("signing_key", "sealed_private"),
        )
        for (value,) in await auth.owner.fetch(f"SELECT {column} FROM auth.{table}")
    ]

    assert not any(code.encode() in row or refresh_token in row for row in rows)


async def test_refresh_rotates_and_keeps_the_session(auth: AuthService) -> None:
    person = await auth.sign_in()
    before = dict(person.tokens)

    assert (await person.refresh()).status == 200

    assert person.tokens["session_id"] == before["session_id"]
    assert person.tokens["refresh_token"] != before["refresh_token"]
    assert (await person.call("GET", "/auth/me")).status == 200


async def test_of_refreshes_at_once_one_wins_and_the_session_lives(auth: AuthService) -> None:
    for _ in range(5):
        person = await auth.sign_in()
        tabs = [Person(auth, person.email, dict(person.tokens)) for _ in range(6)]

        answers = await asyncio.gather(*(tab.refresh() for tab in tabs))

        assert sorted(answer.status for answer in answers) == [200, 401, 401, 401, 401, 401]
        [winner] = [tab for tab in tabs if tab.tokens != person.tokens]
        assert (await winner.refresh()).status == 200


async def test_a_token_used_again_after_the_grace_ends_the_whole_family(auth: AuthService) -> None:
    person = await auth.sign_in()
    thief = Person(auth, person.email, dict(person.tokens))
    await person.refresh()
    await auth.advance(11)

    assert (await thief.refresh()).status == 401

    assert (await person.refresh()).status == 401
    assert await becomes_401(person)
    reason = await auth.owner.fetchval("SELECT revoked_reason FROM auth.session")
    assert reason == "token_reused"


async def becomes_401(person: Person, within_s: float = 1.0) -> bool:
    """Tell whether the access token stops working in time."""
    until = time.monotonic() + within_s
    while time.monotonic() < until:
        if (await person.call("GET", "/auth/me")).status == 401:
            return True
        await asyncio.sleep(0.05)
    return False


async def test_an_idle_session_ends_and_so_does_an_old_one(auth: AuthService) -> None:
    idle, old = await auth.sign_in(), await auth.sign_in()
    for day in range(13, 91, 13):
        await auth.advance(day * 86_400)
        assert (await old.refresh()).status == 200
    assert (await idle.refresh()).status == 401
    await auth.advance(90 * 86_400)

    assert (await old.refresh()).status == 401


async def test_sessions_are_listed_and_revoked(auth: AuthService) -> None:
    phone = await auth.sign_in()
    laptop = await auth.sign_in(phone.email)

    listed = await laptop.call("GET", "/auth/sessions")
    gone = await laptop.call("DELETE", f"/auth/sessions/{phone.tokens['session_id']}")

    assert [s["session_id"] for s in listed.body["items"]] == [
        laptop.tokens["session_id"],
        phone.tokens["session_id"],
    ]
    assert [s["is_current"] for s in listed.body["items"]] == [True, False]
    assert gone.status == 204
    assert await becomes_401(phone)
    assert (await phone.refresh()).status == 401
    assert (await laptop.call("DELETE", f"/auth/sessions/{phone.tokens['session_id']}")).status == 204
    assert len((await laptop.call("GET", "/auth/sessions")).body["items"]) == 1


async def test_someone_elses_session_is_not_there_but_the_operator_ends_it(auth: AuthService) -> None:
    person, stranger = await auth.sign_in(), await auth.sign_in()
    path = f"/auth/sessions/{person.tokens['session_id']}"

    assert (await stranger.call("DELETE", path)).status == 404
    assert (await auth.call("DELETE", path, **auth.staff("Operator"))).status == 204
    assert await becomes_401(person)


async def test_access_tokens_verify_with_the_published_keys(auth: AuthService) -> None:
    person = await auth.sign_in()
    org = await person.found_org()
    token = person.tokens["access_token"]

    published = await auth.call("GET", "/.well-known/jwks.json")
    kid = jwt.get_unverified_header(token)["kid"]
    [key] = [key for key in published.body["keys"] if key["kid"] == kid]
    public = PyJWK(key).key
    assert isinstance(public, Ed25519PublicKey)
    claims = jwt.decode(token, public, algorithms=["EdDSA"], audience="event-builder")

    assert "max-age" in published.headers["Cache-Control"]
    assert claims["sub"] == person.user_id
    assert claims["sid"] == person.tokens["session_id"]
    assert claims["org"] == org["org_id"]
    assert claims["roles"] == ["Admin"]
    assert claims["exp"] - claims["iat"] == 300


async def test_refresh_for_an_org_without_a_role_is_404_and_uses_nothing_up(auth: AuthService) -> None:
    person, other = await auth.sign_in(), await auth.sign_in()
    org = await other.found_org()

    assert (await person.refresh(org["org_id"])).status == 404
    assert (await person.refresh()).status == 200


async def test_signing_keys_are_announced_before_their_use(auth: AuthService) -> None:
    rows = await auth.owner.fetch(
        "SELECT k.kid, o.created_at <= k.active_from + interval '1 s' AS in_time FROM auth.signing_key k"
        " JOIN auth.outbox o ON o.type = 'auth.signing_key.changed.v1' AND o.subject = k.kid"
    )

    assert [row["in_time"] for row in rows] == [True]


async def test_signing_keys_rotate_without_voiding_what_was_signed(auth: AuthService) -> None:
    from eb_auth.jobs import rotate_signing_keys

    person = await auth.sign_in()
    async with auth.client.context.begin("system:auth") as tx:
        await tx.execute("UPDATE signing_key SET active_from = active_from - interval '31 days'")
    for _ in range(2):
        async with auth.client.context.begin("system:auth") as tx:
            await rotate_signing_keys(tx)

    keys = (await auth.call("GET", "/.well-known/jwks.json")).body["keys"]
    assert len(keys) == 2
    assert jwt.get_unverified_header(person.tokens["access_token"])["kid"] == keys[1]["kid"]
    assert (await person.refresh()).status == 200
    assert jwt.get_unverified_header(person.tokens["access_token"])["kid"] == keys[1]["kid"]

    async with auth.client.context.begin("system:auth") as tx:
        await tx.execute("UPDATE signing_key SET active_from = active_from - interval '2 days'")
        await rotate_signing_keys(tx)
    assert [key["kid"] for key in (await auth.call("GET", "/.well-known/jwks.json")).body["keys"]] == [
        keys[0]["kid"]
    ]


async def test_no_fact_names_a_person(auth: AuthService) -> None:
    person = await auth.sign_in("jane.private@example.org")
    await person.found_org(legal_name="Jane Private Events", tax_id="TAX-77")

    bodies = [bytes(row["body"]) for row in await auth.owner.fetch("SELECT body FROM auth.outbox")]

    assert bodies
    assert not any(b"jane" in body.lower() or b"TAX-77" in body for body in bodies)
    assert all(json.loads(body) for body in bodies)


def signed_in_long_ago(auth: AuthService, person: Person, org_id: object) -> dict[str, str]:
    """Give the Authorization header of an Admin whose sign-in is older than the setting."""
    session_id = UUID(person.tokens["session_id"])
    return auth.client.auth(
        roles=["Admin"],
        org_id=UUID(str(org_id)),
        user_id=UUID(person.user_id),
        session_id=session_id,
        auth_time=time.time() - 3_700,
    )


async def test_roles_and_keys_need_a_recent_sign_in(auth: AuthService) -> None:
    ada, bob = await auth.sign_in(), await auth.sign_in()
    org_id = (await ada.found_org())["org_id"]
    await auth.join(bob, org_id)
    stale = signed_in_long_ago(auth, ada, org_id)
    key = {"name": "ci", "scopes": ["metering:write"]}
    for method, path, body in (
        ("POST", f"/orgs/{org_id}/api-keys", key),
        ("PATCH", f"/orgs/{org_id}/members/{ada.user_id}", {"role": "Admin"}),
        ("DELETE", f"/orgs/{org_id}/members/{bob.user_id}", None),
        ("POST", f"/orgs/{org_id}/invitations", {"email": "bob@example.org"}),
        ("POST", f"/orgs/{org_id}/invitations/{uuid4()}:resend", None),
        ("POST", f"/assist-sessions/{uuid4()}:approve", None),
        ("PATCH", f"/orgs/{org_id}", {"assist_policy": "approve"}),
        ("PATCH", f"/orgs/{org_id}", {"legal_name": "N", "assist_policy": "notify"}),
    ):
        refused = await auth.call(method, path, body, **stale)
        assert (refused.status, refused.body["code"]) == (401, "step_up_required"), path
        assert refused.body["max_age_s"] == 3_600
        assert refused.headers["WWW-Authenticate"] == (
            'Bearer realm="event-builder", error="insufficient_user_authentication", max_age="3600"'
        )
    assert (await auth.call("GET", f"/orgs/{org_id}/api-keys", None, **stale)).status == 200
    assert (await auth.call("PATCH", f"/orgs/{org_id}", {"legal_name": "N"}, **stale)).status == 200
    itself = signed_in_long_ago(auth, bob, org_id)
    assert (await auth.call("DELETE", f"/orgs/{org_id}/members/{bob.user_id}", None, **itself)).status == 204
    again = await auth.sign_in(ada.email)
    assert (await again.refresh(org_id)).status == 200
    assert (await again.call("POST", f"/orgs/{org_id}/api-keys", key)).status == 201


async def test_refreshing_does_not_make_a_sign_in_recent(auth: AuthService) -> None:
    ada = await auth.sign_in()
    first = jwt.decode(ada.tokens["access_token"], options={"verify_signature": False})
    assert (await ada.refresh()).status == 200
    second = jwt.decode(ada.tokens["access_token"], options={"verify_signature": False})
    assert second["auth_time"] == first["auth_time"] <= first["iat"]
    assert second["iat"] > first["iat"]


async def test_clients_of_oauth_find_the_errors_they_know(auth: AuthService) -> None:
    good = {"grant_type": "refresh_token", "refresh_token": "ebr_unknown"}
    refused = await auth.call("POST", "/auth/token", good)
    assert (refused.status, refused.body["code"]) == (401, "refresh_token_invalid")
    assert refused.body["error"] == "invalid_grant"
    assert refused.headers["WWW-Authenticate"] == 'Bearer realm="event-builder"', (
        "no token was shown, none is bad"
    )
    assert refused.headers["Cache-Control"] == "no-store"
    for body, error in (
        ({**good, "grant_type": "password"}, "unsupported_grant_type"),
        ({**good, "grant_type": "client_credentials", "client_id": "x"}, "unsupported_grant_type"),
        ({**good, "scope": "openid"}, "invalid_request"),
        ({"grant_type": "refresh_token"}, "invalid_request"),
        ({"refresh_token": "ebr_unknown"}, "invalid_request"),
        ({}, "invalid_request"),
        ([], "invalid_request"),
    ):
        refused = await auth.call("POST", "/auth/token", body)
        assert (refused.status, refused.body["code"], refused.body["error"]) == (
            422,
            "body_invalid",
            error,
        ), body
        assert refused.headers["Content-Type"] == "application/problem+json"


async def test_no_request_for_a_token_is_told_so_as_oauth_does(auth: AuthService) -> None:
    for content_type, sent, status in (
        ("application/x-www-form-urlencoded", b"grant_type=refresh_token&refresh_token=x", 415),
        ("application/json", b"{", 400),
        ("application/json", b'{"grant_type": "refresh_token", "grant_type": "password"}', 400),
        ("application/json", b" " * 1_100_000, 413),
    ):
        headers = {"Content-Type": content_type}
        async with auth.client.http.post(
            auth.client.url("/auth/token"), data=sent, headers=headers
        ) as answer:
            body = await answer.json(content_type=None)
            assert (answer.status, body["error"]) == (status, "invalid_request")


async def test_a_challenge_says_what_was_wrong_with_a_token_where_one_was_shown(auth: AuthService) -> None:
    plain, bad = 'Bearer realm="event-builder"', 'Bearer realm="event-builder", error="invalid_token"'
    for shown, challenge in (
        ({}, plain),
        ({"Authorization": "Basic YTpi"}, plain),
        ({"Authorization": "Bearer x"}, bad),
        ({"Authorization": "bearer x"}, bad),
        ({"Authorization": "Bearer"}, bad),
        ({"Authorization": f"Bearer eb_{'0' * 32}_{'A' * 43}"}, bad),
        (auth.client.auth(exp=1), bad),
        (auth.client.auth(aud="other"), bad),
    ):
        refused = await auth.call("GET", "/auth/me", None, **shown)
        assert (refused.status, refused.headers.getall("WWW-Authenticate")) == (401, [challenge]), shown
    wrong_code = await auth.call("POST", "/auth/sessions", {"email": "a@example.org", "code": "0"})
    assert (wrong_code.status, wrong_code.headers["WWW-Authenticate"]) == (401, plain)


async def test_ending_another_session_needs_a_recent_sign_in_and_signing_out_never_does(
    auth: AuthService,
) -> None:
    laptop, other = await auth.sign_in(), await auth.sign_in()
    phone = await auth.sign_in(laptop.email)
    org_id = (await laptop.found_org())["org_id"]
    stale = signed_in_long_ago(auth, laptop, org_id)
    operator = auth.client.auth(roles=["Operator"], auth_time=time.time() - 3_700)
    for bearer in (stale, operator):
        answers = [
            await auth.call("DELETE", f"/auth/sessions/{session_id}", None, **bearer)
            for session_id in (phone.tokens["session_id"], other.tokens["session_id"], uuid4())
        ]
        assert [answer.status for answer in answers] == [401] * 3
        assert {answer.body["code"] for answer in answers} == {"step_up_required"}, (
            "and no hint at who is there"
        )
    assert (await phone.refresh()).status == 200
    assert (
        await auth.call("DELETE", f"/auth/sessions/{laptop.tokens['session_id']}", None, **stale)
    ).status == 204
    assert (await laptop.refresh()).status == 401


async def test_signing_in_again_ends_the_session_that_the_device_still_had(auth: AuthService) -> None:
    old, elsewhere = await auth.sign_in(), await auth.sign_in()
    beside = await auth.sign_in(old.email)

    code = await auth.ask_code(old.email)
    device = {"email": old.email, "refresh_token": old.tokens["refresh_token"]}
    wrong = await auth.call("POST", "/auth/sessions", {**device, "code": "0"})
    assert wrong.status == 401
    assert (await old.call("GET", "/auth/me")).status == 200, "a wrong code ends nothing"
    new = await auth.call("POST", "/auth/sessions", {**device, "code": code})

    assert new.status == 201
    assert await becomes_401(old)
    assert (await old.refresh()).status == 401
    ended = "SELECT revoked_reason FROM auth.session WHERE session_id = $1"
    assert await auth.owner.fetchval(ended, UUID(old.tokens["session_id"])) == "replaced"
    assert [(await one.refresh()).status for one in (beside, elsewhere)] == [200, 200]


async def test_an_old_session_that_is_gone_is_no_hindrance(auth: AuthService) -> None:
    body = {"email": "again@example.org", "code": await auth.ask_code("again@example.org")}
    answer = await auth.call("POST", "/auth/sessions", {**body, "refresh_token": "ebr_unknown"})
    assert answer.status == 201


VERIFIER = "a-verifier-of-its-own-with-chance-enough_0123456789"
CHALLENGE = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM"


async def ask_bound_code(auth: AuthService, address: str, challenge: str) -> str:
    """Ask for a code with a challenge, and give it."""
    asked = await auth.call("POST", "/auth/login", {"email": address, "code_challenge": challenge})
    assert asked.status == 202
    await auth.mails()
    return auth.codes(address)[-1]


async def test_a_code_bound_to_its_request_works_only_for_who_asked(auth: AuthService) -> None:
    address = "bound@example.org"
    code = await ask_bound_code(auth, address, challenge_of(VERIFIER))
    for others in ({}, {"code_verifier": VERIFIER + "x"}, {"code_verifier": challenge_of(VERIFIER)}):
        refused = await auth.call("POST", "/auth/sessions", {"email": address, "code": code, **others})
        assert (refused.status, refused.body["code"]) == (401, "code_invalid"), others
    right = {"email": address, "code": code, "code_verifier": VERIFIER}
    assert (await auth.call("POST", "/auth/sessions", right)).status == 201
    assert (await auth.call("POST", "/auth/sessions", right)).status == 401, "once"


async def test_a_verifier_for_a_code_that_nobody_bound_is_wrong(auth: AuthService) -> None:
    body = {"email": "free@example.org", "code": await auth.ask_code("free@example.org")}
    bound = await auth.call("POST", "/auth/sessions", {**body, "code_verifier": VERIFIER})
    assert (bound.status, bound.body["code"]) == (401, "code_invalid")
    assert (await auth.call("POST", "/auth/sessions", body)).status == 201


async def test_a_bound_code_dies_of_guesses_without_its_verifier(auth: AuthService) -> None:
    address = "thief@example.org"
    code = await ask_bound_code(auth, address, challenge_of(VERIFIER))
    for _ in range(5):
        await auth.call("POST", "/auth/sessions", {"email": address, "code": code})
    right = {"email": address, "code": code, "code_verifier": VERIFIER}
    assert (await auth.call("POST", "/auth/sessions", right)).status == 401


def test_the_challenge_is_the_one_of_the_rfc() -> None:
    assert challenge_of("dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk") == CHALLENGE, "RFC 7636, appendix B"


async def test_asking_for_a_bound_code_tells_no_more(auth: AuthService) -> None:
    await auth.sign_in("known@example.org")
    known, unknown = [
        await auth.call("POST", "/auth/login", {"email": f"{name}@example.org", "code_challenge": CHALLENGE})
        for name in ("known", "unknown")
    ]
    assert known.status == unknown.status == 202
    assert known.raw == unknown.raw


async def test_what_is_no_challenge_is_refused(auth: AuthService) -> None:
    for challenge, status in (
        ("", 422),
        ("x", 422),
        (CHALLENGE + "x", 422),
        (CHALLENGE[:-1] + "=", 422),
        (1, 422),
        (None, 202),
    ):
        body = {"email": "a@example.org", "code_challenge": challenge}
        assert (await auth.call("POST", "/auth/login", body)).status == status, challenge


async def test_a_setting_insists_on_bound_codes(fresh_db: ClonedDatabase, tmp_path: Path) -> None:
    async with serving(fresh_db, tmp_path, {"EB_LOGIN_CHALLENGE_REQUIRED": "true"}) as auth:
        refused = await auth.call("POST", "/auth/login", {"email": "a@example.org"})
        assert (refused.status, refused.body["errors"][0]["pointer"]) == (422, "/code_challenge")
        assert await auth.mails() == []
        code = await ask_bound_code(auth, "a@example.org", challenge_of(VERIFIER))
        right = {"email": "a@example.org", "code": code, "code_verifier": VERIFIER}
        assert (await auth.call("POST", "/auth/sessions", right)).status == 201


async def test_signing_in_and_out_stands_in_the_log_by_ids(auth: AuthService) -> None:
    quiet = structlog.get_config()["wrapper_class"]
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.INFO))
    try:
        with capture_logs() as lines:
            person = await auth.sign_in("logged@example.org")
            await auth.call("POST", "/auth/sessions", {"email": "logged@example.org", "code": "0"})
            await person.refresh()
            session = person.tokens["session_id"]
            await person.call("DELETE", f"/auth/sessions/{session}")
    finally:
        structlog.configure(wrapper_class=quiet)

    lines = [line for line in lines if line["event"] in ("signed in", "request refused", "session ended")]
    told = [(line["event"], line.get("method") or line.get("code") or line.get("reason")) for line in lines]
    assert told == [
        ("signed in", "code"),
        ("request refused", "code_invalid"),
        ("signed in", "refresh"),
        ("session ended", "signed_out"),
    ]
    assert {line["session_id"] for line in lines if "session_id" in line} == {session}
    assert all(person.user_id in line["actor"] for line in lines if line["event"] != "request refused")
    secrets = ("logged@example.org", person.tokens["access_token"], person.tokens["refresh_token"])
    assert not any(secret in str(lines) for secret in secrets)
