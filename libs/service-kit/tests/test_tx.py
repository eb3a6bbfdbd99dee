"""One transaction: actor and trace inside, outbox with it, cut in time; jobs on top of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest

from eb_contracts.catalog import SkuChanged
from eb_kit import tx as kit_tx
from eb_kit.bus import Handlers
from eb_kit.jobs import Job, Jobs, run_once
from eb_kit.service import Service
from eb_kit.settings import ServiceSettings
from eb_kit.telemetry import span
from eb_kit.testing import Client, running
from eb_kit.tx import Tx
from eb_kit.web import Routes

SERVICE = Service("catalog", "catalog", ServiceSettings, Routes("catalog"), Handlers())


@pytest.fixture
async def client(fresh_db: Any, fresh_bus: str) -> AsyncIterator[Client]:
    async with running(SERVICE, fresh_db.dsn("catalog"), fresh_bus, doors=()) as client:
        yield client


def a_fact(version: int = 1) -> SkuChanged:
    return SkuChanged(version=version, sku="sms", type="action", unit="each")


async def outbox_of(client: Client) -> list[asyncpg.Record]:
    return list(await client.context.pool.fetch("SELECT * FROM outbox"))


async def test_a_transaction_carries_actor_request_and_trace_into_the_database(client: Client) -> None:
    with span("request", request_id="r-7") as here:
        async with client.context.begin("system:catalog") as tx:
            row = await tx.fetchrow(
                "SELECT current_setting('eb.actor') AS actor, current_setting('eb.trace_id') AS trace_id,"
                " current_setting('eb.request_id') AS request_id, current_setting('eb.now') AS now"
            )

    assert row is not None
    assert dict(row) == {
        "actor": "system:catalog",
        "trace_id": here.trace_id,
        "request_id": "r-7",
        "now": tx.now.isoformat(),
    }
    assert not await client.context.pool.fetchval("SELECT nullif(current_setting('eb.actor', true), '')")


async def test_a_fact_leaves_exactly_when_its_change_is_kept(client: Client) -> None:
    with pytest.raises(ZeroDivisionError):
        async with client.context.begin("system:catalog") as tx:
            tx.publish(a_fact())
            raise ZeroDivisionError
    assert await outbox_of(client) == []

    async with client.context.begin("system:catalog") as tx:
        tx.publish(a_fact())
        assert await outbox_of(client) == []
    [row] = await outbox_of(client)

    assert (row["type"], row["subject"]) == (SkuChanged.TYPE, "sms")


async def test_an_owner_reads_its_own_fact_at_once_and_never_an_older_one(client: Client) -> None:
    async with client.context.begin("system:catalog") as tx:
        await tx.announce(a_fact(version=2))
        await tx.announce(a_fact(version=1))
        version = await tx.fetchval("SELECT version FROM known WHERE entity = 'sku' AND entity_id = 'sms'")

    assert version == 2


async def test_a_transaction_that_takes_too_long_is_cut_and_undone(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kit_tx, "CUT_AFTER_S", 0.2)
    with pytest.raises(TimeoutError):
        async with client.context.begin("system:catalog") as tx:
            await tx.announce(a_fact())
            await asyncio.sleep(1)

    assert await client.context.pool.fetchval("SELECT count(*) FROM known WHERE entity = 'sku'") == 0


async def test_copy_writes_into_the_own_schema(client: Client) -> None:
    now = client.context.clock.machine_now()
    async with client.context.begin("system:catalog") as tx:
        await tx.copy(
            "known",
            ["entity", "entity_id", "version", "is_deleted", "body", "changed_at"],
            [("sku", f"s{n}", 1, False, {"sku": f"s{n}"}, now) for n in range(3)],
        )

    assert await client.context.pool.fetchval("SELECT count(*) FROM catalog.known WHERE entity = 'sku'") == 3


async def test_a_job_commits_what_it_did_and_says_how_much(client: Client) -> None:
    jobs = Jobs()

    @jobs.every(1)
    async def define(tx: Tx) -> int:
        await tx.announce(a_fact())
        return 1

    [job] = jobs.jobs
    assert (job.name, job.every_s) == ("define", 1)
    assert await run_once(client.context, job) == 1
    assert len(await outbox_of(client)) == 1


async def test_a_job_that_fails_leaves_nothing(client: Client) -> None:
    async def fail(tx: Tx) -> int:
        await tx.announce(a_fact())
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await run_once(client.context, Job("fail", 1, fail))

    assert await outbox_of(client) == []


async def test_readiness_tells_what_is_missing(client: Client) -> None:
    async def readyz() -> tuple[int, dict[str, bool]]:
        async with client.http.get(client.admin_url + "/readyz") as answer:
            return answer.status, (await answer.json())["checks"]

    status, checks = await readyz()
    assert checks["database"]
    client.context.is_draining = True
    status, checks = await readyz()

    assert (status, checks["not_draining"]) == (503, False)
