"""How many requests a minute one organisation may make of one process, with all its people's tokens and all its keys.

The gateway counts per credential and per address, without knowing whose a credential is. Here it is known, once the
caller is. Rule: docs/rules/http.md, Gateway.
"""

from __future__ import annotations

from uuid import UUID

from .access import Caller
from .clock import Clock
from .problems import RateLimited

WINDOW_S = 60


class OrgLimit:
    """Counts in memory, in whole minutes of the machine's clock; `most` None counts nothing."""

    def __init__(self, clock: Clock, most: int | None) -> None:
        self._clock = clock
        self._most = most
        self._window = 0
        self._counts: dict[UUID, int] = {}

    def count(self, caller: Caller | None) -> None:
        """Count a request in its caller's organisation; raises RateLimited, with the seconds until the next minute.

        Open routes and callers in no organisation's context aren't counted.
        """
        if self._most is None or caller is None or caller.org_id is None:
            return
        window, seconds = divmod(int(self._clock.machine_now().timestamp()), WINDOW_S)
        if window != self._window:
            self._window, self._counts = window, {}
        count = self._counts[caller.org_id] = self._counts.get(caller.org_id, 0) + 1
        if count > self._most:
            raise RateLimited(retry_after_s=WINDOW_S - seconds)
