"""Whether an action may start, and the holds that keep its amount free."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any
from uuid import UUID
from weakref import WeakValueDictionary

from aiohttp import web
from prometheus_client import Counter

from eb_kit.access import reach
from eb_kit.db import WEATHER
from eb_kit.service import CONTEXT
from eb_kit.tx import begin
from eb_kit.web import ok, path_uuid, read_body

from .. import guard_flows, store
from ..domain.errors import GuardrailUnavailable, InitiationDiffers
from ..domain.initiations import Action
from .guard_shapes import Authorize, AuthorizeView, HoldView
from .routes import routes

ANSWERS = Counter("eb_pricing_authorize_total", "Answers to authorize.", ["decision", "reason"])
UNAVAILABLE = Counter(
    "eb_pricing_guardrail_unavailable_total", "Questions to authorize that got no answer in time."
)
_leftover: set[asyncio.Task[Any]] = set()


@routes.post(
    "/pricing/authorize",
    body=Authorize,
    answer=AuthorizeView,
    errors=(InitiationDiffers, GuardrailUnavailable),
)
async def authorize(request: web.Request) -> web.Response:
    """Say whether an action may start; with `hold`, keep its amount free until its event is charged.

    The same request_id again gets the same answer, for 24 hours. No answer within 200 ms (a setting): 503
    `guardrail_unavailable`, and what then happens is the caller's own rule; deny, for what is prepaid only.
    """
    body = await read_body(request, Authorize)
    await reach(request, body.org_id)
    deadline_s = request.app[CONTEXT].settings.authorize_deadline_ms / 1000
    try:
        return await _within(deadline_s, _answer(request, body))
    except (TimeoutError, *WEATHER):
        UNAVAILABLE.inc()
        raise GuardrailUnavailable(retry_after_s=1) from None


async def _answer(request: web.Request, body: Authorize) -> web.Response:
    action = Action(
        org_id=body.org_id,
        request_id=body.request_id,
        project_id=body.project_id,
        sku=body.sku,
        quantity=body.quantity,
        hold_ttl_s=body.hold_ttl if body.hold else None,
    )
    async with _turn(request, body.org_id), begin(request) as tx:
        answer = await guard_flows.authorize(tx, action)
        response = tx.answer(ok(AuthorizeView.of(answer)))
    ANSWERS.labels(answer.decision, answer.reason).inc()
    return response


def _turn(request: web.Request, org_id: UUID) -> asyncio.Lock:
    """Give the queue of an organisation: in the database they would wait all the same, each on a connection."""
    turns: WeakValueDictionary[UUID, asyncio.Lock] = request.app[CONTEXT].extras.setdefault(
        "authorizing", WeakValueDictionary()
    )
    return turns.setdefault(org_id, asyncio.Lock())


async def _within(seconds: float, answering: Coroutine[Any, Any, web.Response]) -> web.Response:
    """Wait so long for an answer; TimeoutError then, without waiting until what is under way has been undone."""
    task = asyncio.create_task(answering)
    try:
        await asyncio.wait({task}, timeout=seconds)
        if task.done():
            return task.result()
        raise TimeoutError
    finally:
        if not task.done():
            task.cancel()
            _leftover.add(task)
            task.add_done_callback(_forget)


def _forget(task: asyncio.Task[Any]) -> None:
    _leftover.discard(task)
    if not task.cancelled():
        task.exception()


@routes.post("/pricing/holds/{hold_id}:release", answer=HoldView)
async def release_hold(request: web.Request) -> web.Response:
    """Release a hold before it ends by itself; 200 with it, again too."""
    async with begin(request) as tx:
        hold = await store.get_hold(tx, path_uuid(request, "hold_id"))
        await reach(request, hold.org_id)
        return tx.answer(ok(HoldView.of(await guard_flows.release(tx, hold), tx.now)))
