"""Parents and the closure table, group roles, billing accounts with mappings and cost centers.

Revision: 20250920_05, after 20250920_04. Every organisation starts as a root: its self row, and for each root a
default billing account.
Downgrade: parents, closure, links, group roles, accounts, mappings, cost centers and a billing account's partners of
record are kept aside and brought back by the next upgrade. While downgraded, organisations made children are roots;
organisations that come meanwhile get their self row and account at the upgrade. Nothing is lost.
"""

from kit_tables import audit, drop, keep, restore, run

revision = "20250920_05"
down_revision = "20250920_04"
branch_labels = None
depends_on = None

AUTH_KEPT = ("org_hierarchy", "org_parent_link", "group_role_membership")
LEDGER_KEPT = ("billing_account", "org_billing_mapping", "cost_center")


def upgrade() -> None:
    """Make the tables, bring back what was kept, then give every organisation what it lacks."""
    run(HIERARCHY + BILLING)
    restore(revision, "auth", *AUTH_KEPT)
    restore(revision, "ledger", *LEDGER_KEPT)
    run(RESTORE_COLUMNS + BACKFILL)
    audit("auth", "group_role_membership", "ancestor_org_id,user_id", "ancestor_org_id")
    audit("ledger", "billing_account", "billing_account_id", "owner_org_id")
    audit("ledger", "org_billing_mapping", "org_id,billing_account_id,effective_at", "org_id")


def downgrade() -> None:
    """Set aside, then take the columns and tables away."""
    run(KEEP_COLUMNS)
    keep(revision, "auth", *AUTH_KEPT)
    keep(revision, "ledger", *LEDGER_KEPT)
    run(TAKE_COLUMNS)
    drop("ledger", *reversed(LEDGER_KEPT))
    drop("auth", *reversed(AUTH_KEPT))
    run("DROP TYPE ledger.allocation, auth.group_role")


HIERARCHY = """
CREATE TYPE auth.group_role AS ENUM ('GroupAdmin', 'GroupBilling', 'GroupSupport');

ALTER TABLE auth.organization ADD COLUMN parent_org_id uuid;
ALTER TABLE auth.organization ADD CONSTRAINT organization_parent_org_id_fkey
    FOREIGN KEY (parent_org_id) REFERENCES auth.organization (org_id);
ALTER TABLE auth.organization ADD CONSTRAINT organization_not_own_parent CHECK (parent_org_id <> org_id);
CREATE INDEX organization_by_parent ON auth.organization (parent_org_id, org_id);
ALTER TABLE auth.project ADD COLUMN cost_center_id uuid;

CREATE TABLE auth.org_hierarchy (
    ancestor_org_id uuid NOT NULL REFERENCES auth.organization (org_id),
    descendant_org_id uuid NOT NULL REFERENCES auth.organization (org_id),
    depth integer NOT NULL,
    PRIMARY KEY (ancestor_org_id, descendant_org_id),
    CONSTRAINT org_hierarchy_depth CHECK (depth >= 0 AND depth <= 10),
    CONSTRAINT org_hierarchy_self CHECK ((depth = 0) = (ancestor_org_id = descendant_org_id))
);
CREATE INDEX org_hierarchy_by_descendant ON auth.org_hierarchy (descendant_org_id, depth);
CREATE INDEX org_hierarchy_by_depth ON auth.org_hierarchy (ancestor_org_id, depth, descendant_org_id);

CREATE TABLE auth.org_parent_link (
    org_id uuid NOT NULL REFERENCES auth.organization (org_id),
    parent_org_id uuid REFERENCES auth.organization (org_id),
    effective_at timestamptz NOT NULL,
    PRIMARY KEY (org_id, effective_at),
    CONSTRAINT org_parent_link_minute CHECK (date_trunc('minute', effective_at, 'UTC') = effective_at)
);

CREATE TABLE auth.group_role_membership (
    ancestor_org_id uuid NOT NULL REFERENCES auth.organization (org_id),
    user_id uuid NOT NULL REFERENCES auth."user" (user_id),
    role auth.group_role NOT NULL,
    created_at timestamptz NOT NULL,
    PRIMARY KEY (ancestor_org_id, user_id)
);
CREATE INDEX group_role_membership_by_user ON auth.group_role_membership (user_id);

GRANT SELECT, INSERT, UPDATE ON auth.org_parent_link TO eb_auth;
GRANT SELECT, INSERT, UPDATE, DELETE ON auth.org_hierarchy, auth.group_role_membership TO eb_auth;
"""

