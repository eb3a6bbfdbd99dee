"""What a provider's log says: one row a message that was sent, of whom, of which SKU, how much and when.

Rule: docs/rules/metering.md, Provider logs.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from email.utils import parsedate_to_datetime
from functools import lru_cache
from typing import Any, NamedTuple
from uuid import UUID

from .records import Record, read_json

COLUMNS = ("provider", "message_id", "org_id", "sku", "quantity", "time")
_MESSAGE_ID = re.compile(r"[\x20-\x7e]{1,128}\Z")
_QUANTITY = re.compile(r"[0-9]{1,18}(\.[0-9]{1,6})?\Z")
_PROVIDER = re.compile(r"[a-z0-9][a-z0-9_-]{0,31}\Z")
_HAS_OFFSET = re.compile(r"(Z|z|[+-][0-9]{2}:?[0-9]{2})\Z")
_SENDGRID_ROUTE = re.compile(r"\.(filter|recvd)[^@]*\Z")
_LONGEST_SKU = 128

TWILIO_SENT = frozenset({"sent", "delivered", "undelivered", "read"})
"""Twilio charges a message by what was handed to the carrier: these are its final states for that."""


class Place(NamedTuple):
    """Whose messages are meant, and as what they are metered."""

    org_id: UUID
    sku: str | None
    project_id: UUID | None = None


class Row(NamedTuple):
    """One message in a provider's log. `line` counts from 1."""

    line: int
    provider: str
    message_id: str
    org_id: UUID
    sku: str
    quantity: Decimal
    time: datetime
    project_id: UUID | None


class Reject(NamedTuple):
    """A line that is no row, and why; its content isn't kept."""

    line: int
    reason: str


@dataclass(frozen=True, slots=True)
class Terms:
    """How a log is read. `places` finds organisation and SKU by the provider's own account or service id.

    `whole` stands for messages that name no organisation themselves. `is_known` tells organisations of ours.
    """

    earliest: datetime
    latest: datetime
    is_known: Callable[[UUID], bool]
    whole: Place | None = None
    places: Mapping[str, Place] = field(default_factory=dict)
    counts_messages: bool = False


class Sent(NamedTuple):
    """A message as its provider's format tells it; what is missing is None and is looked up in the terms."""

    provider: object
    message_id: object
    org_id: object
    sku: object
    quantity: object
    time: object
    project_id: object = None
    keys: tuple[object, ...] = ()


class _No(Exception):
    """Carries the reason why a line is no row."""


def rows_of(records: Iterable[Record], format_name: str, terms: Terms) -> Iterator[Row | Reject | None]:
    """Give a row or its rejection for each message of the records; None for what was never sent and isn't counted."""
    messages_of = FORMATS[format_name]
    for record in records:
        if record.fault:
            yield Reject(record.line, record.fault)
            continue
        try:
            for sent in messages_of(record.members):
                yield _row(record.line, sent, terms) if sent else None
        except _No as no:
            yield Reject(record.line, str(no))


def _row(line: int, sent: Sent, terms: Terms) -> Row | Reject:
    try:
        place = _place_of(sent, terms)
        sku = _text(sent.sku, "sku") if sent.sku not in (None, "") else place.sku
        if not sku or len(sku) > _LONGEST_SKU or "\0" in sku or not sku.strip():
            return Reject(line, "sku_invalid")
        return Row(
            line,
            _provider(sent.provider),
            _message_id(sent.message_id),
            place.org_id,
            sku,
            Decimal(1) if terms.counts_messages else _quantity(sent.quantity),
            _in_time(_instant(sent.time), terms),
            _uuid(sent.project_id, "project_id") if sent.project_id not in (None, "") else place.project_id,
        )
    except _No as no:
        return Reject(line, str(no))


def _place_of(sent: Sent, terms: Terms) -> Place:
    mapped = next(
        (terms.places[key] for key in sent.keys if isinstance(key, str) and key in terms.places), None
    )
    place = mapped or terms.whole
    if sent.org_id not in (None, ""):
        org_id = _uuid(sent.org_id, "org_id")
        place = (
            place._replace(org_id=org_id)
            if place and place.org_id == org_id
            else Place(org_id, place and place.sku)
        )
    if place is None:
        raise _No("org_id_missing")
    if not terms.is_known(place.org_id):
        raise _No("org_id_unknown")
    return place


def _text(value: object, name: str) -> str:
    if not isinstance(value, str):
        raise _No(f"{name}_invalid")
    return value


@lru_cache(maxsize=4096)
def _read_uuid(text: str) -> UUID | None:
    try:
        return UUID(text) if len(text) == 36 else None
    except ValueError:
        return None


def _uuid(value: object, name: str) -> UUID:
    found = _read_uuid(_text(value, name))
    if found is None:
        raise _No(f"{name}_invalid")
    return found


def _provider(value: object) -> str:
    if not isinstance(value, str) or not _PROVIDER.match(value):
        raise _No("provider_invalid")
    return value


def _message_id(value: object) -> str:
    """The id becomes the request id of an event that was missing, so it has its form."""
    if not isinstance(value, str) or not _MESSAGE_ID.match(value):
        raise _No("message_id_invalid")
    return value


def _quantity(value: object) -> Decimal:
    if isinstance(value, int | Decimal) and not isinstance(value, bool):
        value = format(Decimal(value), "f")
    if not isinstance(value, str) or not _QUANTITY.match(value) or not (found := Decimal(value)):
        raise _No("quantity_invalid")
    return found


