"""A running ledger as a test sees it: facts and charges come in as from the bus, people call its HTTP doors."""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import asyncpg

from eb_contracts.auth import OrgChanged
from eb_contracts.ids import new_id
from eb_contracts.pricing import Charge
from eb_kit import readmodels
from eb_kit.db import WEATHER
from eb_kit.testing import Client, running
from eb_kit.testing_db import ClonedDatabase
from eb_ledger.app import SERVICE
from eb_ledger.consumers import give_default_accounts, post_priced_charges

from .factories import BORN, a_message, an_org

FINANCE = new_id()
NO_BROKER = "amqp://nobody@127.0.0.1:1/"


@dataclass
class World:
    """A service without a broker: a test hands messages over itself, as many at once as it likes."""

    client: Client
    owner: asyncpg.Connection[Any]
    clock_file: Path

    def set_clock(self, instant: str) -> None:
        """Move the business time of the service."""
        offset = datetime.fromisoformat(instant) - self.client.context.clock.machine_now()
        self.clock_file.write_text(str(offset.total_seconds()))
        self.client.context.clock._read_at = -1

    async def learn(self, *facts: OrgChanged) -> None:
        """Let organisations' facts arrive."""
        context = self.client.context
        async with context.begin("service:ledger") as tx:
            newer = await readmodels.keep(tx.connection, facts, context.clock.machine_now())
            await give_default_accounts(tx, newer)
        await context.directory.refresh()

    async def org(self, parent: UUID | None = None) -> UUID:
        """Let a new organisation's fact arrive; give its id."""
        org_id = new_id()
        await self.learn(an_org(org_id, parent))
        return org_id

    async def deliver(self, *charges: Charge) -> None:
        """Hand one take with one message over; in bad weather again, as the kit does."""
        while True:
            with suppress(*WEATHER):
                async with self.client.context.begin("service:ledger") as tx:
                    await post_priced_charges(tx, [a_message(*charges)])
                return

    async def call(
        self,
        method: str,
        path: str,
        body: object = None,
        *,
        headers: dict[str, str] | None = None,
        **token: Any,
    ) -> tuple[int, Any]:
        """Call an HTTP door, as Finance unless a token says otherwise; give status and body."""
        auth = headers or self.client.auth(**(token or {"roles": ["Finance"], "user_id": FINANCE}))
        async with self.client.http.request(method, self.client.url(path), json=body, headers=auth) as answer:
            return answer.status, await answer.json()

    async def must(self, method: str, path: str, body: object = None) -> Any:
        """Call an HTTP door as Finance; it has to work."""
        status, answer = await self.call(method, path, body)
        assert status < 300, answer
        return answer

    async def partner(self, tier: str = "gold") -> UUID:
        """Add a partner."""
        return UUID((await self.must("POST", "/partners", {"name": "Reseller", "tier": tier}))["partner_id"])

    async def rate(
        self, pct: str, tier: str = "gold", sku: str = "sms", effective_at: datetime = BORN
    ) -> None:
        """Set a commission rate."""
        await self.must(
            "PUT",
            "/commission-rates",
            {"partner_tier": tier, "sku": sku, "pct": pct, "effective_at": effective_at.isoformat()},
        )

    async def por(self, partner_id: UUID, **of: UUID) -> UUID:
        """Make a partner the one of record since ever; `of` is org_id or billing_account_id."""
        body = {"partner_id": str(partner_id), "start_at": BORN.isoformat()}
        body |= {name: str(value) for name, value in of.items()}
        return UUID((await self.must("POST", "/partner-of-record", body))["por_id"])

    async def an_org_with_a_partner(self, pct: str = "10") -> UUID:
        """Give an organisation whose partner gets `pct` percent of SMS."""
        org_id, tier = await self.org(), str(new_id())
        await self.rate(pct, tier)
        await self.por(await self.partner(tier), org_id=org_id)
        return org_id

    async def lines(self, *org_ids: UUID) -> list[asyncpg.Record]:
        """Give all lines of these organisations, oldest first, as they are stored."""
        rows: list[asyncpg.Record] = await self.owner.fetch(
            "SELECT * FROM ledger.ledger WHERE org_id = ANY($1) ORDER BY entry_id", org_ids
        )
        return rows

    async def parked(self, *org_ids: UUID) -> list[tuple[str, str]]:
        """Give what is parked and open of these organisations, as (charge, reason)."""
        rows = await self.owner.fetch(
            "SELECT charge_id, reason FROM ledger.parked_charge WHERE resolved_at IS NULL AND org_id = ANY($1)"
            " ORDER BY 1, 2",
            org_ids,
        )
        return [(row["charge_id"], row["reason"]) for row in rows]

    async def broken(self) -> dict[str, int]:
        """Count, in SQL and over everything, where the ledger's invariants don't hold."""
        return {name: await self.owner.fetchval(sql) for name, sql in INVARIANTS.items()}


INVARIANTS = {
    "gross = partner + net": "SELECT count(*) FROM ledger.ledger WHERE amount_gross <> partner_amount + net",
    "one line per charge": "SELECT count(*) FROM (SELECT org_id, charge_id FROM ledger.ledger"
    " GROUP BY 1, 2 HAVING count(*) > 1) AS twice",
    "one posting per line": "SELECT count(*) FROM ledger.ledger l FULL JOIN ledger.charge_posting c"
    " USING (org_id, charge_id, entry_id, created_at) WHERE l.entry_id IS NULL OR c.charge_id IS NULL",
    "shares telescope": "SELECT count(*) FROM (SELECT sum(partner_amount) AS got,"
    " round(sum(amount_gross) * partner_pct / 100, 2) AS due FROM ledger.ledger WHERE currency = 'AUD'"
    " GROUP BY partner_id, org_id, sku, period, partner_pct) AS keys WHERE got <> due",
    "counters are the lines' gross": "SELECT count(*) FROM ledger.commission_counter c WHERE gross <> (SELECT"
    " sum(amount_gross) FROM ledger.ledger l WHERE (l.partner_id, l.org_id, l.sku, l.period, l.currency,"
    " l.partner_pct) = (c.partner_id, c.org_id, c.sku, c.period, c.currency, c.pct))",
}
NOTHING_BROKEN = dict.fromkeys(INVARIANTS, 0)


def in_takes(charges: Sequence[Charge], size: int) -> list[Sequence[Charge]]:
    """Cut charges into takes."""
    return [charges[start : start + size] for start in range(0, len(charges), size)]


@asynccontextmanager
async def a_world(database: ClonedDatabase) -> AsyncIterator[World]:
    """Run the ledger on a database of the test's own."""
    with tempfile.TemporaryDirectory() as folder:
        clock_file = Path(folder) / "clock"
        owner = await asyncpg.connect(database.owner_dsn)
        try:
            async with running(
                SERVICE,
                database.dsn("ledger"),
                NO_BROKER,
                doors=("api",),
                environ={"EB_CLOCK_FILE": str(clock_file), "EB_POOL_SIZE": "20"},
            ) as client:
                yield World(client, owner, clock_file)
        finally:
            await owner.close()
