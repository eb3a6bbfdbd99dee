"""Inputs take what was meant and nothing that merely resembles it."""

from __future__ import annotations

from datetime import UTC, date, datetime
from decimal import Decimal
from enum import StrEnum
from typing import Annotated, Any, Literal
from uuid import UUID

import pytest
from pydantic import Field, ValidationError

from eb_kit.inputs import (
    CurrencyIn,
    Input,
    MinuteInstant,
    PriceIn,
    QuantityIn,
    Slug,
    Text,
    faults_of,
    validate,
)


class Colour(StrEnum):
    RED = "red"


class Part(Input):
    size: int


class Everything(Input):
    uuid: UUID | None = None
    at: datetime | None = None
    minute: MinuteInstant | None = None
    on: date | None = None
    number: Decimal | None = None
    quantity: QuantityIn | None = None
    positive: Annotated[QuantityIn, Field(gt=0)] | None = None
    price: PriceIn | None = None
    currency: CurrencyIn | None = None
    slug: Slug | None = None
    text: Annotated[str, Text(1, 5)] | None = None
    colour: Colour | None = None
    mode: Literal["a", "b"] | None = None
    flag: bool | None = None
    count: int | None = None
    part: Part | None = None
    parts: tuple[Part, ...] = ()
    part_list: list[Part] | None = None
    by_name: dict[str, Part] | None = None
    either: Part | Annotated[str, Text(1, 3)] | None = None


U = "0199b1f0-0000-7000-8000-000000000001"


@pytest.mark.parametrize(
    ("field", "given", "expected"),
    [
        ("uuid", U, UUID(U)),
        ("at", "2026-11-04T12:00:00+10:00", datetime(2026, 11, 4, 2, tzinfo=UTC)),
        ("at", "2026-11-04t02:00:00.5z", datetime(2026, 11, 4, 2, 0, 0, 500_000, tzinfo=UTC)),
        ("at", "2026-11-04T02:00:00.123456789Z", datetime(2026, 11, 4, 2, 0, 0, 123_456, tzinfo=UTC)),
        ("minute", "2026-11-04T02:00:00.000Z", datetime(2026, 11, 4, 2, tzinfo=UTC)),
        ("on", "2026-11-04", date(2026, 11, 4)),
        ("number", "-1.50", Decimal("-1.50")),
        ("number", Decimal("1E+3"), Decimal("1E+3")),
        ("quantity", "0", Decimal(0)),
        ("quantity", 12, Decimal(12)),
        ("quantity", Decimal("100E-2"), Decimal(1)),
        ("quantity", Decimal("1.0000000000"), Decimal(1)),
        ("quantity", "999999999999999999.999999", Decimal("999999999999999999.999999")),
        ("price", "0.000000000000000001", Decimal("0.000000000000000001")),
        ("currency", "JPY", "JPY"),
        ("slug", "a1", "a1"),
        ("text", "a b", "a b"),
        ("colour", "red", Colour.RED),
        ("mode", "a", "a"),
        ("flag", True, True),
        ("count", 3, 3),
        ("part", {"size": 1}, Part(size=1)),
        ("parts", [{"size": 1}], (Part(size=1),)),
        ("part_list", [{"size": 1}], [Part(size=1)]),
        ("by_name", {"x": {"size": 1}}, {"x": Part(size=1)}),
        ("either", "abc", "abc"),
        ("either", {"size": 2}, Part(size=2)),
    ],
)
def test_what_was_meant_is_taken(field: str, given: Any, expected: Any) -> None:
    assert getattr(validate(Everything, {field: given}), field) == expected


