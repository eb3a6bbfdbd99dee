"""Whether this process is in touch: whether it would have heard of a revocation by now.

Revocations come through the broker into the read model and from there into memory. Each of these notes here when it
last answered, so that a door knows without asking. Rule: docs/rules/http.md, Outages.
"""

from __future__ import annotations

import math
import time
from collections.abc import Collection
from functools import partial

from prometheus_client import Gauge

IN_TOUCH_S = 5.0
SETTLED_S = 5.0
DATABASE, PUBLISH, CONSUME = "database", "publish", "consume"
SILENT = Gauge(
    "eb_silent_seconds",
    "Since when the database or a connection to the broker hasn't answered.",
    ["service", "source"],
)


class Touch:
    """When each source was last heard, by the monotonic clock: the instant of the question that it answered."""

    def __init__(self, service: str, sources: Collection[str]) -> None:
        """Expect these sources, none of which was heard yet."""
        self._began = time.monotonic()
        self._back_at = -math.inf
        self._heard = dict.fromkeys(sources, -math.inf)
        for source in sources:
            SILENT.labels(service, source).set_function(partial(self.silence_s, source))

    @property
    def sources(self) -> tuple[str, ...]:
        """Name what is expected to answer."""
        return tuple(self._heard)

    @property
    def holds(self) -> bool:
        """Tell whether every source answered what it was asked in the last five seconds.

        One that came back after a longer silence has five seconds to bring what was said meanwhile.
        """
        now = time.monotonic()
        return now - min(self._heard.values()) <= IN_TOUCH_S and now - self._back_at >= SETTLED_S

    def note(self, source: str, asked_at: float) -> None:
        """Note that a source answered what it was asked at this instant (`math.inf`: that it always will).

        KeyError for a source nobody expects.
        """
        now, last = time.monotonic(), max(self._heard[source], self._began)
        if min(asked_at, now) - last > IN_TOUCH_S:
            self._back_at = now
        self._heard[source] = max(self._heard[source], asked_at)

    def silence_s(self, source: str) -> float:
        """Give the seconds since a source was last heard; infinite before the first time."""
        return time.monotonic() - self._heard[source]
