"""A provider's log through the gateway: what was never metered is found, metered once, and billed once."""

from __future__ import annotations

import gzip
import json
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import aiohttp
from billing import billed_org, posted

from eb_tools.client import wait_for
from eb_tools.invariants import broken
from eb_tools.world import World, event

DAY = timedelta(days=1)


async def load(world: World, body: bytes, query: str, **headers: str) -> Any:
    """Load a log as Finance."""
    url = f"{world.staff.gateway_url}/metering/provider-logs{query}"
    sent = {
        "Authorization": f"Bearer {world.staff.finance_token}",
        "Content-Type": "application/json",
    } | headers
    async with aiohttp.ClientSession() as http, http.post(url, data=body, headers=sent) as answer:
        assert answer.status == 202, await answer.text()
        return await answer.json()


async def reconciled(world: World, run: Any) -> Any:
    """Wait until a comparison is done."""

    async def done() -> Any:
        page = await world.api.get("/metering/reconciliations", token=world.staff.finance_token)
        found = [one for one in page["items"] if one["reconciliation_id"] == run["reconciliation_id"]]
        return found[0] if found and found[0]["status"] == "done" else None

    return await wait_for(done, "the comparison")


async def test_a_message_that_was_never_metered_is_found_and_billed_once(world: World, owner: Any) -> None:
    member, skus, _ = await billed_org(world)
    begin = datetime.now(UTC) - timedelta(minutes=3)
    tags = {"org_id": [member.org_id], "sku": [skus["sms"]], "project_id": [member.project_id]}
    mails = [
        {
            "eventType": "Send",
            "mail": {
                "messageId": f"{member.org_id}-{n}",
                "timestamp": (begin + timedelta(seconds=n)).isoformat(),
                "destination": ["a@example.com"],
                "tags": tags,
            },
            "send": {},
        }
        for n in range(50)
    ]
    usage = [
        event(member, skus["sms"], mail["mail"]["timestamp"], request_id=mail["mail"]["messageId"])
        for mail in mails
    ]
    await world.send(member, usage[:40])
    body = gzip.compress(json.dumps(mails).encode())
    loaded = await load(world, body, "?format=ses", **{"Content-Encoding": "gzip"})
    assert (loaded["rows"], loaded["rejected"]) == (50, 0)
    await posted(owner, member, Decimal(40))

    days = {"from": str((begin - DAY).date()), "to": str((begin + 2 * DAY).date()), "org_id": member.org_id}
    finance = {"token": world.staff.finance_token}
    run = await reconciled(world, await world.api.post("/metering/reconciliations", days, **finance))
    assert [(one["kind"], one["messages"]) for one in run["drifts"]] == [("missing_here", 10)]
    path = f"/metering/reconciliations/{run['reconciliation_id']}"
    drifts = await world.api.get(f"{path}/drifts", **finance)
    assert {i for one in drifts["items"] for i in one["sample_ids"]} == {
        one["request_id"] for one in usage[40:]
    }

    await world.api.post(f"{path}:fill", {}, **finance)
    totals = await posted(owner, member, Decimal(50))
    await world.send(member, usage)
    again = await reconciled(world, await world.api.post("/metering/reconciliations", days, **finance))
    assert (again["drifts"], again["provider_messages"], again["metered_events"]) == ([], 50, 50)
    assert await posted(owner, member, Decimal(50)) == totals
    assert await broken(owner) == {}
