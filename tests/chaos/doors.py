"""Every route of the platform, asked through the gateway in a way that changes nothing, while something is away."""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import groupby
from typing import Any
from urllib.parse import urlencode

import aiohttp
from billing import usage_of
from pydantic import TypeAdapter
from samples import parameter_of, sample_of
from yarl import URL

from eb_contracts.ids import new_id
from eb_kit.access import OPEN_ROWS
from eb_kit.routing import Route
from eb_tools.client import wait_for
from eb_tools.mail_demo import raw_headers
from eb_tools.openapi import all_routes
from eb_tools.world import KEY_SCOPES, Member, World

ROUTES = all_routes()
CHANGING = [route for route in ROUTES if route.needs_touch]
READING = [route for route in ROUTES if route.method == "GET" and "/auth/oidc/" not in route.path]
GOING_ON = {route.name for route in ROUTES if route.goes_on}
ONE_OF_EACH = [next(route for route in group) for _, group in groupby(CHANGING, lambda route: route.service)]
NOBODY = Member(str(new_id()), "", "", "")
BACK_S = 30.0
BROKEN = b"{"
"""A body that no route reads: so nothing is changed where the door lets it in."""


@dataclass(frozen=True)
class Answer:
    """What came back, and after how long."""

    status: int
    code: str
    retry_after: str
    after_s: float
    members: Any

    @property
    def is_out_of_touch(self) -> bool:
        return (self.status, self.code) == (503, "unavailable") and int(self.retry_after) >= 1


class Doors:
    """A caller for every route, and an organisation with prices."""

    def __init__(
        self, world: World, http: aiohttp.ClientSession, member: Member, skus: dict[str, str]
    ) -> None:
        self.world, self.http, self.member, self.skus = world, http, member, skus

    async def send(
        self, method: str, path: str, token: str = "", data: bytes | None = None, **headers: str
    ) -> Answer:
        """Send exactly this through the gateway."""
        began = time.monotonic()
        sent = {"Authorization": f"Bearer {token}"} if token else {}
        if data is not None:
            sent["Content-Type"] = "application/json"
        url = URL(self.world.staff.gateway_url + path, encoded=True)
        async with self.http.request(
            method, url, data=data, headers=sent | headers, allow_redirects=False
        ) as answer:
            raw = await answer.read()
            is_json = "json" in answer.content_type and "jsonl" not in answer.content_type
            members = json.loads(raw) if raw and is_json else None
            code = str(members["code"]) if answer.status >= 400 else ""
            after_s = time.monotonic() - began
            return Answer(answer.status, code, answer.headers.get("Retry-After", "0"), after_s, members)

    async def ask(self, route: Route, token: str | None = None) -> Answer:
        """Call a route about things that don't exist, with a body that can't be read where it takes one."""
        headers = {"Idempotency-Key": str(new_id())} if route.method == "POST" else {}
        body = BROKEN if route.body is not None or route.raw_body else None
        if body and route.media_types:
            headers["Content-Type"] = route.media_types[0]
        path = re.sub(r"\{(\w+)\}", lambda found: parameter_of(found[1], self.member.org_id), route.path)
        return await self.send(
            route.method, path + self._query(route), token or self.token(route), body, **headers
        )

    def token(self, route: Route) -> str:
        """Give a credential that the route's policy row takes."""
        staff, own = self.world.staff, self.member
        if route.names & OPEN_ROWS:
            return ""
        callers: tuple[tuple[set[str], str], ...] = (
            ({"Admin", "User", "signed_in"}, own.admin_token),
            ({"Operator"}, staff.operator_token),
            ({"Finance"}, staff.finance_token),
            ({"Support"}, staff.support_token),
            ({"service"}, staff.service_token),
            ({f"key:{scope}" for scope in KEY_SCOPES}, own.api_key),
        )
        return next(token for names, token in callers if names & route.names)

    def _query(self, route: Route) -> str:
        if route.query is None:
            return ""
        schema = TypeAdapter(route.query).json_schema()
        properties = schema.get("properties", {})
        wanted = {"org_id"} & set(properties) | set(schema.get("required", ()))
        given = {"org_id": self.member.org_id, "from": "2026-11-01T00:00:00Z", "to": "2026-11-02T00:00:00Z"}
        return "?" + urlencode({n: given.get(n) or sample_of(properties[n], schema) for n in wanted})

    async def meter(self) -> Answer:
        """Send a batch of usage."""
        batch = json.dumps(usage_of(self.member, self.skus, 3)).encode()
        return await self.send("POST", "/metering/events", self.member.api_key, batch)

    async def all_going_on(self, refresh_token: str, signed_in: str) -> Mapping[str, Answer]:
        """Do what goes on, as it is meant; give the answers by route. Who is signed in signs out."""
        sessions = await self.send("GET", "/auth/sessions", signed_in)
        session = f"/auth/sessions/{sessions.members['items'][0]['session_id']}"
        staff, own = self.world.staff, self.member

        async def say(path: str, body: object, token: str = "") -> Answer:
            return await self.send("POST", path, token, json.dumps(body).encode())

        row = f"twilio,{new_id()},{own.org_id},{self.skus['sms']},1,2026-11-01T00:00:00Z\n"
        log = ("provider,message_id,org_id,sku,quantity,time\n" + row).encode()
        mail = b"From: a@example.net\r\n\r\nhello\r\n"
        envelope = {"from": "a@example.net", "to": "nobody@example.org", "ip": "127.0.0.1", "helo": "x"}
        signed = raw_headers(staff.values["inbound_raw_secret"], mail, envelope)
        asked = {"org_id": own.org_id, "skus": {self.skus["sms"]: "1"}, "leads": 1}
        email = f"outage-{new_id()}@example.net"
        path = "/metering/provider-logs"
        return {
            "POST /metering/events": await self.meter(),
            "POST /pricing/estimate": await say("/pricing/estimate", asked, own.api_key),
            "POST /auth/login": await say("/auth/login", {"email": email}),
            "POST /auth/sessions": await say("/auth/sessions", {"email": email, "code": "00000000"}),
            "POST /auth/token": await say("/auth/token", _refresh(refresh_token)),
            "DELETE /auth/sessions/{session_id}": await self.send("DELETE", session, signed_in),
            f"POST {path}": await self.send(
                "POST", path, staff.finance_token, log, **{"Content-Type": "text/csv"}
            ),
            "POST /verify/inbound/{provider}": await self.send(
                "POST", "/verify/inbound/raw", data=mail, **signed
            ),
        }


def _refresh(token: str) -> dict[str, str]:
    return {"grant_type": "refresh_token", "refresh_token": token}


async def all_work(world: World) -> None:
    """Wait until each service lets somebody in who wants to change something."""
    doors = Doors(world, world.api.http, NOBODY, {})

    async def look() -> bool:
        token = world.staff.operator_token
        answers = await asyncio.gather(*(doors.ask(route, token) for route in ONE_OF_EACH))
        return all(answer.status < 500 for answer in answers)

    await wait_for(look, "all services in touch", timeout_s=BACK_S, every_s=0.2)
