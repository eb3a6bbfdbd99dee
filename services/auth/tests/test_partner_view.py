"""Who is shown an organisation with `visibility: partners`: people in the context of a partner's organisation."""

from __future__ import annotations

from typing import Any

import pytest

from eb_contracts.ids import new_id
from eb_contracts.ledger import PartnerChanged

from .conftest import Answer, AuthService, Person

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest.fixture(name="auth")
def the_shared_service(shared_auth: AuthService) -> AuthService:
    """One service for the module."""
    return shared_auth


async def shown(who: Person, org: dict[str, Any]) -> bool:
    """Look at an organisation; tell whether name and slug were shown, and nothing else."""
    seen = await who.call("GET", f"/orgs/{org['org_id']}")
    if seen.status == 200:
        assert seen.body == {name: org[name] for name in ("org_id", "legal_name", "org_slug")}
    return seen.status == 200


async def acts_for_a_partner(auth: AuthService, org: dict[str, Any], **fact: Any) -> None:
    """Let it be heard that an organisation's members act for a partner."""
    told = {"version": 1, "partner_id": new_id(), "org_id": org["org_id"], **fact}
    await auth.client.seed(PartnerChanged.model_validate(told))


async def test_only_in_a_partners_context_a_partner_visible_organisation_is_shown(auth: AuthService) -> None:
    owner, agent, stranger = [await auth.sign_in() for _ in range(3)]
    open_to_partners = await owner.found_org(visibility="partners")
    private = await owner.found_org()
    agency = await agent.found_org()
    await stranger.found_org()
    assert not await shown(agent, open_to_partners)

    await acts_for_a_partner(auth, agency)

    assert await shown(agent, open_to_partners)
    assert not await shown(agent, private)
    assert not await shown(stranger, open_to_partners)
    await agent.found_org()
    assert not await shown(agent, open_to_partners)


async def test_members_of_a_partners_organisation_see_and_those_below_it_do_not(auth: AuthService) -> None:
    owner, agent, member, below = [await auth.sign_in() for _ in range(4)]
    org = await owner.found_org(visibility="partners")
    agency = await agent.found_org()
    child = await agent.add_child(agency["org_id"])
    await auth.join(member, agency["org_id"])
    await auth.join(below, child["org_id"])

    await acts_for_a_partner(auth, agency)

    assert await shown(member, org)
    assert not await shown(below, org)


@pytest.mark.parametrize("change", [{"org_id": None}, {"is_deleted": True}])
async def test_what_is_taken_back_is_hidden_again(auth: AuthService, change: dict[str, Any]) -> None:
    owner, agent = await auth.sign_in(), await auth.sign_in()
    org, agency, partner_id = await owner.found_org(visibility="partners"), await agent.found_org(), new_id()
    await acts_for_a_partner(auth, agency, partner_id=partner_id)
    assert await shown(agent, org)

    await acts_for_a_partner(auth, agency, partner_id=partner_id, version=3, **change)
    assert not await shown(agent, org)

    await acts_for_a_partner(auth, agency, partner_id=partner_id, version=2)
    assert not await shown(agent, org), "an older fact that comes late changes nothing"


async def test_of_two_partners_with_one_organisation_one_is_enough(auth: AuthService) -> None:
    owner, agent = await auth.sign_in(), await auth.sign_in()
    org, agency, first = await owner.found_org(visibility="partners"), await agent.found_org(), new_id()
    await acts_for_a_partner(auth, agency, partner_id=first)
    await acts_for_a_partner(auth, agency)

    await acts_for_a_partner(auth, agency, partner_id=first, version=2, org_id=None)

    assert await shown(agent, org)


async def test_who_is_not_shown_it_gets_the_bytes_of_what_is_not_there(auth: AuthService) -> None:
    owner, stranger, agent = [await auth.sign_in() for _ in range(3)]
    org = await owner.found_org(visibility="partners")
    await stranger.found_org()
    agency = await agent.found_org()
    await acts_for_a_partner(auth, agency)
    key = await auth.client.api_key(agency["org_id"], ["metering:read"])
    trace = "0" * 31 + "1"

    async def looked(bearer: str, org_id: object) -> bytes:
        headers = {"Authorization": f"Bearer {bearer}", "traceparent": f"00-{trace}-{'0' * 15}1-01"}
        seen: Answer = await auth.call("GET", f"/orgs/{org_id}", **headers)
        assert seen.status in (403, 404)
        return seen.raw.replace(str(org_id).encode(), b"")

    for bearer in (stranger.tokens["access_token"], key):
        assert await looked(bearer, org["org_id"]) == await looked(bearer, new_id())


async def test_what_is_shown_is_only_looked_at(auth: AuthService) -> None:
    owner, agent = await auth.sign_in(), await auth.sign_in()
    org = await owner.found_org(visibility="partners")
    await acts_for_a_partner(auth, await agent.found_org())

    for method, path in (("PATCH", ""), ("GET", "/members"), ("GET", "/projects"), ("GET", "/ancestors")):
        body = {"legal_name": "x"} if method == "PATCH" else None
        assert (await agent.call(method, f"/orgs/{org['org_id']}{path}", body)).status == 404, path
