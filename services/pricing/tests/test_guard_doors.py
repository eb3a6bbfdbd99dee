"""The doors of budgets, credits and authorize: who may, what is refused, what comes twice."""

from __future__ import annotations

import asyncio
from typing import Any
from uuid import UUID

import pytest

from eb_tools.invariants import PRICING, broken

from .factories import PROJECT_ID, usage
from .test_guardrails import a_budget, a_credit, parts
from .world import World, someone

BUDGET = {"amount": "10.00", "currency": "AUD"}
CREDIT = {"amount": "10.00", "currency": "AUD", "source": "top-up"}
ACTION = {"sku": "sms", "quantity": "1", "request_id": "r-1"}


async def refused(world: World, path: str, body: dict[str, Any], **token: Any) -> tuple[int, str, list[str]]:
    """Post; give status, code and where the faults lie."""
    headers = {"Idempotency-Key": str(someone())}
    status, problem = await world.call("POST", path, body, headers, **(token or {"roles": ["Finance"]}))
    return status, problem["code"], [f"{one['pointer']}:{one['code']}" for one in problem.get("errors", [])]


@pytest.mark.parametrize(
    ("wrong", "fault"),
    [
        ({"amount": "-1"}, "/amount:number_out_of_bounds"),
        ({"amount": "1.005"}, "/amount:too_fine"),
        ({"amount": "0.5", "currency": "JPY"}, "/amount:too_fine"),
        ({"amount": True}, "/amount:not_a_number"),
        ({"amount": "1e3"}, "/amount:number_out_of_bounds"),
        ({"currency": "XXX"}, "/currency:unknown_currency"),
        ({"thresholds": [50, 50]}, "/thresholds:not_unique"),
        ({"thresholds": [0]}, "/thresholds/0:too_small"),
        ({"thresholds": [1001]}, "/thresholds/0:too_large"),
        ({"thresholds": list(range(1, 12))}, "/thresholds:too_long"),
        ({"hard_cap": "yes"}, "/hard_cap:wrong_type"),
        ({"project_id": "x"}, "/project_id:not_a_uuid"),
        ({"colour": "red"}, "/colour:unknown_field"),
    ],
)
async def test_a_malformed_budget_is_refused(shared_world: World, wrong: dict[str, Any], fault: str) -> None:
    org_id = await shared_world.client.org()

    status, _, faults = await refused(
        shared_world, "/pricing/budgets", {"org_id": str(org_id), **BUDGET, **wrong}
    )

    assert (status, faults) == (422, [fault])


@pytest.mark.parametrize(
    ("wrong", "fault"),
    [
        ({"amount": "0"}, "/amount:too_small"),
        ({"amount": "1.001"}, "/amount:too_fine"),
        ({"sku_types": []}, "/sku_types:too_short"),
        ({"sku_types": ["action", "gift"]}, "/sku_types/1:not_a_choice"),
        ({"sku_types": ["action", "action"]}, "/sku_types:not_unique"),
        ({"priority": -1}, "/priority:too_small"),
        ({"priority": "1"}, "/priority:wrong_type"),
        ({"expires_at": "2026-11-05T00:00:00Z"}, "/expires_at:in_the_past"),
        ({"expires_at": "2026-12-05T00:00:00"}, "/expires_at:not_an_instant"),
        ({"source": " "}, "/source:wrong_format"),
    ],
)
async def test_a_malformed_credit_is_refused(shared_world: World, wrong: dict[str, Any], fault: str) -> None:
    org_id = await shared_world.client.org()

    status, _, faults = await refused(
        shared_world, "/pricing/credits", {"org_id": str(org_id), **CREDIT, **wrong}
    )

    assert (status, faults) == (422, [fault])


@pytest.mark.parametrize(
    ("wrong", "fault"),
    [
        ({"quantity": "0"}, "/quantity:too_small"),
        ({"quantity": "0.0000001"}, "/quantity:number_out_of_bounds"),
        ({"request_id": "é"}, "/request_id:wrong_format"),
        ({"request_id": ""}, "/request_id:too_short"),
        ({"hold_ttl": 901}, "/hold_ttl:too_large"),
        ({"hold_ttl": 0}, "/hold_ttl:too_small"),
        ({"hold": 1}, "/hold:wrong_type"),
    ],
)
async def test_a_malformed_question_is_refused(
    shared_world: World, wrong: dict[str, Any], fault: str
) -> None:
    org_id = await shared_world.client.org()

    body = {"org_id": str(org_id), **ACTION, **wrong}
    status, _, faults = await refused(shared_world, "/pricing/authorize", body, roles=["User"], org_id=org_id)

    assert (status, faults) == (422, [fault])


async def test_a_second_budget_for_the_same_is_refused_also_at_once(shared_world: World) -> None:
    org_id = await shared_world.org()
    await shared_world.project(org_id, PROJECT_ID)
    for project in ({}, {"project_id": str(PROJECT_ID)}):
        body = {"org_id": str(org_id), **BUDGET, **project}
        answers = await asyncio.gather(
            *(shared_world.call("POST", "/pricing/budgets", body) for _ in range(6))
        )
        assert sorted(status for status, _ in answers) == [201, 409, 409, 409, 409, 409]
        assert {answer["code"] for status, answer in answers if status == 409} == {"budget_exists"}


