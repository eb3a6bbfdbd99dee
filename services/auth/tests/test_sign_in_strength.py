"""How recent and how strong a sign-in was: what providers say about it, and what it opens."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import jwt
import pytest

from eb_auth.domain.sessions import LONG_AGO
from eb_kit.testing_db import ClonedDatabase

from .conftest import Answer, Person, serving
from .oidc_provider import CLIENT, SECRET, a_provider
from .test_oidc import Browser

KEY = {"name": "ci", "scopes": ["metering:write"]}
HOUR, DAY = 3_600, 86_400


@asynccontextmanager
async def browsing(
    clone: ClonedDatabase, folder: Path, environ: Mapping[str, str] | None = None, **settings: Any
) -> AsyncIterator[Browser]:
    """A browser before a service that knows one provider, with further settings of either."""
    async with a_provider() as provider:
        known = {"issuer": provider.url, "client_id": CLIENT, "client_secret": SECRET, **settings}
        providers = {"EB_OIDC_PROVIDERS": json.dumps({"acme": known})}
        async with serving(clone, folder, providers | dict(environ or {})) as auth:
            yield Browser(auth, provider)


@pytest.fixture
async def browser(fresh_db: ClonedDatabase, tmp_path: Path) -> AsyncIterator[Browser]:
    async with browsing(fresh_db, tmp_path) as made:
        yield made


def person(browser: Browser, signed_in: Answer) -> Person:
    assert signed_in.status == 200, signed_in.body
    return Person(browser.auth, "ada@example.org", signed_in.body)


def told_of(someone: Person) -> dict[str, Any]:
    claims: dict[str, Any] = jwt.decode(someone.tokens["access_token"], options={"verify_signature": False})
    return claims


async def may_make_keys(browser: Browser, signed_in: Answer, org_id: object) -> str:
    """Try what needs a recent sign-in; `yes`, or the refusal's code."""
    someone = person(browser, signed_in)
    assert (await someone.refresh(org_id)).status == 200
    answer = await someone.call("POST", f"/orgs/{org_id}/api-keys", KEY)
    return "yes" if answer.status == 201 else str(answer.body["code"])


async def an_own_org(browser: Browser) -> str:
    return str((await person(browser, await browser.sign_in()).found_org())["org_id"])


async def test_an_old_session_at_the_provider_is_no_recent_sign_in(browser: Browser) -> None:
    org_id = await an_own_org(browser)
    browser.provider.signed_in_at = time.time() - 2 * HOUR

    stale = await browser.sign_in()
    assert await may_make_keys(browser, stale, org_id) == "step_up_required"
    assert told_of(person(browser, stale))["auth_time"] == int(browser.provider.signed_in_at)

    fresh = await browser.sign_in(f"?max_age={HOUR}")
    assert browser.provider.asked["max_age"] == str(HOUR)
    assert await may_make_keys(browser, fresh, org_id) == "yes"


async def test_the_age_is_asked_for_each_time_and_somebody_has_to_choose(browser: Browser) -> None:
    await browser.sign_in()
    assert browser.provider.asked["max_age"] == str(90 * DAY)
    assert browser.provider.asked["prompt"] == "select_account"
    assert "acr_values" not in browser.provider.asked
    browser.provider.signed_in_at = time.time() - 60
    await browser.sign_in("?max_age=0")
    assert browser.provider.asked["max_age"] == "0"
    assert browser.provider.signed_in_at > time.time() - 30, "the provider asked again"


async def test_an_age_that_is_none_is_refused(browser: Browser) -> None:
    for max_age in ("-1", "x", "1.5", str(91 * DAY), ""):
        refused = await browser.auth.call("GET", f"/auth/oidc/acme/start?max_age={max_age}")
        assert (refused.status, refused.body["code"]) == (400, "parameter_invalid"), max_age


async def test_settings_say_what_the_provider_is_to_ask_for(fresh_db: ClonedDatabase, tmp_path: Path) -> None:
    async with browsing(
        fresh_db, tmp_path, prompt=["login", "consent"], acr_values=["gold", "silver"]
    ) as browser:
        browser.provider.signed_in_at = time.time() - 2 * HOUR
        signed_in = person(browser, await browser.sign_in())
        assert browser.provider.asked["prompt"] == "login consent"
        assert browser.provider.asked["acr_values"] == "gold silver"
        assert told_of(signed_in)["auth_time"] > time.time() - 60


async def test_a_provider_that_tells_no_time_is_never_recent_and_no_step_up(browser: Browser) -> None:
    org_id = await an_own_org(browser)
    browser.provider.has_auth_time = False

    untold = await browser.sign_in()
    assert await may_make_keys(browser, untold, org_id) == "step_up_required"
    assert told_of(person(browser, untold))["auth_time"] == LONG_AGO.timestamp()
    refused = await browser.sign_in(f"?max_age={HOUR}")
    assert (refused.status, refused.body["code"]) == (401, "oidc_refused")

    by_code = await browser.auth.sign_in("ada@example.org")
    assert (await by_code.refresh(org_id)).status == 200
    assert (await by_code.call("POST", f"/orgs/{org_id}/api-keys", KEY)).status == 201, "the way that is left"


