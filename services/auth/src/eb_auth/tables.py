"""The tables of the auth service as SQLAlchemy Core metadata: compared with the migrations, never used at run time."""

from __future__ import annotations

from sqlalchemy import (
    ARRAY,
    CHAR,
    BigInteger,
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
    UniqueConstraint,
    Uuid,
    text,
)
from sqlalchemy.dialects.postgresql import CITEXT, ENUM, JSONB

SCHEMA = "auth"
metadata = MetaData(schema=SCHEMA)

VISIBILITY = ENUM("private", "partners", "public", name="visibility", schema=SCHEMA, metadata=metadata)
MEMBERSHIP_ROLE = ENUM("Admin", "User", name="membership_role", schema=SCHEMA, metadata=metadata)
MEMBERSHIP_STATUS = ENUM("active", "pending", name="membership_status", schema=SCHEMA, metadata=metadata)
GROUP_ROLE = ENUM(
    "GroupAdmin", "GroupBilling", "GroupSupport", name="group_role", schema=SCHEMA, metadata=metadata
)


def _at(name: str, *, nullable: bool = False) -> Column[object]:
    return Column(name, DateTime(timezone=True), nullable=nullable)


organization = Table(
    "organization",
    metadata,
    Column("org_id", Uuid, primary_key=True),
    Column("legal_name", Text, nullable=False),
    Column("org_slug", Text, nullable=False, unique=True),
    Column("billing_email", Text, nullable=False),
    Column("default_timezone", Text, nullable=False),
    Column("tax_id", Text),
    Column("visibility", VISIBILITY, nullable=False, server_default="private"),
    Column("country", CHAR(2), nullable=False, server_default="AU"),
    _at("created_at"),
    Column("version", BigInteger, nullable=False, server_default="1"),
    Column("parent_org_id", Uuid, ForeignKey("auth.organization.org_id")),
    Column("assist_policy", Text, nullable=False, server_default="notify"),
    Index("organization_by_parent", "parent_org_id", "org_id"),
)

user = Table(
    "user",
    metadata,
    Column("user_id", Uuid, primary_key=True),
    Column("email", CITEXT, nullable=False, unique=True),
    Column("default_org_id", Uuid, ForeignKey("auth.organization.org_id")),
    _at("created_at"),
)

membership = Table(
    "membership",
    metadata,
    Column("org_id", Uuid, ForeignKey("auth.organization.org_id"), primary_key=True),
    Column("user_id", Uuid, ForeignKey("auth.user.user_id"), primary_key=True),
    Column("role", MEMBERSHIP_ROLE, nullable=False),
    Column("status", MEMBERSHIP_STATUS, nullable=False),
    _at("created_at"),
    Index("membership_by_age", "org_id", "created_at", "user_id"),
    Index("membership_by_user", "user_id", "org_id"),
)

member_version = Table(
    "member_version",
    metadata,
    Column("org_id", Uuid, ForeignKey("auth.organization.org_id"), primary_key=True),
    Column("user_id", Uuid, ForeignKey("auth.user.user_id"), primary_key=True),
    Column("version", BigInteger, nullable=False),
)

platform_role = Table(
    "platform_role",
    metadata,
    Column("user_id", Uuid, ForeignKey("auth.user.user_id"), primary_key=True),
    Column("role", Text, primary_key=True),
    Column("granted_by", Text, nullable=False),
    _at("granted_at"),
)

session = Table(
    "session",
    metadata,
    Column("session_id", Uuid, primary_key=True),
    Column("user_id", Uuid, ForeignKey("auth.user.user_id"), nullable=False),
    Column("org_id", Uuid, ForeignKey("auth.organization.org_id")),
    _at("created_at"),
    _at("last_used_at"),
    _at("idle_expires_at"),
    _at("expires_at"),
    _at("revoked_at", nullable=True),
    Column("revoked_reason", Text),
    Column("user_agent", Text, nullable=False),
    Column("address", Text, nullable=False),
    Column("provider", Text),
    Column("acr", Text),
    Column("amr", ARRAY(Text), nullable=False, server_default="{}"),
    _at("auth_time", nullable=True),
    Index("session_by_user", "user_id", "session_id"),
    Index("session_by_expiry", "expires_at"),
)

refresh_token = Table(
    "refresh_token",
    metadata,
    Column("token_sha256", LargeBinary, primary_key=True),
    Column("session_id", Uuid, ForeignKey("auth.session.session_id", ondelete="CASCADE"), nullable=False),
    _at("issued_at"),
    _at("used_at", nullable=True),
    Index("refresh_token_by_session", "session_id"),
    Index("refresh_token_current_key", "session_id", unique=True, postgresql_where=text("used_at IS NULL")),
)