async def test_a_budgets_project_must_be_the_organisations(shared_world: World) -> None:
    org_id, project_id = await shared_world.client.org(), UUID("01934c4e-0000-7000-8000-0000000000ff")
    await shared_world.project(await shared_world.client.org(), project_id)

    body = {"org_id": str(org_id), **BUDGET, "project_id": str(project_id)}
    status, code, faults = await refused(shared_world, "/pricing/budgets", body)

    assert (status, code, faults) == (422, "body_invalid", ["/project_id:project_unknown"])


async def test_a_budget_is_read_changed_and_deleted(shared_world: World) -> None:
    org_id = await shared_world.org()
    made = await a_budget(shared_world, org_id, "1.00")
    path = f"/pricing/budgets/{made['budget_id']}"
    await shared_world.deliver(usage(org_id, "6"))

    _, shown = await shared_world.get(path)
    status, changed = await shared_world.call(
        "PUT", path, {"amount": "0.70", "currency": "AUD", "thresholds": [90, 80]}
    )
    again = await shared_world.call("PUT", path, {**BUDGET, "org_id": str(someone())})
    gone = [(await shared_world.call("DELETE", path))[0] for _ in range(2)]

    assert (shown["period"], shown["charged"], shown["remaining"], shown["reached"]) == (
        "2026-11",
        "0.60",
        "0.40",
        [50],
    )
    assert (status, changed["thresholds"], changed["hard_cap"], changed["reached"]) == (
        200,
        [80, 90],
        False,
        [50, 80],
    )
    assert (again[0], again[1]["errors"][0]["code"]) == (422, "fixed")
    assert gone == [204, 404]
    assert (await shared_world.get(path))[0] == 404


async def test_in_another_currency_a_budget_counts_anew(shared_world: World) -> None:
    org_id = await shared_world.org()
    made = await a_budget(shared_world, org_id, "1.00")
    await shared_world.deliver(usage(org_id, "6"))
    path = f"/pricing/budgets/{made['budget_id']}"

    _, euros = await shared_world.call("PUT", path, {"amount": "1.00", "currency": "EUR", "hard_cap": True})
    await shared_world.deliver(usage(org_id, "9"))
    _, dollars = await shared_world.call("PUT", path, {"amount": "2.00", "currency": "AUD", "hard_cap": True})

    assert (euros["charged"], dollars["charged"]) == ("0.00", "1.50")
    assert [gross for gross, _, _ in await parts(shared_world, org_id)] == ["0.60", "0.90"]


async def test_a_credit_needs_a_key_that_grants_once_for_ever(shared_world: World) -> None:
    org_id = await shared_world.org()
    body = {"org_id": str(org_id), **CREDIT}
    headers = shared_world.client.auth(roles=["Finance"]) | {"Idempotency-Key": str(someone())}

    bare, problem = await shared_world.call("POST", "/pricing/credits", body, roles=["Finance"])
    _, first = await shared_world.call("POST", "/pricing/credits", body, headers)
    await shared_world.owner.execute("DELETE FROM pricing.idempotency_key")
    status, again = await shared_world.call("POST", "/pricing/credits", body, headers)
    other, refusal = await shared_world.call("POST", "/pricing/credits", {**body, "amount": "11.00"}, headers)

    assert (bare, problem["code"]) == (400, "idempotency_key_required")
    assert (status, again) == (201, first)
    assert (other, refusal["code"]) == (422, "idempotency_key_reused")
    _, page = await shared_world.get(f"/pricing/credits?org_id={org_id}")
    assert len(page["items"]) == 1


async def test_what_people_set_is_audited_and_what_charges_move_is_not(shared_world: World) -> None:
    org_id = await shared_world.org()
    made = await a_budget(shared_world, org_id, "1.00")
    await a_credit(shared_world, org_id, "1.00")
    member: dict[str, Any] = {"roles": ["User"], "org_id": org_id}
    holds = []
    for name in ("used", "by-hand", "by-key"):
        ask = {"org_id": str(org_id), **ACTION, "request_id": name, "hold": True}
        holds.append((await shared_world.call("POST", "/pricing/authorize", ask, **member))[1]["hold_id"])
    await shared_world.deliver(usage(org_id, "6", hold_ids=(UUID(holds[0]),)))
    await shared_world.call("POST", f"/pricing/holds/{holds[1]}:release", **member)
    key = {"Authorization": f"Bearer {await shared_world.client.api_key(org_id, ('pricing:authorize',))}"}
    assert (await shared_world.call("POST", f"/pricing/holds/{holds[2]}:release", None, key))[0] == 200
    await shared_world.call("DELETE", f"/pricing/budgets/{made['budget_id']}")

    rows = await shared_world.owner.fetch(
        "SELECT entity, action, actor FROM pricing.audit_entry WHERE org_id = $1 ORDER BY audit_id", org_id
    )

    assert [(row["entity"], row["action"]) for row in rows] == [
        ("budget", "insert"),
        ("credit", "insert"),
        ("initiation", "update"),
        ("budget", "delete"),
    ]
    assert all(row["actor"].startswith("user:") for row in rows)


