"""Before an action starts: allowed or not, what is kept free, and for how long."""

from __future__ import annotations

import asyncio
import time
from collections import Counter as Total
from decimal import Decimal
from itertools import chain
from typing import Any
from uuid import UUID

import asyncpg

from eb_contracts.catalog import SkuChanged
from eb_kit.testing_db import ClonedDatabase
from eb_pricing.domain.initiations import Action
from eb_pricing.flows.guards import authorize
from eb_pricing.jobs import forget_answers

from .factories import PROJECT_ID, terms, usage
from .test_guardrails import a_budget, a_credit, parts
from .world import World, a_world, someone

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
    for _ in range(3):
        org_id = await shared_world.org()
        await a_budget(shared_world, org_id, "1.00")
        await shared_world.deliver(usage(org_id, "9"))
        barrier = asyncio.Barrier(CLIENTS)

        async def client(org_id: UUID, barrier: asyncio.Barrier) -> str:
            await barrier.wait()
            _, answer = await ask(shared_world, org_id, "1", hold=True)
            return answer.get("decision", answer.get("code"))

        outcomes = Total(await asyncio.gather(*(client(org_id, barrier) for _ in range(CLIENTS))))

        assert outcomes == {"allow": 1, "deny": CLIENTS - 1}
        held = await shared_world.owner.fetchval(
            "SELECT sum(amount) FROM pricing.initiation WHERE org_id = $1 AND hold_id IS NOT NULL", org_id
        )
        assert held == Decimal("0.10")


async def test_several_processes_at_once_never_hold_more_than_the_cap(shared_world: World) -> None:
    org_id = await shared_world.org()
    await a_budget(shared_world, org_id, "1.00")
    barrier = asyncio.Barrier(16)

    async def process() -> list[str]:
        context, held = shared_world.client.context, []
        await barrier.wait()
        for _ in range(5):
            actions = [Action(org_id, str(someone()), None, "sms", Decimal(1), 900) for _ in range(2)]
            async with context.begin(actor="system:pricing") as tx:
                held += [one.decision for one in await authorize(tx, org_id, actions)]
        return held

    outcomes = Total(chain.from_iterable(await asyncio.gather(*(process() for _ in range(16)))))

    assert outcomes == {"allow": 10, "deny": 150}


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


async def test_no_answer_in_time_is_503_and_asking_again_finds_the_answer(fresh_db: ClonedDatabase) -> None:
    async with a_world(fresh_db, EB_AUTHORIZE_DEADLINE_MS="200") as world:
        org_id = await world.org()
        blocker = await asyncpg.connect(world.owner_dsn)
        async with blocker.transaction():
            await blocker.execute("LOCK TABLE pricing.initiation IN ACCESS EXCLUSIVE MODE")
            started = time.perf_counter()
            status, problem = await ask(world, org_id, request_id="late", hold=True)
            took = time.perf_counter() - started
        await blocker.close()

        assert (status, problem["code"]) == (503, "guardrail_unavailable")
        assert 0.2 <= took < 1
        async with asyncio.timeout(10):
            while (await ask(world, org_id, request_id="late", hold=True))[0] == 503:
                await asyncio.sleep(0.05)
        holds = await world.owner.fetchval(
            "SELECT count(*) FROM pricing.initiation WHERE hold_id IS NOT NULL AND org_id = $1", org_id
        )
        assert holds == 1


async def test_one_transaction_answers_different_questions_as_if_one_by_one(shared_world: World) -> None:
    org_id = await shared_world.org(terms(), terms("mail", overage_price="0.20"))
    await a_budget(shared_world, org_id, "1.00")

    def action(request_id: str, sku: str, quantity: int) -> Action:
        return Action(org_id, request_id, None, sku, Decimal(quantity), 900)

    actions = [action("a", "sms", 5), action("b", "mail", 2), action("c", "mail", 1), action("d", "sms", 1)]
    async with shared_world.client.context.begin(actor="system:pricing") as tx:
        answers = await authorize(tx, org_id, [*actions, action("a", "sms", 5)])

    assert [(one.decision, one.amount) for one in answers] == [
        ("allow", Decimal("0.50")),
        ("allow", Decimal("0.40")),
        ("deny", Decimal("0.20")),
        ("allow", Decimal("0.10")),
        ("allow", Decimal("0.50")),
    ]
    assert answers[0] is answers[4]


async def test_the_answers_of_a_day_ago_are_forgotten(shared_world: World) -> None:
    org_id = await shared_world.org()
    await ask(shared_world, org_id, "1", request_id="old")
    shared_world.set_clock("2026-11-06T00:01:00Z")
    try:
        await shared_world.run(forget_answers)
        assert (await ask(shared_world, org_id, "2", request_id="old"))[0] == 200
    finally:
        shared_world.set_clock("2026-11-05T00:00:30Z")
