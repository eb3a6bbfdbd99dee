"""Links with consent, detaching and moving, through the doors."""

from __future__ import annotations

import asyncio
import json
from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest

from .conftest import Answer, AuthService, Person, an_org
from .test_hierarchy import assert_exact

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest.fixture(name="auth")
def the_shared_service(shared_auth: AuthService) -> AuthService:
    """One service for the module."""
    return shared_auth


async def root_of(person: Person) -> str:
    return str((await person.found_org())["org_id"])


async def within(person: Person, org_id: str, method: str, path: str, body: object = None) -> Answer:
    """Call in an organisation's context."""
    assert (await person.refresh(org_id)).status == 200
    return await person.call(method, path, body)


async def link(person: Person, parent: str, child: str) -> Answer:
    return await within(person, parent, "POST", f"/orgs/{parent}/children", {"link_org_id": child})


async def move(person: Person, org: str, parent: str, context: str | None = None) -> Answer:
    return await within(person, context or org, "POST", f"/orgs/{org}:move", {"parent_org_id": parent})


async def detach(person: Person, org: str, context: str | None = None) -> Answer:
    return await within(person, context or org, "POST", f"/orgs/{org}:detach")


def verdict(answer: Answer) -> tuple[int, str]:
    return answer.status, answer.body.get("code", "")


async def entries(auth: AuthService, org: str) -> int:
    return int(
        await auth.owner.fetchval("SELECT count(*) FROM auth.audit_entry WHERE org_id = $1::uuid", org)
    )


async def fact_of(auth: AuthService, org: str) -> dict[str, Any]:
    text = await auth.owner.fetchval(
        "SELECT body FROM auth.known WHERE entity = 'org' AND entity_id = $1", org
    )
    return dict(json.loads(text))


async def test_an_admin_of_both_links_at_once_and_again_changes_nothing(auth: AuthService) -> None:
    person = await auth.sign_in()
    parent, child = await root_of(person), await root_of(person)

    linked = await link(person, parent, child)
    before = await entries(auth, child)
    again = await link(person, parent, child)

    assert (linked.status, linked.body["parent_org_id"]) == (201, parent)
    assert (again.status, again.body) == (200, linked.body)
    assert await entries(auth, child) == before
    fact = await fact_of(auth, child)
    assert fact["parent_org_id"] == fact["parent_links"][-1]["parent_org_id"] == parent
    await assert_exact(auth)


async def test_a_link_without_consent_waits_for_the_childs_admin(auth: AuthService) -> None:
    asking, asked = await auth.sign_in(), await auth.sign_in()
    parent, child = await root_of(asking), await root_of(asked)

    pending = await link(asking, parent, child)
    again = await link(asking, parent, child)
    path = f"/org-links/{pending.body['org_link_id']}:accept"

    assert (pending.status, pending.body["status"]) == (202, "pending")
    assert again.body == pending.body
    assert (await asking.call("POST", path)).status == 404
    assert (await fact_of(auth, child))["parent_org_id"] is None

    accepted = await asked.call("POST", path)
    twice = await asked.call("POST", path)
    assert (accepted.status, accepted.body["status"]) == (200, "accepted")
    assert twice.body == accepted.body
    assert verdict(await asked.call("POST", path.replace("accept", "decline"))) == (
        409,
        "org_link_not_pending",
    )
    assert (await fact_of(auth, child))["parent_org_id"] == parent
    seen_by_the_parent = await link(asking, parent, child)
    assert seen_by_the_parent.status == 200
    assert "billing_email" not in seen_by_the_parent.body
    await assert_exact(auth)


async def test_the_childs_admins_hear_of_a_request_by_mail(auth: AuthService) -> None:
    asking, asked = await auth.sign_in(), await auth.sign_in()
    parent, child = await root_of(asking), await root_of(asked)

    pending = await link(asking, parent, child)

    [mail] = [mail for mail in await auth.mails() if mail["X-EB-Kind"] == "org_link_requested"]
    assert mail["To"] == asked.email
    assert pending.body["org_link_id"] in mail.get_payload()


