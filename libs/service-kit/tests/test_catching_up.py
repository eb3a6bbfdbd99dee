"""A process isn't ready, and takes no request, before it has heard what was revoked while it was down."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import web

from eb_contracts.auth import AccessRevoked, SigningKeyChanged
from eb_contracts.base import EntityFact
from eb_contracts.ids import new_id
from eb_kit import readmodels
from eb_kit.access import caller
from eb_kit.bus import Handlers
from eb_kit.service import Service
from eb_kit.settings import ServiceSettings
from eb_kit.testing import Client, running
from eb_kit.testing_db import ClonedDatabase
from eb_kit.tx import Tx
from eb_kit.web import Routes, ok

from .bus_world import consuming, service, until
from .test_readmodels import OWNED, Owner

NOBODY = "amqp://nobody@127.0.0.1:1/"
WHO = "/ledger/entries"


class Slow(Handlers):
    """Takes facts slowly, so that a door that doesn't wait for them is found out."""

    def __init__(self) -> None:
        super().__init__()

        @self.keeps(AccessRevoked)
        async def linger(tx: Tx, facts: list[AccessRevoked]) -> None:
            await asyncio.sleep(0.7)


def ledger() -> Service:
    routes = Routes("ledger")

    @routes.get(WHO)
    async def who(request: web.Request) -> web.Response:
        """Say who calls."""
        return ok({"actor": caller(request).actor})

    return Service("ledger", "ledger", ServiceSettings, routes, Slow())


def revocation(session_id: Any, client: Client) -> AccessRevoked:
    return AccessRevoked(
        version=1, subject_key=f"session:{session_id}", not_before=client.context.clock.machine_now()
    )


class OwnerOf(Owner):
    """An auth service that owns these facts of one entity."""

    def __init__(self, entity: str, facts: list[EntityFact]) -> None:
        super().__init__([])
        self.held = sorted(facts, key=lambda fact: fact.entity_id)
        self.handlers.owns(entity, self.list_held)

    async def list_held(self, tx: Tx, after: str | None, limit: int) -> list[EntityFact]:
        return [fact for fact in self.held if after is None or fact.entity_id > after][:limit]


async def complete(client: Client, but: tuple[str, ...] = ()) -> None:
    """Mark the read models complete, as if their snapshots had come long ago."""
    await client.context.pool.executemany(
        "INSERT INTO read_model (entity, snapshot_id, state, requested_at) VALUES ($1, $2, 'complete', $3)"
        " ON CONFLICT (entity) DO UPDATE SET state = 'complete'",
        [(name, new_id(), client.context.clock.machine_now()) for name in OWNED if name not in but],
    )


async def asked(client: Client, token: str) -> int:
    async with client.http.get(client.url(WHO), headers={"Authorization": f"Bearer {token}"}) as answer:
        return answer.status


async def ready(client: Client) -> bool:
    async with client.http.get(f"{client.admin_url}/readyz") as answer:
        return answer.status == 200


@asynccontextmanager
async def restarted(client: Client, database: ClonedDatabase, bus: str) -> AsyncIterator[Client]:
    """Start the service again, with the signing key that `client` announced."""
    async with running(ledger(), database.dsn("ledger"), bus) as again:
        again._signing, again._kid = client._signing, client._kid
        yield again


async def test_what_was_revoked_while_a_service_was_down_is_refused_from_the_first_answer_on(
    fresh_db: ClonedDatabase, fresh_bus: str
) -> None:
    session = new_id()
    async with running(ledger(), fresh_db.dsn("ledger"), fresh_bus) as client:
        await complete(client)
        token = client.token(session_id=session)
        assert await asked(client, token) == 200
    async with consuming(service("auth", Owner([]).handlers), fresh_db, fresh_bus) as auth:
        async with auth.context.begin("system:test") as tx:
            tx.publish(revocation(session, auth))
        unsent = "SELECT NOT EXISTS (SELECT 1 FROM outbox WHERE sent_at IS NULL)"
        await until(lambda: auth.context.pool.fetchval(unsent))

    async with running(ledger(), fresh_db.dsn("ledger"), fresh_bus) as again:
        assert await asked(again, token) == 401
        assert await ready(again)


