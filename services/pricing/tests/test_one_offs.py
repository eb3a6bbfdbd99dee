"""One-off charges: once by the client's id, rated like an event (docs/rules/pricing.md, One-off charges)."""

from __future__ import annotations

import asyncio
from decimal import Decimal
from typing import Any
from uuid import UUID, uuid4

import pytest

from eb_contracts.auth import ProjectChanged
from eb_contracts.ids import new_id

from .factories import GRADUATED, assigned, org_terms, terms, usage
from .world import NOTHING_BROKEN, World, total

PATH = "/billing/charges"
TIME = "2026-11-04T02:00:30.5Z"


def body(org_id: UUID, charge_id: str = "invoice 7/a", **members: Any) -> dict[str, Any]:
    plain = {"charge_id": charge_id, "org_id": str(org_id), "sku": "sms", "quantity": "60", "time": TIME}
    return plain | members


async def a_project(world: World, org_id: UUID) -> str:
    project_id = new_id()
    await world.client.seed(ProjectChanged(version=1, project_id=project_id, org_id=org_id))
    return str(project_id)


async def test_a_one_off_adds_to_the_counter_like_an_event(shared_world: World) -> None:
    org_id = await shared_world.org(terms(tiers=GRADUATED, tax_code="GST", tax_rate="0.1"))
    await shared_world.deliver(usage(org_id, "80"))
    project_id = await a_project(shared_world, org_id)

    status, made = await shared_world.post(PATH, body(org_id, project_id=project_id))

    assert status == 202
    charge = made["charge"]
    assert (charge["kind"], charge["amount_gross"], charge["tax_amount"]) == ("one_off", "4.00", "0.40")
    assert (charge["project_id"], charge["period"], charge["event_count"]) == (project_id, "2026-11", 1)
    assert charge["time"] == "2026-11-04T02:00:30.500000Z"
    assert charge["counter"]["after"] == {"quantity": "140", "events": 2, "charged": "12.00", "version": 2}
    assert made["entries_url"] == f"/ledger/entries?org_id={org_id}&charge_id=invoice%207%2Fa"
    assert (await shared_world.sent())[-1].charges[0].charge_id == "invoice 7/a"
    assert await shared_world.broken() == NOTHING_BROKEN


async def test_the_same_one_off_again_is_the_same_charge_and_another_is_refused(shared_world: World) -> None:
    org_id, other = await shared_world.org(), await shared_world.org()
    first = await shared_world.post(PATH, body(org_id))
    await shared_world.deliver(usage(org_id, "5"))

    again = await shared_world.post(PATH, body(org_id, quantity=60.0, time="2026-11-04T13:00:30.5+11:00"))
    elsewhere = await shared_world.post(PATH, body(other))

    assert first[0] == elsewhere[0] == 202
    assert again == first
    for changed in (
        {"quantity": "61"},
        {"sku": "mail"},
        {"time": "2026-11-04T02:00:31Z"},
        {"project_id": await a_project(shared_world, org_id)},
    ):
        status, problem = await shared_world.post(PATH, body(org_id, **changed))
        assert (status, problem["code"]) == (409, "charge_id_taken"), changed
    assert total(await shared_world.charges(org_id)) == Decimal("6.50")


async def test_the_id_of_usage_is_never_taken(shared_world: World) -> None:
    org_id = await shared_world.org()
    charged, waiting = usage(org_id, "60"), usage(org_id, sku="fax")
    await shared_world.deliver(charged, waiting)

    for record in (charged, waiting):
        status, problem = await shared_world.post(PATH, body(org_id, str(record.usage_id)))
        assert (status, problem["code"]) == (409, "charge_id_taken")


async def test_many_at_once_with_one_id_make_one_charge(shared_world: World) -> None:
    org_id = await shared_world.org(terms(), terms("mail"))
    sent = [body(org_id, sku=("sms", "mail")[n % 2]) for n in range(16)]

    answers = await asyncio.gather(*(shared_world.post(PATH, one) for one in sent))

    statuses = [status for status, _ in answers]
    assert (statuses.count(202), statuses.count(409)) == (8, 8)
    assert len(await shared_world.charges(org_id)) == 1
    assert await shared_world.broken() == NOTHING_BROKEN


