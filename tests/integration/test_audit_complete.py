"""Every route that may change something is called once, through the gateway, under a trace of its own: it leaves one
audit entry for each audited row that it changed, or stands in the list of those that change none, with the reason.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import re
import time
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from eb_contracts.ids import new_id
from eb_tools import clock_cli, mail_demo
from eb_tools.client import Api, ApiProblem, Json, Person, wait_for
from eb_tools.layout import Layout
from eb_tools.names import NAMES, schema_of
from eb_tools.openapi import all_routes
from eb_tools.world import Member, World, event

ROUTES = {route.name: route for route in all_routes() if route.method != "GET"}
LEAVES: Mapping[str, tuple[str, ...]] = {
    "POST /auth/sessions": ("insert session",),
    "DELETE /auth/sessions/{session_id}": ("update session",),
    "POST /assist-sessions": ("insert assist_session",),
    "POST /assist-sessions/{assist_session_id}:approve": ("update assist_session",),
    "POST /assist-sessions/{assist_session_id}:decline": ("update assist_session",),
    "POST /assist-sessions/{assist_session_id}:end": ("update assist_session",),
    "POST /orgs/{org_id}/api-keys": ("insert api_key",),
    "DELETE /orgs/{org_id}/api-keys/{key_id}": ("update api_key",),
    "POST /groups/{ancestor_org_id}/roles": ("insert group_role_membership",),
    "DELETE /groups/{ancestor_org_id}/roles/{user_id}": ("delete group_role_membership",),
    "POST /org-links/{org_link_id}:accept": ("update org_link", "update organization"),
    "POST /org-links/{org_link_id}:decline": ("update org_link",),
    "POST /orgs/{org_id}:detach": ("update organization",),
    "POST /orgs/{org_id}:move": ("update organization",),
    "POST /orgs": ("insert membership", "insert organization"),
    "PATCH /orgs/{org_id}": ("update organization",),
    "POST /orgs/{org_id}/projects": ("insert project",),
    "PATCH /orgs/{org_id}/projects/{project_id}": ("update project",),
    "POST /orgs/{org_id}/children": ("insert membership", "insert organization"),
    "POST /orgs/{org_id}/invitations": ("insert invitation",),
    "DELETE /orgs/{org_id}/invitations/{invitation_id}": ("update invitation",),
    "POST /orgs/{org_id}/invitations/{invitation_id}:resend": ("update invitation",),
    "POST /invitations:accept": ("insert membership", "update invitation"),
    "PATCH /orgs/{org_id}/members/{user_id}": ("update membership",),
    "DELETE /orgs/{org_id}/members/{user_id}": ("delete membership",),
    "POST /verify/claims": ("insert domain_claim",),
    "DELETE /verify/claims/{claim_id}": ("update domain_claim",),
    "POST /verify/claims/{claim_id}:resend": ("update domain_claim",),
    "POST /verify/inbound/{provider}": ("update domain_claim",),
    "POST /verify/email-submit": ("update domain_claim",),
    "POST /catalog/business-models": ("insert business_model",),
    "PATCH /catalog/business-models/{model_id}": ("update business_model",),
    "PUT /catalog/orgs/{org_id}/business-model": ("insert org_business_model", "insert org_entitlement"),
    "PUT /catalog/orgs/{org_id}/entitlements/{plan_id}": ("update org_entitlement",),
    "PUT /catalog/skus/{sku}": ("insert product_sku",),
    "PUT /catalog/tax-rates": ("insert tax_rate",),
    "POST /catalog/plans": ("insert plan",),
    "PATCH /catalog/plans/{plan_id}": ("update plan",),
    "PUT /catalog/plans/{plan_id}/skus/{sku}": ("insert plan_sku",),
    "DELETE /catalog/plans/{plan_id}/skus/{sku}": ("delete plan_sku",),
    "POST /catalog/plans/{plan_id}:publish": ("update plan",),
    "POST /metering/events/{request_id}:void": ("update event_key",),
    "PATCH /metering/dead-letters/{dead_letter_id}": ("update dead_letter",),
    "POST /metering/dead-letters:replay": ("update dead_letter",),
    "POST /metering/replays": ("insert usage_replay",),
    "POST /metering/provider-logs": ("update provider_log",),
    "POST /metering/reconciliations": ("insert reconciliation",),
    "POST /metering/reconciliations/{reconciliation_id}:fill": ("update reconciliation",),
    "POST /pricing/holds/{hold_id}:release": ("update initiation",),
    "POST /billing/charges": ("insert charge",),
    "POST /pricing/budgets": ("insert budget",),
    "PUT /pricing/budgets/{budget_id}": ("update budget",),
    "DELETE /pricing/budgets/{budget_id}": ("delete budget",),
    "POST /pricing/rerate": ("insert rerate",),
    "POST /pricing/periods/{period}:close": ("update billing_period",),
    "POST /pricing/credits": ("insert credit",),
    "POST /billing-accounts": ("insert billing_account",),
    "POST /partners": ("insert partner", "insert partner_tier"),
    "PATCH /partners/{partner_id}": ("update partner",),
    "PUT /commission-rates": ("insert commission_rate",),
    "POST /partner-of-record": ("insert partner_of_record",),
    "POST /partner-of-record/{por_id}:end": ("update partner_of_record",),
}
"""What a call writes to audited tables of its service; of mails that come in, a moment later."""
NOTHING: Mapping[str, str] = {
    "POST /auth/login": "mails a code, to an address that may be nobody's; no right is given",
    "POST /auth/token": "a token of the session's own; that the session began and ended is noted",
    "POST /metering/events": "usage: each event is a row for ever, never changed, and so is its charge",
    "POST /pricing/authorize": "a machine's question with each action; its answer is a row, and no money moves",
    "POST /pricing/estimate": "computes",
}
CLOCK_READ_S = 0.3
"""Services read their clock again every 100 ms."""
FOLLOWS = {"insert billing_account"}
"""What another service does by itself about facts that it took together, in the trace of one of them."""
ENTRIES = " UNION ALL ".join(
    f"SELECT '{name}' AS service, trace_id, action || ' ' || entity AS change, entity_id"
    f" FROM {schema_of(name)}.audit_entry"
    for name in NAMES
)


@dataclass
class Caller:
    """Calls routes by their names, each under a trace of its own."""

    world: World
    traces: dict[str, str] = field(default_factory=dict)

    def headers(self, name: str) -> dict[str, str]:
        """Begin the trace of a route, which is called once."""
        assert name in ROUTES, name
        assert name not in self.traces, name
        self.traces[name] = trace = new_id().hex
        return {"traceparent": f"00-{trace}-{trace[:16]}-01"}

    async def do(
        self, name: str, body: object = None, *, token: str = "", query: Json | None = None, **ids: str
    ) -> Any:
        """Call a route with these ids in its path."""
        method, _, template = name.partition(" ")
        path = re.sub(r"\{(\w+)\}", lambda m: ids[m[1]], template)
        headers = self.headers(name)
        if ROUTES[name].idempotency == "required":
            headers["Idempotency-Key"] = str(new_id())
        return await self.world.api.call(method, path, body, token=token, query=query, headers=headers)

    async def send(self, name: str, path: str, data: bytes, headers: Mapping[str, str]) -> Any:
        """Call a route with raw bytes."""
        url = self.world.api.base_url + path
        async with self.world.api.http.post(
            url, data=data, headers={**headers, **self.headers(name)}
        ) as answer:
            assert answer.status < 300, (name, await answer.text())
            return await answer.json()


def test_every_changing_route_is_in_one_table() -> None:
    named = Counter([*LEAVES, *NOTHING])
    assert ROUTES.keys() == named.keys()
    assert set(named.values()) == {1}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def told(stack: Any) -> AsyncIterator[dict[str, str]]:
    """Call everything once; give the trace of each route."""
    import aiohttp

    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=40)) as http:
        caller = Caller(World.at(Api(stack.staff.gateway_url, http), stack.staff))
        admin = await sign_in_and_out(caller)
        own = await found(caller, admin)
        await people(caller, admin, own)
        await tree(caller, admin)
        await assist(caller, admin, own)
        await claims(caller, own, stack.run_dir)
        sku = await catalog(caller, own)
        await usage(caller, own, sku)
        await money(caller, own, sku)
        await partners(caller, own, sku)
        await a_month_later(caller, own, stack.run_dir)
        yield caller.traces


async def sign_in_and_out(call: Caller) -> Person:
    """Sign in by a code, refresh, and end another session."""
    world = call.world
    address = f"audited-{world.tag}@example.net"
    await call.do("POST /auth/login", {"email": address})
    mail = await mail_to(world, "login_code", address)
    made = await call.do("POST /auth/sessions", {"email": address, "code": mail["X-EB-Code"]})
    body = {"grant_type": "refresh_token", "refresh_token": made["refresh_token"]}
    fresh = await call.do("POST /auth/token", body)
    other = await world.person("other")
    session = (await world.api.get("/auth/sessions", token=other.access_token))["items"][0]["session_id"]
    await call.do("DELETE /auth/sessions/{session_id}", token=other.access_token, session_id=session)
    return Person(world.api, address, made["user_id"], fresh["refresh_token"], fresh["access_token"])


async def mail_to(world: World, kind: str, address: str) -> Any:
    """Wait for a mail of this kind."""

    async def look() -> Any:
        return world.mailbox.newest(kind, address)

    return await wait_for(look, f"{kind} for {address}")


def an_org(call: Caller, name: str) -> Json:
    """Describe an organisation."""
    return {"legal_name": name, "org_slug": f"{name.lower()}-{call.world.tag}-{new_id().hex[-8:]}"}


async def found(call: Caller, admin: Person) -> Member:
    """Found an organisation with a child, projects and keys."""
    org = (await call.do("POST /orgs", an_org(call, "Audited"), token=admin.access_token))["org_id"]
    token = await admin.token_for(org)
    child = await call.do("POST /orgs/{org_id}/children", an_org(call, "Below"), token=token, org_id=org)
    await call.do("PATCH /orgs/{org_id}", {"legal_name": "Audited Ltd"}, token=token, org_id=org)
    project = await call.do("POST /orgs/{org_id}/projects", {"name": "Site"}, token=token, org_id=org)
    await call.do(
        "PATCH /orgs/{org_id}/projects/{project_id}",
        {"name": "The site"},
        token=token,
        org_id=org,
        project_id=project["project_id"],
    )
    body = {"name": "k", "scopes": ["metering:write", "metering:read"]}
    spare = await call.do("POST /orgs/{org_id}/api-keys", body, token=token, org_id=org)
    kept = await call.world.api.post(f"/orgs/{org}/api-keys", body, token=token)
    await call.do("DELETE /orgs/{org_id}/api-keys/{key_id}", token=token, org_id=org, key_id=spare["key_id"])
    other = await call.world.api.post("/orgs", an_org(call, "Beside"), token=admin.access_token)
    below = {"token": await admin.token_for(child["org_id"]), "org_id": child["org_id"]}
    await call.do("POST /orgs/{org_id}:move", {"parent_org_id": other["org_id"]}, **below)
    return Member(org, project["project_id"], kept["key"], await admin.token_for(org))


async def people(call: Caller, admin: Person, own: Member) -> None:
    """Invite, join, give and take roles, leave."""
    token, org = own.admin_token, {"org_id": own.org_id}
    bob = await call.world.person("bob")
    path = "/orgs/{org_id}/invitations"
    invited = await call.do(f"POST {path}", {"email": bob.email}, token=token, **org)
    await mail_to(call.world, "invitation", bob.email)
    which = {**org, "invitation_id": invited["invitation_id"]}
    await call.do(f"POST {path}/{{invitation_id}}:resend", token=token, **which)
    mail = await mail_to(call.world, "invitation", bob.email)
    await call.do("POST /invitations:accept", {"token": mail["X-EB-Token"]}, token=bob.access_token)
    spare = await call.world.api.post(
        f"/orgs/{own.org_id}/invitations", {"email": "nobody@example.net"}, token=token
    )
    which["invitation_id"] = spare["invitation_id"]
    await call.do(f"DELETE {path}/{{invitation_id}}", token=token, **which)
    group = {"ancestor_org_id": own.org_id}
    role = {"user_id": bob.user_id, "role": "GroupBilling"}
    await call.do("POST /groups/{ancestor_org_id}/roles", role, token=token, **group)
    who = {"user_id": bob.user_id}
    await call.do("DELETE /groups/{ancestor_org_id}/roles/{user_id}", token=token, **group, **who)
    member = "/orgs/{org_id}/members/{user_id}"
    await call.do(f"PATCH {member}", {"role": "Admin"}, token=token, **org, **who)
    await call.do(f"DELETE {member}", token=token, **org, **who)


async def tree(call: Caller, admin: Person) -> None:
    """Ask another's organisations to become children: one agrees and leaves again, one doesn't."""
    api = call.world.api
    parent = (await api.post("/orgs", an_org(call, "Parent"), token=admin.access_token))["org_id"]
    carol = await call.world.person("carol")
    for answer in ("accept", "decline"):
        asked = (await api.post("/orgs", an_org(call, "Asked"), token=carol.access_token))["org_id"]
        link = await api.post(
            f"/orgs/{parent}/children", {"link_org_id": asked}, token=await admin.token_for(parent)
        )
        token = await carol.token_for(asked)
        name = f"POST /org-links/{{org_link_id}}:{answer}"
        await call.do(name, token=token, org_link_id=link["org_link_id"])
        if answer == "accept":
            await call.do("POST /orgs/{org_id}:detach", token=token, org_id=asked)


async def assist(call: Caller, admin: Person, own: Member) -> None:
    """Help at once, and only when asked."""
    api, support = call.world.api, call.world.staff.support_token
    token = await admin.token_for(own.org_id)

    def ask(reason: str) -> Json:
        return {"org_id": own.org_id, "purpose": "incident", "reason": reason, "ttl_minutes": 5}

    begun = await call.do("POST /assist-sessions", ask("they see no charges"), token=support)
    name = "POST /assist-sessions/{assist_session_id}"
    await call.do(f"{name}:end", token=token, assist_session_id=begun["assist_session_id"])
    await api.call("PATCH", f"/orgs/{own.org_id}", {"assist_policy": "approve"}, token=token)
    for answer in ("approve", "decline"):
        asked = await api.post("/assist-sessions", ask(f"they are to {answer}"), token=support)
        await call.do(f"{name}:{answer}", token=token, assist_session_id=asked["assist_session_id"])


async def claims(call: Caller, own: Member, run_dir: Path) -> None:
    """Prove one domain by mail, one by a processor's word, and give one up."""
    api, staff, token = call.world.api, call.world.staff, own.admin_token

    def domain(name: str) -> Json:
        return {"org_id": own.org_id, "domain": f"{name}-{call.world.tag}.{mail_demo.ZONE}"}

    mailed = await call.do("POST /verify/claims", domain("mailed"), token=token)
    claim = {"claim_id": mailed["claim_id"]}
    renewed = await call.do("POST /verify/claims/{claim_id}:resend", token=token, **claim)
    key = mail_demo.load_key(Layout(run_dir).mail_key)
    mail = mail_demo.signed_mail(mailed["domain"], renewed["send_to"], renewed["token"], key)
    sender = f"office@{mailed['domain']}"
    envelope = {"from": sender, "to": renewed["send_to"], "ip": "127.0.0.1", "helo": "mail.test"}
    headers = mail_demo.raw_headers(staff.values["inbound_raw_secret"], mail, envelope)
    await call.send("POST /verify/inbound/{provider}", "/verify/inbound/raw", mail, headers)
    await wait_for(lambda: is_verified(api, token, mailed["claim_id"]), "the mail's verdict")
    await call.do("DELETE /verify/claims/{claim_id}", token=token, **claim)
    submitted = await api.post("/verify/claims", domain("submitted"), token=token)
    said = {
        "token": submitted["token"],
        "from_domain": submitted["domain"],
        "dkim_pass": True,
        "spf_pass": True,
        "dmarc_aligned": True,
    }
    path, body = "/verify/email-submit", json.dumps(said).encode()
    headers = signed(staff.values["email_submit_secret"], path, body) | {
        "Authorization": f"Bearer {staff.service_token}"
    }
    answer = await call.send(f"POST {path}", path, body, headers)
    assert answer["status"] == "verified", answer


