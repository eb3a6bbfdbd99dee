"""The tables of the ledger as SQLAlchemy Core metadata: compared with the migrations, never used at run time."""

from __future__ import annotations

from typing import Any

from sqlalchemy import (
    CHAR,
    BigInteger,
    Boolean,
    Column,
    DateTime,
    ForeignKey,
    Index,
    LargeBinary,
    MetaData,
    Numeric,
    Table,
    Text,
    UniqueConstraint,
    Uuid,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import ENUM, JSONB, ExcludeConstraint

SCHEMA = "ledger"
metadata = MetaData(schema=SCHEMA)

POR_STATUS = ENUM("active", "expired", "disputed", name="por_status", schema=SCHEMA, metadata=metadata)
ENTRY_STATUS = ENUM("pending", "settled", "reversed", name="entry_status", schema=SCHEMA, metadata=metadata)
ALLOCATION = ENUM("absorb", "chargeback", "split", name="allocation", schema=SCHEMA, metadata=metadata)


def _at(name: str, **options: Any) -> Column[object]:
    options.setdefault("nullable", False)
    return Column(name, DateTime(timezone=True), **options)


def _text(name: str, **options: Any) -> Column[object]:
    options.setdefault("nullable", False)
    return Column(name, Text, **options)


def _money(name: str) -> Column[object]:
    return Column(name, Numeric, nullable=False)


partner = Table(
    "partner",
    metadata,
    Column("partner_id", Uuid, primary_key=True),
    _text("name"),
    Column("min_payout", JSONB, nullable=False, server_default=text("'{}'")),
    _text("payout_provider"),
    _text("destination", nullable=True),
    _at("created_at"),
    Column("org_id", Uuid),
    Column("version", BigInteger, nullable=False, server_default="1"),
)

partner_tier = Table(
    "partner_tier",
    metadata,
    Column("partner_id", ForeignKey("ledger.partner.partner_id"), primary_key=True),
    _at("effective_at", primary_key=True),
    _text("tier"),
)

billing_account = Table(
    "billing_account",
    metadata,
    Column("billing_account_id", Uuid, primary_key=True),
    Column("owner_org_id", Uuid, nullable=False),
    _text("name"),
    Column("currency", CHAR(3)),
    _text("status"),
    _text("notes", nullable=True),
    Column("is_default", Boolean, nullable=False),
    _at("created_at"),
    Index("billing_account_default_key", "owner_org_id", unique=True, postgresql_where=text("is_default")),
    Index("billing_account_by_owner", "owner_org_id", "billing_account_id"),
)

partner_of_record = Table(
    "partner_of_record",
    metadata,
    Column("org_id", Uuid),
    Column("partner_id", ForeignKey("ledger.partner.partner_id"), nullable=False),
    _at("start_at"),
    _at("end_at", nullable=True),
    Column("status", POR_STATUS, nullable=False),
    Column("por_id", Uuid, primary_key=True),
    _at("created_at"),
    Column("billing_account_id", ForeignKey("ledger.billing_account.billing_account_id")),
    UniqueConstraint("org_id", "partner_id", "start_at", name="partner_of_record_org_partner_start_key"),
    ExcludeConstraint(
        ("org_id", "="),
        (func.tstzrange(text("start_at"), text("end_at")), "&&"),
        name="partner_of_record_org_overlap",
    ),
    ExcludeConstraint(
        ("billing_account_id", "="),
        (func.tstzrange(text("start_at"), text("end_at")), "&&"),
        name="partner_of_record_account_overlap",
    ),
)

commission_rate = Table(
    "commission_rate",
    metadata,
    _text("partner_tier", primary_key=True),
    _text("sku", primary_key=True),
    Column("pct", Numeric(5, 2), nullable=False),
    _at("effective_at", primary_key=True),
    _at("created_at"),
)

ledger = Table(
    "ledger",
    metadata,
    Column("entry_id", Uuid, primary_key=True),
    Column("org_id", Uuid, primary_key=True),
    Column("project_id", Uuid),
    _text("sku"),
    _money("quantity"),
    _money("amount_gross"),
    Column("partner_pct", Numeric(5, 2), nullable=False),
    _money("partner_amount"),
    _money("net"),
    Column("status", ENTRY_STATUS, nullable=False),
    _at("created_at", primary_key=True),
    Column("currency", CHAR(3), nullable=False),
    _text("charge_id", nullable=True),
    _text("kind"),
    _text("period"),
    _at("occurred_at"),
    _text("tax_code", nullable=True),
    _money("tax_amount"),
    _text("terms_hash"),
    _money("credit_applied"),
    _money("waived_amount"),
    Column("partner_id", Uuid),
    Column("por_id", Uuid),
    Column("billing_account_id", Uuid),
    Column("reverses_entry_id", Uuid),
    _text("reason", nullable=True),
    _text("actor", nullable=True),
    Index("ledger_by_entry", "entry_id"),
    Index("ledger_by_account", "billing_account_id", "entry_id"),
    Index(
        "ledger_by_partner",
        "partner_id",
        "org_id",
        "entry_id",
        postgresql_where=text("partner_id IS NOT NULL"),
    ),
    postgresql_partition_by="RANGE (created_at)",
)

charge_posting = Table(
    "charge_posting",
    metadata,
    Column("org_id", Uuid, primary_key=True),
    _text("charge_id", primary_key=True),
    Column("content_hash", LargeBinary, nullable=False),
    Column("entry_id", Uuid, nullable=False),
    _at("created_at"),
)

parked_charge = Table(
    "parked_charge",
    metadata,
    Column("org_id", Uuid, primary_key=True),
    _text("charge_id", primary_key=True),
    Column("content_hash", LargeBinary, primary_key=True),
    _text("reason"),
    Column("waits_for", Uuid),
    Column("body", JSONB, nullable=False),
    _at("parked_at"),
    _at("resolved_at", nullable=True),
    Index("parked_charge_open", "reason", "waits_for", postgresql_where=text("resolved_at IS NULL")),
)

commission_counter = Table(
    "commission_counter",
    metadata,
    Column("partner_id", Uuid, primary_key=True),
    Column("org_id", Uuid, primary_key=True),
    _text("sku", primary_key=True),
    _text("period", primary_key=True),
    Column("currency", CHAR(3), primary_key=True),
    Column("pct", Numeric(5, 2), primary_key=True),
    _money("gross"),
)

invariant_check = Table(
    "invariant_check",
    metadata,
    _text("name", primary_key=True),
    _at("checked_until"),
    Column("breaches", BigInteger, nullable=False),
)

org_billing_mapping = Table(
    "org_billing_mapping",
    metadata,
    Column("org_id", Uuid, primary_key=True),
    Column("billing_account_id", ForeignKey("ledger.billing_account.billing_account_id"), primary_key=True),
    Column("allocation", ALLOCATION, nullable=False),
    Column("percent", Numeric(5, 2)),
    _at("effective_at", primary_key=True),
    Column("mapping_id", Uuid, nullable=False),
    _at("created_at"),
    UniqueConstraint("mapping_id", name="org_billing_mapping_mapping_id_key"),
    Index("org_billing_mapping_by_account", "billing_account_id"),
)

cost_center = Table(
    "cost_center",
    metadata,
    Column("cost_center_id", Uuid, primary_key=True),
    Column("billing_account_id", ForeignKey("ledger.billing_account.billing_account_id"), nullable=False),
    _text("code"),
    _text("name"),
    UniqueConstraint("billing_account_id", "code", name="cost_center_code_key"),
)
