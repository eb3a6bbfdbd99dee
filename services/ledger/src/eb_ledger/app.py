"""The ledger, wired: settings, doors, and the current month's partition before any of them opens."""

from __future__ import annotations

from eb_kit.service import Service, ServiceContext

from . import flows
from .api import routes
from .consumers import handlers
from .jobs import jobs
from .settings import Settings


async def make_month(context: ServiceContext) -> None:
    """Have this month's partition before the first take needs it."""
    await flows.ensure_month(context, context.clock.now().date().replace(day=1))


SERVICE = Service(
    name="ledger",
    schema="ledger",
    settings=Settings,
    routes=routes,
    handlers=handlers,
    jobs=jobs,
    on_start=make_month,
)
