"""The tables of pricing as SQLAlchemy Core metadata: compared with the migrations, never used at run time."""

from __future__ import annotations

from typing import Any

from sqlalchemy import ARRAY, CHAR, BigInteger, Column, DateTime, Index, MetaData, Numeric, Table, Text, Uuid
from sqlalchemy.dialects.postgresql import JSONB

SCHEMA = "pricing"
metadata = MetaData(schema=SCHEMA)


def _at(name: str) -> Column[object]:
    return Column(name, DateTime(timezone=True), nullable=False)


def _text(name: str, **options: Any) -> Column[object]:
    options.setdefault("nullable", False)
    return Column(name, Text, **options)


def _sum(name: str) -> Column[object]:
    return Column(name, Numeric, nullable=False, server_default="0")


def _number(name: str) -> Column[object]:
    return Column(name, Numeric, nullable=False)


def _count(name: str) -> Column[object]:
    return Column(name, BigInteger, nullable=False)


counter = Table(
    "counter",
    metadata,
    Column("org_id", Uuid, primary_key=True),
    _text("sku", primary_key=True),
    _text("period", primary_key=True),
    Column("currency", CHAR(3), nullable=False),
    _sum("quantity"),
    Column("events", BigInteger, nullable=False, server_default="0"),
    _sum("charged"),
    _sum("waived"),
    Column("tax_rate", Numeric),
    Column(
        "tax_base",
        Numeric,
        nullable=False,
        server_default="0",
        comment="Gross amounts charged at tax_rate; other rates in earlier_taxes.",
    ),
    _sum("taxed"),
    Column("earlier_taxes", JSONB),
    _text("terms_hash", nullable=True),
    _text("retail_key", nullable=True),
    Column("version", BigInteger, nullable=False, server_default="0"),
    Index("counter_by_period", "period", "org_id", "sku"),
    Index("counter_by_retail_key", "retail_key", "org_id", postgresql_where="retail_key IS NOT NULL"),
)

charge = Table(
    "charge",
    metadata,
    Column("charge_id", Text(collation="C"), primary_key=True),
    Column("org_id", Uuid, primary_key=True),
    Column("project_id", Uuid),
    _text("sku"),
    _text("period"),
    _at("time"),
    _text("kind"),
    _number("quantity"),
    _count("event_count"),
    Column("currency", CHAR(3), nullable=False),
    _number("amount_gross"),
    _sum("waived_amount"),
    _sum("credit_applied"),
    _number("tax_amount"),
    _text("tax_code", nullable=True),
    Column("tax_rate", Numeric),
    Column(
        "tax_base",
        Numeric,
        nullable=False,
        comment="Gross amounts charged at tax_rate up to and with this charge.",
    ),
    _text("terms_hash"),
    _number("counter_quantity"),
    _count("counter_events"),
    _number("counter_charged"),
    _count("counter_version"),
    _text("reason", nullable=True),
    _text("actor", nullable=True),
    Column("trace_ids", ARRAY(Text), nullable=False),
    _at("created_at"),
    Index("charge_by_org", "org_id", "created_at", "charge_id"),
)

unrated_usage = Table(
    "unrated_usage",
    metadata,
    Column("org_id", Uuid, primary_key=True),
    Column("usage_id", Uuid, primary_key=True),
    Column("project_id", Uuid, nullable=False),
    _text("sku"),
    _at("minute"),
    _number("quantity"),
    _count("events"),
    Column("trace_ids", ARRAY(Text), nullable=False),
    _text("reason"),
    _at("parked_at"),
    Index("unrated_usage_by_sku", "sku", "org_id"),
)

terms_due = Table(
    "terms_due",
    metadata,
    Column("org_id", Uuid, primary_key=True),
    Column("after_usage_id", Uuid),
    comment="Organisations whose terms changed: waiting usage and counters to look at.",
)

awaited_terms = Table(
    "awaited_terms",
    metadata,
    _text("terms_hash", primary_key=True),
    Column("org_id", Uuid, primary_key=True),
    comment="Which organisations wait for terms that are named but not here yet.",
)
