"""A message on its way: CloudEvents 1.0 attributes and trace as headers, the JSON body as bytes."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

from aio_pika import DeliveryMode
from aio_pika import Message as AmqpMessage
from aiormq.abc import DeliveredMessage
from pamqp.commands import Basic

from eb_contracts.base import Message, Partitioned
from eb_contracts.ids import made_at, new_id

from ..telemetry import Trace, parse_traceparent

LANES = 16
WEIGHT = "eb-weight"
ATTEMPT = "eb-attempt"
QUEUE = "eb-queue"
FIRST_AT = "eb-first-at"
ERROR_CLASS = "eb-error-class"
ERROR_DETAIL = "eb-error-detail"
TRACEPARENT = "traceparent"
CE_TIME = "cloudEvents:time"
CE_SOURCE = "cloudEvents:source"
SOURCE_PREFIX = "/eb/"


@dataclass(frozen=True, slots=True)
class Envelope:
    """One message ready to be sent. `headers` hold the trace, the weight and what retries add."""

    message_id: UUID
    exchange: str
    routing_key: str
    type: str
    subject: str
    body: bytes
    created_at: datetime
    headers: Mapping[str, Any] = field(default_factory=dict)
    lane: int = 0

    @classmethod
    def of(cls, message: Message, *, trace: Trace, now: datetime) -> Envelope:
        """Wrap a message; its id is a new UUIDv7, and `now` is the machine's time."""
        return cls(
            message_id=new_id(),
            exchange=message.EXCHANGE,
            routing_key=message.routing_key,
            type=message.TYPE,
            subject=message.subject,
            body=message.to_bytes(),
            created_at=now,
            headers={TRACEPARENT: trace.traceparent, WEIGHT: message.weight},
            lane=lane_of(message),
        )

    def properties(self, source: str) -> Basic.Properties:
        """Give the AMQP properties; `source` names the sending service."""
        identifier = str(self.message_id)
        attributes = {
            "cloudEvents:specversion": "1.0",
            "cloudEvents:id": identifier,
            "cloudEvents:type": self.type,
            CE_SOURCE: SOURCE_PREFIX + source,
            "cloudEvents:subject": self.subject,
            CE_TIME: self.created_at.isoformat(),
        }
        return AmqpMessage(
            b"",
            message_id=identifier,
            type=self.type,
            content_type="application/json",
            delivery_mode=DeliveryMode.PERSISTENT,
            headers=attributes | dict(self.headers),
        ).properties


def written(
    kind: type[Partitioned], partition: int, body: bytes, *, weight: int, trace: Trace, now: datetime
) -> Envelope:
    """Wrap the body of a message that was written already, as `Envelope.of` does one that wasn't."""
    return Envelope(
        message_id=new_id(),
        exchange=kind.EXCHANGE,
        routing_key=f"{kind.KEY_PREFIX}p{partition:02d}",
        type=kind.TYPE,
        subject="",
        body=body,
        created_at=now,
        headers={TRACEPARENT: trace.traceparent, WEIGHT: weight},
        lane=partition % LANES,
    )


def lane_of(message: Message) -> int:
    """Give the outbox lane: the partition, or a stable hash of what the message is about."""
    if isinstance(message, Partitioned):
        return message.partition % LANES
    return zlib.crc32((message.subject or message.routing_key).encode()) % LANES


@dataclass(frozen=True, slots=True)
class Delivery:
    """A message as it arrived; `attempt` counts the tries that failed before."""

    queue: str
    tag: int
    message_id: UUID | None
    type: str
    body: bytes
    headers: Mapping[str, Any]
    attempt: int
    weight: int
    trace: Trace | None
    source: str = ""

    @classmethod
    def of(cls, queue: str, raw: DeliveredMessage) -> Delivery:
        """Read what the broker delivered; nothing a sender wrote can make this fail."""
        headers = dict(raw.header.properties.headers or {})
        trace = headers.get(TRACEPARENT)
        return cls(
            queue=queue,
            tag=raw.delivery_tag or 0,
            message_id=_identifier(raw.header.properties.message_id),
            type=str(raw.header.properties.message_type or headers.get("cloudEvents:type") or ""),
            body=raw.body,
            headers=headers,
            attempt=_count(headers.get(ATTEMPT), 0),
            weight=max(1, _count(headers.get(WEIGHT), 1)),
            trace=parse_traceparent(trace) if isinstance(trace, str) else None,
            source=str(headers.get(CE_SOURCE, "")).removeprefix(SOURCE_PREFIX),
        )


def _identifier(text: object) -> UUID | None:
    """Read a message id; only a UUIDv7 is one, because the inbox is partitioned by the time in it."""
    try:
        found = UUID(str(text))
    except ValueError:
        return None
    return found if made_at(found) else None


def _count(value: object, default: int) -> int:
    return value if isinstance(value, int) and value >= 0 else default