async def test_a_declined_or_expired_request_links_nothing(auth: AuthService) -> None:
    asking, asked = await auth.sign_in(), await auth.sign_in()
    parent, child = await root_of(asking), await root_of(asked)
    declined = (await link(asking, parent, child)).body["org_link_id"]
    assert (await asked.call("POST", f"/org-links/{declined}:decline")).body["status"] == "declined"
    late = (await link(asking, parent, child)).body["org_link_id"]
    await auth.owner.execute("SELECT set_config('eb.actor', 'system:test', false)")
    await auth.owner.execute(
        "UPDATE auth.org_link SET expires_at = requested_at WHERE org_link_id = $1::uuid", late
    )

    assert late != declined
    for old in (declined, late):
        assert verdict(await asked.call("POST", f"/org-links/{old}:accept")) == (409, "org_link_not_pending")
    renewed = await link(asking, parent, child)
    assert renewed.body["org_link_id"] == late
    assert (await asked.call("POST", f"/org-links/{late}:accept")).status == 200
    assert (await asked.call("POST", f"/org-links/{uuid4()}:accept")).status == 404


async def test_what_cannot_be_linked_says_why(auth: AuthService) -> None:
    person, stranger = await auth.sign_in(), await auth.sign_in()
    top, other, lone = [await root_of(person) for _ in range(3)]
    mid = str((await person.add_child(top))["org_id"])
    hidden = str((await stranger.add_child(await root_of(stranger)))["org_id"])

    assert verdict(await link(person, top, top)) == (409, "self_parent")
    assert verdict(await link(person, mid, top)) == (409, "cycle")
    assert verdict(await link(person, other, mid)) == (409, "already_has_parent")
    assert verdict(await link(person, other, hidden)) == (404, "not_found")
    assert verdict(await link(person, other, str(uuid4()))) == (404, "not_found")
    both = await within(person, other, "POST", f"/orgs/{other}/children", an_org(link_org_id=lone))
    assert (both.status, {e["code"] for e in both.body["errors"]}) == (422, {"unknown_field"})


async def test_a_member_without_the_say_asks_too_and_has_thirty_days_answer(auth: AuthService) -> None:
    asking, asked = await auth.sign_in(), await auth.sign_in()
    parent, child = await root_of(asking), await root_of(asked)
    await auth.join(asking, child)

    pending = await link(asking, parent, child)

    assert (pending.status, pending.body["status"]) == (202, "pending")
    asked_at, ends = await auth.owner.fetchrow(
        "SELECT requested_at, expires_at FROM auth.org_link WHERE org_link_id = $1::uuid",
        pending.body["org_link_id"],
    )
    assert ends - asked_at == timedelta(days=30)
    path = f"/org-links/{pending.body['org_link_id']}"
    for answer in ("accept", "decline"):
        assert verdict(await within(asking, child, "POST", f"{path}:{answer}")) == (403, "forbidden")


async def test_everything_is_checked_again_when_a_request_is_accepted(auth: AuthService) -> None:
    asking, asked = await auth.sign_in(), await auth.sign_in()
    deep = (await chain(asking, 10))[-1]
    late, under, child = await root_of(asking), await root_of(asking), await root_of(asked)
    operator = auth.staff("Operator")
    requests = [(await link(asking, parent, child)).body["org_link_id"] for parent in (late, under)]

    async def accepted(request: str) -> Answer:
        return await within(asked, child, "POST", f"/org-links/{request}:accept")

    assert verdict(await link(asking, deep, child)) == (409, "max_depth")
    moved = await auth.call("POST", f"/orgs/{under}:move", {"parent_org_id": child}, **operator)
    assert moved.status == 200
    assert verdict(await accepted(requests[1])) == (409, "cycle")
    moved = await auth.call("POST", f"/orgs/{late}:move", {"parent_org_id": deep}, **operator)
    assert verdict(moved) == (409, "max_depth")
    other = await root_of(asked)
    assert (await link(asked, other, child)).status == 201
    assert verdict(await accepted(requests[0])) == (409, "already_has_parent")
    assert (await auth.call("POST", f"/orgs/{child}:detach", **operator)).status == 200
    assert (await accepted(requests[0])).status == 200
    await assert_exact(auth)