async def is_verified(api: Api, token: str, claim_id: str) -> bool:
    """Look at a claim."""
    return bool((await api.get(f"/verify/claims/{claim_id}", token=token))["status"] == "verified")


def signed(secret: str, path: str, body: bytes) -> dict[str, str]:
    """Sign a request as the trusted processor does."""
    stamp = str(int(time.time()))
    text = "\n".join(("v1", "POST", path, stamp, hashlib.sha256(body).hexdigest()))
    mac = hmac.new(secret.encode(), text.encode(), hashlib.sha256).hexdigest()
    return {"Content-Type": "application/json", "X-EB-Timestamp": stamp, "X-EB-Signature": f"v1={mac}"}


async def catalog(call: Caller, own: Member) -> str:
    """Sell a plan; give its SKU."""
    operator = {"token": call.world.staff.operator_token}
    tag = call.world.tag
    sku = f"audited-{tag}"
    shape = {"type": "action", "unit": "each", "retail": "0.10"}
    await call.do("PUT /catalog/skus/{sku}", shape, sku=sku, **operator)
    spare = await call.world.sku(f"spare-{tag}")
    rate = {"tax_code": f"T{tag}".upper(), "jurisdiction": "*", "rate": "0.10"}
    await call.do("PUT /catalog/tax-rates", {**rate, "effective_at": "2026-01-01T00:00:00Z"}, **operator)
    body = {"code": f"audited-{tag}", "name": "Audited", "currency": "AUD"}
    model = (await call.do("POST /catalog/business-models", body, **operator))["model_id"]
    name = "PATCH /catalog/business-models/{model_id}"
    await call.do(name, {"name": "Audited well"}, model_id=model, **operator)
    body = {"model_id": model, "name": "Plan", "tier": "standard"}
    plan = (await call.do("POST /catalog/plans", body, **operator))["plan_id"]
    which = {"plan_id": plan, **operator}
    await call.do("PATCH /catalog/plans/{plan_id}", {"notes": "audited"}, **which)
    price = {"included_qty": "0", "overage_price": "1"}
    await call.do("PUT /catalog/plans/{plan_id}/skus/{sku}", price, sku=sku, **which)
    await call.world.api.put(f"/catalog/plans/{plan}/skus/{spare}", price, **operator)
    await call.do("DELETE /catalog/plans/{plan_id}/skus/{sku}", sku=spare, **which)
    await call.do("POST /catalog/plans/{plan_id}:publish", {}, **which)
    body = {"model_id": model, "plan_id": plan}
    await call.do("PUT /catalog/orgs/{org_id}/business-model", body, org_id=own.org_id, **operator)
    body = {"overrides": {sku: {"overage_price": "2"}}}
    await call.do("PUT /catalog/orgs/{org_id}/entitlements/{plan_id}", body, org_id=own.org_id, **which)
    return sku


