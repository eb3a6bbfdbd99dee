"""Baseline: schemas, roles, the owner's functions, the kit's tables, and what auth keeps.

Revision: 20250920_00, the first.
Downgrade: drops everything of ours. Kept aside in schema `kept`, and brought back by the next upgrade: users,
organisations, memberships, invitations, projects, API keys, platform roles, dead letters, the audit.
Not kept: sessions, refresh tokens, sign-in codes and mails (everybody signs in again), private signing keys (new ones
are made), what was on its way over the bus, answers to idempotency keys, read models (asked for again). The roles stay
while another database of the same server still needs them; the extensions stay.
"""

from alembic import context

from kit_tables import SCHEMAS, audit, create_kit_tables, drop, keep, restore, role_of, run
from platform_functions import PLATFORM_FUNCTIONS, PLATFORM_RIGHTS

revision = "20250920_00"
down_revision = None
branch_labels = None
depends_on = None

KIT_KEPT = ("bus_dead_letter", "audit_entry")
AUTH_KEPT = (
    "organization", "user", "membership", "invitation", "project", "api_key", "platform_role", "access_revocation",
)  # fmt: skip
AUTH_DROPPED = (
    "access_revocation", "platform_role", "signing_key", "api_key", "project", "mail_waiting", "attempt_window",
    "login_code", "refresh_token", "session", "invitation", "membership", "user", "organization",
)  # fmt: skip


def upgrade() -> None:
    """Make roles, schemas, functions, kit tables and auth's tables; bring back what was kept."""
    run(ROLES + "".join(SCHEMA.replace("@schema", s).replace("@role", role_of(s)) for s in SCHEMAS))
    run(PLATFORM_FUNCTIONS + PLATFORM_RIGHTS.replace("@roles", ", ".join(map(role_of, SCHEMAS))))
    for schema in SCHEMAS:
        create_kit_tables(schema)
        restore(revision, schema, *KIT_KEPT)
    run(AUTH)
    restore(revision, "auth", *AUTH_KEPT)
    for table, key, org in AUDITED:
        audit("auth", table, key, org)


def downgrade() -> None:
    """Set aside what outlives the schema, then drop everything."""
    keep(revision, "auth", *AUTH_KEPT)
    for schema in SCHEMAS:
        keep(revision, schema, *KIT_KEPT)
    drop("auth", *AUTH_DROPPED)
    run("DROP TYPE auth.visibility, auth.membership_role, auth.membership_status")
    for schema in SCHEMAS:
        drop(
            schema,
            "outbox",
            "inbox",
            "bus_dead_letter",
            "idempotency_key",
            "known",
            "read_model",
            "audit_entry",
        )
        run(f"DROP SCHEMA {schema}")
    run("DROP SCHEMA platform CASCADE")
    if not context.is_offline_mode():
        run(DROP_ROLES)


AUDITED = (
    ("organization", "org_id", "org_id"),
    ("membership", "org_id,user_id", "org_id"),
    ("platform_role", "user_id,role", ""),
    ("api_key", "key_id", "org_id"),
)

ROLES = """
CREATE EXTENSION IF NOT EXISTS citext WITH SCHEMA public;
CREATE EXTENSION IF NOT EXISTS btree_gist WITH SCHEMA public;
REVOKE CREATE ON SCHEMA public FROM PUBLIC;
CREATE SCHEMA IF NOT EXISTS kept;
REVOKE ALL ON SCHEMA kept FROM PUBLIC;
CREATE SCHEMA platform;
"""

SCHEMA = """
DO $$
BEGIN
    IF NOT EXISTS (SELECT 1 FROM pg_roles WHERE rolname = '@role') THEN
        CREATE ROLE @role LOGIN;
        ALTER ROLE @role SET search_path = @schema, public;
        ALTER ROLE @role SET timezone = 'UTC';
    END IF;
END
$$;
CREATE SCHEMA @schema;
GRANT USAGE ON SCHEMA @schema, platform TO @role;
"""

