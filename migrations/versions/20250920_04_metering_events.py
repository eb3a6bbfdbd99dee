"""Metered events by month, their idempotency for ever, dead letters, and the estimates' cache.

Revision: 20250920_04, after 20250920_03.
Downgrade: events, their keys, conflicts and dead letters are kept aside and brought back by the next upgrade.
Not kept: cached estimates (computed again).
"""

from kit_tables import drop, finite, keep, months, restore, run

revision = "20250920_04"
down_revision = "20250920_03"
branch_labels = None
depends_on = None

KEPT = ("metering_event", "event_key", "event_conflict", "usage_record", "dead_letter")


def upgrade() -> None:
    """Make metering-ingest's tables with the months that late events may reach, and the estimates' cache."""
    run(METERING + "".join(EVENT_KEY_PARTITION.format(n=n) for n in range(16)))
    months("metering_ingest.metering_event", back=2)
    restore(revision, "metering_ingest", *KEPT)
    run(ESTIMATE)


def downgrade() -> None:
    """Set events, keys and dead letters aside, then drop."""
    keep(revision, "metering_ingest", *KEPT)
    drop("estimator", "pricing_estimate")
    drop("metering_ingest", *reversed(KEPT))
    run("""
        DROP TYPE metering_ingest.event_source;
        DELETE FROM platform.monthly WHERE table_name = 'metering_ingest.metering_event'
    """)


EVENT_KEY_PARTITION = """
CREATE TABLE metering_ingest.event_key_h{n:02d} PARTITION OF metering_ingest.event_key
    FOR VALUES WITH (MODULUS 16, REMAINDER {n});
"""

METERING = f"""
CREATE TYPE metering_ingest.event_source AS ENUM ('form_submit', 'backend', 'replay');

CREATE TABLE metering_ingest.metering_event (
    event_id uuid NOT NULL,
    org_id uuid NOT NULL,
    project_id uuid NOT NULL,
    sku text NOT NULL,
    quantity numeric NOT NULL,
    source metering_ingest.event_source NOT NULL,
    event_time timestamptz NOT NULL,
    request_id text NOT NULL,
    metadata jsonb,
    usage_id uuid NOT NULL,
    batch_id uuid,
    hold_id uuid,
    voids_event_id uuid,
    reason text,
    recorded_at timestamptz NOT NULL,
    trace_id text,
    PRIMARY KEY (org_id, event_id, event_time),
    {finite("quantity")}
) PARTITION BY RANGE (event_time);
CREATE INDEX metering_event_by_sku ON metering_ingest.metering_event (org_id, sku, event_time);
CREATE INDEX metering_event_by_usage ON metering_ingest.metering_event (usage_id);
INSERT INTO platform.monthly (table_name, month_column, rows_stand)
    VALUES ('metering_ingest.metering_event', 'event_time', false);

CREATE TABLE metering_ingest.event_key (
    org_id uuid NOT NULL,
    request_id text NOT NULL,
    event_id uuid NOT NULL,
    event_time timestamptz NOT NULL,
    content_hash bytea NOT NULL,
    duplicates integer NOT NULL DEFAULT 0,
    conflicts integer NOT NULL DEFAULT 0,
    void_event_id uuid,
    PRIMARY KEY (org_id, request_id)
) PARTITION BY HASH (org_id);

CREATE TABLE metering_ingest.event_conflict (
    conflict_id uuid PRIMARY KEY,
    org_id uuid NOT NULL,
    request_id text NOT NULL,
    received_at timestamptz NOT NULL,
    sku text NOT NULL,
    quantity numeric NOT NULL,
    project_id uuid NOT NULL,
    event_time timestamptz NOT NULL,
    {finite("quantity")}
);
CREATE INDEX event_conflict_by_request ON metering_ingest.event_conflict (org_id, request_id, conflict_id);

CREATE TABLE metering_ingest.usage_record (
    org_id uuid NOT NULL,
    usage_id uuid NOT NULL,
    status text NOT NULL,
    charge_id text,
    entry_ids uuid[] NOT NULL DEFAULT '{{}}',
    PRIMARY KEY (org_id, usage_id),
    CONSTRAINT usage_record_status CHECK (status IN ('recorded', 'unrated', 'priced', 'ledgered'))
);

CREATE TABLE metering_ingest.dead_letter (
    dead_letter_id uuid PRIMARY KEY,
    org_id uuid,
    request_id text,
    content_hash bytea NOT NULL,
    event jsonb NOT NULL,
    errors jsonb NOT NULL,
    reason text NOT NULL,
    count integer NOT NULL,
    first_at timestamptz NOT NULL,
    last_at timestamptz NOT NULL,
    status text NOT NULL,
    trace_id text,
    CONSTRAINT dead_letter_status CHECK (status IN ('open', 'replayed', 'discarded'))
);
CREATE UNIQUE INDEX dead_letter_content_key
    ON metering_ingest.dead_letter (org_id, request_id, content_hash) NULLS NOT DISTINCT;
CREATE INDEX dead_letter_by_org ON metering_ingest.dead_letter (org_id, dead_letter_id);

GRANT SELECT, INSERT ON metering_ingest.metering_event TO eb_metering_ingest;
GRANT SELECT, INSERT, UPDATE ON metering_ingest.event_key, metering_ingest.event_conflict,
    metering_ingest.usage_record, metering_ingest.dead_letter TO eb_metering_ingest;
"""

ESTIMATE = """
CREATE TABLE estimator.pricing_estimate (
    estimate_id uuid PRIMARY KEY,
    org_id uuid NOT NULL,
    project_id uuid,
    inputs jsonb NOT NULL,
    result jsonb NOT NULL,
    created_at timestamptz NOT NULL,
    cache_key bytea NOT NULL,
    CONSTRAINT pricing_estimate_cache_key UNIQUE (org_id, cache_key)
);
CREATE INDEX pricing_estimate_by_age ON estimator.pricing_estimate (created_at);
GRANT SELECT, INSERT, UPDATE, DELETE ON estimator.pricing_estimate TO eb_estimator;
"""
