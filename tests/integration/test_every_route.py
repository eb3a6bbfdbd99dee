"""Every route that the services have, through the gateway, against what clients get wrong and attackers try.

Each answer is the right problem; none is a 5xx.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import re
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

import aiohttp
import pytest
from pydantic import TypeAdapter
from samples import body_of, parameter_of, sample_of
from yarl import URL

from eb_contracts.ids import new_id
from eb_kit.access import OPEN_ROWS
from eb_kit.policy import PLATFORM_ROLES
from eb_kit.routing import Route
from eb_tools.openapi import all_routes
from eb_tools.world import KEY_SCOPES, Member, World

MEMBERS = {"type", "title", "status", "detail", "instance", "code", "errors", "trace_id"}
METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")
BODY_METHODS = ("POST", "PUT", "PATCH")
ROUTES = all_routes()
TWO_MIB = 2 * 1024 * 1024


@dataclass(frozen=True)
class Answer:
    """What came back."""

    status: int
    members: Any
    headers: dict[str, str]

    @property
    def code(self) -> str:
        return str(self.members["code"])

    @property
    def words(self) -> Any:
        """Give the problem without what differs from request to request."""
        return {name: value for name, value in self.members.items() if name not in ("trace_id", "instance")}


class Outsider:
    """A client with every credential of the platform, and none on some organisation."""

    def __init__(self, world: World, http: aiohttp.ClientSession, own: Member, foreign: Member) -> None:
        self.world, self.http, self.own, self.foreign = world, http, own, foreign

    async def send(
        self, method: str, target: str, token: str | None = None, body: bytes | None = None, **headers: str
    ) -> Answer:
        """Send exactly this; see that what isn't fine is a problem and never a 5xx."""
        if method == "POST":
            headers.setdefault("Idempotency-Key", str(new_id()))
        if token:
            headers["Authorization"] = f"Bearer {token}"
        if body is not None:
            headers.setdefault("Content-Type", "application/json")
            headers |= self._signature(method, target, body)
        url = URL(self.world.staff.gateway_url + target, encoded=True)
        async with self.http.request(
            method, url, data=body, headers=headers, allow_redirects=False
        ) as response:
            raw = await response.read()
            answer = Answer(response.status, _json(raw), dict(response.headers))
        assert answer.status < 500, (method, target, raw)
        if answer.status >= 400:
            assert answer.headers["Content-Type"] == "application/problem+json", (method, target, raw)
            assert answer.members.keys() >= MEMBERS, (method, target, raw)
            assert answer.members["status"] == answer.status
        return answer

    def _signature(self, method: str, target: str, body: bytes) -> dict[str, str]:
        """Sign as a mail processor does: its route looks at the signature before it looks at the body."""
        secret, stamp = str(self.world.staff.values["email_submit_secret"]), str(int(time.time()))
        text = "\n".join(("v1", method, target, stamp, hashlib.sha256(body).hexdigest()))
        mac = hmac.new(secret.encode(), text.encode(), hashlib.sha256).hexdigest()
        return {"X-EB-Timestamp": stamp, "X-EB-Signature": f"v1={mac}"}

    def token(self, route: Route) -> str | None:
        """Give a credential that the route's policy row takes."""
        staff = self.world.staff
        of_role = {
            "Operator": staff.operator_token,
            "Finance": staff.finance_token,
            "Support": staff.support_token,
            "service": staff.service_token,
        }
        if route.names & {"Admin", "User", "signed_in"}:
            return self.own.admin_token
        return next((token for role, token in of_role.items() if role in route.names), None)

    def callers(self) -> list[tuple[set[str], str]]:
        """Give callers by the names that the policy's rows could let them in under."""
        staff = self.world.staff
        return [
            ({"Operator", "signed_in"}, staff.operator_token),
            ({"Finance", "signed_in"}, staff.finance_token),
            ({"Support", "signed_in"}, staff.support_token),
            ({"service"}, staff.service_token),
            ({"Admin", "signed_in"}, self.own.admin_token),
            ({f"key:{scope}" for scope in KEY_SCOPES}, self.own.api_key),
        ]

    def target(self, route: Route, org_id: str) -> str:
        """Fill the path's parameters: this organisation, and ids of nothing."""
        return re.sub(r"\{(\w+)\}", lambda found: parameter_of(found[1], org_id), route.path)

    def query(self, route: Route, org_id: str) -> str:
        """Give the query that the route asks for."""
        if route.query is None:
            return ""
        schema = TypeAdapter(route.query).json_schema()
        wanted = {name for name in schema.get("properties", {}) if name == "org_id"} | set(
            schema.get("required", ())
        )
        values = {
            name: org_id if name == "org_id" else sample_of(schema["properties"][name], schema)
            for name in wanted
        }
        return "?" + urlencode(values)


