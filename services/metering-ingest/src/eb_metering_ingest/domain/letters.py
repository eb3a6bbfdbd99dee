"""Dead letters: events that can't be recorded as they are, with their reasons.

Rule: docs/rules/metering.md, Dead letters.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from eb_contracts.errors import Fault
from eb_contracts.ids import new_id

from .checks import without_denied
from .recording import Received, content_hash

UNKNOWN_PROJECT = "unknown_project"
UNRECORDABLE = "unrecordable"
LONGEST_REQUEST_ID = 128


@dataclass(frozen=True, slots=True)
class Letter:
    """One parked event. `received` is set once it could be recorded; `event` is what was sent, as JSON."""

    dead_letter_id: UUID
    org_id: UUID | None
    request_id: str | None
    content_hash: bytes
    event: Any
    errors: Sequence[Fault]
    reason: str
    trace_id: str | None
    received: Received | None = None


def parked(event: Any, org_id: UUID | None, errors: Sequence[Fault], trace_id: str | None) -> Letter:
    """Give the letter of an event that isn't valid; personal data in it is removed first."""
    clean = without_denied(event)
    request_id = clean.get("request_id") if isinstance(clean, dict) else None
    is_usable = isinstance(request_id, str) and 0 < len(request_id) <= LONGEST_REQUEST_ID
    text = json.dumps(clean, default=str, sort_keys=True)
    return Letter(
        dead_letter_id=new_id(),
        org_id=org_id,
        request_id=request_id if is_usable else None,
        content_hash=hashlib.sha256(text.encode()).digest()[:16],
        event=clean,
        errors=errors,
        reason=errors[0].code,
        trace_id=trace_id,
    )


def unknown_project(received: Received) -> Letter:
    """Give the letter of a valid event whose project isn't known, or belongs to another organisation."""
    fault = Fault("/project_id", UNKNOWN_PROJECT, "The organisation has no such project.")
    return _letter(received, fault)


def unrecordable(received: Received) -> Letter:
    """Give the letter of an event that passed the door and that the database refuses all the same."""
    return _letter(received, Fault("", UNRECORDABLE, "The event could not be stored."))


def _letter(received: Received, fault: Fault) -> Letter:
    event = received.event
    return Letter(
        dead_letter_id=new_id(),
        org_id=event.org_id,
        request_id=event.request_id,
        content_hash=content_hash(event),
        event=event.model_dump(mode="json"),
        errors=(fault,),
        reason=fault.code,
        trace_id=received.trace_id,
    )
