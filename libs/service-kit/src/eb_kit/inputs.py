"""Shapes of requests and answers, and the types their fields are made of.

An `Input` takes only the JSON types that were meant: no text for a number, no number for an instant; exact
decimals; no unknown member. A `View` is written with instants and decimals as docs/rules/http.md, Shapes says.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Annotated, Any, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    StringConstraints,
    TypeAdapter,
    ValidationError,
    WithJsonSchema,
)
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

from eb_contracts.errors import Fault
from eb_contracts.money import minor_digits

_INSTANT = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt][0-9]{2}:[0-9]{2}:[0-9]{2}(?:\.[0-9]{1,9})?(?:[Zz]|[+-][0-9]{2}:[0-9]{2})\Z"
)
_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}\Z")
_DECIMAL = re.compile(r"-?[0-9]{1,40}(?:\.[0-9]{1,40})?\Z")
_INTEGER = re.compile(r"-?[0-9]{1,18}\Z")


def _refuse(code: str, detail: str) -> PydanticCustomError:
    return PydanticCustomError(code, detail.replace("{", "{{"))


def read_instant(value: object) -> datetime:
    """Give an RFC 3339 instant in UTC (microseconds; finer digits are cut); PydanticCustomError otherwise."""
    if isinstance(value, datetime) and value.tzinfo is not None:
        return value.astimezone(UTC)
    if not isinstance(value, str) or not _INSTANT.match(value):
        raise _refuse("not_an_instant", "Must be an RFC 3339 time with seconds and an offset.")
    try:
        return datetime.fromisoformat(value.upper()).astimezone(UTC)
    except (ValueError, OverflowError):
        raise _refuse("not_an_instant", "There is no such time.") from None


def read_date(value: object) -> date:
    """Give a `YYYY-MM-DD` date; PydanticCustomError otherwise."""
    if isinstance(value, date) and not isinstance(value, datetime):
        return value
    if not isinstance(value, str) or not _DATE.match(value):
        raise _refuse("not_a_date", "Must be a date, YYYY-MM-DD.")
    try:
        return date.fromisoformat(value)
    except ValueError:
        raise _refuse("not_a_date", "There is no such date.") from None


def read_decimal(value: object) -> Decimal:
    """Give an exact decimal from a plain decimal string or a JSON number; PydanticCustomError otherwise."""
    if isinstance(value, bool):
        raise _refuse("not_a_number", "Must be a number or a decimal string.")
    if isinstance(value, int | Decimal):
        return Decimal(value)
    if not isinstance(value, str) or not _DECIMAL.match(value):
        raise _refuse("not_a_number", "Must be a number or a plain decimal string.")
    return Decimal(value)


def _read_text_only(value: object) -> object:
    if isinstance(value, str | bytes) or not isinstance(value, int | Decimal | list | dict):
        return value
    raise _refuse("wrong_type", "Must be a string.")


_READERS: dict[str, Callable[[Any], Any]] = {
    "datetime": read_instant,
    "date": read_date,
    "decimal": read_decimal,
    "uuid": _read_text_only,
}
_LAX = frozenset({"enum", "tuple", "set", "frozenset", "model"})
_BY_NAME = frozenset({"fields", "choices"})
_NO_SCHEMA = frozenset(
    {"metadata", "config", "default", "cls", "ref", "serialization", "expected", "members"}
)


def _exactly(schema: Any) -> Any:
    """Rewrite a core schema so that leaves are read by our readers and the rest stays strict."""
    if isinstance(schema, list):
        return [_exactly(item) for item in schema]
    if isinstance(schema, tuple):
        return tuple(_exactly(item) for item in schema)
    if not isinstance(schema, dict):
        return schema
    inside = {key: _exactly_member(key, value) for key, value in schema.items()}
    kind = schema.get("type")
    if kind in _READERS:
        serialization = inside.pop("serialization", None)
        leaf: Any = {**inside, "strict": False}
        return core_schema.no_info_before_validator_function(
            _READERS[kind], leaf, serialization=serialization
        )
    return {**inside, "strict": False} if kind in _LAX else inside


def _exactly_member(key: str, value: Any) -> Any:
    if key in _NO_SCHEMA:
        return value
    if key in _BY_NAME and isinstance(value, dict):
        return {name: _exactly(part) for name, part in value.items()}
    return _exactly(value)


class Input(BaseModel):
    """A body, a query or a part of one. Unknown members are refused; PATCH reads `model_fields_set`."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, allow_inf_nan=False, hide_input_in_errors=True
    )

    def __repr_args__(self) -> list[tuple[str | None, Any]]:
        """Show no values: they are what somebody sent, addresses and codes among them."""
        return []

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        schema: CoreSchema = _exactly(handler(source))
        return schema


class View(BaseModel):
    """An answer. Money fields are `str` made by eb_contracts.money; instants and decimals stay typed."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    def __repr_args__(self) -> list[tuple[str | None, Any]]:
        """Show no values: tokens are answers, too."""
        return []


@dataclass(frozen=True)
class Text:
    """Bounds, in characters, of a text that isn't only blanks: `name: Annotated[str, Text(1, 200)]`."""

    shortest: int
    longest: int

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        pattern = r"\S" if self.shortest else None
        return core_schema.str_schema(
            min_length=self.shortest, max_length=self.longest, pattern=pattern, strict=True
        )


def _whole_minute(instant: datetime) -> datetime:
    if instant.second or instant.microsecond:
        raise _refuse("not_a_whole_minute", "Must be a whole minute.")
    return instant


