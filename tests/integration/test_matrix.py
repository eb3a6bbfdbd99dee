"""Every route × every kind of caller, from the policy file: who is refused, and how; who is let through.

One group of organisations and a stranger; each route is called about the organisation in the middle, first by those
who may not. A caller without any right there must not learn that it exists (404); one who sees it, but may not
(403). For the allowed it only matters that they pass: what they ask for may well be refused for other reasons. What
each is to get says eb_tools.matrix, from which docs/shards/04-auth-rbac.md shows it.
"""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import AsyncIterator, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote, urlencode

import aiohttp
import jwt
import pytest
from forging import a_forge
from pydantic import TypeAdapter
from samples import body_of, sample_of
from yarl import URL

from eb_contracts.ids import new_id
from eb_kit.policy import GROUP_ROLES, PLATFORM_ROLES
from eb_kit.routing import Route
from eb_tools import rbac
from eb_tools.client import Api, ApiProblem, Json, Person, wait_for
from eb_tools.matrix import ACTORS, SCOPES, Trial, Want, trials
from eb_tools.openapi import all_routes
from eb_tools.world import Member, World, event

ROUTES = {route.name: route for route in all_routes()}
AT_ONCE = 12
DETACH = "POST /orgs/{org_id}:detach"
LEAVE = "DELETE /orgs/{org_id}/members/{user_id}"
ACCEPT = "POST /invitations:accept"
SIGN_OUT = "DELETE /auth/sessions/{session_id}"
LAST = ((DETACH, ""), (ACCEPT, "one's own"), (LEAVE, "oneself"), (SIGN_OUT, "one's own"))
"""What takes away what the others need: in this order, after everything else."""


@dataclass
class Stage:
    """Everything a route can be called about, and everybody who calls: their tokens by name, people as themselves."""

    world: World
    http: aiohttp.ClientSession
    own: Member
    root: Member
    things: dict[str, str] = field(default_factory=dict)
    about: dict[tuple[str, str], dict[str, str]] = field(default_factory=dict)
    tokens: dict[str, str] = field(default_factory=dict)
    people: dict[str, Person] = field(default_factory=dict)
    own_things: dict[str, dict[str, str]] = field(default_factory=dict)

    async def ask(self, trial: Trial, actor: str) -> tuple[int, str]:
        """Call a route as somebody, about what the trial is about; give status and code."""
        route, token = ROUTES[trial.route], self.tokens[actor]
        things = self.things | self.about.get((trial.route, trial.about), {})
        if trial.about in ("one's own", "oneself"):
            things |= self.own_things.get(actor, {})
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        if route.idempotency == "required":
            headers["Idempotency-Key"] = str(new_id())
        body = self._body(route, things)
        if body is not None:
            headers["Content-Type"] = route.media_types[0] if route.media_types else "application/json"
        path = re.sub(r"\{(\w+)\}", lambda m: quote(things.get(m[1], str(new_id())), safe=""), route.path)
        url = URL(self.world.staff.gateway_url + path + _query(route, things), encoded=True)
        async with self.http.request(
            route.method, url, data=body, headers=headers, allow_redirects=False
        ) as answer:
            raw = await answer.read()
            is_problem = answer.content_type == "application/problem+json"
            return answer.status, str(json.loads(raw)["code"]) if is_problem else ""

    def _body(self, route: Route, things: Mapping[str, str]) -> bytes | None:
        if route.raw_body and route.body is None:
            return b"{}"
        if route.body is None:
            return None
        body = SPECIAL.get(route.name) or body_of(route, self.own.org_id)
        text = json.dumps(body)
        return re.sub(r'"@(\w+)"', lambda m: json.dumps(things[m[1]]), text).encode()


