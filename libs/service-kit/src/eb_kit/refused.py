"""Who was refused, as a line in the log and a count: what an investigation begins with.

Lines name the route, the code and who it was by id; never an address, a token or a body.
Rule: docs/security/logging.md, Refusals.
"""

from __future__ import annotations

import structlog
from aiohttp import web
from prometheus_client import Counter

from eb_contracts.errors import Refusal

from .access import OutOfReach, caller_or_none
from .problems import status_of
from .routing import ROUTE
from .telemetry import current_request_id

log = structlog.get_logger(__name__)

WATCHED = frozenset({401, 403, 429})
REFUSED = Counter(
    "eb_http_refused_total", "Requests refused for who sent them, or how many, by code.", ["code"]
)


def note(refusal: Refusal, request: web.Request) -> None:
    """Log and count a refusal that is about who calls; others are the client's mistakes and say nothing.

    What is hidden answers 404 like what is missing, and stands in the log as `out_of_reach`.
    """
    is_hidden = isinstance(refusal, OutOfReach)
    if not is_hidden and status_of(refusal) not in WATCHED:
        return
    code = "out_of_reach" if is_hidden else refusal.code
    REFUSED.labels(code).inc()
    who = caller_or_none(request)
    log.info(
        "request refused",
        code=code,
        status=status_of(refusal),
        route=request[ROUTE].name,
        actor=who.actor if who else None,
        on_behalf_of=(who.on_behalf_of or None) if who else None,
        org_id=str(who.org_id) if who and who.org_id else None,
        request_id=current_request_id(),
    )
