"""Requests to link organisations, assist sessions and what was asked inside them, versions of memberships.

Revision: 20250920_13, after 20250920_12.
Downgrade: links asked for, assist sessions, requests made inside, each organisation's assist policy and the versions
of memberships are kept aside and brought back by the next upgrade. Nothing is lost.
"""

from kit_tables import SCHEMAS, audit, drop, grant, keep, restore, run

revision = "20250920_13"
down_revision = "20250920_12"
branch_labels = None
depends_on = None

AUTH_KEPT = ("member_version", "org_link", "assist_session")


def upgrade() -> None:
    """Make the tables, bring back what was kept."""
    run(AUTH)
    restore(revision, "auth", *AUTH_KEPT)
    run(RESTORE_POLICIES + BACKFILL)
    audit("auth", "org_link", "org_link_id", "child_org_id")
    audit("auth", "assist_session", "assist_session_id", "org_id")
    for schema in SCHEMAS:
        run(REQUEST.replace("@schema", schema))
        grant(schema, "assist_request", "INSERT")
        restore(revision, schema, "assist_request")
        audit(schema, "assist_request", "assist_session_id,assist_request_id", "org_id")


def downgrade() -> None:
    """Set aside, then drop."""
    for schema in SCHEMAS:
        keep(revision, schema, "assist_request")
        drop(schema, "assist_request")
    run(KEEP_POLICIES)
    keep(revision, "auth", *AUTH_KEPT)
    drop("auth", *reversed(AUTH_KEPT))
    run(TAKE_COLUMNS)


AUTH = """
ALTER TABLE auth.organization ADD COLUMN assist_policy text NOT NULL DEFAULT 'notify'
    CONSTRAINT organization_assist_policy CHECK (assist_policy IN ('off', 'notify', 'approve'));

CREATE TABLE auth.member_version (
    org_id uuid NOT NULL REFERENCES auth.organization (org_id),
    user_id uuid NOT NULL REFERENCES auth."user" (user_id),
    version bigint NOT NULL,
    PRIMARY KEY (org_id, user_id)
);

CREATE TABLE auth.org_link (
    org_link_id uuid PRIMARY KEY,
    parent_org_id uuid NOT NULL REFERENCES auth.organization (org_id),
    child_org_id uuid NOT NULL REFERENCES auth.organization (org_id),
    status text NOT NULL,
    requested_by text NOT NULL,
    requested_at timestamptz NOT NULL,
    expires_at timestamptz NOT NULL,
    decided_by text,
    decided_at timestamptz,
    CONSTRAINT org_link_status CHECK (status IN ('pending', 'accepted', 'declined')),
    CONSTRAINT org_link_decided CHECK ((status = 'pending') = (decided_at IS NULL))
);
CREATE UNIQUE INDEX org_link_pending_key ON auth.org_link (child_org_id, parent_org_id) WHERE status = 'pending';

CREATE TABLE auth.assist_session (
    assist_session_id uuid PRIMARY KEY,
    org_id uuid NOT NULL REFERENCES auth.organization (org_id),
    user_id uuid NOT NULL REFERENCES auth."user" (user_id),
    session_id uuid NOT NULL,
    -- where the helper holds the group role that let them in; null for the platform's own staff
    via_org_id uuid REFERENCES auth.organization (org_id),
    mode text NOT NULL,
    purpose text NOT NULL,
    reason text NOT NULL,
    ticket text,
    ttl_minutes smallint NOT NULL,
    status text NOT NULL,
    requested_at timestamptz NOT NULL,
    decided_by text,
    decided_at timestamptz,
    begun_at timestamptz,
    -- before it has begun, until when it may be answered and begun; then, when it ends
    expires_at timestamptz NOT NULL,
    ended_by text,
    ended_at timestamptz,
    CONSTRAINT assist_session_mode CHECK (mode IN ('read_only', 'read_write')),
    CONSTRAINT assist_session_purpose
        CHECK (purpose IN ('customer_request', 'incident', 'billing_query', 'onboarding', 'security')),
    CONSTRAINT assist_session_ttl CHECK (ttl_minutes >= 1 AND ttl_minutes <= 60),
    CONSTRAINT assist_session_status CHECK (status IN ('pending', 'approved', 'declined', 'active', 'ended')),
    CONSTRAINT assist_session_ended CHECK ((status = 'ended') = (ended_at IS NOT NULL))
);
CREATE INDEX assist_session_by_org ON auth.assist_session (org_id, assist_session_id);
CREATE INDEX assist_session_open_by_user ON auth.assist_session (user_id)
    WHERE status IN ('pending', 'approved', 'active');

GRANT SELECT, INSERT, UPDATE ON auth.member_version, auth.org_link, auth.assist_session TO eb_auth;
"""

REQUEST = """
CREATE TABLE @schema.assist_request (
    assist_request_id uuid PRIMARY KEY,
    assist_session_id uuid NOT NULL,
    org_id uuid NOT NULL,
    user_id uuid NOT NULL,
    route text NOT NULL,
    path text NOT NULL,
    requested_at timestamptz NOT NULL
);
"""

KEEP_POLICIES = f"""
CREATE TABLE kept."{revision}:auth.assist_policy" AS
    SELECT org_id, assist_policy FROM auth.organization WHERE assist_policy <> 'notify';
"""

RESTORE_POLICIES = f"""
DO $$
BEGIN
    IF to_regclass('kept."{revision}:auth.assist_policy"') IS NOT NULL THEN
        ALTER TABLE auth.organization DISABLE TRIGGER audit;
        UPDATE auth.organization AS o SET assist_policy = k.assist_policy
            FROM kept."{revision}:auth.assist_policy" AS k WHERE o.org_id = k.org_id;
        ALTER TABLE auth.organization ENABLE TRIGGER audit;
        DROP TABLE kept."{revision}:auth.assist_policy";
    END IF;
END
$$;
"""

BACKFILL = """
INSERT INTO auth.member_version (org_id, user_id, version)
    SELECT org_id, user_id, 1 FROM auth.membership ON CONFLICT DO NOTHING;
"""

TAKE_COLUMNS = """
ALTER TABLE auth.organization DROP COLUMN assist_policy;
"""