@dataclass(frozen=True)
class Digits:
    """Most digits before and after the point of a decimal that isn't negative; trailing zeros count as text."""

    whole: int
    decimals: int

    def __call__(self, value: object) -> Decimal:
        if isinstance(value, str):
            return self._from_text(value)
        number = read_decimal(value)
        if number < 0:
            raise _refuse("negative_number", "Must not be negative.")
        _, digits, exponent = number.as_tuple()
        return self._from_text(_plain(digits, int(exponent)))

    def _from_text(self, text: str) -> Decimal:
        if not re.match(rf"[0-9]{{1,{self.whole}}}(\.[0-9]{{1,{self.decimals}}})?\Z", text):
            raise _refuse(
                "number_out_of_bounds",
                f"Must be a decimal of at most {self.whole} digits before the point and {self.decimals} after it,"
                " and not negative.",
            )
        return Decimal(text)


def _plain(digits: tuple[int, ...], exponent: int) -> str:
    """Write an exact number without exponent and without trailing zeros after the point."""
    text = format(Decimal((0, digits, exponent)), "f")
    return text.rstrip("0").rstrip(".") if "." in text else text


def _currency(code: str) -> str:
    try:
        minor_digits(code)
    except ValueError:
        raise _refuse("unknown_currency", "Must be an ISO 4217 currency code.") from None
    return code


_DECIMAL_SCHEMA = {"anyOf": [{"type": "string", "pattern": r"^[0-9]+(\.[0-9]+)?$"}, {"type": "number"}]}

Slug = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9-]{1,62}$")]
"""A name in URLs: 2 to 63 of a-z, 0-9 and -, not beginning with -."""
MinuteInstant = Annotated[datetime, AfterValidator(_whole_minute)]
"""An instant at which something takes effect: whole minutes only."""
QuantityIn = Annotated[Decimal, BeforeValidator(Digits(18, 6)), WithJsonSchema(_DECIMAL_SCHEMA)]
"""A quantity: at most 18 digits and 6 decimals, not negative."""
PriceIn = Annotated[Decimal, BeforeValidator(Digits(12, 18)), WithJsonSchema(_DECIMAL_SCHEMA)]
"""A price: at most 12 digits and 18 decimals, not negative."""
CurrencyIn = Annotated[str, StringConstraints(pattern=r"^[A-Z]{3}$"), AfterValidator(_currency)]
"""An ISO 4217 currency code in capitals."""
Quantity = Annotated[Decimal, WithJsonSchema({"type": "string", "examples": ["12.5"]})]
"""A quantity in an answer: a decimal string without trailing zeros."""
Price = Quantity
"""A price in an answer: a decimal string without trailing zeros."""
Money = Annotated[str, WithJsonSchema({"type": "string", "examples": ["12.50"]})]
"""An amount in an answer: exactly the currency's decimals."""


def _count(value: object) -> object:
    return int(value) if isinstance(value, str) and _INTEGER.match(value) else value


READ_WHOLE = BeforeValidator(_count)
"""Reads the text of a query as a whole number; stands behind `Field(strict=True, …)` with the bounds."""


class Page(Input):
    """The query of a list; lists with filters subclass it."""

    limit: Annotated[int, Field(strict=True, ge=1, le=200), READ_WHOLE] = 50
    cursor: Annotated[str, Text(1, 2000)] | None = None


T = TypeVar("T")
_adapters: dict[Any, TypeAdapter[Any]] = {}


def validate(model: Any, value: object, *, is_text: bool = False) -> Any:
    """Give `value` as the model or type; ValidationError. `is_text`: a query, where all values are text."""
    adapter = _adapters.get(model)
    if adapter is None:
        adapter = _adapters[model] = TypeAdapter(model)
    return adapter.validate_python(value, strict=False if is_text else None)


CODES = {
    "missing": "required",
    "extra_forbidden": "unknown_field",
    "string_too_short": "too_short",
    "string_too_long": "too_long",
    "too_short": "too_short",
    "too_long": "too_long",
    "string_pattern_mismatch": "wrong_format",
    "uuid_parsing": "not_a_uuid",
    "enum": "not_a_choice",
    "literal_error": "not_a_choice",
    "greater_than": "too_small",
    "greater_than_equal": "too_small",
    "less_than": "too_large",
    "less_than_equal": "too_large",
    "int_from_float": "wrong_type",
    "value_error": "not_valid",
    "assertion_error": "not_valid",
}
"""Our stable codes for pydantic's error types; types not listed: `wrong_type` for `*_type` and `*_parsing`."""


def faults_of(error: ValidationError, value: object, prefix: str = "") -> tuple[Fault, ...]:
    """Give the faults with RFC 6901 pointers into `value`, each place and code once, in order."""
    found: dict[tuple[str, str], Fault] = {}
    for item in error.errors(include_url=False, include_input=False):
        pointer, code = prefix + _pointer(item["loc"], value, item["type"]), code_of(item["type"])
        found.setdefault((pointer, code), Fault(pointer, code, item["msg"].removeprefix("Value error, ")))
    return tuple(found.values())


def code_of(kind: str) -> str:
    """Give the stable code for one of pydantic's error types, or for a custom one of ours."""
    if kind in CODES:
        return CODES[kind]
    return "wrong_type" if kind.endswith(("_type", "_parsing")) else kind


def _pointer(loc: tuple[int | str, ...], value: Any, kind: str) -> str:
    """Follow `loc` through the input; what isn't there is a label of a union, or the member that is missing."""
    pointer = ""
    for at, step in enumerate(loc):
        is_there = (
            step in value if isinstance(value, dict) else isinstance(value, list) and isinstance(step, int)
        )
        if is_there:
            value = value[step]
        elif not (kind == "missing" and at == len(loc) - 1):
            continue
        pointer += "/" + str(step).replace("~", "~0").replace("/", "~1")
    return pointer
