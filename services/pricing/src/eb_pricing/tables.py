"""The tables of pricing as SQLAlchemy Core metadata: compared with the migrations, never used at run time."""

from __future__ import annotations

from typing import Any

from sqlalchemy import (
    ARRAY,
    CHAR,
    BigInteger,
    Boolean,
    Column,
    DateTime,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Numeric,
    Table,
    Text,
    UniqueConstraint,
    Uuid,
)
from sqlalchemy.dialects.postgresql import JSONB

SCHEMA = "pricing"
metadata = MetaData(schema=SCHEMA)


def _at(name: str) -> Column[object]:
    return Column(name, DateTime(timezone=True), nullable=False)


def _text(name: str, **options: Any) -> Column[object]:
    options.setdefault("nullable", False)
    return Column(name, Text, **options)


def _flag(name: str, **options: Any) -> Column[object]:
    return Column(name, Boolean, nullable=False, server_default="false", **options)


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
    Column(
        "base", Numeric, nullable=False, server_default="0", comment="The part of charged that is base fees."
    ),
    _flag("is_closed"),
    Index("counter_with_base", "org_id", "period", postgresql_where="base <> 0"),
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
    _flag("is_closed", comment="Whether the period was closed: the minimum counted then."),
    Column(
        "base_due",
        Numeric,
        nullable=False,
        server_default="0",
        comment="The part of what became due that is base fees.",
    ),
    _sum("counter_base"),
    Column("days_left", Integer),
    Column("days", Integer),
    Index("charge_besides_usage", "org_id", "created_at", "charge_id", postgresql_where="kind <> 'usage'"),
    Index("charge_by_counter", "org_id", "sku", "period"),
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
    Column("hold_ids", ARRAY(Uuid), nullable=False, server_default="{}"),
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

billing_period = Table(
    "billing_period",
    metadata,
    Column("org_id", Uuid, primary_key=True),
    _text("period", primary_key=True),
    _at("starts_at"),
    _at("ends_at"),
    Column("closed_at", DateTime(timezone=True)),
    _text("closed_by", nullable=True),
    Column(
        "settled_at",
        DateTime(timezone=True),
        comment="When its counters had been brought to their closed targets.",
    ),
    Column("charges", Integer),
    Column(
        "retry_at", DateTime(timezone=True), comment="Not before then, since terms it needs were missing."
    ),
    Index("billing_period_open", "ends_at", "org_id", postgresql_where="closed_at IS NULL"),
    Index(
        "billing_period_unsettled",
        "closed_at",
        "org_id",
        postgresql_where="closed_at IS NOT NULL AND settled_at IS NULL",
    ),
)

org_calendar = Table(
    "org_calendar",
    metadata,
    Column("org_id", Uuid, primary_key=True),
    _at("due_at"),
    _text("next_period", nullable=True),
    Index("org_calendar_by_due_at", "due_at", "org_id"),
    comment="When an organisation's next period or base fee begins; next_period is the first one not opened yet.",
)

rerate = Table(
    "rerate",
    metadata,
    Column("rerate_id", Uuid, primary_key=True),
    Column("org_id", Uuid, nullable=False),
    _text("period"),
    _text("reason"),
    _text("actor"),
    Column("charges", Integer, nullable=False),
    _text("key_scope"),
    _text("idempotency_key"),
    _at("created_at"),
    UniqueConstraint("key_scope", "idempotency_key", name="rerate_key"),
    Index("rerate_by_org", "org_id", "rerate_id"),
)

budget = Table(
    "budget",
    metadata,
    Column("budget_id", Uuid, primary_key=True),
    Column("org_id", Uuid, nullable=False),
    Column("project_id", Uuid),
    _number("amount"),
    Column("currency", CHAR(3), nullable=False),
    Column("thresholds", ARRAY(Integer), nullable=False),
    Column("hard_cap", Boolean, nullable=False),
    Column(
        "first_period",
        Text,
        nullable=False,
        comment="The period that ran when it was made; it counts from there on.",
    ),
    _at("created_at"),
    _at("updated_at"),
    Index("budget_of_org", "org_id", unique=True, postgresql_where="project_id IS NULL"),
    Index("budget_of_project", "org_id", "project_id", unique=True),
)

