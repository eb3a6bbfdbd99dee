"""Replays: recorded usage of a range of time is sent downstream once more."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any
from uuid import UUID

from aiohttp import web
from pydantic import Field

from eb_contracts.errors import Fault
from eb_kit.access import reach
from eb_kit.inputs import Input, View
from eb_kit.problems import BodyInvalid
from eb_kit.tx import begin
from eb_kit.web import accepted, ok, path_uuid, read_body

from ..domain.replays import ceiling, floor
from ..store import replays
from .events import EARLIEST, LATEST, MOST_DAYS
from .routes import routes

MOST_COUNTED = 1_000_000


class ReplayUsage(Input):
    """Whose usage of which time; `from` and `to` are half open, 400 days apart at most, widened to whole minutes."""

    org_id: UUID
    start: datetime = Field(alias="from")
    end: datetime = Field(alias="to")


class ReplayView(View):
    """A replay. `events` are those in the range (counted up to a million until it is done)."""

    replay_id: UUID
    org_id: UUID
    start: datetime = Field(serialization_alias="from")
    end: datetime = Field(serialization_alias="to")
    status: str
    events: int
    sent_events: int
    sent_records: int
    created_at: datetime
    finished_at: datetime | None

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> ReplayView:
        """Show a row."""
        members = dict(row)
        return cls(start=members.pop("from_at"), end=members.pop("to_at"), **members)


@routes.post("/metering/replays", body=ReplayUsage, answer=ReplayView, status=202)
async def replay_usage(request: web.Request) -> web.Response:
    """Have recorded usage sent downstream once more, in the background: what was charged changes no bill."""
    body = await read_body(request, ReplayUsage)
    start, end = floor(body.start), body.end
    if not EARLIEST <= body.start < end <= LATEST or end - body.start > MOST_DAYS:
        raise BodyInvalid(
            faults=(
                Fault("/to", "range_invalid", "Must lie after `from`, by 400 days at most, in 2000 to 2199."),
            )
        )
    await reach(request, body.org_id)
    end = ceiling(end)
    async with begin(request) as tx:
        events = await replays.count_events(tx, body.org_id, start, end, MOST_COUNTED)
        row = await replays.insert_replay(tx, body.org_id, start, end, events)
        return tx.answer(accepted(ReplayView.of(row)))


@routes.get("/metering/replays/{replay_id}", answer=ReplayView)
async def get_replay(request: web.Request) -> web.Response:
    """Show how far a replay has come."""
    async with begin(request) as tx:
        return ok(ReplayView.of(await replays.get_replay(tx, path_uuid(request, "replay_id"))))
