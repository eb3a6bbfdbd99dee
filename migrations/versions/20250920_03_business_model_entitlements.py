"""Business models, plans with immutable versions, SKUs with history, entitlements, tax rates, resolved terms.

Revision: 20250920_03, after 20250920_02.
Downgrade: everything here is kept aside and brought back by the next upgrade; nothing is lost.
"""

from kit_tables import audit, drop, finite, keep, restore, run

revision = "20250920_03"
down_revision = "20250920_02"
branch_labels = None
depends_on = None

KEPT = (
    "business_model", "plan", "product_sku", "sku_version", "plan_sku", "plan_version", "plan_version_sku",
    "org_entitlement", "org_business_model", "tax_rate", "terms", "org_terms_state", "org_terms_change",
    "retail_terms_state",
)  # fmt: skip


def upgrade() -> None:
    """Make the catalog's tables; without kept rows, seed Australia's GST."""
    run(CATALOG)
    run("INSERT INTO catalog.tax_rate SELECT * FROM (VALUES ('GST', 'AU', 0.10, timestamptz '2000-07-01 00:00+10')) v"
        " WHERE to_regclass('kept.\"20250920_03:catalog.tax_rate\"') IS NULL")  # fmt: skip
    restore(revision, "catalog", *KEPT)
    run(AFTER_ROWS)
    for table, key, org in AUDITED:
        audit("catalog", table, key, org)


def downgrade() -> None:
    """Set everything aside, then drop."""
    keep(revision, "catalog", *KEPT)
    run("ALTER TABLE catalog.business_model DROP CONSTRAINT business_model_default_plan_id_fkey")
    drop("catalog", *reversed(KEPT))
    run("DROP TYPE catalog.sku_type")


AUDITED = (
    ("business_model", "model_id", ""),
    ("plan", "plan_id", ""),
    ("product_sku", "sku", ""),
    ("plan_sku", "plan_id,sku", ""),
    ("org_entitlement", "org_id,plan_id", "org_id"),
    ("org_business_model", "org_id", "org_id"),
    ("tax_rate", "tax_code,jurisdiction,effective_at", ""),
)

