"""When a mail that could not be judged is tried again."""

from __future__ import annotations

from datetime import datetime, timedelta

FIRST_PAUSE_S = 15
LONGEST_PAUSE_S = 3600
GIVE_UP_AFTER = timedelta(hours=24)
LEASE = timedelta(seconds=60)
"""How long one process may take over a mail before another may try: longer than the deadline of a verdict."""


def next_attempt(received_at: datetime, now: datetime, attempts: int) -> datetime | None:
    """Give when to try again after `attempts` tries: 15 s, doubled each time, at most an hour apart.

    None from 24 h after receipt on: then the failure is final.
    """
    if now - received_at >= GIVE_UP_AFTER:
        return None
    return now + timedelta(seconds=min(FIRST_PAUSE_S * 2 ** min(attempts - 1, 20), LONGEST_PAUSE_S))
