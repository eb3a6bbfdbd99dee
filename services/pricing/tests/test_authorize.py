"""Before an action starts: allowed or not, what is kept free, and for how long."""

from __future__ import annotations

import asyncio
import time
from collections import Counter as Total
from decimal import Decimal
from typing import Any
from uuid import UUID

import asyncpg

from eb_contracts.catalog import SkuChanged

from .factories import PROJECT_ID, terms, usage
from .test_guardrails import a_budget, a_credit, parts
from .world import World, someone

CLIENTS = 200


async def ask(world: World, org_id: UUID, quantity: str = "1", **values: Any) -> tuple[int, Any]:
    """Ask for an SMS."""
    body = {"org_id": str(org_id), "sku": "sms", "quantity": quantity, "request_id": str(someone()), **values}
    return await world.call("POST", "/pricing/authorize", body, roles=["User"], org_id=org_id)


async def said(world: World, org_id: UUID, quantity: str = "1", **values: Any) -> tuple[str, str]:
    """Give decision and reason."""
    status, answer = await ask(world, org_id, quantity, **values)
    assert status == 200, answer
    return answer["decision"], answer["reason"]


ALLOWED, FULL = ("allow", "within_limits"), ("deny", "org_cap_reached")


async def test_without_limits_everything_that_has_terms_is_allowed(shared_world: World) -> None:
    org_id = await shared_world.org()

    status, answer = await ask(shared_world, org_id, "3")

    assert (status, answer["decision"], answer["amount"]) == (200, "allow", "0.30")
    assert (answer["hold_id"], answer["expires_at"]) == (None, None)


async def test_without_terms_it_is_denied_with_the_reason(shared_world: World) -> None:
    org_id = await shared_world.client.org()
    assert await said(shared_world, org_id) == ("deny", "no_terms")
    other = await shared_world.org()
    assert await said(shared_world, other, sku="fax") == ("deny", "unknown_sku")


async def test_a_hold_keeps_its_amount_free_until_it_is_released(shared_world: World) -> None:
    org_id = await shared_world.org()
    await a_budget(shared_world, org_id, "1.00")

    _, hold = await ask(shared_world, org_id, "6", hold=True)
    assert hold["expires_at"].startswith("2026-11-05T00:15:")
    assert await said(shared_world, org_id, "5") == FULL
    path = f"/pricing/holds/{hold['hold_id']}:release"
    for _ in range(2):
        status, released = await shared_world.call("POST", path, roles=["User"], org_id=org_id)
        assert (status, released["status"]) == (200, "released")

    assert await said(shared_world, org_id, "5") == ALLOWED


async def test_a_hold_ends_by_itself(shared_world: World) -> None:
    org_id = await shared_world.org()
    await a_budget(shared_world, org_id, "1.00")
    await ask(shared_world, org_id, "6", hold=True, hold_ttl=60)
    assert await said(shared_world, org_id, "5") == FULL

    shared_world.set_clock("2026-11-05T00:02:00Z")
    try:
        assert await said(shared_world, org_id, "5") == ALLOWED
    finally:
        shared_world.set_clock("2026-11-05T00:00:30Z")


async def test_the_charge_of_its_event_releases_a_hold(shared_world: World) -> None:
    org_id = await shared_world.org()
    await a_budget(shared_world, org_id, "1.00")
    _, hold = await ask(shared_world, org_id, "6", hold=True)

    await shared_world.deliver(usage(org_id, "6", hold_ids=(UUID(hold["hold_id"]), someone())))

    assert await said(shared_world, org_id, "4") == ALLOWED
    assert await said(shared_world, org_id, "5") == FULL
    path = f"/pricing/holds/{hold['hold_id']}:release"
    _, released = await shared_world.call("POST", path, roles=["User"], org_id=org_id)
    assert released["status"] == "released"


async def test_usage_that_waits_keeps_its_hold_until_it_is_charged(shared_world: World) -> None:
    defined = terms()
    org_id = await shared_world.org(defined)
    await a_budget(shared_world, org_id, "1.00")
    _, hold = await ask(shared_world, org_id, "6", hold=True)

    await shared_world.deliver(usage(org_id, "1", sku="later", hold_ids=(UUID(hold["hold_id"]),)))

    assert await said(shared_world, org_id, "5") == FULL
    parked = await shared_world.owner.fetchval(
        "SELECT hold_ids FROM pricing.unrated_usage WHERE org_id = $1", org_id
    )
    assert parked == [UUID(hold["hold_id"])]


async def test_a_foreign_hold_is_left_alone(shared_world: World) -> None:
    org_id, other = await shared_world.org(), await shared_world.org()
    _, hold = await ask(shared_world, org_id, "6", hold=True)

    await shared_world.deliver(usage(other, "6", hold_ids=(UUID(hold["hold_id"]),)))

    path = f"/pricing/holds/{hold['hold_id']}:release"
    status, problem = await shared_world.call("POST", path, roles=["Admin"], org_id=other)
    assert (status, problem["code"]) == (404, "not_found")
    released = await shared_world.owner.fetchval(
        "SELECT released_at FROM pricing.initiation WHERE hold_id = $1", UUID(hold["hold_id"])
    )
    assert released is None