async def test_accepting_and_declining_at_once_is_one_answer(auth: AuthService) -> None:
    asking, asked = await auth.sign_in(), await auth.sign_in()
    for _ in range(5):
        parent, child = await root_of(asking), await root_of(asked)
        path = f"/org-links/{(await link(asking, parent, child)).body['org_link_id']}"

        answers = await asyncio.gather(
            *(asked.call("POST", f"{path}:{answer}") for answer in ("accept", "decline") * 2)
        )

        assert sorted(map(verdict, answers)) == [(200, "")] * 2 + [(409, "org_link_not_pending")] * 2
        [status] = {answer.body["status"] for answer in answers if answer.status == 200}
        is_child = (await fact_of(auth, child))["parent_org_id"] == parent
        assert is_child == (status == "accepted")
    await assert_exact(auth)


async def test_a_root_linked_to_two_parents_at_once_gets_one(auth: AuthService) -> None:
    person = await auth.sign_in()
    operator = auth.staff("Operator")
    for _ in range(5):
        child, *parents = [await root_of(person) for _ in range(3)]

        answers = await asyncio.gather(
            *(
                auth.call("POST", f"/orgs/{parent}/children", {"link_org_id": child}, **operator)
                for parent in parents
            )
        )

        assert sorted(map(verdict, answers)) == [(201, ""), (409, "already_has_parent")]
    await assert_exact(auth)


async def chain(person: Person, edges: int) -> list[str]:
    """Grow a chain of this many edges; give it from the root down."""
    made = [await root_of(person)]
    for _ in range(edges):
        made.append(str((await person.add_child(made[-1]))["org_id"]))
    return made


async def test_a_subtree_hangs_no_deeper_than_ten(auth: AuthService) -> None:
    person = await auth.sign_in()
    long, short, one = await chain(person, 6), await chain(person, 3), await root_of(person)

    assert (await link(person, long[-1], short[0])).status == 201
    assert verdict(await link(person, short[-1], one)) == (409, "max_depth")
    assert verdict(await move(person, long[1], short[-1])) == (409, "cycle")
    assert (await move(person, short[1], long[4])).status == 200
    assert (await link(person, short[-1], one)).status == 201
    assert verdict(await move(person, short[1], long[-1])) == (200, "")
    assert verdict(await move(person, short[1], short[0])) == (409, "max_depth")
    await assert_exact(auth)


async def test_a_subtree_is_detached_whole_and_only_once(auth: AuthService) -> None:
    person = await auth.sign_in()
    top, mid, leaf = await chain(person, 2)

    detached = await detach(person, mid)

    assert (detached.status, detached.body["parent_org_id"]) == (200, None)
    assert verdict(await detach(person, mid)) == (409, "already_root")
    above = (await within(person, leaf, "GET", f"/orgs/{leaf}/ancestors")).body["items"]
    assert [each["org_id"] for each in above] == [mid]
    assert (await within(person, top, "GET", f"/orgs/{top}/descendants")).body["items"] == []
    assert (await fact_of(auth, mid))["parent_links"][-1]["parent_org_id"] is None
    await assert_exact(auth)


async def test_the_parents_admin_detaches_a_child_and_a_user_of_it_does_not(auth: AuthService) -> None:
    parents, childs, user = [await auth.sign_in() for _ in range(3)]
    parent, child = await root_of(parents), await root_of(childs)
    pending = await link(parents, parent, child)
    assert (await childs.call("POST", f"/org-links/{pending.body['org_link_id']}:accept")).status == 200
    await auth.join(user, child)

    assert verdict(await detach(user, child)) == (403, "forbidden")
    assert verdict(await (await auth.sign_in()).call("POST", f"/orgs/{child}:detach")) == (404, "not_found")
    gone = await detach(parents, child, context=parent)
    assert (gone.status, gone.body["parent_org_id"]) == (200, None)
    assert "billing_email" not in gone.body