def _instant(value: object) -> datetime:
    """Read RFC 3339 with an offset, seconds since 1970, or the RFC 2822 of Twilio's API."""
    try:
        if isinstance(value, int | Decimal) and not isinstance(value, bool):
            return datetime.fromtimestamp(float(value), UTC)
        if isinstance(value, str) and value[:1].isdigit():
            if _HAS_OFFSET.search(value):
                return datetime.fromisoformat(value).astimezone(UTC)
        elif isinstance(value, str) and value[:1].isalpha():
            found = parsedate_to_datetime(value)
            return (found if found.tzinfo else found.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, TypeError, OverflowError, OSError):
        pass
    raise _No("time_invalid")


def _in_time(time: datetime, terms: Terms) -> datetime:
    if not terms.earliest <= time <= terms.latest:
        raise _No("time_out_of_range")
    return time


def _own(members: Mapping[str, Any]) -> Iterator[Sent | None]:
    """Our own columns; the project is optional."""
    if missing := [name for name in COLUMNS if name not in members]:
        raise _No(f"{missing[0]}_missing")
    provider, message_id, org_id, sku, quantity, time = (members[name] for name in COLUMNS)
    yield Sent(provider, message_id, org_id, sku, quantity, time, members.get("project_id"))


def _twilio(members: Mapping[str, Any]) -> Iterator[Sent | None]:
    """A message of the list, the daily export or the console's CSV; or a page of the list.

    Segments are what Twilio charges. Inbound messages, and those not handed to a carrier, aren't counted.
    """
    if isinstance(members.get("messages"), list):
        for message in members["messages"]:
            yield from _twilio(_object(message))
        return
    get = _either(members)
    sid, status, direction = get("sid", "Sid"), get("status", "Status"), get("direction", "Direction")
    if sid is None:
        raise _No("message_id_missing")
    if str(status).lower() not in TWILIO_SENT or str(direction).lower().startswith("inbound"):
        yield None
        return
    keys = (get("messaging_service_sid", "MessagingServiceSid"), get("account_sid", "AccountSid"))
    quantity, time = get("num_segments", "NumSegments"), get("date_sent", "SentDate")
    yield Sent("twilio", sid, None, None, quantity, time, keys=keys)


def _either(members: Mapping[str, Any]) -> Callable[[str, str], Any]:
    return lambda name, heading: members.get(name, members.get(heading))


def _object(value: object) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise _No("malformed_json")
    return value


def _sendgrid(members: Mapping[str, Any]) -> Iterator[Sent | None]:
    """An event of the webhook, of which `processed` counts a mail; or an entry or a page of Email Activity.

    Custom arguments stand beside the event's own members: `org_id`, `sku`, `project_id`, `message_id`.
    """
    if isinstance(members.get("messages"), list):
        for message in members["messages"]:
            yield from _sendgrid(_object(message))
        return
    if "event" in members:
        if members["event"] != "processed":
            yield None
            return
        given, time = members.get("sg_message_id"), members.get("timestamp")
    else:
        if members.get("status") == "processing":
            yield None
            return
        given, time = members.get("msg_id"), members.get("last_event_time")
    arguments = {**_arguments(members.get("unique_args")), **members}
    message_id = arguments.get("message_id") or (
        _SENDGRID_ROUTE.sub("", given) if isinstance(given, str) else None
    )
    org_id, sku, project_id = (arguments.get(name) for name in ("org_id", "sku", "project_id"))
    yield Sent("sendgrid", message_id, org_id, sku, 1, time, project_id, (arguments.get("from_email"),))


def _arguments(value: object) -> Mapping[str, Any]:
    value = read_json(value) if isinstance(value, str) else value
    return value if isinstance(value, Mapping) else {}


def _ses(members: Mapping[str, Any]) -> Iterator[Sent | None]:
    """An event of a configuration set, bare or as SNS or EventBridge wrap it; `Send` counts its recipients.

    Message tags name whose it is: `org_id`, `sku`, `project_id`.
    """
    if isinstance(members.get("Message"), str):
        members = _object(read_json(members["Message"]))
    elif isinstance(members.get("detail"), Mapping):
        members = members["detail"]
    if "eventType" not in members:
        raise _No("event_type_missing")
    if members["eventType"] != "Send":
        yield None
        return
    mail = _object(members.get("mail"))
    destination = mail.get("destination")
    recipients = len(destination) if isinstance(destination, list) else 0
    org_id, sku, project_id, key = (
        _tag(mail, name) for name in ("org_id", "sku", "project_id", "ses:configuration-set")
    )
    yield Sent(
        "ses", mail.get("messageId"), org_id, sku, recipients, mail.get("timestamp"), project_id, (key,)
    )


def _tag(mail: Mapping[str, Any], name: str) -> object:
    tags = mail.get("tags")
    values = tags.get(name) if isinstance(tags, Mapping) else None
    return values[0] if isinstance(values, list) and values else None


FORMATS: Mapping[str, Callable[[Mapping[str, Any]], Iterator[Sent | None]]] = {
    "rows": _own,
    "twilio": _twilio,
    "sendgrid": _sendgrid,
    "ses": _ses,
}
"""How the members of a record are read, by the name of the format."""
