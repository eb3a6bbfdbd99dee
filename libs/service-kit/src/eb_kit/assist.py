"""Every request made inside an assist session leaves its entry, reads too: who, for whom, which route.

The row is written before the request is answered, in a transaction of its own, so that a refused or failed one
is seen as well; the audit trigger makes the entry. Rule: docs/rules/identity.md, Assist sessions.
"""

from __future__ import annotations

import structlog
from aiohttp import web

from eb_contracts.ids import new_id

from .access import Caller
from .routing import ROUTE
from .service import CONTEXT
from .tx import open_tx

log = structlog.get_logger(__name__)

LONGEST_PATH = 500
INSERT = """
    INSERT INTO assist_request (assist_request_id, assist_session_id, org_id, user_id, route, path, requested_at)
    VALUES ($1, $2, $3, $4, $5, $6, $7)
"""


async def record(request: web.Request, caller: Caller) -> None:
    """Write down and log, with both names, a request that an assist session's token came with."""
    assert caller.assist is not None
    route = request[ROUTE].name
    log.info(
        "request in an assist session", route=route, actor=caller.actor, on_behalf_of=caller.on_behalf_of
    )
    async with open_tx(request.app[CONTEXT], caller.actor, caller=caller) as tx:
        await tx.execute(
            INSERT,
            new_id(),
            caller.assist.assist_session_id,
            caller.org_id,
            caller.user_id,
            route,
            request.rel_url.raw_path[:LONGEST_PATH],
            tx.now,
        )
