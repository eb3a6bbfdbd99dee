"""Metering ingest, wired: settings, doors, and the months of event time that batches may name."""

from __future__ import annotations

from eb_kit.service import Service, ServiceContext

from . import flows
from .api import routes
from .consumers import handlers
from .jobs import jobs
from .settings import Settings


async def make_months(context: ServiceContext) -> None:
    """Have the running month's partition before the first take needs it."""
    now = context.clock.now()
    await flows.ensure_months(context, now, now)


SERVICE = Service(
    name="metering-ingest",
    schema="metering_ingest",
    settings=Settings,
    routes=routes,
    handlers=handlers,
    jobs=jobs,
    on_start=make_months,
    outlives_database=True,
)