DROP_ROLES = """
DO $$
DECLARE
    v_role text;
BEGIN
    FOREACH v_role IN ARRAY ARRAY[{roles}] LOOP
        BEGIN
            EXECUTE format('DROP ROLE IF EXISTS %I', v_role);
        EXCEPTION WHEN dependent_objects_still_exist OR insufficient_privilege THEN
            RAISE NOTICE 'role % stays: another database needs it', v_role;
        END;
    END LOOP;
END
$$;
""".format(roles=", ".join(f"'{role_of(schema)}'" for schema in SCHEMAS))

AUTH = """
CREATE TYPE auth.visibility AS ENUM ('private', 'partners', 'public');
CREATE TYPE auth.membership_role AS ENUM ('Admin', 'User');
CREATE TYPE auth.membership_status AS ENUM ('active', 'pending');

CREATE TABLE auth.organization (
    org_id uuid PRIMARY KEY,
    legal_name text NOT NULL,
    org_slug text NOT NULL,
    billing_email text NOT NULL,
    default_timezone text NOT NULL,
    tax_id text,
    visibility auth.visibility NOT NULL DEFAULT 'private',
    country character(2) NOT NULL DEFAULT 'AU',
    version bigint NOT NULL DEFAULT 1,
    created_at timestamptz NOT NULL,
    CONSTRAINT organization_org_slug_key UNIQUE (org_slug),
    CONSTRAINT organization_org_slug_form CHECK (org_slug ~ '^[a-z0-9][a-z0-9-]{1,62}$'),
    CONSTRAINT organization_country_form CHECK (country ~ '^[A-Z]{2}$')
);

CREATE TABLE auth."user" (
    user_id uuid PRIMARY KEY,
    email public.citext NOT NULL,
    default_org_id uuid REFERENCES auth.organization (org_id),
    created_at timestamptz NOT NULL,
    CONSTRAINT user_email_key UNIQUE (email)
);

CREATE TABLE auth.membership (
    org_id uuid NOT NULL REFERENCES auth.organization (org_id),
    user_id uuid NOT NULL REFERENCES auth."user" (user_id),
    role auth.membership_role NOT NULL,
    status auth.membership_status NOT NULL,
    created_at timestamptz NOT NULL,
    PRIMARY KEY (org_id, user_id)
);
CREATE INDEX membership_by_user ON auth.membership (user_id, org_id);
CREATE INDEX membership_by_age ON auth.membership (org_id, created_at, user_id);

CREATE TABLE auth.invitation (
    invitation_id uuid PRIMARY KEY,
    org_id uuid NOT NULL REFERENCES auth.organization (org_id),
    email public.citext NOT NULL,
    role auth.membership_role NOT NULL,
    token_sha256 bytea NOT NULL,
    invited_by uuid NOT NULL REFERENCES auth."user" (user_id),
    created_at timestamptz NOT NULL,
    expires_at timestamptz NOT NULL,
    consumed_at timestamptz,
    outcome text,
    CONSTRAINT invitation_token_key UNIQUE (token_sha256),
    CONSTRAINT invitation_outcome CHECK (outcome IN ('accepted', 'revoked', 'expired')),
    CONSTRAINT invitation_ends_once CHECK ((consumed_at IS NULL) = (outcome IS NULL))
);

CREATE TABLE auth.session (
    session_id uuid PRIMARY KEY,
    user_id uuid NOT NULL REFERENCES auth."user" (user_id),
    org_id uuid REFERENCES auth.organization (org_id),
    user_agent text NOT NULL,
    address text NOT NULL,
    created_at timestamptz NOT NULL,
    last_used_at timestamptz NOT NULL,
    idle_expires_at timestamptz NOT NULL,
    expires_at timestamptz NOT NULL,
    revoked_at timestamptz,
    revoked_reason text
);
CREATE INDEX session_by_user ON auth.session (user_id, session_id);
CREATE INDEX session_by_expiry ON auth.session (expires_at);

CREATE TABLE auth.refresh_token (
    token_sha256 bytea PRIMARY KEY,
    session_id uuid NOT NULL REFERENCES auth.session (session_id) ON DELETE CASCADE,
    issued_at timestamptz NOT NULL,
    used_at timestamptz
);
CREATE INDEX refresh_token_by_session ON auth.refresh_token (session_id);
CREATE UNIQUE INDEX refresh_token_current_key ON auth.refresh_token (session_id) WHERE used_at IS NULL;

CREATE TABLE auth.login_code (
    email public.citext PRIMARY KEY,
    code_hmac bytea NOT NULL,
    tries smallint NOT NULL,
    expires_at timestamptz NOT NULL
);
CREATE INDEX login_code_by_expiry ON auth.login_code (expires_at);

CREATE TABLE auth.attempt_window (
    bucket bytea PRIMARY KEY,
    starts_at timestamptz NOT NULL,
    attempts integer NOT NULL
);
CREATE INDEX attempt_window_by_age ON auth.attempt_window (starts_at);

CREATE TABLE auth.mail_waiting (
    mail_id uuid PRIMARY KEY,
    sealed bytea NOT NULL,
    due_at timestamptz NOT NULL,
    expires_at timestamptz NOT NULL,
    attempts smallint NOT NULL
);
CREATE INDEX mail_waiting_by_due ON auth.mail_waiting (due_at);

CREATE TABLE auth.project (
    project_id uuid PRIMARY KEY,
    org_id uuid NOT NULL REFERENCES auth.organization (org_id),
    name text NOT NULL,
    version bigint NOT NULL DEFAULT 1,
    created_at timestamptz NOT NULL
);
CREATE INDEX project_by_org ON auth.project (org_id, project_id);

CREATE TABLE auth.api_key (
    key_id uuid PRIMARY KEY,
    kind text NOT NULL,
    org_id uuid REFERENCES auth.organization (org_id),
    name text NOT NULL,
    secret_sha256 text NOT NULL,
    scopes text[] NOT NULL,
    created_by text NOT NULL,
    created_at timestamptz NOT NULL,
    expires_at timestamptz,
    revoked_at timestamptz,
    version bigint NOT NULL DEFAULT 1,
    CONSTRAINT api_key_secret_key UNIQUE (secret_sha256),
    CONSTRAINT api_key_kind CHECK (kind IN ('org', 'service')),
    CONSTRAINT api_key_org CHECK ((kind = 'org') = (org_id IS NOT NULL))
);
CREATE INDEX api_key_by_org ON auth.api_key (org_id, key_id);
CREATE INDEX api_key_by_service ON auth.api_key (name) WHERE kind = 'service';

CREATE TABLE auth.signing_key (
    kid text PRIMARY KEY,
    sealed_private bytea NOT NULL,
    x text NOT NULL,
    created_at timestamptz NOT NULL,
    active_from timestamptz NOT NULL,
    retired_at timestamptz,
    version bigint NOT NULL DEFAULT 1
);

CREATE TABLE auth.platform_role (
    user_id uuid NOT NULL REFERENCES auth."user" (user_id),
    role text NOT NULL,
    granted_by text NOT NULL,
    granted_at timestamptz NOT NULL,
    PRIMARY KEY (user_id, role),
    CONSTRAINT platform_role_role CHECK (role IN ('Operator', 'Finance', 'Support'))
);

CREATE TABLE auth.access_revocation (
    subject_key text PRIMARY KEY,
    not_before timestamptz NOT NULL,
    version bigint NOT NULL DEFAULT 1
);

GRANT SELECT, INSERT, UPDATE ON auth.organization, auth."user", auth.invitation, auth.project, auth.api_key,
    auth.signing_key, auth.access_revocation TO eb_auth;
GRANT SELECT, INSERT, UPDATE, DELETE ON auth.membership, auth.session, auth.refresh_token, auth.login_code,
    auth.attempt_window, auth.mail_waiting TO eb_auth;
GRANT SELECT ON auth.platform_role TO eb_auth;
"""
