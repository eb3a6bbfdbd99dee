"""Signing keys change under load: no request fails, and old tokens verify until they end."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import jwt

from eb_auth.flows.signing import add_signing_key
from eb_auth.jobs import rotate_signing_keys
from eb_auth.store import credentials

from .conftest import AuthService, Person


def kid_of(person: Person) -> str:
    return str(jwt.get_unverified_header(person.tokens["access_token"])["kid"])


async def announce_next(auth: AuthService, in_s: float) -> None:
    """Announce a further key ahead of its use, as the job does, with a shorter lead."""
    async with auth.client.context.begin("system:auth") as tx:
        await credentials.lock_signing_keys(tx)
        await add_signing_key(tx, tx.context.clock.machine_now() + timedelta(seconds=in_s))


async def test_no_request_fails_while_keys_rotate(auth: AuthService) -> None:
    people = [await auth.sign_in() for _ in range(4)]
    old = {kid_of(person) for person in people}
    statuses: list[int] = []
    is_over = False

    async def keep_asking(person: Person) -> None:
        while not is_over:
            statuses.append((await person.call("GET", "/auth/me")).status)
            statuses.append((await person.refresh()).status)

    asking = [asyncio.create_task(keep_asking(person)) for person in people]
    kept = Person(auth, "", dict(people[0].tokens))
    for _ in range(3):
        await announce_next(auth, in_s=0.6)
        await asyncio.sleep(1.0)
    is_over = True
    await asyncio.gather(*asking)

    assert len(statuses) > 100
    assert set(statuses) == {200}
    assert {kid_of(person) for person in people}.isdisjoint(old)
    assert (await kept.call("GET", "/auth/me")).status == 200, "a token of the first key still verifies"


async def test_a_next_key_is_published_before_it_signs(auth: AuthService) -> None:
    ada = await auth.sign_in()
    await announce_next(auth, in_s=60)
    published = (await auth.call("GET", "/.well-known/jwks.json")).body["keys"]
    assert len(published) == 2
    await ada.refresh()
    newest = await auth.owner.fetchval("SELECT kid FROM auth.signing_key ORDER BY active_from DESC LIMIT 1")
    assert newest in {key["kid"] for key in published}
    assert kid_of(ada) != newest


async def test_the_job_announces_and_retires_by_the_machines_clock(auth: AuthService) -> None:
    await auth.owner.execute("UPDATE auth.signing_key SET active_from = active_from - interval '31 days'")
    async with auth.client.context.begin("system:auth") as tx:
        await rotate_signing_keys(tx)
    assert await auth.owner.fetchval("SELECT count(*) FROM auth.signing_key WHERE retired_at IS NULL") == 2
    await auth.owner.execute("UPDATE auth.signing_key SET active_from = active_from - interval '2 days'")
    async with auth.client.context.begin("system:auth") as tx:
        await rotate_signing_keys(tx)
    assert await auth.owner.fetchval("SELECT count(*) FROM auth.signing_key WHERE retired_at IS NULL") == 1
