"""One event's whole life through the gateway: unrated, billed, voided; letters and replays; nothing counts twice."""

from __future__ import annotations

import asyncio
from collections import Counter
from decimal import Decimal
from typing import Any
from urllib.parse import quote

import pytest
from billing import billed_org, posted, quantity_of, recent, usage_of

from eb_contracts.ids import new_id
from eb_tools.client import ApiProblem, usage_status, wait_for
from eb_tools.invariants import broken, totals
from eb_tools.world import Member, World, event


async def reached(world: World, member: Member, request_id: str, status: str) -> Any:
    """Wait until an event has a status; give it."""

    async def look() -> Any:
        seen = await usage_status(world.api, member.api_key, member.org_id, request_id)
        return seen if seen is not None and seen["status"] == status else None

    return await wait_for(look, f"{request_id} to be {status}")


async def void(world: World, member: Member, request_id: str) -> Any:
    """Void an event as its organisation's Admin."""
    path = f"/metering/events/{quote(request_id, safe='')}:void?org_id={member.org_id}"
    return await world.api.post(path, {"reason": "a mistake"}, token=member.admin_token)


async def test_usage_without_terms_is_unrated_until_terms_arrive(world: World, owner: Any) -> None:
    sku = await world.sku(f"later-{world.tag}")
    model = await world.model("EUR")
    plan = await world.plan(model, {sku: {"included_qty": "0", "overage_price": "0.5"}})
    member = await world.org(await world.person(), "Early Bird")
    waiting = event(member, f"unheard-{world.tag}", recent(5))
    await world.send(member, [waiting, event(member, sku, recent(4))])
    await reached(world, member, waiting["request_id"], "unrated")
    page = await world.api.get(
        "/metering/events", token=member.api_key, query={"org_id": member.org_id, "status": "unrated"}
    )
    assert waiting["request_id"] in {item["request_id"] for item in page["items"]}

    await world.sku(f"unheard-{world.tag}")
    await world.assign(member.org_id, model, plan)
    seen = await reached(world, member, waiting["request_id"], "ledgered")
    assert (seen["charge_id"], len(seen["entry_ids"])) == (seen["usage_id"], 1)
    assert await broken(owner) == {}


async def test_a_void_is_billed_back_to_the_cent_and_once(world: World, owner: Any) -> None:
    member, skus, _ = await billed_org(world, "Second Thoughts")
    events = [event(member, skus["sms"], recent(n), "40", f"odd/{n}:id {n}%") for n in range(5)]
    await world.send(member, events)
    before = await posted(owner, member, quantity_of(events))
    mistake = event(member, skus["sms"], recent(1), "77.5", f"a/b:c%{world.tag}")
    await world.send(member, [mistake])
    await posted(owner, member, quantity_of([*events, mistake]))

    answers = await asyncio.gather(*(void(world, member, mistake["request_id"]) for _ in range(50)))
    assert Counter(answer["void_event_id"] for answer in answers).most_common(1)[0][1] == 50
    after = await posted(owner, member, quantity_of(events))
    assert after["gross"] == before["gross"]
    assert after["metered"] == after["priced"] == after["posted"]
    assert (await reached(world, member, mistake["request_id"], "voided"))["void"]["reason"] == "a mistake"
    with pytest.raises(ApiProblem, match="404"):
        await void(world, member, str(new_id()))
    assert await broken(owner) == {}


async def test_a_replay_of_recorded_usage_changes_no_bill(world: World, owner: Any) -> None:
    member, skus, _ = await billed_org(world, "Once More")
    events = usage_of(member, skus, 300)
    await world.send(member, events)
    before = await posted(owner, member, quantity_of(events))
    body = {"org_id": member.org_id, "from": recent(179)[:10] + "T00:00:00Z", "to": recent(0)}
    started = await world.api.post("/metering/replays", body, token=world.staff.operator_token)

    async def done() -> Any:
        path = f"/metering/replays/{started['replay_id']}"
        seen = await world.api.get(path, token=world.staff.operator_token)
        return seen if seen["status"] == "done" else None

    seen = await wait_for(done, "the replay")
    assert seen["sent_events"] == seen["events"] > 0
    last = event(member, skus["form"], recent(0), "1")
    await world.send(member, [last])
    after = await posted(owner, member, before["posted"] + 1)
    assert after["metered"] == after["priced"] == before["posted"] + 1
    assert await broken(owner) == {}


async def test_a_corrected_letter_is_billed_once(world: World, owner: Any) -> None:
    member, skus, _ = await billed_org(world, "Mended")
    bad = event(member, skus["form"], recent(1), "1,5")
    answer = await world.api.post(
        "/metering/events", [bad, event(member, skus["form"], recent(1))], token=member.api_key
    )
    assert answer["accepted"] == 1
    query = {"org_id": member.org_id}
    (letter,) = await world.api.everything("/metering/dead-letters", token=member.admin_token, query=query)
    path = f"/metering/dead-letters/{letter['dead_letter_id']}"
    mended = await world.api.call(
        "PATCH", path, {"event": bad | {"quantity": "1.5"}}, token=member.admin_token
    )
    assert mended["errors"] == []
    for _ in range(3):
        await world.api.post("/metering/dead-letters:replay", {"filter": query}, token=member.admin_token)
    assert (await posted(owner, member, Decimal("2.5")))["metered"] == Decimal("2.5")
    assert (await totals(owner, [member.org_id]))["posted"] == Decimal("2.5")
