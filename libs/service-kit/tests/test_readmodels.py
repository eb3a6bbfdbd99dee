"""Read models: versions, tombstones, snapshots, rebuild; between two running services."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from typing import Any

from eb_contracts.auth import OrgChanged
from eb_contracts.ids import new_id
from eb_contracts.ledger import PartnerChanged
from eb_kit import readmodels
from eb_kit.bus import Handlers
from eb_kit.testing import Client
from eb_kit.testing_db import ClonedDatabase
from eb_kit.topology import STANDARD_FACTS

from .bus_world import consuming, service, until

OWNED = tuple(fact.ENTITY for fact in STANDARD_FACTS)
TABLE = "SELECT entity_id, version, is_deleted, body FROM known WHERE entity = 'org' ORDER BY entity_id"


def org(version: int = 1, org_id: Any = None, **changes: Any) -> OrgChanged:
    """A fact about an organisation."""
    return OrgChanged(
        version=version,
        org_id=org_id or new_id(),
        parent_org_id=None,
        parent_links=(),
        default_timezone="UTC",
        country="AU",
        **changes,
    )


class Owner:
    """An auth service with organisations in memory."""

    def __init__(self, facts: Sequence[OrgChanged]) -> None:
        self.facts = sorted(facts, key=lambda fact: fact.entity_id)
        self.handlers = Handlers()
        for entity in OWNED:
            self.handlers.owns(entity, self.list_orgs if entity == "org" else self.list_nothing)

    async def list_orgs(self, tx: Any, after: str | None, limit: int) -> Sequence[OrgChanged]:
        return [fact for fact in self.facts if after is None or fact.entity_id > after][:limit]

    async def list_nothing(self, tx: Any, after: str | None, limit: int) -> Sequence[OrgChanged]:
        return []


async def rows(client: Client) -> list[tuple[Any, ...]]:
    """The read model of organisations."""
    return [tuple(row) for row in await client.context.pool.fetch(TABLE)]


async def test_facts_doubled_and_shuffled_end_in_the_same_table(
    fresh_db: ClonedDatabase, fresh_bus: str
) -> None:
    org_ids = [new_id() for _ in range(20)]
    facts = [
        org(version, org_id, is_deleted=version == 5 and org_id in org_ids[:5])
        for org_id in org_ids
        for version in range(1, 6)
    ]
    reader = service("catalog", Handlers())
    async with consuming(reader, fresh_db, fresh_bus) as client:
        owner = Owner([])
        async with consuming(service("auth", owner.handlers), fresh_db, fresh_bus) as auth:
            for seed in (1, 2):
                shuffled = facts * 2
                random.Random(seed).shuffle(shuffled)
                for start in range(0, len(shuffled), 25):
                    async with auth.context.begin("system:test") as tx:
                        tx.publish(*shuffled[start : start + 25])

            async def settled() -> bool:
                found = await rows(client)
                return len(found) == 20 and all(row[1] == 5 for row in found)

            await until(settled)
            await asyncio.sleep(0.3)
            found = await rows(client)
    assert {row[0] for row in found if row[2]} == {str(org_id) for org_id in org_ids[:5]}


async def test_only_facts_that_were_newer_reach_the_hook(fresh_db: ClonedDatabase, fresh_bus: str) -> None:
    heard: list[int] = []
    handlers = Handlers()

    @handlers.keeps(OrgChanged)
    async def remember(tx: Any, facts: list[OrgChanged]) -> None:
        heard.extend(fact.version for fact in facts)

    async with (
        consuming(service("catalog", handlers), fresh_db, fresh_bus) as client,
        consuming(service("auth", Owner([]).handlers), fresh_db, fresh_bus) as auth,
    ):
        org_id = new_id()
        for version in (2, 1, 2, 3):
            async with auth.context.begin("system:test") as tx:
                tx.publish(org(version, org_id))
            seen = f"SELECT version >= {min(version, 2)} FROM known WHERE entity_id = $1"
            await until(lambda seen=seen: client.context.pool.fetchval(seen, str(org_id)))  # type: ignore[misc]
            await asyncio.sleep(0.1)
        await until(lambda: heard == [2, 3])


async def test_a_new_reader_asks_for_a_snapshot_and_is_ready_when_it_is_applied(
    fresh_db: ClonedDatabase, fresh_bus: str
) -> None:
    owner = Owner([org() for _ in range(1203)])
    async with consuming(service("catalog", Handlers()), fresh_db, fresh_bus) as client:
        assert not (await client.context.bus.readiness())["read_models"]
        async with client.http.get(f"{client.admin_url}/readyz") as answer:
            assert answer.status == 503
        async with consuming(service("auth", owner.handlers), fresh_db, fresh_bus):

            async def ready() -> bool:
                return (await client.context.bus.readiness())["read_models"]

            await until(ready, 40)
            assert len(await rows(client)) == 1203


async def test_a_service_is_ready_without_what_it_only_follows(
    fresh_db: ClonedDatabase, fresh_bus: str
) -> None:
    follower, owner, partner = Owner([]).handlers, Handlers(), new_id()
    follower.follows(PartnerChanged)

    async def list_partners(tx: Any, after: str | None, limit: int) -> Sequence[PartnerChanged]:
        return [PartnerChanged(version=7, partner_id=partner)]

    owner.owns("partner", list_partners)
    async with consuming(service("auth", follower), fresh_db, fresh_bus) as client:
        assert (await client.context.bus.readiness())["read_models"]
        async with consuming(service("ledger", owner), fresh_db, fresh_bus):
            heard = "SELECT version FROM known WHERE entity = 'partner' AND entity_id = $1"
            await until(lambda: client.context.pool.fetchval(heard, str(partner)), 40)


async def test_a_read_model_dropped_and_rebuilt_while_facts_arrive_ends_equal_to_its_source(
    fresh_db: ClonedDatabase, fresh_bus: str
) -> None:
    owner = Owner([org() for _ in range(700)])
    async with (
        consuming(service("catalog", Handlers()), fresh_db, fresh_bus) as client,
        consuming(service("auth", owner.handlers), fresh_db, fresh_bus) as auth,
    ):

        async def ready() -> bool:
            return (await client.context.bus.readiness())["read_models"]

        await until(ready, 40)
        await client.context.bus.rebuild("org")
        assert not await ready()
        for at in range(0, 700, 10):
            owner.facts[at] = owner.facts[at].model_copy(update={"version": 2, "country": "NZ"})
            async with auth.context.begin("system:test") as tx:
                tx.publish(owner.facts[at])
        await until(ready, 40)

        async def equal() -> bool:
            return {row[0]: row[1] for row in await rows(client)} == {
                fact.entity_id: fact.version for fact in owner.facts
            }

        await until(equal)


async def test_keeping_gives_exactly_the_newer_facts(fresh_db: ClonedDatabase, fresh_bus: str) -> None:
    async with consuming(service("catalog", Handlers()), fresh_db, fresh_bus) as client:
        org_id, now = new_id(), client.context.clock.machine_now()
        async with client.context.begin("system:test") as tx:
            first = await readmodels.keep(
                tx.connection, [org(1, org_id), org(3, org_id), org(2, org_id)], now
            )
            again = await readmodels.keep(tx.connection, [org(3, org_id), other := org()], now)
            assert [fact.version for fact in first] == [3]
            assert again == [other]
            known = await readmodels.bodies(tx, "org", [str(org_id), str(new_id())])
        assert list(known) == [str(org_id)]


async def test_a_move_that_comes_late_undoes_no_newer_one(fresh_db: ClonedDatabase, fresh_bus: str) -> None:
    parents, moved, last = [org() for _ in range(4)], new_id(), org()
    moves = [
        org(version, moved).model_copy(update={"parent_org_id": parent.org_id})
        for version, parent in enumerate(parents, start=1)
    ]
    async with consuming(service("catalog", Handlers()), fresh_db, fresh_bus) as client:
        directory = client.context.directory
        for fact in (*parents, moves[0], moves[3], moves[1], moves[2], moves[0], last):
            await client.context.bus.publish_now([client.context.bus.wrap(fact)], timeout_s=5)

        async def all_came() -> bool:
            return len(await rows(client)) == 6 and directory.org(last.org_id) is not None

        await until(all_came)
        assert [each.org_id for each in directory.ancestors(moved)] == [moved, parents[3].org_id]
        assert not directory.is_ancestor_or_self(parents[2].org_id, moved)
