"""Counters, charges, usage that waits for terms, and the estimator's copy of counters.

Revision: 20250920_06, after 20250920_05.
Downgrade: counters, charges and waiting usage are kept aside and brought back by the next upgrade.
Not kept: the estimator's copies (asked for again over the bus).
"""

from kit_tables import drop, finite, keep, restore, run

revision = "20250920_06"
down_revision = "20250920_05"
branch_labels = None
depends_on = None

KEPT = ("counter", "charge", "waiting_usage")


def upgrade() -> None:
    """Make pricing's and estimator's tables."""
    run(PRICING)
    restore(revision, "pricing", *KEPT)


def downgrade() -> None:
    """Set pricing's rows aside, then drop."""
    keep(revision, "pricing", *KEPT)
    drop("estimator", "counter")
    drop("pricing", *reversed(KEPT))


PRICING = f"""
CREATE TABLE pricing.counter (
    org_id uuid NOT NULL,
    sku text NOT NULL,
    period text NOT NULL,
    currency character(3) NOT NULL,
    quantity numeric NOT NULL DEFAULT 0,
    events bigint NOT NULL DEFAULT 0,
    charged numeric NOT NULL DEFAULT 0,
    waived numeric NOT NULL DEFAULT 0,
    taxed jsonb NOT NULL DEFAULT '{{}}',
    terms_hash text,
    version bigint NOT NULL DEFAULT 0,
    PRIMARY KEY (org_id, sku, period),
    {finite("quantity", "charged", "waived")}
);

CREATE TABLE pricing.charge (
    org_id uuid NOT NULL,
    charge_id text NOT NULL,
    project_id uuid,
    sku text NOT NULL,
    period text NOT NULL,
    time timestamptz NOT NULL,
    kind text NOT NULL,
    quantity numeric NOT NULL,
    event_count integer NOT NULL,
    currency character(3) NOT NULL,
    amount_gross numeric NOT NULL,
    waived_amount numeric NOT NULL,
    credit_applied numeric NOT NULL,
    tax_amount numeric NOT NULL,
    tax_code text,
    terms_hash text NOT NULL,
    counter_before jsonb NOT NULL,
    counter_after jsonb NOT NULL,
    reason text,
    actor text,
    trace_ids text[] NOT NULL DEFAULT '{{}}',
    created_at timestamptz NOT NULL,
    PRIMARY KEY (org_id, charge_id),
    CONSTRAINT charge_kind CHECK (kind IN ('usage', 'base', 'one_off', 'adjustment')),
    {finite("quantity", "amount_gross", "waived_amount", "credit_applied", "tax_amount")}
);
CREATE INDEX charge_by_org ON pricing.charge (org_id, created_at, charge_id);
CREATE INDEX charge_by_counter ON pricing.charge (org_id, sku, period);

CREATE TABLE pricing.waiting_usage (
    org_id uuid NOT NULL,
    usage_id uuid NOT NULL,
    sku text NOT NULL,
    minute timestamptz NOT NULL,
    reason text NOT NULL,
    body jsonb NOT NULL,
    parked_at timestamptz NOT NULL,
    PRIMARY KEY (org_id, usage_id),
    CONSTRAINT waiting_usage_reason CHECK (reason IN ('unknown_sku', 'unknown_org', 'unrated'))
);
CREATE INDEX waiting_usage_by_sku ON pricing.waiting_usage (org_id, sku);

CREATE TABLE estimator.counter (
    org_id uuid NOT NULL,
    sku text NOT NULL,
    period text NOT NULL,
    quantity numeric NOT NULL,
    events bigint NOT NULL,
    charged numeric NOT NULL,
    version bigint NOT NULL,
    PRIMARY KEY (org_id, sku, period),
    {finite("quantity", "charged")}
);

GRANT SELECT, INSERT, UPDATE ON pricing.counter, pricing.charge TO eb_pricing;
GRANT SELECT, INSERT, UPDATE, DELETE ON pricing.waiting_usage TO eb_pricing;
GRANT SELECT, INSERT, UPDATE, DELETE ON estimator.counter TO eb_estimator;
"""
