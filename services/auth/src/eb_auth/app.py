"""The wiring of the auth service."""

from __future__ import annotations

from eb_kit.service import Service, ServiceContext

from . import flows
from .api import routes
from .consumers import handlers
from .jobs import jobs
from .settings import Settings


async def have_a_signing_key(context: ServiceContext) -> None:
    """Make and announce the first signing key, before the doors open."""
    async with context.begin(f"system:{context.service_name}") as tx:
        await flows.ensure_signing_key(tx)
    await context.directory.refresh()


SERVICE = Service(
    name="auth",
    schema="auth",
    settings=Settings,
    routes=routes,
    handlers=handlers,
    jobs=jobs,
    on_start=have_a_signing_key,
)
