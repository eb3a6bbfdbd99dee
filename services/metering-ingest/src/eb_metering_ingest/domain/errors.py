"""What metering refuses."""

from __future__ import annotations

from typing import ClassVar

from eb_contracts.errors import Kind, Refusal


class NotABatch(Refusal):
    """The body is no array of events."""

    code = "not_a_batch"
    kind = Kind.MALFORMED
    title = "The body must be a JSON array of events."


class BatchSize(Refusal):
    """No event, or more than a batch may hold."""

    code = "batch_size"
    kind = Kind.MALFORMED
    title = "A batch holds 1 to 1,000 events."


class BatchInvalid(Refusal):
    """No event was taken; `errors` points at each fault within the body."""

    code = "batch_invalid"
    kind = Kind.INVALID
    title = "Events of the batch are not valid."


class OrgForbidden(Refusal):
    """The batch names an organisation that this credential may not send for; nothing was taken."""

    code = "org_forbidden"
    kind = Kind.FORBIDDEN
    title = "This credential may not send events for an organisation in the batch."


class IngestUnavailable(Refusal):
    """Neither the broker nor the database could keep the batch; sending it again is safe."""

    code = "ingest_unavailable"
    kind = Kind.UNAVAILABLE
    title = "The batch could not be kept right now; send it again."


class EventExpired(Refusal):
    """The event was recorded and counted; its month has left, and only its request id is still known."""

    code = "event_expired"
    kind = Kind.NOT_FOUND
    status: ClassVar[int] = 410
    title = "The event was recorded, and is no longer kept."


class LetterClosed(Refusal):
    """The dead letter was replayed or discarded."""

    code = "dead_letter_closed"
    kind = Kind.CONFLICT
    title = "Only open dead letters can be corrected."


class LetterExists(Refusal):
    """Another dead letter of the organisation holds the same event."""

    code = "dead_letter_exists"
    kind = Kind.CONFLICT
    title = "Another dead letter holds this event already."


class LogEmpty(Refusal):
    """The provider's log holds no line."""

    code = "log_empty"
    kind = Kind.MALFORMED
    title = "The log holds no line."


class LogGivenUp(Refusal):
    """The log took so long that it was given up; nothing of it counts."""

    code = "log_given_up"
    kind = Kind.CONFLICT
    title = "The log was given up while it was loading; send it again."


class ReconciliationRunning(Refusal):
    """The comparison, or what fills it, is still under way."""

    code = "reconciliation_running"
    kind = Kind.CONFLICT
    title = "The reconciliation is still under way."


class TimeTooFar(ValueError):
    """An event's time is so far away that no door could have let it in."""
