"""The kit's tables as SQLAlchemy Core metadata: compared with the migrations, never used at run time."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    DateTime,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    SmallInteger,
    Table,
    Text,
    Uuid,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB

INSTANT = DateTime(timezone=True)


def add_kit_tables(metadata: MetaData) -> None:
    """Add the tables that the kit keeps in every service's schema to that schema's metadata."""
    _add_bus_tables(metadata)
    _add_read_models(metadata)
    _add_request_tables(metadata)


def _add_bus_tables(metadata: MetaData) -> None:
    Table(
        "outbox",
        metadata,
        Column("outbox_id", Uuid, primary_key=True),
        Column("lane", SmallInteger, nullable=False),
        *(Column(name, Text, nullable=False) for name in ("exchange", "routing_key", "type", "subject")),
        Column("body", LargeBinary, nullable=False),
        Column("headers", JSONB, nullable=False),
        Column("created_at", INSTANT, nullable=False),
        Column("sent_at", INSTANT),
        Index("outbox_unsent", "lane", "outbox_id", postgresql_where=text("sent_at IS NULL")),
    )
    Table(
        "inbox",
        metadata,
        Column("message_id", Uuid, primary_key=True),
        Column("queue", Text, primary_key=True),
        Column("handled_at", INSTANT, nullable=False),
        Column("source", Text),
    )
    _add_dead_letters(metadata)
    _add_coherence(metadata)


def _add_coherence(metadata: MetaData) -> None:
    Table(
        "coherence_cursor",
        metadata,
        Column("is_only", Boolean, primary_key=True),
        Column("compared_to", INSTANT, nullable=False),
    )
    Table(
        "sent_window",
        metadata,
        Column("window_from", INSTANT, primary_key=True),
        Column("queue", Text, primary_key=True),
        *(Column(name, INSTANT, nullable=False) for name in ("window_to", "next_at", "resend_at")),
        *(Column(name, BigInteger, nullable=False) for name in ("sent", "unsent", "digest", "cleared")),
        Column("handled", BigInteger),
        *(Column(name, Integer, nullable=False) for name in ("rounds", "resent")),
        Index("sent_window_due", "next_at"),
    )


def _add_dead_letters(metadata: MetaData) -> None:
    Table(
        "bus_dead_letter",
        metadata,
        Column("dead_letter_id", Uuid, primary_key=True),
        Column("queue", Text, nullable=False),
        Column("message_id", Uuid),
        Column("type", Text),
        Column("headers", JSONB, nullable=False),
        Column("body", LargeBinary, nullable=False),
        *(Column(name, Text, nullable=False) for name in ("error_class", "detail", "fingerprint", "status")),
        Column("attempts", Integer, nullable=False),
        Column("first_at", INSTANT, nullable=False),
        Column("last_at", INSTANT, nullable=False),
        Column("trace_id", Text),
        Index("bus_dead_letter_by_status", "status", "dead_letter_id"),
        Index("bus_dead_letter_by_message", "message_id", "queue"),
        Index(
            "bus_dead_letter_message",
            "message_id",
            "queue",
            unique=True,
            postgresql_where=text("status = 'open'"),
        ),
    )


def _add_read_models(metadata: MetaData) -> None:
    Table(
        "known",
        metadata,
        Column("entity", Text, primary_key=True),
        Column("entity_id", Text, primary_key=True),
        Column("version", BigInteger, nullable=False),
        Column("is_deleted", Boolean, nullable=False),
        Column("body", JSONB, nullable=False),
        Column("changed_at", INSTANT, nullable=False),
        Index("known_by_change", "changed_at"),
    )
    Table(
        "read_model",
        metadata,
        Column("entity", Text, primary_key=True),
        Column("snapshot_id", Uuid, nullable=False),
        Column("state", Text, nullable=False),
        Column("requested_at", INSTANT, nullable=False),
        Column("expected", Integer),
        Column("completed_at", INSTANT),
    )


def _add_request_tables(metadata: MetaData) -> None:
    Table(
        "idempotency_key",
        metadata,
        *(Column(name, Text, primary_key=True) for name in ("scope", "route", "key")),
        Column("request_sha256", LargeBinary, nullable=False),
        Column("status", Integer, nullable=False),
        Column("headers", JSONB, nullable=False),
        Column("body", LargeBinary),
        Column("created_at", INSTANT, nullable=False),
        Index("idempotency_key_by_age", "created_at"),
    )
    Table(
        "audit_entry",
        metadata,
        Column("audit_id", Uuid, primary_key=True),
        Column("org_id", Uuid),
        *(Column(name, Text, nullable=False) for name in ("entity", "entity_id", "action", "actor")),
        Column("on_behalf_of", Text),
        Column("session_user_name", Text, nullable=False),
        *(Column(name, Text) for name in ("request_id", "trace_id")),
        Column("at", INSTANT, nullable=False),
        *(Column(name, JSONB) for name in ("before", "after")),
        Index("audit_entry_by_org", "org_id", "audit_id"),
        Index("audit_entry_by_entity", "entity", "entity_id", "audit_id"),
    )
    Table(
        "assist_request",
        metadata,
        Column("assist_request_id", Uuid, primary_key=True),
        *(Column(name, Uuid, nullable=False) for name in ("assist_session_id", "org_id", "user_id")),
        *(Column(name, Text, nullable=False) for name in ("route", "path")),
        Column("requested_at", INSTANT, nullable=False),
    )
    Table(
        "audit_waiting",
        metadata,
        Column("audit_id", Uuid, ForeignKey(f"{metadata.schema}.audit_entry.audit_id"), primary_key=True),
        comment="Audit entries that are still to be sent to auth, which chains them.",
    )
