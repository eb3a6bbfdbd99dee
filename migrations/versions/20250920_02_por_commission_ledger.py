"""Partners, partners of record, commission rates, and the ledger by month.

Revision: 20250920_02, after 20250920_01.
Downgrade: partners, rates, ledger lines and the postings that make them once per charge are kept aside and brought
back by the next upgrade with every amount. Not kept: nothing but charges that were parked (they are sent again).
"""

from kit_tables import audit, drop, finite, keep, months, restore, run

revision = "20250920_02"
down_revision = "20250920_01"
branch_labels = None
depends_on = None

KEPT = (
    "partner", "partner_tier", "partner_of_record", "commission_rate", "ledger", "charge_posting", "commission_counter",
)  # fmt: skip


def upgrade() -> None:
    """Make the ledger's tables with this and the coming months' partitions."""
    run(LEDGER)
    months("ledger.ledger", back=1)
    restore(revision, "ledger", *KEPT)
    audit("ledger", "partner", "partner_id")
    audit("ledger", "partner_tier", "partner_id,effective_at")
    audit("ledger", "partner_of_record", "por_id", "org_id")
    audit("ledger", "commission_rate", "partner_tier,sku,effective_at")


def downgrade() -> None:
    """Set everything aside, then drop."""
    keep(revision, "ledger", *KEPT)
    drop("ledger", "invariant_check", "parked_charge", *reversed(KEPT))
    run("""
        DROP FUNCTION ledger.amounts_stand();
        DROP TYPE ledger.por_status, ledger.entry_status;
        DELETE FROM platform.monthly WHERE table_name = 'ledger.ledger'
    """)


