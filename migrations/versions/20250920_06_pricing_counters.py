"""Counters, charges, usage that waits for terms, and the estimator's copy of counters.

Revision: 20250920_06, after 20250920_05.
Downgrade: counters, charges, usage without terms and what is due to be rated again are kept aside and brought
back by the next upgrade. Not kept: the estimator's copies (asked for again over the bus).
"""

from kit_tables import drop, finite, keep, restore, run

revision = "20250920_06"
down_revision = "20250920_05"
branch_labels = None
depends_on = None

KEPT = ("counter", "charge", "unrated_usage", "terms_due", "awaited_terms")


def upgrade() -> None:
    """Make pricing's and estimator's tables."""
    run(PRICING + ESTIMATOR)
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
    tax_rate numeric,
    tax_base numeric NOT NULL DEFAULT 0,
    taxed numeric NOT NULL DEFAULT 0,
    earlier_taxes jsonb,
    terms_hash text,
    retail_key text,
    version bigint NOT NULL DEFAULT 0,
    PRIMARY KEY (org_id, sku, period),
    {finite("quantity", "charged", "waived", "tax_rate", "tax_base", "taxed")}
) WITH (fillfactor = 70);
CREATE INDEX counter_by_period ON pricing.counter (period, org_id, sku);
CREATE INDEX counter_by_retail_key ON pricing.counter (retail_key, org_id) WHERE retail_key IS NOT NULL;
COMMENT ON COLUMN pricing.counter.tax_base IS 'Gross amounts charged at tax_rate; other rates in earlier_taxes.';

CREATE TABLE pricing.charge (
    charge_id text COLLATE "C" NOT NULL,
    org_id uuid NOT NULL,
    project_id uuid,
    sku text NOT NULL,
    period text NOT NULL,
    time timestamptz NOT NULL,
    kind text NOT NULL,
    quantity numeric NOT NULL,
    event_count bigint NOT NULL,
    currency character(3) NOT NULL,
    amount_gross numeric NOT NULL,
    waived_amount numeric NOT NULL DEFAULT 0,
    credit_applied numeric NOT NULL DEFAULT 0,
    tax_amount numeric NOT NULL,
    tax_code text,
    tax_rate numeric,
    tax_base numeric NOT NULL,
    terms_hash text NOT NULL,
    counter_quantity numeric NOT NULL,
    counter_events bigint NOT NULL,
    counter_charged numeric NOT NULL,
    counter_version bigint NOT NULL,
    reason text,
    actor text,
    trace_ids text[] NOT NULL,
    created_at timestamptz NOT NULL,
    PRIMARY KEY (charge_id, org_id),
    CONSTRAINT charge_kind CHECK (kind IN ('usage', 'base', 'one_off', 'adjustment')),
    {
    finite(
        "quantity",
        "amount_gross",
        "waived_amount",
        "credit_applied",
        "tax_amount",
        "tax_rate",
        "tax_base",
        "counter_quantity",
        "counter_charged",
    )
}
);
CREATE INDEX charge_by_org ON pricing.charge (org_id, created_at, charge_id);
COMMENT ON COLUMN pricing.charge.tax_base IS 'Gross amounts charged at tax_rate up to and with this charge.';

CREATE TABLE pricing.unrated_usage (
    org_id uuid NOT NULL,
    usage_id uuid NOT NULL,
    project_id uuid NOT NULL,
    sku text NOT NULL,
    minute timestamptz NOT NULL,
    quantity numeric NOT NULL,
    events bigint NOT NULL,
    trace_ids text[] NOT NULL,
    reason text NOT NULL,
    parked_at timestamptz NOT NULL,
    PRIMARY KEY (org_id, usage_id),
    CONSTRAINT unrated_usage_reason CHECK (
        reason IN ('unknown_sku', 'no_terms', 'terms_missing', 'out_of_bounds')),
    {finite("quantity")}
);
CREATE INDEX unrated_usage_by_sku ON pricing.unrated_usage (sku, org_id);

CREATE TABLE pricing.terms_due (
    org_id uuid PRIMARY KEY,
    after_usage_id uuid
);
COMMENT ON TABLE pricing.terms_due IS 'Organisations whose terms changed: waiting usage and counters to look at.';

CREATE TABLE pricing.awaited_terms (
    terms_hash text NOT NULL,
    org_id uuid NOT NULL,
    PRIMARY KEY (terms_hash, org_id)
);
COMMENT ON TABLE pricing.awaited_terms IS 'Which organisations wait for terms that are named but not here yet.';

GRANT SELECT, INSERT, UPDATE ON pricing.counter TO eb_pricing;
GRANT SELECT, INSERT ON pricing.charge TO eb_pricing;
GRANT SELECT, INSERT, UPDATE, DELETE ON pricing.unrated_usage, pricing.terms_due, pricing.awaited_terms
    TO eb_pricing;
"""

ESTIMATOR = f"""
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
) WITH (fillfactor = 70);
GRANT SELECT, INSERT, UPDATE, DELETE ON estimator.counter TO eb_estimator;
"""
