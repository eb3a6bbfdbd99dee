"""Clock doors of pricing: what became due because prices changed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from uuid import UUID

from prometheus_client import Gauge

from eb_contracts.metering import UsageRecord
from eb_kit.jobs import Jobs
from eb_kit.tx import Tx

from . import flows, store

jobs = Jobs()

WAITING = Gauge("eb_pricing_unrated_usage", "Usage records that wait for terms; counted up to 10,000.")


@jobs.every(seconds=2)
async def rate_what_became_due(tx: Tx) -> int:
    """Rate waiting usage of organisations whose prices changed, and re-rate their counters; give how many.

    Whatever was parked or rated by older facts is visible here (store.lock_terms), so nothing is missed;
    the arrival of a fact only marks. Rule: docs/rules/pricing.md, Usage without terms.
    """
    settings = tx.context.settings
    await store.lock_terms_shared(tx)
    due = await store.take_due(tx, settings.sweep_orgs)
    parked = await store.list_unrated_after(tx, due, settings.sweep_records) if due else {}
    if parked:
        await _rate_parked(tx, parked)
    elif due:
        await store.delete_due(tx, await flows.rerate_orgs(tx, list(due)))
    return len(due)


async def _rate_parked(tx: Tx, parked: Mapping[UUID, Sequence[UsageRecord]]) -> None:
    """Rate parked usage as far as it now can be. Counters are re-rated only when none is left to look at,
    in another transaction: one set of counters is locked in one transaction, or two could wait for each other.
    """
    records = [record for some in parked.values() for record in some]
    waiting = {one.usage.usage_id for one in await flows.rate_records(tx, records)}
    rated = [(one.org_id, one.usage_id) for one in records if one.usage_id not in waiting]
    await store.delete_unrated(tx, rated)
    await store.update_due(tx, {org_id: some[-1].usage_id for org_id, some in parked.items()})


@jobs.every(seconds=15)
async def measure_waiting(tx: Tx) -> int:
    """Keep the gauge of usage that waits, for alerts; takes nothing."""
    WAITING.set(await store.count_unrated(tx, 10_000))
    return 0
