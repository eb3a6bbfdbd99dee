"""Group roles: who may give them, what they reach, and that nothing outlives them."""

from __future__ import annotations

import asyncio
from uuid import uuid4

import pytest

from .conftest import AuthService, Person
from .test_links import detach, link, root_of, verdict, within
from .test_orgs import becomes

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest.fixture(name="auth")
def the_shared_service(shared_auth: AuthService) -> AuthService:
    """One service for the module."""
    return shared_auth


async def give(person: Person, org: str, user_id: str, role: str) -> tuple[int, dict[str, object]]:
    answer = await within(person, org, "POST", f"/groups/{org}/roles", {"user_id": user_id, "role": role})
    return answer.status, answer.body


async def a_group(auth: AuthService) -> tuple[Person, Person, str, str]:
    """Give an Admin, a plain member of the parent, the parent, and a child two levels below."""
    admin, member = await auth.sign_in(), await auth.sign_in()
    parent = await root_of(admin)
    leaf = str((await admin.add_child(str((await admin.add_child(parent))["org_id"])))["org_id"])
    await auth.join(member, parent)
    return admin, member, parent, leaf


async def sees(person: Person, context: str, org: str) -> bool:
    """Tell whether a GET answers 200 within a second, with a token of this context."""
    assert (await person.refresh(context)).status == 200
    return await becomes(200, person, f"/orgs/{org}")


async def test_a_group_role_reaches_everything_below_and_nothing_beside(auth: AuthService) -> None:
    admin, member, parent, leaf = await a_group(auth)
    beside = await root_of(admin)
    assert (await within(member, parent, "GET", f"/orgs/{leaf}")).status == 404

    status, given = await give(admin, parent, member.user_id, "GroupAdmin")

    assert (status, given["role"], given["email"]) == (201, "GroupAdmin", member.email)
    assert await sees(member, parent, leaf)
    assert (await member.call("PATCH", f"/orgs/{leaf}", {"legal_name": "By the group"})).status == 200
    assert (await member.call("GET", f"/orgs/{beside}")).status == 404
    assert (await member.call("PATCH", f"/orgs/{leaf}", {"assist_policy": "off"})).status == 403
    listed = (await admin.call("GET", f"/groups/{parent}/roles")).body
    assert listed["items"] == [given]


async def test_a_second_role_replaces_the_first_and_the_same_changes_nothing(auth: AuthService) -> None:
    admin, member, parent, leaf = await a_group(auth)
    await give(admin, parent, member.user_id, "GroupAdmin")
    assert await sees(member, parent, leaf)
    old = dict(member.tokens)

    status, given = await give(admin, parent, member.user_id, "GroupBilling")
    again = await give(admin, parent, member.user_id, "GroupBilling")

    assert (status, given["role"]) == (200, "GroupBilling")
    assert again == (200, given)
    member.tokens = old
    assert await becomes(401, member, f"/orgs/{leaf}")
    assert await sees(member, parent, leaf)
    assert verdict(await member.call("PATCH", f"/orgs/{leaf}", {"legal_name": "No"})) == (403, "forbidden")
    written = (
        "SELECT action FROM auth.audit_entry WHERE entity = 'group_role_membership' AND org_id = $1::uuid"
    )
    assert [row["action"] for row in await auth.owner.fetch(written, parent)] == ["insert", "update"]


async def test_group_billing_sets_a_projects_cost_center_and_nothing_else(auth: AuthService) -> None:
    admin, member, parent, leaf = await a_group(auth)
    project = (await within(admin, leaf, "POST", f"/orgs/{leaf}/projects", {"name": "P"})).body
    await give(admin, parent, member.user_id, "GroupBilling")
    assert await sees(member, parent, leaf)
    path = f"/orgs/{leaf}/projects/{project['project_id']}"
    center = str(uuid4())

    assert (await member.call("PATCH", path, {"cost_center_id": center})).body["cost_center_id"] == center
    assert verdict(await member.call("PATCH", path, {"name": "Q"})) == (403, "forbidden")
    both = await member.call("PATCH", path, {"name": "Q", "cost_center_id": None})
    assert verdict(both) == (403, "forbidden")
    assert verdict(await member.call("PATCH", f"/orgs/{leaf}", {"country": "NZ"})) == (403, "forbidden")


async def test_only_members_hold_one_and_only_those_who_may_give_it(auth: AuthService) -> None:
    admin, member, parent, leaf = await a_group(auth)
    stranger = await auth.sign_in()

    for nobody in (stranger.user_id, str(uuid4())):
        status, problem = await give(admin, parent, nobody, "GroupSupport")
        assert (status, problem["errors"][0]["code"]) == (422, "not_a_member")  # type: ignore[index]
    assert (await give(member, parent, member.user_id, "GroupAdmin"))[0] == 403
    assert (await give(admin, parent, member.user_id, "Operator"))[0] == 422
    await give(admin, parent, member.user_id, "GroupBilling")
    assert (await give(member, parent, member.user_id, "GroupAdmin"))[0] == 403
    below = await within(
        member, parent, "POST", f"/groups/{leaf}/roles", {"user_id": member.user_id, "role": "GroupAdmin"}
    )
    assert below.status == 403


