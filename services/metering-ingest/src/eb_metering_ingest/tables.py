"""The tables of metering ingest as SQLAlchemy Core metadata: compared with the migrations, never used at run time."""

from __future__ import annotations

from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Date,
    DateTime,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Numeric,
    Table,
    Text,
    Uuid,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, ENUM, JSONB

SCHEMA = "metering_ingest"
metadata = MetaData(schema=SCHEMA)

EVENT_SOURCE = ENUM("form_submit", "backend", "replay", name="event_source", schema=SCHEMA, metadata=metadata)


def _at(name: str, **options: Any) -> Column[object]:
    return Column(name, DateTime(timezone=True), nullable=False, **options)


def _text(name: str, **options: Any) -> Column[object]:
    options.setdefault("nullable", False)
    return Column(name, Text, **options)


def _id(name: str, **options: Any) -> Column[object]:
    options.setdefault("nullable", False)
    return Column(name, Uuid, **options)


def _count(name: str, **options: Any) -> Column[object]:
    return Column(name, Integer, nullable=False, **options)


def _total(name: str, **options: Any) -> Column[object]:
    return Column(name, BigInteger, nullable=False, **options)


metering_event = Table(
    "metering_event",
    metadata,
    _id("event_id", primary_key=True),
    _id("org_id", primary_key=True),
    _id("project_id"),
    _text("sku"),
    Column("quantity", Numeric, nullable=False),
    Column("source", EVENT_SOURCE, nullable=False),
    _at("event_time", primary_key=True),
    _text("request_id"),
    Column("metadata", JSONB),
    _id("usage_id"),
    _id("batch_id", nullable=True),
    _id("hold_id", nullable=True),
    _id("voids_event_id", nullable=True),
    _text("reason", nullable=True),
    _at("recorded_at"),
    _text("trace_id", nullable=True),
    Index("metering_event_by_sku", "org_id", "sku", "event_time"),
    Index("metering_event_by_usage", "usage_id"),
    Index("metering_event_voids", "org_id", "event_id", postgresql_where=text("voids_event_id IS NOT NULL")),
    Index(
        "metering_event_by_provider_id",
        "org_id",
        text("(metadata ->> 'provider_message_id')"),
        postgresql_where=text("metadata ->> 'provider_message_id' IS NOT NULL"),
    ),
)

event_key = Table(
    "event_key",
    metadata,
    _id("org_id", primary_key=True),
    _text("request_id", primary_key=True),
    _id("event_id"),
    _at("event_time"),
    Column("content_hash", LargeBinary, nullable=False),
    _count("duplicates", server_default=text("0")),
    _count("conflicts", server_default=text("0")),
    _id("void_event_id", nullable=True),
)

event_conflict = Table(
    "event_conflict",
    metadata,
    _id("conflict_id", primary_key=True),
    _id("org_id"),
    _text("request_id"),
    _at("received_at"),
    _text("sku"),
    Column("quantity", Numeric, nullable=False),
    _id("project_id"),
    _at("event_time"),
    Index("event_conflict_by_request", "org_id", "request_id", "conflict_id"),
)

usage_record = Table(
    "usage_record",
    metadata,
    _id("org_id", primary_key=True),
    _id("usage_id", primary_key=True),
    _text("status"),
    _text("charge_id", nullable=True),
    Column("entry_ids", ARRAY(Uuid), nullable=False, server_default=text("'{}'")),
    Index("usage_record_unrated", "org_id", "usage_id", postgresql_where=text("status = 'unrated'")),
)

