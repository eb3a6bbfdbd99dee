"""Provider logs, reconciliations and usage alerts.

Revision: 20250920_10, after 20250920_09.
Downgrade: logs, their rows, reconciliations, hourly sums and alerts are kept aside and brought back by the next
upgrade. Nothing is lost.
"""

from kit_tables import drop, finite, keep, months, restore, run

revision = "20250920_10"
down_revision = "20250920_09"
branch_labels = None
depends_on = None

KEPT = (
    "provider_log", "provider_log_part", "provider_reject", "provider_row", "reconciliation", "reconciliation_slice",
    "reconciliation_day", "reconciliation_drift", "usage_hour", "usage_series", "usage_alert",
)  # fmt: skip
BY_MONTH = ("provider_row", "usage_hour")


def upgrade() -> None:
    """Make the tables, the months of rows and sums, and the look-up of events by their provider's id."""
    run(LOGS + RECONCILIATIONS + ALERTS + GRANTS)
    for table in BY_MONTH:
        months(f"metering_ingest.{table}", back=2)
    restore(revision, "metering_ingest", *KEPT)


def downgrade() -> None:
    """Set everything aside, then drop."""
    keep(revision, "metering_ingest", *KEPT)
    drop("metering_ingest", *reversed(KEPT))
    run("""
        DROP INDEX metering_ingest.metering_event_by_provider_id;
        DELETE FROM platform.monthly
            WHERE table_name IN ('metering_ingest.provider_row', 'metering_ingest.usage_hour')
    """)


LOGS = f"""
CREATE TABLE metering_ingest.provider_log (
    log_id uuid PRIMARY KEY,
    provider text,
    format text NOT NULL,
    status text NOT NULL,
    loaded_by text NOT NULL,
    content_hash bytea,
    rows bigint NOT NULL DEFAULT 0,
    rejected bigint NOT NULL DEFAULT 0,
    skipped bigint NOT NULL DEFAULT 0,
    rows_left bigint NOT NULL DEFAULT 0,
    started_at timestamptz NOT NULL,
    heard_at timestamptz NOT NULL,
    finished_at timestamptz,
    CONSTRAINT provider_log_status CHECK (status IN ('loading', 'loaded', 'abandoned', 'cleared'))
);
CREATE UNIQUE INDEX provider_log_content ON metering_ingest.provider_log (content_hash) WHERE status = 'loaded';
CREATE INDEX provider_log_unfinished ON metering_ingest.provider_log (heard_at)
    WHERE status IN ('loading', 'abandoned');

CREATE TABLE metering_ingest.provider_log_part (
    log_id uuid NOT NULL,
    org_id uuid NOT NULL,
    sku text NOT NULL,
    provider text NOT NULL,
    rows bigint NOT NULL,
    first_at timestamptz NOT NULL,
    last_at timestamptz NOT NULL,
    PRIMARY KEY (log_id, org_id, sku, provider)
);
CREATE INDEX provider_log_part_by_time ON metering_ingest.provider_log_part (last_at, first_at);
COMMENT ON TABLE metering_ingest.provider_log_part IS 'Whose messages a log holds, of which SKU, from when to when.';

CREATE TABLE metering_ingest.provider_reject (
    log_id uuid NOT NULL,
    line bigint NOT NULL,
    reason text NOT NULL,
    PRIMARY KEY (log_id, line)
);

CREATE TABLE metering_ingest.provider_row (
    log_id uuid NOT NULL,
    seq bigint NOT NULL,
    provider text NOT NULL,
    message_id text NOT NULL,
    org_id uuid NOT NULL,
    sku text NOT NULL,
    quantity numeric NOT NULL,
    message_time timestamptz NOT NULL,
    project_id uuid,
    PRIMARY KEY (log_id, seq, message_time),
    {finite("quantity")}
) PARTITION BY RANGE (message_time);
COMMENT ON COLUMN metering_ingest.provider_row.seq IS 'The place in its log: 1 for the first message.';
CREATE INDEX provider_row_by_sku ON metering_ingest.provider_row (org_id, sku, message_time, log_id, seq);
CREATE INDEX provider_row_by_message ON metering_ingest.provider_row (message_id, provider);

CREATE INDEX metering_event_by_provider_id
    ON metering_ingest.metering_event (org_id, (metadata ->> 'provider_message_id'))
    WHERE metadata ->> 'provider_message_id' IS NOT NULL;
"""