BILLING = """
CREATE TYPE ledger.allocation AS ENUM ('absorb', 'chargeback', 'split');

CREATE TABLE ledger.billing_account (
    billing_account_id uuid PRIMARY KEY,
    owner_org_id uuid NOT NULL,
    name text NOT NULL,
    currency character(3),
    status text NOT NULL,
    notes text,
    is_default boolean NOT NULL,
    created_at timestamptz NOT NULL,
    CONSTRAINT billing_account_status CHECK (status IN ('active', 'closed')),
    CONSTRAINT billing_account_currency CHECK (is_default OR currency IS NOT NULL)
);
CREATE UNIQUE INDEX billing_account_default_key ON ledger.billing_account (owner_org_id) WHERE is_default;
CREATE INDEX billing_account_by_owner ON ledger.billing_account (owner_org_id, billing_account_id);

CREATE TABLE ledger.org_billing_mapping (
    org_id uuid NOT NULL,
    billing_account_id uuid NOT NULL REFERENCES ledger.billing_account (billing_account_id),
    allocation ledger.allocation NOT NULL,
    percent numeric(5,2),
    effective_at timestamptz NOT NULL,
    mapping_id uuid NOT NULL,
    created_at timestamptz NOT NULL,
    PRIMARY KEY (org_id, billing_account_id, effective_at),
    CONSTRAINT org_billing_mapping_mapping_id_key UNIQUE (mapping_id),
    CONSTRAINT org_billing_mapping_percent CHECK (percent > 0 AND percent <= 100),
    CONSTRAINT org_billing_mapping_split CHECK ((allocation = 'split') = (percent IS NOT NULL)),
    CONSTRAINT org_billing_mapping_minute CHECK (date_trunc('minute', effective_at, 'UTC') = effective_at)
);
CREATE INDEX org_billing_mapping_by_account ON ledger.org_billing_mapping (billing_account_id);

CREATE TABLE ledger.cost_center (
    cost_center_id uuid PRIMARY KEY,
    billing_account_id uuid NOT NULL REFERENCES ledger.billing_account (billing_account_id),
    code text NOT NULL,
    name text NOT NULL,
    CONSTRAINT cost_center_code_key UNIQUE (billing_account_id, code)
);

-- A partner of record may be that of an account from now on: its key is its id, checked anew under one short lock.
-- squawk-ignore ban-drop-constraint
ALTER TABLE ledger.partner_of_record DROP CONSTRAINT partner_of_record_pkey;
-- squawk-ignore ban-drop-constraint
ALTER TABLE ledger.partner_of_record DROP CONSTRAINT partner_of_record_por_id_key;
ALTER TABLE ledger.partner_of_record ADD CONSTRAINT partner_of_record_pkey PRIMARY KEY (por_id);
-- squawk-ignore ban-drop-not-null
ALTER TABLE ledger.partner_of_record ALTER COLUMN org_id DROP NOT NULL;
-- squawk-ignore adding-foreign-key-constraint
ALTER TABLE ledger.partner_of_record ADD COLUMN billing_account_id uuid REFERENCES ledger.billing_account;
ALTER TABLE ledger.partner_of_record ADD CONSTRAINT partner_of_record_of_one
    CHECK (num_nonnulls(org_id, billing_account_id) = 1);
ALTER TABLE ledger.partner_of_record ADD CONSTRAINT partner_of_record_org_partner_start_key
    UNIQUE (org_id, partner_id, start_at);
ALTER TABLE ledger.partner_of_record ADD CONSTRAINT partner_of_record_account_overlap
    EXCLUDE USING gist (billing_account_id WITH =, tstzrange(start_at, end_at) WITH &&);

GRANT SELECT, INSERT, UPDATE ON ledger.billing_account, ledger.org_billing_mapping, ledger.cost_center TO eb_ledger;
"""