async def usage(call: Caller, own: Member, sku: str) -> None:
    """Meter, repair, send again, compare with a provider's log, and take back."""
    api, staff, mine = call.world.api, call.world.staff, {"org_id": own.org_id}
    now = datetime.now(UTC)
    good = event(own, sku, now.isoformat(), request_id="good")
    await call.do("POST /metering/events", [good], token=own.api_key)
    for name in ("bad", "worse"):
        await call.world.send(own, [good, event(own, sku, now.isoformat(), "x", request_id=name)])
    letter = await wait_for(lambda: first(api, "/metering/dead-letters", own), "a letter")
    name = "PATCH /metering/dead-letters/{dead_letter_id}"
    repaired = {"event": {**letter["event"], "quantity": "1"}}
    which = {"dead_letter_id": letter["dead_letter_id"]}
    await call.do(name, repaired, token=own.admin_token, **which)
    body: Json = {"filter": mine}
    await call.do("POST /metering/dead-letters:replay", body, token=own.admin_token)
    day, days = now.replace(hour=0, minute=0, second=0, microsecond=0), timedelta(days=1)
    window = {"from": f"{day - days:%Y-%m-%dT%H:%M:%SZ}", "to": f"{day + days:%Y-%m-%dT%H:%M:%SZ}"}
    await call.do("POST /metering/replays", {**mine, **window}, token=staff.operator_token)
    log = f"provider,message_id,org_id,sku,quantity,time\ntwilio,m1,{own.org_id},{sku},1,{now.isoformat()}\n"
    headers = {"Content-Type": "text/csv", "Authorization": f"Bearer {staff.finance_token}"}
    path = "/metering/provider-logs"
    await call.send(f"POST {path}", path, log.encode(), headers)
    dates = {"from": str((day - days).date()), "to": str((day + 2 * days).date()), **mine}
    run = await call.do("POST /metering/reconciliations", dates, token=staff.finance_token)
    path = "/metering/reconciliations"
    found = {"reconciliation_id": run["reconciliation_id"]}

    async def compared() -> bool:
        runs = (await api.get(path, token=staff.finance_token))["items"]
        return any(one["status"] == "done" for one in runs if found.items() <= one.items())

    await wait_for(compared, "the comparison")
    fill = {**mine, "project_id": own.project_id}
    await call.do(f"POST {path}/{{reconciliation_id}}:fill", fill, token=staff.finance_token, **found)
    await wait_for(lambda: first(api, "/ledger/entries", own), "a line")
    void = "POST /metering/events/{request_id}:void"
    await call.do(void, {"reason": "sent twice"}, token=own.admin_token, query=mine, request_id="good")


