"""A partner's people see organisations that are visible to partners, until it is taken back."""

from __future__ import annotations

import time
import uuid

import aiohttp
import pytest

from eb_tools.client import ApiProblem, Json, Person, wait_for
from eb_tools.world import World

FELT_WITHIN_S = 5.0
TRACE = f"00-{'a' * 32}-{'b' * 16}-01"


async def founded(world: World, admin: Person, name: str, **members: str) -> Json:
    body = {"legal_name": name, "org_slug": f"{name.lower()}-{world.tag}-{time.monotonic_ns()}", **members}
    made: Json = await world.api.post("/orgs", body, token=admin.access_token)
    return made


async def seen(world: World, org: Json, token: str) -> Json | None:
    """Give what is shown of an organisation, None if it isn't there."""
    try:
        shown: Json = await world.api.get(f"/orgs/{org['org_id']}", token=token)
    except ApiProblem as problem:
        if problem.status != 404:
            raise
        return None
    return shown


async def felt(world: World, org: Json, token: str, wanted: Json | None) -> float:
    """Wait until an organisation looks like this; give how long it took."""
    started = time.monotonic()

    async def look() -> bool:
        return await seen(world, org, token) == wanted

    await wait_for(look, f"{wanted} to be seen", timeout_s=FELT_WITHIN_S)
    return time.monotonic() - started


async def raw(world: World, org_id: str, token: str) -> bytes:
    """Give the bytes about an organisation, but its own id."""
    headers = {"Authorization": f"Bearer {token}", "traceparent": TRACE}
    async with world.api.http.get(f"{world.api.base_url}/orgs/{org_id}", headers=headers) as answer:
        return (await answer.read()).replace(org_id.encode(), b"")


async def test_a_partners_people_see_what_is_visible_to_partners_until_it_is_taken_back(world: World) -> None:
    owner, agent, stranger = [await world.person(name) for name in ("owner", "agent", "stranger")]
    org = await founded(world, owner, "Company", visibility="partners")
    agency = await founded(world, agent, "Agency")
    other = await founded(world, stranger, "Other")
    token, strangers = await agent.token_for(agency["org_id"]), await stranger.token_for(other["org_id"])
    finance = world.staff.finance_token
    assert await seen(world, org, token) is None

    body = {"name": "Reseller", "tier": "gold", "org_id": agency["org_id"]}
    partner = await world.api.post("/partners", body, token=finance)
    given = await felt(world, org, token, {name: org[name] for name in ("org_id", "legal_name", "org_slug")})
    assert await raw(world, org["org_id"], strangers) == await raw(world, str(uuid.uuid4()), strangers)

    await world.api.call("PATCH", f"/partners/{partner['partner_id']}", {"org_id": None}, token=finance)
    taken = await felt(world, org, token, None)
    print(f"seen after {given:.2f} s, hidden again after {taken:.2f} s")


async def test_a_partner_of_an_organisation_that_is_not_there_is_refused_with_a_pointer(world: World) -> None:
    body = {"name": "Reseller", "tier": "gold", "org_id": str(uuid.uuid4())}

    with pytest.raises(ApiProblem) as refused:
        await world.api.post("/partners", body, token=world.staff.finance_token)

    assert (refused.value.status, refused.value.code) == (422, "org_unknown")
    assert refused.value.problem["errors"][0]["pointer"] == "/org_id"


async def test_whose_a_request_was_stays_between_services_and_gateway(world: World) -> None:
    owner = await world.person("owner")
    org = await founded(world, owner, "Company")
    headers = {"Authorization": f"Bearer {await owner.token_for(org['org_id'])}"}
    url = f"{world.api.base_url}/orgs/{org['org_id']}"
    async with aiohttp.ClientSession() as http, http.get(url, headers=headers) as answer:
        assert answer.status == 200
        assert "X-EB-Org" not in answer.headers
