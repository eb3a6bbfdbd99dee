"""kill -9 while audit entries are on their way: each ends in its chain once, and every chain can be proved."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import asyncpg
import pytest

from eb_auth.domain.audit import HEADS
from eb_tools.audit_cli import prove
from eb_tools.client import wait_for
from eb_tools.files import read_json
from eb_tools.names import NAMES, schema_of
from eb_tools.world import World

from .arena import Arena

pytestmark = pytest.mark.timeout(150)
STEPS = [
    *(("auth", f"audit.{step}") for step in ("received", "before_commit", "after_commit", "after_ack")),
    *(("catalog", f"relay.{step}") for step in ("before_send", "after_confirm", "after_mark")),
]
ENTRIES = " UNION ALL ".join(f"SELECT audit_id FROM {schema_of(name)}.audit_entry" for name in NAMES)
MISSING = f"SELECT count(*) FROM ({ENTRIES}) AS e LEFT JOIN auth.audit_chain AS c USING (audit_id) WHERE c.seq IS NULL"
BESIDES = f"""
    SELECT count(*) FROM auth.audit_chain AS c LEFT JOIN ({ENTRIES}) AS e USING (audit_id)
     WHERE e.audit_id IS NULL AND c.chain_id <> '{HEADS}'
"""


@pytest.fixture
async def owner(arena: Arena) -> AsyncIterator[asyncpg.Connection[Any]]:
    connection = await asyncpg.connect(arena.facts["owner_dsn"])
    yield connection
    await connection.close()


async def rename(world: World, model: str, armed: Path) -> int:
    """Change something audited until the fail point was reached, and a little longer; give how often."""

    def is_reached() -> bool:
        return not armed.exists()

    count = after = 0
    while after < 5:
        count, after = count + 1, after + is_reached()
        path, body = f"/catalog/business-models/{model}", {"name": f"Name {count}"}
        await wait_for(lambda path=path, body=body: patched(world, path, body), "the catalog")  # type: ignore[misc]
        await asyncio.sleep(0.1)
    return count


async def patched(world: World, path: str, body: dict[str, str]) -> bool:
    """Tell whether a change was made; the catalog may be away."""
    headers = {"Authorization": f"Bearer {world.staff.operator_token}"}
    try:
        async with world.api.http.patch(world.api.base_url + path, json=body, headers=headers) as answer:
            return answer.status == 200
    except aiohttp.ClientError:
        return False


@pytest.mark.parametrize(("service", "step"), STEPS, ids=[f"{service}-{step}" for service, step in STEPS])
async def test_an_entry_is_chained_once_whatever_is_killed(
    arena: Arena, chaos_world: World, owner: asyncpg.Connection[Any], service: str, step: str
) -> None:
    model = await chaos_world.model()
    before = arena.control.pids()[service][0]
    count = await rename(chaos_world, model, arena.arm(service, step))
    await arena.restarted(service, before)

    async def is_whole() -> bool:
        return await owner.fetchval(MISSING) == 0

    await wait_for(is_whole, "all entries in their chains", timeout_s=60)
    assert await owner.fetchval(BESIDES) == 0
    changes = "SELECT count(*) FROM auth.audit_chain WHERE entity_id = $1 AND action = 'update'"
    assert await owner.fetchval(changes, model) == count
    env = {"EB_AUTH_SECRET": read_json(arena.control.layout.secrets)["auth_seal"]}
    assert not [one async for one in prove(arena.facts["owner_dsn"], None, env) if one.problem]