RECONCILIATIONS = f"""
CREATE TABLE metering_ingest.reconciliation (
    reconciliation_id uuid PRIMARY KEY,
    from_on date NOT NULL,
    to_on date NOT NULL,
    provider text,
    org_id uuid,
    sku text,
    nightly_on date UNIQUE,
    status text NOT NULL,
    planned_after uuid,
    asked_by text NOT NULL,
    created_at timestamptz NOT NULL,
    finished_at timestamptz,
    provider_messages bigint NOT NULL DEFAULT 0,
    metered_events bigint NOT NULL DEFAULT 0,
    drift_messages bigint NOT NULL DEFAULT 0,
    is_over_tolerance boolean NOT NULL DEFAULT false,
    filled bigint NOT NULL DEFAULT 0,
    unfilled bigint NOT NULL DEFAULT 0,
    fill_project_id uuid,
    CONSTRAINT reconciliation_status CHECK (status IN ('planning', 'comparing', 'filling', 'done'))
);
CREATE INDEX reconciliation_open ON metering_ingest.reconciliation (reconciliation_id) WHERE status <> 'done';
COMMENT ON COLUMN metering_ingest.reconciliation.planned_after IS 'The last organisation that was looked at for work.';

CREATE TABLE metering_ingest.reconciliation_slice (
    reconciliation_id uuid NOT NULL,
    org_id uuid NOT NULL,
    sku text NOT NULL,
    zone text NOT NULL,
    starts_at timestamptz NOT NULL,
    ends_at timestamptz NOT NULL,
    phase text NOT NULL,
    after_at timestamptz NOT NULL,
    after_id uuid NOT NULL,
    after_seq bigint NOT NULL,
    PRIMARY KEY (reconciliation_id, org_id, sku),
    CONSTRAINT reconciliation_slice_phase CHECK (phase IN ('rows', 'events', 'fill', 'done'))
);
CREATE INDEX reconciliation_slice_open ON metering_ingest.reconciliation_slice (reconciliation_id, org_id, sku)
    WHERE phase <> 'done';
COMMENT ON TABLE metering_ingest.reconciliation_slice IS
    'One organisation and SKU of a run, and how far the walk through its rows or events has come.';

CREATE TABLE metering_ingest.reconciliation_day (
    reconciliation_id uuid NOT NULL,
    org_id uuid NOT NULL,
    sku text NOT NULL,
    day date NOT NULL,
    provider_messages bigint NOT NULL,
    provider_quantity numeric NOT NULL,
    metered_events bigint NOT NULL,
    metered_quantity numeric NOT NULL,
    PRIMARY KEY (reconciliation_id, org_id, sku, day),
    {finite("provider_quantity", "metered_quantity")}
);

CREATE TABLE metering_ingest.reconciliation_drift (
    drift_id uuid PRIMARY KEY,
    reconciliation_id uuid NOT NULL,
    org_id uuid NOT NULL,
    sku text NOT NULL,
    day date NOT NULL,
    metered_day date NOT NULL,
    kind text NOT NULL,
    messages bigint NOT NULL,
    provider_quantity numeric NOT NULL,
    metered_quantity numeric NOT NULL,
    sample_ids text[] NOT NULL,
    is_over_tolerance boolean NOT NULL DEFAULT false,
    announced_at timestamptz,
    {finite("provider_quantity", "metered_quantity")},
    CONSTRAINT reconciliation_drift_kind CHECK (kind IN ('missing_here', 'missing_there', 'double_there',
        'double_here', 'wrong_quantity', 'wrong_day', 'wrong_sku', 'voided'))
);
CREATE UNIQUE INDEX reconciliation_drift_key
    ON metering_ingest.reconciliation_drift (reconciliation_id, org_id, sku, day, metered_day, kind);
CREATE INDEX reconciliation_drift_unannounced ON metering_ingest.reconciliation_drift (reconciliation_id, drift_id)
    WHERE announced_at IS NULL;
"""

ALERTS = f"""
CREATE TABLE metering_ingest.usage_hour (
    org_id uuid NOT NULL,
    sku text NOT NULL,
    hour timestamptz NOT NULL,
    quantity numeric NOT NULL,
    events bigint NOT NULL,
    PRIMARY KEY (org_id, sku, hour),
    {finite("quantity")}
) PARTITION BY RANGE (hour);

CREATE TABLE metering_ingest.usage_series (
    org_id uuid NOT NULL,
    sku text NOT NULL,
    first_hour timestamptz NOT NULL,
    last_hour timestamptz NOT NULL,
    judged_hour timestamptz NOT NULL,
    PRIMARY KEY (org_id, sku)
);
CREATE INDEX usage_series_due ON metering_ingest.usage_series (judged_hour);

CREATE TABLE metering_ingest.usage_alert (
    alert_id uuid PRIMARY KEY,
    org_id uuid NOT NULL,
    sku text NOT NULL,
    kind text NOT NULL,
    hour timestamptz NOT NULL,
    expected numeric NOT NULL,
    seen numeric NOT NULL,
    threshold numeric NOT NULL,
    why text NOT NULL,
    raised_at timestamptz NOT NULL,
    closed_at timestamptz,
    {finite("expected", "seen", "threshold")},
    CONSTRAINT usage_alert_kind CHECK (kind IN ('spike', 'stop'))
);
CREATE UNIQUE INDEX usage_alert_open ON metering_ingest.usage_alert (org_id, sku) WHERE closed_at IS NULL;
CREATE INDEX usage_alert_by_org ON metering_ingest.usage_alert (org_id, alert_id);

INSERT INTO platform.monthly (table_name, month_column, rows_stand) VALUES
    ('metering_ingest.provider_row', 'message_time', false), ('metering_ingest.usage_hour', 'hour', false);
"""

GRANTS = """
GRANT SELECT, INSERT, UPDATE, DELETE ON metering_ingest.provider_log, metering_ingest.provider_log_part,
    metering_ingest.provider_reject, metering_ingest.reconciliation, metering_ingest.reconciliation_slice,
    metering_ingest.reconciliation_day, metering_ingest.reconciliation_drift, metering_ingest.usage_hour,
    metering_ingest.usage_series, metering_ingest.usage_alert TO eb_metering_ingest;
GRANT SELECT, INSERT, DELETE ON metering_ingest.provider_row TO eb_metering_ingest;
"""