async def first(api: Api, path: str, own: Member) -> Json | None:
    """Give the first item of an organisation's list, None while there is none."""
    try:
        items = (await api.get(path, token=own.admin_token, query={"org_id": own.org_id}))["items"]
    except ApiProblem:
        return None
    return dict(items[0]) if items else None


async def money(call: Caller, own: Member, sku: str) -> None:
    """Ask, hold, cap, pay ahead, charge and rate again."""
    staff, mine, token = call.world.staff, {"org_id": own.org_id}, own.admin_token
    finance = {"token": staff.finance_token}
    await call.do("POST /pricing/estimate", {**mine, "skus": {sku: "1"}, "leads": 1}, token=token)
    body = {**mine, "sku": sku, "quantity": "1", "request_id": "h", "hold": True}
    hold = await call.do("POST /pricing/authorize", body, token=token)
    await call.do("POST /pricing/holds/{hold_id}:release", token=token, hold_id=hold["hold_id"])
    cap = {"amount": "1000.00", "currency": "AUD"}
    budget = await call.do("POST /pricing/budgets", {**mine, **cap}, token=token)
    which = {"token": token, "budget_id": budget["budget_id"]}
    await call.do("PUT /pricing/budgets/{budget_id}", {**cap, "amount": "900.00"}, **which)
    await call.do("DELETE /pricing/budgets/{budget_id}", **which)
    credit = {**mine, "amount": "5.00", "currency": "AUD", "source": "gift"}
    await call.do("POST /pricing/credits", credit, **finance)
    charge = {
        **mine,
        "charge_id": f"c-{call.world.tag}",
        "project_id": own.project_id,
        "sku": sku,
        "quantity": "1",
        "time": datetime.now(UTC).isoformat(),
    }
    await call.do("POST /billing/charges", charge, **finance)
    again = {**mine, "period": f"{datetime.now(UTC):%Y-%m}", "reason": "to be sure"}
    await call.do("POST /pricing/rerate", again, **finance)


