"""The hierarchy on the real database: the closure table is the transitive closure, whatever comes at once."""

from __future__ import annotations

import asyncio
import random

import pytest

from eb_tools.invariants import HIERARCHY, broken

from .conftest import AuthService, Person, an_org


async def assert_exact(auth: AuthService) -> None:
    """Compare parents with the closure table, with the history of links, and with what the facts say."""
    assert await broken(auth.owner, HIERARCHY) == {}


pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest.fixture(name="auth")
def the_shared_service(shared_auth: AuthService) -> AuthService:
    """One service for the module."""
    return shared_auth


async def test_a_child_takes_after_its_parent_and_its_creator_is_its_admin(auth: AuthService) -> None:
    person = await auth.sign_in()
    root = await person.found_org(default_timezone="Australia/Perth", billing_email="bills@example.org")

    path = f"/orgs/{root['org_id']}"
    assert (await auth.call("PATCH", path, {"country": "NZ"}, **auth.staff("Operator"))).status == 200

    child = await person.add_child(root["org_id"])

    assert child["parent_org_id"] == root["org_id"]
    assert child["country"] == "NZ"
    assert child["default_timezone"] == "Australia/Perth"
    assert child["billing_email"] == "bills@example.org"
    assert (await person.refresh(child["org_id"])).status == 200
    assert (await person.call("GET", f"/orgs/{child['org_id']}")).body == child
    await assert_exact(auth)


async def test_relatives_are_listed_with_depth_and_without_oneself(auth: AuthService) -> None:
    person = await auth.sign_in()
    root = await person.found_org()
    left = await person.add_child(root["org_id"])
    right = await person.add_child(root["org_id"])
    leaf = await person.add_child(left["org_id"])

    await person.refresh(root["org_id"])
    path = f"/orgs/{root['org_id']}"
    children = (await person.call("GET", f"{path}/children")).body["items"]
    below = (await person.call("GET", f"{path}/descendants")).body["items"]
    page = (await person.call("GET", f"{path}/descendants?limit=2")).body
    rest = (await person.call("GET", f"{path}/descendants?limit=2&cursor={page['next_cursor']}")).body
    await person.refresh(leaf["org_id"])
    above = (await person.call("GET", f"/orgs/{leaf['org_id']}/ancestors")).body["items"]

    assert [(c["org_id"], c["depth"]) for c in children] == [(right["org_id"], 1), (left["org_id"], 1)]
    assert [(d["org_id"], d["depth"]) for d in below] == [
        (leaf["org_id"], 2),
        (right["org_id"], 1),
        (left["org_id"], 1),
    ]
    assert page["items"] + rest["items"] == below
    assert above == [
        {
            "org_id": left["org_id"],
            "parent_org_id": root["org_id"],
            "legal_name": left["legal_name"],
            "depth": 1,
        },
        {"org_id": root["org_id"], "parent_org_id": None, "legal_name": root["legal_name"], "depth": 2},
    ]


async def chain(person: Person, edges: int) -> str:
    """Grow a chain of this many edges; give the last organisation."""
    org_id = str((await person.found_org())["org_id"])
    for _ in range(edges):
        org_id = (await person.add_child(org_id))["org_id"]
    return org_id


async def test_ten_edges_are_the_most_also_for_those_who_come_at_once(auth: AuthService) -> None:
    person = await auth.sign_in()
    ninth = await chain(person, 9)
    await person.refresh(ninth)
    at_limit = await asyncio.gather(
        *(person.call("POST", f"/orgs/{ninth}/children", an_org()) for _ in range(3))
    )
    assert [answer.status for answer in at_limit] == [201, 201, 201]

    tenth = at_limit[0].body["org_id"]
    await person.refresh(tenth)
    beyond = await asyncio.gather(
        *(person.call("POST", f"/orgs/{tenth}/children", an_org()) for _ in range(3))
    )

    assert [(answer.status, answer.body["code"]) for answer in beyond] == [(409, "max_depth")] * 3
    assert await auth.owner.fetchval("SELECT max(depth) FROM auth.org_hierarchy") == 10
    await assert_exact(auth)


async def test_of_two_children_with_one_slug_at_once_one_is_born(auth: AuthService) -> None:
    person = await auth.sign_in()
    root = await person.found_org()
    path = f"/orgs/{root['org_id']}/children"

    answers = await asyncio.gather(*(person.call("POST", path, an_org(org_slug="twin")) for _ in range(4)))

    assert sorted(answer.status for answer in answers) == [201, 409, 409, 409]
    await assert_exact(auth)


async def test_the_closure_stays_exact_while_many_grow_one_tree(auth: AuthService) -> None:
    chance = random.Random(3)
    person = await auth.sign_in()
    known = [(await person.found_org())["org_id"]]
    for _ in range(8):
        tasks = []
        for parent in chance.choices(known, k=4):
            await person.refresh(parent)
            token = {"Authorization": f"Bearer {person.tokens['access_token']}"}
            tasks.append(auth.call("POST", f"/orgs/{parent}/children", an_org(), **token))
        answers = await asyncio.gather(*tasks)
        assert {answer.status for answer in answers} <= {201, 409}
        known += [answer.body["org_id"] for answer in answers if answer.status == 201]

    assert len(known) > 20
    await assert_exact(auth)


async def test_a_child_of_an_invisible_parent_is_not_born(auth: AuthService) -> None:
    owner, stranger = await auth.sign_in(), await auth.sign_in()
    root = await owner.found_org()
    await stranger.found_org()

    answer = await stranger.call("POST", f"/orgs/{root['org_id']}/children", an_org())

    assert answer.status == 404


async def test_the_fact_of_a_child_holds_its_parents_history(auth: AuthService) -> None:
    person = await auth.sign_in()
    root = await person.found_org()
    child = await person.add_child(root["org_id"])

    facts = {
        row["entity_id"]: row["body"]
        for row in await auth.owner.fetch("SELECT entity_id, body FROM auth.known WHERE entity = 'org'")
    }

    assert f'"parent_org_id": "{root["org_id"]}"' in facts[child["org_id"]]
    assert '"parent_links": [{"effective_at"' in facts[child["org_id"]]
    assert '"parent_links": [{"effective_at"' in facts[root["org_id"]]
