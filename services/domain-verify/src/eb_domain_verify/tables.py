"""The tables of domain-verify as SQLAlchemy Core metadata: compared with the migrations, never used at run time."""

from __future__ import annotations

from sqlalchemy import (
    ARRAY,
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    DateTime,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    UniqueConstraint,
    Uuid,
    text,
)
from sqlalchemy.dialects.postgresql import CITEXT, ENUM, JSONB

SCHEMA = "domain_verify"
metadata = MetaData(schema=SCHEMA)

CLAIM_STATUS = ENUM(
    "pending",
    "verified",
    "revoked",
    "pending_conflict",
    name="claim_status",
    schema=SCHEMA,
    metadata=metadata,
)
OPEN = "status IN ('pending', 'pending_conflict')"


def _at(name: str, *, nullable: bool = False) -> Column[object]:
    return Column(name, DateTime(timezone=True), nullable=nullable)


def _empty(name: str) -> Column[object]:
    return Column(name, JSONB, nullable=False, server_default=text("'{}'"))


domain_claim = Table(
    "domain_claim",
    metadata,
    Column("claim_id", Uuid, primary_key=True),
    Column("org_id", Uuid, nullable=False),
    Column("domain", CITEXT, nullable=False),
    Column("organizational_domain", Text, nullable=False),
    Column("status", CLAIM_STATUS, nullable=False),
    _at("verified_at", nullable=True),
    Column("wildcard", Boolean, nullable=False, server_default=text("false")),
    Column("proof", JSONB),
    Column("dns_token", Text, nullable=False),
    _at("expires_at"),
    Column("version", BigInteger, nullable=False, server_default=text("1")),
    _at("created_at"),
    CheckConstraint(
        "(status = 'verified') <= (verified_at IS NOT NULL AND proof IS NOT NULL)",
        name="domain_claim_verified",
    ),
    CheckConstraint("domain::text COLLATE \"C\" ~ '^[A-Za-z0-9.-]{3,253}$'", name="domain_claim_canonical"),
    CheckConstraint("NOT wildcard OR domain::text = organizational_domain", name="domain_claim_wildcard"),
    Index(
        "domain_claim_holder_key",
        "domain",
        unique=True,
        postgresql_where=text("status IN ('pending', 'verified')"),
    ),
    Index(
        "domain_claim_org_key", "org_id", "domain", unique=True, postgresql_where=text("status <> 'revoked'")
    ),
    Index("domain_claim_by_org", "org_id", "claim_id"),
    Index("domain_claim_by_family", "organizational_domain", postgresql_where=text("status <> 'revoked'")),
    Index("domain_claim_by_expiry", "expires_at", postgresql_where=text(OPEN)),
)

claim_challenge = Table(
    "claim_challenge",
    metadata,
    Column("claim_id", Uuid, ForeignKey("domain_verify.domain_claim.claim_id"), primary_key=True),
    Column("token_sha256", LargeBinary, nullable=False),
    Column("send_to", Text, nullable=False),
    _at("issued_at"),
    _at("expires_at"),
    _at("used_at", nullable=True),
    Column("last_attempt", JSONB),
    UniqueConstraint("token_sha256", name="claim_challenge_token_key"),
    UniqueConstraint("send_to", name="claim_challenge_send_to_key"),
)

inbound_mail = Table(
    "inbound_mail",
    metadata,
    Column("mail_id", Uuid, primary_key=True),
    Column("request_sha256", LargeBinary, nullable=False),
    Column("provider", Text, nullable=False),
    _at("received_at"),
    Column(
        "clock_ahead_s",
        Integer,
        nullable=False,
        comment="How far the business clock stood ahead of the machine's at receipt: signers follow the machine's.",
    ),
    Column("envelope_from", Text),
    Column("envelope_to", Text, nullable=False),
    Column("client_ip", Text, nullable=False),
    Column("helo", Text, nullable=False),
    Column("raw", LargeBinary),
    Column("raw_sha256", LargeBinary, nullable=False),
    Column("claim_id", Uuid, ForeignKey("domain_verify.domain_claim.claim_id")),
    Column("outcome", Text, nullable=False),
    Column("reasons", ARRAY(Text), nullable=False, server_default=text("'{}'")),
    _empty("checks"),
    _empty("dns_answers"),
    Column("attempts", Integer, nullable=False, server_default=text("0")),
    _at("next_attempt_at", nullable=True),
    _at("judged_at", nullable=True),
    Column("trace_id", Text),
    UniqueConstraint("request_sha256", name="inbound_mail_request_key"),
    CheckConstraint("outcome IN ('waiting', 'verified', 'refused')", name="inbound_mail_outcome"),
    CheckConstraint("(outcome = 'waiting') <= (next_attempt_at IS NOT NULL)", name="inbound_mail_due_at"),
    Index("inbound_mail_due", "next_attempt_at", postgresql_where=text("outcome = 'waiting'")),
    Index("inbound_mail_by_claim", "claim_id", "mail_id"),
    Index("inbound_mail_with_raw", "received_at", postgresql_where=text("raw IS NOT NULL")),
)
