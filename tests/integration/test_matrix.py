"""Every route × every kind of caller, from the policy file: who is refused, and how; who is let through.

One group of organisations and a stranger; each route is called about the organisation in the middle, first by those
who may not. A caller without any right there must not learn that it exists (404); one who sees it, but may not
(403). For the allowed it only matters that they pass: what they ask for may well be refused for other reasons.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote, urlencode

import aiohttp
import pytest
from forging import a_forge
from pydantic import TypeAdapter
from samples import body_of, sample_of
from yarl import URL

from eb_contracts.ids import new_id
from eb_kit.access import OPEN_ROWS
from eb_kit.policy import GROUP_ROLES, ORG_ROLES, PLATFORM_ROLES
from eb_kit.routing import Route
from eb_tools.client import ApiProblem, Json, Person, wait_for
from eb_tools.openapi import all_routes
from eb_tools.world import Member, World, event

SCOPES = (
    "metering:write", "metering:read", "metering:void", "pricing:read", "pricing:authorize", "pricing:estimate",
    "ledger:read", "catalog:read",
)  # fmt: skip
ROUTES = [route for route in all_routes() if not route.names & OPEN_ROWS]
ABOUT_SEVERAL = {
    "POST /orgs/{org_id}:detach", "POST /orgs/{org_id}:move", "POST /org-links/{org_link_id}:accept",
    "POST /org-links/{org_link_id}:decline",
}  # fmt: skip
"""Rights on the old or new parent count too: tests of the hierarchy look at them one by one."""
OWN_THINGS = {
    "DELETE /auth/sessions/{session_id}", "POST /assist-sessions/{assist_session_id}:end",
    "POST /invitations:accept", "DELETE /orgs/{org_id}/members/{user_id}",
}  # fmt: skip
"""Whose thing it is counts beside the role: tests of sessions, assist, invitations and members look at them."""


@dataclass(frozen=True)
class Actor:
    """A caller: the token, and the names it goes by towards the organisation in the middle, and anywhere."""

    name: str
    token: str
    names: frozenset[str] = frozenset()
    anywhere: frozenset[str] = frozenset()


@dataclass
class Stage:
    """Everything a route can be called about."""

    world: World
    http: aiohttp.ClientSession
    own: Member
    things: dict[str, str] = field(default_factory=dict)
    actors: list[Actor] = field(default_factory=list)

    async def ask(self, route: Route, token: str) -> tuple[int, str]:
        """Call a route about the organisation in the middle; give status and code."""
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        if route.idempotency == "required":
            headers["Idempotency-Key"] = str(new_id())
        body = self._body(route)
        if body is not None:
            headers["Content-Type"] = route.media_types[0] if route.media_types else "application/json"
        url = URL(self.world.staff.gateway_url + self._path(route) + self._query(route), encoded=True)
        async with self.http.request(
            route.method, url, data=body, headers=headers, allow_redirects=False
        ) as answer:
            raw = await answer.read()
            is_problem = answer.content_type == "application/problem+json"
            return answer.status, str(json.loads(raw)["code"]) if is_problem else ""

    def _path(self, route: Route) -> str:
        return re.sub(
            r"\{(\w+)\}", lambda m: quote(self.things.get(m[1], str(new_id())), safe=""), route.path
        )

    def _query(self, route: Route) -> str:
        if route.query is None:
            return ""
        schema = TypeAdapter(route.query).json_schema()
        properties = schema.get("properties", {})
        wanted = {"org_id"} & set(properties) | set(schema.get("required", ()))
        values = {name: self.things.get(name) or sample_of(properties[name], schema) for name in wanted}
        return "?" + urlencode(values)

    def _body(self, route: Route) -> bytes | None:
        if route.raw_body and route.body is None:
            return b"{}"
        if route.body is None:
            return None
        body = SPECIAL.get(route.name) or body_of(route, self.own.org_id)
        text = json.dumps(body)
        return re.sub(r'"@(\w+)"', lambda m: json.dumps(self.things[m[1]]), text).encode()


SPECIAL: Mapping[str, Any] = {
    "POST /metering/events": [
        {
            "request_id": "matrix", "sku": "@sku", "quantity": "1", "org_id": "@org_id", "project_id": "@project_id",
            "time": datetime.now(UTC).isoformat(),
        }
    ],
    "POST /orgs": {"legal_name": "Matrix", "org_slug": f"matrix-{new_id()}"},
    "POST /catalog/business-models": {"code": f"matrix-{new_id()}", "name": "M", "currency": "AUD"},
    "POST /orgs/{org_id}/children": {"legal_name": "", "org_slug": "x"},
    "PATCH /orgs/{org_id}": {"legal_name": ""},
    "POST /assist-sessions": {
        "org_id": "@org_id", "purpose": "incident", "reason": "looking at the matrix", "ttl_minutes": 1,
    },
    "POST /metering/dead-letters:replay": {"filter": {"org_id": "@org_id"}},
    "POST /partner-of-record": {
        "org_id": "@org_id", "partner_id": str(new_id()), "start_at": "2026-01-01T00:00:00Z",
    },
}  # fmt: skip
"""Bodies that a shape alone doesn't tell. Where they mustn't do anything they are wrong behind the door."""


def expected(route: Route, actor: Actor) -> str:
    """Say what the policy file wants: `401`, `hidden`, `refused` or `passes`."""
    if not actor.anywhere:
        return "401"
    if route.names.isdisjoint(ORG_ROLES | GROUP_ROLES):
        return "passes" if route.names & actor.anywhere else "refused"
    if route.names & actor.names:
        return "passes"
    return "refused" if actor.names else "hidden"


def is_as(want: str, status: int, code: str) -> bool:
    """Tell whether an answer is what was wanted."""
    if want == "401":
        return (status, code) == (401, "token_invalid")
    if want == "hidden":
        return (status, code) in {(404, "not_found"), (403, "context_mismatch"), (403, "org_forbidden")}
    if want == "refused":
        return (status, code) in {(403, "forbidden"), (403, "org_forbidden")}
    return (status not in (401, 403) and status < 500) or code == "signature_invalid"


async def the_stage(world: World, http: aiohttp.ClientSession) -> Stage:
    """Make the group, the stranger, what they own, and everybody who calls."""
    root_admin = await world.person("root")
    root = await world.org(root_admin, "Matrix Group")
    own_admin = await world.person("admin")
    own = await world.child(root_admin, root, "Matrix Own")
    below = await world.child(root_admin, own, "Matrix Below")
    beside = await world.child(root_admin, root, "Matrix Beside")
    stage = Stage(world, http, own)
    await stage_things(stage, root_admin)
    await stage_actors(stage, root_admin, own_admin, root, below, beside)
    return stage


async def stage_things(stage: Stage, admin: Person) -> None:
    """Make one of each thing that a path may name."""
    world, own, staff = stage.world, stage.own, stage.world.staff
    api, operator, finance = world.api, staff.operator_token, staff.finance_token
    sku = await world.sku(f"matrix-{world.tag}")
    model = await world.model()
    plan = await world.plan(model, {sku: {"included_qty": "0", "overage_price": "1"}})
    await world.assign(own.org_id, model, plan)
    own.admin_token = await admin.token_for(own.org_id)
    org = f"/orgs/{own.org_id}"
    usage = event(own, sku, datetime.now(UTC).isoformat(), request_id=f"matrix-{world.tag}")
    await world.send(own, [usage, {**usage, "request_id": "bad", "quantity": "x"}])
    entry = await wait_for(lambda: first_of(stage, f"/ledger/entries?org_id={own.org_id}"), "an entry")
    invitation = await api.post(f"{org}/invitations", {"email": "x@example.net"}, token=own.admin_token)
    key = await api.post(f"{org}/api-keys", {"name": "k", "scopes": ["metering:read"]}, token=own.admin_token)
    claim = await api.post(
        "/verify/claims",
        {"org_id": own.org_id, "domain": f"{world.tag}.example.com"},
        token=own.admin_token,
    )
    letter = await wait_for(
        lambda: first_of(stage, f"/metering/dead-letters?org_id={own.org_id}"), "a letter"
    )
    budget = await api.post(
        "/pricing/budgets",
        {"org_id": own.org_id, "amount": "1000.00", "currency": "AUD", "thresholds": [50], "hard_cap": False},
        token=own.admin_token,
    )
    hold = await api.post(
        "/pricing/authorize",
        {"org_id": own.org_id, "sku": sku, "quantity": "1", "request_id": "m", "hold": True, "hold_ttl": 900},
        token=own.admin_token,
    )
    account = await api.post(
        "/billing-accounts",
        {"owner_org_id": own.org_id, "name": "M", "currency": "AUD"},
        token=own.admin_token,
    )
    partner = await api.post(
        "/partners",
        {"name": "M", "tier": "gold", "payout_provider": "sandbox", "destination": "acct"},
        token=finance,
    )
    por = await api.post(
        "/partner-of-record",
        {"org_id": own.org_id, "partner_id": partner["partner_id"], "start_at": "2026-01-01T00:00:00Z"},
        token=finance,
    )
    replay = await api.post(
        "/metering/replays",
        {"org_id": own.org_id, "from": "2026-01-01T00:00:00Z", "to": "2026-01-02T00:00:00Z"},
        token=operator,
    )
    stage.things |= {
        "org_id": own.org_id, "ancestor_org_id": own.org_id, "project_id": own.project_id, "sku": sku,
        "request_id": usage["request_id"], "charge_id": entry["charge_id"], "entry_id": entry["entry_id"],
        "invitation_id": invitation["invitation_id"], "key_id": key["key_id"], "claim_id": claim["claim_id"],
        "dead_letter_id": letter["dead_letter_id"], "budget_id": budget["budget_id"], "plan_id": plan,
        "model_id": model, "billing_account_id": account["billing_account_id"], "partner_id": partner["partner_id"],
        "por_id": por["por_id"], "hold_id": hold["hold_id"], "replay_id": replay["replay_id"], "period": "2026-01",
        "start": "2026-11-01T00:00:00Z", "end": "2026-11-02T00:00:00Z", "from": "2026-11-01T00:00:00Z",
        "to": "2026-11-02T00:00:00Z",
    }  # fmt: skip


async def first_of(stage: Stage, path: str) -> Json | None:
    """Give the first item of a list, None while there is none."""
    try:
        items = (await stage.world.api.get(path, token=stage.own.admin_token))["items"]
    except ApiProblem:
        return None
    return dict(items[0]) if items else None


async def stage_actors(
    stage: Stage, root_admin: Person, own_admin: Person, root: Member, below: Member, beside: Member
) -> None:
    """Make everybody who calls."""
    world, own, staff = stage.world, stage.own, stage.world.staff
    add = stage.actors.append
    add(Actor("nobody", ""))
    add(Actor("a made-up token", "eyJhbGciOiJub25lIn0.e30."))
    stranger_admin = await world.person("stranger")
    stranger = await world.org(stranger_admin, "Matrix Stranger")
    signed_in = frozenset({"signed_in"})
    add(Actor("another tenant's Admin", stranger.admin_token, anywhere=signed_in))
    user = await join(world, stranger, "User")
    add(Actor("another tenant's User", await user.token_for(stranger.org_id), anywhere=signed_in))
    loner = await world.person("loner")
    add(Actor("signed in, no organisation", loner.access_token, anywhere=signed_in))
    for role in ("User", "Admin"):
        person = own_admin if role == "Admin" else await world.person("user")
        await join(world, own, role, person)
        names = frozenset({role, "signed_in"})
        add(Actor(f"own {role}", await person.token_for(own.org_id), names, names))
    for place, org in (("above", root), ("beside", beside), ("below", below)):
        for role in ("GroupAdmin", "GroupBilling", "GroupSupport"):
            person = await join(world, org, "User")
            await world.api.post(
                f"/groups/{org.org_id}/roles",
                {"user_id": person.user_id, "role": role},
                token=await root_admin.token_for(org.org_id),
            )
            names = frozenset({role, "signed_in"} if place == "above" else ())
            token = await person.token_for(org.org_id)
            add(Actor(f"{role} {place}", token, names, frozenset({role, "signed_in"})))
    for role in sorted(PLATFORM_ROLES):
        names = frozenset({role, "signed_in"})
        add(Actor(role, getattr(staff, f"{role.lower()}_token"), names, names))
    add(Actor("trusted system", staff.service_token, frozenset({"service"}), frozenset({"service"})))
    await add_keys(stage, root_admin, root, beside)
    await add_assists(stage, root_admin)


async def join(world: World, org: Member, role: str, person: Person | None = None) -> Person:
    """Invite somebody into an organisation and let them accept."""
    person = person or await world.person("member")
    await world.api.post(
        f"/orgs/{org.org_id}/invitations", {"email": person.email, "role": role}, token=org.admin_token
    )
    mail = await wait_for(lambda: _now(world.mailbox.newest("invitation", person.email)), "an invitation")
    await world.api.post("/invitations:accept", {"token": mail["X-EB-Token"]}, token=person.access_token)
    return person


async def _now(value: Any) -> Any:
    return value


async def add_keys(stage: Stage, admin: Person, root: Member, beside: Member) -> None:
    """Make keys with and without scopes, of the organisation, of the one above with and without :tree, and beside."""

    async def key(org: Member, *scopes: str) -> str:
        token = await admin.token_for(org.org_id)
        made = await stage.world.api.post(
            f"/orgs/{org.org_id}/api-keys", {"name": "m", "scopes": list(scopes)}, token=token
        )
        return str(made["key"])

    every = frozenset(f"key:{scope}" for scope in SCOPES)
    trees = tuple(f"{scope}:tree" for scope in SCOPES)
    none = frozenset({"key:none"})
    add = stage.actors.append
    add(Actor("key with every scope", await key(stage.own, *SCOPES), every | none, every))
    one = frozenset({"key:catalog:read"})
    add(Actor("key with one scope", await key(stage.own, "catalog:read"), one | none, one))
    other = frozenset({"key:ledger:read"})
    add(Actor("key with another scope", await key(stage.own, "ledger:read"), other | none, other))
    add(Actor("key of above, :tree", await key(root, *trees), every | none, every))
    add(Actor("key of above, own scopes only", await key(root, *SCOPES), frozenset(), every))
    add(Actor("key of beside, :tree", await key(beside, *trees), frozenset(), every))


async def add_assists(stage: Stage, admin: Person) -> None:
    """Make platform support inside the organisation, reading and writing."""
    api, staff = stage.world.api, stage.world.staff
    for mode, role in (("read_only", "assist_ro"), ("read_write", "assist_rw")):
        body = {
            "org_id": stage.own.org_id, "purpose": "billing_query", "reason": "looking at the matrix", "mode": mode,
            "ttl_minutes": 60,
        }  # fmt: skip
        made = await api.post("/assist-sessions", body, token=staff.support_token)
        stage.things.setdefault("assist_session_id", made["assist_session_id"])
        names = frozenset({role})
        stage.actors.append(Actor(f"assist, {mode}", made["access_token"], names, names))


@pytest.fixture(scope="module")
async def staged(stack: Any) -> AsyncIterator[Stage]:
    from eb_tools.client import Api

    forge = await a_forge(stack)
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=40)) as http:
        stage = await the_stage(World.at(Api(stack.staff.gateway_url, http), stack.staff), http)
        stage.actors += [
            Actor("an Operator whose token has expired", forge.signed(exp=time.time() - 1)),
            Actor("an Operator with a token for somebody else", forge.signed(aud="somebody-else")),
        ]
        yield stage


@pytest.mark.timeout(600)
async def test_every_cell_of_the_matrix(staged: Stage) -> None:
    started, cells, wrong = time.monotonic(), 0, []
    for route in ROUTES:
        if route.name in ABOUT_SEVERAL | OWN_THINGS:
            continue
        wanted = sorted(
            ((expected(route, actor), actor) for actor in staged.actors), key=lambda pair: pair[0] == "passes"
        )
        for want, actor in wanted:
            status, code = await staged.ask(route, actor.token)
            cells += 1
            if not is_as(want, status, code):
                wrong.append(f"{route.name} by {actor.name}: {want}, but {status} {code}")
    print(f"{cells} cells in {time.monotonic() - started:.0f} s")
    assert cells > 2_000
    assert not wrong, "\n".join(wrong)
