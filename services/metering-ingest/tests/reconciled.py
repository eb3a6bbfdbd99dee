"""Helpers of the reconciliation's tests: a provider's log loaded, days compared, what drifted."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterable
from typing import Any

from .world import World, until

HEADING = "provider,message_id,org_id,sku,quantity,time\n"


def line(
    world: World, message_id: str, time: str, quantity: str = "1", sku: str = "sms.au", **members: str
) -> str:
    """A line of a log in our columns."""
    org_id = members.get("org_id", str(world.org_id))
    return f"{members.get('provider', 'acme')},{message_id},{org_id},{sku},{quantity},{time}\n"


async def ask(
    world: World, method: str, path: str, body: Any = None, *, role: str = "Finance", **headers: str
) -> tuple[int, Any]:
    """Ask as platform staff."""
    sent = world.client.auth(roles=[role]) | headers
    is_raw = isinstance(body, bytes | AsyncIterator)
    data = body if is_raw or body is None else json.dumps(body).encode()
    if body is not None:
        sent.setdefault("Content-Type", "application/json")
    async with world.client.http.request(method, world.client.url(path), data=data, headers=sent) as answer:
        return answer.status, await answer.json(content_type=None)


async def load(
    world: World, lines: Iterable[str] | bytes, query: str = "", **headers: str
) -> tuple[int, Any]:
    """Load a log."""
    body = lines if isinstance(lines, bytes) else (HEADING + "".join(lines)).encode()
    media_type = {"Content-Type": headers.pop("content_type", "text/csv")}
    return await ask(world, "POST", f"/metering/provider-logs{query}", body, **media_type, **headers)


async def reconcile(world: World, **members: Any) -> dict[str, Any]:
    """Compare days, and wait until it is done."""
    status, run = await ask(world, "POST", "/metering/reconciliations", members)
    assert (status, run["status"]) == (201, "planning"), run
    return await done(world, run["reconciliation_id"])


async def done(world: World, reconciliation_id: str) -> dict[str, Any]:
    """Wait until a comparison is done."""

    async def look() -> Any:
        _, page = await ask(world, "GET", "/metering/reconciliations?limit=200")
        (run,) = [item for item in page["items"] if item["reconciliation_id"] == reconciliation_id]
        return run if run["status"] == "done" else None

    return await until(look, 60)  # type: ignore[no-any-return]


async def drifts(world: World, run: dict[str, Any], **filters: str) -> list[dict[str, Any]]:
    """All drifts of a comparison."""
    query = "&".join(f"{name}={value}" for name, value in {"limit": "200", **filters}.items())
    path = f"/metering/reconciliations/{run['reconciliation_id']}/drifts?{query}"
    status, page = await ask(world, "GET", path)
    assert status == 200, page
    return list(page["items"])


def told(found: Iterable[dict[str, Any]]) -> set[tuple[str, str]]:
    """Give (kind, message id) of drifts."""
    return {(drift["kind"], message_id) for drift in found for message_id in drift["sample_ids"]}
