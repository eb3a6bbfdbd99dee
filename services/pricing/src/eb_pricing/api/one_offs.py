"""One-off charges."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Annotated
from urllib.parse import quote
from uuid import UUID

from aiohttp import web
from pydantic import Field

from eb_contracts.errors import NotFound
from eb_kit.access import reach
from eb_kit.inputs import Input, QuantityIn, Text, View
from eb_kit.service import CONTEXT
from eb_kit.tx import Tx, begin
from eb_kit.web import accepted, read_body

from ..domain.charges import KeptCharge
from ..domain.errors import ChargeIdTaken, NoTerms, OutOfBounds, TermsMissing, Unacceptable
from ..domain.rating import OneOff
from ..flows import one_offs
from .routes import routes
from .shapes import ChargeView


class OneOffBody(Input):
    """A use to be charged: rated like an event at `time`. The client's `charge_id` names it for ever."""

    charge_id: Annotated[str, Text(1, 128)]
    org_id: UUID
    project_id: UUID | None = None
    sku: Annotated[str, Text(1, 128)]
    quantity: QuantityIn
    time: Annotated[datetime, Field(description="Within the same bounds as an event's time.")]

    def one_off(self) -> OneOff:
        """Give what is to be charged."""
        return OneOff(self.charge_id, self.org_id, self.project_id, self.sku, self.quantity, self.time)


class OneOffView(View):
    """The charge, and where its ledger lines appear."""

    charge: ChargeView
    entries_url: str

    @classmethod
    def of(cls, charge: KeptCharge) -> OneOffView:
        """Show a one-off charge."""
        query = f"org_id={charge.org_id}&charge_id={quote(charge.charge_id, safe='')}"
        return cls(charge=ChargeView.of(charge), entries_url=f"/ledger/entries?{query}")


@routes.post(
    "/billing/charges",
    body=OneOffBody,
    answer=OneOffView,
    status=202,
    errors=(ChargeIdTaken, NoTerms, NotFound, OutOfBounds, TermsMissing, Unacceptable),
)
async def make_one_off_charge(request: web.Request) -> web.Response:
    """Charge a use that no event tells of; 202 with the charge, whose ledger lines follow.

    The same `charge_id` with the same content gives the same charge; 409 `charge_id_taken` with another.
    """
    body = await read_body(request, OneOffBody)
    await reach(request, body.org_id)
    one_off = body.one_off()
    await one_offs.wait_for_facts(request.app[CONTEXT], one_off)
    async with begin(request) as tx:
        _must_be_in_time(tx, one_off.time)
        charge = await one_offs.charge_once(tx, one_off)
        return tx.answer(accepted(OneOffView.of(charge)))


def _must_be_in_time(tx: Tx, time: datetime) -> None:
    settings = tx.context.settings
    if time < tx.now - timedelta(days=settings.oldest_event_days):
        raise Unacceptable.at("/time", "time_too_old", "Lies further back than an event's time may.")
    if time > tx.now + timedelta(seconds=settings.latest_event_s):
        raise Unacceptable.at("/time", "time_in_future", "Lies in the future.")