CATALOG = f"""
CREATE TYPE catalog.sku_type AS ENUM ('hosting', 'object', 'validation', 'action', 'analytics');

CREATE TABLE catalog.business_model (
    model_id uuid PRIMARY KEY,
    code text NOT NULL,
    name text NOT NULL,
    status text NOT NULL,
    version integer NOT NULL,
    currency character(3) NOT NULL,
    default_plan_id uuid,
    created_at timestamptz NOT NULL,
    CONSTRAINT business_model_code_key UNIQUE (code),
    CONSTRAINT business_model_status CHECK (status IN ('active', 'retired')),
    CONSTRAINT business_model_currency CHECK (currency ~ '^[A-Z]{{3}}$')
);

CREATE TABLE catalog.plan (
    plan_id uuid PRIMARY KEY,
    model_id uuid NOT NULL REFERENCES catalog.business_model (model_id),
    name text NOT NULL,
    tier text NOT NULL,
    status text NOT NULL,
    notes text,
    version integer NOT NULL,
    is_draft_open boolean NOT NULL,
    created_at timestamptz NOT NULL,
    CONSTRAINT plan_status CHECK (status IN ('draft', 'published', 'retired'))
);
CREATE INDEX plan_by_model ON catalog.plan (model_id, plan_id);
COMMENT ON COLUMN catalog.plan.version IS 'The published version in force for new assignments; 0 before the first.';

CREATE TABLE catalog.product_sku (
    sku text PRIMARY KEY,
    type catalog.sku_type NOT NULL,
    unit text NOT NULL,
    cost numeric,
    retail numeric,
    tax_code text,
    metadata jsonb NOT NULL,
    version bigint NOT NULL,
    created_at timestamptz NOT NULL,
    {finite("cost", "retail")},
    CONSTRAINT product_sku_not_negative CHECK (cost >= 0 AND retail >= 0)
);

CREATE TABLE catalog.sku_version (
    sku text NOT NULL REFERENCES catalog.product_sku (sku),
    effective_at timestamptz NOT NULL,
    retail numeric,
    tax_code text,
    PRIMARY KEY (sku, effective_at),
    {finite("retail")}
);

CREATE TABLE catalog.plan_sku (
    plan_id uuid NOT NULL REFERENCES catalog.plan (plan_id),
    sku text NOT NULL REFERENCES catalog.product_sku (sku),
    included_qty numeric NOT NULL,
    overage_price numeric NOT NULL,
    tiers jsonb,
    PRIMARY KEY (plan_id, sku),
    {finite("included_qty", "overage_price")},
    CONSTRAINT plan_sku_not_negative CHECK (included_qty >= 0 AND overage_price >= 0)
);
CREATE INDEX plan_sku_by_sku ON catalog.plan_sku (sku);

CREATE TABLE catalog.plan_version (
    plan_id uuid NOT NULL REFERENCES catalog.plan (plan_id),
    version integer NOT NULL,
    apply text NOT NULL,
    published_by text NOT NULL,
    published_at timestamptz NOT NULL,
    PRIMARY KEY (plan_id, version),
    CONSTRAINT plan_version_apply CHECK (apply IN ('next_period', 'immediate'))
);

CREATE TABLE catalog.plan_version_sku (
    plan_id uuid NOT NULL,
    version integer NOT NULL,
    sku text NOT NULL REFERENCES catalog.product_sku (sku),
    included_qty numeric NOT NULL,
    overage_price numeric NOT NULL,
    tiers jsonb,
    PRIMARY KEY (plan_id, version, sku),
    FOREIGN KEY (plan_id, version) REFERENCES catalog.plan_version (plan_id, version),
    {finite("included_qty", "overage_price")}
);

CREATE TABLE catalog.org_entitlement (
    org_id uuid NOT NULL,
    plan_id uuid NOT NULL REFERENCES catalog.plan (plan_id),
    overrides jsonb NOT NULL,
    effective_at timestamptz NOT NULL,
    PRIMARY KEY (org_id, plan_id)
);

CREATE TABLE catalog.org_business_model (
    org_id uuid PRIMARY KEY,
    model_id uuid NOT NULL REFERENCES catalog.business_model (model_id),
    plan_id uuid NOT NULL REFERENCES catalog.plan (plan_id),
    assigned_by text NOT NULL,
    assigned_at timestamptz NOT NULL,
    notes text,
    effective_at timestamptz NOT NULL
);

CREATE TABLE catalog.tax_rate (
    tax_code text NOT NULL,
    jurisdiction text NOT NULL,
    rate numeric NOT NULL,
    effective_at timestamptz NOT NULL,
    PRIMARY KEY (tax_code, jurisdiction, effective_at),
    CONSTRAINT tax_rate_range CHECK (rate >= 0 AND rate <= 1),
    CONSTRAINT tax_rate_jurisdiction CHECK (jurisdiction ~ '^([A-Z]{{2}}|[*])$')
);

CREATE TABLE catalog.terms (
    terms_hash text PRIMARY KEY,
    body jsonb NOT NULL,
    created_at timestamptz NOT NULL
);

CREATE TABLE catalog.org_terms_state (
    org_id uuid PRIMARY KEY,
    version bigint NOT NULL,
    due_at timestamptz,
    assignments jsonb NOT NULL
);
CREATE INDEX org_terms_state_due ON catalog.org_terms_state (due_at, org_id) WHERE due_at IS NOT NULL;

CREATE TABLE catalog.org_terms_change (
    org_id uuid NOT NULL REFERENCES catalog.org_terms_state (org_id),
    effective_at timestamptz NOT NULL,
    plan_id uuid NOT NULL,
    plan_version integer NOT NULL,
    currency character(3) NOT NULL,
    overrides jsonb NOT NULL,
    time_zone text NOT NULL,
    country character(2) NOT NULL,
    PRIMARY KEY (org_id, effective_at),
    FOREIGN KEY (plan_id, plan_version) REFERENCES catalog.plan_version (plan_id, version)
);
CREATE INDEX org_terms_change_by_plan ON catalog.org_terms_change (plan_id, org_id);
COMMENT ON TABLE catalog.org_terms_change IS
    'What decides an organisation''s terms from an instant on; always a period''s start.';

CREATE TABLE catalog.retail_terms_state (
    retail_key text PRIMARY KEY,
    currency character(3) NOT NULL,
    country character(2) NOT NULL,
    version bigint NOT NULL,
    assignments jsonb NOT NULL
);

GRANT SELECT, INSERT, UPDATE ON catalog.business_model, catalog.plan, catalog.product_sku, catalog.org_entitlement,
    catalog.org_business_model, catalog.tax_rate, catalog.org_terms_state, catalog.retail_terms_state TO eb_catalog;
GRANT SELECT, INSERT, UPDATE, DELETE ON catalog.plan_sku, catalog.org_terms_change, catalog.sku_version TO eb_catalog;
GRANT SELECT, INSERT ON catalog.plan_version, catalog.plan_version_sku, catalog.terms TO eb_catalog;
"""

AFTER_ROWS = """
ALTER TABLE catalog.business_model ADD CONSTRAINT business_model_default_plan_id_fkey
    FOREIGN KEY (default_plan_id) REFERENCES catalog.plan (plan_id);
CREATE TRIGGER stands BEFORE UPDATE OR DELETE ON catalog.plan_version
    FOR EACH ROW EXECUTE FUNCTION platform.refuse();
CREATE TRIGGER stands BEFORE UPDATE OR DELETE ON catalog.plan_version_sku
    FOR EACH ROW EXECUTE FUNCTION platform.refuse();
CREATE TRIGGER stands BEFORE UPDATE OR DELETE ON catalog.terms
    FOR EACH ROW EXECUTE FUNCTION platform.refuse();
"""
