"""The running platform against its own document: generated requests, and answers that fit what is written."""

from __future__ import annotations

import asyncio
from typing import Any

import aiohttp
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis.checks import load_all_checks
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from eb_kit.access import OPEN_ROWS
from eb_kit.openapi import document
from eb_kit.routing import Route
from eb_tools.client import Api
from eb_tools.openapi import all_routes
from eb_tools.world import Member, World

EXAMPLES = 8
ROUTES = all_routes()
SCHEMA = schemathesis.openapi.from_dict(document("Event Builder Platform", ROUTES))
CHECKS = [status_code_conformance, content_type_conformance, response_schema_conformance]
load_all_checks()


@schemathesis.serializer("message/rfc822", "text/csv", "application/x-ndjson")
def as_sent(_: Any, value: Any) -> Any:
    return value


@pytest.fixture(scope="module")
def admin(stack: Any) -> Member:
    """An organisation of this module's own."""

    async def make() -> Member:
        async with aiohttp.ClientSession() as http:
            world = World.at(Api(stack.staff.gateway_url, http), stack.staff)
            return await world.org(await world.person("fuzz"), "Fuzzed Events")

    return asyncio.run(make())


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: route.name)
def test_answers_fit_the_document(route: Route, stack: Any, admin: Member) -> None:
    headers = _credential(route, stack.staff, admin)

    @given(case=SCHEMA[route.path][route.method].as_strategy())
    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        derandomize=True,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    def send(case: Any) -> None:
        response = case.call(base_url=stack.staff.gateway_url, headers=headers)
        assert response.status_code < 500, (case.as_curl_command(), response.text)
        case.validate_response(response, checks=CHECKS)

    send()


def _credential(route: Route, staff: Any, admin: Member) -> dict[str, str]:
    """Give the header of a caller whom the route's policy row lets in."""
    if route.names & OPEN_ROWS:
        return {}
    roles = ("Operator", "Finance", "Support", "service")
    token = next((getattr(staff, f"{role.lower()}_token") for role in roles if role in route.names), "")
    if route.names & {"Admin", "signed_in"} or not token:
        token = admin.admin_token
    return {"Authorization": f"Bearer {token}"}
