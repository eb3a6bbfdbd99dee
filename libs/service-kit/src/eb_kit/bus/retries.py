"""What becomes of a message whose handling failed: a retry tier, or the dead letters.

Never nack with requeue: on one broker version it loops for ever, on another it blocks the queue's head.
The message is published again with a confirm, then the original is acknowledged.
Rule: docs/rules/bus.md, Retries.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from pydantic import ValidationError

from eb_contracts.errors import Refusal
from eb_contracts.ids import new_id

from ..topology import DLX, RETRY, TIER_HEADER
from . import envelope as wire
from .envelope import Delivery, Envelope
from .handlers import Poison

TIERS = ("5s", "30s", "5m", "30m")
LONGEST_DETAIL = 300


def error_class(error: BaseException) -> str:
    """Give the stable class of a failure."""
    if isinstance(error, Poison | Refusal):
        return error.code
    return "unreadable" if isinstance(error, ValidationError) else type(error).__name__


def detail(error: BaseException) -> str:
    """Say what was wrong; of an unreadable body only places and kinds, never values."""
    if isinstance(error, ValidationError):
        faults = error.errors(include_url=False, include_input=False, include_context=False)
        return "; ".join(f"{'/'.join(map(str, f['loc']))}: {f['type']}" for f in faults)[:LONGEST_DETAIL]
    return str(error)[:LONGEST_DETAIL]


def tier_after(delivery: Delivery, error: BaseException) -> str | None:
    """Give the tier to wait in; None where trying again is pointless or was tried enough."""
    if isinstance(error, Poison | Refusal | ValidationError) or delivery.attempt >= len(TIERS):
        return None
    return TIERS[delivery.attempt]


def again(delivery: Delivery, error: BaseException, tier: str, now: datetime) -> Envelope:
    """Give the message as it goes to a tier, from where it comes back to its queue."""
    headers = _told(delivery, error, now) | {TIER_HEADER: tier, wire.ATTEMPT: delivery.attempt + 1}
    return _envelope(delivery, RETRY, delivery.queue, headers, now)


def dead(delivery: Delivery, error: BaseException, service: str, now: datetime) -> Envelope:
    """Give the message as it goes to its service's dead letters."""
    headers = _told(delivery, error, now) | {wire.ATTEMPT: delivery.attempt + 1}
    return _envelope(delivery, DLX, service, headers, now)


def _told(delivery: Delivery, error: BaseException, now: datetime) -> dict[str, Any]:
    kept = {k: v for k, v in delivery.headers.items() if isinstance(v, str | int) and not k.startswith("x-")}
    return {
        wire.FIRST_AT: now.isoformat(),
        **kept,
        wire.QUEUE: delivery.queue,
        wire.ERROR_CLASS: error_class(error),
        wire.ERROR_DETAIL: detail(error),
    }


def _envelope(
    delivery: Delivery, exchange: str, routing_key: str, headers: Mapping[str, Any], now: datetime
) -> Envelope:
    return Envelope(
        message_id=delivery.message_id or new_id(),
        exchange=exchange,
        routing_key=routing_key,
        type=delivery.type,
        subject=str(headers.get("cloudEvents:subject", "")),
        body=delivery.body,
        created_at=now,
        headers=headers,
    )