async def test_a_move_needs_rights_on_all_three_places(auth: AuthService) -> None:
    person, other = await auth.sign_in(), await auth.sign_in()
    old, new, hidden = await root_of(person), await root_of(person), await root_of(other)
    org = str((await person.add_child(old))["org_id"])
    seen = await root_of(other)
    await auth.join(person, seen)

    assert verdict(await move(person, org, hidden)) == (404, "not_found")
    assert verdict(await move(person, org, seen)) == (403, "forbidden")
    assert verdict(await move(person, org, new, context=seen)) == (403, "context_mismatch")
    assert verdict(await move(other, org, hidden, context=hidden)) == (404, "not_found")
    moved = await move(person, org, new)
    before = await entries(auth, org)
    again = await move(person, org, new, context=new)
    assert (moved.status, moved.body["parent_org_id"]) == (200, new)
    assert (again.status, again.body) == (200, moved.body)
    assert await entries(auth, org) == before
    assert verdict(await move(person, org, org)) == (409, "self_parent")
    assert verdict(await move(person, org, str(uuid4()))) == (404, "not_found")
    assert (await move(person, old, new)).status == 200
    await assert_exact(auth)


async def test_nobody_moves_from_under_a_parent_that_they_have_no_say_in(auth: AuthService) -> None:
    person, parents = await auth.sign_in(), await auth.sign_in()
    old, new, org = await root_of(parents), await root_of(person), await root_of(person)
    pending = await link(parents, old, org)
    accepted = await person.call("POST", f"/org-links/{pending.body['org_link_id']}:accept")
    assert accepted.status == 200

    assert verdict(await move(person, org, new)) == (404, "not_found")
    await auth.join(person, old)
    assert verdict(await move(person, org, new)) == (403, "forbidden")
    assert (await fact_of(auth, org))["parent_org_id"] == old
    assert (await detach(person, org)).status == 200


async def test_the_operator_arranges_any_organisations(auth: AuthService) -> None:
    person = await auth.sign_in()
    parent, child = await root_of(person), await root_of(person)
    operator = auth.staff("Operator")

    moved = await auth.call("POST", f"/orgs/{child}:move", {"parent_org_id": parent}, **operator)
    gone = await auth.call("POST", f"/orgs/{child}:detach", **operator)
    linked = await auth.call("POST", f"/orgs/{parent}/children", {"link_org_id": child}, **operator)

    assert [answer.status for answer in (moved, gone, linked)] == [200, 200, 201]
    nowhere = await auth.call("POST", f"/orgs/{child}:move", {"parent_org_id": str(uuid4())}, **operator)
    assert nowhere.status == 404
    await assert_exact(auth)


async def test_of_two_links_that_would_make_a_cycle_one_wins(auth: AuthService) -> None:
    person = await auth.sign_in()
    operator = auth.staff("Operator")
    for _ in range(10):
        one, two = await root_of(person), await root_of(person)

        answers = await asyncio.gather(
            *(
                auth.call("POST", f"/orgs/{org}:move", {"parent_org_id": parent}, **operator)
                for org, parent in ((one, two), (two, one))
            )
        )

        assert sorted(map(verdict, answers)) == [(200, ""), (409, "cycle")]
    await assert_exact(auth)


async def test_the_history_holds_whole_minutes_and_the_last_of_each(auth: AuthService) -> None:
    person = await auth.sign_in()
    one, two = await root_of(person), await root_of(person)
    org = str((await person.add_child(one))["org_id"])
    clock = auth.client.context.settings.clock_file
    clock.write_text(str(timedelta(minutes=5).total_seconds()))
    await asyncio.sleep(0.15)
    try:
        for parent in (two, one, two):
            assert (await move(person, org, parent)).status == 200
    finally:
        clock.write_text("0")
        await asyncio.sleep(0.15)
    assert (await move(person, org, one)).status == 200

    links = (await fact_of(auth, org))["parent_links"]
    assert [each["parent_org_id"] for each in links] == [one, one]
    assert all(each["effective_at"].endswith(":00Z") for each in links)
    await assert_exact(auth)
