"""Recording events: the steps that the bus door, the sweep and the replay of dead letters share.

Rule: docs/rules/metering.md, Writer.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import Any
from uuid import UUID

import structlog
from prometheus_client import Counter

from eb_contracts.errors import NotFound
from eb_contracts.metering import AcceptedEvent
from eb_kit.service import ServiceContext
from eb_kit.telemetry import current_trace
from eb_kit.tx import Tx

from .domain.alerts import Hour
from .domain.checks import refuse_far, split_storable
from .domain.errors import EventExpired
from .domain.letters import Letter, unknown_project, unrecordable
from .domain.recording import (
    EventKey,
    Received,
    Screened,
    batches_of,
    compare,
    messages_of,
    record,
    screen,
)
from .domain.voids import Void, usage_of_void
from .store import alerts, letters, projects, replays, voids
from .store import events as store

log = structlog.get_logger(__name__)

MOST_KNOWN_PROJECTS = 200_000
REPEATS = Counter("eb_metering_repeats_total", "Events under an id that was taken, by kind.", ["kind"])
VOIDS = Counter("eb_metering_voids_total", "Events that were voided.")
MOST_AWAITED = 1_000
APART_S = 2.0
"""How long one transaction tries events apart; it is cut at 5 s."""
MOST_IN_MESSAGE = 1_000
FIRST_ID = UUID(int=0)
HURRIED = "hurried_projects"
"""Where a process keeps the projects that it has just heard of, for its next sweep."""


async def ensure_months(context: ServiceContext, earliest: datetime, latest: datetime) -> None:
    """Have the partitions from one instant's month to another's before events of them come.

    In a transaction of its own: made inside the take, it would be lost with it. Remembered per process.
    """
    made: set[date] = context.extras.setdefault("event_months", set())
    for month in months_between(earliest, latest):
        if month in made:
            continue
        async with context.begin("system:metering-ingest") as own:
            await store.ensure_month(own, month)
        made.add(month)


async def ensure_months_of(
    context: ServiceContext,
    ensure_month: Callable[[Tx, date], Awaitable[None]],
    earliest: datetime,
    latest: datetime,
) -> None:
    """Have the partitions of another table by month, in the same manner; `ensure_month` makes one."""
    made: set[date] = context.extras.setdefault(f"months:{ensure_month.__module__}", set())
    for month in months_between(earliest, latest):
        if month in made:
            continue
        async with context.begin("system:metering-ingest") as own:
            await ensure_month(own, month)
        made.add(month)


async def add_hours(tx: Tx, sums: Mapping[alerts.SeriesHour, Hour]) -> None:
    """Add usage to its hours, from which alerts learn what is ordinary."""
    if sums:
        hours = [hour for _, _, hour in sums]
        await ensure_months_of(tx.context, alerts.ensure_month, min(hours), max(hours))
        await alerts.add_hours(tx, sums)


def months_between(earliest: datetime, latest: datetime) -> list[date]:
    """Name the first days of all months from one instant to another."""
    first, last = (time.year * 12 + time.month - 1 for time in (earliest, latest))
    return [date(month // 12, month % 12 + 1, 1) for month in range(first, last + 1)]


async def record_events(tx: Tx, received: Sequence[Received]) -> int:
    """Store events once each and publish their usage; park those of unknown projects. Gives how many were new.

    A constant number of statements. Locks event keys in key order until `tx` ends.
    """
    known = await _split_known(tx, received)
    if not known:
        return 0
    times = [one.event.time for one in known]
    refuse_far(tx.now, earliest := min(times), latest := max(times))
    await ensure_months(tx.context, earliest, latest)
    screened = screen(known)
    new = await store.insert_keys_once(tx, screened.offers)
    offers = screened.offers
    if screened.again or len(new) < len(offers):
        await _count_again(tx, screened, new)
        offers = {key: offer for key, offer in offers.items() if key in new}
    if offers:
        made = record(offers.values())
        await store.insert_events(tx, made.rows)
        tx.publish(*messages_of(made.usage))
    return len(offers)


async def _count_again(tx: Tx, screened: Screened, new: set[EventKey]) -> None:
    """Count what came again, and keep what was unlike the recorded event."""
    taken = screened.offers.keys() - new
    recorded = await store.list_contents(tx, taken) if taken else {}
    again = compare(screened, new, recorded)
    await store.update_repeats(tx, again)
    await store.insert_conflicts(tx, again)
    REPEATS.labels("duplicate").inc(sum(one.duplicates for one in again.values()))
    REPEATS.labels("conflict").inc(sum(len(one.conflicts) for one in again.values()))


async def record_batch(tx: Tx, received: Sequence[Received]) -> None:
    """Store the events of a single batch; those the database refuses are parked, and their neighbours are stored.

    What there is no time for, because so many are refused, leaves as a batch of its own and comes again.
    """
    try:
        async with tx.connection.transaction():
            await record_events(tx, received)
    except store.REFUSED:
        good, bad = split_storable(received)
        apart = Apart(refused=bad, left=[])
        await record_apart(tx, good, apart)
        await letters.insert_letters(tx, [unrecordable(one) for one in apart.refused])
        tx.publish(*batches_of(apart.left))


@dataclass(slots=True)
class Apart:
    """What couldn't be stored: refused, or left when the time was over."""

    refused: list[Received] = field(default_factory=list)
    left: list[Received] = field(default_factory=list)
    until: float = field(default_factory=lambda: asyncio.get_running_loop().time() + APART_S)

    @property
    def is_over(self) -> bool:
        """Tell whether the time is over."""
        return asyncio.get_running_loop().time() > self.until


