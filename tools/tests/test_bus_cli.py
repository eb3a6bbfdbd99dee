"""`eb dead-letters` and `eb rebuild` against a real database."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import asyncpg
import pytest

from eb_contracts.ids import new_id
from eb_kit import deadletters
from eb_kit.bus.envelope import Delivery
from eb_kit.clock import Clock
from eb_kit.testing_db import ClonedDatabase
from eb_tools import bus_cli, cli
from eb_tools.trouble import Trouble


async def park(database: ClonedDatabase, count: int) -> None:
    """Have open letters of pricing."""
    connection: asyncpg.Connection[Any] = await asyncpg.connect(database.dsn("pricing"))
    headers = {"eb-queue": "pricing.usage.p03", "eb-error-class": "KeyError"}
    found = [
        Delivery("pricing.dead", n, new_id(), "some.type.v1", b'{"n": 1}', headers, 5, 1, None)
        for n in range(count)
    ]
    await deadletters.import_letters(connection, found, Clock.machine_now())
    await connection.close()


async def eb(monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    """Run the command line."""
    monkeypatch.setattr("sys.argv", ["eb", *words])
    return await asyncio.to_thread(cli.main)


async def test_letters_are_listed_shown_replayed_and_discarded(
    fresh_db: ClonedDatabase, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DATABASE_URL", fresh_db.owner_dsn)
    await park(fresh_db, 3)
    assert await eb(monkeypatch, "dead-letters", "list", "pricing") == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3
    first = lines[0].split()[0]
    assert await eb(monkeypatch, "dead-letters", "show", "pricing", first) == 0
    assert json.loads(capsys.readouterr().out) == {"n": 1}
    assert await eb(monkeypatch, "dead-letters", "replay", "pricing", first) == 0
    assert await eb(monkeypatch, "dead-letters", "discard", "pricing") == 0
    assert capsys.readouterr().out.splitlines() == ["replay: 1", "discard: 2"]
    assert await eb(monkeypatch, "dead-letters", "show", "pricing", str(new_id())) == 1

    connection: asyncpg.Connection[Any] = await asyncpg.connect(fresh_db.owner_dsn)
    row = await connection.fetchrow("SELECT exchange, routing_key FROM pricing.outbox")
    await connection.close()
    assert row is not None
    assert tuple(row) == ("eb.retry", "pricing.usage.p03")


async def test_a_read_model_is_asked_for_again(
    fresh_db: ClonedDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABASE_URL", fresh_db.owner_dsn)
    assert await eb(monkeypatch, "rebuild", "pricing", "sku") == 0
    connection: asyncpg.Connection[Any] = await asyncpg.connect(fresh_db.owner_dsn)
    assert await connection.fetchval("SELECT state FROM pricing.read_model WHERE entity = 'sku'") == "loading"
    assert await connection.fetchval("SELECT type FROM pricing.outbox") == "kit.snapshot.requested.v1"
    await connection.close()
    with pytest.raises(Trouble, match="keeps"):
        await bus_cli.rebuild(fresh_db.owner_dsn, "ledger", "nonsense")
