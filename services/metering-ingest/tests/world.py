"""A running metering ingest with an organisation, a project and a key; and events to send."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

from eb_contracts.auth import ProjectChanged
from eb_contracts.ids import new_id
from eb_kit.testing import Client, running
from eb_kit.testing_db import ClonedDatabase
from eb_metering_ingest.app import SERVICE

SCOPES = ("metering:write", "metering:read")


@dataclass
class World:
    """Who sends, where to, and what came of it."""

    client: Client
    org_id: UUID
    project_id: UUID
    key: str

    def event(self, **members: Any) -> dict[str, Any]:
        """A valid event."""
        return {
            "request_id": f"r-{uuid4()}",
            "sku": "sms.au",
            "quantity": "1",
            "org_id": str(self.org_id),
            "project_id": str(self.project_id),
            "time": datetime.now(UTC).isoformat(),
        } | members

    async def send(self, body: object, **headers: str) -> tuple[int, Any]:
        """POST a batch; give status and answer."""
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        sent = {"Authorization": f"Bearer {self.key}", "Content-Type": "application/json"} | {
            name.replace("_", "-"): value for name, value in headers.items()
        }
        url = self.client.url("/metering/events")
        async with self.client.http.post(url, data=data, headers=sent) as answer:
            return answer.status, await answer.json(content_type=None)

    async def get(self, path: str, **query: Any) -> tuple[int, Any]:
        """GET as the organisation's key."""
        headers = {"Authorization": f"Bearer {self.key}"}
        params = {"org_id": str(self.org_id)} | query
        async with self.client.http.get(self.client.url(path), headers=headers, params=params) as answer:
            return answer.status, await answer.json(content_type=None)

    async def staff(
        self, method: str, path: str, body: object = None, *roles: str, org_id: UUID | None = None
    ) -> tuple[int, Any]:
        """Call as a person with these roles: an Operator, if none is named."""
        headers = self.client.auth(roles=list(roles or ("Operator",)), org_id=org_id)
        async with self.client.http.request(
            method, self.client.url(path), json=body, headers=headers
        ) as answer:
            return answer.status, await answer.json(content_type=None)

    async def fetchval(self, sql: str, *args: object) -> Any:
        """Ask the service's own schema."""
        return await self.client.context.pool.fetchval(sql, *args)

    async def recorded(self, request_id: str, status: str = "recorded") -> dict[str, Any]:
        """Wait until an event has a status; give it."""

        async def look() -> Any:
            code, event = await self.get(f"/metering/events/{request_id}")
            return event if code == 200 and event["status"] == status else None

        return await until(look)  # type: ignore[no-any-return]

    async def project(self, org_id: UUID | None = None, project_id: UUID | None = None) -> UUID:
        """Make a project known."""
        made = project_id or new_id()
        await self.client.seed(ProjectChanged(version=1, project_id=made, org_id=org_id or self.org_id))
        return made


async def until(condition: Callable[[], Awaitable[Any]], seconds: float = 20) -> Any:
    """Wait for something to become true; TimeoutError otherwise."""
    async with asyncio.timeout(seconds):
        while not (found := await condition()):
            await asyncio.sleep(0.02)
        return found


@asynccontextmanager
async def metering(
    database: ClonedDatabase,
    amqp_url: str,
    *,
    doors: tuple[str, ...] = ("api", "consumers", "jobs"),
    environ: dict[str, str] | None = None,
) -> AsyncIterator[World]:
    """Run metering ingest with one organisation."""
    dsn = database.dsn("metering_ingest")
    async with running(SERVICE, dsn, amqp_url, doors=doors, environ=environ) as client:
        org_id = await client.org()
        world = World(client, org_id, new_id(), await client.api_key(org_id, SCOPES))
        await world.project(project_id=world.project_id)
        yield world