async def test_a_provider_that_ignores_the_age_is_refused(browser: Browser) -> None:
    browser.provider.keeps_max_age = False
    browser.provider.signed_in_at = time.time() - 2 * HOUR
    for query in (f"?max_age={HOUR}", "?max_age=0"):
        refused = await browser.sign_in(query)
        assert (refused.status, refused.body["code"]) == (401, "oidc_refused")
    browser.provider.signed_in_at = time.time() - 91 * DAY
    assert (await browser.sign_in()).status == 401, (
        "nor does an older sign-in there open a session than ours may be"
    )


async def test_a_time_that_can_not_be_is_refused(browser: Browser) -> None:
    for lie in (
        9e9,
        "soon",
        str(time.time()),
        True,
        [],
        {},
        -1,
        0,
        10**400,
        float("nan"),
        float("inf"),
        None,
    ):
        browser.provider.change = lambda claims, lie=lie: claims.update(auth_time=lie)  # type: ignore[misc]
        refused = await browser.sign_in(f"?max_age={HOUR}")
        assert (refused.status, refused.body["code"]) == (401, "oidc_refused"), lie


async def test_a_providers_clock_may_be_a_minute_off_and_buys_nothing(browser: Browser) -> None:
    browser.provider.signed_in_at = time.time() + 40
    ahead = told_of(person(browser, await browser.sign_in(f"?max_age={HOUR}")))
    assert ahead["auth_time"] <= ahead["iat"], "never later than the session began"
    browser.provider.signed_in_at = time.time() + 90
    assert (await browser.sign_in(f"?max_age={HOUR}")).status == 401

    browser.provider.keeps_max_age = False
    browser.provider.signed_in_at = behind = time.time() - HOUR - 40
    late = await browser.sign_in(f"?max_age={HOUR}")
    assert told_of(person(browser, late))["auth_time"] == int(behind), "and so it isn't recent here"
    browser.provider.signed_in_at = time.time() - HOUR - 90
    assert (await browser.sign_in(f"?max_age={HOUR}")).status == 401


async def test_who_takes_their_time_at_the_provider_is_still_recent(browser: Browser) -> None:
    asked = await browser.start("?max_age=0")
    browser.provider.signed_in_at -= 50
    assert (await browser.come_back(asked)).status == 200


async def test_refreshing_keeps_when_and_how(browser: Browser) -> None:
    browser.provider.signed_in_at, browser.provider.acr = time.time() - 2 * HOUR, "gold"
    signed_in = person(browser, await browser.sign_in())
    before = told_of(signed_in)["auth_time"]
    assert (await signed_in.refresh()).status == 200
    assert told_of(signed_in)["auth_time"] == before


async def test_the_list_of_sessions_shows_how_each_began(browser: Browser) -> None:
    browser.provider.acr, browser.provider.amr = "gold", ["pwd", "otp"]
    signed_in = person(browser, await browser.sign_in())
    browser.provider.has_auth_time, browser.provider.amr = False, None
    await browser.sign_in()
    await browser.auth.sign_in("ada@example.org")

    by_code, untold, by_provider = (await signed_in.call("GET", "/auth/sessions")).body["items"]
    assert [by_code[name] for name in ("provider", "acr", "amr")] == [None, None, []]
    assert by_code["signed_in_at"][:16] == by_code["created_at"][:16]
    assert [untold[name] for name in ("provider", "acr", "amr", "signed_in_at")] == ["acme", "gold", [], None]
    assert [by_provider[name] for name in ("provider", "acr", "amr")] == ["acme", "gold", ["pwd", "otp"]]
    assert by_provider["signed_in_at"] is not None


async def test_strength_in_another_form_counts_as_none(browser: Browser) -> None:
    for acr, amr in (
        (1, "mfa"),
        (["gold"], {"mfa": 1}),
        ("a" * 201, [1, None, "b" * 201, "x\0y", ""]),
        ("", ["\n"] * 50),
    ):
        browser.provider.acr, browser.provider.amr = acr, amr
        signed_in = person(browser, await browser.sign_in())
        newest = (await signed_in.call("GET", "/auth/sessions")).body["items"][0]
        assert (newest["acr"], newest["amr"]) == (None, []), (acr, amr)


STRICT = {"EB_STAFF_SECOND_FACTOR": "true"}
SECOND = {"second_factor_acr": ["gold"], "second_factor_amr": ["mfa", "hwk"]}