async def record_apart(tx: Tx, received: Sequence[Received], apart: Apart) -> None:
    """Store events, in halves where the database refuses them, down to the single one; note what can't be stored."""
    if apart.is_over:
        apart.left += received
        return
    try:
        async with tx.connection.transaction():
            await record_events(tx, received)
    except store.REFUSED as error:
        if len(received) == 1:
            log.warning("event refused", trace_id=received[0].trace_id, error=type(error).__name__)
            apart.refused += received
            return
        middle = len(received) // 2
        await record_apart(tx, received[:middle], apart)
        await record_apart(tx, received[middle:], apart)


async def _split_known(tx: Tx, received: Sequence[Received]) -> list[Received]:
    """Give the events whose project is known and belongs to their organisation; park the others."""
    named = {one.event.project_id.int: one.event.project_id for one in received}
    owners = await known_projects(tx, set(named.values()))
    owner_of = {
        number: owners[project_id].int for number, project_id in named.items() if project_id in owners
    }
    known: list[Received] = []
    waiting: list[Received] = []
    for one in received:
        is_own = owner_of.get(one.event.project_id.int) == one.event.org_id.int
        (known if is_own else waiting).append(one)
    if waiting:
        await letters.insert_letters(tx, [unknown_project(one) for one in waiting])
    return known


async def known_projects(tx: Tx, project_ids: set[UUID]) -> dict[UUID, UUID]:
    """Give the organisation of each known project; remembered per process, since it never changes."""
    cache: dict[UUID, UUID] = tx.context.extras.setdefault("project_orgs", {})
    if missing := project_ids - cache.keys():
        if len(cache) > MOST_KNOWN_PROJECTS:
            cache.clear()
        cache |= await projects.list_owners(tx, missing)
    return cache


async def take_up(tx: Tx, found: Sequence[Letter]) -> int:
    """Record parked events that are valid by now, and close their letters; give how many."""
    owners = await known_projects(tx, {one.received.event.project_id for one in found if one.received})
    good = [
        one
        for one in found
        if one.received and owners.get(one.received.event.project_id) == one.received.event.org_id
    ]
    apart = Apart()
    await record_apart(tx, [one.received for one in good if one.received], apart)
    still_bad = set(map(id, (*apart.refused, *apart.left)))
    done = [one.dead_letter_id for one in good if id(one.received) not in still_bad]
    await letters.update_replayed(tx, done)
    return len(done)


async def take_arrived(tx: Tx) -> int:
    """Record events that waited for projects which are known by now; give how many.

    Looks at so many of the projects that are waited for, and goes on behind them the next time.
    """
    extras = tx.context.extras
    after: UUID = extras.pop("awaited_after", FIRST_ID)
    awaited = await letters.list_awaited(tx, after, MOST_AWAITED)
    if len(awaited) == MOST_AWAITED:
        extras["awaited_after"] = awaited[-1]
    hurried: set[UUID] = extras.pop(HURRIED, set())
    owners = await known_projects(tx, hurried.union(awaited))
    arrived = {
        project_id: owners[project_id] for project_id in hurried.union(awaited) if project_id in owners
    }
    if not arrived:
        return 0
    rows = await letters.take_arrived(tx, arrived, tx.context.settings.sweep_batch)
    return await take_up(tx, [waiting_letter(row) for row in rows])


def waiting_letter(row: Mapping[str, Any]) -> Letter:
    """Read the letter of a valid event that waited for its project."""
    event = AcceptedEvent.model_validate(row["event"])
    return letter_of(row, Received(event, None, row["first_at"], row["trace_id"]))


def letter_of(row: Mapping[str, Any], received: Received | None) -> Letter:
    """Read a letter from its row; `received` is the event in it, if it is valid now."""
    return Letter(
        dead_letter_id=row["dead_letter_id"],
        org_id=row["org_id"],
        request_id=row["request_id"],
        content_hash=b"",
        event=row["event"],
        errors=(),
        reason=row["reason"],
        trace_id=row["trace_id"],
        received=received,
    )


async def replay_some(tx: Tx, replay: Mapping[str, Any], batch: int) -> int:
    """Publish a replay's next usage records again, of `batch` events and what their last minute holds; give how many.

    Ids and sums are those of the first time; what was charged by them is not charged again.
    """
    ahead = await replays.find_place(tx, replay, batch)
    until = ahead.behind() if ahead else None
    usage = await replays.list_usage(tx, replay, until)
    for start in range(0, len(usage), MOST_IN_MESSAGE):
        tx.publish(*messages_of(usage[start : start + MOST_IN_MESSAGE]))
    events = sum(abs(record.events) for record in usage)
    await replays.update_replay(tx, replay["replay_id"], events, len(usage), until)
    return max(1, len(usage))


async def void_event(tx: Tx, org_id: UUID, request_id: str, reason: str) -> UUID:
    """Book the negative of a recorded event, once; give the id of the event that does.

    NotFound where nothing is recorded, EventExpired where its month has left. Locks the key until `tx` ends.
    """
    key = await voids.lock_key(tx, org_id, request_id)
    if key is None:
        raise NotFound
    if key["void_event_id"] is not None:
        return UUID(int=key["void_event_id"].int)
    void, trace_id = Void.of(reason), current_trace().trace_id
    stored = await voids.insert_void(tx, org_id, key, void, trace_id)
    if stored is None:
        raise EventExpired
    await voids.update_key(tx, org_id, request_id, void)
    tx.publish(usage_of_void(void, stored, trace_id))
    VOIDS.inc()
    log.info("event voided", org_id=str(org_id), void_event_id=str(void.event_id), actor=tx.actor)
    return void.event_id