async def test_the_same_question_gets_the_same_answer(shared_world: World) -> None:
    org_id = await shared_world.org()
    await a_budget(shared_world, org_id, "1.00")
    first = await ask(shared_world, org_id, "9", request_id="r-1", hold=True)

    again = await ask(shared_world, org_id, "9", request_id="r-1", hold=True)
    status, problem = await ask(shared_world, org_id, "8", request_id="r-1", hold=True)

    assert again == first
    assert (status, problem["code"]) == (409, "request_id_differs")


async def test_holds_of_one_counter_are_priced_one_after_the_other(shared_world: World) -> None:
    org_id = await shared_world.org(terms(included_qty="5"))

    amounts = [(await ask(shared_world, org_id, "3", hold=True))[1]["amount"] for _ in range(3)]

    assert amounts == ["0.00", "0.10", "0.30"]


async def test_the_projects_cap_is_asked_first(shared_world: World) -> None:
    org_id = await shared_world.org()
    await shared_world.project(org_id, PROJECT_ID)
    await a_budget(shared_world, org_id, "1.00", project_id=str(PROJECT_ID))
    await a_budget(shared_world, org_id, "5.00")
    await shared_world.deliver(usage(org_id, "8"))

    mine = {"project_id": str(PROJECT_ID)}
    assert await said(shared_world, org_id, "3", **mine) == ("deny", "project_cap_reached")
    assert await said(shared_world, org_id, "3") == ALLOWED
    assert await said(shared_world, org_id, "43") == FULL


async def test_what_is_prepaid_only_needs_credit_that_nothing_holds(shared_world: World) -> None:
    org_id = await shared_world.org(terms("check"))
    await shared_world.learn(
        SkuChanged(version=1, sku="check", type="action", unit="check", prepaid_only=True)
    )
    assert await said(shared_world, org_id, sku="check") == ("deny", "credit_required")
    await a_credit(shared_world, org_id, "1.00", sku_types=["hosting"])
    assert await said(shared_world, org_id, sku="check") == ("deny", "credit_required")
    await a_credit(shared_world, org_id, "0.50", sku_types=["action"])

    assert await said(shared_world, org_id, "4", sku="check", hold=True) == ALLOWED
    assert await said(shared_world, org_id, "2", sku="check") == ("deny", "credit_required")
    assert await said(shared_world, org_id, "1", sku="check") == ALLOWED


async def test_two_hundred_clients_at_once_never_get_more_than_the_cap(shared_world: World) -> None:
    org_id = await shared_world.org()
    await a_budget(shared_world, org_id, "1.00")
    await shared_world.deliver(usage(org_id, "9"))
    barrier = asyncio.Barrier(CLIENTS)
    took: list[float] = []

    async def client() -> str:
        await barrier.wait()
        started = time.perf_counter()
        status, answer = await ask(shared_world, org_id, "1", hold=True)
        took.append(time.perf_counter() - started)
        return answer["decision"] if status == 200 else answer["code"]

    outcomes = Total(await asyncio.gather(*(client() for _ in range(CLIENTS))))

    assert max(took) < 5
    assert outcomes["allow"] == 1
    assert set(outcomes) <= {"allow", "deny", "guardrail_unavailable"}
    held = await shared_world.owner.fetchval(
        "SELECT sum(amount) FROM pricing.initiation WHERE org_id = $1 AND hold_id IS NOT NULL", org_id
    )
    assert held == Decimal("0.10")


async def test_charges_and_questions_at_once_stay_below_the_cap_together(shared_world: World) -> None:
    org_id = await shared_world.org()
    await a_budget(shared_world, org_id, "3.00")
    barrier = asyncio.Barrier(20)

    async def act() -> None:
        await barrier.wait()
        for _ in range(4):
            status, answer = await ask(shared_world, org_id, "1", hold=True)
            if status == 200 and answer["decision"] == "allow":
                await shared_world.deliver(usage(org_id, "1", hold_ids=(UUID(answer["hold_id"]),)))

    await asyncio.gather(*(act() for _ in range(20)))

    assert {waived for _, waived, _ in await parts(shared_world, org_id)} == {"0.00"}
    assert (await shared_world.counter(org_id))["charged"] <= 3


async def test_no_answer_in_time_is_503_and_nothing_is_kept(shared_world: World) -> None:
    org_id = await shared_world.org()
    blocker = await asyncpg.connect(shared_world.owner_dsn)
    async with blocker.transaction():
        await blocker.execute("LOCK TABLE pricing.initiation IN ACCESS EXCLUSIVE MODE")
        started = time.perf_counter()
        status, problem = await ask(shared_world, org_id, request_id="late")
        took = time.perf_counter() - started
    await blocker.close()

    assert (status, problem["code"]) == (503, "guardrail_unavailable")
    assert took < 1
    assert await said(shared_world, org_id, request_id="late") == ALLOWED
