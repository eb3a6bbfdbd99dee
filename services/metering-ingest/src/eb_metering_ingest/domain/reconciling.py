"""What a provider says it sent, compared with what was metered: per organisation, SKU and day, by the message.

A message and an event are the same thing if the event's `metadata.provider_message_id`, or else its request id, is the
provider's id of the message. Days are cut in the organisation's time zone.

Rule: docs/rules/metering.md, Reconciliation.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Literal, NamedTuple
from uuid import UUID
from zoneinfo import ZoneInfo

from eb_contracts.metering import AcceptedEvent

Kind = Literal[
    "missing_here",
    "missing_there",
    "double_there",
    "double_here",
    "wrong_quantity",
    "wrong_day",
    "wrong_sku",
    "voided",
]
MOST_SAMPLES = 20
NOTHING = Decimal(0)
DAY = timedelta(days=1)


class Message(NamedTuple):
    """A message of a provider's log: the newest log's first word of it. `copies` is how often that log has it."""

    log_id: UUID
    seq: int
    provider: str
    message_id: str
    org_id: UUID
    sku: str
    quantity: Decimal
    time: datetime
    project_id: UUID | None
    copies: int


class Metered(NamedTuple):
    """A recorded event as far as a provider's log can tell of it; `provider` is what its metadata names."""

    event_id: UUID
    message_id: str
    sku: str
    quantity: Decimal
    time: datetime
    is_voided: bool
    provider: str | None


@dataclass(frozen=True, slots=True)
class Span:
    """What a run compares for one organisation and SKU; the instants are half open."""

    org_id: UUID
    sku: str
    zone: str
    starts_at: datetime
    ends_at: datetime
    provider: str | None = None
    only_sku: str | None = None

    def day_of(self, instant: datetime) -> date:
        """Give the organisation's day of an instant."""
        return instant.astimezone(ZoneInfo(self.zone)).date()

    def covers(self, instant: datetime) -> bool:
        """Tell whether an instant lies within."""
        return self.starts_at <= instant < self.ends_at

    def counts(self, event: Metered) -> bool:
        """Tell whether an event counts on our side: not voided, and not of a provider that isn't compared."""
        return not event.is_voided and (self.provider is None or event.provider in (None, self.provider))

    def compares(self, message: Message) -> bool:
        """Tell whether the run meets this message among the provider's, so that its drifts are told there."""
        return (
            message.org_id == self.org_id
            and self.covers(message.time)
            and self.provider in (None, message.provider)
            and self.only_sku in (None, message.sku)
        )


class Drift(NamedTuple):
    """One message that the two sides tell differently. The days differ for `wrong_day` only."""

    kind: Kind
    day: date
    metered_day: date
    message_id: str
    provider_quantity: Decimal
    metered_quantity: Decimal


class DriftKey(NamedTuple):
    """What drifts are summed by, within an organisation and SKU."""

    day: date
    metered_day: date
    kind: Kind


@dataclass(slots=True)
class DriftSum:
    """Drifts of one kind and day: how many messages, both quantities, some ids."""

    messages: int = 0
    provider_quantity: Decimal = NOTHING
    metered_quantity: Decimal = NOTHING
    sample_ids: list[str] = field(default_factory=list)

    def add(self, drift: Drift) -> None:
        """Add one message."""
        self.messages += 1
        self.provider_quantity += drift.provider_quantity
        self.metered_quantity += drift.metered_quantity
        if len(self.sample_ids) < MOST_SAMPLES:
            self.sample_ids.append(drift.message_id)


def span_of(first: date, end: date, zone: str) -> tuple[datetime, datetime]:
    """Give the instants at which the days from `first` to before `end` begin and end; a day may have 23 or 25 hours."""
    begins, ends = (datetime.combine(day, time(), ZoneInfo(zone)).astimezone(UTC) for day in (first, end))
    return begins, ends


