"""The wiring of the auth service."""

from __future__ import annotations

from eb_kit.service import Service, ServiceContext

from .api import routes
from .consumers import handlers
from .flows import facts, signing
from .jobs import jobs
from .settings import Settings
from .store.facts import LISTERS


async def prepare(context: ServiceContext) -> None:
    """Before the doors open: have a signing key, and know every entity of one's own."""
    actor = f"system:{context.service_name}"
    async with context.begin(actor) as tx:
        await signing.ensure_signing_key(tx)
    for entity in LISTERS:
        last: str | None = ""
        while last is not None:
            async with context.begin(actor) as tx:
                last = await facts.recall(tx, entity, last or None)
    await context.directory.refresh()


SERVICE = Service(
    name="auth",
    schema="auth",
    settings=Settings,
    routes=routes,
    handlers=handlers,
    jobs=jobs,
    on_start=prepare,
)
