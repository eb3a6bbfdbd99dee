"""`eb coherence` against a real database."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import pytest

from eb_kit.testing_db import ClonedDatabase
from eb_tools import cli
from eb_tools.coherence_cli import length
from eb_tools.trouble import Trouble


async def test_it_says_what_is_missing_and_goes_back_in_time(
    fresh_db: ClonedDatabase, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DATABASE_URL", fresh_db.owner_dsn)
    now = datetime.now(UTC)
    owner: asyncpg.Connection[Any] = await asyncpg.connect(fresh_db.owner_dsn)
    await owner.execute("INSERT INTO pricing.coherence_cursor VALUES (true, $1)", now)
    await owner.execute(
        "INSERT INTO pricing.sent_window (window_from, queue, window_to, sent, unsent, digest, handled, next_at,"
        " rounds, cleared, resent, resend_at) VALUES ($1, 'ledger.charges.p03', $1, 12, 0, 7, 9, $1, 1, 0, 2, $1)",
        now,
    )
    monkeypatch.setattr("sys.argv", ["eb", "coherence", "--since", "24h"])
    assert await asyncio.to_thread(cli.main) == 1

    lines = {line.split()[0]: line for line in capsys.readouterr().out.splitlines()}
    assert "1 windows open, 3 messages missing, 2 resends ledger.charges.p03" in lines["pricing"]
    assert "hasn't compared anything yet" in lines["ledger"]
    compared_to = await owner.fetchval("SELECT compared_to FROM pricing.coherence_cursor")
    assert (
        now - timedelta(hours=24, minutes=1)
        <= compared_to
        <= now - timedelta(hours=24) + timedelta(minutes=1)
    )
    await owner.close()


@pytest.mark.parametrize("text", ["24", "0h", "73h", "1d", ""])
def test_a_length_is_minutes_or_hours_and_72_hours_at_most(text: str) -> None:
    with pytest.raises(Trouble):
        length(text)