async def make_staff(browser: Browser, *roles: str) -> None:
    """Give ada platform roles, as the owner would."""
    await browser.auth.sign_in("ada@example.org")
    for role in roles:
        await browser.auth.owner.execute("BEGIN")
        await browser.auth.owner.execute("SELECT set_config('eb.actor', 'system:cli', true)")
        await browser.auth.owner.execute(
            "INSERT INTO auth.platform_role (user_id, role, granted_by, granted_at)"
            " SELECT user_id, $1, 'system:cli', created_at FROM auth.user WHERE email = 'ada@example.org'",
            role,
        )
        await browser.auth.owner.execute("COMMIT")


async def roles_of(someone: Person) -> tuple[list[str], list[dict[str, str]]]:
    me = (await someone.call("GET", "/auth/me")).body
    assert sorted(told_of(someone)["roles"]) == me["roles"]
    return me["roles"], me["withheld_roles"]


def missing(*roles: str) -> list[dict[str, str]]:
    return [{"role": role, "reason": "second_factor"} for role in roles]


async def test_staff_without_a_second_factor_are_people_like_others(
    fresh_db: ClonedDatabase, tmp_path: Path
) -> None:
    async with browsing(fresh_db, tmp_path, STRICT, **SECOND) as browser:
        await make_staff(browser, "Operator", "Support")
        by_code = await browser.auth.sign_in("ada@example.org")
        assert await roles_of(by_code) == ([], missing("Operator", "Support"))
        weak = person(browser, await browser.sign_in())
        assert await roles_of(weak) == ([], missing("Operator", "Support"))
        for acr, amr in ((None, ["pwd"]), ("silver", None), ("mfa", ["gold"]), ("GOLD", ["gold mfa"])):
            browser.provider.acr, browser.provider.amr = acr, amr
            assert (await roles_of(person(browser, await browser.sign_in())))[0] == [], (acr, amr)
        for acr, amr in (("gold", None), (None, ["pwd", "mfa"]), ("silver", ["hwk"])):
            browser.provider.acr, browser.provider.amr = acr, amr
            strong = person(browser, await browser.sign_in())
            assert await roles_of(strong) == (["Operator", "Support"], []), (acr, amr)
            assert (await strong.refresh()).status == 200
            assert (await roles_of(strong))[0] == ["Operator", "Support"], "refreshing keeps it"


async def test_no_way_leads_around_the_second_factor(fresh_db: ClonedDatabase, tmp_path: Path) -> None:
    async with browsing(fresh_db, tmp_path, STRICT, **SECOND) as browser:
        await make_staff(browser, "Operator", "Finance", "Support")
        other = await browser.auth.sign_in()
        foreign = (await other.found_org())["org_id"]
        weak = person(browser, await browser.sign_in())
        own = (await weak.found_org())["org_id"]
        assert (await weak.refresh(own)).status == 200
        assert (await roles_of(weak))[0] == ["Admin"], "the organisation's role is not withheld"

        asked = {"org_id": foreign, "purpose": "security", "reason": "to get around it", "ttl_minutes": 5}
        tried = {
            "GET /platform/audit": await weak.call("GET", "/platform/audit"),
            "GET org": await weak.call("GET", f"/orgs/{foreign}"),
            "audit": await weak.call("GET", f"/orgs/{foreign}/audit"),
            "assist": await weak.call("POST", "/assist-sessions", asked),
            "assist, own": await weak.call("POST", "/assist-sessions", asked | {"org_id": own}),
            "session": await weak.call("DELETE", f"/auth/sessions/{other.tokens['session_id']}"),
            "country": await weak.call("PATCH", f"/orgs/{own}", {"country": "NZ"}),
            "move": await weak.call("POST", f"/orgs/{foreign}:move", {"parent_org_id": own}),
            "link": await weak.call("POST", f"/org-links/{uuid4()}:accept"),
        }
        assert {name: answer.status for name, answer in tried.items()} == {
            "GET /platform/audit": 403, "GET org": 404, "audit": 404, "assist": 404, "assist, own": 403,
            "session": 404, "country": 403, "move": 404, "link": 404,
        }  # fmt: skip
        assert (await weak.refresh(foreign)).status == 404


async def test_a_second_factor_counts_as_its_provider_is_known_now(
    fresh_db: ClonedDatabase, tmp_path: Path
) -> None:
    async with browsing(fresh_db, tmp_path, STRICT, **SECOND) as browser:
        await make_staff(browser, "Operator")
        browser.provider.amr = ["mfa"]
        strong = person(browser, await browser.sign_in())
        await browser.auth.owner.execute("UPDATE auth.session SET provider = 'gone' WHERE provider = 'acme'")
        assert (await strong.refresh()).status == 200
        assert await roles_of(strong) == ([], missing("Operator"))


async def test_without_the_setting_staff_are_staff_however_they_sign_in(browser: Browser) -> None:
    await make_staff(browser, "Operator")
    assert await roles_of(await browser.auth.sign_in("ada@example.org")) == (["Operator"], [])
    assert await roles_of(person(browser, await browser.sign_in())) == (["Operator"], [])
