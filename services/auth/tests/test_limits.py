"""Attempts per minute, with limits on."""

from __future__ import annotations

import asyncio
from hashlib import sha256

import pytest
from multidict import CIMultiDict

from .conftest import AuthService, an_org


@pytest.fixture
def environ() -> dict[str, str]:
    """Limits on, as in production."""
    return {"EB_RATE_LIMITS": "on"}


async def at_a_minutes_begin(auth: AuthService, needed_s: float = 10) -> None:
    """Wait for the next minute when this one is nearly over: windows are whole minutes."""
    second = auth.client.context.clock.machine_now().second
    if second > 60 - needed_s:
        await asyncio.sleep(61 - second)


async def statuses(auth: AuthService, path: str, bodies: list[dict[str, str]], **headers: str) -> list[int]:
    """Send requests side by side; give their statuses, sorted."""
    answers = await asyncio.gather(*(auth.call("POST", path, body, **headers) for body in bodies))
    return sorted(answer.status for answer in answers)


async def test_a_mail_address_gets_five_codes_a_minute(auth: AuthService) -> None:
    await at_a_minutes_begin(auth)

    assert await statuses(auth, "/auth/login", [{"email": "a@example.org"}] * 8) == [202] * 5 + [429] * 3

    limited = await auth.call("POST", "/auth/login", {"email": "A@example.org"})
    assert limited.body["code"] == "rate_limited"
    assert 1 <= int(limited.headers["Retry-After"]) <= 60
    assert (await auth.call("POST", "/auth/login", {"email": "b@example.org"})).status == 202


async def test_a_mail_address_takes_five_guesses_a_minute(auth: AuthService) -> None:
    await at_a_minutes_begin(auth)
    body = {"email": "a@example.org", "code": "00000000"}

    assert await statuses(auth, "/auth/sessions", [body] * 8) == [401] * 5 + [429] * 3


async def test_new_codes_and_many_networks_buy_no_more_guesses(auth: AuthService) -> None:
    await at_a_minutes_begin(auth)
    address, guesses, asked = "a@example.org", [], []
    for n in range(8):
        botnet = {"X-Forwarded-For": f"203.0.113.{n}"}
        login = await auth.call("POST", "/auth/login", {"email": address}, **botnet)
        guess = await auth.call("POST", "/auth/sessions", {"email": address, "code": "00000000"}, **botnet)
        asked.append(login.status)
        guesses.append(guess.status)

    assert asked == [202] * 5 + [429] * 3
    assert guesses == [401] * 5 + [429] * 3


async def test_a_network_address_gets_thirty_a_minute(auth: AuthService) -> None:
    await at_a_minutes_begin(auth)
    bodies = [{"email": f"p{n}@example.org"} for n in range(33)]

    assert await statuses(auth, "/auth/login", bodies) == [202] * 30 + [429] * 3

    lines = [("X-Forwarded-For", "203.0.113.9"), ("X-Forwarded-For", "203.0.113.9, 198.51.100.7")]
    for _ in range(2):
        async with auth.client.http.post(
            auth.client.url("/auth/login"), json={"email": "q@example.org"}, headers=CIMultiDict(lines)
        ) as answer:
            assert answer.status == 202
    counted = await auth.owner.fetchval(
        "SELECT attempts FROM auth.attempt_window WHERE bucket = $1",
        sha256(b"login\nnet 198.51.100.7").digest(),
    )
    assert counted == 2


async def test_a_user_founds_sixty_organisations_a_minute(auth: AuthService) -> None:
    await at_a_minutes_begin(auth, 20)
    person = await auth.sign_in()
    for _ in range(60):
        assert (await person.call("POST", "/orgs", an_org())).status == 201

    assert (await person.call("POST", "/orgs", an_org())).status == 429


async def test_somebody_sends_sixty_invitations_a_minute(auth: AuthService) -> None:
    await at_a_minutes_begin(auth, 20)
    person = await auth.sign_in()
    path = f"/orgs/{(await person.found_org())['org_id']}/invitations"
    for number in range(60):
        assert (await person.call("POST", path, {"email": f"guest{number}@example.org"})).status == 201

    over = await person.call("POST", path, {"email": "guest60@example.org"})
    assert (over.status, over.body["code"]) == (429, "rate_limited")


async def test_the_table_of_attempts_names_nobody(auth: AuthService) -> None:
    await auth.call("POST", "/auth/login", {"email": "jane@example.org"})

    rows = await auth.owner.fetch("SELECT * FROM auth.attempt_window")

    assert rows
    assert b"jane" not in repr(rows).encode()
