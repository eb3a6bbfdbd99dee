"""From an event at the gateway to a correct ledger line."""

from __future__ import annotations

import random
import secrets
from decimal import Decimal
from typing import Any

import pytest
from billing import billed_org, estimate, posted, quantity_of, usage_of

from eb_tools.client import ApiProblem, usage_status, wait_for
from eb_tools.invariants import broken
from eb_tools.world import World


async def test_what_was_sent_is_billed_as_estimated_with_the_partners_share(world: World, owner: Any) -> None:
    member, skus, partner = await billed_org(world)
    events = usage_of(member, skus, 300)

    await world.send(member, events)
    totals = await posted(owner, member, quantity_of(events))

    expected = await estimate(world, member, events)
    assert totals["gross"] == Decimal(expected["grand_total"])
    assert totals["metered"] == totals["priced"] == totals["posted"]
    balance = await world.api.get(
        "/ledger/balances", token=member.admin_token, query={"org_id": member.org_id}
    )
    assert balance["items"][0]["amount_gross"] == expected["grand_total"]
    share = sum(
        round_half_up(Decimal(line["total"]) * pct / 100)
        for line in expected["lines"]
        for pct in [Decimal("12.50") if line["sku"] == skus["sms"] else Decimal(20)]
    )
    assert totals["partner"] == share
    entries = await world.api.everything(
        "/ledger/entries", token=member.admin_token, query={"org_id": member.org_id}
    )
    assert {entry["partner_id"] for entry in entries} == {partner}
    assert await broken(owner) == {}


def round_half_up(amount: Decimal) -> Decimal:
    return amount.quantize(Decimal("0.01"), rounding="ROUND_HALF_UP")


async def test_the_same_batches_again_change_no_sum(world: World, owner: Any) -> None:
    member, skus, _ = await billed_org(world)
    events = usage_of(member, skus, 200)
    await world.send(member, events)
    before = await posted(owner, member, quantity_of(events))

    for _ in range(3):
        random.shuffle(events)
        await world.send(member, events, size=50)
    last = await world.send_batch(member.api_key, usage_of(member, skus, 1))
    assert last["accepted"] == 1
    after = await posted(owner, member, before["posted"] + Decimal("1.5"))

    assert after["metered"] == after["priced"]
    assert await broken(owner) == {}


async def test_one_event_leads_to_its_charge_its_lines_and_its_trace(world: World, stack: Any) -> None:
    member, skus, _ = await billed_org(world)
    trace_id = secrets.token_hex(16)
    [usage] = usage_of(member, skus, 1)
    await world.api.post(
        "/metering/events",
        [usage],
        token=member.api_key,
        headers={"traceparent": f"00-{trace_id}-00f067aa0ba902b7-01"},
    )

    async def ledgered() -> Any:
        found = await usage_status(world.api, member.api_key, member.org_id, usage["request_id"])
        return found if found and found["status"] == "ledgered" else None

    status = await wait_for(ledgered, "the event's ledger line")
    explained = await world.api.get(
        f"/pricing/charges/{status['charge_id']}/explain",
        token=member.api_key,
        query={"org_id": member.org_id},
    )
    assert trace_id in explained["trace_ids"]
    entry = await world.api.get(
        f"/ledger/entries/{status['entry_ids'][0]}", token=member.admin_token, query={"org_id": member.org_id}
    )
    assert entry["charge_id"] == status["charge_id"]
    assert Decimal(entry["quantity"]) == Decimal(usage["quantity"])
    for service in ("metering-ingest", "pricing", "ledger"):
        log = (stack.run_dir / "logs" / f"{service}.log").read_text()
        assert any(trace_id in line and "take handled" in line for line in log.splitlines()), service


async def test_another_tenant_sees_nothing(world: World, owner: Any) -> None:
    member, skus, _ = await billed_org(world)
    stranger = await world.org(await world.person("mallory"), "Stranger")
    events = usage_of(member, skus, 4)
    await world.send(member, events)
    await posted(owner, member, quantity_of(events))

    for path in ("/ledger/entries", "/pricing/charges", "/metering/events", "/ledger/balances"):
        for credential in (stranger.api_key, stranger.admin_token):
            with pytest.raises(ApiProblem) as refused:
                await world.api.get(path, token=credential, query={"org_id": member.org_id})
            assert (refused.value.status, refused.value.code) in {(404, "not_found"), (403, "forbidden")}, (
                path
            )