async def test_a_process_that_starts_while_the_broker_is_away_serves_but_is_not_ready(
    fresh_db: ClonedDatabase,
) -> None:
    began = time.monotonic()
    async with running(ledger(), fresh_db.dsn("ledger"), NOBODY) as client:
        assert time.monotonic() - began < 5
        await complete(client)
        assert await asked(client, client.token()) == 200, "what was known last goes on"
        assert not await ready(client)
        async with client.http.get(f"{client.admin_url}/readyz") as answer:
            assert (await answer.json())["checks"]["caught_up"] is False


async def test_a_read_model_of_revocations_that_is_rebuilt_never_lets_anything_through_while_ready(
    fresh_db: ClonedDatabase, fresh_bus: str
) -> None:
    session = new_id()
    async with running(ledger(), fresh_db.dsn("ledger"), fresh_bus) as client:
        await complete(client)
        token, good = client.token(session_id=session), client.token()
        ended = revocation(session, client)
        others: list[EntityFact] = [revocation(new_id(), client) for _ in range(1_200)]
        await client.seed(ended)
        await client.context.bus.rebuild("revocation")
        assert not await ready(client)

    owner = OwnerOf("revocation", [ended, *others])
    async with restarted(client, fresh_db, fresh_bus) as again:
        assert await asked(again, good) == 200
        assert not await ready(again), "nobody has sent the revocations yet"
        async with consuming(service("auth", owner.handlers), fresh_db, fresh_bus):
            seen: list[tuple[bool, int]] = []
            until_s = time.monotonic() + 30
            while not (seen and seen[-1][0]) and time.monotonic() < until_s:
                seen.append((await ready(again), await asked(again, token)))
    assert seen[0][1] == 200, (
        "a token that nobody is known to have revoked passes, which is why it isn't ready"
    )
    assert seen[-1] == (True, 401)
    assert {status for is_ready, status in seen if is_ready} == {401}


async def test_ready_means_that_memory_holds_what_the_read_model_does(
    fresh_db: ClonedDatabase, fresh_bus: str
) -> None:
    session = new_id()
    async with running(ledger(), fresh_db.dsn("ledger"), NOBODY) as client:
        bus = client.context.bus
        await complete(client, but=("revocation",))
        await until(lambda: client.context.pool.fetchval("SELECT count(*) = 5 FROM read_model"))
        token = client.token(session_id=session)
        assert not (await bus.readiness())["read_models"]
        async with client.context.begin("system:test") as tx:
            now = client.context.clock.machine_now()
            await readmodels.keep(tx.connection, [revocation(session, client)], now)
            await tx.execute("UPDATE read_model SET state = 'complete'")
        assert (await bus.readiness())["read_models"]
        assert client.context.directory.is_revoked(f"session:{session}", time.time() - 60)
        assert await asked(client, token) == 401


async def test_a_retired_signing_key_missed_while_down_is_refused_too(
    fresh_db: ClonedDatabase, fresh_bus: str
) -> None:
    async with running(ledger(), fresh_db.dsn("ledger"), fresh_bus) as client:
        await complete(client)
        token = client.token()
        kid, x = client._kid, client.context.directory.signing_key(client._kid) or ""
    async with consuming(service("auth", Owner([]).handlers), fresh_db, fresh_bus) as auth:
        async with auth.context.begin("system:test") as tx:
            now = auth.context.clock.machine_now()
            tx.publish(SigningKeyChanged(version=2, kid=kid, x=x, retired_at=now))
        unsent = "SELECT NOT EXISTS (SELECT 1 FROM outbox WHERE sent_at IS NULL)"
        await until(lambda: auth.context.pool.fetchval(unsent))
    async with running(ledger(), fresh_db.dsn("ledger"), fresh_bus) as again:
        assert await asked(again, token) == 401
