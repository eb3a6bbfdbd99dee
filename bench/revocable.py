"""Credentials of every kind that can be revoked, and what revokes each: made in quantity, revoked by the real doors.

People, memberships and sessions are made by the database's owner (sign-ups take a mail each); what takes a right away
is always the public API or the command that does it in production.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

from eb_auth.domain.tokens import Grant
from eb_auth.flows.signing import access_token
from eb_auth.flows.signing_in import Device, new_session
from eb_auth.store import members, sessions, sign_in
from eb_kit.service import ServiceContext
from eb_tools import identity
from eb_tools.client import Api, ApiProblem, Json
from eb_tools.files import read_json
from eb_tools.layout import Layout
from eb_tools.world import KEY_SCOPES, World

LONG = timedelta(hours=1)
SKU = "revocable"
AGED_S = 11.0
"""Ids older than ten seconds aren't waited for any more: what is gone is refused at once."""


@dataclass(frozen=True, slots=True)
class Ask:
    """A request that a credential may make; `is_route` False: no route there takes the kind, it is only recognised."""

    method: str
    path: str
    body: Json | None = None
    is_route: bool = True


Asks = Mapping[str, Ask]


@dataclass(frozen=True)
class Revocable:
    """A credential, what it asks each service, what takes it away, and how it is refused then."""

    credential: str
    asks: Asks
    revoke: Callable[[], Awaitable[object]]
    refused: tuple[int, str] = (401, "token_invalid")


def asks(**changed: Ask) -> dict[str, Ask]:
    """Give a request for each service that needs no more than to be recognised, but for those named here."""
    plain = {
        "auth": Ask("GET", "/auth/me", is_route=False),
        "domain-verify": Ask("GET", f"/verify/claims/{uuid4()}", is_route=False),
        "catalog": Ask("GET", "/catalog/skus?limit=1", is_route=False),
        "metering-ingest": Ask("GET", f"/metering/events/x?org_id={uuid4()}", is_route=False),
        "pricing": Ask("GET", f"/pricing/charges/x/explain?org_id={uuid4()}", is_route=False),
        "ledger": Ask("GET", "/partners?limit=1", is_route=False),
        "estimator": Ask("POST", "/pricing/estimate", is_route=False),
    }
    return plain | {name.replace("_", "-"): ask for name, ask in changed.items()}


def about(org_id: str, **changed: Ask) -> dict[str, Ask]:
    """Give a request about an organisation that a User may make, for each service."""
    of = f"org_id={org_id}"
    members_may = {
        "auth": Ask("GET", f"/orgs/{org_id}"),
        "domain_verify": Ask("GET", f"/verify/claims?{of}"),
        "catalog": Ask("GET", f"/catalog/orgs/{org_id}/entitlements"),
        "metering_ingest": Ask("GET", f"/metering/events?{of}"),
        "pricing": Ask("GET", f"/pricing/usage?{of}"),
        "ledger": Ask("GET", f"/ledger/balances?{of}", is_route=False),
        "estimator": Ask("POST", "/pricing/estimate", {"org_id": org_id, "skus": {SKU: "1"}, "leads": 1}),
    }
    return asks(**(members_may | changed))


class PatientApi(Api):
    """Asks again while a service that has just started waits to hear what was revoked."""

    async def call(self, method: str, path: str, body: object = None, **kwargs: Any) -> Any:
        """Send a request, again for 20 s as long as the answer is 503; raises ApiProblem."""
        until = time.monotonic() + 20
        while True:
            try:
                return await super().call(method, path, body, **kwargs)
            except ApiProblem as problem:
                if problem.status != 503 or time.monotonic() > until:
                    raise
            await asyncio.sleep(0.5)