def _json(raw: bytes) -> Any:
    try:
        return json.loads(raw) if raw else None
    except ValueError:
        return raw.decode(errors="replace")


def _named(routes: list[Route]) -> list[Any]:
    return [pytest.param(route, id=route.name) for route in routes]


CLOSED = [route for route in ROUTES if not route.names & OPEN_ROWS]
WITH_BODY = [route for route in ROUTES if route.body is not None]
OF_AN_ORG = [
    route for route in CLOSED if "{org_id}" in route.path and not route.names <= PLATFORM_ROLES | {"service"}
]


@pytest.fixture(scope="module")
def seen() -> dict[str, Any]:
    """What is made once for all of them."""
    return {}


@pytest.fixture
async def outsider(world: World, seen: dict[str, Any]) -> AsyncIterator[Outsider]:
    if not seen:
        seen["own"] = await world.org(await world.person("own"), "Own Events")
        seen["foreign"] = await world.org(await world.person("foreign"), "Foreign Events")
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=40)) as http:
        yield Outsider(world, http, seen["own"], seen["foreign"])


@pytest.mark.parametrize("route", _named(ROUTES))
async def test_without_a_token(outsider: Outsider, route: Route) -> None:
    target = outsider.target(route, outsider.own.org_id)
    body = b"{}" if route.method in BODY_METHODS else None
    bare = await outsider.send(route.method, target, None, body)
    forged = await outsider.send(route.method, target, "eyJhbGciOiJub25lIn0.e30.", body)

    if route in CLOSED:
        assert (bare.status, bare.code) == (forged.status, forged.code) == (401, "token_invalid")
        assert bare.headers["WWW-Authenticate"].startswith("Bearer")
    elif "public" in route.names:
        assert bare.status == forged.status


@pytest.mark.parametrize("route", _named(OF_AN_ORG))
async def test_about_another_tenant(outsider: Outsider, route: Route) -> None:
    answers = [
        await outsider.send(
            route.method,
            outsider.target(route, org_id) + outsider.query(route, org_id),
            outsider.own.admin_token,
            json.dumps(body_of(route, org_id)).encode() if route.body is not None else None,
        )
        for org_id in (outsider.foreign.org_id, "0199b1f0-0000-7000-8000-000000000001")
    ]

    assert [answer.status for answer in answers] in ([404, 404], [422, 422])
    assert answers[0].words == answers[1].words


@pytest.mark.parametrize("route", _named([r for r in CLOSED if r.names <= PLATFORM_ROLES | {"service"}]))
async def test_as_somebody_whom_no_organisation_could_help(outsider: Outsider, route: Route) -> None:
    body = b"{}" if route.method in BODY_METHODS else None
    target = outsider.target(route, outsider.own.org_id)
    answers = [
        await outsider.send(route.method, target, token, body)
        for token in (outsider.own.admin_token, outsider.own.api_key)
    ]

    assert {(answer.status, answer.code) for answer in answers} == {(403, "forbidden")}


@pytest.mark.parametrize("route", _named(CLOSED))
async def test_as_every_kind_of_caller(outsider: Outsider, route: Route) -> None:
    target = outsider.target(route, outsider.own.org_id) + outsider.query(route, outsider.own.org_id)
    body = json.dumps(body_of(route, outsider.own.org_id)).encode() if route.body is not None else None
    for names, token in outsider.callers():
        answer = await outsider.send(route.method, target, token, body)

        if route.names & names:
            assert answer.status not in (401, 403), (names, answer)
        else:
            assert (answer.status, answer.code) in _denials(route), (names, answer)


def _denials(route: Route) -> set[tuple[int, str]]:
    """A body that names the organisation is read first, and a made-up one may not fit; ingest has its own word."""
    if route.path == "/metering/events":
        return {(403, "forbidden"), (403, "org_forbidden")}
    is_in_body = route.body is not None and "{org_id}" not in route.path
    return _read_before_or(route, (403, "forbidden")) | ({(422, "body_invalid")} if is_in_body else set())


@pytest.mark.parametrize("route", _named(ROUTES))
async def test_with_another_method(outsider: Outsider, route: Route) -> None:
    taken = {other.method for other in ROUTES if other.path == route.path}
    target = outsider.target(route, outsider.own.org_id)
    for method in (method for method in METHODS if method not in taken):
        answer = await outsider.send(method, target, outsider.token(route))

        assert (answer.status, answer.code) == (405, "method_not_allowed")
        assert answer.headers["Allow"] == ", ".join(sorted(taken))


