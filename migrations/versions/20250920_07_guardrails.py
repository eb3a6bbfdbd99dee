"""Budgets, holds and prepaid credits.

Revision: 20250920_07, after 20250920_06.
Downgrade: budgets, credits, what they did to charges, and answers to authorize are kept aside and brought back by the
next upgrade. Not kept: which holds waiting usage will release (holds end by themselves within 15 minutes).
"""

from kit_tables import audit, drop, finite, keep, restore, run

revision = "20250920_07"
down_revision = "20250920_06"
branch_labels = None
depends_on = None

KEPT = ("budget", "budget_spend", "cap_cut", "credit", "credit_use", "credit_draw", "initiation")


def upgrade() -> None:
    """Make the tables of guardrails; waiting usage remembers its holds."""
    run(TABLES)
    restore(revision, "pricing", *KEPT)
    audit("pricing", "budget", "budget_id", "org_id")
    audit("pricing", "credit", "credit_id", "org_id")


def downgrade() -> None:
    """Set the rows aside, then drop."""
    keep(revision, "pricing", *KEPT)
    run("ALTER TABLE pricing.unrated_usage DROP COLUMN hold_ids;")
    drop("pricing", *reversed(KEPT))


TABLES = f"""
CREATE TABLE pricing.budget (
    budget_id uuid PRIMARY KEY,
    org_id uuid NOT NULL,
    project_id uuid,
    amount numeric NOT NULL,
    currency character(3) NOT NULL,
    thresholds integer[] NOT NULL,
    hard_cap boolean NOT NULL,
    first_period text NOT NULL,
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL,
    CONSTRAINT budget_amount CHECK (amount >= 0),
    {finite("amount")}
);
CREATE UNIQUE INDEX budget_of_org ON pricing.budget (org_id) WHERE project_id IS NULL;
CREATE UNIQUE INDEX budget_of_project ON pricing.budget (org_id, project_id);
COMMENT ON COLUMN pricing.budget.first_period IS 'The period that ran when it was made; it counts from there on.';

CREATE TABLE pricing.budget_spend (
    budget_id uuid NOT NULL REFERENCES pricing.budget ON DELETE CASCADE,
    period text NOT NULL,
    total numeric NOT NULL,
    granted numeric NOT NULL,
    charged numeric NOT NULL,
    ceiling numeric,
    announced integer[] NOT NULL,
    PRIMARY KEY (budget_id, period),
    {finite("total", "granted", "charged", "ceiling")}
) WITH (fillfactor = 70);
COMMENT ON COLUMN pricing.budget_spend.total IS 'What came to the cap so far.';
COMMENT ON COLUMN pricing.budget_spend.granted IS 'What passed the cap so far: what is new of it passes with a charge.';
COMMENT ON COLUMN pricing.budget_spend.charged IS 'Gross amounts charged.';
COMMENT ON COLUMN pricing.budget_spend.ceiling IS
    'The cap, or what was granted when it was set if that was more; granted never passes it.';
COMMENT ON COLUMN pricing.budget_spend.announced IS 'Thresholds that were announced.';

CREATE TABLE pricing.cap_cut (
    charge_id text COLLATE "C" NOT NULL,
    org_id uuid NOT NULL,
    budget_id uuid NOT NULL,
    project_id uuid,
    period text NOT NULL,
    currency character(3) NOT NULL,
    cap numeric NOT NULL,
    due numeric NOT NULL,
    total numeric NOT NULL,
    granted_before numeric NOT NULL,
    granted numeric NOT NULL,
    PRIMARY KEY (charge_id, org_id, budget_id),
    {finite("cap", "due", "total", "granted_before", "granted")}
);
CREATE INDEX cap_cut_by_period ON pricing.cap_cut (org_id, period);
COMMENT ON TABLE pricing.cap_cut IS
    'What a cap changed of a charge: due came to it, granted - granted_before passed; project_id is the budget''s.';

CREATE TABLE pricing.credit (
    credit_id uuid PRIMARY KEY,
    org_id uuid NOT NULL,
    amount numeric NOT NULL,
    currency character(3) NOT NULL,
    sku_types text[],
    priority integer NOT NULL,
    expires_at timestamptz,
    source text NOT NULL,
    actor text NOT NULL,
    key_scope text NOT NULL,
    idempotency_key text NOT NULL,
    request_sha256 bytea NOT NULL,
    created_at timestamptz NOT NULL,
    CONSTRAINT credit_key UNIQUE (key_scope, idempotency_key),
    CONSTRAINT credit_amount CHECK (amount > 0),
    {finite("amount")}
);
CREATE INDEX credit_by_org ON pricing.credit (org_id, credit_id);
COMMENT ON COLUMN pricing.credit.sku_types IS 'Which SKUs it pays for; null: all.';

CREATE TABLE pricing.credit_use (
    credit_id uuid PRIMARY KEY REFERENCES pricing.credit,
    drawn numeric NOT NULL,
    {finite("drawn")}
) WITH (fillfactor = 70);

CREATE TABLE pricing.credit_draw (
    charge_id text COLLATE "C" NOT NULL,
    org_id uuid NOT NULL,
    credit_id uuid NOT NULL REFERENCES pricing.credit,
    amount numeric NOT NULL,
    created_at timestamptz NOT NULL,
    PRIMARY KEY (charge_id, org_id, credit_id),
    {finite("amount")}
);
CREATE INDEX credit_draw_by_credit ON pricing.credit_draw (credit_id);
COMMENT ON COLUMN pricing.credit_draw.amount IS 'Negative where the charge gave back.';

CREATE TABLE pricing.initiation (
    org_id uuid NOT NULL,
    request_id text COLLATE "C" NOT NULL,
    project_id uuid,
    sku text NOT NULL,
    quantity numeric NOT NULL,
    period text,
    decision text NOT NULL,
    reason text NOT NULL,
    amount numeric,
    currency character(3),
    needs_credit boolean NOT NULL,
    hold_id uuid,
    expires_at timestamptz,
    released_at timestamptz,
    created_at timestamptz NOT NULL,
    PRIMARY KEY (org_id, request_id),
    CONSTRAINT initiation_decision CHECK (decision IN ('allow', 'deny')),
    CONSTRAINT initiation_hold CHECK ((hold_id IS NULL) = (expires_at IS NULL)),
    CONSTRAINT initiation_amount CHECK ((amount IS NULL) = (currency IS NULL)),
    {finite("quantity", "amount")}
);
CREATE UNIQUE INDEX initiation_by_hold ON pricing.initiation (hold_id) WHERE hold_id IS NOT NULL;
CREATE INDEX initiation_open ON pricing.initiation (org_id, expires_at)
    WHERE hold_id IS NOT NULL AND released_at IS NULL;
CREATE INDEX initiation_by_age ON pricing.initiation (created_at);
COMMENT ON TABLE pricing.initiation IS
    'Answers given before an action: the same question gets the same answer; an open hold keeps its amount free.';

ALTER TABLE pricing.unrated_usage ADD COLUMN hold_ids uuid[] NOT NULL DEFAULT '{{}}';

GRANT SELECT, INSERT, UPDATE, DELETE ON pricing.budget, pricing.budget_spend, pricing.initiation TO eb_pricing;
GRANT SELECT, INSERT ON pricing.credit, pricing.credit_draw, pricing.cap_cut TO eb_pricing;
GRANT SELECT, INSERT, UPDATE ON pricing.credit_use TO eb_pricing;
"""
