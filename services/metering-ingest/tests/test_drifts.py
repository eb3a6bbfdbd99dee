"""The comparison without I/O: both sides as lists, walked in batches, against a model that looks at all at once."""

from __future__ import annotations

from collections import defaultdict
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eb_contracts.ids import new_id
from eb_metering_ingest.domain.reconciling import (
    Drift,
    Message,
    Metered,
    Span,
    clip,
    count_days,
    drifts_of_events,
    drifts_of_messages,
    event_of,
    gather,
    is_over,
    missing,
    span_of,
)

SYDNEY, ORG, OTHER = "Australia/Sydney", new_id(), new_id()
FIRST, END = date(2026, 10, 3), date(2026, 10, 6)
"""Summer time begins on 4 October 2026 at 2:00: that day has 23 hours."""
SKUS = ("sms", "mail")


class Told(NamedTuple):
    """A line of the model's log."""

    message_id: str
    sku: str
    quantity: Decimal
    time: datetime


def message(told: Told, seq: int = 1, copies: int = 1) -> Message:
    """The line as the store gives it."""
    return Message(ORG, seq, "acme", told.message_id, ORG, told.sku, told.quantity, told.time, None, copies)


def metered(message_id: str = "m", *, voided: bool = False, **members: Any) -> Metered:
    """An event of an organisation."""
    given = {"sku": "sms", "quantity": Decimal(1), "time": at("2026-10-04T12:00"), "provider": None} | members
    return Metered(new_id(), message_id, is_voided=voided, **given)


def at(local: str) -> datetime:
    """An instant by Sydney's clocks."""
    return datetime.fromisoformat(local).replace(tzinfo=ZoneInfo(SYDNEY)).astimezone(UTC)


def span(sku: str = "sms", zone: str = SYDNEY, **members: Any) -> Span:
    """The days that are compared."""
    return Span(ORG, sku, zone, *span_of(FIRST, END, zone), **members)


@pytest.mark.parametrize(
    ("zone", "day", "hours", "begins"),
    [
        (SYDNEY, date(2026, 10, 3), 24, "2026-10-02T14:00"), (SYDNEY, date(2026, 10, 4), 23, "2026-10-03T14:00"),
        (SYDNEY, date(2026, 10, 5), 24, "2026-10-04T13:00"), (SYDNEY, date(2027, 4, 4), 25, "2027-04-03T13:00"),
        ("America/New_York", date(2026, 11, 1), 25, "2026-11-01T04:00"),
        ("UTC", date(2026, 10, 4), 24, "2026-10-04T00:00"),
        ("Australia/Lord_Howe", date(2026, 10, 4), 23.5, "2026-10-03T13:30"),
    ],
)  # fmt: skip
def test_days_are_cut_where_the_organisations_clocks_say(
    zone: str, day: date, hours: float, begins: str
) -> None:
    start, end = span_of(day, day + timedelta(days=1), zone)
    assert start == datetime.fromisoformat(begins).replace(tzinfo=UTC)
    assert (end - start) / timedelta(hours=1) == hours
    here = Span(ORG, "sms", zone, start, end)
    assert here.day_of(start) == here.day_of(end - timedelta(microseconds=1)) == day
    assert here.day_of(start - timedelta(microseconds=1)) == day - timedelta(days=1)


@pytest.mark.parametrize(
    ("told", "held", "kinds"),
    [
        ("2026-10-03T23:59:59.999999", "2026-10-03T23:59:59", []),
        ("2026-10-04T00:00", "2026-10-03T23:59:59", ["wrong_day"]),
        ("2026-10-03T23:59:59", "2026-10-04T00:00", ["wrong_day"]), ("2026-10-04T00:00", "2026-10-04T23:59:59", []),
        ("2026-10-04T23:59:59", "2026-10-05T00:00", ["wrong_day"]), ("2026-10-04T01:59", "2026-10-04T03:01", []),
    ],
)  # fmt: skip
def test_a_wrong_day_is_one_by_the_organisations_clocks(told: str, held: str, kinds: list[str]) -> None:
    found = drifts_of_messages(
        [message(Told("m", "sms", Decimal(1), at(told)))], {"m": [metered(time=at(held))]}, span()
    )
    assert [drift.kind for drift in found] == kinds


