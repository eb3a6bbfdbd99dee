"""The organisation whose members act for a partner: who it may be, and what others hear of it."""

from __future__ import annotations

import asyncio
import json
from typing import Any
from uuid import UUID

import pytest

from eb_contracts.ids import new_id
from eb_contracts.ledger import PartnerChanged
from eb_ledger.store.partners import list_partner_facts

from .world import World


async def facts(world: World, partner_id: str) -> list[dict[str, Any]]:
    """Give what was said of a partner, oldest first."""
    rows = await world.owner.fetch(
        "SELECT body FROM ledger.outbox WHERE type = $1 AND subject = $2 ORDER BY outbox_id",
        PartnerChanged.TYPE,
        partner_id,
    )
    return [json.loads(row["body"]) for row in rows]


async def made(world: World, **values: object) -> dict[str, Any]:
    return dict(await world.must("POST", "/partners", {"name": "Reseller", "tier": "gold", **values}))


async def test_a_partner_names_an_organisation_changes_it_and_takes_it_back(shared_world: World) -> None:
    first, second = await shared_world.org(), await shared_world.org()

    partner = await made(shared_world, org_id=str(first))
    path = f"/partners/{partner['partner_id']}"
    changed = await shared_world.must("PATCH", path, {"org_id": str(second)})
    renamed = await shared_world.must("PATCH", path, {"name": "Other"})
    without = await shared_world.must("PATCH", path, {"org_id": None})

    assert partner["org_id"] == str(first)
    assert changed == partner | {"org_id": str(second)}
    assert renamed == changed | {"name": "Other"}
    assert without == renamed | {"org_id": None}
    said = [(fact["version"], fact["org_id"]) for fact in await facts(shared_world, partner["partner_id"])]
    assert said == [(1, str(first)), (2, str(second)), (3, str(second)), (4, None)]


async def test_a_partner_needs_no_organisation(shared_world: World) -> None:
    assert (await made(shared_world))["org_id"] is None


async def test_a_fact_of_a_partner_holds_ids_only(shared_world: World) -> None:
    partner = await made(shared_world, destination="acct_1")

    [fact] = await facts(shared_world, partner["partner_id"])

    assert fact == {
        "version": 1,
        "is_deleted": False,
        "partner_id": partner["partner_id"],
        "org_id": None,
    }


async def test_a_patch_that_changes_nothing_says_nothing(shared_world: World) -> None:
    org_id = str(await shared_world.org())
    partner = await made(shared_world, org_id=org_id)

    await shared_world.must("PATCH", f"/partners/{partner['partner_id']}", {"org_id": org_id, "tier": "gold"})

    assert len(await facts(shared_world, partner["partner_id"])) == 1


async def test_an_organisation_that_is_not_there_is_pointed_at(shared_world: World) -> None:
    partner = await made(shared_world)
    unknown = str(UUID("01934c4e-0000-7000-8000-00000000dead"))
    for method, path, body in (
        ("POST", "/partners", {"name": "Reseller", "tier": "gold"}),
        ("PATCH", f"/partners/{partner['partner_id']}", {}),
    ):
        status, problem = await shared_world.call(method, path, {**body, "org_id": unknown})

        assert (status, problem["code"]) == (422, "org_unknown")
        assert [fault["pointer"] for fault in problem["errors"]] == ["/org_id"]


@pytest.mark.parametrize("role", ["Operator", "Support", "Admin"])
async def test_only_finance_says_who_acts_for_a_partner(shared_world: World, role: str) -> None:
    partner, org_id = await made(shared_world), await shared_world.org()

    status, _ = await shared_world.call(
        "PATCH",
        f"/partners/{partner['partner_id']}",
        {"org_id": str(org_id)},
        roles=[role],
        org_id=org_id,
    )

    assert status == 403


async def test_a_changed_organisation_stands_in_the_audit(shared_world: World) -> None:
    partner, org_id = await made(shared_world), str(await shared_world.org())
    await shared_world.must("PATCH", f"/partners/{partner['partner_id']}", {"org_id": org_id})

    entry = await shared_world.owner.fetchrow(
        "SELECT before ->> 'org_id' AS before, after ->> 'org_id' AS after FROM ledger.audit_entry"
        " WHERE entity = 'partner' AND entity_id = $1 AND action = 'update'",
        partner["partner_id"],
    )

    assert entry is not None
    assert tuple(entry) == (None, org_id)


async def test_changes_side_by_side_have_versions_of_their_own(shared_world: World) -> None:
    partner = await made(shared_world)
    orgs = [str(await shared_world.org()) for _ in range(6)]

    path = f"/partners/{partner['partner_id']}"
    await asyncio.gather(*(shared_world.must("PATCH", path, {"org_id": org_id}) for org_id in orgs))

    said = await facts(shared_world, partner["partner_id"])
    assert sorted(fact["version"] for fact in said) == list(range(1, 8))
    listed = (await shared_world.must("GET", "/partners?limit=200"))["items"]
    [shown] = [item for item in listed if item["partner_id"] == partner["partner_id"]]
    assert shown["org_id"] == max(said, key=lambda fact: fact["version"])["org_id"]


async def test_a_snapshot_gives_every_partner_in_pages(shared_world: World) -> None:
    org_id = await shared_world.org()
    partners = {(await made(shared_world, org_id=str(org_id)))["partner_id"] for _ in range(3)}
    partners.add((await made(shared_world))["partner_id"])

    found: dict[str, UUID | None] = {}
    after: str | None = None
    async with shared_world.client.context.begin("system:test") as tx:
        while page := await list_partner_facts(tx, after, 2):
            found |= {fact.entity_id: fact.org_id for fact in page}
            after = page[-1].entity_id

    assert partners <= set(found)
    assert list(found) == sorted(found)
    assert sum(found[partner_id] == org_id for partner_id in partners) == 3


async def test_an_organisation_just_founded_is_waited_for(shared_world: World) -> None:
    org_id = new_id()

    asking = asyncio.create_task(made(shared_world, org_id=str(org_id)))
    await asyncio.sleep(0.2)
    await shared_world.client.org(org_id=org_id)

    assert (await asking)["org_id"] == str(org_id)
