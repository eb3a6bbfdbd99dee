"""From the bytes of a batch to events: form, organisation, time and metadata; from memory only.

Rule: docs/rules/metering.md, Batches.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from datetime import timedelta
from typing import Any, NamedTuple
from uuid import UUID

from aiohttp import web
from pydantic import TypeAdapter, ValidationError

from eb_contracts.errors import Fault
from eb_contracts.metering import AcceptedEvent
from eb_kit.access import caller
from eb_kit.inputs import faults_of
from eb_kit.routing import ROUTE
from eb_kit.service import CONTEXT, ServiceContext

from ..domain.checks import Window, metadata_faults
from ..domain.errors import BatchSize, NotABatch, OrgForbidden
from .shapes import EventIn

CLOUDEVENTS = "application/cloudevents-batch+json"
MOST_EVENTS = 1000
_EVENT = TypeAdapter(EventIn)
_EVENTS = TypeAdapter(list[EventIn])
_DATA = ("sku", "quantity", "org_id", "project_id", "metadata", "hold_id")
SOURCES = frozenset({"form_submit", "backend", "replay"})
_CLOUD_POINTERS = {"": "", "request_id": "/id", "time": "/time", "source": "/source"}
_PREFERENCE = re.compile(r'(?:[^,"]|"(?:\\.|[^"\\])*")+')


class Rejected(NamedTuple):
    """An event that isn't valid: where in the batch, what was sent, and what is wrong with it."""

    at: int
    event: Any
    faults: Sequence[Fault]

    @property
    def request_id(self) -> str | None:
        """Give the request id, if what was sent has one."""
        found = self.event.get("request_id") if isinstance(self.event, Mapping) else None
        return found if isinstance(found, str) else None


class Batch(NamedTuple):
    """A batch by event: the valid ones, and the others with their faults."""

    valid: list[AcceptedEvent]
    rejected: list[Rejected]


def events_in(value: object, media_type: str) -> list[Any]:
    """Give the events of a body as sent; raises NotABatch, BatchSize."""
    if not isinstance(value, list):
        raise NotABatch
    if not 1 <= len(value) <= MOST_EVENTS:
        raise BatchSize(events=len(value))
    return [from_cloudevent(one) for one in value] if media_type == CLOUDEVENTS else value


def from_cloudevent(value: object) -> object:
    """Give the members of a CloudEvent as an event of ours; what isn't one stays as it is, and is refused."""
    if not isinstance(value, dict) or not isinstance(value.get("data"), dict):
        return value
    event = {"request_id": value.get("id"), "time": value.get("time")}
    source = value.get("source")
    if isinstance(source, str) and source in SOURCES:
        event["source"] = source
    return event | {name: member for name, member in value["data"].items() if name not in event}


def as_sent(rejected: Sequence[Rejected], value: Sequence[Any]) -> list[Rejected]:
    """Give what was rejected with pointers into what was sent: a CloudEvent's members lie elsewhere."""
    return [
        one if one.event is value[one.at] else one._replace(faults=[_in_cloudevent(f) for f in one.faults])
        for one in rejected
    ]


def _in_cloudevent(fault: Fault) -> Fault:
    head = fault.pointer.split("/")[1] if fault.pointer else ""
    pointer = _CLOUD_POINTERS.get(head, f"/data{fault.pointer}")
    return Fault(pointer, fault.code, fault.detail)


def prefers_strict(headers: Sequence[str]) -> bool:
    """Tell whether `Prefer` headers (RFC 7240) ask for all or nothing; of several, the first preference holds."""
    for preference in _PREFERENCE.findall(",".join(headers)):
        name, _, value = preference.partition(";")[0].partition("=")
        if name.strip().lower() == "handling":
            return bool(value.strip().strip('"').lower() == "strict")
    return False


def refuse_foreign(request: web.Request, events: Sequence[Any]) -> None:
    """Refuse the whole batch if it names an organisation the caller may not send for; raises OrgForbidden."""
    named = (event.get("org_id") for event in events if isinstance(event, dict))
    refuse_orgs(request, {text for text in named if isinstance(text, str)})


def refuse_orgs(request: web.Request, org_ids: Collection[str]) -> None:
    """Refuse organisations the caller may not send for; what is no id is left to others. Raises OrgForbidden."""
    context, who, names = request.app[CONTEXT], caller(request), request[ROUTE].names
    for text in org_ids:
        org_id = _uuid_or_none(text)
        if org_id is not None and names.isdisjoint(who.names_in(org_id, context.directory)):
            raise OrgForbidden


def org_of(event: Any) -> UUID | None:
    """Give the organisation an event names, as far as that can be read."""
    text = event.get("org_id") if isinstance(event, dict) else None
    return _uuid_or_none(text) if isinstance(text, str) else None


def _uuid_or_none(text: str) -> UUID | None:
    try:
        return UUID(text)
    except ValueError:
        return None


def window_of(context: ServiceContext, now: Any = None) -> Window:
    """Give the window that event times must lie in."""
    settings = context.settings
    return Window.around(
        now or context.clock.now(),
        timedelta(days=settings.oldest_event_days),
        timedelta(seconds=settings.latest_event_s),
    )


def sort_out(events: Sequence[Any], window: Window) -> Batch:
    """Check every event; valid ones keep their order."""
    try:
        checked: list[EventIn] | None = _EVENTS.validate_python(events)
    except ValidationError:
        checked = None
    if checked is not None and all(_is_fine(event, window) for event in checked):
        return Batch(list(checked), [])
    batch = Batch([], [])
    for at, event in enumerate(events):
        valid, faults = check(event, window)
        if valid is not None:
            batch.valid.append(valid)
        else:
            batch.rejected.append(Rejected(at, event, faults))
    return batch


def _is_fine(event: EventIn, window: Window) -> bool:
    return window.earliest <= event.time <= window.latest and not any(metadata_faults(event.metadata))


def check(event: Any, window: Window) -> tuple[AcceptedEvent | None, Sequence[Fault]]:
    """Give the accepted event, or what is wrong, with pointers within the event."""
    try:
        read = _EVENT.validate_python(event)
    except ValidationError as error:
        return None, faults_of(error, event)
    time_fault = window.fault(read.time)
    faults = [*([time_fault] if time_fault else []), *metadata_faults(read.metadata)]
    return (None, faults) if faults else (read, ())
