"""Whether an action may start, and the holds that keep its amount free."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from uuid import UUID

from aiohttp import web
from prometheus_client import Counter

from eb_kit.access import reach
from eb_kit.db import WEATHER
from eb_kit.service import CONTEXT, ServiceContext
from eb_kit.tx import begin
from eb_kit.web import ok, path_uuid, read_body

from .. import store
from ..domain.errors import GuardrailUnavailable, InitiationDiffers
from ..domain.initiations import Action, Initiation
from ..flows import guards
from .guard_shapes import Authorize, AuthorizeView, HoldView
from .routes import routes

ANSWERS = Counter("eb_pricing_authorize_total", "Answers to authorize.", ["decision", "reason"])
UNAVAILABLE = Counter(
    "eb_pricing_guardrail_unavailable_total", "Questions to authorize that got no answer in time."
)
MOST_TOGETHER = 100


@dataclass(slots=True)
class _Desk:
    """Questions about one organisation that wait for their answers, and the task that answers them."""

    waiting: list[tuple[Action, asyncio.Future[Initiation]]] = field(default_factory=list)
    clerk: asyncio.Task[None] | None = None


@routes.post(
    "/pricing/authorize",
    body=Authorize,
    answer=AuthorizeView,
    idempotency="none",
    errors=(InitiationDiffers, GuardrailUnavailable),
)
async def authorize(request: web.Request) -> web.Response:
    """Say whether an action may start; with `hold`, keep its amount free until its event is charged.

    The same request_id again gets the same answer, for 24 hours. No answer within 200 ms (a setting): 503
    `guardrail_unavailable`, and what then happens is the caller's own rule; deny, for what is prepaid only.
    """
    body = await read_body(request, Authorize)
    await reach(request, body.org_id)
    context = request.app[CONTEXT]
    action = _action(body)
    try:
        async with asyncio.timeout(context.settings.authorize_deadline_ms / 1000):
            answer = await _ask(context, action)
    except (TimeoutError, *WEATHER):
        UNAVAILABLE.inc()
        raise GuardrailUnavailable(retry_after_s=1) from None
    if not answer.answers(action):
        raise InitiationDiffers
    ANSWERS.labels(answer.decision, answer.reason).inc()
    return ok(AuthorizeView.of(answer))


def _action(body: Authorize) -> Action:
    return Action(
        org_id=body.org_id,
        request_id=body.request_id,
        project_id=body.project_id,
        sku=body.sku,
        quantity=body.quantity,
        hold_ttl_s=body.hold_ttl if body.hold else None,
    )


async def _ask(context: ServiceContext, action: Action) -> Initiation:
    """Wait for the answer: the questions about an organisation that come together are answered together.

    They would have to wait for each other all the same, each in a transaction of its own.
    """
    desks: dict[UUID, _Desk] = context.extras.setdefault("authorizing", {})
    desk = desks.setdefault(action.org_id, _Desk())
    answer: asyncio.Future[Initiation] = asyncio.get_running_loop().create_future()
    desk.waiting.append((action, answer))
    if desk.clerk is None:
        desk.clerk = asyncio.create_task(_serve(context, action.org_id, desks))
    return await answer


async def _serve(context: ServiceContext, org_id: UUID, desks: dict[UUID, _Desk]) -> None:
    """Answer what waits about an organisation until nothing does, and close its desk."""
    try:
        await _answer_all(context, org_id, desks[org_id])
    finally:
        del desks[org_id]


async def _answer_all(context: ServiceContext, org_id: UUID, desk: _Desk) -> None:
    """Answer what waits, some together; who stopped waiting is left out."""
    while desk.waiting:
        some, desk.waiting = desk.waiting[:MOST_TOGETHER], desk.waiting[MOST_TOGETHER:]
        asked = [(action, answer) for action, answer in some if not answer.done()]
        try:
            async with context.begin(actor="system:pricing") as tx:
                found = await guards.authorize(tx, org_id, [action for action, _ in asked])
        except (TimeoutError, *WEATHER) as error:
            for _, answer in asked:
                if not answer.done():
                    answer.set_exception(error)
            continue
        for (_, answer), one in zip(asked, found, strict=True):
            if not answer.done():
                answer.set_result(one)


@routes.post("/pricing/holds/{hold_id}:release", answer=HoldView)
async def release_hold(request: web.Request) -> web.Response:
    """Release a hold before it ends by itself; 200 with it, again too."""
    async with begin(request) as tx:
        hold = await store.get_hold(tx, path_uuid(request, "hold_id"))
        await reach(request, hold.org_id)
        return tx.answer(ok(HoldView.of(await guards.release(tx, hold), tx.now)))