LEDGER = f"""
CREATE TYPE ledger.por_status AS ENUM ('active', 'expired', 'disputed');
CREATE TYPE ledger.entry_status AS ENUM ('pending', 'settled', 'reversed');

CREATE TABLE ledger.partner (
    partner_id uuid PRIMARY KEY,
    name text NOT NULL,
    min_payout jsonb NOT NULL DEFAULT '{{}}',
    payout_provider text NOT NULL,
    destination text,
    created_at timestamptz NOT NULL
);

CREATE TABLE ledger.partner_tier (
    partner_id uuid NOT NULL REFERENCES ledger.partner (partner_id),
    effective_at timestamptz NOT NULL,
    tier text NOT NULL,
    PRIMARY KEY (partner_id, effective_at),
    CONSTRAINT partner_tier_minute CHECK (date_trunc('minute', effective_at, 'UTC') = effective_at)
);

CREATE TABLE ledger.partner_of_record (
    org_id uuid NOT NULL,
    partner_id uuid NOT NULL REFERENCES ledger.partner (partner_id),
    start_at timestamptz NOT NULL,
    end_at timestamptz,
    status ledger.por_status NOT NULL,
    por_id uuid NOT NULL,
    created_at timestamptz NOT NULL,
    CONSTRAINT partner_of_record_pkey PRIMARY KEY (org_id, partner_id, start_at),
    CONSTRAINT partner_of_record_por_id_key UNIQUE (por_id),
    CONSTRAINT partner_of_record_range CHECK (end_at > start_at),
    CONSTRAINT partner_of_record_minutes CHECK (date_trunc('minute', start_at, 'UTC') = start_at
        AND date_trunc('minute', end_at, 'UTC') = end_at),
    CONSTRAINT partner_of_record_org_overlap
        EXCLUDE USING gist (org_id WITH =, tstzrange(start_at, end_at) WITH &&)
);

CREATE TABLE ledger.commission_rate (
    partner_tier text NOT NULL,
    sku text NOT NULL,
    pct numeric(5,2) NOT NULL,
    effective_at timestamptz NOT NULL,
    created_at timestamptz NOT NULL,
    PRIMARY KEY (partner_tier, sku, effective_at),
    CONSTRAINT commission_rate_pct CHECK (pct >= 0 AND pct <= 100),
    CONSTRAINT commission_rate_minute CHECK (date_trunc('minute', effective_at, 'UTC') = effective_at)
);

CREATE TABLE ledger.ledger (
    entry_id uuid NOT NULL,
    org_id uuid NOT NULL,
    project_id uuid,
    sku text NOT NULL,
    quantity numeric NOT NULL,
    amount_gross numeric NOT NULL,
    partner_pct numeric(5,2) NOT NULL,
    partner_amount numeric NOT NULL,
    net numeric NOT NULL,
    status ledger.entry_status NOT NULL,
    created_at timestamptz NOT NULL,
    currency character(3) NOT NULL,
    charge_id text,
    kind text NOT NULL,
    period text NOT NULL,
    occurred_at timestamptz NOT NULL,
    tax_code text,
    tax_amount numeric NOT NULL,
    terms_hash text NOT NULL,
    credit_applied numeric NOT NULL,
    waived_amount numeric NOT NULL,
    partner_id uuid,
    por_id uuid,
    billing_account_id uuid,
    reverses_entry_id uuid,
    reason text,
    actor text,
    PRIMARY KEY (org_id, entry_id, created_at),
    {finite("quantity", "amount_gross", "partner_amount", "net", "tax_amount", "credit_applied", "waived_amount")},
    CONSTRAINT ledger_pct CHECK (partner_pct >= 0 AND partner_pct <= 100),
    CONSTRAINT ledger_net CHECK (net = amount_gross - partner_amount),
    CONSTRAINT ledger_kind CHECK (kind IN ('usage', 'base', 'one_off', 'adjustment', 'reversal')),
    CONSTRAINT ledger_period CHECK (period ~ '^[0-9]{{4}}-(0[1-9]|1[0-2])$'),
    CONSTRAINT ledger_currency CHECK (currency ~ '^[A-Z]{{3}}$')
) PARTITION BY RANGE (created_at);
CREATE INDEX ledger_by_entry ON ledger.ledger (entry_id);
CREATE INDEX ledger_by_account ON ledger.ledger (billing_account_id, entry_id);
CREATE INDEX ledger_by_partner ON ledger.ledger (partner_id, org_id, entry_id) WHERE partner_id IS NOT NULL;

CREATE FUNCTION ledger.amounts_stand() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog AS $$
BEGIN
    IF TG_OP = 'UPDATE' THEN
        OLD.status := NEW.status;
        IF NEW IS NOT DISTINCT FROM OLD THEN
            RETURN NEW;
        END IF;
    END IF;
    RAISE EXCEPTION 'a ledger line stands: only its status may change' USING ERRCODE = 'EB002';
END
$$;
CREATE TRIGGER amounts_stand BEFORE UPDATE OR DELETE ON ledger.ledger
    FOR EACH ROW EXECUTE FUNCTION ledger.amounts_stand();
CREATE TRIGGER stands_truncate BEFORE TRUNCATE ON ledger.ledger
    FOR EACH STATEMENT EXECUTE FUNCTION platform.refuse();
INSERT INTO platform.monthly (table_name, month_column, rows_stand) VALUES ('ledger.ledger', 'created_at', true);

CREATE TABLE ledger.charge_posting (
    org_id uuid NOT NULL,
    charge_id text NOT NULL,
    content_hash bytea NOT NULL,
    entry_id uuid NOT NULL,
    created_at timestamptz NOT NULL,
    PRIMARY KEY (charge_id, org_id)
);

CREATE TABLE ledger.parked_charge (
    org_id uuid NOT NULL,
    charge_id text NOT NULL,
    content_hash bytea NOT NULL,
    reason text NOT NULL,
    waits_for uuid,
    body jsonb NOT NULL,
    parked_at timestamptz NOT NULL,
    resolved_at timestamptz,
    PRIMARY KEY (org_id, charge_id, content_hash),
    CONSTRAINT parked_charge_reason CHECK (
        reason IN ('org_unknown', 'conflict', 'currency_unknown', 'amount_precision', 'amount_range')),
    CONSTRAINT parked_charge_waits CHECK ((reason = 'org_unknown') = (waits_for IS NOT NULL))
);
CREATE INDEX parked_charge_open ON ledger.parked_charge (reason, waits_for) WHERE resolved_at IS NULL;

CREATE TABLE ledger.invariant_check (
    name text PRIMARY KEY,
    checked_until timestamptz NOT NULL,
    breaches bigint NOT NULL
);

CREATE TABLE ledger.commission_counter (
    partner_id uuid NOT NULL,
    org_id uuid NOT NULL,
    sku text NOT NULL,
    period text NOT NULL,
    currency character(3) NOT NULL,
    pct numeric(5,2) NOT NULL,
    gross numeric NOT NULL,
    PRIMARY KEY (partner_id, org_id, sku, period, currency, pct),
    {finite("gross")},
    CONSTRAINT commission_counter_pct CHECK (pct >= 0 AND pct <= 100)
);

GRANT SELECT, INSERT, UPDATE ON ledger.partner, ledger.partner_tier, ledger.partner_of_record,
    ledger.commission_rate, ledger.parked_charge, ledger.commission_counter, ledger.invariant_check TO eb_ledger;
GRANT SELECT, INSERT, UPDATE (status) ON ledger.ledger TO eb_ledger;
GRANT SELECT, INSERT ON ledger.charge_posting TO eb_ledger;
"""
