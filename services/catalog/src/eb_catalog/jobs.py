"""Clock doors: organisations whose terms are due are resolved batch by batch."""

from __future__ import annotations

from eb_kit.jobs import Jobs
from eb_kit.tx import Tx

from . import flows
from .store import orgs

jobs = Jobs()


@jobs.every(seconds=2)
async def resolve_due(tx: Tx) -> int:
    """Resolve what a change of a plan, a SKU or a tax rate left due: organisations, then plans themselves."""
    await orgs.lock_inputs(tx, alone=False)
    return await flows.resolve_due(tx) or await flows.resolve_plans(tx)