@pytest.mark.parametrize("route", _named([r for r in ROUTES if r.method in BODY_METHODS]))
async def test_with_two_mebibytes(outsider: Outsider, route: Route) -> None:
    target = outsider.target(route, outsider.own.org_id)
    answer = await outsider.send(route.method, target, outsider.token(route), b" " * TWO_MIB)

    if route.body_limit < TWO_MIB:
        assert (answer.status, answer.code) == (413, "body_too_large")
    else:
        assert answer.status == 400


HOSTILE = {
    "malformed": (b'{"a": ', "malformed_json"),
    "NaN": (b'{"a": NaN}', "malformed_json"),
    "huge exponent": (b'{"a": 1e400}', "number_out_of_range"),
    "duplicate keys": (b'{"a": 1, "a": 2}', "duplicate_key"),
    "too deep": (b"[" * 40 + b"]" * 40, "json_too_deep"),
    "lone surrogate": (b'{"a": "\\ud800"}', "unstorable_text"),
    "NUL": (b'{"a": "\\u0000"}', "unstorable_text"),
    "no UTF-8": (b'{"a": "\xff"}', "malformed_json"),
}


@pytest.mark.parametrize("route", _named(WITH_BODY))
async def test_with_hostile_json(outsider: Outsider, route: Route) -> None:
    target = outsider.target(route, outsider.own.org_id) + outsider.query(route, outsider.own.org_id)
    for body, code in HOSTILE.values():
        answer = await outsider.send(route.method, target, outsider.token(route), body)

        assert (answer.status, answer.code) in _read_before_or(route, (400, code))


@pytest.mark.parametrize("route", _named(WITH_BODY))
async def test_with_another_content_type(outsider: Outsider, route: Route) -> None:
    target = outsider.target(route, outsider.own.org_id) + outsider.query(route, outsider.own.org_id)
    for headers in (
        {"Content-Type": "text/plain"},
        {"Content-Type": "application/json", "Content-Encoding": "br"},
    ):
        answer = await outsider.send(route.method, target, outsider.token(route), b"{}", **headers)

        assert (answer.status, answer.code) in _read_before_or(route, (415, "unsupported_media_type"))


@pytest.mark.parametrize("route", _named(WITH_BODY))
async def test_with_an_unknown_field(outsider: Outsider, route: Route) -> None:
    sample, pointer = body_of(route, outsider.own.org_id), "/no_such_field"
    if isinstance(sample, list):
        sample, pointer = [sample[0] | {"no_such_field": 1}], "/0/no_such_field"
    else:
        sample |= {"no_such_field": 1}
    target = outsider.target(route, outsider.own.org_id) + outsider.query(route, outsider.own.org_id)
    answer = await outsider.send(route.method, target, outsider.token(route), json.dumps(sample).encode())

    assert answer.status in {status for status, _ in _read_before_or(route, (422, ""))}
    if answer.status == 422:
        assert (pointer, "unknown_field") in {(e["pointer"], e["code"]) for e in answer.members["errors"]}


def _read_before_or(route: Route, expected: tuple[int, str]) -> set[tuple[int, str]]:
    """A path that names something unknown may be refused before the body is read."""
    names_a_thing = set(re.findall(r"\{(\w+)\}", route.path)) - {"org_id"}
    return {expected, (404, "not_found")} if names_a_thing else {expected}


@pytest.mark.parametrize("route", _named([r for r in ROUTES if r.query is not None]))
async def test_with_bad_query_parameters(outsider: Outsider, route: Route) -> None:
    target = outsider.target(route, outsider.own.org_id)
    for query in ("no_such=1", "limit=0", "limit=1&limit=1", "cursor=x", "org_id=%00", "org_id=%ff"):
        answer = await outsider.send(route.method, f"{target}?{query}", outsider.token(route))

        assert (answer.status, answer.code) in _read_before_or(route, (400, "parameter_invalid"))


@pytest.mark.parametrize(
    "target",
    [
        "/",
        "/nothing",
        "/orgs/",
        "//orgs",
        "/orgs/../auth/me",
        "/%2e%2e/orgs",
        "/orgs/%00",
        "/orgs/%ff",
        "/metrics",
        "/livez",
    ],
)
async def test_paths_of_nothing(outsider: Outsider, target: str) -> None:
    answer = await outsider.send("GET", target, outsider.own.admin_token)

    assert (answer.status, answer.code) == (404, "not_found")
