"""The rules of metering, without I/O: what counts once, what is summed, what an event must be."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eb_contracts.ids import new_id, partition_of
from eb_contracts.ledger import EntriesPosted, PostedEntry
from eb_contracts.metering import AcceptedEvent
from eb_kit import strictjson
from eb_metering_ingest.api.reading import as_sent, check, events_in, prefers_strict, sort_out
from eb_metering_ingest.domain.checks import Window, metadata_faults, without_denied
from eb_metering_ingest.domain.letters import parked
from eb_metering_ingest.domain.progress import progress_of
from eb_metering_ingest.domain.recording import (
    MOST_HOLDS,
    MOST_TRACES,
    Received,
    compare,
    content_hash,
    messages_of,
    record,
    screen,
)

NOW = datetime(2026, 11, 4, 10, 30, tzinfo=UTC)
WINDOW = Window.around(NOW, timedelta(days=35), timedelta(minutes=5))
ORGS = [new_id() for _ in range(3)]
PROJECTS = [new_id() for _ in range(2)]


def event(**members: Any) -> AcceptedEvent:
    """A valid event."""
    return AcceptedEvent.model_validate(
        {
            "request_id": "r-1",
            "sku": "sms",
            "quantity": "1",
            "org_id": ORGS[0],
            "project_id": PROJECTS[0],
            "time": NOW,
        }
        | members
    )


def received(one: AcceptedEvent, trace_id: str | None = None) -> Received:
    """The event as it came in a batch."""
    return Received(one, None, NOW, trace_id)


def sent(**members: Any) -> dict[str, Any]:
    """An event as JSON."""
    return {
        "request_id": "r-1",
        "sku": "sms",
        "quantity": "1",
        "org_id": str(ORGS[0]),
        "project_id": str(PROJECTS[0]),
        "time": "2026-11-04T10:00:00Z",
    } | members


any_event = st.builds(
    event,
    request_id=st.sampled_from([f"r-{n}" for n in range(12)]),
    sku=st.sampled_from(["sms", "mail"]),
    quantity=st.decimals("0.000001", "999999999999999999", places=6),
    org_id=st.sampled_from(ORGS),
    project_id=st.sampled_from(PROJECTS),
    time=st.integers(0, 180_000_000).map(lambda us: NOW - timedelta(hours=1) + timedelta(microseconds=us)),
)


@given(st.lists(any_event, max_size=60))
def test_each_key_counts_once_and_everything_else_came_again(events: list[AcceptedEvent]) -> None:
    screened = screen(received(one) for one in events)
    again = compare(screened, set(screened.offers), {})

    assert set(screened.offers) == {(one.org_id.int, one.request_id) for one in events}
    assert len(screened.offers) + sum(a.duplicates + len(a.conflicts) for a in again.values()) == len(events)


@given(st.lists(any_event, max_size=60))
def test_a_take_that_comes_again_is_all_duplicates_and_conflicts(events: list[AcceptedEvent]) -> None:
    first = screen(received(one) for one in events)
    recorded = {key: offer.content_hash for key, offer in first.offers.items()}
    again = compare(screen(received(one) for one in events), set(), recorded)

    counted = Counter(
        content_hash(one) == recorded[(one.org_id.int, one.request_id)]  # type: ignore[index]
        for one in events
    )
    assert sum(a.duplicates for a in again.values()) == counted[True]
    assert sum(len(a.conflicts) for a in again.values()) == counted[False]


@given(st.lists(any_event, max_size=60), st.randoms())
def test_usage_records_conserve_quantity_and_count_and_dont_depend_on_order(
    events: list[AcceptedEvent], random: Any
) -> None:
    once = list({(one.org_id, one.request_id): one for one in events}.values())

    def sums(order: list[AcceptedEvent]) -> dict[Any, Any]:
        made = record(screen(received(one) for one in order).offers.values())
        return {
            (u.org_id, u.project_id, u.sku, u.minute): (u.quantity, u.events)
            for message in messages_of(made.usage)
            for u in message.usage
        }

    shuffled = random.sample(once, len(once))
    assert sums(once) == sums(shuffled)
    assert sum(quantity for quantity, _ in sums(once).values()) == sum(one.quantity for one in once)
    assert sum(count for _, count in sums(once).values()) == len(once)


@given(st.lists(any_event, min_size=1, max_size=60))
def test_every_message_holds_one_partition_and_whole_minutes(events: list[AcceptedEvent]) -> None:
    made = record(screen(received(one) for one in events).offers.values())
    by_usage = {usage_id: offer.received.event for offer, usage_id in made.rows}
    for message in messages_of(made.usage):
        for one in message.usage:
            assert partition_of(one.org_id) == message.partition
            assert one.minute == by_usage[one.usage_id].time.replace(second=0, microsecond=0)


def test_a_record_names_at_most_sixteen_requests() -> None:
    events = [received(event(request_id=f"r-{n}"), f"{n:032x}") for n in range(40)]
    (usage,) = record(screen(events).offers.values()).usage
    assert usage.trace_ids == tuple(f"{n:032x}" for n in range(MOST_TRACES))


def test_a_record_names_the_holds_of_its_events_once_and_not_too_many() -> None:
    holds = [UUID(int=n + 1) for n in range(MOST_HOLDS + 5)]
    held = [event(request_id=f"r-{n}", hold_id=hold) for n, hold in enumerate([*holds[:1], *holds])]
    (usage,) = record(screen(received(one) for one in [event(), *held]).offers.values()).usage
    (plain,) = record(screen([received(event())]).offers.values()).usage

    assert usage.hold_ids == tuple(holds[:MOST_HOLDS])
    assert plain.hold_ids == ()


@pytest.mark.parametrize(
    ("members", "is_alike"),
    [
        ({"quantity": "1.000"}, True),
        ({"time": datetime.fromisoformat("2026-11-04T21:30:00+11:00")}, True),
        ({"source": "form_submit", "metadata": {"a": 1}}, True),
        ({"quantity": "1.000001"}, False),
        ({"sku": "sms2"}, False),
        ({"project_id": PROJECTS[1]}, False),
        ({"time": NOW + timedelta(microseconds=1)}, False),
    ],
)
def test_content_is_sku_project_quantity_and_instant(members: dict[str, Any], is_alike: bool) -> None:
    assert (content_hash(event(**members)) == content_hash(event())) is is_alike


@pytest.mark.parametrize("quantity", ["1", "0.000001", "999999999999999999.999999", 1, "007"])
def test_a_quantity_that_is_exact_and_positive_is_taken(quantity: Any) -> None:
    valid, faults = check(sent(quantity=quantity), WINDOW)
    assert valid is not None, faults
    assert valid.quantity == Decimal(str(quantity))


@pytest.mark.parametrize(
    "quantity",
    [
        "0",
        "-1",
        "1e3",
        "1.1234567",
        "1.0000000",
        "1000000000000000000",
        "",
        " 1",
        "1 ",
        "+1",
        "NaN",
        "١",
        True,
        None,
        [],
        0,
        -1,
    ],
)
def test_a_quantity_that_is_not_is_refused_with_a_pointer(quantity: Any) -> None:
    valid, faults = check(sent(quantity=quantity), WINDOW)
    assert valid is None
    assert {fault.pointer for fault in faults} == {"/quantity"}


def test_a_json_number_of_any_form_is_read_exactly() -> None:
    body = b'[{"quantity": 1e3}, {"quantity": 2.50}, {"quantity": 0.1}, {"quantity": 1.00000000000000000000}]'
    found = [check(sent(**one), WINDOW)[0] for one in strictjson.parse(body)]
    assert [one.quantity for one in found if one] == [
        Decimal(1000),
        Decimal("2.5"),
        Decimal("0.1"),
        Decimal(1),
    ]


@pytest.mark.parametrize(
    ("members", "pointer", "code"),
    [
        ({"time": "2026-11-04T10:35:00.000001Z"}, "/time", "time_in_future"),
        ({"time": "2026-09-30T10:29:59Z"}, "/time", "time_too_old"),
        ({"time": "2026-11-04T10:00:00"}, "/time", "not_an_instant"),
        ({"request_id": ""}, "/request_id", "wrong_format"),
        ({"request_id": "ä"}, "/request_id", "wrong_format"),
        ({"request_id": "x" * 129}, "/request_id", "wrong_format"),
        ({"request_id": "a\n"}, "/request_id", "wrong_format"),
        ({"sku": ""}, "/sku", "too_short"),
        ({"project_id": "x"}, "/project_id", "not_a_uuid"),
        ({"source": "other"}, "/source", "not_a_choice"),
        ({"surprise": 1}, "/surprise", "unknown_field"),
        ({"metadata": {"a": "x" * 5000}}, "/metadata", "metadata_too_large"),
        ({"metadata": {"deep": [{"E-Mail": "a@b.example"}]}}, "/metadata/deep/0/E-Mail", "personal_data"),
    ],
)
def test_a_member_that_is_not_valid_is_pointed_at(members: dict[str, Any], pointer: str, code: str) -> None:
    valid, faults = check(sent(**members), WINDOW)
    assert valid is None
    assert [(fault.pointer, fault.code) for fault in faults] == [(pointer, code)]


@given(st.lists(st.sampled_from([sent(), sent(quantity="0"), sent(time="x"), 7, None, {}]), max_size=12))
def test_sorting_out_a_batch_agrees_with_checking_each_event(events: list[Any]) -> None:
    batch = sort_out(events, WINDOW)
    assert [check(one, WINDOW)[0] is not None for one in events].count(True) == len(batch.valid)
    assert [one.at for one in batch.rejected] == [
        at for at, one in enumerate(events) if check(one, WINDOW)[0] is None
    ]


def test_a_cloudevent_is_read_as_an_event() -> None:
    cloud = {
        "id": "r-9",
        "time": "2026-11-04T10:00:00Z",
        "source": "form_submit",
        "data": sent(),
        "type": "x",
    }
    (one,) = events_in([cloud], "application/cloudevents-batch+json")
    valid, faults = check(one, WINDOW)
    assert valid is not None, faults
    assert (valid.request_id, valid.source, valid.sku) == ("r-9", "form_submit", "sms")


def test_faults_of_a_cloudevent_point_into_it() -> None:
    clouds: list[Any] = [
        {"id": "", "time": "x", "data": sent(quantity="0", metadata={"email": "a@b.example"})},
        {"id": "r-1", "time": "2026-11-04T10:00:00Z", "data": "text"},
    ]
    rejected = sort_out(events_in(clouds, "application/cloudevents-batch+json"), WINDOW).rejected
    one, other = as_sent(rejected, clouds)
    assert {fault.pointer for fault in one.faults} == {"/id", "/time", "/data/quantity"}
    assert "/id" in {fault.pointer for fault in other.faults}
    assert as_sent(sort_out([sent(sku="")], WINDOW).rejected, [sent(sku="")])


def test_what_denied_keys_hold_is_removed_before_parking() -> None:
    bad = sent(metadata={"Phone Number": "1", "list": [{"token": "t", "fine": 2}]})
    letter = parked(bad, ORGS[0], list(metadata_faults(bad["metadata"])), None)
    assert letter.event["metadata"] == {
        "Phone Number": "[removed]",
        "list": [{"token": "[removed]", "fine": 2}],
    }
    assert letter.request_id == "r-1"
    assert without_denied(7) == 7


@given(st.permutations(range(6)))
def test_progress_does_not_depend_on_order(order: list[int]) -> None:
    usage_id, entry = new_id(), UUID(int=7)
    posted = EntriesPosted(entries=(PostedEntry(org_id=ORGS[0], charge_id=str(usage_id), entry_id=entry),))
    foreign = EntriesPosted(entries=(PostedEntry(org_id=ORGS[0], charge_id="mine-1", entry_id=entry),))
    messages = [posted, foreign, posted, foreign, foreign, posted]
    (news,) = progress_of([messages[at] for at in order]).items()
    assert news[0] == (ORGS[0], usage_id)
    assert set(news[1].entry_ids) == {entry}
    assert news[1].status == "ledgered"


@pytest.mark.parametrize(
    ("headers", "is_strict"),
    [
        ([], False),
        (["handling=strict"], True),
        (["Handling=STRICT"], True),
        (['handling="strict"'], True),
        (["handling = strict; wait=3"], True),
        (["respond-async, handling=strict"], True),
        (["respond-async", "handling=strict"], True),
        (["handling=lenient, handling=strict"], False),
        (["handling=strict, handling=lenient"], True),
        (["handling=strictly"], False),
        (["handling"], False),
        (["xhandling=strict"], False),
        (['note="a, handling=strict"'], False),
        (['note="\\", handling=strict', "handling=strict"], True),
        ([",,;=,"], False),
    ],
)
def test_only_the_preference_itself_makes_a_batch_strict(headers: list[str], is_strict: bool) -> None:
    assert prefers_strict(headers) is is_strict
