"""Bus doors: accepted batches are recorded; charges and entries tell how far usage has come."""

from __future__ import annotations

from collections.abc import Sequence

from eb_contracts.auth import ProjectChanged
from eb_contracts.ledger import EntriesPosted
from eb_contracts.metering import BatchAccepted
from eb_contracts.pricing import ChargePriced, UsageParked
from eb_kit.bus import Handlers
from eb_kit.tx import Tx

from . import flows
from .domain.alerts import hours_of
from .domain.progress import progress_of
from .domain.recording import Received
from .store import progress

handlers = Handlers()


@handlers.keeps(ProjectChanged)
async def hurry_waiting(tx: Tx, facts: list[ProjectChanged]) -> None:
    """Have events that wait for these projects looked at first; the sweep would find them anyway."""
    tx.context.extras.setdefault(flows.HURRIED, set()).update(fact.project_id for fact in facts)


@handlers.consumes(BatchAccepted, queue="batches", max_messages=1000, max_weight=10_000, linger_s=0.03)
async def record_batches(tx: Tx, messages: list[BatchAccepted]) -> None:
    """Store the events of a take, each once, and publish the usage they sum to.

    Twice is once (event_key); order is free (only sums leave). A take that fails comes again in halves, down to
    the single batch, of which only the bad event is parked.
    """
    received = [
        Received(event, batch.batch_id, batch.received_at, batch.trace_id)
        for message in messages
        for batch in message.batches
        for event in batch.events
    ]
    if len(messages) == 1:
        await flows.record_batch(tx, received)
    else:
        await flows.record_events(tx, received)


async def note_progress(tx: Tx, messages: Sequence[ChargePriced | UsageParked | EntriesPosted]) -> None:
    """Note which usage waits, was priced and was ledgered; twice is once, and order is free (forward only)."""
    await progress.update_progress(tx, progress_of(messages))
    await flows.add_hours(tx, hours_of(messages, tx.now))


handlers.consumes(ChargePriced, queue="progress", max_messages=1000, linger_s=0.25, prefetch=1000)(
    note_progress
)
handlers.consumes(UsageParked, queue="progress")(note_progress)
handlers.consumes(EntriesPosted, queue="progress")(note_progress)
