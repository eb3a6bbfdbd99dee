"""The long suite's stack: of its own, with our proxies between the services and what they stand on.

EB_CHAOS_RECORD names a file that gets the table of faults. With EB_CHAOS_SMALL_DISK=1 (root, and the right to mount)
the database lies on a small disk in memory, and the tests of a full one are collected too.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import aiohttp
import pytest
from billing import billed_org

from eb_tools.client import Api, Credentials
from eb_tools.paths import repository
from eb_tools.postgres import PrivatePostgres
from eb_tools.stack import Stack
from eb_tools.world import World

from .arena import Arena
from .proxy import Proxy

HAS_SMALL_DISK = os.environ.get("EB_CHAOS_SMALL_DISK") == "1"
collect_ignore = [] if HAS_SMALL_DISK else ["test_full_disk.py"]
BEGIN, END = "<!-- recorded -->", "<!-- /recorded -->"


@pytest.fixture(scope="session")
def arena_stack() -> Iterator[Arena]:
    run_dir = Path(os.environ.get("EB_CHAOS_RUN_DIR") or repository() / ".run" / "chaos-test")

    def port_of(name: str) -> int:
        return int(json.loads((run_dir / "ports.json").read_text())[name])

    with Proxy(lambda: port_of("postgres")) as database, Proxy(lambda: port_of("rabbitmq")) as broker:
        through = {"EB_THROUGH_POSTGRES": str(database.port), "EB_THROUGH_RABBITMQ": str(broker.port)}
        control = Stack(run_dir, {"EB_PORTS": "any", **through})
        control.clean()
        made = Arena(control, database, broker)
        made.disk = _small_disk(run_dir) if HAS_SMALL_DISK else None
        try:
            control.up(is_detached=False)
            yield made
        finally:
            if made.results:
                print(f"\n{made.table()}")
                _record(made.table())
            control.down()
            if made.disk is not None:
                subprocess.run(["umount", made.disk], check=True)


@pytest.fixture(scope="session")
async def arena(arena_stack: Arena) -> Arena:
    """The stack, and an organisation that is billed on it."""
    async with aiohttp.ClientSession() as http:
        staff = Credentials.read(arena_stack.control.layout.credentials)
        arena_stack.member, arena_stack.skus, _ = await billed_org(
            World.at(Api(staff.gateway_url, http), staff)
        )
    return arena_stack


@pytest.fixture
async def chaos_world(arena: Arena) -> AsyncIterator[World]:
    """A client in front of the gateway, patient up to 10 s an answer."""
    staff = Credentials.read(arena.control.layout.credentials)
    timeout = aiohttp.ClientTimeout(total=10)
    async with aiohttp.ClientSession(timeout=timeout, connector=aiohttp.TCPConnector(limit=64)) as http:
        yield World.at(Api(staff.gateway_url, http), staff)


def _small_disk(run_dir: Path) -> Path:
    """Mount a small disk where the database will lie; give the place."""
    place = PrivatePostgres(run_dir / "postgres", port=1).data.parent
    place.mkdir(parents=True, exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=700m,mode=755", "tmpfs", place], check=True)
    return place


def _record(table: str) -> None:
    if file := os.environ.get("EB_CHAOS_RECORD"):
        path = Path(file)
        before, _, rest = path.read_text().partition(BEGIN)
        path.write_text(f"{before}{BEGIN}\n{table}\n{END}{rest.partition(END)[2]}")
