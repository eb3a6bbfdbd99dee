"""Twins of messages: they mean what the models mean, whatever is in them, and refuse what the models refuse."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from types import UnionType
from typing import Any, get_args, get_origin

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from eb_contracts import carriers
from eb_contracts.base import ALL, Body, Partitioned
from eb_contracts.ids import new_id
from eb_contracts.ledger import EntriesPosted
from eb_contracts.metering import AcceptedEvent, BatchAccepted, UsageRecorded
from eb_contracts.pricing import ChargePriced

CARRIED = [BatchAccepted, UsageRecorded, ChargePriced, EntriesPosted]
EVENT: dict[str, Any] = {
    "request_id": "r-1",
    "sku": "sms",
    "quantity": "1.50",
    "org_id": str(new_id()),
    "project_id": str(new_id()),
    "time": "2026-11-04T10:00:00.25+11:00",
}
zones = st.sampled_from([UTC, timezone(timedelta(hours=11))])
words = st.text(st.characters(codec="utf-8", exclude_characters="nN"))
LEAVES: dict[Any, st.SearchStrategy[Any]] = {
    Decimal: st.decimals(-(10**17), 10**17, places=9) | st.just(Decimal("0E-8")),
    datetime: st.datetimes(datetime(1971, 1, 1), timezones=zones),  # noqa: DTZ001 - the zone is drawn
    str: words,
    dict[str, Any]: st.dictionaries(words, words | st.booleans() | st.integers(-9, 9)),
}


def built(annotation: Any) -> st.SearchStrategy[Any]:
    """Draw any value that a field may hold."""
    inside = get_args(annotation)
    if isinstance(annotation, type) and issubclass(annotation, Body):
        fields = {name: built(field.annotation) for name, field in annotation.model_fields.items()}
        if issubclass(annotation, Partitioned):
            fields["partition"] = st.integers(0, 15)
        return st.builds(annotation, **fields)
    if get_origin(annotation) is tuple:
        return st.lists(built(inside[0]), max_size=4).map(tuple)
    if get_origin(annotation) is UnionType:
        return st.one_of(*map(built, inside))
    return LEAVES.get(annotation, st.from_type(annotation))


@pytest.mark.parametrize("message", CARRIED)
@given(data=st.data())
def test_a_twin_says_in_json_what_its_model_says(message: Any, data: st.DataObject) -> None:
    model = data.draw(built(message))
    twin = message.from_bytes(model.to_bytes())
    assert isinstance(twin, carriers.Carrier)
    assert isinstance(twin, message)
    assert message.model_validate_json(twin.to_bytes()) == model
    assert (twin.routing_key, twin.subject, twin.weight, twin.traces) == (
        model.routing_key,
        model.subject,
        model.weight,
        model.traces,
    )
    assert twin.model_dump(mode="json") == model.model_dump(mode="json")


def test_twins_and_models_may_hold_each_other() -> None:
    model, twin = AcceptedEvent.model_validate(EVENT), AcceptedEvent.trusted(**_read(EVENT))
    around = {"partition": 3, "batch_id": new_id(), "received_at": datetime.now(UTC)}
    of_twins, of_models = (
        BatchAccepted(**around, events=(twin,)),
        BatchAccepted.trusted(**around, events=(model,)),
    )
    assert BatchAccepted.from_bytes(of_twins.to_bytes()) == BatchAccepted.from_bytes(of_models.to_bytes())


def test_everything_that_travels_in_partitions_is_carried() -> None:
    assert all(message.IS_CARRIED for message in ALL.values() if issubclass(message, Partitioned))


def test_decimals_travel_without_exponent() -> None:
    event = AcceptedEvent.trusted(**_read(EVENT | {"quantity": "0.00000000"}))
    assert b'"quantity":"0"' in event.to_bytes()  # type: ignore[attr-defined]  # every twin can


def _read(event: dict[str, Any]) -> dict[str, Any]:
    return dict(AcceptedEvent.model_validate(event))


@pytest.mark.parametrize("number", ["NaN", "nan", "Infinity", "-Infinity", "inf", "sNaN", "+inf", "1,5", ""])
def test_what_is_no_number_is_refused(number: str) -> None:
    with pytest.raises(ValidationError):
        BatchAccepted.from_bytes(_batch(EVENT | {"quantity": number}))


@pytest.mark.parametrize(
    "change", [{"org_id": "x"}, {"time": "yesterday"}, {"request_id": 5}, {"source": "else"}, {"sku": None}]
)
def test_what_has_the_wrong_type_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        BatchAccepted.from_bytes(_batch(EVENT | change))


def test_a_word_with_nan_in_it_is_no_number() -> None:
    read = BatchAccepted.from_bytes(_batch(EVENT | {"sku": "nan", "request_id": "banana"}))
    assert read.events[0].sku == "nan"


def test_members_that_nobody_knows_are_ignored_and_missing_ones_have_their_default() -> None:
    read = BatchAccepted.from_bytes(_batch(EVENT | {"colour": "red"}))
    assert isinstance(read, carriers.Carrier)
    assert (read.events[0].source, read.events[0].hold_id) == ("backend", None)


def test_fractions_in_metadata_stay_exact() -> None:
    text = b'{"x":0.1000000000000000055511151231257827}'
    read = BatchAccepted.from_bytes(_batch(EVENT).replace(b'"sku"', b'"metadata":' + text + b',"sku"'))
    assert read.events[0].metadata == {"x": Decimal("0.1000000000000000055511151231257827")}


def _batch(event: dict[str, Any]) -> bytes:
    message = {
        "partition": 3,
        "batch_id": str(new_id()),
        "received_at": "2026-11-04T00:00:00Z",
        "events": [event],
    }
    return json.dumps(message).encode()
