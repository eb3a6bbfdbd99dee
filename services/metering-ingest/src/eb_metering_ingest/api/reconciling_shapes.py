"""What the doors of provider logs, reconciliations and alerts take and answer."""

from __future__ import annotations

from datetime import date, datetime
from typing import Annotated, Literal
from uuid import UUID

from pydantic import BeforeValidator, ConfigDict, Field, StringConstraints

from eb_contracts.metering import DriftKind
from eb_kit.inputs import Input, Page, Quantity, View

from .shapes import Sku

Provider = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9_-]{0,31}$")]
Format = Literal["rows", "twilio", "sendgrid", "ses"]


def _truth(value: object) -> object:
    return {"true": True, "false": False}.get(value, value) if isinstance(value, str) else value


class LogQuery(Input):
    """How a log is read. `org_id`, `sku` and `project_id` stand for messages that don't name theirs.

    `places` finds them by the provider's account, service or configuration set: `KEY:org_id:sku[:project_id]`, with
    commas. `count=messages` meters one a message, whatever the provider says of segments or recipients.
    """

    format: Format = "rows"
    org_id: UUID | None = None
    sku: Sku | None = None
    project_id: UUID | None = None
    places: Annotated[str, StringConstraints(max_length=8_000)] | None = None
    count: Literal["units", "messages"] = "units"


class LogLoaded(View):
    """A log that is loaded; `rejected` lines are listed with their reasons under its id."""

    log_id: UUID
    rows: int
    rejected: int


class LogsQuery(Page):
    """A list of logs."""

    provider: Provider | None = None


class LogView(LogLoaded):
    """A log; its rows are compared once it is `loaded`. `skipped` messages weren't sent, so they don't count."""

    provider: str | None
    format: str
    status: Literal["loading", "loaded", "abandoned"]
    loaded_by: str
    skipped: int
    started_at: datetime
    finished_at: datetime | None


class RejectView(View):
    """A line that is no row; it counts from 1, of a JSON array it is where the element begins."""

    line: int
    reason: str


class LogWithRejects(LogView):
    """A log with its first 1,000 rejected lines."""

    rejects: list[RejectView]


class Reconcile(Input):
    """Days to compare, from `from` to before `to`, 35 at most, as each organisation's time zone cuts them."""

    start: date = Field(alias="from")
    end: date = Field(alias="to")
    provider: Provider | None = None
    org_id: UUID | None = None
    sku: Sku | None = None


class KindSum(View):
    """Drifts of one kind."""

    kind: DriftKind
    drifts: int
    messages: int


class ReconciliationView(View):
    """A comparison. `planning`, then `comparing`, then `done`; `filling` while missing messages become events.

    `drift_messages` counts messages that differ, voided ones left out; `unfilled` those without a project.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", serialize_by_alias=True)

    reconciliation_id: UUID
    start: date = Field(serialization_alias="from")
    end: date = Field(serialization_alias="to")
    provider: str | None
    org_id: UUID | None
    sku: str | None
    status: Literal["planning", "comparing", "filling", "done"]
    asked_by: str
    created_at: datetime
    finished_at: datetime | None
    provider_messages: int
    metered_events: int
    drift_messages: int
    is_over_tolerance: bool
    filled: int
    unfilled: int
    drifts: list[KindSum]


class ReconciliationsQuery(Page):
    """A list of comparisons; `org_id` finds those that were asked for one organisation."""

    org_id: UUID | None = None
    provider: Provider | None = None
    status: Literal["planning", "comparing", "filling", "done"] | None = None


class DriftsQuery(Page):
    """A list of a comparison's drifts."""

    org_id: UUID | None = None
    sku: Sku | None = None
    kind: DriftKind | None = None


class DayCounts(View):
    """Messages and their quantity on one side."""

    messages: int
    quantity: Quantity


class DriftView(View):
    """Messages that the two sides tell differently, with both quantities, and with what both counted that day.

    `metered_day` is where the event lies, another day for `wrong_day` only.
    """

    drift_id: UUID
    org_id: UUID
    sku: str
    day: date
    metered_day: date
    kind: DriftKind
    messages: int
    provider_quantity: Quantity
    metered_quantity: Quantity
    sample_ids: list[str]
    is_over_tolerance: bool
    day_provider: DayCounts
    day_metered: DayCounts


class Fill(Input):
    """Which missing messages become events. `project_id` is for messages whose log names none, and needs `org_id`."""

    org_id: UUID | None = None
    sku: Sku | None = None
    project_id: UUID | None = None


class AlertsQuery(Page):
    """Alerts of an organisation; platform staff may leave it out."""

    org_id: UUID | None = None
    sku: Sku | None = None
    is_open: Annotated[bool, BeforeValidator(_truth)] | None = None


class AlertView(View):
    """Usage that was unlike its past: what was expected, what was seen, what it passed, and why that is an alert."""

    alert_id: UUID
    org_id: UUID
    sku: str
    kind: Literal["spike", "stop"]
    hour: datetime
    expected: Quantity
    seen: Quantity
    threshold: Quantity
    why: str
    raised_at: datetime
    closed_at: datetime | None