async def test_a_group_admin_below_gives_none_above(auth: AuthService) -> None:
    admin, member, parent, leaf = await a_group(auth)
    await auth.join(member, leaf)
    await give(admin, leaf, member.user_id, "GroupAdmin")
    assert (await member.refresh(leaf)).status == 200

    above = await member.call(
        "POST", f"/groups/{parent}/roles", {"user_id": member.user_id, "role": "GroupAdmin"}
    )
    own = await member.call(
        "POST", f"/groups/{leaf}/roles", {"user_id": admin.user_id, "role": "GroupSupport"}
    )

    assert verdict(above) == (403, "context_mismatch")
    assert own.status == 201


async def test_a_group_admin_above_and_the_operator_give_roles_below(auth: AuthService) -> None:
    admin, member, parent, leaf = await a_group(auth)
    operator = auth.staff("Operator")
    await give(admin, parent, member.user_id, "GroupAdmin")
    assert await sees(member, parent, leaf)
    body = {"user_id": admin.user_id, "role": "GroupSupport"}

    given = await member.call("POST", f"/groups/{leaf}/roles", body)
    taken = await member.call("DELETE", f"/groups/{leaf}/roles/{admin.user_id}")
    by_staff = await auth.call("POST", f"/groups/{leaf}/roles", {**body, "role": "GroupBilling"}, **operator)

    assert [answer.status for answer in (given, taken, by_staff)] == [201, 204, 201]


async def test_a_role_taken_or_a_membership_ended_is_felt_at_once(auth: AuthService) -> None:
    for path in ("/groups/{org}/roles/{user}", "/orgs/{org}/members/{user}"):
        admin, member, parent, leaf = await a_group(auth)
        await give(admin, parent, member.user_id, "GroupSupport")
        assert await sees(member, parent, leaf)

        gone = await within(admin, parent, "DELETE", path.format(org=parent, user=member.user_id))

        assert gone.status == 204
        assert await becomes(401, member, f"/orgs/{leaf}")
        assert (await admin.call("DELETE", path.format(org=parent, user=member.user_id))).status == 404
        assert (await admin.call("GET", f"/groups/{parent}/roles")).body["items"] == []


async def test_a_group_role_follows_links_and_leaves_with_them(auth: AuthService) -> None:
    admin, member, parent, _ = await a_group(auth)
    await give(admin, parent, member.user_id, "GroupAdmin")
    lone = await root_of(admin)
    await member.refresh(parent)
    assert (await member.call("GET", f"/orgs/{lone}")).status == 404

    assert (await link(admin, parent, lone)).status == 201
    assert await becomes(200, member, f"/orgs/{lone}")
    assert (await detach(admin, lone)).status == 200
    assert await becomes(404, member, f"/orgs/{lone}")


async def test_members_of_another_context_are_told_so(auth: AuthService) -> None:
    admin, member, parent, leaf = await a_group(auth)
    own = await root_of(member)

    await member.refresh(own)
    assert verdict(await member.call("GET", f"/orgs/{parent}")) == (403, "context_mismatch")
    assert verdict(await member.call("GET", f"/orgs/{leaf}")) == (404, "not_found")
    await give(admin, parent, member.user_id, "GroupBilling")
    assert await becomes(403, member, f"/orgs/{leaf}"), "once the young child's place in the tree is known"
    assert verdict(await member.call("GET", f"/orgs/{leaf}")) == (403, "context_mismatch")
    await within(admin, parent, "DELETE", f"/orgs/{parent}/members/{member.user_id}")
    assert verdict(await member.call("GET", f"/orgs/{parent}")) == (404, "not_found")
    await auth.join(member, parent)
    await admin.call("PATCH", f"/orgs/{parent}/members/{member.user_id}", {"role": "Admin"})
    await member.refresh(own)
    assert verdict(await member.call("GET", f"/orgs/{parent}")) == (403, "context_mismatch")


async def test_roles_given_to_one_member_at_once_leave_one(auth: AuthService) -> None:
    admin, member, parent, _ = await a_group(auth)
    await admin.refresh(parent)
    roles = ("GroupAdmin", "GroupBilling", "GroupSupport") * 2

    answers = await asyncio.gather(
        *(
            admin.call("POST", f"/groups/{parent}/roles", {"user_id": member.user_id, "role": role})
            for role in roles
        )
    )

    assert sorted(answer.status for answer in answers) == [200] * 5 + [201]
    [held] = (await admin.call("GET", f"/groups/{parent}/roles")).body["items"]
    assert held["role"] in roles