KEEP_COLUMNS = """
CREATE TABLE kept."20250920_05:parents" AS
    SELECT org_id, parent_org_id FROM auth.organization WHERE parent_org_id IS NOT NULL;
CREATE TABLE kept."20250920_05:cost_centers" AS
    SELECT project_id, cost_center_id FROM auth.project WHERE cost_center_id IS NOT NULL;
CREATE TABLE kept."20250920_05:account_partners" AS
    SELECT partner_id, start_at, end_at, status::text AS status, por_id, created_at, billing_account_id
    FROM ledger.partner_of_record WHERE billing_account_id IS NOT NULL;
"""

TAKE_COLUMNS = """
DELETE FROM ledger.partner_of_record WHERE billing_account_id IS NOT NULL;
ALTER TABLE ledger.partner_of_record DROP CONSTRAINT partner_of_record_account_overlap;
ALTER TABLE ledger.partner_of_record DROP CONSTRAINT partner_of_record_org_partner_start_key;
ALTER TABLE ledger.partner_of_record DROP CONSTRAINT partner_of_record_of_one;
ALTER TABLE ledger.partner_of_record DROP COLUMN billing_account_id;
ALTER TABLE ledger.partner_of_record DROP CONSTRAINT partner_of_record_pkey;
ALTER TABLE ledger.partner_of_record ADD CONSTRAINT partner_of_record_pkey PRIMARY KEY (org_id, partner_id, start_at);
ALTER TABLE ledger.partner_of_record ADD CONSTRAINT partner_of_record_por_id_key UNIQUE (por_id);
ALTER TABLE auth.project DROP COLUMN cost_center_id;
ALTER TABLE auth.organization DROP COLUMN parent_org_id;
"""

RESTORE_COLUMNS = """
DO $$
BEGIN
    IF to_regclass('kept."20250920_05:parents"') IS NULL THEN
        RETURN;
    END IF;
    UPDATE auth.organization AS o SET parent_org_id = k.parent_org_id
        FROM kept."20250920_05:parents" AS k WHERE k.org_id = o.org_id;
    UPDATE auth.project AS p SET cost_center_id = k.cost_center_id
        FROM kept."20250920_05:cost_centers" AS k WHERE k.project_id = p.project_id;
    INSERT INTO ledger.partner_of_record
        (partner_id, start_at, end_at, status, por_id, created_at, billing_account_id)
        SELECT partner_id, start_at, end_at, status::ledger.por_status, por_id, created_at, billing_account_id
        FROM kept."20250920_05:account_partners";
    DROP TABLE kept."20250920_05:parents", kept."20250920_05:cost_centers", kept."20250920_05:account_partners";
END
$$;
"""

BACKFILL = """
INSERT INTO auth.org_hierarchy (ancestor_org_id, descendant_org_id, depth)
    SELECT org_id, org_id, 0 FROM auth.organization ON CONFLICT DO NOTHING;
INSERT INTO auth.org_parent_link (org_id, parent_org_id, effective_at)
    SELECT org_id, NULL, date_trunc('minute', created_at, 'UTC') FROM auth.organization AS o
    WHERE NOT EXISTS (SELECT 1 FROM auth.org_parent_link AS l WHERE l.org_id = o.org_id);
INSERT INTO ledger.billing_account
    (billing_account_id, owner_org_id, name, currency, status, notes, is_default, created_at)
    SELECT platform.new_id(), org_id, legal_name, NULL, 'active', NULL, true, created_at FROM auth.organization AS o
    WHERE o.parent_org_id IS NULL
        AND NOT EXISTS (SELECT 1 FROM ledger.billing_account AS a WHERE a.owner_org_id = o.org_id AND a.is_default);
"""