@dataclass
class Maker:
    """Makes revocable credentials on a running platform: an organisation, its child, and who rules them."""

    world: World
    owner: ServiceContext
    dsn: str
    env: Mapping[str, str]
    boss: str = ""
    org: str = ""
    child: str = ""
    model: str = ""
    plan: str = ""
    lets_age: bool = True

    async def found(self) -> None:
        """Found the organisations, with an Admin whose token lasts."""
        admin = await self.world.person("boss")
        self.org = (await self.world.org(admin, f"Bench {secrets.token_hex(3)}")).org_id
        self.boss = await self.token(UUID(admin.user_id), UUID(self.org), ("Admin",), lifetime=LONG)
        self.model = await self.world.model()
        self.plan = await self.world.plan(
            self.model, {await self.world.sku(SKU): {"included_qty": "0", "overage_price": "0.1"}}
        )
        await self.world.assign(self.org, self.model, self.plan)
        self.child = await self.new_child()

    async def new_child(self) -> str:
        """Create an organisation below."""
        body = {"legal_name": "Below", "org_slug": f"below-{secrets.token_hex(6)}"}
        made = await self.world.api.post(f"/orgs/{self.org}/children", body, token=self.boss)
        await self.world.assign(made["org_id"], self.model, self.plan)
        return str(made["org_id"])

    async def token(
        self,
        user_id: UUID | None,
        org_id: UUID | None,
        roles: tuple[str, ...],
        *,
        lifetime: timedelta = timedelta(minutes=5),
    ) -> str:
        """Make a session of somebody (new, if None) with these roles, kept where the token says they come from."""
        return (await self.signed_in(user_id, org_id, roles, lifetime))[0]

    async def signed_in(
        self,
        user_id: UUID | None,
        org_id: UUID | None,
        roles: tuple[str, ...],
        lifetime: timedelta = timedelta(minutes=5),
    ) -> tuple[str, UUID, UUID]:
        """Make a session; give its token, its id and its user's."""
        async with self.owner.begin(identity.ACTOR) as tx:
            if user_id is None:
                user = await sign_in.insert_user_once(tx, f"bench-{secrets.token_hex(8)}@example.net")
                user_id = user.user_id
                await self._give(tx, org_id, user_id, roles)
            session = new_session(tx, user_id, org_id, Device("bench", "127.0.0.1"))
            await sessions.insert_session(tx, session)
            grant = Grant(user_id, session.session_id, org_id, roles, tx.now)
            return await access_token(tx, grant, lifetime), session.session_id, user_id

    async def _give(
        self, tx: identity.Tx, org_id: UUID | None, user_id: UUID, roles: tuple[str, ...]
    ) -> None:
        for role in roles:
            if org_id is None:
                await members.insert_platform_role_once(tx, user_id, role)
            elif role.startswith("Group"):
                await tx.announce(await members.update_group_role(tx, org_id, user_id, role))
            else:
                await tx.announce(await members.insert_member(tx, org_id, user_id, role))

    def as_boss(self, method: str, path: str, body: Json | None = None) -> Callable[[], Awaitable[object]]:
        """Describe a request of the Admin's."""
        return lambda: self.world.api.call(method, path, body, token=self.boss)

    async def session(self) -> Revocable:
        """A session that the Operator ends."""
        token, session_id, _ = await self.signed_in(None, UUID(self.org), ("User",))
        operator = self.world.staff.operator_token
        return Revocable(
            token,
            about(self.org),
            lambda: self.world.api.call("DELETE", f"/auth/sessions/{session_id}", token=operator),
        )

    async def membership(self) -> Revocable:
        """A member who is removed."""
        token, _, user_id = await self.signed_in(None, UUID(self.org), ("User",))
        revoke = self.as_boss("DELETE", f"/orgs/{self.org}/members/{user_id}")
        return Revocable(token, about(self.org), revoke)

    async def role(self) -> Revocable:
        """An Admin who is made a User: what only Admins may ends."""
        token, _, user_id = await self.signed_in(None, UUID(self.org), ("Admin",))
        of = f"org_id={self.org}"
        claim = {"org_id": self.org, "domain": "com"}
        budget = {"org_id": self.org, "amount": "1", "currency": "XXX", "hard_cap": False}
        admins_may = about(
            self.org,
            auth=Ask("GET", f"/orgs/{self.org}/api-keys"),
            domain_verify=Ask("POST", "/verify/claims", claim),
            catalog=Ask("GET", f"/catalog/orgs/{self.org}/entitlements", is_route=False),
            metering_ingest=Ask("GET", f"/metering/dead-letters?{of}"),
            pricing=Ask("POST", "/pricing/budgets", budget),
            ledger=Ask("GET", f"/ledger/balances?{of}"),
            estimator=Ask("POST", "/pricing/estimate", is_route=False),
        )
        revoke = self.as_boss("PATCH", f"/orgs/{self.org}/members/{user_id}", {"role": "User"})
        return Revocable(token, admins_may, revoke)

    async def group_role(self) -> Revocable:
        """A group role that is taken; it reached the organisation below."""
        token, _, user_id = await self.signed_in(None, UUID(self.org), ("User", "GroupBilling"))
        ledger = Ask("GET", f"/ledger/balances?org_id={self.child}")
        no_claims = Ask("GET", f"/verify/claims?org_id={self.child}")
        revoke = self.as_boss("DELETE", f"/groups/{self.org}/roles/{user_id}")
        return Revocable(token, about(self.child, ledger=ledger, domain_verify=no_claims), revoke)

    async def ancestor(self) -> Revocable:
        """An organisation that is detached: a group role above it reaches it no more."""
        child = await self.new_child()
        token = await self.token(None, UUID(self.org), ("User", "GroupBilling"), lifetime=LONG)
        ledger = Ask("GET", f"/ledger/balances?org_id={child}")
        revoke = self.as_boss("POST", f"/orgs/{child}:detach", {})
        return Revocable(token, about(child, ledger=ledger), revoke, (404, "not_found"))

    async def platform_role(self) -> Revocable:
        """A platform role that the command takes."""
        async with self.owner.begin(identity.ACTOR) as tx:
            user = await sign_in.insert_user_once(tx, f"staff-{secrets.token_hex(8)}@example.net")
            await members.insert_platform_role_once(tx, user.user_id, "Support")
        token = await self.token(user.user_id, None, ("Support",))
        ledger = Ask("GET", f"/ledger/balances?org_id={self.org}")
        return Revocable(
            token,
            about(self.org, ledger=ledger),
            lambda: identity.revoke_platform_role(self.dsn, user.email, "Support", self.env),
        )

    async def api_key(self) -> Revocable:
        """An API key that an Admin revokes."""
        body = {"name": "bench", "scopes": list(KEY_SCOPES)}
        made = await self.world.api.post(f"/orgs/{self.org}/api-keys", body, token=self.boss)
        ledger = Ask("GET", f"/ledger/balances?org_id={self.org}")
        taken = about(
            self.org,
            auth=Ask("GET", "/auth/me", is_route=False),
            domain_verify=Ask("GET", f"/verify/claims?org_id={self.org}", is_route=False),
            ledger=ledger,
        )
        revoke = self.as_boss("DELETE", f"/orgs/{self.org}/api-keys/{made['key_id']}")
        return Revocable(made["key"], taken, revoke)

    async def service_credential(self) -> Revocable:
        """A trusted system's credential that the command revokes."""
        key, text = await identity.create_service_credential(self.dsn, "bench", self.env)
        taken = asks(
            domain_verify=Ask("POST", "/verify/email-submit"),
            metering_ingest=Ask("GET", "/metering/provider-logs?limit=1"),
            pricing=Ask("POST", "/pricing/authorize", {}),
        )
        return Revocable(
            text,
            taken,
            lambda: identity.revoke_service_credential(self.dsn, key.key_id, self.env),
        )

    async def assist(self) -> Revocable:
        """An assist session that an Admin ends."""
        token, session_id, _ = await self._assist(self.world.staff.support_token)
        return Revocable(token, about(self.org), self.as_boss("POST", f"/assist-sessions/{session_id}:end"))

    async def helper(self) -> Revocable:
        """An assist session whose helper's own session ends."""
        own, session_id, _ = await self.signed_in(None, None, ("Support",))
        token, _, _ = await self._assist(own)
        operator = self.world.staff.operator_token
        return Revocable(
            token,
            about(self.org),
            lambda: self.world.api.call("DELETE", f"/auth/sessions/{session_id}", token=operator),
        )

    async def _assist(self, helper: str) -> tuple[str, str, str]:
        body = {
            "org_id": self.org,
            "purpose": "incident",
            "reason": "How soon does it end?",
            "ttl_minutes": 10,
        }
        made = await self.world.api.post("/assist-sessions", body, token=helper)
        return made["access_token"], made["assist_session_id"], made["expires_at"]

    async def some(self, kind: str, count: int) -> list[Revocable]:
        """Make so many of a kind, four at a time; they age until their ids aren't waited for any more."""
        gate, began = asyncio.Semaphore(4), time.monotonic()

        async def one() -> Revocable:
            async with gate:
                made: Revocable = await getattr(self, kind)()
                return made

        made = list(await asyncio.gather(*(one() for _ in range(count))))
        if kind == "ancestor" and self.lets_age:
            await asyncio.sleep(max(0.0, AGED_S - (time.monotonic() - began) / count))
        return made


KINDS = {
    "session": "session ended",
    "membership": "member removed",
    "role": "Admin made User",
    "group_role": "group role taken",
    "ancestor": "organisation detached from its group",
    "platform_role": "platform role taken (command)",
    "api_key": "API key revoked",
    "service_credential": "service credential revoked (command)",
    "assist": "assist session ended",
    "helper": "helper's own session ended",
}


@asynccontextmanager
async def maker_at(run_dir: Path, world: World) -> AsyncIterator[Maker]:
    """Stand ready with the owner's rights on the platform that runs in this folder."""
    layout = Layout(run_dir)
    secret = str(read_json(layout.secrets)["auth_seal"])
    env = {"EB_ENV": "local", "EB_AUTH_SECRET": secret, "EB_CLOCK_FILE": str(layout.clock)}
    dsn = str(read_json(layout.facts)["owner_dsn"])
    async with identity.owner_context(dsn, env) as owner:
        patient = replace(world, api=PatientApi(world.api.base_url, world.api.http))
        maker = Maker(patient, owner, dsn, env)
        await maker.found()
        yield maker
