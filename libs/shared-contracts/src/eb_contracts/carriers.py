"""Light twins of the messages that carry usage and charges: the same fields and properties in a tenth of the time.

The pydantic model stays the one definition: a twin is made from its fields, and what a twin can't read (or must
not: NaN, infinities) the model reads or refuses. Twins are made by `Body.trusted` and `Message.from_bytes` alone.
"""

from __future__ import annotations

import re
from decimal import Decimal
from functools import cache
from types import UnionType
from typing import Any, ClassVar, Union, get_args, get_origin

import msgspec
from pydantic import BaseModel

_NO_NUMBER = re.compile(rb'"[+-]?(?:s?nan[0-9]*|inf(?:inity)?)"')
_EXPONENT = re.compile(rb'"[+-]?[0-9.]+E[+-]?[0-9]+"')
_REFUSED = (msgspec.MsgspecError, UnicodeDecodeError, ArithmeticError)


def plain(value: Any) -> Any:
    """Write a model inside of a twin, or a twin inside of a model."""
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    raise TypeError(f"no message holds a {type(value).__name__}")


_encode = msgspec.json.Encoder(enc_hook=plain).encode


class Carrier(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """What all twins share; `MODEL` is the message's definition."""

    MODEL: ClassVar[type[BaseModel]]

    def to_bytes(self) -> bytes:
        """Write the JSON body; decimals as strings without exponent."""
        body = _encode(self)
        if b"E" in body and _EXPONENT.search(body):
            return self.MODEL.model_validate_json(body).model_dump_json().encode()
        return body

    def replaced(self, **values: Any) -> Carrier:
        """Give it with other values, as the model does."""
        return msgspec.structs.replace(self, **values)

    def model_dump(self, **options: Any) -> dict[str, Any]:
        """Give the fields as the model does."""
        return self.MODEL.model_validate_json(_encode(self)).model_dump(**options)


@cache
def carrier_of(model: type[BaseModel]) -> type[Carrier]:
    """Give the twin of a model: its fields by name, type and default, and its own properties and constants."""
    fields = [
        (name, _carried(field.annotation))
        if field.is_required()
        else (name, _carried(field.annotation), field.default)
        for name, field in model.model_fields.items()
    ]
    twin: type[Carrier] = msgspec.defstruct(  # type: ignore[assignment]  # its base says that it is one
        model.__name__,
        fields,
        bases=(Carrier,),
        namespace=_own(model) | {"MODEL": model, "__doc__": model.__doc__, "__class__": _is_a(model)},
        module=model.__module__,
        frozen=True,
        gc=False,
        kw_only=True,
    )
    return twin


def _is_a(model: type[BaseModel]) -> property:
    """Have isinstance take a twin for its model; pydantic leaves only this way."""
    return property(lambda _: model)


def _own(model: type[BaseModel]) -> dict[str, Any]:
    """Give the properties and upper-case constants of a model's classes, the nearest first."""
    found: dict[str, Any] = {}
    for base in model.__mro__:
        for name, value in vars(base).items():
            if base is not BaseModel and (isinstance(value, property) or name.isupper()):
                found.setdefault(name, value)
    return found


def _carried(annotation: Any) -> Any:
    """Give a field's type with twins in the place of models."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return carrier_of(annotation)
    origin, inside = get_origin(annotation), get_args(annotation)
    if origin is tuple:
        return tuple[tuple(_carried(item) for item in inside)]  # type: ignore[misc]
    if origin in (Union, UnionType):
        return Union[tuple(_carried(item) for item in inside)]  # noqa: UP007 - made from parts
    return annotation


@cache
def _decoder(model: type[BaseModel]) -> msgspec.json.Decoder[Any]:
    return msgspec.json.Decoder(carrier_of(model), float_hook=Decimal)


def read(model: type[BaseModel], body: bytes) -> Any:
    """Give the twin that a JSON body means; None where only the model can tell whether it means one."""
    lower = body.lower()
    if (b"nan" in lower or b"inf" in lower) and _NO_NUMBER.search(lower):
        return None
    try:
        return _decoder(model).decode(body)
    except _REFUSED:
        return None
