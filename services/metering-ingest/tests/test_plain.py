"""The short way of a plain batch takes nothing that the long way wouldn't take alike."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eb_contracts.ids import new_id, partition_of
from eb_contracts.metering import BatchAccepted
from eb_kit import strictjson
from eb_metering_ingest.api import plain
from eb_metering_ingest.api.reading import sort_out
from eb_metering_ingest.domain.checks import Window

NOW = datetime(2026, 11, 4, 10, 30, tzinfo=UTC)
WINDOW = Window.around(NOW, timedelta(days=35), timedelta(minutes=5))
ORGS = [str(new_id()) for _ in range(20)]
EVENT: dict[str, Any] = {
    "request_id": "r-1",
    "sku": "sms",
    "quantity": "1",
    "org_id": ORGS[0],
    "project_id": ORGS[1],
    "time": "2026-11-04T10:00:00Z",
}
ONE = json.dumps([EVENT]).encode()
near = st.one_of(
    st.text(max_size=6),
    st.sampled_from(
        ["", " ", "0", "0.0", "1", "01.50", "1e3", "-1", "١", "a\x7f", "é", '"', "\\", "\0", "x" * 129]
    ),
    st.sampled_from(["backend", "replay", "sms", ORGS[0].upper(), "{" + ORGS[0] + "}", ORGS[0] + "\n"]),
    st.sampled_from(["2026-11-04T10:00:00+11:00", "2026-11-04 10:00:00Z", "2026-11-04T10:00:00.1234567Z"]),
    st.sampled_from(
        ["2026-11-04T24:00:00Z", "2026-09-01T10:00:00Z", "2026-11-04T10:36:00Z", "2026-11-04T10:00Z"]
    ),
    st.sampled_from([None, 1, 1.5, True, [], {}]),
)
names = st.sampled_from([*EVENT, "source", "metadata", "hold_id", "colour"])
valid = st.fixed_dictionaries(
    {
        "request_id": st.from_regex(r"\A[ -!#-\[\]-~]{1,12}\Z"),
        "sku": st.sampled_from(["sms", "a b", "x" * 128]),
        "quantity": st.from_regex(r"\A[0-9]{1,3}(\.[0-9]{1,6})?\Z", fullmatch=True),
        "org_id": st.sampled_from(ORGS),
        "project_id": st.sampled_from(ORGS),
        "time": st.sampled_from(
            ["2026-11-04T10:00:00Z", "2026-11-04T10:00:00.5+11:00", "2026-10-01T00:00:00-03:30"]
        ),
    },
    optional={"source": st.sampled_from(["backend", "replay"])},
)


def _same(event: Any) -> tuple[Any, ...]:
    return (
        event.request_id, event.sku, event.quantity, event.org_id, event.project_id, event.time, event.source,
        event.metadata, event.hold_id,
    )  # fmt: skip


def _travelled(batch: plain.PlainBatch) -> list[Any]:
    """Read the parts as the writer does."""
    head = {"batch_id": str(new_id()), "received_at": NOW.isoformat()}
    found = []
    for part in batch.parts():
        body = (
            json.dumps(head | {"partition": part.partition}).encode()[:-1]
            + b',"events":'
            + part.events
            + b"}"
        )
        events = BatchAccepted.from_bytes(body).events
        assert len(events) == part.weight
        assert {partition_of(event.org_id) for event in events} == {part.partition}
        found += events
    return found


@given(
    events=st.lists(valid, max_size=5),
    changes=st.lists(st.tuples(st.integers(0, 4), names, near), max_size=2),
)
def test_what_the_short_way_takes_the_long_way_takes_alike(events: Any, changes: Any) -> None:
    for at, name, value in changes:
        if at < len(events):
            events[at][name] = value
    body = json.dumps(events, ensure_ascii=False).encode("utf-8", "surrogatepass")
    found = plain.read(body, WINDOW)
    if found is None:
        return
    checked = sort_out(strictjson.parse(body), WINDOW)
    assert not checked.rejected
    assert found.org_ids == {str(event.org_id) for event in checked.valid}
    assert sorted(map(_same, _travelled(found)), key=repr) == sorted(map(_same, checked.valid), key=repr)


@given(events=st.lists(valid.filter(lambda event: float(event["quantity"]) > 0), min_size=1, max_size=5))
def test_usual_batches_go_the_short_way(events: Any) -> None:
    assert plain.read(json.dumps(events).encode(), WINDOW) is not None


@pytest.mark.parametrize("name", [*EVENT, "source"])
@pytest.mark.parametrize("again", [0, 1])
def test_a_member_named_twice_goes_the_long_way(name: str, again: int) -> None:
    member = json.dumps({name: EVENT.get(name, "backend")})[1:-1]
    once = json.dumps(EVENT | {"source": "backend"})
    twice = once[:-1] + "," + member + "}"
    assert plain.read(f"[{once}]".encode(), WINDOW) is not None
    assert plain.read(f"[{(once, twice)[again]},{twice}]".encode(), WINDOW) is None


@pytest.mark.parametrize(
    "body",
    [
        b"", b"[]", b"{}", b"null", b"[null]", b"[[]]", b"[{}]", b"\xef\xbb\xbf[]", b"[" * 10_000,
        ONE + b"x", ONE[:-1] + b",]", ONE + b"\0", ONE.replace(b"sms", b"s\xffs"), ONE.replace(b"sms", b"s\x01s"),
        ONE.replace(b"sms", b"s\\u0000"), ONE.replace(b'"1"', b"NaN"), json.dumps([EVENT] * 1001).encode(),
    ],
)  # fmt: skip
def test_what_is_no_plain_batch_goes_the_long_way(body: bytes) -> None:
    assert plain.read(body, WINDOW) is None


def test_a_batch_of_one_partition_travels_byte_by_byte() -> None:
    body = json.dumps([EVENT, EVENT | {"request_id": "r-2"}], indent=1).encode()
    found = plain.read(body, WINDOW)
    assert found is not None
    assert found.parts() == [plain.Part(partition_of(UUID(ORGS[0])), body, 2)]
