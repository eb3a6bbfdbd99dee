"""The catalog on a real database and bus, and an operator who talks to it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from eb_catalog.app import SERVICE
from eb_catalog.consumers import follow_moves
from eb_contracts.auth import OrgChanged
from eb_contracts.base import EntityFact
from eb_contracts.ids import new_id
from eb_kit import readmodels, telemetry
from eb_kit.testing import Client, running
from eb_kit.testing_db import ClonedDatabase

NO_BROKER = "amqp://nobody@127.0.0.1:1/"
NOW = "2026-11-04T02:00:00+00:00"


@dataclass
class Catalog:
    """A running catalog; `ask` gives status and body, and asserts nothing."""

    client: Client
    clock: Path
    operator: dict[str, str]

    async def ask(
        self, method: str, path: str, body: Any = None, *, headers: dict[str, str] | None = None
    ) -> tuple[int, Any]:
        """Send a request as the operator, or with other headers."""
        sent: dict[str, Any] = {} if body is None else {"json": body}
        async with self.client.http.request(
            method, self.client.url(path), headers=headers or self.operator, **sent
        ) as response:
            is_json = "json" in response.headers.get("Content-Type", "")
            return response.status, await response.json() if is_json else None

    async def put_sku(self, sku: str = "sms", **members: Any) -> None:
        """Have a SKU, valid by default."""
        body = {"type": "action", "unit": "message", "retail": "0.20", "tax_code": "GST"} | members
        status, answer = await self.ask("PUT", f"/catalog/skus/{sku}", body)
        assert status in (200, 201), answer

    async def model(self, code: str = "standard", currency: str = "AUD") -> str:
        """Have a business model; give its id."""
        body = {"code": code, "name": "Standard", "currency": currency}
        status, answer = await self.ask("POST", "/catalog/business-models", body)
        assert status == 201, answer
        return str(answer["model_id"])

    async def plan(self, model_id: str, prices: dict[str, Any], *, is_published: bool = True) -> str:
        """Have a plan with these prices by SKU; give its id."""
        body = {"model_id": model_id, "name": "Pro", "tier": "pro"}
        status, answer = await self.ask("POST", "/catalog/plans", body)
        assert status == 201, answer
        plan_id = str(answer["plan_id"])
        for sku, price in prices.items():
            status, answer = await self.ask("PUT", f"/catalog/plans/{plan_id}/skus/{sku}", price)
            assert status == 201, answer
        if is_published:
            await self.publish(plan_id)
        return plan_id

    async def publish(self, plan_id: str, apply: str = "next_period") -> int:
        """Publish a plan's draft; give the version."""
        status, answer = await self.ask("POST", f"/catalog/plans/{plan_id}:publish", {"apply": apply})
        assert status == 200, answer
        return int(answer["version"])

    async def assign(self, org_id: UUID, model_id: str, plan_id: str, **members: Any) -> Any:
        """Put an organisation on a plan; give the answer."""
        body = {"model_id": model_id, "plan_id": plan_id} | members
        status, answer = await self.ask("PUT", f"/catalog/orgs/{org_id}/business-model", body)
        assert status in (200, 201), answer
        return answer

    async def terms(self, org_id: UUID, at: str | None = None) -> Any:
        """Give an organisation's terms at an instant."""
        query = f"?at={at.replace('+', '%2B')}" if at else ""
        status, answer = await self.ask("GET", f"/catalog/orgs/{org_id}/terms{query}")
        assert status == 200, answer
        return answer

    async def announced(self, fact: type[EntityFact]) -> list[Any]:
        """Give the facts of a kind that were put into the outbox, in order."""
        rows = await self.client.context.pool.fetch(
            "SELECT body FROM outbox WHERE type = $1 ORDER BY outbox_id", fact.TYPE
        )
        return [fact.from_bytes(row["body"]) for row in rows]

    def set_clock(self, instant: str) -> None:
        """Move the service's business time."""
        offset = datetime.fromisoformat(instant) - self.client.context.clock.machine_now()
        self.clock.write_text(str(offset.total_seconds()))
        self.client.context.clock._read_at = -1

    async def hear(self, *facts: OrgChanged) -> None:
        """Let organisations' facts arrive."""
        context = self.client.context
        async with context.begin("system:catalog") as tx:
            await follow_moves(tx, await readmodels.keep(tx.connection, facts, context.clock.machine_now()))
        await context.directory.refresh()

    async def org(self, org_id: UUID | None = None, version: int = 1, **members: Any) -> UUID:
        """Let an organisation's fact arrive; give its id. In Sydney, Australia, by default."""
        made = org_id or new_id()
        await self.hear(an_org(made, version, **members))
        return made


def an_org(org_id: UUID, version: int, **members: Any) -> OrgChanged:
    """Give an organisation's fact, valid by default."""
    plain = {
        "default_timezone": "Australia/Sydney",
        "country": "AU",
        "parent_org_id": None,
        "parent_links": (),
    }
    return OrgChanged.model_validate({"org_id": org_id, "version": version} | plain | members)


@pytest.fixture
async def catalog(fresh_db: ClonedDatabase, tmp_path: Path) -> AsyncIterator[Catalog]:
    """A catalog without bus and jobs, on 4 November 2026 in the afternoon of Sydney."""
    telemetry.start_logging("catalog", "error")
    clock = tmp_path / "clock"
    clock.write_text("0")
    async with running(
        SERVICE, fresh_db.dsn("catalog"), NO_BROKER, doors=("api",), environ={"EB_CLOCK_FILE": str(clock)}
    ) as client:
        here = Catalog(client, clock, client.auth(roles=["Operator"]))
        here.set_clock(NOW)
        yield here