dead_letter = Table(
    "dead_letter",
    metadata,
    _id("dead_letter_id", primary_key=True),
    _id("org_id", nullable=True),
    _text("request_id", nullable=True),
    Column("content_hash", LargeBinary, nullable=False),
    Column("event", JSONB, nullable=False),
    Column("errors", JSONB, nullable=False),
    _text("reason"),
    _count("count"),
    _at("first_at"),
    _at("last_at"),
    _text("status"),
    _text("trace_id", nullable=True),
    _id(
        "waits_for_project_id",
        nullable=True,
        comment="The project without which a valid event can't be recorded; null where that isn't the reason.",
    ),
    Index(
        "dead_letter_content_key",
        "org_id",
        "request_id",
        "content_hash",
        unique=True,
        postgresql_nulls_not_distinct=True,
    ),
    Index("dead_letter_by_org", "org_id", "dead_letter_id"),
    Index(
        "dead_letter_waiting",
        "waits_for_project_id",
        "org_id",
        "dead_letter_id",
        postgresql_where=text("status = 'open' AND waits_for_project_id IS NOT NULL"),
    ),
    Index("dead_letter_open", "org_id", "reason", "dead_letter_id", postgresql_where=text("status = 'open'")),
)

usage_replay = Table(
    "usage_replay",
    metadata,
    _id("replay_id", primary_key=True),
    _id("org_id"),
    _at("from_at"),
    _at("to_at"),
    _text("status"),
    Column("events", BigInteger, nullable=False),
    Column("sent_events", BigInteger, nullable=False, server_default=text("0")),
    Column("sent_records", BigInteger, nullable=False, server_default=text("0")),
    _text("after_sku", server_default=text("''")),
    _at("after_at", comment="With after_sku: how far it has come, in the order of SKU and minute."),
    _text("requested_by"),
    _at("created_at"),
    Column("finished_at", DateTime(timezone=True)),
    Index("usage_replay_running", "replay_id", postgresql_where=text("status = 'running'")),
)

letter_replay = Table(
    "letter_replay",
    metadata,
    _id("letter_replay_id", primary_key=True),
    _id("org_id"),
    _text("reason", nullable=True),
    _id("after_id"),
    _id("last_id"),
    _text("requested_by"),
    _at("created_at"),
    comment="What is left of a replay of dead letters by filter: those after after_id, up to last_id.",
)

provider_log = Table(
    "provider_log",
    metadata,
    _id("log_id", primary_key=True),
    _text("provider", nullable=True),
    _text("format"),
    _text("status"),
    _text("loaded_by"),
    Column("content_hash", LargeBinary),
    _total("rows", server_default=text("0")),
    _total("rejected", server_default=text("0")),
    _total("skipped", server_default=text("0")),
    _total("rows_left", server_default=text("0")),
    _at("started_at"),
    _at("heard_at"),
    Column("finished_at", DateTime(timezone=True)),
    Index("provider_log_content", "content_hash", unique=True, postgresql_where=text("status = 'loaded'")),
    Index("provider_log_unfinished", "heard_at", postgresql_where=text("status IN ('loading', 'abandoned')")),
)

provider_log_part = Table(
    "provider_log_part",
    metadata,
    _id("log_id", primary_key=True),
    _id("org_id", primary_key=True),
    _text("sku", primary_key=True),
    _text("provider", primary_key=True),
    _total("rows"),
    _at("first_at"),
    _at("last_at"),
    Index("provider_log_part_by_time", "last_at", "first_at"),
    comment="Whose messages a log holds, of which SKU, from when to when.",
)

provider_reject = Table(
    "provider_reject",
    metadata,
    _id("log_id", primary_key=True),
    _total("line", primary_key=True),
    _text("reason"),
)

provider_row = Table(
    "provider_row",
    metadata,
    _id("log_id", primary_key=True),
    _total("seq", primary_key=True, comment="The place in its log: 1 for the first message."),
    _text("provider"),
    _text("message_id"),
    _id("org_id"),
    _text("sku"),
    Column("quantity", Numeric, nullable=False),
    _at("message_time", primary_key=True),
    _id("project_id", nullable=True),
    Index("provider_row_by_sku", "org_id", "sku", "message_time", "log_id", "seq"),
    Index("provider_row_by_message", "message_id", "provider"),
)

