"""Who somebody is at a provider stays where it is needed: not in logs, not in what leaves, and not after an erasure."""

from __future__ import annotations

import json
import logging
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog

from eb_kit.testing_db import ClonedDatabase
from eb_tools.audit_cli import erase_person

from .conftest import serving
from .oidc_provider import CLIENT, SECRET, a_provider
from .test_oidc import Browser

SUBJECT, EMAIL, AGENT = "subject-zq4711", "zq4711@example.org", "Agent-zq4711/1.0"
MARKER = "zq4711"
TABLES = """
    SELECT relname FROM pg_class WHERE relnamespace = 'auth'::regnamespace AND relkind IN ('r', 'p')
    AND NOT relispartition
"""


@pytest.fixture
async def browser(fresh_db: ClonedDatabase, tmp_path: Path) -> AsyncIterator[Browser]:
    async with a_provider() as provider:
        provider.claims |= {"sub": SUBJECT, "email": EMAIL}
        settings = {"issuer": provider.url, "client_id": CLIENT, "client_secret": SECRET}
        async with serving(fresh_db, tmp_path, {"EB_OIDC_PROVIDERS": json.dumps({"acme": settings})}) as auth:
            yield Browser(auth, provider)


@pytest.fixture
def said(caplog: pytest.LogCaptureFixture) -> Iterator[Callable[[], str]]:
    """Listen to all that is logged, at any level; a call gives it."""
    quiet = structlog.get_config()["wrapper_class"]
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.DEBUG))
    with caplog.at_level(logging.DEBUG), structlog.testing.capture_logs() as lines:
        yield lambda: caplog.text + json.dumps(lines, default=str)
    structlog.configure(wrapper_class=quiet)


async def holders(browser: Browser) -> set[str]:
    """Name auth's tables that hold the marker, as text or in bytes."""
    found = set()
    for row in await browser.auth.owner.fetch(TABLES):
        name = row["relname"]
        query = f'SELECT EXISTS (SELECT 1 FROM auth."{name}" AS t WHERE t::text ILIKE ANY ($1))'
        if await browser.auth.owner.fetchval(query, [f"%{MARKER}%", f"%{MARKER.encode().hex()}%"]):
            found.add(name)
    return found


async def test_subject_and_address_are_in_their_own_rows_only(browser: Browser) -> None:
    assert (await browser.come_back(await browser.start(), **{"User-Agent": AGENT})).status == 200

    assert await holders(browser) == {"user", "oidc_identity", "session", "audit_personal"}
    entry = await browser.auth.owner.fetchrow(
        "SELECT entity_id, after ->> 'subject' AS subject FROM auth.audit_entry WHERE entity = 'oidc_identity'"
    )
    assert entry is not None
    assert entry["subject"].startswith("sha256:")


@pytest.mark.parametrize(
    "change",
    [{}, {"email_verified": False}, {"aud": "somebody-else"}, {"nonce": "another"}, {"iss": "https://x"}],
)
async def test_no_sign_in_good_or_bad_logs_who_it_was(
    browser: Browser, said: Callable[[], str], change: dict[str, Any]
) -> None:
    browser.provider.change = lambda claims: claims.update(change)
    answer = await browser.come_back(await browser.start(), **{"User-Agent": AGENT})
    again = await browser.come_back({"error": "access_denied", "error_description": EMAIL, "state": "x"})

    assert (answer.status == 200) == (not change)
    assert again.status == 401
    assert ("signed in" in said()) == (not change)
    assert MARKER not in said()


async def test_after_an_erasure_nothing_tells_who_it_was_and_the_provider_brings_somebody_new(
    browser: Browser,
) -> None:
    first = await browser.come_back(await browser.start(), **{"User-Agent": AGENT})
    ended = await browser.come_back(await browser.start(), **{"User-Agent": AGENT})
    bearer = {"Authorization": f"Bearer {ended.body['access_token']}"}
    path = f"/auth/sessions/{ended.body['session_id']}"
    assert (await browser.auth.call("DELETE", path, None, **bearer)).status == 204

    await erase_person(browser.auth.owner_dsn, EMAIL, {})

    assert await holders(browser) == set()
    again = await browser.sign_in()
    assert again.status == 200
    assert again.body["user_id"] != first.body["user_id"]
