"""Recording events: the steps that the bus door, the sweep and the replay of dead letters share.

Rule: docs/rules/metering.md, Writer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date, datetime
from typing import Any
from uuid import UUID

import structlog

from eb_contracts.metering import AcceptedEvent
from eb_kit.service import ServiceContext
from eb_kit.tx import Tx

from .domain.letters import Letter, unknown_project, unrecordable
from .domain.recording import EventKey, Received, Screened, compare, messages_of, record, screen
from .store import events as store
from .store import letters, projects

log = structlog.get_logger(__name__)

MOST_KNOWN_PROJECTS = 200_000


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
    await ensure_months(tx.context, min(times), max(times))
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


async def record_batch(tx: Tx, received: Sequence[Received]) -> None:
    """Store the events of a single batch; one that the database refuses is parked, and its neighbours are stored."""
    try:
        async with tx.connection.transaction():
            await record_events(tx, received)
    except store.REFUSED:
        for one in received:
            await _record_or_park(tx, one)


async def _record_or_park(tx: Tx, received: Received) -> None:
    try:
        async with tx.connection.transaction():
            await record_events(tx, [received])
    except store.REFUSED as error:
        log.warning("event refused by the database", trace_id=received.trace_id, error=type(error).__name__)
        await letters.insert_letters(tx, [unrecordable(received)])


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
    good = {
        one.dead_letter_id: one.received
        for one in found
        if one.received and owners.get(one.received.event.project_id) == one.org_id
    }
    if good:
        await record_events(tx, list(good.values()))
        await letters.update_replayed(tx, list(good))
    return len(good)


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
