"""Closed periods, base fees, one-off charges and re-ratings; the terms of plans, for comparing them.

Revision: 20250920_08, after 20250920_07.
Downgrade: periods, re-ratings, the calendar, and what charges and counters say of closes and base fees are kept aside
and brought back by the next upgrade; so are plans' terms. Nothing is lost.
"""

from kit_tables import drop, finite, keep, restore, run

revision = "20250920_08"
down_revision = "20250920_07"
branch_labels = None
depends_on = None

KEPT = ("billing_period", "org_calendar", "rerate")


def upgrade() -> None:
    """Make the tables, and have every organisation that has terms looked at."""
    run(TABLES + COLUMNS)
    restore(revision, "pricing", *KEPT)
    run(RESTORE_COLUMNS + FIRST_LOOK)
    run(PLAN_TERMS)
    restore(revision, "catalog", "plan_terms_state")
    run(FIRST_PLAN_TERMS)


def downgrade() -> None:
    """Set aside what was added, then drop it."""
    keep(revision, "catalog", "plan_terms_state")
    drop("catalog", "plan_terms_state")
    keep(revision, "pricing", *KEPT)
    run(KEEP_COLUMNS + TAKE_COLUMNS)
    drop("pricing", *reversed(KEPT))


TABLES = """
CREATE TABLE pricing.billing_period (
    org_id uuid NOT NULL,
    period text NOT NULL,
    starts_at timestamptz NOT NULL,
    ends_at timestamptz NOT NULL,
    closed_at timestamptz,
    closed_by text,
    settled_at timestamptz,
    charges integer,
    retry_at timestamptz,
    PRIMARY KEY (org_id, period),
    CONSTRAINT billing_period_closed CHECK ((closed_at IS NULL) = (closed_by IS NULL)),
    CONSTRAINT billing_period_settled CHECK (settled_at IS NULL OR closed_at IS NOT NULL),
    CONSTRAINT billing_period_charges CHECK ((settled_at IS NULL) = (charges IS NULL))
);
CREATE INDEX billing_period_open ON pricing.billing_period (ends_at, org_id) WHERE closed_at IS NULL;
CREATE INDEX billing_period_unsettled ON pricing.billing_period (closed_at, org_id)
    WHERE closed_at IS NOT NULL AND settled_at IS NULL;
COMMENT ON COLUMN pricing.billing_period.settled_at IS 'When its counters had been brought to their closed targets.';
COMMENT ON COLUMN pricing.billing_period.retry_at IS 'Not before then, since terms it needs were missing.';

CREATE TABLE pricing.org_calendar (
    org_id uuid PRIMARY KEY,
    due_at timestamptz NOT NULL,
    next_period text
);
CREATE INDEX org_calendar_by_due_at ON pricing.org_calendar (due_at, org_id);
COMMENT ON TABLE pricing.org_calendar IS
    'When an organisation''s next period or base fee begins; next_period is the first one not opened yet.';

CREATE TABLE pricing.rerate (
    rerate_id uuid PRIMARY KEY,
    org_id uuid NOT NULL,
    period text NOT NULL,
    reason text NOT NULL,
    actor text NOT NULL,
    charges integer NOT NULL,
    key_scope text NOT NULL,
    idempotency_key text NOT NULL,
    created_at timestamptz NOT NULL,
    CONSTRAINT rerate_key UNIQUE (key_scope, idempotency_key)
);
CREATE INDEX rerate_by_org ON pricing.rerate (org_id, rerate_id);

GRANT SELECT, INSERT, UPDATE ON pricing.billing_period TO eb_pricing;
GRANT SELECT, INSERT, UPDATE, DELETE ON pricing.org_calendar TO eb_pricing;
GRANT SELECT, INSERT ON pricing.rerate TO eb_pricing;
"""

