"""Dead letters: events that can't be recorded as they are, with their reasons.

Rule: docs/rules/metering.md, Dead letters.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any
from uuid import UUID

from eb_contracts.errors import Fault
from eb_contracts.ids import new_id
from eb_contracts.metering import AcceptedEvent

from .checks import without_denied
from .recording import Received, content_hash

UNKNOWN_PROJECT = "unknown_project"
UNRECORDABLE = "unrecordable"
LONGEST_REQUEST_ID = 128
PROJECT_FAULT = Fault("/project_id", UNKNOWN_PROJECT, "The organisation has no such project.")


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
    waits_for_project_id: UUID | None = None


def corrected(
    row: Mapping[str, Any],
    sent: Any,
    org_id: UUID | None,
    errors: Sequence[Fault],
    event: AcceptedEvent | None = None,
) -> Letter:
    """Give a letter with another event in it; the reason for which it was parked stays where nothing is wrong now."""
    if event is None:
        letter = parked(sent, org_id, errors, row["trace_id"])
    else:
        letter = _letter(Received(event, None, row["first_at"], row["trace_id"]), PROJECT_FAULT)
    reason = errors[0].code if errors else row["reason"]
    return replace(letter, dead_letter_id=row["dead_letter_id"], errors=errors, reason=reason)


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
    return replace(_letter(received, PROJECT_FAULT), waits_for_project_id=received.event.project_id)


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
