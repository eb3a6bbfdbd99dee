"""Worked examples: what people set and what was used, and the lines that must come of it (cases.json)."""

from __future__ import annotations

import json
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from eb_contracts.ids import new_id

from .factories import a_charge
from .world import NOTHING_BROKEN, World

CASES = json.loads(Path(__file__).with_name("cases.json").read_text())


class Story:
    """Plays a case's steps; names of the case stand for ids, and its tiers and charges are its own."""

    def __init__(self, world: World, clock: str) -> None:
        self.world = world
        self.clock = clock
        self.prefix = f"{new_id()}:"
        self.ids: dict[str, UUID] = {}

    async def play(self, step: dict[str, Any]) -> None:
        """Play one step by the method that its words name."""
        await getattr(self, step["do"].replace(" ", "_"))(step)

    async def announce_org(self, step: dict[str, Any]) -> None:
        self.ids[step["org"]] = org_id = await self.world.org(self.ids.get(step.get("parent", "")))
        accounts = await self.world.must("GET", f"/billing-accounts?org_id={org_id}")
        for account in accounts["items"]:
            assert account["is_default"]
            self.ids[f"account of {step['org']}"] = UUID(account["billing_account_id"])

    async def open_account(self, step: dict[str, Any]) -> None:
        body = {"owner_org_id": str(self.ids[step["owner"]]), "name": "Group", "currency": step["currency"]}
        self.ids[step["account"]] = UUID(
            (await self.world.must("POST", "/billing-accounts", body))["billing_account_id"]
        )

    async def add_partner(self, step: dict[str, Any]) -> None:
        self.ids[step["partner"]] = await self.world.partner(self.prefix + step["tier"])

    async def change_tier(self, step: dict[str, Any]) -> None:
        path = f"/partners/{self.ids[step['partner']]}"
        await self.world.must("PATCH", path, {"tier": self.prefix + step["tier"], "tier_from": step["from"]})

    async def set_rate(self, step: dict[str, Any]) -> None:
        body = {
            "partner_tier": self.prefix + step["tier"],
            "sku": step["sku"],
            "pct": step["pct"],
            "effective_at": step["from"],
        }
        await self._call("PUT", "/commission-rates", body, step)

    async def name_partner_of_record(self, step: dict[str, Any]) -> None:
        of = "billing_account_id" if step["of"].startswith("account of") else "org_id"
        body = {
            of: str(self.ids[step["of"]]),
            "partner_id": str(self.ids[step["partner"]]),
            "start_at": step["from"],
        }
        await self._call(
            "POST", "/partner-of-record", body | ({"end_at": step["until"]} if "until" in step else {}), step
        )

    async def _call(self, method: str, path: str, body: dict[str, Any], step: dict[str, Any]) -> None:
        status, answer = await self.world.call(method, path, body)
        if "refused" in step:
            assert [status, answer["code"]] == step["refused"]
        else:
            assert status in (200, 201), answer

    async def charge(self, step: dict[str, Any]) -> None:
        at = datetime.fromisoformat(step.get("time", self.clock))
        charge = a_charge(
            charge_id=self.prefix + step["charge"],
            org_id=self.ids[step["org"]],
            amount_gross=step["gross"],
            currency=step.get("currency", "AUD"),
            sku=step.get("sku", "sms"),
            tax_amount=step.get("tax", "0"),
            time=at,
            period=step.get("period", f"{at:%Y-%m}"),
        )
        await self.world.deliver(charge)
        if "parked" in step:
            assert (self.prefix + step["charge"], step["parked"]) in await self.world.parked(
                self.ids[step["org"]]
            )

    async def line(self, charge_id: str, expected: dict[str, Any]) -> dict[str, Any]:
        """Give a line as a case writes it."""
        found = (await self.world.must("GET", f"/ledger/entries?charge_id={self.prefix}{charge_id}"))["items"]
        assert len(found) == 1
        names = {str(value): name for name, value in self.ids.items()}
        shown = {
            "gross": found[0]["amount_gross"],
            "pct": f"{Decimal(found[0]['partner_pct']):.2f}",
            "partner_amount": found[0]["partner_amount"],
            "net": found[0]["net"],
            "partner": names.get(found[0]["partner_id"]),
            "paid_by": names[found[0]["billing_account_id"]].removeprefix("account of "),
            "period": found[0]["period"],
            "status": found[0]["status"],
        }
        return {name: shown[name] for name in expected}

    async def balance(self, expected: dict[str, Any]) -> dict[str, Any]:
        """Give a balance as a case writes it."""
        of = expected["of"]
        kind = "org_id"
        if of.startswith("account of "):
            kind = "billing_account_id"
        elif of.startswith("partner "):
            kind = "partner_id"
        who = self.ids[of.removeprefix("partner ")]
        answer = await self.world.must("GET", f"/ledger/balances?{kind}={who}")
        item = next(item for item in answer["items"] if item["currency"] == expected["currency"])
        return {name: of if name == "of" else item[name] for name in expected}


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["rule"])
async def test_case(shared_world: World, case: dict[str, Any]) -> None:
    shared_world.set_clock(case["clock"])
    story = Story(shared_world, case["clock"])
    for step in case["story"]:
        await story.play(step)

    for charge_id, expected in case.get("lines", {}).items():
        assert await story.line(charge_id, expected) == expected
    for expected in case.get("balances", ()):
        assert await story.balance(expected) == expected
    charges = {step["charge"] for step in case["story"] if step["do"] == "charge" and "parked" not in step}
    orgs = [story.ids[step["org"]] for step in case["story"] if step["do"] == "announce org"]
    posted = await shared_world.owner.fetchval(
        "SELECT count(*) FROM ledger.ledger WHERE org_id = ANY($1)", orgs
    )
    assert posted == len(charges)
    assert await shared_world.broken() == NOTHING_BROKEN
