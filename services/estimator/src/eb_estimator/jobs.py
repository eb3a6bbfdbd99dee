"""Clock doors of the estimator."""

from __future__ import annotations

from datetime import timedelta

from eb_kit.jobs import Jobs
from eb_kit.tx import Tx

from . import store

jobs = Jobs()

MOST_AT_ONCE = 500


@jobs.every(seconds=300)
async def forget_old_estimates(tx: Tx) -> int:
    """Delete cached estimates that are past their time; asked again, they are computed again."""
    before = tx.now - timedelta(days=tx.context.settings.estimate_kept_days)
    return await store.delete_estimates(tx, before, MOST_AT_ONCE)
