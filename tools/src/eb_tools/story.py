"""The demo's story: a group of organisations signs up, proves its domain, sends usage and gets its first bill.

Everything happens through the public API; what the platform does by itself is waited for. Amounts are in AUD.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import ROUND_HALF_UP, Decimal
from functools import partial
from pathlib import Path
from zoneinfo import ZoneInfo

from eb_tools import mail_demo
from eb_tools.client import Json, Person, wait_for
from eb_tools.trouble import Trouble
from eb_tools.world import Member, World, event

ZONE = "Australia/Sydney"
EVENTS = 1000
BATCH = 100
ORGS = ("Harbour Events Group", "Harbour Music", "Harbour Sports")
QUANTITIES = ("1", "2", "1.5", "3", "1")
TIER = "gold"
CENT = Decimal("0.01")
PRICES: dict[str, Json] = {
    "form-submit": {
        "included_qty": "100",
        "overage_price": "0",
        "tiers": {
            "mode": "graduated",
            "tiers": [
                {"up_to": "150", "unit_price": "0.08"},
                {"up_to": "300", "unit_price": "0.05"},
                {"up_to": None, "unit_price": "0.03"},
            ],
        },
    },
    "sms-send": {"included_qty": "20", "overage_price": "0.0793"},
    "email-validate": {
        "included_qty": "0",
        "overage_price": "0",
        "tiers": {"mode": "package", "package_size": "50", "package_price": "1.95"},
    },
    "seat-map-view": {
        "included_qty": "0",
        "overage_price": "0",
        "tiers": {
            "mode": "volume",
            "tiers": [{"up_to": "100", "unit_price": "0.02"}, {"up_to": None, "unit_price": "0.015"}],
        },
    },
}
KINDS = {
    "form-submit": "object",
    "sms-send": "action",
    "email-validate": "validation",
    "seat-map-view": "analytics",
}
SHARES = {"form-submit": "12.5", "sms-send": "20", "email-validate": "10", "seat-map-view": "7.25"}

Tell = Callable[[str], None]


@dataclass(frozen=True)
class Told:
    """What the story made: enough to show the bill again and to send the same events again."""

    tag: str
    began_at: str
    domain: str
    partner_id: str
    members: tuple[Member, ...]

    def to_json(self) -> Json:
        """Write it down, without the sign-in that made it."""
        members = [{**vars(member), "admin_token": ""} for member in self.members]
        return {**vars(self), "members": members}

    @classmethod
    def of_json(cls, value: Json) -> Told:
        """Read it back."""
        members = tuple(Member(**member) for member in value["members"])
        return cls(**{**value, "members": members})

    def events(self) -> dict[str, list[Json]]:
        """Give the usage of each organisation, the same each time, by organisation."""
        found: dict[str, list[Json]] = {member.org_id: [] for member in self.members}
        began = datetime.fromisoformat(self.began_at)
        for number in range(EVENTS):
            member = self.members[number % len(self.members)]
            sku = tuple(PRICES)[number * 7 // 3 % len(PRICES)]
            time = (began - timedelta(seconds=number % 40)).isoformat()
            quantity = QUANTITIES[number % len(QUANTITIES)]
            found[member.org_id].append(event(member, sku, time, quantity, f"demo-{self.tag}-{number:04}"))
        return found


@dataclass
class Bill:
    """One organisation's bill: per SKU what was used, charged, and given to the partner."""

    member: Member
    lines: dict[str, Line] = field(default_factory=dict)

    @property
    def gross(self) -> Decimal:
        """Give the charge of all SKUs."""
        return sum((line.gross for line in self.lines.values()), Decimal(0))


@dataclass
class Line:
    """The sums of one SKU."""

    quantity: Decimal = Decimal(0)
    gross: Decimal = Decimal(0)
    partner: Decimal = Decimal(0)