def _query(route: Route, things: Mapping[str, str]) -> str:
    if route.query is None:
        return ""
    schema = TypeAdapter(route.query).json_schema()
    properties = schema.get("properties", {})
    wanted = {"org_id"} & set(properties) | set(schema.get("required", ()))
    values = {name: things.get(name) or sample_of(properties[name], schema) for name in wanted}
    return "?" + urlencode(values)


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
    "POST /orgs/{org_id}:move": {"parent_org_id": "@below"},
    ACCEPT: {"token": "@invitation"},
    "POST /metering/dead-letters:replay": {"filter": {"org_id": "@org_id"}},
    "POST /partner-of-record": {
        "org_id": "@org_id", "partner_id": str(new_id()), "start_at": "2026-01-01T00:00:00Z",
    },
}  # fmt: skip
"""Bodies that a shape alone doesn't tell. Where they mustn't do anything they are wrong behind the door."""


DOORS_OWN = frozenset({"signature_invalid", "code_invalid", "refresh_token_invalid", "oidc_refused"})
"""401 that an open door says by itself."""


def is_as(want: Want, status: int, code: str) -> bool:
    """Tell whether an answer is what was wanted."""
    if want == "401":
        return (status, code) == (401, "token_invalid")
    if want == "hidden":
        return (status, code) in {(404, "not_found"), (403, "context_mismatch"), (403, "org_forbidden")}
    if want == "refused":
        return (status, code) in {(403, "forbidden"), (403, "org_forbidden")}
    return (status not in (401, 403) and status < 500) or code in DOORS_OWN


async def the_stage(world: World, http: aiohttp.ClientSession) -> Stage:
    """Make the group, the stranger, what they own, and everybody who calls."""
    names = [actor.name for actor in ACTORS if actor.is_person] + ["root", "stranger", "bystander"]
    people = dict(zip(names, await asyncio.gather(*(world.person("matrix") for _ in names)), strict=True))
    admin = people.pop("root")
    root = await world.org(admin, "Matrix Group")
    stranger = await world.org(people.pop("stranger"), "Matrix Stranger")
    own = await world.org(admin, "Matrix Own")
    stage = Stage(world, http, own, root, people=people)
    await stage_link(stage, stranger)
    below, beside, spare = [
        await world.child(admin, parent, f"Matrix {name}")
        for name, parent in (("Below", own), ("Beside", root), ("Spare", root))
    ]
    stage.things["below"] = below.org_id
    for org in (root, own):
        org.admin_token = await admin.token_for(org.org_id)
    await stage_things(stage, admin)
    await stage_people(stage, {"own": own, "above": root, "beside": beside, "below": below, "": stranger})
    await stage_keys(stage, admin, root, beside)
    await stage_own_things(stage, spare)
    await stage_assists(stage)
    return stage


async def stage_link(stage: Stage, stranger: Member) -> None:
    """Have a stranger ask for the organisation while it is a root, then hang it below its group."""
    api, own = stage.world.api, {"link_org_id": stage.own.org_id}
    asked = await api.post(f"/orgs/{stranger.org_id}/children", own, token=stranger.admin_token)
    stage.things["org_link_id"] = asked["org_link_id"]
    await hang(stage)


async def hang(stage: Stage) -> None:
    """Hang the organisation below its group."""
    path, body = f"/orgs/{stage.root.org_id}/children", {"link_org_id": stage.own.org_id}
    await stage.world.api.post(path, body, token=stage.root.admin_token)


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


async def stage_people(stage: Stage, orgs: Mapping[str, Member]) -> None:
    """Let everybody join where they belong, and give them their roles and tokens."""
    staff, tokens = stage.world.staff, stage.tokens
    tokens |= {"nobody": "", "a made-up token": "eyJhbGciOiJub25lIn0.e30."}
    where = {
        "another tenant's User": ("", "User"),
        "another tenant's Admin": ("", "Admin"),
        "own User": ("own", "User"),
        "own Admin": ("own", "Admin"),
        "Admin above": ("above", "Admin"),
        "bystander": ("own", "User"),
    }
    in_groups = [(role, place) for role in sorted(GROUP_ROLES) for place in ("above", "beside", "below")]
    where |= {f"{role} {place}": (place, "User") for role, place in in_groups}
    await asyncio.gather(
        *(join(stage.world, orgs[place], role, stage.people[name]) for name, (place, role) in where.items())
    )
    for role, place in in_groups:
        org, person = orgs[place], stage.people[f"{role} {place}"]
        body = {"user_id": person.user_id, "role": role}
        await stage.world.api.post(f"/groups/{org.org_id}/roles", body, token=org.admin_token)
    for name, (place, _) in where.items():
        tokens[name] = await stage.people[name].token_for(orgs[place].org_id)
    loner = "signed in, no organisation"
    tokens[loner] = stage.people[loner].access_token
    tokens |= {role: getattr(staff, f"{role.lower()}_token") for role in PLATFORM_ROLES}
    tokens["trusted system"] = staff.service_token