login_code = Table(
    "login_code",
    metadata,
    Column("email", CITEXT, primary_key=True),
    Column("code_hmac", LargeBinary, nullable=False),
    Column("tries", SmallInteger, nullable=False),
    _at("expires_at"),
    Index("login_code_by_expiry", "expires_at"),
)

attempt_window = Table(
    "attempt_window",
    metadata,
    Column("bucket", LargeBinary, primary_key=True),
    _at("starts_at"),
    Column("attempts", Integer, nullable=False),
    Index("attempt_window_by_age", "starts_at"),
)

mail_waiting = Table(
    "mail_waiting",
    metadata,
    Column("mail_id", Uuid, primary_key=True),
    Column("sealed", LargeBinary, nullable=False),
    _at("due_at"),
    _at("expires_at"),
    Column("attempts", SmallInteger, nullable=False),
    Index("mail_waiting_by_due", "due_at"),
)

project = Table(
    "project",
    metadata,
    Column("project_id", Uuid, primary_key=True),
    Column("org_id", Uuid, ForeignKey("auth.organization.org_id"), nullable=False),
    Column("name", Text, nullable=False),
    _at("created_at"),
    Column("version", BigInteger, nullable=False, server_default="1"),
    Column("cost_center_id", Uuid),
    Index("project_by_org", "org_id", "project_id"),
)

api_key = Table(
    "api_key",
    metadata,
    Column("key_id", Uuid, primary_key=True),
    Column("kind", Text, nullable=False),
    Column("org_id", Uuid, ForeignKey("auth.organization.org_id")),
    Column("name", Text, nullable=False),
    Column("secret_sha256", Text, nullable=False, unique=True),
    Column("scopes", ARRAY(Text), nullable=False),
    Column("created_by", Text, nullable=False),
    _at("created_at"),
    _at("expires_at", nullable=True),
    _at("revoked_at", nullable=True),
    Column("version", BigInteger, nullable=False, server_default="1"),
    Index("api_key_by_org", "org_id", "key_id"),
    Index("api_key_by_service", "name", postgresql_where=text("kind = 'service'")),
)

signing_key = Table(
    "signing_key",
    metadata,
    Column("kid", Text, primary_key=True),
    Column("x", Text, nullable=False),
    Column("sealed_private", LargeBinary, nullable=False),
    _at("created_at"),
    _at("active_from"),
    _at("retired_at", nullable=True),
    Column("version", BigInteger, nullable=False, server_default="1"),
)

access_revocation = Table(
    "access_revocation",
    metadata,
    Column("subject_key", Text, primary_key=True),
    _at("not_before"),
    Column("version", BigInteger, nullable=False, server_default="1"),
)

invitation = Table(
    "invitation",
    metadata,
    Column("invitation_id", Uuid, primary_key=True),
    Column("org_id", Uuid, ForeignKey("auth.organization.org_id"), nullable=False),
    Column("email", CITEXT, nullable=False),
    Column("role", MEMBERSHIP_ROLE, nullable=False),
    Column("token_sha256", LargeBinary, nullable=False, unique=True),
    Column("invited_by", Uuid, ForeignKey("auth.user.user_id"), nullable=False),
    _at("created_at"),
    _at("expires_at"),
    _at("consumed_at", nullable=True),
    Column("outcome", Text),
    Index(
        "invitation_open_key",
        "org_id",
        text("lower(email::text)"),
        unique=True,
        postgresql_where=text("consumed_at IS NULL"),
    ),
)

org_hierarchy = Table(
    "org_hierarchy",
    metadata,
    Column("ancestor_org_id", Uuid, primary_key=True),
    Column("descendant_org_id", Uuid, primary_key=True),
    Column("depth", Integer, nullable=False),
    Index("org_hierarchy_by_descendant", "descendant_org_id", "depth"),
    Index(
        "org_hierarchy_children", "ancestor_org_id", "descendant_org_id", postgresql_where=text("depth = 1")
    ),
)

org_parent_link = Table(
    "org_parent_link",
    metadata,
    Column("org_id", Uuid, ForeignKey("auth.organization.org_id"), primary_key=True),
    Column("effective_at", DateTime(timezone=True), primary_key=True),
    Column("parent_org_id", Uuid, ForeignKey("auth.organization.org_id")),
)

group_role_membership = Table(
    "group_role_membership",
    metadata,
    Column("ancestor_org_id", Uuid, ForeignKey("auth.organization.org_id"), primary_key=True),
    Column("user_id", Uuid, ForeignKey("auth.user.user_id"), primary_key=True),
    Column("role", GROUP_ROLE, nullable=False),
    _at("created_at"),
    Index("group_role_membership_by_user", "user_id"),
)

