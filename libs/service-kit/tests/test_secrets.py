"""Secrets change while a service runs: cursors made before are taken, and a new password is waited for."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from aiohttp import web

from eb_kit import db
from eb_kit.bus import Handlers
from eb_kit.service import Service
from eb_kit.settings import ServiceSettings
from eb_kit.testing import Client, running
from eb_kit.testing_db import ClonedDatabase
from eb_kit.web import Page, Routes, View, page_of, read_cursor, read_query

NOBODY = "amqp://nobody@127.0.0.1:1/"
OLD, NEW = "the-first-secret-of-cursors", "the-second-secret-of-cursors"


class Number(View):
    """One of many."""

    number: int


def counting() -> Service:
    routes = Routes("ledger")

    @routes.get("/partners", query=Page, answer=list[Number])
    async def count(request: web.Request) -> web.Response:
        """Count."""
        query = read_query(request, Page)
        last = read_cursor(request, query) or {"number": 0}
        views = [Number(number=last["number"] + n) for n in range(1, query.limit + 2)]
        return page_of(request, query, views, lambda view: {"number": view.number})

    return Service("ledger", "ledger", ServiceSettings, routes, Handlers())


async def page(client: Client, token: str, cursor: str | None) -> tuple[int, str]:
    params = {"limit": "2"} | ({"cursor": cursor} if cursor else {})
    headers = {"Authorization": f"Bearer {token}"}
    async with client.http.get(client.url("/partners"), params=params, headers=headers) as answer:
        return answer.status, (await answer.json()).get("next_cursor", "")


async def test_a_cursor_lives_over_a_change_of_its_secret(fresh_db: ClonedDatabase, tmp_path: Path) -> None:
    file = tmp_path / "cursor"
    await asyncio.to_thread(file.write_text, OLD)
    environ = {"EB_CURSOR_SECRET_FILE": str(file)}
    async with running(counting(), fresh_db.dsn("ledger"), NOBODY, doors=("api",), environ=environ) as client:
        token = client.token(roles=["Operator"])
        _, old = await page(client, token, None)

        async def rotate(*secrets: str) -> None:
            await asyncio.to_thread(file.write_text, "\n".join(secrets))
            async with asyncio.timeout(5):
                while client.context.settings.cursor_secret != secrets:
                    await asyncio.sleep(0.05)

        await rotate(NEW, OLD)
        status, new = await page(client, token, old)
        assert status == 200, "made with the secret before"
        await rotate(NEW)
        assert (await page(client, token, new))[0] == 200
        assert (await page(client, token, old))[0] == 400, "its secret was taken away"


async def test_a_new_connection_waits_for_the_file_with_the_new_password(
    fresh_db: ClonedDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server here trusts everybody: what PostgreSQL says to a wrong password is said by us."""
    good, told = fresh_db.dsn("ledger"), ["wrong"]
    connect = asyncpg.connect

    async def judge(dsn: str, **how: Any) -> Any:
        if dsn != good:
            raise asyncpg.InvalidPasswordError("password authentication failed")
        return await connect(dsn, **how)

    monkeypatch.setattr(asyncpg, "connect", judge)
    opening = asyncio.create_task(db.open_pool(lambda: told[0], 2))
    await asyncio.sleep(0.5)
    assert not opening.done()
    told[0] = good
    pool = await opening
    assert await pool.fetchval("SELECT 1") == 1
    await pool.close()


async def test_a_password_that_stays_wrong_is_bad_weather(monkeypatch: pytest.MonkeyPatch) -> None:
    async def refuse(dsn: str, **how: Any) -> Any:
        raise asyncpg.InvalidPasswordError("password authentication failed")

    monkeypatch.setattr(asyncpg, "connect", refuse)
    with pytest.raises(db.WEATHER):
        await db.open_pool(lambda: "wrong", 1)