async def join(world: World, org: Member, role: str, person: Person) -> None:
    """Invite somebody into an organisation and let them accept."""
    token = await invited(world, org, role, person)
    await world.api.post("/invitations:accept", {"token": token}, token=person.access_token)


async def invited(world: World, org: Member, role: str, person: Person) -> str:
    """Invite somebody into an organisation; give the token that the mail brings."""
    body = {"email": person.email, "role": role}
    await world.api.post(f"/orgs/{org.org_id}/invitations", body, token=org.admin_token)
    mail = await wait_for(lambda: _now(world.mailbox.newest("invitation", person.email)), "an invitation")
    return str(mail["X-EB-Token"])


async def _now(value: Any) -> Any:
    return value


async def stage_keys(stage: Stage, admin: Person, root: Member, beside: Member) -> None:
    """Make keys with and without scopes, of the organisation, of the one above with and without :tree, and beside."""
    trees = tuple(f"{scope}:tree" for scope in SCOPES)
    for name, org, scopes in (
        ("key with every scope", stage.own, SCOPES),
        ("key with catalog:read", stage.own, ("catalog:read",)),
        ("key with ledger:read", stage.own, ("ledger:read",)),
        ("key of above, :tree", root, trees),
        ("key of above, without", root, SCOPES),
        ("key of beside, :tree", beside, trees),
    ):
        body = {"name": "m", "scopes": list(scopes)}
        token = await admin.token_for(org.org_id)
        made = await stage.world.api.post(f"/orgs/{org.org_id}/api-keys", body, token=token)
        stage.tokens[name] = made["key"]


async def stage_own_things(stage: Stage, spare: Member) -> None:
    """Note whose session and membership is whose, and invite everybody once more, into an organisation of no use."""
    invitations = await asyncio.gather(
        *(invited(stage.world, spare, "User", person) for person in stage.people.values())
    )
    for (name, person), invitation in zip(stage.people.items(), invitations, strict=True):
        claims = jwt.decode(person.access_token, options={"verify_signature": False})
        stage.own_things[name] = {
            "session_id": claims["sid"],
            "user_id": person.user_id,
            "invitation": invitation,
        }
    bystander = stage.own_things.pop("bystander")
    stage.things["invitation"] = bystander["invitation"]
    stage.about[SIGN_OUT, "another's"] = stage.about[LEAVE, "another"] = bystander


async def stage_assists(stage: Stage) -> None:
    """Make platform support inside the organisation, reading and writing, and sessions to be ended."""
    end = "POST /assist-sessions/{assist_session_id}:end"
    for mode, begun_by, name, about in (
        ("read_only", "Support", "assist, ro", ""),
        ("read_write", "Support", "assist, rw", ""),
        ("read_only", "Support", "", "begun by Support"),
        ("read_only", "GroupSupport above", "", "begun by GroupSupport above"),
    ):
        body = {
            "org_id": stage.own.org_id, "purpose": "billing_query", "reason": f"the matrix {name or about}",
            "mode": mode, "ttl_minutes": 60,
        }  # fmt: skip
        made = await stage.world.api.post("/assist-sessions", body, token=stage.tokens[begun_by])
        this = {"assist_session_id": made["assist_session_id"]}
        if name:
            stage.tokens[name] = made["access_token"]
            stage.things |= this
        else:
            stage.about[end, about] = this


