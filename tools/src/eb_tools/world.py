"""A billing world to try things in: SKUs, a model, plans, a partner, organisations with projects and keys.

Made through the public API, by the staff of a local run and by people who sign up.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import aiohttp

from eb_contracts.ids import new_id

from .client import Api, ApiProblem, Credentials, Json, Mailbox, Person, sign_in

KEY_SCOPES = (
    "metering:write", "metering:read", "pricing:read", "pricing:estimate", "ledger:read", "catalog:read",
)  # fmt: skip


@dataclass
class Member:
    """An organisation of the world, with one project and one key."""

    org_id: str
    project_id: str
    api_key: str
    admin_token: str
    name: str = ""


@dataclass
class World:
    """The platform and its staff, and what was made so far."""

    api: Api
    staff: Credentials
    mailbox: Mailbox
    tag: str = field(default_factory=lambda: secrets.token_hex(4))

    @classmethod
    def at(cls, api: Api, staff: Credentials) -> World:
        """Stand in front of a running platform."""
        return cls(api, staff, Mailbox(staff.mailbox_dir))

    async def person(self, name: str = "ada") -> Person:
        """Sign up somebody new."""
        return await sign_in(self.api, self.mailbox, f"{name}-{self.tag}-{secrets.token_hex(3)}@example.net")

    async def sku(
        self, sku: str, *, kind: str = "action", retail: str = "0.10", tax_code: str | None = None
    ) -> str:
        """Define a SKU; give its name."""
        body: Json = {"type": kind, "unit": "each", "cost": "0.01", "retail": retail, "metadata": {}}
        if tax_code is not None:
            body["tax_code"] = tax_code
        await self.api.put(f"/catalog/skus/{sku}", body, token=self.staff.operator_token)
        return sku

    async def model(self, currency: str = "AUD") -> str:
        """Create a business model; give its id."""
        made = await self.api.post(
            "/catalog/business-models",
            {"code": f"model-{secrets.token_hex(4)}", "name": "Standard", "currency": currency},
            token=self.staff.operator_token,
        )
        return str(made["model_id"])

    async def plan(self, model_id: str, skus: Mapping[str, Json]) -> str:
        """Create and publish a plan with these SKUs' `{included_qty, overage_price, tiers}`; give its id."""
        token = self.staff.operator_token
        made = await self.api.post(
            "/catalog/plans",
            {"model_id": model_id, "name": f"Plan {secrets.token_hex(3)}", "tier": "standard"},
            token=token,
        )
        for sku, price in skus.items():
            await self.api.put(f"/catalog/plans/{made['plan_id']}/skus/{sku}", price, token=token)
        await self.api.post(f"/catalog/plans/{made['plan_id']}:publish", {}, token=token)
        return str(made["plan_id"])

    async def assign(self, org_id: str, model_id: str, plan_id: str, **more: Any) -> None:
        """Give an organisation its plan."""
        await self.api.put(
            f"/catalog/orgs/{org_id}/business-model",
            {"model_id": model_id, "plan_id": plan_id, **more},
            token=self.staff.operator_token,
        )

    async def org(self, admin: Person, name: str, *, zone: str = "Australia/Sydney") -> Member:
        """Create a root organisation with a project and a key."""
        made = await self.api.post("/orgs", _org_body(name, self.tag, zone), token=admin.access_token)
        return await self.equip(made["org_id"], await admin.token_for(made["org_id"]), name)

    async def child(
        self, admin: Person, parent: Member, name: str, *, zone: str = "Australia/Sydney"
    ) -> Member:
        """Create a child organisation with a project and a key."""
        made = await self.api.post(
            f"/orgs/{parent.org_id}/children", _org_body(name, self.tag, zone), token=parent.admin_token
        )
        return await self.equip(made["org_id"], await admin.token_for(made["org_id"]), name)

    async def equip(self, org_id: str, token: str, name: str) -> Member:
        """Give an organisation a project and a key."""
        project = await self.api.post(f"/orgs/{org_id}/projects", {"name": f"{name} site"}, token=token)
        key = await self.api.post(
            f"/orgs/{org_id}/api-keys", {"name": "demo", "scopes": list(KEY_SCOPES)}, token=token
        )
        return Member(org_id, project["project_id"], key["key"], token, name)

    async def partner(self, org_id: str, rates: Mapping[str, str], *, tier: str = "gold") -> str:
        """Create a partner of record for an organisation with these percentages per SKU; give its id."""
        token = self.staff.finance_token
        made = await self.api.post(
            "/partners",
            {
                "name": f"Partner {self.tag}",
                "tier": tier,
                "payout_provider": "sandbox",
                "destination": "acct_demo",
            },
            token=token,
        )
        for sku, pct in rates.items():
            await self.set_rate(tier, sku, pct)
        await self.api.post(
            "/partner-of-record",
            {"org_id": org_id, "partner_id": made["partner_id"], "start_at": "2026-01-01T00:00:00Z"},
            token=token,
        )
        return str(made["partner_id"])

    async def set_rate(self, tier: str, sku: str, pct: str) -> None:
        """Set a commission rate; the same one again is fine."""
        body = {"partner_tier": tier, "sku": sku, "pct": pct, "effective_at": "2026-01-01T00:00:00Z"}
        await self.api.put("/commission-rates", body, token=self.staff.finance_token)

    async def send(self, member: Member, events: Sequence[Json], size: int = 100) -> int:
        """Send events in batches with the organisation's key, again while the door is away; give their number."""
        for start in range(0, len(events), size):
            await self.send_batch(member.api_key, events[start : start + size])
        return len(events)

    async def send_batch(self, key: str, batch: Sequence[Json], *, tries: int = 100) -> Any:
        """Send one batch until it is accepted; the same ids make a repetition harmless."""
        for attempt in range(tries):
            try:
                return await self.api.post("/metering/events", list(batch), token=key)
            except ApiProblem as problem:
                if problem.status < 500 and problem.status != 429:
                    raise
                last: Exception = problem
            except (aiohttp.ClientError, TimeoutError, OSError) as error:
                last = error
            await asyncio.sleep(min(0.1 * (attempt + 1), 1.0))
        raise last


def event(member: Member, sku: str, time: str, quantity: str = "1", request_id: str | None = None) -> Json:
    """Make one usage event."""
    return {
        "request_id": request_id or str(new_id()),
        "sku": sku,
        "quantity": quantity,
        "org_id": member.org_id,
        "project_id": member.project_id,
        "time": time,
    }


def _org_body(name: str, tag: str, zone: str) -> Json:
    slug = f"{name.lower().replace(' ', '-')}-{tag}-{secrets.token_hex(2)}"
    return {
        "legal_name": name,
        "org_slug": slug,
        "billing_email": f"billing@{slug}.example",
        "default_timezone": zone,
    }
