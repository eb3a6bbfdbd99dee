"""The base of all messages: CloudEvents 1.0 attributes outside, a pydantic body inside."""

from __future__ import annotations

from decimal import Decimal
from functools import cache
from typing import Annotated, Any, ClassVar, Self, cast

from pydantic import BaseModel, ConfigDict, PlainSerializer

from .carriers import carrier_of, plain, read
from .money import plain_text

EVENTS = "eb.events"
METERING = "eb.metering"
USAGE = "eb.usage"

Number = Annotated[Decimal, PlainSerializer(plain_text, return_type=str, when_used="json")]
"""An exact decimal; a string on the wire."""


_set = object.__setattr__


@cache
def _shape(body: type[BaseModel]) -> tuple[dict[str, Any], set[str]]:
    """Give a body's defaults and the names of its fields."""
    fields = body.model_fields
    return {name: fields[name].default for name in fields if not fields[name].is_required()}, set(fields)


class Body(BaseModel):
    """A frozen part of a message. Readers ignore members they don't know: a new optional one is compatible.

    `IS_CARRIED` marks what comes by the thousand: it is made and read as its light twin (eb_contracts.carriers).
    """

    IS_CARRIED: ClassVar[bool] = False
    model_config = ConfigDict(frozen=True, extra="ignore", ser_json_inf_nan="constants")

    @classmethod
    def trusted(cls, **values: Any) -> Self:
        """Make it without checks, from values of the right types: for hot paths, which made them themselves.

        pydantic's own `model_construct` looks at each field's aliases and factories, which messages don't
        have, and takes three times as long.
        """
        if cls.IS_CARRIED:
            return cast(Self, carrier_of(cls)(**values))
        made = cls.__new__(cls)
        defaults, names = _shape(cls)
        _set(made, "__dict__", {**defaults, **values})
        _set(made, "__pydantic_fields_set__", names)
        _set(made, "__pydantic_extra__", None)
        _set(made, "__pydantic_private__", None)
        return made

    def replaced(self, **values: Any) -> Self:
        """Give it with other values, unchecked like `trusted`."""
        return self.trusted(**{name: getattr(self, name) for name in type(self).model_fields} | values)


class Message(Body):
    """One message on the bus. `TYPE` is `<service>.<entity>.<fact>.v<N>` and names its JSON Schema.

    A message of `EVENTS` is routed by its type, others by `routing_key`.
    """

    TYPE: ClassVar[str]
    EXCHANGE: ClassVar[str] = EVENTS

    @property
    def routing_key(self) -> str:
        """Give the key the exchange routes by."""
        return self.TYPE

    @property
    def subject(self) -> str:
        """Name what the message is about, for people reading queues (CloudEvents `subject`)."""
        return ""

    @property
    def weight(self) -> int:
        """Count the things inside; a take of a consumer is bounded by their sum."""
        return 1

    @property
    def traces(self) -> frozenset[str]:
        """Name the requests behind the things inside, where the message knows them."""
        return frozenset()

    def to_bytes(self) -> bytes:
        """Write the JSON body."""
        return self.model_dump_json(fallback=plain, warnings=False).encode()

    @classmethod
    def from_bytes(cls, body: bytes) -> Self:
        """Read a JSON body; pydantic.ValidationError if it doesn't fit the schema."""
        if cls.IS_CARRIED and (carrier := read(cls, body)) is not None:
            return cast(Self, carrier)
        return cls.model_validate_json(body)


class EntityFact(Message):
    """The whole public state of one entity at one version; readers keep the highest and tombstones.

    Rule: docs/rules/bus.md, Read models.
    """

    ENTITY: ClassVar[str]
    version: int
    is_deleted: bool = False

    @property
    def entity_id(self) -> str:
        """Give the id under which readers keep this entity."""
        raise TypeError(f"{type(self).__name__} names no entity_id")

    @property
    def subject(self) -> str:
        return self.entity_id


class Partitioned(Message):
    """A message that travels in one of the 16 partitions; everything inside belongs to that partition."""

    KEY_PREFIX: ClassVar[str]
    partition: int

    @property
    def routing_key(self) -> str:
        return f"{self.KEY_PREFIX}p{self.partition:02d}"


ALL: dict[str, type[Message]] = {}
"""Every message by its type; filled by `register`."""


def register(message: type[Message]) -> type[Message]:
    """Enter a concrete message into the registry of types; a type is taken once."""
    if ALL.setdefault(message.TYPE, message) is not message:
        raise ValueError(f"two messages of type {message.TYPE}")
    return message