def test_what_a_log_and_events_can_differ_in() -> None:
    def of(*events: Metered, copies: int = 1, quantity: int = 1) -> list[tuple[str, int, int]]:
        told = message(Told("m", "sms", Decimal(quantity), at("2026-10-04T12:00")), copies=copies)
        found = drifts_of_messages([told], {"m": list(events)} if events else {}, span())
        return [(drift.kind, int(drift.provider_quantity), int(drift.metered_quantity)) for drift in found]

    assert of(metered()) == []
    assert of() == [("missing_here", 1, 0)]
    assert of(metered(), quantity=3) == [("wrong_quantity", 3, 1)]
    assert of(metered(sku="mail")) == [("wrong_sku", 1, 1)]
    assert of(metered(), copies=3) == [("double_there", 3, 1)]
    assert of(copies=2) == [("double_there", 2, 0), ("missing_here", 1, 0)]
    assert of(metered(), metered()) == [("double_here", 1, 2)]
    assert of(metered(voided=True)) == [("voided", 1, 0)]
    assert of(metered(voided=True), metered()) == []


def test_events_of_other_providers_and_rows_of_others_are_told_once() -> None:
    elsewhere = message(Told("m", "sms", Decimal(1), at("2026-10-08T00:00")))
    foreign = elsewhere._replace(org_id=OTHER)

    def of(event: Metered, told: list[Message], **members: Any) -> list[str]:
        return [drift.kind for drift in drifts_of_events([event], {"m": told}, span(**members))]

    assert of(metered(), []) == ["missing_there"]
    assert of(metered(voided=True), []) == []
    assert of(metered(), [foreign]) == ["missing_there"]
    assert of(metered(), [elsewhere]) == ["wrong_day"]
    assert of(metered(), [elsewhere._replace(time=at("2026-10-04T12:00"))]) == []
    assert of(metered(provider="other"), [], provider="acme") == []
    assert of(metered(provider="acme"), [], provider="acme") == ["missing_there"]


any_told = st.builds(
    Told,
    message_id=st.sampled_from([f"m-{n}" for n in range(10)]),
    sku=st.sampled_from(SKUS),
    quantity=st.integers(1, 3).map(Decimal),
    time=st.integers(-24 * 60, 96 * 60).map(lambda m: at("2026-10-03T00:00") + timedelta(minutes=m)),
)
near = st.sampled_from([timedelta(0), timedelta(minutes=1), timedelta(hours=-1), timedelta(days=1)])


def expected(log: list[Told], events: list[Metered]) -> set[tuple[str, str, date, date]]:
    """What a person would find who has both lists before them: (kind, id, day there, day here)."""
    begins, ends = span_of(FIRST, END, SYDNEY)

    def day(instant: datetime) -> date:
        return instant.astimezone(ZoneInfo(SYDNEY)).date()

    found = set()
    for message_id in {one.message_id for one in log} | {one.message_id for one in events}:
        told = [one for one in log if one.message_id == message_id]
        held = [one for one in events if one.message_id == message_id]
        there = told[0] if told else None
        here = held[0] if held else None
        is_told = there is not None and begins <= there.time < ends
        is_held = here is not None and begins <= here.time < ends
        if there and is_told and len(told) > 1:
            found.add(("double_there", message_id, day(there.time), day(there.time)))
        if there and is_told and not here:
            found.add(("missing_here", message_id, day(there.time), day(there.time)))
        if here and is_held and not there:
            found.add(("missing_there", message_id, day(here.time), day(here.time)))
        if there and here and (is_told or is_held):
            if day(there.time) != day(here.time):
                found.add(("wrong_day", message_id, day(there.time), day(here.time)))
            if there.sku != here.sku:
                found.add(("wrong_sku", message_id, day(there.time), day(there.time)))
            if there.quantity != here.quantity:
                found.add(("wrong_quantity", message_id, day(there.time), day(there.time)))
    return found