async def test_what_nothing_prices_is_refused_and_never_0(shared_world: World) -> None:
    org_id, bare = await shared_world.org(), await shared_world.client.org()

    for refused in (body(org_id, sku="fax"), body(bare), body(org_id, time="2026-10-20T00:00:00Z")):
        status, problem = await shared_world.post(PATH, refused)
        assert (status, problem["code"]) == (409, "no_terms")
    named = terms("letter")
    await shared_world.learn(org_terms(bare, assigned(named)))
    status, problem = await shared_world.post(PATH, body(bare, sku="letter"))
    assert (status, problem["code"]) == (503, "terms_missing")
    assert await shared_world.charges(org_id) == []


async def test_terms_on_their_way_are_waited_for(shared_world: World) -> None:
    org_id = await shared_world.client.org()

    async def learn() -> None:
        await asyncio.sleep(0.2)
        await shared_world.learn(terms(), org_terms(org_id, assigned(terms())))

    (status, _), _ = await asyncio.gather(shared_world.post(PATH, body(org_id)), learn())

    assert status == 202


@pytest.mark.parametrize(
    ("members", "pointer", "code"),
    [
        ({"time": "2026-09-30T00:00:00Z"}, "/time", "time_too_old"),
        ({"time": "2026-11-05T00:06:00Z"}, "/time", "time_in_future"),
        ({"quantity": "-1"}, "/quantity", "number_out_of_bounds"),
        ({"quantity": "0.0000001"}, "/quantity", "number_out_of_bounds"),
        ({"charge_id": "x" * 129}, "/charge_id", "too_long"),
        ({"charge_id": ""}, "/charge_id", "too_short"),
        ({"colour": "red"}, "/colour", "unknown_field"),
    ],
)
async def test_nonsense_is_refused(
    shared_world: World, members: dict[str, Any], pointer: str, code: str
) -> None:
    org_id = await shared_world.org()

    status, problem = await shared_world.post(PATH, body(org_id, **members))

    assert status == 422
    assert (problem["errors"][0]["pointer"], problem["errors"][0]["code"]) == (pointer, code)


async def test_amounts_beyond_all_bounds_are_refused(shared_world: World) -> None:
    org_id = await shared_world.org(terms(overage_price="10"))

    status, problem = await shared_world.post(PATH, body(org_id, quantity="999999999999999999"))

    assert (status, problem["code"]) == (422, "out_of_bounds")
    assert await shared_world.charges(org_id) == []


async def test_only_finance_and_services_may(shared_world: World) -> None:
    org_id = await shared_world.org()
    key = await shared_world.client.api_key(org_id, ["metering:write", "pricing:authorize"])
    foreign = await a_project(shared_world, await shared_world.org())

    assert (await shared_world.post(PATH, body(org_id), roles=["Operator"]))[0] == 403
    assert (await shared_world.post(PATH, body(org_id), roles=["Admin"], org_id=org_id))[0] == 403
    assert (await shared_world.post(PATH, body(org_id), {"Authorization": f"Bearer {key}"}))[0] == 403
    assert (await shared_world.post(PATH, body(uuid4())))[0] == 404
    assert (await shared_world.post(PATH, body(org_id, project_id=foreign)))[0] == 404


async def test_a_one_off_after_the_close_is_rated_by_the_closed_target(world: World) -> None:
    org_id = await world.org(
        terms(overage_price="0", tiers={"mode": "per_unit", "unit_price": "0.10", "minimum": "5"})
    )
    world.set_clock("2026-12-03T13:00:00Z")
    await world.close()

    _, small = await world.post(PATH, body(org_id, "a", quantity="10"))
    _, large = await world.post(PATH, body(org_id, "b", quantity="50"))

    assert [one["charge"]["amount_gross"] for one in (small, large)] == ["0.00", "1.00"]
    assert large["charge"]["status"] == "closed"
    assert large["charge"]["created_at"].startswith("2026-12-03")
    assert await world.broken() == NOTHING_BROKEN