budget_spend = Table(
    "budget_spend",
    metadata,
    Column("budget_id", Uuid, ForeignKey(budget.c.budget_id, ondelete="CASCADE"), primary_key=True),
    _text("period", primary_key=True),
    Column("total", Numeric, nullable=False, comment="What came to the cap so far."),
    Column(
        "granted",
        Numeric,
        nullable=False,
        comment="What passed the cap so far: what is new of it passes with a charge.",
    ),
    Column("charged", Numeric, nullable=False, comment="Gross amounts charged."),
    Column(
        "ceiling",
        Numeric,
        comment="The cap, or what was granted when it was set if that was more; granted never passes it.",
    ),
    Column("announced", ARRAY(Integer), nullable=False, comment="Thresholds that were announced."),
)

cap_cut = Table(
    "cap_cut",
    metadata,
    Column("charge_id", Text(collation="C"), primary_key=True),
    Column("org_id", Uuid, primary_key=True),
    Column("budget_id", Uuid, primary_key=True),
    Column("project_id", Uuid),
    _text("period"),
    Column("currency", CHAR(3), nullable=False),
    _number("cap"),
    _number("due"),
    _number("total"),
    _number("granted_before"),
    _number("granted"),
    Index("cap_cut_by_period", "org_id", "period"),
    comment="What a cap changed of a charge: due came to it, granted - granted_before passed;"
    " project_id is the budget's.",
)

credit = Table(
    "credit",
    metadata,
    Column("credit_id", Uuid, primary_key=True),
    Column("org_id", Uuid, nullable=False),
    _number("amount"),
    Column("currency", CHAR(3), nullable=False),
    Column("sku_types", ARRAY(Text), comment="Which SKUs it pays for; null: all."),
    Column("priority", Integer, nullable=False),
    Column("expires_at", DateTime(timezone=True)),
    _text("source"),
    _text("actor"),
    _text("key_scope"),
    _text("idempotency_key"),
    Column("request_sha256", LargeBinary, nullable=False),
    _at("created_at"),
    UniqueConstraint("key_scope", "idempotency_key", name="credit_key"),
    Index("credit_by_org", "org_id", "credit_id"),
)

credit_use = Table(
    "credit_use",
    metadata,
    Column("credit_id", Uuid, ForeignKey(credit.c.credit_id), primary_key=True),
    _number("drawn"),
)

credit_draw = Table(
    "credit_draw",
    metadata,
    Column("charge_id", Text(collation="C"), primary_key=True),
    Column("org_id", Uuid, primary_key=True),
    Column("credit_id", Uuid, ForeignKey(credit.c.credit_id), primary_key=True),
    Column("amount", Numeric, nullable=False, comment="Negative where the charge gave back."),
    _at("created_at"),
    Index("credit_draw_by_credit", "credit_id"),
)

initiation = Table(
    "initiation",
    metadata,
    Column("org_id", Uuid, primary_key=True),
    Column("request_id", Text(collation="C"), primary_key=True),
    Column("project_id", Uuid),
    _text("sku"),
    _number("quantity"),
    _text("period", nullable=True),
    _text("decision"),
    _text("reason"),
    Column("amount", Numeric),
    Column("currency", CHAR(3)),
    Column("needs_credit", Boolean, nullable=False),
    Column("hold_id", Uuid),
    Column("expires_at", DateTime(timezone=True)),
    Column("released_at", DateTime(timezone=True)),
    _at("created_at"),
    Index("initiation_by_hold", "hold_id", unique=True, postgresql_where="hold_id IS NOT NULL"),
    Index(
        "initiation_open",
        "org_id",
        "expires_at",
        postgresql_where="hold_id IS NOT NULL AND released_at IS NULL",
    ),
    Index("initiation_by_age", "created_at"),
    comment="Answers given before an action: the same question gets the same answer;"
    " an open hold keeps its amount free.",
)
