"""Closing billing periods, and bringing them to other terms."""

from __future__ import annotations

import re
from datetime import datetime
from typing import Annotated
from uuid import UUID

from aiohttp import web

from eb_contracts.errors import NotFound
from eb_kit import idempotency
from eb_kit.access import reach
from eb_kit.inputs import Input, Text, View
from eb_kit.tx import begin
from eb_kit.web import accepted, ok, path_text, read_body

from ..domain.errors import NoTerms, PeriodNotOver, TermsMissing
from ..domain.periods import BillingPeriod, PeriodKey, Rerate
from ..flows import periods
from .routes import routes
from .shapes import Period

PERIOD = re.compile(r"[0-9]{4}-(0[1-9]|1[0-2])")


class CloseBody(Input):
    """Whose period to close."""

    org_id: UUID


class PeriodView(View):
    """A closed billing period; `charges` counts the adjusting charges and base fees that its close made."""

    org_id: UUID
    period: str
    starts_at: datetime
    ends_at: datetime
    closed_at: datetime
    closed_by: str
    charges: int

    @classmethod
    def of(cls, period: BillingPeriod) -> PeriodView:
        """Show a period; it must be settled."""
        plain = period._asdict()
        return cls.model_validate(period.key._asdict() | {name: plain[name] for name in PERIOD_PLAIN})


PERIOD_PLAIN = ("starts_at", "ends_at", "closed_at", "closed_by", "charges")


class RerateBody(Input):
    """Which period to bring to the terms now in force, and why; the reason stands on each charge."""

    org_id: UUID
    period: Period
    reason: Annotated[str, Text(3, 500)]


class RerateView(View):
    """A re-rating; `charges` counts the charges that it made."""

    rerate_id: UUID
    charges: int

    @classmethod
    def of(cls, rerate: Rerate) -> RerateView:
        """Show a re-rating."""
        return cls(rerate_id=rerate.rerate_id, charges=rerate.charges)


@routes.post(
    "/pricing/periods/{period}:close",
    body=CloseBody,
    answer=PeriodView,
    idempotency="required",
    errors=(PeriodNotOver, NoTerms, NotFound, TermsMissing),
)
async def close_period(request: web.Request) -> web.Response:
    """Close a billing period of an organisation before its time; 200 with it, also where it is closed.

    409 `period_not_over` before its end, by the organisation's time zone.
    """
    period = path_text(request, "period")
    if PERIOD.fullmatch(period) is None:
        raise NotFound
    body = await read_body(request, CloseBody)
    await reach(request, body.org_id)
    async with begin(request) as tx:
        closed = await periods.close(tx, PeriodKey(body.org_id, period))
        return tx.answer(ok(PeriodView.of(closed)))


@routes.post(
    "/pricing/rerate",
    body=RerateBody,
    answer=RerateView,
    status=202,
    idempotency="required",
    errors=(NoTerms, NotFound, TermsMissing, idempotency.KeyReused),
)
async def rerate(request: web.Request) -> web.Response:
    """Bring a period, also a closed one, to the terms now in force: one adjusting charge per changed counter.

    202 with how many charges that made. The Idempotency-Key is kept for ever.
    """
    body = await read_body(request, RerateBody)
    await reach(request, body.org_id)
    async with begin(request) as tx:
        key = PeriodKey(body.org_id, body.period)
        made = await periods.rerate_once(tx, key, body.reason)
        return tx.answer(accepted(RerateView.of(made)))
