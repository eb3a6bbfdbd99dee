"""A running estimator as a test sees it: facts and charges come in as from the bus, people call its door."""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import asyncpg

from eb_contracts.base import EntityFact
from eb_contracts.catalog import Assignment, OrgTermsAssigned, TermsBody, TermsDefined
from eb_contracts.ids import new_id, partition_of
from eb_contracts.pricing import Charge, ChargePriced, CounterState
from eb_estimator.app import SERVICE
from eb_estimator.consumers import take_counters
from eb_kit.testing import Client, running
from eb_kit.testing_db import ClonedDatabase

NO_BROKER = "amqp://nobody@127.0.0.1:1/"
NOVEMBER = datetime(2026, 10, 31, 13, tzinfo=UTC)


def terms(sku: str = "sms", **values: Any) -> TermsDefined:
    """Terms of AUD 0.10 a unit, with their hash."""
    plain = {
        "sku": sku,
        "sku_type": "action",
        "currency": "AUD",
        "minor_digits": 2,
        "included_qty": "0",
        "overage_price": "0.10",
    }
    body = TermsBody.model_validate(plain | values)
    content = json.dumps(body.model_dump(mode="json"), sort_keys=True)
    return TermsDefined(version=1, terms_hash=hashlib.sha256(content.encode()).hexdigest(), body=body)


def assigned(*defined: TermsDefined, since: datetime = NOVEMBER, **values: Any) -> Assignment:
    """An assignment in Sydney that names these terms."""
    plain = {
        "effective_at": since,
        "plan_id": new_id(),
        "plan_version": 1,
        "currency": "AUD",
        "time_zone": "Australia/Sydney",
        "hashes": {one.body.sku: one.terms_hash for one in defined},
        "retail_key": "AUD/AU",
    }
    return Assignment.model_validate(plain | values)


def org_terms(org_id: UUID, *assignments: Assignment, version: int = 1) -> OrgTermsAssigned:
    """All assignments of an organisation."""
    return OrgTermsAssigned(version=version, org_id=org_id, assignments=assignments)


def a_charge(
    org_id: UUID, quantity: str, *, version: int, events: int = 1, period: str = "2026-11"
) -> Charge:
    """A charge that left the counter of SMS like this."""
    counter = {"quantity": quantity, "events": events, "charged": "0", "version": version}
    amounts = dict.fromkeys(("amount_gross", "waived_amount", "credit_applied", "tax_amount"), Decimal(0))
    return Charge(
        charge_id=str(new_id()),
        org_id=org_id,
        project_id=None,
        sku="sms",
        period=period,
        time=NOVEMBER,
        kind="usage",
        quantity=Decimal(1),
        event_count=1,
        currency="AUD",
        tax_code=None,
        terms_hash="",
        counter=CounterState.model_validate(counter),
        **amounts,
    )


@dataclass
class World:
    """A service without a broker: a test hands messages over itself."""

    client: Client
    owner: asyncpg.Connection[Any]

    async def learn(self, *facts: EntityFact) -> None:
        """Let facts arrive."""
        await self.client.seed(*facts)

    async def org(self, *defined: TermsDefined) -> UUID:
        """Let an organisation arrive that is priced by these terms, or by AUD 0.10 an SMS."""
        org_id = await self.client.org()
        defined = defined or (terms(),)
        await self.learn(*defined, org_terms(org_id, assigned(*defined)))
        return org_id

    async def counted(self, *charges: Charge) -> None:
        """Let charges arrive in one take."""
        async with self.client.context.begin("service:estimator") as tx:
            await take_counters(
                tx,
                [
                    ChargePriced(partition=partition_of(charge.org_id), charges=(charge,))
                    for charge in charges
                ],
            )

    async def ask(
        self, org_id: UUID, skus: dict[str, object], leads: object = 1, *, headers: Any = None, **more: object
    ) -> tuple[int, bytes]:
        """Ask for an estimate, as Operator unless headers say otherwise; give status and the bytes of the answer."""
        body = {"org_id": str(org_id), "skus": skus, "leads": leads, **more}
        auth = headers or self.client.auth(roles=["Operator"])
        url = self.client.url("/pricing/estimate")
        async with self.client.http.post(url, json=body, headers=auth) as answer:
            return answer.status, await answer.read()

    async def estimate(self, org_id: UUID, skus: dict[str, object], leads: object = 1, **more: object) -> Any:
        """Ask for an estimate; it has to work."""
        status, answer = await self.ask(org_id, skus, leads, **more)
        assert status == 200, answer
        return json.loads(answer)

    async def cached(self, org_id: UUID) -> int:
        """Count the estimates kept for an organisation."""
        count: int = await self.owner.fetchval(
            "SELECT count(*) FROM estimator.pricing_estimate WHERE org_id = $1", org_id
        )
        return count


@asynccontextmanager
async def a_world(database: ClonedDatabase) -> AsyncIterator[World]:
    """Run the estimator on a database of the test's own, in November 2026."""
    with tempfile.TemporaryDirectory() as folder:
        clock_file = Path(folder) / "clock"
        offset = datetime(2026, 11, 5, tzinfo=UTC) - datetime.now(UTC)
        clock_file.write_text(str(offset.total_seconds()))
        owner = await asyncpg.connect(database.owner_dsn)
        environ = {"EB_CLOCK_FILE": str(clock_file), "EB_TERMS_WAIT_S": "1"}
        try:
            async with running(
                SERVICE, database.dsn("estimator"), NO_BROKER, doors=("api",), environ=environ
            ) as client:
                yield World(client, owner)
        finally:
            await owner.close()
