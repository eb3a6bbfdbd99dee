"""The worked examples of the rating library, billed and estimated through the gateway (docs/pricing.md)."""

from __future__ import annotations

import asyncio
import json
from collections import defaultdict
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from billing import billed_by_sku, posted, quantity_of

from eb_tools.client import Json
from eb_tools.paths import repository
from eb_tools.world import Member, World, event

EXAMPLES: list[Json] = json.loads((repository() / "libs/rating/tests/worked_examples.json").read_text())


def sku_of(world: World, number: int, line: int) -> str:
    return f"example-{number}-{line}-{world.tag}"


async def billed(world: World, currency: str, numbered: list[tuple[int, Json]]) -> Member:
    """Make an organisation with one plan that has a SKU for each line of these examples."""
    lines = {
        sku_of(world, number, n): line["terms"]
        for number, example in numbered
        for n, line in enumerate(example["lines"])
    }
    for sku in lines:
        await world.sku(sku)
    model = await world.model(currency)
    plan = await world.plan(model, lines)
    member = await world.org(await world.person(), f"Examples in {currency}")
    await world.assign(member.org_id, model, plan)
    return member


def usage_of(world: World, member: Member, numbered: list[tuple[int, Json]]) -> tuple[list[Json], list[Json]]:
    """Make an event of each quantity; and one for each SKU that isn't used, to be taken back."""
    now = datetime.now(UTC).isoformat()
    used, voided = [], []
    for number, example in numbered:
        for n, line in enumerate(example["lines"]):
            sku = sku_of(world, number, n)
            used += [event(member, sku, now, quantity) for quantity in line["quantities"]]
            voided += [] if line["quantities"] else [event(member, sku, now)]
    return used, voided


async def use(world: World, owner: Any, member: Member, numbered: list[tuple[int, Json]]) -> None:
    """Use what the examples use, and nothing of the others; wait until the ledger has it."""
    used, voided = usage_of(world, member, numbered)
    await world.send(member, used + voided)
    await posted(owner, member, quantity_of(used + voided))
    for one in voided:
        await world.api.post(
            f"/metering/events/{one['request_id']}:void",
            {"reason": "not used after all"},
            token=member.admin_token,
            query={"org_id": member.org_id},
        )
    await posted(owner, member, quantity_of(used))


async def estimated(world: World, member: Member, number: int, example: Json) -> str:
    """Ask for the price of an example's quantities from an empty period."""
    skus = {
        sku_of(world, number, n): str(sum(map(Decimal, line["quantities"])))
        for n, line in enumerate(example["lines"])
    }
    body = {"org_id": member.org_id, "skus": skus, "leads": 1}
    answer = await world.api.post("/pricing/estimate", body, token=member.api_key)
    return str(answer["grand_total"])


@pytest.mark.timeout(180)
async def test_every_worked_example_is_billed_and_estimated_to_the_cent(world: World, owner: Any) -> None:
    by_currency: dict[str, list[tuple[int, Json]]] = defaultdict(list)
    for number, example in enumerate(EXAMPLES):
        by_currency[example["currency"]].append((number, example))
    for currency, numbered in by_currency.items():
        member = await billed(world, currency, numbered)
        await use(world, owner, member, numbered)
        bill = await billed_by_sku(world, member)
        estimates = await asyncio.gather(*(estimated(world, member, *one) for one in numbered))

        for (number, example), estimate in zip(numbered, estimates, strict=True):
            skus = [sku_of(world, number, n) for n in range(len(example["lines"]))]
            total = sum((bill[sku].gross for sku in skus), Decimal(0))
            if "open_total" in example:
                assert str(total) == example["open_total"], example["name"]
            assert estimate == example.get("closed_total", example.get("open_total")), example["name"]
