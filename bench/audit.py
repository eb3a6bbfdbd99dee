"""What auditing costs a writer, and how fast entries are chained.

    python bench/audit.py

Eight connections change one organisation's projects, a commit each, with the audit trigger and without it; then the
entries are sent and chained as the service does.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import asyncpg
from common import record

from eb_auth.app import SERVICE
from eb_auth.flows.auditing import chain_entries
from eb_contracts.audit import AuditRecorded
from eb_contracts.ids import new_id
from eb_kit.audit import send_audit_entries
from eb_kit.testing import Client, running
from eb_kit.testing_db import TestDatabase

WRITERS = 8
WRITES = 500
NO_BROKER = "amqp://guest:guest@127.0.0.1:1/"


async def write(dsn: str, project_id: Any) -> None:
    """Change a project so many times, each in a transaction with an actor."""
    connection = await asyncpg.connect(dsn)
    try:
        for number in range(WRITES):
            async with connection.transaction():
                await connection.execute("SELECT set_config('eb.actor', 'system:bench', true)")
                await connection.execute(
                    "UPDATE auth.project SET name = $2 WHERE project_id = $1", project_id, f"n{number}"
                )
    finally:
        await connection.close()


async def writes_per_s(dsn: str, projects: list[Any]) -> float:
    """Measure commits a second of all writers together."""
    started = time.perf_counter()
    await asyncio.gather(*(write(dsn, project_id) for project_id in projects))
    return WRITERS * WRITES / (time.perf_counter() - started)


async def make_projects(owner: asyncpg.Connection[Any]) -> list[Any]:
    """Make one organisation with a project for each writer."""
    org_id, projects, now = new_id(), [new_id() for _ in range(WRITERS)], "2026-01-01T00:00:00+00:00"
    async with owner.transaction():
        await owner.execute("SELECT set_config('eb.actor', 'system:bench', true)")
        await owner.execute(
            "INSERT INTO auth.organization (org_id, legal_name, org_slug, billing_email, default_timezone, created_at)"
            f" VALUES ($1, 'Bench', 'bench', 'b@example.net', 'UTC', '{now}')",
            org_id,
        )
        for project_id in projects:
            await owner.execute(
                f"INSERT INTO auth.project (project_id, org_id, name, created_at) VALUES ($1, $2, 'n', '{now}')",
                *(project_id, org_id),
            )
    return projects


async def chained_per_s(client: Client) -> float:
    """Send and chain what waits; entries a second."""
    started, count = time.perf_counter(), 0
    while True:
        async with client.context.begin("system:auth") as tx:
            taken = await send_audit_entries(tx)
            for message in tx.outgoing:
                assert isinstance(message, AuditRecorded)
                await chain_entries(tx, [(message.service, entry) for entry in message.entries])
            tx.outgoing.clear()
        if not taken:
            return count / (time.perf_counter() - started)
        count += taken


async def run() -> None:
    """Measure on a database of its own."""
    server = await TestDatabase.start()
    try:
        clone = await server.clone()
        owner = await asyncpg.connect(clone.owner_dsn)
        projects = await make_projects(owner)
        audited = await writes_per_s(clone.owner_dsn, projects)
        await owner.execute("ALTER TABLE auth.project DISABLE TRIGGER audit")
        plain = await writes_per_s(clone.owner_dsn, projects)
        settings = {"EB_MAILBOX_DIR": str(Path(tempfile.mkdtemp()))}
        async with running(SERVICE, clone.dsn("auth"), NO_BROKER, doors=(), environ=settings) as client:
            chained = await chained_per_s(client)
        await owner.close()
    finally:
        await server.stop()
    record(
        "audit",
        {
            "writers": WRITERS,
            "audited_writes_per_s": round(audited),
            "plain_writes_per_s": round(plain),
            "chained_per_s": round(chained),
        },
    )


if __name__ == "__main__":
    sys.exit(asyncio.run(run()))
