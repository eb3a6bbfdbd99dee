"""What the integration tests share: one billed organisation, usage sent, and waiting for its bill."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, NamedTuple

from eb_tools.client import Json, wait_for
from eb_tools.invariants import totals
from eb_tools.world import Member, World, event

GRADUATED: Json = {
    "mode": "graduated",
    "tiers": [{"up_to": "100", "unit_price": "0.10"}, {"up_to": None, "unit_price": "0.07"}],
}


async def billed_org(world: World, name: str = "Harbour Events") -> tuple[Member, dict[str, str], str]:
    """Make an organisation with a plan of two SKUs and a partner; give it, its SKUs by role, and the partner."""
    skus = {"sms": f"sms-{world.tag}", "form": f"form-{world.tag}"}
    for sku in skus.values():
        await world.sku(sku, tax_code="GST")
    model = await world.model()
    plan = await world.plan(
        model,
        {
            skus["sms"]: {"included_qty": "10", "overage_price": "0", "tiers": GRADUATED},
            skus["form"]: {"included_qty": "0", "overage_price": "0.035"},
        },
    )
    member = await world.org(await world.person(), name)
    await world.assign(member.org_id, model, plan)
    partner = await world.partner(
        member.org_id, {skus["sms"]: "12.50", skus["form"]: "20"}, tier=f"t-{world.tag}"
    )
    return member, skus, partner


def recent(number: int) -> str:
    """Give instants of the last minutes, in the current period."""
    return (datetime.now(UTC) - timedelta(seconds=number % 180)).isoformat()


def usage_of(member: Member, skus: dict[str, str], count: int) -> list[Json]:
    """Make usage events over both SKUs, with whole and broken quantities."""
    names = list(skus.values())
    return [event(member, names[n % 2], recent(n), quantity="1" if n % 3 else "1.5") for n in range(count)]


async def posted(owner: Any, member: Member, quantity: Decimal, timeout_s: float = 60) -> dict[str, Any]:
    """Wait until the ledger holds this quantity, and give the totals."""

    async def look() -> dict[str, Any] | None:
        found = await totals(owner, [member.org_id])
        return found if found["posted"] == quantity else None

    return dict(await wait_for(look, f"{quantity} in the ledger", timeout_s=timeout_s))


def quantity_of(events: list[Json]) -> Decimal:
    """Sum the quantities."""
    return sum((Decimal(e["quantity"]) for e in events), Decimal(0))


async def estimate(world: World, member: Member, events: list[Json]) -> Json:
    """Ask for the price of exactly this usage."""
    skus: dict[str, Decimal] = {}
    for usage in events:
        skus[usage["sku"]] = skus.get(usage["sku"], Decimal(0)) + Decimal(usage["quantity"])
    body = {
        "org_id": member.org_id,
        "project_id": member.project_id,
        "skus": {sku: str(quantity) for sku, quantity in skus.items()},
        "leads": 1,
    }
    return dict(await world.api.post("/pricing/estimate", body, token=member.api_key))


class Billed(NamedTuple):
    """What the ledger's lines of one SKU come to."""

    gross: Decimal = Decimal(0)
    tax: Decimal = Decimal(0)
    lines: int = 0


async def billed_by_sku(world: World, member: Member, period: str | None = None) -> dict[str, Billed]:
    """Sum an organisation's ledger lines by SKU, in one period or in all."""
    entries = await world.api.everything(
        "/ledger/entries", token=member.admin_token, query={"org_id": member.org_id, "period": period}
    )
    bill: dict[str, Billed] = {}
    for entry in entries:
        so_far = bill.get(entry["sku"], Billed())
        gross, tax = Decimal(entry["amount_gross"]), Decimal(entry["tax_amount"])
        bill[entry["sku"]] = Billed(so_far.gross + gross, so_far.tax + tax, so_far.lines + 1)
    return bill
