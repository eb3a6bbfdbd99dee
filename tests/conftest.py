"""The black box: a whole stack of its own, in `.run/test`, beside a running one.

EB_TEST_RUN_DIR names the folder of a stack that runs already; such a one is neither started nor stopped.
"""

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import asyncpg
import pytest

from eb_tools.client import Api, Credentials
from eb_tools.paths import repository
from eb_tools.stack import Stack
from eb_tools.world import World


@dataclass(frozen=True)
class Running:
    """A running stack: what its folder says about it."""

    run_dir: Path
    control: Stack

    @property
    def staff(self) -> Credentials:
        return Credentials.read(self.run_dir / "credentials.json")

    @property
    def facts(self) -> dict[str, Any]:
        return dict(json.loads((self.run_dir / "stack.json").read_text()))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Look for what must not be there after all others have left what they leave."""
    items.sort(key=lambda item: item.path.name == "test_no_personal_data.py")


@pytest.fixture(scope="session")
def stack() -> AsyncIterator[Running]:
    given = os.environ.get("EB_TEST_RUN_DIR")
    run_dir = Path(given) if given else repository() / ".run" / "test"
    control = Stack(run_dir, {"EB_PORTS": "any"})
    if not given:
        control.up()
    yield Running(run_dir, control)
    if not given:
        control.down()


@pytest.fixture
async def world(stack: Running) -> AsyncIterator[World]:
    """The platform's staff and a client in front of the gateway."""
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=40)) as http:
        yield World.at(Api(stack.staff.gateway_url, http), stack.staff)


@pytest.fixture
async def owner(stack: Running) -> AsyncIterator[asyncpg.Connection[Any]]:
    """The database's owner, to look behind the curtain."""
    connection = await asyncpg.connect(stack.facts["owner_dsn"])
    yield connection
    await connection.close()
