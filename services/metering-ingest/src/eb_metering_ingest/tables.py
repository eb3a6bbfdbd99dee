"""The tables of metering ingest as SQLAlchemy Core metadata: compared with the migrations, never used at run time."""

from __future__ import annotations

from typing import Any

from sqlalchemy import (
    Column,
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
    Index(
        "dead_letter_content_key",
        "org_id",
        "request_id",
        "content_hash",
        unique=True,
        postgresql_nulls_not_distinct=True,
    ),
    Index("dead_letter_by_org", "org_id", "dead_letter_id"),
)
