"""A running pricing service as a test sees it: facts and usage come in as from the bus, people call its doors."""

from __future__ import annotations

import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import asyncpg

from eb_contracts.auth import ProjectChanged
from eb_contracts.base import EntityFact, Message
from eb_contracts.catalog import TermsDefined
from eb_contracts.ids import new_id
from eb_contracts.metering import UsageRecord
from eb_contracts.pricing import ChargePriced
from eb_kit import readmodels
from eb_kit.testing import Client, running
from eb_kit.testing_db import ClonedDatabase
from eb_kit.tx import Tx
from eb_pricing.app import SERVICE
from eb_pricing.consumers import handlers, price_usage
from eb_pricing.jobs import begin_periods, close_periods, rate_what_became_due, settle_closed_periods
from eb_rating import Terms, from_plain, target, target_closed

from .factories import assigned, message, org_terms, terms

NO_BROKER = "amqp://nobody@127.0.0.1:1/"


@dataclass
class World:
    """A service without a broker: a test hands messages over itself, as many at once as it likes."""

    client: Client
    owner: asyncpg.Connection[Any]
    clock_file: Path
    owner_dsn: str

    def set_clock(self, instant: str) -> None:
        """Move the business time of the service."""
        offset = datetime.fromisoformat(instant) - self.client.context.clock.machine_now()
        self.clock_file.write_text(str(offset.total_seconds()))
        self.client.context.clock._read_at = -1

    async def learn(self, *facts: EntityFact) -> None:
        """Let facts arrive in one take."""
        context = self.client.context
        async with context.begin("service:pricing") as tx:
            newer = await readmodels.keep(tx.connection, facts, context.clock.machine_now())
            for type_, hook in handlers.hooks.items():
                if found := [fact for fact in newer if type_ == fact.TYPE]:
                    await hook(tx, found)

    async def org(self, *defined: TermsDefined) -> UUID:
        """Let an organisation arrive that is priced by these terms, or by AUD 0.10 an SMS."""
        org_id = await self.client.org()
        defined = defined or (terms(),)
        await self.learn(*defined, org_terms(org_id, assigned(*defined)))
        await self.sweep()
        return org_id

    async def deliver(self, *records: UsageRecord) -> None:
        """Hand one take with one message over."""
        async with self.client.context.begin("service:pricing") as tx:
            await price_usage(tx, [message(*records)])

    async def sweep(self) -> None:
        """Run the sweep until nothing is due."""
        await self.run(rate_what_became_due)

    async def run(self, *jobs: Callable[[Tx], Awaitable[int]]) -> None:
        """Run each job until nothing is due."""
        for job in jobs:
            taken = 1
            while taken:
                async with self.client.context.begin("system:pricing") as tx:
                    taken = await job(tx)

    async def begin(self) -> None:
        """Begin what is due by the calendar."""
        await self.run(begin_periods)

    async def close(self) -> None:
        """Close what is due, and settle it."""
        await self.run(begin_periods, close_periods, settle_closed_periods)

    async def get(self, path: str, *, headers: dict[str, str] | None = None, **token: Any) -> tuple[int, Any]:
        """Call an HTTP door, as Operator unless a token says otherwise; give status and body."""
        auth = headers or self.client.auth(**(token or {"roles": ["Operator"]}))
        async with self.client.http.get(self.client.url(path), headers=auth) as answer:
            return answer.status, await answer.json()

    async def post(
        self, path: str, body: object, headers: dict[str, str] | None = None, **token: Any
    ) -> tuple[int, Any]:
        """Post to an HTTP door, as Finance unless a token or a header says otherwise; give status and body."""
        auth = self.client.auth(**(token or {"roles": ["Finance"]})) | (headers or {})
        async with self.client.http.post(self.client.url(path), json=body, headers=auth) as answer:
            return answer.status, await answer.json()

    async def call(
        self, method: str, path: str, body: object = None, headers: dict[str, str] | None = None, **token: Any
    ) -> tuple[int, Any]:
        """Call an HTTP door, as Operator unless a token says otherwise; give status and body."""
        auth = self.client.auth(**(token or {"roles": ["Operator"]})) | (headers or {})
        async with self.client.http.request(method, self.client.url(path), json=body, headers=auth) as answer:
            return answer.status, await answer.json() if answer.status != 204 else None

    async def project(self, org_id: UUID, project_id: UUID) -> None:
        """Let a project of an organisation arrive, or move."""
        version = time.time_ns()
        await self.learn(ProjectChanged(version=version, project_id=project_id, org_id=org_id))

    async def charges(self, org_id: UUID) -> list[asyncpg.Record]:
        """Give an organisation's charges as they are stored, in the order they were made."""
        return await self.owner.fetch(
            "SELECT * FROM pricing.charge WHERE org_id = $1 ORDER BY created_at, period, counter_version",
            org_id,
        )

    async def counter(self, org_id: UUID, sku: str = "sms", period: str = "2026-11") -> asyncpg.Record:
        """Give a counter as it is stored."""
        found = await self.owner.fetchrow(
            "SELECT * FROM pricing.counter WHERE (org_id, sku, period) = ($1, $2, $3)", org_id, sku, period
        )
        assert found is not None
        return found

    async def unrated(self, org_id: UUID) -> list[str]:
        """Give the reasons of an organisation's waiting usage."""
        rows = await self.owner.fetch(
            "SELECT reason FROM pricing.unrated_usage WHERE org_id = $1 ORDER BY usage_id", org_id
        )
        return [row["reason"] for row in rows]

    async def sent(self) -> list[ChargePriced]:
        """Give the charges' messages in the outbox, oldest first."""
        return await self.sent_of(ChargePriced)

    async def sent_of(self, kind: type[Message]) -> list[Any]:
        """Give the messages of a type in the outbox, oldest first."""
        rows = await self.owner.fetch(
            "SELECT body FROM pricing.outbox WHERE type = $1 ORDER BY outbox_id", kind.TYPE
        )
        return [kind.from_bytes(row["body"]) for row in rows]

    async def broken(self) -> dict[str, int]:
        """Count, in SQL and over everything, where pricing's invariants don't hold."""
        found = {name: await self.owner.fetchval(sql) for name, sql in INVARIANTS.items()}
        return found | {"charges = target(total)": await self._off_target()}

    async def _off_target(self) -> int:
        rows = await self.owner.fetch(
            "SELECT c.quantity, c.events, c.is_closed, k.body -> 'body' AS body,"
            " (SELECT sum(amount_gross + waived_amount - base_due) FROM pricing.charge"
            " WHERE (org_id, sku, period, currency) = (c.org_id, c.sku, c.period, c.currency)) AS charged"
            " FROM pricing.counter c JOIN pricing.known k ON k.entity = 'terms' AND k.entity_id = c.terms_hash"
        )
        bodies = [
            TermsDefined.model_fields["body"].annotation.model_validate_json(row["body"]) for row in rows
        ]
        return sum(
            (row["charged"] or 0) != _target(row, from_plain(body.model_dump()))
            for row, body in zip(rows, bodies, strict=True)
        )


