"""The service's secret changes while it runs: nothing fails, and the old one can be taken away."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from eb_auth import jobs
from eb_auth.flows.auditing import audit_keys
from eb_kit.testing_db import ClonedDatabase

from .conftest import AuthService, serving
from .test_audit import chain

OLD, NEW = "the-first-secret-of-auth", "the-second-secret-of-auth"


@pytest.fixture
def secret_file(tmp_path: Path) -> Path:
    file = tmp_path / "auth-secret"
    file.write_text(OLD)
    return file


@pytest.fixture
async def auth(fresh_db: ClonedDatabase, tmp_path: Path, secret_file: Path) -> AsyncIterator[AuthService]:
    async with serving(fresh_db, tmp_path, {"EB_AUTH_SECRET_FILE": str(secret_file)}) as service:
        yield service


async def until(holds: Callable[[], bool]) -> None:
    """Wait for it, 5 s at most."""
    for _ in range(100):
        if holds():
            return
        await asyncio.sleep(0.05)
    raise AssertionError("it didn't come to hold")


async def rotate(auth: AuthService, file: Path, *secrets: str) -> None:
    """Write the file as an operator does, and wait until the service took it up."""
    await asyncio.to_thread(file.write_text, "\n".join(secrets) + "\n")
    await until(lambda: auth.client.context.settings.auth_secret == secrets)


async def test_codes_sessions_and_chains_live_over_a_change_of_the_secret(
    auth: AuthService, secret_file: Path
) -> None:
    ada = await auth.sign_in()
    org_id = (await ada.found_org())["org_id"]
    await chain(auth)
    code = await auth.ask_code("bob@example.org")

    await rotate(auth, secret_file, NEW, OLD)
    answer = await auth.call("POST", "/auth/sessions", {"email": "bob@example.org", "code": code})
    assert answer.status == 201, "a code mailed before still signs in"
    assert (await ada.refresh()).status == 200
    async with auth.client.context.begin("system:auth") as tx:
        assert await jobs.reseal(tx) >= 2
    async with auth.client.context.begin("system:auth") as tx:
        assert await jobs.reseal(tx) == 0

    await rotate(auth, secret_file, NEW)
    assert (await ada.refresh()).status == 200, "the signing key opens without the old secret"
    assert (await ada.call("GET", f"/orgs/{org_id}/audit:verify")).body["valid"]


async def test_a_forged_head_is_not_sealed_anew(auth: AuthService, secret_file: Path) -> None:
    ada = await auth.sign_in()
    org_id = (await ada.found_org())["org_id"]
    await chain(auth)
    await auth.owner.execute("UPDATE auth.audit_chain_head SET seal = decode(repeat('00', 36), 'hex')")
    await rotate(auth, secret_file, NEW, OLD)
    async with auth.client.context.begin("system:auth") as tx:
        await jobs.reseal(tx)
    assert not (await ada.call("GET", f"/orgs/{org_id}/audit:verify")).body["valid"]
    assert len(audit_keys(auth.client.context.settings)) == 2


async def test_no_request_fails_while_the_secret_changes(auth: AuthService, secret_file: Path) -> None:
    people = [await auth.sign_in() for _ in range(4)]
    statuses: list[int] = []
    is_over = False

    async def keep_asking(number: int) -> None:
        while not is_over:
            statuses.append((await people[number].refresh()).status)
            statuses.append((await people[number].call("GET", "/auth/me")).status)

    asking = [asyncio.create_task(keep_asking(number)) for number in range(4)]
    await rotate(auth, secret_file, NEW, OLD)
    async with auth.client.context.begin("system:auth") as tx:
        await jobs.reseal(tx)
    await rotate(auth, secret_file, NEW)
    await asyncio.sleep(0.5)
    is_over = True
    await asyncio.gather(*asking)
    assert len(statuses) > 50
    assert set(statuses) == {200}


async def test_a_file_that_says_nonsense_leaves_the_settings_as_they_were(
    auth: AuthService, secret_file: Path
) -> None:
    await asyncio.to_thread(secret_file.write_text, "short")
    await asyncio.sleep(1.3)
    assert auth.client.context.settings.auth_secret == (OLD,)
    await asyncio.to_thread(secret_file.unlink)
    await asyncio.sleep(1.3)
    await rotate(auth, secret_file, NEW, OLD)


async def test_each_new_connection_asks_for_the_dsn_again(fresh_db: ClonedDatabase, tmp_path: Path) -> None:
    file, good = tmp_path / "dsn", fresh_db.dsn("auth")
    await asyncio.to_thread(file.write_text, good)
    async with serving(fresh_db, tmp_path, {"DATABASE_URL_FILE": str(file)}) as auth:
        for dsn, status in (("postgresql://eb_auth@127.0.0.1:1/none", 503), (good, 202)):
            await asyncio.to_thread(file.write_text, dsn)
            await until(lambda wanted=dsn: auth.client.context.settings.database_url == wanted)  # type: ignore[misc]
            await auth.client.context.pool.expire_connections()
            answer = await auth.call("POST", "/auth/login", {"email": "ada@example.org"})
            assert answer.status == status
