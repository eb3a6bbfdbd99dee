"""What the doors of metering ingest take and answer."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import AfterValidator, Field, StringConstraints
from pydantic_core import PydanticCustomError

from eb_contracts.metering import AcceptedEvent
from eb_kit.inputs import Input, Page, Quantity, QuantityIn, Text, View

RequestId = Annotated[str, StringConstraints(pattern=r"^[\x20-\x7e]{1,128}$")]
Sku = Annotated[str, Text(1, 128)]
Status = Literal["recorded", "unrated", "priced", "ledgered", "voided", "dead_lettered"]
LetterStatus = Literal["open", "replayed", "discarded"]


def _positive(quantity: Decimal) -> Decimal:
    if quantity <= 0:
        raise PydanticCustomError("not_positive", "Must be more than zero.")
    return quantity


PositiveQuantity = Annotated[QuantityIn, AfterValidator(_positive)]


class EventIn(AcceptedEvent, Input):
    """One usage event. `request_id` makes it count once within its organisation, for ever.

    It is the accepted event itself, read strictly: what was checked travels on without being copied.
    """

    model_config = Input.model_config

    request_id: RequestId
    sku: Sku
    quantity: PositiveQuantity


class FaultView(View):
    """One wrong place: an RFC 6901 pointer, a stable code, a sentence."""

    pointer: str
    code: str
    detail: str


class RejectedEvent(View):
    """An event that was not taken; pointers are within the event. It is kept as a dead letter."""

    index: int
    request_id: str | None
    errors: list[FaultView]


class BatchTaken(View):
    """`accepted` events are durably queued; duplicates and conflicts count too."""

    accepted: int
    batch_id: UUID


class BatchPartlyTaken(BatchTaken):
    """Some events were not valid."""

    rejected: list[RejectedEvent]


class ConflictView(View):
    """What came under the same request id with other content; it is never billed."""

    received_at: datetime
    sku: str
    quantity: Quantity
    project_id: UUID
    time: datetime


class EventBrief(View):
    """An event and how far it has come; of a dead letter, what can be read of it."""

    org_id: UUID
    request_id: str
    event_id: UUID | None
    usage_id: UUID | None
    sku: str | None
    quantity: Quantity | None
    project_id: UUID | None
    time: datetime | None
    source: str | None
    metadata: dict[str, Any] | None
    recorded_at: datetime | None
    status: str
    duplicates: int
    charge_id: str | None
    entry_ids: list[UUID]
    dead_letter_id: UUID | None = None


class VoidView(View):
    """Why and when an event was taken back."""

    reason: str
    at: datetime


class EventView(EventBrief):
    """One event whole."""

    conflicts: list[ConflictView]
    void: VoidView | None = None
    trace_id: str | None


class EventQuery(Input):
    """Whose event it is."""

    org_id: UUID


class EventsQuery(Page):
    """A list of events; `from` and `to` bound the event time, half open.

    With status `dead_lettered`: those that wait as open dead letters; nothing else can be asked of them.
    """

    org_id: UUID
    request_id: RequestId | None = None
    usage_id: UUID | None = None
    sku: Sku | None = None
    project_id: UUID | None = None
    status: Status | None = None
    start: datetime | None = Field(None, alias="from")
    end: datetime | None = Field(None, alias="to")


class UsageQuery(Input):
    """Usage by window; `from` and `to` are required, half open, 400 days apart at most."""

    org_id: UUID
    sku: Sku | None = None
    project_id: UUID | None = None
    start: datetime = Field(alias="from")
    end: datetime = Field(alias="to")
    window: Literal["hour", "day", "month"] = "day"


class UsageWindow(View):
    """The usage of one SKU in one window."""

    window_start: datetime
    window_end: datetime
    sku: str
    quantity: Quantity
    events: int


class UsageView(View):
    """All windows with usage, oldest first."""

    items: list[UsageWindow]


class LettersQuery(Page):
    """Dead letters of an organisation; platform staff may leave it out."""

    org_id: UUID | None = None
    status: LetterStatus | None = None
    reason: Annotated[str, Text(1, 64)] | None = None


class LetterView(View):
    """A parked event with its reasons; `count` is how often it came."""

    dead_letter_id: UUID
    org_id: UUID | None
    request_id: str | None
    event: Any
    errors: list[FaultView]
    reason: str
    count: int
    first_at: datetime
    last_at: datetime
    status: str
    trace_id: str | None


class CorrectLetter(Input):
    """The event that takes the place of the one in the letter."""

    event: dict[str, Any]


class LetterFilter(Input):
    """Which open letters."""

    org_id: UUID
    reason: Annotated[str, Text(1, 64)] | None = None


class ReplayLetters(Input):
    """Either `ids` or `filter`."""

    ids: Annotated[list[UUID], Field(min_length=1, max_length=1_000)] | None = None
    filter: LetterFilter | None = None


class LettersReplayed(View):
    """How many were recorded, and how many are still not valid, of those looked at so far."""

    replayed: int
    still_bad: int