audit_chain = Table(
    "audit_chain",
    metadata,
    Column(
        "chain_id",
        Uuid,
        primary_key=True,
        comment="The organisation; all zeros for what belongs to none.",
    ),
    Column("seq", BigInteger, primary_key=True),
    Column("audit_id", Uuid, nullable=False, unique=True),
    *(Column(name, Text, nullable=False) for name in ("service", "entity", "entity_id", "action", "actor")),
    Column("on_behalf_of", Text),
    Column("session_user_name", Text, nullable=False),
    *(Column(name, Text) for name in ("request_id", "trace_id")),
    _at("at"),
    *(Column(name, JSONB) for name in ("before", "after")),
    Column("hash", LargeBinary, nullable=False),
    Index("audit_chain_by_entity", "chain_id", "entity", "entity_id", "seq"),
    Index("audit_chain_by_actor", "chain_id", "actor", "seq"),
)

audit_chain_head = Table(
    "audit_chain_head",
    metadata,
    Column("chain_id", Uuid, primary_key=True),
    Column("seq", BigInteger, nullable=False),
    Column("hash", LargeBinary, nullable=False),
    Column(
        "seal",
        LargeBinary,
        nullable=False,
        comment="HMAC of chain, seq and hash with a key that the database lacks.",
    ),
    Column(
        "anchored_seq",
        BigInteger,
        nullable=False,
        server_default="0",
        comment="Up to where the head was noted in the chain of heads; only a list of work, no proof.",
    ),
    Index("audit_chain_head_unanchored", "chain_id", postgresql_where=text("anchored_seq < seq")),
)

audit_personal = Table(
    "audit_personal",
    metadata,
    Column("audit_id", Uuid, primary_key=True),
    Column("name", Text, primary_key=True),
    Column("salt", LargeBinary, nullable=False),
    *(Column(name, Text) for name in ("before", "after")),
    Index("audit_personal_before", "before"),
    Index("audit_personal_after", "after"),
    comment="Personal values that entries only commit to; a row can be erased.",
)

org_link = Table(
    "org_link",
    metadata,
    Column("org_link_id", Uuid, primary_key=True),
    Column("parent_org_id", Uuid, ForeignKey("auth.organization.org_id"), nullable=False),
    Column("child_org_id", Uuid, ForeignKey("auth.organization.org_id"), nullable=False),
    Column("status", Text, nullable=False),
    Column("requested_by", Text, nullable=False),
    _at("requested_at"),
    _at("expires_at"),
    Column("decided_by", Text),
    _at("decided_at", nullable=True),
    Index(
        "org_link_pending_key",
        "child_org_id",
        "parent_org_id",
        unique=True,
        postgresql_where=text("status = 'pending'"),
    ),
)

assist_session = Table(
    "assist_session",
    metadata,
    Column("assist_session_id", Uuid, primary_key=True),
    Column("org_id", Uuid, ForeignKey("auth.organization.org_id"), nullable=False),
    Column("user_id", Uuid, ForeignKey("auth.user.user_id"), nullable=False),
    Column("session_id", Uuid, nullable=False),
    Column("via_org_id", Uuid, ForeignKey("auth.organization.org_id")),
    *(Column(name, Text, nullable=False) for name in ("mode", "purpose", "reason")),
    Column("ticket", Text),
    Column("ttl_minutes", SmallInteger, nullable=False),
    Column("status", Text, nullable=False),
    _at("requested_at"),
    Column("decided_by", Text),
    _at("decided_at", nullable=True),
    _at("begun_at", nullable=True),
    _at("expires_at"),
    Column("ended_by", Text),
    _at("ended_at", nullable=True),
    Index("assist_session_by_org", "org_id", "assist_session_id"),
    Index(
        "assist_session_open_by_user",
        "user_id",
        postgresql_where=text("status IN ('pending', 'approved', 'active')"),
    ),
)

oidc_attempt = Table(
    "oidc_attempt",
    metadata,
    Column("state_sha256", LargeBinary, primary_key=True),
    Column("provider", Text, nullable=False),
    *(Column(name, LargeBinary, nullable=False) for name in ("sealed", "browser_sha256")),
    _at("expires_at"),
    Index("oidc_attempt_by_expiry", "expires_at"),
)

oidc_identity = Table(
    "oidc_identity",
    metadata,
    Column("issuer", Text, primary_key=True),
    Column("subject", Text, primary_key=True),
    Column("user_id", Uuid, ForeignKey("auth.user.user_id"), nullable=False),
    _at("created_at"),
    UniqueConstraint("issuer", "user_id", name="oidc_identity_user_key"),
)
