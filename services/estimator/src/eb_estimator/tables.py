"""The tables of the estimator as SQLAlchemy Core metadata: compared with the migrations, never used at run time."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Column,
    DateTime,
    Index,
    LargeBinary,
    MetaData,
    Numeric,
    Table,
    Text,
    UniqueConstraint,
    Uuid,
)
from sqlalchemy.dialects.postgresql import JSONB

SCHEMA = "estimator"
metadata = MetaData(schema=SCHEMA)

counter = Table(
    "counter",
    metadata,
    Column("org_id", Uuid, primary_key=True),
    Column("sku", Text, primary_key=True),
    Column("period", Text, primary_key=True),
    Column("quantity", Numeric, nullable=False),
    Column("events", BigInteger, nullable=False),
    Column("charged", Numeric, nullable=False),
    Column("version", BigInteger, nullable=False),
)

pricing_estimate = Table(
    "pricing_estimate",
    metadata,
    Column("estimate_id", Uuid, primary_key=True),
    Column("org_id", Uuid, nullable=False),
    Column("project_id", Uuid),
    Column("inputs", JSONB, nullable=False),
    Column("result", JSONB, nullable=False),
    Column("created_at", DateTime(timezone=True), nullable=False),
    Column("cache_key", LargeBinary, nullable=False),
    UniqueConstraint("org_id", "cache_key", name="pricing_estimate_cache_key"),
    Index("pricing_estimate_by_age", "created_at"),
)