reconciliation = Table(
    "reconciliation",
    metadata,
    _id("reconciliation_id", primary_key=True),
    Column("from_on", Date, nullable=False),
    Column("to_on", Date, nullable=False),
    _text("provider", nullable=True),
    _id("org_id", nullable=True),
    _text("sku", nullable=True),
    Column("nightly_on", Date, unique=True),
    _text("status"),
    _id("planned_after", nullable=True, comment="The last organisation that was looked at for work."),
    _text("asked_by"),
    _at("created_at"),
    Column("finished_at", DateTime(timezone=True)),
    _total("provider_messages", server_default=text("0")),
    _total("metered_events", server_default=text("0")),
    _total("drift_messages", server_default=text("0")),
    Column("is_over_tolerance", Boolean, nullable=False, server_default=text("false")),
    _total("filled", server_default=text("0")),
    _total("unfilled", server_default=text("0")),
    _id("fill_project_id", nullable=True),
    Index("reconciliation_open", "reconciliation_id", postgresql_where=text("status <> 'done'")),
)

reconciliation_slice = Table(
    "reconciliation_slice",
    metadata,
    _id("reconciliation_id", primary_key=True),
    _id("org_id", primary_key=True),
    _text("sku", primary_key=True),
    _text("zone"),
    _at("starts_at"),
    _at("ends_at"),
    _text("phase"),
    _at("after_at"),
    _id("after_id"),
    _total("after_seq"),
    Index(
        "reconciliation_slice_open",
        "reconciliation_id",
        "org_id",
        "sku",
        postgresql_where=text("phase <> 'done'"),
    ),
    comment="One organisation and SKU of a run, and how far the walk through its rows or events has come.",
)

reconciliation_day = Table(
    "reconciliation_day",
    metadata,
    _id("reconciliation_id", primary_key=True),
    _id("org_id", primary_key=True),
    _text("sku", primary_key=True),
    Column("day", Date, primary_key=True),
    _total("provider_messages"),
    Column("provider_quantity", Numeric, nullable=False),
    _total("metered_events"),
    Column("metered_quantity", Numeric, nullable=False),
)

reconciliation_drift = Table(
    "reconciliation_drift",
    metadata,
    _id("drift_id", primary_key=True),
    _id("reconciliation_id"),
    _id("org_id"),
    _text("sku"),
    Column("day", Date, nullable=False),
    Column("metered_day", Date, nullable=False),
    _text("kind"),
    _total("messages"),
    Column("provider_quantity", Numeric, nullable=False),
    Column("metered_quantity", Numeric, nullable=False),
    Column("sample_ids", ARRAY(Text), nullable=False),
    Column("is_over_tolerance", Boolean, nullable=False, server_default=text("false")),
    Column("announced_at", DateTime(timezone=True)),
    Index(
        "reconciliation_drift_key",
        "reconciliation_id",
        "org_id",
        "sku",
        "day",
        "metered_day",
        "kind",
        unique=True,
    ),
    Index(
        "reconciliation_drift_unannounced",
        "reconciliation_id",
        "drift_id",
        postgresql_where=text("announced_at IS NULL"),
    ),
)

usage_hour = Table(
    "usage_hour",
    metadata,
    _id("org_id", primary_key=True),
    _text("sku", primary_key=True),
    _at("hour", primary_key=True),
    Column("quantity", Numeric, nullable=False),
    _total("events"),
)

usage_series = Table(
    "usage_series",
    metadata,
    _id("org_id", primary_key=True),
    _text("sku", primary_key=True),
    _at("first_hour"),
    _at("last_hour"),
    _at("judged_hour"),
    Index("usage_series_due", "judged_hour"),
)

usage_alert = Table(
    "usage_alert",
    metadata,
    _id("alert_id", primary_key=True),
    _id("org_id"),
    _text("sku"),
    _text("kind"),
    _at("hour"),
    Column("expected", Numeric, nullable=False),
    Column("seen", Numeric, nullable=False),
    Column("threshold", Numeric, nullable=False),
    _text("why"),
    _at("raised_at"),
    Column("closed_at", DateTime(timezone=True)),
    Index("usage_alert_open", "org_id", "sku", unique=True, postgresql_where=text("closed_at IS NULL")),
    Index("usage_alert_by_org", "org_id", "alert_id"),
)