def walked(log: list[Told], events: list[Metered], batch: int) -> list[Drift]:
    """What the run finds: each SKU's messages, then each SKU's events, a few at once."""
    told: dict[str, list[Message]] = {}
    for seq, one in enumerate(log):
        copies = sum(other.message_id == one.message_id for other in log)
        told.setdefault(one.message_id, [message(one, seq, copies)])
    held: dict[str, list[Metered]] = defaultdict(list)
    for event in events:
        held[event.message_id].append(event)
    found: list[Drift] = []
    for sku in SKUS:
        here = span(sku)
        rows = [one for (one,) in told.values() if one.sku == sku and here.covers(one.time)]
        own = [one for one in events if one.sku == sku and here.covers(one.time)]
        for n in range(0, len(rows), batch):
            found += drifts_of_messages(rows[n : n + batch], held, here)
        for n in range(0, len(own), batch):
            found += drifts_of_events(own[n : n + batch], told, here)
    return found


@given(
    st.lists(any_told, max_size=14),
    st.lists(st.tuples(any_told, near, st.booleans()), max_size=10, unique_by=lambda one: one[0].message_id),
    st.integers(1, 5),
)
def test_every_drift_is_found_and_none_invented(
    log: list[Told], others: list[tuple[Told, timedelta, bool]], batch: int
) -> None:
    by_id = {one.message_id: one for one in reversed(log)}
    events = []
    for other, away, is_like in others:
        like = by_id.get(other.message_id, other) if is_like else other
        events.append(metered(like.message_id, sku=like.sku, quantity=like.quantity, time=like.time + away))
    found = walked(log, events, batch)

    tellings = [(drift.kind, drift.message_id, drift.day, drift.metered_day) for drift in found]
    assert len(tellings) == len(set(tellings)), "told twice"
    assert set(tellings) == expected(log, events)
    sums = gather(found)
    assert sum(one.messages for one in sums.values()) == len(found)
    assert sum(one.provider_quantity for one in sums.values()) == sum(
        drift.provider_quantity for drift in found
    )


def test_a_missing_message_becomes_an_event_of_its_provider_id() -> None:
    told = message(Told("m-1", "sms", Decimal(2), at("2026-10-04T12:00")))
    assert missing([told], {}) == [told]
    assert missing([told], {"m-1": [metered(voided=True)]}) == []
    event = event_of(told, OTHER, ORG)
    assert (event.request_id, event.quantity, event.time, event.source) == ("m-1", 2, told.time, "replay")
    assert event.project_id == OTHER


def test_nights_compare_only_what_logs_reach_over() -> None:
    whole = span_of(FIRST, END, SYDNEY)
    noon = datetime(2026, 10, 4, 12, tzinfo=UTC)
    assert clip(whole, None) == whole
    assert clip(whole, (noon, noon)) == (noon.replace(hour=0), noon.replace(hour=0) + timedelta(days=1))
    assert clip(whole, (noon - timedelta(days=9), noon + timedelta(days=9))) == whole
    assert clip(whole, (noon + timedelta(days=8), noon + timedelta(days=9))) is None


@pytest.mark.parametrize(
    ("drifting", "told", "held", "pct", "over"),
    [
        (0, 0, 0, "0", False), (1, 0, 0, "0.5", True), (1, 9, 9, "0", True), (5, 1000, 990, "0.5", False),
        (6, 1000, 990, "0.5", True),
    ],
)  # fmt: skip
def test_tolerance_is_a_share_of_the_day(drifting: int, told: int, held: int, pct: str, over: bool) -> None:
    assert is_over(drifting, told, held, Decimal(pct)) is over


def test_days_are_counted_and_summed() -> None:
    days = count_days([(FIRST, Decimal(1)), (END, Decimal(2)), (FIRST, Decimal(3))])
    assert days == {FIRST: (2, Decimal(4)), END: (1, Decimal(2))}