async def test_strangers_see_and_move_nothing(shared_world: World) -> None:
    org_id = await shared_world.org()
    made = await a_budget(shared_world, org_id, "1.00")
    stranger = {"roles": ["Admin"], "org_id": await shared_world.client.org()}
    path = f"/pricing/budgets/{made['budget_id']}"
    body = {"org_id": str(org_id), **BUDGET}

    answers = [
        await shared_world.call("GET", path, **stranger),
        await shared_world.call("PUT", path, BUDGET, **stranger),
        await shared_world.call("DELETE", path, **stranger),
        await shared_world.call("POST", "/pricing/budgets", body, **stranger),
        await shared_world.call("GET", f"/pricing/budgets?org_id={org_id}", **stranger),
        await shared_world.call("GET", f"/pricing/credits?org_id={org_id}", **stranger),
        await shared_world.call("POST", "/pricing/authorize", {"org_id": str(org_id), **ACTION}, **stranger),
        await shared_world.call("GET", f"/pricing/budgets/{someone()}", **stranger),
    ]

    assert {(status, answer["code"]) for status, answer in answers} == {(404, "not_found")}


async def test_roles_may_what_the_policy_says(shared_world: World) -> None:
    org_id = await shared_world.org()
    body = {"org_id": str(org_id), **BUDGET}
    key = {"Idempotency-Key": str(someone())}
    mine = {"roles": ["User"], "org_id": org_id}

    assert (await shared_world.call("POST", "/pricing/budgets", body, **mine))[0] == 403
    assert (await shared_world.call("POST", "/pricing/budgets", body, roles=["Admin"], org_id=org_id))[
        0
    ] == 201
    assert (await shared_world.call("GET", f"/pricing/budgets?org_id={org_id}", **mine))[0] == 200
    credit = {"org_id": str(org_id), **CREDIT}
    admin = await shared_world.call("POST", "/pricing/credits", credit, key, roles=["Admin"], org_id=org_id)
    assert admin[0] == 403
    assert (await shared_world.call("POST", "/pricing/credits", credit, key, roles=["Operator"]))[0] == 403
    token = await shared_world.client.api_key(org_id, ["pricing:authorize"])
    reader = await shared_world.client.api_key(org_id, ["pricing:read"])
    for bearer, expected in ((token, 200), (reader, 403)):
        headers = {"Authorization": f"Bearer {bearer}"}
        action = {"org_id": str(org_id), **ACTION}
        assert (await shared_world.call("POST", "/pricing/authorize", action, headers))[0] == expected
    for path in ("budgets", "credits"):
        status, problem = await shared_world.call("GET", f"/pricing/{path}", **mine)
        assert (status, problem["code"]) == (400, "parameter_invalid")


async def test_lists_come_in_pages_newest_first(shared_world: World) -> None:
    org_id = await shared_world.org()
    made = [(await a_credit(shared_world, org_id, f"{n}.00"))["credit_id"] for n in range(1, 4)]
    reader = shared_world.client.auth(roles=["Operator"])

    _, first = await shared_world.get(f"/pricing/credits?org_id={org_id}&limit=2", headers=reader)
    _, rest = await shared_world.get(
        f"/pricing/credits?org_id={org_id}&limit=2&cursor={first['next_cursor']}", headers=reader
    )

    assert [one["credit_id"] for one in (*first["items"], *rest["items"])] == made[::-1]
    assert rest["next_cursor"] is None


async def test_budgets_change_at_once_with_each_other_and_with_charges(shared_world: World) -> None:
    org_id = await shared_world.org()
    await shared_world.project(org_id, PROJECT_ID)
    made = [
        await a_budget(shared_world, org_id, "1.00", project_id=str(PROJECT_ID)),
        await a_budget(shared_world, org_id, "1.00"),
    ]
    barrier = asyncio.Barrier(9)

    async def change(budget_id: str) -> set[int]:
        await barrier.wait()
        body = [{"amount": f"{n}.00", "currency": "AUD", "hard_cap": True} for n in range(1, 9)]
        path = f"/pricing/budgets/{budget_id}"
        return {(await shared_world.call("PUT", path, one))[0] for one in body}

    async def charge() -> set[int]:
        await barrier.wait()
        for _ in range(8):
            await shared_world.deliver(usage(org_id, "2"))
        return {200}

    changes = [change(one["budget_id"]) for one in made for _ in range(3)]

    assert set.union(*await asyncio.gather(*changes, *(charge() for _ in range(3)))) == {200}
    assert await broken(shared_world.owner, PRICING) == {}
