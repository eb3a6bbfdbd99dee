"""What each queue was sent and has handled, compared.

Revision: 20250920_11, after 20250920_10.
Downgrade: not kept: which windows are being compared, and who sent the messages handled so far.
"""

from kit_tables import SCHEMAS, drop, grant, run

revision = "20250920_11"
down_revision = "20250920_10"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Note who sent what was handled; remember which windows of sent messages aren't agreed on."""
    for schema in SCHEMAS:
        run(f"""
            ALTER TABLE {schema}.inbox ADD COLUMN source text;
            CREATE TABLE {schema}.coherence_cursor (
                is_only boolean PRIMARY KEY CHECK (is_only),
                compared_to timestamptz NOT NULL
            );
            CREATE TABLE {schema}.sent_window (
                window_from timestamptz NOT NULL,
                queue text NOT NULL,
                window_to timestamptz NOT NULL,
                sent bigint NOT NULL,
                unsent bigint NOT NULL,
                digest bigint NOT NULL,
                handled bigint,
                next_at timestamptz NOT NULL,
                rounds integer NOT NULL,
                cleared bigint NOT NULL,
                resent integer NOT NULL,
                resend_at timestamptz NOT NULL,
                PRIMARY KEY (window_from, queue)
            );
            CREATE INDEX sent_window_due ON {schema}.sent_window (next_at);
            CREATE INDEX bus_dead_letter_by_message ON {schema}.bus_dead_letter (message_id, queue);
        """)
        grant(schema, "coherence_cursor", "SELECT, INSERT, UPDATE")
        grant(schema, "sent_window", "SELECT, INSERT, UPDATE, DELETE")


def downgrade() -> None:
    """Forget the comparisons."""
    for schema in SCHEMAS:
        drop(schema, "sent_window", "coherence_cursor")
        run(f"DROP INDEX {schema}.bus_dead_letter_by_message")
        run(f"ALTER TABLE {schema}.inbox DROP COLUMN source")
