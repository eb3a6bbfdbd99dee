"""Voids, corrected dead letters, replays, and months of events that leave.

Revision: 20250920_09, after 20250920_08.
Downgrade: replays, those of dead letters too, and which project a dead letter waits for are kept aside and brought
back by the next upgrade. Months that were dropped stay away. Nothing is lost.
"""

from kit_tables import SCHEMAS, drop, keep, restore, role_of, run

revision = "20250920_09"
down_revision = "20250920_08"
branch_labels = None
depends_on = None

KEPT = ("usage_replay", "letter_replay")


def upgrade() -> None:
    """Make the tables of replays, the look-ups of what waits, and the function that drops a month."""
    run(METERING + RESTORE_WAITS)
    restore(revision, "metering_ingest", *KEPT)
    run(DROP_MONTH + DROP_MONTH_RIGHTS.replace("@roles", ", ".join(map(role_of, SCHEMAS))))


def downgrade() -> None:
    """Set replays aside, then take back what was added."""
    keep(revision, "metering_ingest", *KEPT)
    drop("metering_ingest", *reversed(KEPT))
    run("""
        CREATE TABLE kept."20250920_09:letter_waits" AS SELECT dead_letter_id, waits_for_project_id
            FROM metering_ingest.dead_letter WHERE waits_for_project_id IS NOT NULL;
        DROP FUNCTION platform.drop_month(text, timestamptz);
        DROP INDEX metering_ingest.dead_letter_open;
        DROP INDEX metering_ingest.dead_letter_waiting;
        DROP INDEX metering_ingest.usage_record_unrated;
        DROP INDEX metering_ingest.metering_event_voids;
        ALTER TABLE metering_ingest.dead_letter DROP COLUMN waits_for_project_id;
    """)


METERING = """
CREATE INDEX usage_record_unrated ON metering_ingest.usage_record (org_id, usage_id) WHERE status = 'unrated';
CREATE INDEX metering_event_voids ON metering_ingest.metering_event (org_id, event_id)
    WHERE voids_event_id IS NOT NULL;

ALTER TABLE metering_ingest.dead_letter ADD COLUMN waits_for_project_id uuid;
COMMENT ON COLUMN metering_ingest.dead_letter.waits_for_project_id IS
    'The project without which a valid event can''t be recorded; null where that isn''t the reason.';
UPDATE metering_ingest.dead_letter SET waits_for_project_id = (event ->> 'project_id')::uuid
    WHERE reason = 'unknown_project';
CREATE INDEX dead_letter_waiting ON metering_ingest.dead_letter (waits_for_project_id, org_id, dead_letter_id)
    WHERE status = 'open' AND waits_for_project_id IS NOT NULL;
CREATE INDEX dead_letter_open ON metering_ingest.dead_letter (org_id, reason, dead_letter_id)
    WHERE status = 'open';

CREATE TABLE metering_ingest.usage_replay (
    replay_id uuid PRIMARY KEY,
    org_id uuid NOT NULL,
    from_at timestamptz NOT NULL,
    to_at timestamptz NOT NULL,
    status text NOT NULL,
    events bigint NOT NULL,
    sent_events bigint NOT NULL DEFAULT 0,
    sent_records bigint NOT NULL DEFAULT 0,
    after_sku text NOT NULL DEFAULT '',
    after_at timestamptz NOT NULL,
    requested_by text NOT NULL,
    created_at timestamptz NOT NULL,
    finished_at timestamptz,
    CONSTRAINT usage_replay_status CHECK (status IN ('running', 'done'))
);
CREATE INDEX usage_replay_running ON metering_ingest.usage_replay (replay_id) WHERE status = 'running';
COMMENT ON COLUMN metering_ingest.usage_replay.after_at IS
    'With after_sku: how far it has come, in the order of SKU and minute.';

CREATE TABLE metering_ingest.letter_replay (
    letter_replay_id uuid PRIMARY KEY,
    org_id uuid NOT NULL,
    reason text,
    after_id uuid NOT NULL,
    last_id uuid NOT NULL,
    requested_by text NOT NULL,
    created_at timestamptz NOT NULL
);
COMMENT ON TABLE metering_ingest.letter_replay IS
    'What is left of a replay of dead letters by filter: those after after_id, up to last_id.';

GRANT SELECT, INSERT, UPDATE ON metering_ingest.usage_replay TO eb_metering_ingest;
GRANT SELECT, INSERT, UPDATE, DELETE ON metering_ingest.letter_replay TO eb_metering_ingest;
"""

RESTORE_WAITS = """
DO $$
BEGIN
    IF to_regclass('kept."20250920_09:letter_waits"') IS NULL THEN
        RETURN;
    END IF;
    UPDATE metering_ingest.dead_letter AS d SET waits_for_project_id = k.waits_for_project_id
        FROM kept."20250920_09:letter_waits" AS k WHERE k.dead_letter_id = d.dead_letter_id;
    DROP TABLE kept."20250920_09:letter_waits";
END
$$;
"""

DROP_MONTH = """
CREATE FUNCTION platform.drop_month(p_table text, p_before timestamptz) RETURNS text
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET timezone = 'UTC'
SET lock_timeout = '300ms' AS $$
DECLARE
    v_schema text := split_part(p_table, '.', 1);
    v_name text := split_part(p_table, '.', 2);
    v_first_kept text := v_name || to_char(p_before, '"_p"YYYY_MM');
    v_partition text;
BEGIN
    IF p_table NOT IN (SELECT monthly.table_name FROM platform.monthly WHERE NOT monthly.rows_stand) THEN
        RAISE EXCEPTION '% has no months that may leave', p_table USING ERRCODE = '42501';
    END IF;
    PERFORM platform.must_own(v_schema);
    SELECT c.relname INTO v_partition FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
        WHERE i.inhparent = format('%I.%I', v_schema, v_name)::regclass AND c.relname < v_first_kept
        ORDER BY c.relname LIMIT 1;
    IF v_partition IS NOT NULL THEN
        EXECUTE format('DROP TABLE %I.%I', v_schema, v_partition);
    END IF;
    RETURN v_partition;
END
$$;
COMMENT ON FUNCTION platform.drop_month IS
    'Drops the oldest month (UTC) that ends at or before the month of p_before, and names it; gives up on a lock soon.';
"""
DROP_MONTH_RIGHTS = """
REVOKE EXECUTE ON FUNCTION platform.drop_month(text, timestamptz) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION platform.drop_month(text, timestamptz) TO @roles;
"""