async def partners(call: Caller, own: Member, sku: str) -> None:
    """Open an account, and let a partner share in it for a while."""
    finance = {"token": call.world.staff.finance_token}
    account = {"owner_org_id": own.org_id, "name": "Second", "currency": "AUD"}
    await call.do("POST /billing-accounts", account, token=own.admin_token)
    tier = f"t-{call.world.tag}"
    body = {"name": "Partner", "tier": tier, "payout_provider": "sandbox", "destination": "acct"}
    partner = (await call.do("POST /partners", body, **finance))["partner_id"]
    await call.do("PATCH /partners/{partner_id}", {"name": "The partner"}, partner_id=partner, **finance)
    begin = "2026-01-01T00:00:00Z"
    rate = {"partner_tier": tier, "sku": sku, "pct": "10", "effective_at": begin}
    await call.do("PUT /commission-rates", rate, **finance)
    body = {"org_id": own.org_id, "partner_id": partner, "start_at": begin}
    por = (await call.do("POST /partner-of-record", body, **finance))["por_id"]
    end = {"end_at": f"{datetime.now(UTC) + timedelta(hours=1):%Y-%m-%dT%H:%M:00Z}"}
    await call.do("POST /partner-of-record/{por_id}:end", end, por_id=por, **finance)


async def a_month_later(call: Caller, own: Member, run_dir: Path) -> None:
    """Close the period that is over once the platform's clock stands in the next month; bring the clock back."""
    now = datetime.now(UTC)
    later = (now.replace(day=1) + timedelta(days=32)).replace(day=1, hour=13, minute=0)
    clock_cli.set_to(run_dir / "clock", later.isoformat(), now)
    await asyncio.sleep(CLOCK_READ_S)
    try:
        await call.do(
            "POST /pricing/periods/{period}:close",
            {"org_id": own.org_id},
            token=call.world.staff.finance_token,
            period=f"{now:%Y-%m}",
        )
    finally:
        clock_cli.run(run_dir / "clock", now)
        await asyncio.sleep(CLOCK_READ_S)


@pytest.mark.timeout(300)
@pytest.mark.asyncio(loop_scope="module")
async def test_each_route_leaves_exactly_the_entries_of_its_change(told: dict[str, str], stack: Any) -> None:
    import asyncpg

    connection = await asyncpg.connect(stack.facts["owner_dsn"])
    rows = await connection.fetch(
        f"SELECT * FROM ({ENTRIES}) AS e WHERE trace_id = ANY($1)", list(told.values())
    )
    await connection.close()
    names = {trace: name for name, trace in told.items()}
    own, foreign = {name: Counter[tuple[str, str]]() for name in told}, set()
    for row in rows:
        name = names[row["trace_id"]]
        if row["service"] == ROUTES[name].service:
            own[name][row["change"], row["entity_id"]] += 1
        else:
            foreign.add(row["change"])
    wrong = [
        f"{name}: {dict(entries)}"
        for name, entries in own.items()
        if tuple(sorted(change for change, _ in entries.elements())) != LEAVES.get(name, ())
    ]
    assert told.keys() == ROUTES.keys()
    assert not wrong, "\n".join(wrong)
    assert [name for name, entries in own.items() if any(times > 1 for times in entries.values())] == []
    assert foreign <= FOLLOWS
