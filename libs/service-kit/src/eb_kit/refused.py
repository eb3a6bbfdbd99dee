"""Who was refused, and for what, as lines in the log and counts: what an investigation begins with.

Lines name the route, the code and who it was by id; never an address, a token, a body or a member of one.
Rule: docs/security/logging.md, Refusals.
"""

from __future__ import annotations

import asyncio
from collections import Counter as Tally
from dataclasses import dataclass, field

import structlog
from aiohttp import web
from prometheus_client import Counter

from eb_contracts.errors import Refusal

from .access import OutOfReach, caller_or_none
from .problems import status_of
from .routing import ROUTE
from .telemetry import current_request_id, current_trace

log = structlog.get_logger(__name__)

WATCHED = frozenset({401, 403, 429})
SHAPES = frozenset({400, 405, 408, 409, 413, 415, 417, 422})
WINDOW_S = 60.0
MOST_CALLERS, MOST_ROUTES = 200, 5
"""Lines a window, and routes a line: what comes beyond is counted together, as of others."""
OTHERS = "others"
REFUSED = Counter("eb_http_refused_total", "Requests refused, by code.", ["code"])


@dataclass(slots=True)
class _Refused:
    """What one caller was refused in a window; `who` and the ids are those of the first time."""

    who: dict[str, str | None]
    request_id: str | None
    trace_id: str
    codes: Tally[str] = field(default_factory=Tally)
    routes: dict[str, None] = field(default_factory=dict)


class Refusals:
    """Notes refusals of one process: those about who calls at once, those of shapes and rules once a minute."""

    def __init__(self) -> None:
        self._refused: dict[tuple[str | None, str | None], _Refused] = {}
        self._end: asyncio.TimerHandle | None = None

    def note(self, refusal: Refusal, request: web.Request) -> None:
        """Log and count a refusal. What is hidden answers 404 like what is missing, and is noted as `out_of_reach`.

        Plain 404 and bad weather say nothing about anybody.
        """
        status = status_of(refusal)
        if isinstance(refusal, OutOfReach):
            self._note_now("out_of_reach", status, request)
        elif status in WATCHED:
            self._note_now(refusal.code, status, request)
        elif status in SHAPES:
            self._note_later(refusal.code, request)

    def _note_now(self, code: str, status: int, request: web.Request) -> None:
        REFUSED.labels(code).inc()
        route, request_id = request[ROUTE].name, current_request_id()
        log.info(
            "request refused", code=code, status=status, route=route, **_who(request), request_id=request_id
        )

    def _note_later(self, code: str, request: web.Request) -> None:
        REFUSED.labels(code).inc()
        if self._end is None:
            self._end = asyncio.get_running_loop().call_later(WINDOW_S, self.flush)
        who = _who(request)
        caller = who["actor"], who["on_behalf_of"]
        if caller not in self._refused and len(self._refused) >= MOST_CALLERS:
            caller, who = (OTHERS, None), {"actor": OTHERS}
        found = self._refused.get(caller)
        if found is None:
            found = _Refused(who, current_request_id(), current_trace().trace_id)
            self._refused[caller] = found
        found.codes[code] += 1
        if len(found.routes) < MOST_ROUTES:
            found.routes[request[ROUTE].name] = None

    def flush(self) -> None:
        """Write the window's lines, one a caller; the next refusal begins another window."""
        if self._end is not None:
            self._end.cancel()
            self._end = None
        told, self._refused = self._refused, {}
        for one in told.values():
            log.info(
                "requests refused for their shape",
                **one.who,
                count=one.codes.total(),
                codes=dict(one.codes),
                routes=list(one.routes),
                first_request_id=one.request_id,
                trace_id=one.trace_id,
            )


def _who(request: web.Request) -> dict[str, str | None]:
    """Name the caller by ids; all None without a credential that is one."""
    who = caller_or_none(request)
    return {
        "actor": who.actor if who else None,
        "on_behalf_of": (who.on_behalf_of or None) if who else None,
        "org_id": str(who.org_id) if who and who.org_id else None,
    }