def clip(
    span: tuple[datetime, datetime], told: tuple[datetime, datetime] | None
) -> tuple[datetime, datetime] | None:
    """Give the part of a span that logs reach over, from the first to the last one's day (UTC); all without `told`."""
    if told is None:
        return span
    first = told[0].astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    last = told[1].astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0) + DAY
    begins, ends = max(span[0], first), min(span[1], last)
    return (begins, ends) if begins < ends else None


def count_days(found: Iterable[tuple[date, Decimal]]) -> dict[date, tuple[int, Decimal]]:
    """Count and sum by day."""
    days: dict[date, tuple[int, Decimal]] = {}
    for day, quantity in found:
        count, total = days.get(day, (0, NOTHING))
        days[day] = (count + 1, total + quantity)
    return days


def gather(drifts: Iterable[Drift]) -> dict[DriftKey, DriftSum]:
    """Sum drifts by day and kind."""
    sums: dict[DriftKey, DriftSum] = {}
    for drift in drifts:
        sums.setdefault(DriftKey(drift.day, drift.metered_day, drift.kind), DriftSum()).add(drift)
    return sums


def drifts_of_messages(
    messages: Iterable[Message], metered: Mapping[str, Sequence[Metered]], span: Span
) -> Iterator[Drift]:
    """Compare a provider's messages with the organisation's events of their ids, first recorded first."""
    for message in messages:
        found = metered.get(message.message_id, ())
        live = [event for event in found if not event.is_voided]
        held = sum((event.quantity for event in live), NOTHING)
        day, quantity = span.day_of(message.time), message.quantity
        if message.copies > 1:
            yield Drift("double_there", day, day, message.message_id, quantity * message.copies, held)
        if len(live) > 1:
            yield Drift("double_here", day, day, message.message_id, quantity, held)
        if found:
            yield from _unlike(message, (live or found)[0], span)
        else:
            yield Drift("missing_here", day, day, message.message_id, quantity, NOTHING)


def drifts_of_events(
    events: Iterable[Metered], told: Mapping[str, Sequence[Message]], span: Span
) -> Iterator[Drift]:
    """Compare events with the messages of their ids; what the walk through the messages tells isn't told again."""
    for event in events:
        if not event.is_voided and not span.counts(event):
            continue
        own = [one for one in told.get(event.message_id, ()) if one.org_id == span.org_id]
        if own:
            if not any(span.compares(one) for one in own):
                yield from _unlike(own[0], event, span)
        elif not event.is_voided:
            day = span.day_of(event.time)
            yield Drift("missing_there", day, day, event.message_id, NOTHING, event.quantity)


def _unlike(message: Message, event: Metered, span: Span) -> Iterator[Drift]:
    """Say in what a message and its event differ; several things are several drifts."""
    day, metered_day = span.day_of(message.time), span.day_of(event.time)
    if event.is_voided:
        yield Drift("voided", day, day, message.message_id, message.quantity, NOTHING)
        return
    both = (message.message_id, message.quantity, event.quantity)
    if day != metered_day:
        yield Drift("wrong_day", day, metered_day, *both)
    if message.sku != event.sku:
        yield Drift("wrong_sku", day, day, *both)
    if message.quantity != event.quantity:
        yield Drift("wrong_quantity", day, day, *both)


def missing(messages: Iterable[Message], metered: Mapping[str, Sequence[Metered]]) -> list[Message]:
    """Give the messages that no event stands for."""
    return [message for message in messages if message.message_id not in metered]


def event_of(message: Message, project_id: UUID, reconciliation_id: UUID) -> AcceptedEvent:
    """Give the event that a missing message is metered by: its request id is the provider's id of it."""
    return AcceptedEvent(
        request_id=message.message_id,
        sku=message.sku,
        quantity=message.quantity,
        org_id=message.org_id,
        project_id=project_id,
        time=message.time,
        source="replay",
        metadata={"provider": message.provider, "reconciliation_id": str(reconciliation_id)},
    )


def is_over(drifting: int, told: int, metered: int, tolerance_pct: Decimal) -> bool:
    """Tell whether so many drifting messages of a day are more than is tolerated; both sides' counts are the day's."""
    return drifting * 100 > max(told, metered, 1) * tolerance_pct
