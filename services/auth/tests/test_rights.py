"""Every row of the policy file that is about an organisation × every name that a caller can go by there."""

from __future__ import annotations

import re
from uuid import uuid4

import pytest

from eb_auth.api import routes
from eb_kit.policy import GROUP_ROLES, ORG_ROLES, PLATFORM_ROLES, policy

from .conftest import AuthService, an_org

ROLES = sorted(ORG_ROLES | GROUP_ROLES | PLATFORM_ROLES)
ALLOWED = {200, 204, 404, 409, 422}
"""The calls carry no sensible body and name nothing that exists, beyond the organisation."""


@pytest.fixture(name="auth")
def the_shared_service(shared_auth: AuthService) -> AuthService:
    """One service for the module."""
    return shared_auth


def test_routes_and_rows_are_the_same() -> None:
    assert sorted(route.name for route in routes) == sorted(policy()["auth"])


async def status_of(auth: AuthService, name: str, org_id: object, user_id: object, bearer: str) -> int:
    """Call a route about an organisation; `user_id` stands wherever a path names a user."""
    method, _, path = name.partition(" ")
    ids = {name: uuid4() for name in re.findall(r"{(\w+)}", path)}
    filled = path.format_map(ids | {"org_id": org_id, "ancestor_org_id": org_id, "user_id": user_id})
    body = None if method in ("GET", "DELETE") else {"unknown_member": 1}
    return (await auth.call(method, filled, body, Authorization=f"Bearer {bearer}")).status


@pytest.mark.asyncio(loop_scope="module")
async def test_each_role_may_what_its_row_says_and_nothing_elsewhere(auth: AuthService) -> None:
    owner = await auth.sign_in()
    own = (await owner.found_org())["org_id"]
    other = (await owner.call("POST", "/orgs", an_org())).body["org_id"]
    for name, names in policy()["auth"].items():
        for role in ROLES if "org_id}" in name else []:
            user_id = uuid4()
            token = auth.client.token(roles=[role], org_id=own, user_id=user_id)
            here = await status_of(auth, name, own, user_id, token)
            there = await status_of(auth, name, other, user_id, token)

            assert (here in ALLOWED) if role in names else (here == 403), (name, role, here)
            if role not in PLATFORM_ROLES:
                assert there == 404, (name, role, there)


@pytest.mark.asyncio(loop_scope="module")
async def test_keys_and_trusted_systems_reach_no_route_of_auth(auth: AuthService) -> None:
    owner = await auth.sign_in()
    own = (await owner.found_org())["org_id"]
    key = await auth.client.api_key(own, ["metering:write", "ledger:read:tree"])
    service = await auth.client.api_key(None, kind="service")
    for name in policy()["auth"]:
        if "org_id}" in name:
            assert await status_of(auth, name, own, uuid4(), key) == 403, name
            assert await status_of(auth, name, own, uuid4(), service) == 403, name


@pytest.mark.asyncio(loop_scope="module")
async def test_without_a_usable_credential_every_closed_route_answers_401(auth: AuthService) -> None:
    expired = auth.client.token(roles=["Operator"], exp=1)
    for name, names in policy()["auth"].items():
        if "public" not in names:
            path = name.replace("{session_id}", str(uuid4()))
            for bearer in ("", "nonsense", expired, f"eb_{uuid4().hex}_{'A' * 43}"):
                assert await status_of(auth, path, uuid4(), uuid4(), bearer) == 401, name
