"""An event that waits as a dead letter, shown as far as it can be read."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any
from uuid import UUID

from eb_kit.inputs import read_decimal, read_instant

from .shapes import EventBrief, EventView

_READERS: dict[str, Callable[[Any], Any]] = {
    "sku": lambda value: value if isinstance(value, str) else None,
    "source": lambda value: value if isinstance(value, str) else None,
    "metadata": lambda value: value if isinstance(value, dict) else None,
    "quantity": read_decimal,
    "project_id": lambda value: UUID(value) if isinstance(value, str) else None,
    "time": read_instant,
}


def parked_brief(letter: Mapping[str, Any]) -> EventBrief:
    """Show a dead letter as an event in a list."""
    return EventBrief(**_members(letter))


def parked_view(letter: Mapping[str, Any]) -> EventView:
    """Show a dead letter as an event."""
    return EventView(**_members(letter), conflicts=[], trace_id=letter["trace_id"])


def _members(letter: Mapping[str, Any]) -> dict[str, Any]:
    event = letter["event"] if isinstance(letter["event"], dict) else {}
    return {
        **{name: _read(read, event.get(name)) for name, read in _READERS.items()},
        "org_id": letter["org_id"],
        "request_id": letter["request_id"] or "",
        "event_id": None,
        "usage_id": None,
        "recorded_at": None,
        "status": "dead_lettered",
        "duplicates": 0,
        "charge_id": None,
        "entry_ids": [],
        "dead_letter_id": letter["dead_letter_id"],
    }


def _read(read: Callable[[Any], Any], value: Any) -> Any:
    try:
        return read(value)
    except ValueError:
        return None
