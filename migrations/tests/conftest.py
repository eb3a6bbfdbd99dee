"""Fixtures of the migrations' tests: the owner's connection to a database of the test's own."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from eb_kit.testing_db import ClonedDatabase

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))


@pytest.fixture
async def owner(fresh_db: ClonedDatabase) -> AsyncIterator[asyncpg.Connection[Any]]:
    """The owner's connection; writes are the actor `user:test`."""
    connection = await asyncpg.connect(fresh_db.owner_dsn)
    await connection.execute("SET eb.actor = 'user:test'")
    yield connection
    await connection.close()