@pytest.mark.parametrize(
    ("field", "given", "code"),
    [
        ("uuid", 1, "wrong_type"),
        ("uuid", "x", "not_a_uuid"),
        ("at", 1_700_000_000, "not_an_instant"),
        ("at", "1700000000", "not_an_instant"),
        ("at", "2026-11-04", "not_an_instant"),
        ("at", "2026-11-04T02:00:00", "not_an_instant"),
        ("at", "2026-11-04T02:00Z", "not_an_instant"),
        ("at", "2026-02-30T02:00:00Z", "not_an_instant"),
        ("at", "0001-01-01T00:00:00+14:00", "not_an_instant"),
        ("at", "2026-11-04T02:00:00+99:00", "not_an_instant"),
        ("at", "２026-11-04T02:00:00Z", "not_an_instant"),
        ("minute", "2026-11-04T02:00:01Z", "not_a_whole_minute"),
        ("minute", "2026-11-04T02:00:00.000001Z", "not_a_whole_minute"),
        ("on", "2026-11-31", "not_a_date"),
        ("on", 20261104, "not_a_date"),
        ("number", True, "not_a_number"),
        ("number", "1e3", "not_a_number"),
        ("number", " 1", "not_a_number"),
        ("number", "1_0", "not_a_number"),
        ("number", "NaN", "not_a_number"),
        ("number", "١", "not_a_number"),
        ("number", "9" * 41, "not_a_number"),
        ("quantity", True, "not_a_number"),
        ("quantity", "1.0000000", "number_out_of_bounds"),
        ("quantity", "-1", "number_out_of_bounds"),
        ("quantity", -1, "negative_number"),
        ("quantity", "", "number_out_of_bounds"),
        ("quantity", "1\n", "number_out_of_bounds"),
        ("quantity", Decimal("0.0000001"), "number_out_of_bounds"),
        ("quantity", 10**18, "number_out_of_bounds"),
        ("positive", "0", "too_small"),
        ("price", "1234567890123", "number_out_of_bounds"),
        ("currency", "AU", "wrong_format"),
        ("currency", "XQX", "unknown_currency"),
        ("slug", "-a", "wrong_format"),
        ("slug", "a", "wrong_format"),
        ("slug", "ab\n", "wrong_format"),
        ("text", "", "too_short"),
        ("text", "   ", "wrong_format"),
        ("text", "abcdef", "too_long"),
        ("text", 5, "wrong_type"),
        ("colour", "blue", "not_a_choice"),
        ("mode", "c", "not_a_choice"),
        ("flag", 1, "wrong_type"),
        ("flag", "true", "wrong_type"),
        ("count", "3", "wrong_type"),
        ("count", True, "wrong_type"),
        ("count", Decimal("3.0"), "wrong_type"),
        ("part", [], "wrong_type"),
        ("parts", {"size": 1}, "wrong_type"),
        ("parts", "ab", "wrong_type"),
        ("nope", 1, "unknown_field"),
    ],
)
def test_what_only_resembles_it_is_refused_with_a_code(field: str, given: Any, code: str) -> None:
    value = {field: given}
    with pytest.raises(ValidationError) as refused:
        validate(Everything, value)

    assert [(fault.pointer, fault.code) for fault in faults_of(refused.value, value)] == [(f"/{field}", code)]


@pytest.mark.parametrize(
    ("value", "pointers"),
    [
        ({"part": {}}, ["/part/size"]),
        ({"parts": [{"size": 1}, {"size": "x"}]}, ["/parts/1/size"]),
        ({"by_name": {"a/b~c": {"size": "x"}}}, ["/by_name/a~1b~0c/size"]),
        ({"either": {"size": "x"}}, ["/either/size", "/either"]),
        ({"nope": 1, "other": 2}, ["/nope", "/other"]),
        ([], [""]),
    ],
)
def test_pointers_lead_into_the_input(value: Any, pointers: list[str]) -> None:
    with pytest.raises(ValidationError) as refused:
        validate(Everything, value)

    assert [fault.pointer for fault in faults_of(refused.value, value)] == pointers


class OddNames(Input):
    type: Decimal
    default: UUID
    config: datetime
    ref: Decimal


def test_members_may_have_any_name() -> None:
    read = validate(OddNames, {"type": "1", "default": U, "config": "2026-11-04T02:00:00Z", "ref": 2})

    assert (read.type, read.default, read.ref) == (1, UUID(U), 2)