class Story:
    """Tells the story in front of a running platform; `tell` gets a heading per step."""

    def __init__(self, world: World, tell: Tell) -> None:
        self._world = world
        self._tell = tell

    async def from_the_beginning(self, mail_key: Path) -> Told:
        """Do every step once; give what was made when the ledger holds the whole bill."""
        began_at = _in_this_period(datetime.now(UTC))
        self._tell("Ada signs up: a code comes by mail")
        ada = await self._world.person("ada")
        members = await self._make_group(ada)
        domain = await self._prove_domain(members[0], mail_key)
        await self._sell_plan(members)
        partner_id = await self._find_partner(members)
        told = Told(self._world.tag, began_at.isoformat(), domain, partner_id, tuple(members))
        await self.send_usage(told)
        return told

    async def send_usage(self, told: Told) -> None:
        """Send all events; again they change nothing. Then wait until the ledger has all of them."""
        self._tell(f"{EVENTS:,} usage events go in over HTTP, {BATCH} a request; each 202 is a promise")
        for member in told.members:
            await self._world.send(member, told.events()[member.org_id], BATCH)
        self._tell("the platform counts, prices and posts them; we wait for the last ledger line")
        for member in told.members:
            wanted = _quantity(told.events()[member.org_id])
            look = partial(self._has_posted, member, wanted)
            await wait_for(look, f"{member.name}'s bill", timeout_s=60)

    async def bills(self, told: Told) -> list[Bill]:
        """Read the ledger lines of each organisation, summed by SKU."""
        return [await self._bill(member) for member in told.members]

    async def estimate(self, member: Member, events: list[Json]) -> Json:
        """Ask what exactly this usage costs."""
        usage: dict[str, Decimal] = {}
        for one in events:
            usage[one["sku"]] = usage.get(one["sku"], Decimal(0)) + Decimal(one["quantity"])
        body = {
            "org_id": member.org_id,
            "project_id": member.project_id,
            "skus": {sku: str(quantity) for sku, quantity in usage.items()},
            "leads": 1,
        }
        return dict(await self._world.api.post("/pricing/estimate", body, token=member.api_key))

    async def _make_group(self, ada: Person) -> list[Member]:
        self._tell("she founds an organisation with two children, each with a project and an API key")
        parent = await self._world.org(ada, ORGS[0], zone=ZONE)
        children = [await self._world.child(ada, parent, name, zone=ZONE) for name in ORGS[1:]]
        return [parent, *children]

    async def _prove_domain(self, member: Member, mail_key: Path) -> str:
        domain = f"harbour-{self._world.tag}.{mail_demo.ZONE}"
        self._tell(f"the group proves that {domain} is its own: with a mail that the domain has signed")
        api, token = self._world.api, member.admin_token
        claim = await api.post("/verify/claims", {"org_id": member.org_id, "domain": domain}, token=token)
        secret = self._world.staff.values["inbound_raw_secret"]
        key = mail_demo.load_key(mail_key)
        await mail_demo.prove(api.http, api.base_url, claim, key, secret)

        async def verified() -> bool:
            found = await api.get(f"/verify/claims/{claim['claim_id']}", token=token)
            return bool(found["status"] == "verified")

        await wait_for(verified, f"{domain} to be verified")
        return domain

    async def _sell_plan(self, members: list[Member]) -> None:
        self._tell("the operator defines SKUs and a plan with tiers, and assigns it to the three")
        for sku, kind in KINDS.items():
            await self._world.sku(sku, kind=kind)
        model = await self._world.model("AUD")
        plan = await self._world.plan(model, PRICES)
        for member in members:
            await self._world.assign(member.org_id, model, plan)

    async def _find_partner(self, members: list[Member]) -> str:
        self._tell("finance makes a partner the group's partner of record, with a share of each SKU")
        partner_id = await self._world.partner(members[0].org_id, SHARES, tier=TIER)
        for member in members[1:]:
            body = {"org_id": member.org_id, "partner_id": partner_id, "start_at": "2026-01-01T00:00:00Z"}
            await self._world.api.post("/partner-of-record", body, token=self._world.staff.finance_token)
        return partner_id

    async def _has_posted(self, member: Member, quantity: Decimal) -> bool:
        bill = await self._bill(member)
        posted = sum((line.quantity for line in bill.lines.values()), Decimal(0))
        if posted > quantity:
            raise Trouble(f"{member.name}: {posted} in the ledger, but only {quantity} was sent.")
        return posted == quantity

    async def _bill(self, member: Member) -> Bill:
        bill = Bill(member)
        for entry in await self._entries(member):
            line = bill.lines.setdefault(entry["sku"], Line())
            line.quantity += Decimal(entry["quantity"])
            line.gross += Decimal(entry["amount_gross"])
            line.partner += Decimal(entry["partner_amount"])
        return bill

    async def _entries(self, member: Member) -> list[Json]:
        return await self._world.api.everything(
            "/ledger/entries", token=member.api_key, query={"org_id": member.org_id}
        )


def _quantity(events: list[Json]) -> Decimal:
    return sum((Decimal(one["quantity"]) for one in events), Decimal(0))


def _in_this_period(now: datetime) -> datetime:
    """Give an instant from which all events lie in one period: 40 s after a month's start at the least."""
    local = now.astimezone(ZoneInfo(ZONE))
    start = local.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    return max(now, start.astimezone(UTC) + timedelta(seconds=40))


def differences(bills: list[Bill], estimates: list[Json]) -> Iterator[str]:
    """Say where bills and the estimates for the same usage differ: per SKU, its share, and in sum."""
    for bill, estimate in zip(bills, estimates, strict=True):
        expected = {line["sku"]: Decimal(line["total"]) for line in estimate["lines"]}
        for sku in sorted(expected.keys() | bill.lines.keys()):
            line, total = bill.lines.get(sku, Line()), expected.get(sku, Decimal(0))
            share = (total * Decimal(SHARES[sku]) / 100).quantize(CENT, ROUND_HALF_UP)
            if (line.gross, line.partner) != (total, share):
                billed = f"billed {line.gross}, share {line.partner}"
                yield f"{bill.member.name}, {sku}: {billed}; estimated {total}, share {share}"
        if bill.gross != Decimal(estimate["grand_total"]):
            yield f"{bill.member.name}: billed {bill.gross}, estimated {estimate['grand_total']}"
