"""What an event must be, beyond its form: its time in the window, its metadata small and without personal data.

Rule: docs/rules/metering.md, Events.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

from eb_contracts.errors import Fault

from .errors import TimeTooFar
from .recording import Received

MOST_METADATA_BYTES = 4096
FARTHEST = timedelta(days=800)
MOST_QUANTITY = Decimal(10) ** 18
REMOVED = "[removed]"
DENIED_KEYS = frozenset(
    {
        "address", "birthdate", "card", "card_number", "credit_card", "date_of_birth", "dob", "e_mail", "email",
        "email_address", "first_name", "full_name", "iban", "ip", "ip_address", "last_name", "mobile", "name",
        "passport", "password", "phone", "phone_number", "ssn", "surname", "tax_id", "token",
    }
)  # fmt: skip
"""Keys of metadata that name a person; compared in lower case with `-` and blanks as `_`."""


@dataclass(frozen=True, slots=True)
class Window:
    """The instants that an event's time may lie between, both included."""

    earliest: datetime
    latest: datetime

    @classmethod
    def around(cls, now: datetime, back: timedelta, ahead: timedelta) -> Window:
        """Give the window at `now`."""
        return cls(now - back, now + ahead)

    def fault(self, time: datetime) -> Fault | None:
        """Say what is wrong with a time, if anything."""
        if time < self.earliest:
            return Fault("/time", "time_too_old", f"Must not lie before {self.earliest.isoformat()}.")
        if time > self.latest:
            return Fault("/time", "time_in_future", f"Must not lie after {self.latest.isoformat()}.")
        return None


def metadata_faults(metadata: Mapping[str, Any] | None) -> Iterator[Fault]:
    """Say what is wrong with metadata: over 4 KiB as JSON, or keys that name a person, at any depth."""
    if not metadata:
        return
    if len(json.dumps(metadata, default=str, ensure_ascii=False).encode()) > MOST_METADATA_BYTES:
        yield Fault(
            "/metadata", "metadata_too_large", f"Must be at most {MOST_METADATA_BYTES} bytes of JSON."
        )
    for pointer in _denied(metadata, "/metadata"):
        yield Fault(pointer, "personal_data", "Metadata must not hold personal data.")


def is_denied(key: str) -> bool:
    """Tell whether a key of metadata names a person."""
    return key.strip().lower().replace("-", "_").replace(" ", "_") in DENIED_KEYS


def _denied(value: object, pointer: str) -> Iterator[str]:
    if isinstance(value, Mapping):
        for key, member in value.items():
            here = f"{pointer}/{key.replace('~', '~0').replace('/', '~1')}"
            if is_denied(key):
                yield here
            else:
                yield from _denied(member, here)
    elif isinstance(value, list):
        for at, item in enumerate(value):
            yield from _denied(item, f"{pointer}/{at}")


def without_denied(value: Any) -> Any:
    """Give a value with what denied keys hold replaced by `[removed]`, for parking."""
    if isinstance(value, Mapping):
        return {k: REMOVED if is_denied(k) else without_denied(v) for k, v in value.items()}
    if isinstance(value, list):
        return [without_denied(item) for item in value]
    return value


def refuse_far(now: datetime, earliest: datetime, latest: datetime) -> None:
    """Refuse times that no settings let in: each would make a month's table. Raises TimeTooFar."""
    if not now - FARTHEST <= earliest <= latest <= now + FARTHEST:
        raise TimeTooFar


def split_storable(received: Iterable[Received]) -> tuple[list[Received], list[Received]]:
    """Part what came past the door by looking only: storable as far as can be told, and certainly not."""
    good: list[Received] = []
    bad: list[Received] = []
    for one in received:
        (good if _is_storable(one) else bad).append(one)
    return good, bad


def _is_storable(received: Received) -> bool:
    event = received.event
    return (
        abs(event.quantity) < MOST_QUANTITY
        and abs(event.time - received.received_at) <= FARTHEST
        and not any("\0" in text for text in (event.request_id, event.sku))
    )
