"""What names a person stays in auth: no event, no log line and no other schema holds it."""

from __future__ import annotations

import secrets
from pathlib import Path
from typing import Any

import asyncpg

from eb_tools.client import wait_for
from eb_tools.world import World

SCHEMAS = ("auth", "domain_verify", "catalog", "metering_ingest", "pricing", "ledger", "estimator")
AT_HOME = {"user", "invitation", "organization", "audit_personal"}
"""Auth's own tables that hold addresses and names, on purpose."""


async def holders(owner: asyncpg.Connection[Any], schema: str, marker: str) -> set[str]:
    """Name the tables of a schema in which a row holds the marker, as text or as bytes."""
    tables = await owner.fetch(
        "SELECT relname FROM pg_class WHERE relnamespace = $1::regnamespace AND relkind IN ('r', 'p')"
        " AND NOT relispartition",
        schema,
    )
    found = set()
    for row in tables:
        name = row["relname"]
        query = (
            f'SELECT EXISTS (SELECT 1 FROM {schema}."{name}" AS t WHERE t::text ILIKE $1 OR t::text ILIKE $2)'
        )
        if await owner.fetchval(query, f"%{marker}%", f"%{marker.encode().hex()}%"):
            found.add(name)
    return found


def lines_with(folder: Path, marker: str) -> list[str]:
    """Give log lines that hold the marker."""
    return [
        f"{file.name}: {line[:200]}"
        for file in folder.glob("*.log")
        for line in file.read_text(errors="replace").splitlines()
        if marker in line.lower()
    ]


async def test_addresses_and_names_are_in_no_event_log_or_other_schema(
    stack: Any, world: World, owner: asyncpg.Connection[Any]
) -> None:
    marker = f"zq{secrets.token_hex(5)}"
    tag, world.tag = world.tag, marker
    ada = await world.person("ada")
    world.tag = tag
    member = await world.org(ada, "Company")
    body = {"billing_email": f"pay-{marker}@example.net", "tax_id": marker, "legal_name": f"{marker} & Co"}
    await world.api.call("PATCH", f"/orgs/{member.org_id}", body, token=member.admin_token)
    await world.api.post(
        f"/orgs/{member.org_id}/invitations",
        {"email": f"bob-{marker}@example.net"},
        token=member.admin_token,
    )

    async def everything_left() -> bool:
        waits = [await owner.fetchval(f"SELECT count(*) FROM {s}.audit_waiting") for s in SCHEMAS]
        return not any(waits)

    await wait_for(everything_left, "the audit entries to be sent")
    assert await holders(owner, "auth", marker) == AT_HOME
    elsewhere = {schema: await holders(owner, schema, marker) for schema in SCHEMAS[1:]}
    assert not any(elsewhere.values()), elsewhere
    assert lines_with(stack.run_dir / "logs", marker) == []