@pytest.fixture(scope="module")
async def staged(stack: Any) -> AsyncIterator[Stage]:
    forge = await a_forge(stack)
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=40)) as http:
        stage = await the_stage(World.at(Api(stack.staff.gateway_url, http), stack.staff), http)
        stage.tokens |= {
            "an Operator, expired": forge.signed(exp=time.time() - 1),
            "an Operator, for somebody else": forge.signed(aud="somebody-else"),
        }
        yield stage


@dataclass
class Seen:
    """The cells that were tried, and which were not as wanted."""

    stage: Stage
    cells: set[tuple[str, str, str]] = field(default_factory=set)
    wrong: list[str] = field(default_factory=list)
    doors: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(AT_ONCE))

    async def try_all(self, cells: Iterable[tuple[Trial, str]]) -> None:
        """Try cells, some at once."""
        await asyncio.gather(*(self._try(trial, actor) for trial, actor in cells))

    async def _try(self, trial: Trial, actor: str) -> None:
        want = trial.wants[actor]
        assert want is not None
        async with self.doors:
            status, code = await self.stage.ask(trial, actor)
        self.cells.add((trial.route, trial.about, actor))
        if not is_as(want, status, code):
            self.wrong.append(f"{trial.title} by {actor}: {want}, but {status} {code}")


def cells_of(some: Iterable[Trial], *, passing: bool) -> list[tuple[Trial, str]]:
    """Give the cells of those who may, or of those who may not."""
    return [
        (trial, actor)
        for trial in some
        for actor, want in trial.wants.items()
        if want is not None and (want == "passes") == passing
    ]


async def try_last(seen: Seen, some: Mapping[tuple[str, str], Trial]) -> None:
    """Try what takes away what the others need: the place in the group, invitations, memberships, sessions."""
    stage = seen.stage
    for key in LAST:
        trial = some[key]
        await seen.try_all(cells_of([trial], passing=False))
        for cell in cells_of([trial], passing=True):
            await seen.try_all([cell])
            if trial.route == DETACH:
                await hang(stage)
        if trial.route == DETACH:
            await wait_for(lambda: sees(stage, "GroupAdmin above"), "the organisation in its group again")
        if trial.route == LEAVE:
            for name in ("own User", "own Admin"):
                stage.tokens[name] = await stage.people[name].token_for()


async def sees(stage: Stage, actor: str) -> bool:
    """Tell whether somebody sees the organisation."""
    try:
        await stage.world.api.get(f"/orgs/{stage.own.org_id}", token=stage.tokens[actor])
    except ApiProblem:
        return False
    return True


@pytest.mark.timeout(600)
async def test_every_cell_of_the_matrix(staged: Stage) -> None:
    started, seen = time.monotonic(), Seen(staged)
    every = {(trial.route, trial.about): trial for trial in trials()}
    first = [trial for key, trial in every.items() if key not in LAST]
    await seen.try_all(cells_of(first, passing=False))
    for trial in first:
        await seen.try_all(cells_of([trial], passing=True))
    await try_last(seen, every)

    print(f"{len(seen.cells)} cells in {time.monotonic() - started:.0f} s")
    assert not seen.wrong, "\n".join(sorted(seen.wrong))
    wanted = {
        (*key, actor)
        for key, trial in every.items()
        for actor, want in trial.wants.items()
        if want is not None
    }
    assert seen.cells == wanted


def test_the_page_shows_each_route_and_each_caller_that_is_tried() -> None:
    shown = rbac.PAGE.read_text()
    rows = [rbac.row_of_cells(trial) for trial in trials()]
    assert {trial.route for trial in trials()} == ROUTES.keys()
    assert [row for row in rows if f"\n{row}\n" not in shown] == []
    assert all(f"\n{number}. {actor.name}\n" in shown for number, actor in enumerate(ACTORS, 1))
