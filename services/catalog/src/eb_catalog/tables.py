"""Tables of the catalog, for alembic's comparison only; the migrations make them."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    DateTime,
    Enum,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    Integer,
    MetaData,
    Numeric,
    Table,
    Text,
    UniqueConstraint,
    text,
)
from sqlalchemy.dialects.postgresql import CHAR, JSONB, UUID

SCHEMA = "catalog"
metadata = MetaData(schema=SCHEMA)
INSTANT = DateTime(timezone=True)
SKU_TYPE = Enum(
    "hosting",
    "object",
    "validation",
    "action",
    "analytics",
    name="sku_type",
    schema=SCHEMA,
    metadata=metadata,
)

business_model = Table(
    "business_model",
    metadata,
    Column("model_id", UUID, primary_key=True),
    Column("code", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("status", Text, nullable=False),
    Column("version", Integer, nullable=False),
    Column("currency", CHAR(3), nullable=False),
    Column(
        "default_plan_id",
        UUID,
        ForeignKey("catalog.plan.plan_id", name="business_model_default_plan_id_fkey", use_alter=True),
    ),
    Column("created_at", INSTANT, nullable=False),
    UniqueConstraint("code", name="business_model_code_key"),
)
plan = Table(
    "plan",
    metadata,
    Column("plan_id", UUID, primary_key=True),
    Column("model_id", UUID, ForeignKey("catalog.business_model.model_id"), nullable=False),
    Column("name", Text, nullable=False),
    Column("tier", Text, nullable=False),
    Column("status", Text, nullable=False),
    Column("notes", Text),
    Column(
        "version",
        Integer,
        nullable=False,
        comment="The published version in force for new assignments; 0 before the first.",
    ),
    Column("is_draft_open", Boolean, nullable=False),
    Column("created_at", INSTANT, nullable=False),
    Index("plan_by_model", "model_id", "plan_id"),
)
product_sku = Table(
    "product_sku",
    metadata,
    Column("sku", Text, primary_key=True),
    Column("type", SKU_TYPE, nullable=False),
    Column("unit", Text, nullable=False),
    Column("cost", Numeric),
    Column("retail", Numeric),
    Column("tax_code", Text),
    Column("metadata", JSONB, nullable=False),
    Column("version", BigInteger, nullable=False),
    Column("created_at", INSTANT, nullable=False),
)
sku_version = Table(
    "sku_version",
    metadata,
    Column("sku", Text, ForeignKey("catalog.product_sku.sku"), primary_key=True),
    Column("effective_at", INSTANT, primary_key=True),
    Column("retail", Numeric),
    Column("tax_code", Text),
)
plan_sku = Table(
    "plan_sku",
    metadata,
    Column("plan_id", UUID, ForeignKey("catalog.plan.plan_id"), primary_key=True),
    Column("sku", Text, ForeignKey("catalog.product_sku.sku"), primary_key=True),
    Column("included_qty", Numeric, nullable=False),
    Column("overage_price", Numeric, nullable=False),
    Column("tiers", JSONB),
    Index("plan_sku_by_sku", "sku"),
)
plan_version = Table(
    "plan_version",
    metadata,
    Column("plan_id", UUID, ForeignKey("catalog.plan.plan_id"), primary_key=True),
    Column("version", Integer, primary_key=True),
    Column("apply", Text, nullable=False),
    Column("published_by", Text, nullable=False),
    Column("published_at", INSTANT, nullable=False),
)
plan_version_sku = Table(
    "plan_version_sku",
    metadata,
    Column("plan_id", UUID, primary_key=True),
    Column("version", Integer, primary_key=True),
    Column("sku", Text, ForeignKey("catalog.product_sku.sku"), primary_key=True),
    Column("included_qty", Numeric, nullable=False),
    Column("overage_price", Numeric, nullable=False),
    Column("tiers", JSONB),
    ForeignKeyConstraint(
        ["plan_id", "version"], ["catalog.plan_version.plan_id", "catalog.plan_version.version"]
    ),
)
org_entitlement = Table(
    "org_entitlement",
    metadata,
    Column("org_id", UUID, primary_key=True),
    Column("plan_id", UUID, ForeignKey("catalog.plan.plan_id"), primary_key=True),
    Column("overrides", JSONB, nullable=False),
    Column("effective_at", INSTANT, nullable=False),
)
org_business_model = Table(
    "org_business_model",
    metadata,
    Column("org_id", UUID, primary_key=True),
    Column("model_id", UUID, ForeignKey("catalog.business_model.model_id"), nullable=False),
    Column("plan_id", UUID, ForeignKey("catalog.plan.plan_id"), nullable=False),
    Column("assigned_by", Text, nullable=False),
    Column("assigned_at", INSTANT, nullable=False),
    Column("notes", Text),
    Column("effective_at", INSTANT, nullable=False),
)
tax_rate = Table(
    "tax_rate",
    metadata,
    Column("tax_code", Text, primary_key=True),
    Column("jurisdiction", Text, primary_key=True),
    Column("rate", Numeric, nullable=False),
    Column("effective_at", INSTANT, primary_key=True),
)
terms = Table(
    "terms",
    metadata,
    Column("terms_hash", Text, primary_key=True),
    Column("body", JSONB, nullable=False),
    Column("created_at", INSTANT, nullable=False),
)
org_terms_state = Table(
    "org_terms_state",
    metadata,
    Column("org_id", UUID, primary_key=True),
    Column("version", BigInteger, nullable=False),
    Column("due_at", INSTANT),
    Column("assignments", JSONB, nullable=False),
    Index("org_terms_state_due", "due_at", "org_id", postgresql_where=text("due_at IS NOT NULL")),
)
org_terms_change = Table(
    "org_terms_change",
    metadata,
    Column("org_id", UUID, ForeignKey("catalog.org_terms_state.org_id"), primary_key=True),
    Column("effective_at", INSTANT, primary_key=True),
    Column("plan_id", UUID, nullable=False),
    Column("plan_version", Integer, nullable=False),
    Column("currency", CHAR(3), nullable=False),
    Column("overrides", JSONB, nullable=False),
    Column("time_zone", Text, nullable=False),
    Column("country", CHAR(2), nullable=False),
    ForeignKeyConstraint(
        ["plan_id", "plan_version"], ["catalog.plan_version.plan_id", "catalog.plan_version.version"]
    ),
    Index("org_terms_change_by_plan", "plan_id", "org_id"),
    comment="What decides an organisation's terms from an instant on; always a period's start.",
)
retail_terms_state = Table(
    "retail_terms_state",
    metadata,
    Column("retail_key", Text, primary_key=True),
    Column("currency", CHAR(3), nullable=False),
    Column("country", CHAR(2), nullable=False),
    Column("version", BigInteger, nullable=False),
    Column("assignments", JSONB, nullable=False),
)
plan_terms_state = Table(
    "plan_terms_state",
    metadata,
    Column("plan_terms_id", Text, primary_key=True),
    Column("plan_id", UUID, ForeignKey("catalog.plan.plan_id"), nullable=False),
    Column("org_id", UUID),
    Column("version", BigInteger, nullable=False),
    Column("body", JSONB),
    Column("due_at", INSTANT),
    Index("plan_terms_state_by_plan", "plan_id"),
    Index("plan_terms_state_due", "due_at", "plan_terms_id", postgresql_where=text("due_at IS NOT NULL")),
    comment="What was announced last of plans, and of plans with an organisation's overrides; "
    "due_at: to be resolved again.",
)