COLUMNS = f"""
ALTER TABLE pricing.counter
    ADD COLUMN base numeric NOT NULL DEFAULT 0 {finite("base")},
    ADD COLUMN is_closed boolean NOT NULL DEFAULT false;
COMMENT ON COLUMN pricing.counter.base IS 'The part of charged that is base fees.';
CREATE INDEX counter_with_base ON pricing.counter (org_id, period) WHERE base <> 0;

ALTER TABLE pricing.charge
    ADD COLUMN is_closed boolean NOT NULL DEFAULT false,
    ADD COLUMN base_due numeric NOT NULL DEFAULT 0 {finite("base_due")},
    ADD COLUMN counter_base numeric NOT NULL DEFAULT 0 {finite("counter_base")},
    ADD COLUMN days_left integer,
    ADD COLUMN days integer;
COMMENT ON COLUMN pricing.charge.is_closed IS 'Whether the period was closed: the minimum counted then.';
COMMENT ON COLUMN pricing.charge.base_due IS 'The part of what became due that is base fees.';
CREATE INDEX charge_by_counter ON pricing.charge (org_id, sku, period);
CREATE INDEX charge_besides_usage ON pricing.charge (org_id, created_at, charge_id) WHERE kind <> 'usage';
"""

FIRST_LOOK = """
INSERT INTO pricing.org_calendar (org_id, due_at)
    SELECT entity_id::uuid, timestamptz '2025-09-20 00:00+00' FROM pricing.known
    WHERE entity = 'org_terms' AND NOT is_deleted
    ON CONFLICT DO NOTHING;
"""

KEEP_COLUMNS = """
CREATE TABLE kept."20250920_08:counters" AS SELECT org_id, sku, period, base, is_closed
    FROM pricing.counter WHERE is_closed OR base <> 0;
CREATE TABLE kept."20250920_08:charges" AS
    SELECT charge_id, org_id, is_closed, base_due, counter_base, days_left, days
    FROM pricing.charge WHERE is_closed OR base_due <> 0 OR counter_base <> 0 OR days IS NOT NULL;
"""

TAKE_COLUMNS = """
DROP INDEX pricing.charge_besides_usage;
DROP INDEX pricing.charge_by_counter;
DROP INDEX pricing.counter_with_base;
ALTER TABLE pricing.charge DROP COLUMN is_closed, DROP COLUMN base_due, DROP COLUMN counter_base,
    DROP COLUMN days_left, DROP COLUMN days;
ALTER TABLE pricing.counter DROP COLUMN base, DROP COLUMN is_closed;
"""

RESTORE_COLUMNS = """
DO $$
BEGIN
    IF to_regclass('kept."20250920_08:counters"') IS NULL THEN
        RETURN;
    END IF;
    UPDATE pricing.counter AS c SET base = k.base, is_closed = k.is_closed
        FROM kept."20250920_08:counters" AS k WHERE (c.org_id, c.sku, c.period) = (k.org_id, k.sku, k.period);
    UPDATE pricing.charge AS c SET is_closed = k.is_closed, base_due = k.base_due, counter_base = k.counter_base,
        days_left = k.days_left, days = k.days
        FROM kept."20250920_08:charges" AS k WHERE (c.charge_id, c.org_id) = (k.charge_id, k.org_id);
    DROP TABLE kept."20250920_08:counters", kept."20250920_08:charges";
END $$;
"""

PLAN_TERMS = """
CREATE TABLE catalog.plan_terms_state (
    plan_terms_id text PRIMARY KEY,
    plan_id uuid NOT NULL REFERENCES catalog.plan (plan_id),
    org_id uuid,
    version bigint NOT NULL,
    body jsonb,
    due_at timestamptz,
    CONSTRAINT plan_terms_state_announced CHECK ((version = 0) = (body IS NULL))
);
CREATE INDEX plan_terms_state_by_plan ON catalog.plan_terms_state (plan_id);
CREATE INDEX plan_terms_state_due ON catalog.plan_terms_state (due_at, plan_terms_id) WHERE due_at IS NOT NULL;
COMMENT ON TABLE catalog.plan_terms_state IS
    'What was announced last of plans, and of plans with an organisation''s overrides; due_at: to be resolved again.';
GRANT SELECT, INSERT, UPDATE ON catalog.plan_terms_state TO eb_catalog;
"""

FIRST_PLAN_TERMS = """
INSERT INTO catalog.plan_terms_state (plan_terms_id, plan_id, org_id, version, due_at)
    SELECT plan_id::text, plan_id, NULL, 0, timestamptz '2025-09-20 00:00+00' FROM catalog.plan
    UNION ALL SELECT plan_id || '/' || org_id, plan_id, org_id, 0, timestamptz '2025-09-20 00:00+00'
        FROM catalog.org_entitlement WHERE overrides <> '{}'
    ON CONFLICT DO NOTHING;
"""