def _target(row: asyncpg.Record, terms: Terms) -> Decimal:
    if row["is_closed"]:
        return target_closed(row["quantity"], row["events"], terms)
    if row["charged"] == row["quantity"] == row["events"] == 0:
        return Decimal(0)
    return target(row["quantity"], row["events"], terms)


COUNTED = (
    "(SELECT org_id, sku, period, coalesce(sum(quantity) FILTER (WHERE kind <> 'base'), 0)"
    " AS quantity, sum(event_count) AS events, count(*) AS version,"
    " sum(tax_amount) AS taxed FROM pricing.charge GROUP BY 1, 2, 3)"
)
INVARIANTS = {
    "charges sum to the counter": f"SELECT count(*) FROM pricing.counter c FULL JOIN {COUNTED} s"
    " USING (org_id, sku, period) WHERE (c.quantity, c.events, c.version)"
    " IS DISTINCT FROM (s.quantity, s.events, s.version) AND c.version > 0",
    "charges sum to what was charged": "SELECT count(*) FROM pricing.counter c WHERE (charged, base, waived) <>"
    " (SELECT sum(amount_gross + waived_amount), sum(base_due), sum(waived_amount) FROM pricing.charge h"
    " WHERE (h.org_id, h.sku, h.period, h.currency) = (c.org_id, c.sku, c.period, c.currency))",
    "counters of closed periods are closed": "SELECT count(*) FROM pricing.counter c JOIN pricing.billing_period p"
    " USING (org_id, period) WHERE c.is_closed <> (p.settled_at IS NOT NULL)",
    "nothing is both charged and waiting": "SELECT count(*) FROM pricing.charge c JOIN pricing.unrated_usage u"
    " ON c.charge_id = u.usage_id::text AND c.org_id = u.org_id",
    "one message per charge": "SELECT abs((SELECT count(*) FROM pricing.charge) - (SELECT coalesce(sum("
    " jsonb_array_length(convert_from(body, 'UTF8')::jsonb -> 'charges')), 0) FROM pricing.outbox"
    " WHERE type = 'pricing.charge.priced.v1'))",
}
NOTHING_BROKEN = dict.fromkeys([*INVARIANTS, "charges = target(total)"], 0)


def total(rows: list[asyncpg.Record], column: str = "amount_gross") -> Decimal:
    """Sum a column of charges."""
    return sum((row[column] for row in rows), Decimal(0))


def someone() -> UUID:
    """Give an id that nobody has."""
    return new_id()


@asynccontextmanager
async def a_world(database: ClonedDatabase, **environ: str) -> AsyncIterator[World]:
    """Run pricing on a database of the test's own; authorize may take long, since clients share its event loop."""
    with tempfile.TemporaryDirectory() as folder:
        clock_file = Path(folder) / "clock"
        owner = await asyncpg.connect(database.owner_dsn)
        try:
            async with running(
                SERVICE,
                database.dsn("pricing"),
                NO_BROKER,
                doors=("api",),
                environ={
                    "EB_CLOCK_FILE": str(clock_file),
                    "EB_POOL_SIZE": "20",
                    "EB_AUTHORIZE_DEADLINE_MS": "5000",
                    **environ,
                },
            ) as client:
                world = World(client, owner, clock_file, database.owner_dsn)
                world.set_clock("2026-11-05T00:00:30Z")
                yield world
        finally:
            await owner.close()
